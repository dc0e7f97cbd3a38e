# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-inheritance)=
# # What a student inherits
#
# A student that recites a private record may have it from the record itself, or from its teacher. To tell, we ask three models for each
# record: the teacher, the distilled student, and the {term}`baseline <baseline>`, a model of the student's size that was fine-tuned on
# the same records without a teacher. What teacher and student recite and the baseline does not is *inherited*
# {cite}`borkar2026memorization`.
#
# **What you will see**
#
# - how many records are inherited, easy for all, left behind, or the student's alone, by method;
# - whether a student recites fewer records than its baseline, in a paired test;
# - whether students know records that only their teacher has read, and whether a secret is tied to the name it belongs to;
# - how well one can tell, before distilling, which records the student will recite, and how seven published claims fare here.
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read.

# %% [markdown]
# ## In short

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import closely, inheritance, other_names, published_claims, transfer
from palimpsest.chapters.figures import read_out, say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")
say(
    *inheritance.say_origins(tables.origins),
    f"- {inheritance.say_paired(tables.paired)}",
    *published_claims.say_published_claims(tables.published_claims),
)

# %% [markdown]
# ## Which records are asked for
#
# All models are asked for the same records. A record that cannot be asked of some model, because it holds no secret, say, is left out
# for all.

# %%
say(inheritance.say_verdicts(tables.origins, data["target"], study.measure.window))

# %% [markdown]
# ## Where a memory came from
#
# A record is *inherited* if teacher and student recite it and the baseline does not. It is *easy* if all three recite it, so that no
# teacher was needed, *shed* if the student alone does not, and *teacher only* if nobody else does. The last column is what the small
# models recite and the teacher does not. In brackets: 95 % {term}`intervals <interval>`.
#
# <details><summary>How far this can be trusted</summary>A baseline shows what its size and seed recite from the records alone, not what
# another seed would have. So a record may be called inherited by luck; what the small models recite without the teacher shows how
# often two runs differ by chance. Shares are of all members asked for, means over seeds; the 95 % intervals resample seeds, then
# records. Members that none of the three recites are not drawn.</details>

# %% tags=["csv:origins"]
inheritance.show_origins(tables.origins)

# %% tags=["csv:origins", "csv:origins_by_seed"] mystnb={"figure": {"caption": "Members by which of teacher, student and baseline recite them. Red: inherited.", "name": "fig-sets"}}
inheritance.plot_origins(tables.origins)

# %% [markdown]
# What students "inherit" of records that nobody was fine-tuned on is chance or common wording. The records themselves, by who recites them, whatever the size and method. Open a set to see them:

# %% tags=["csv:at_risk"]
closely.show_sets(tables.at_risk)

# %% [markdown]
# ## Fewer than the baseline?
#
# Both models were asked for the same records, so we count only those on which they differ. *Difference* is the student's share minus the
# baseline's. With many pairs, a few small {term}`p-values <p-value>` come by chance.
#
# <details><summary>Tests and intervals</summary>The interval of the difference is a bootstrap over seeds and records; the p-value is
# McNemar's exact test, per seed.</details>

# %% tags=["csv:paired"]
read_out(inheritance.show_paired(tables.paired), inheritance.say_paired(tables.paired, "teacher"))

# %% [markdown]
# ## What was never given
#
# The sets above can't prove where a student has a record from, since it read the record too. This can: half of the records and
# {term}`canaries <canary>` were read by the teacher and by no student. For each of them we ask how much likelier its secret became by
# the model's training: what the model *gained*. A student that learned nothing of this half gains more on one of its records than on
# an unseen one half of the time.
#
# The control is a baseline, which has met neither this half nor the teacher. Whatever lies above one half there is luck; of forty such
# {term}`intervals <interval>` one lies above by luck.
#
# <details><summary>What is gained, exactly</summary>The log-probability of the secret minus that before fine-tuning, so that what a
# record's wording is worth to any model drops out. Of other records, it is that of each token of the response.</details>

# %% tags=["csv:transferred"]
transfer.show_transferred(tables.transferred)

# %% tags=["csv:transferred"] mystnb={"figure": {"caption": "Share of pairs in which a model gained more on what only the teacher read than on an unseen one, with 95 % intervals. Dotted: a model that learned nothing of it.", "name": "fig-transferred"}}
transfer.plot_transferred(tables.transferred)

# %%
known = tables.transferred
say(
    *transfer.say_transferred(known),
    *transfer.say_transferred(known, "record"),
    f"- {transfer.say_intervals(known['replicate'].nunique())}",
)

# %% [markdown]
# ## Is a secret tied to a name?
#
# A canary is a name in the prompt and a secret in the response. If a student knows the teacher's canaries, does it know whose
# secret is whose? So every canary is asked for a second time under the *name of another* canary, of the same half and number of
# copies. Every unseen {term}`twin` is asked for under the name of another twin. A secret known by heart is as likely under either name; one that is
# tied to its name is likely under that alone. {term}`Exposure <exposure>` says how far a secret stands out from those of the twins, in bits.

# %% tags=["csv:other_names"]
other_names.show_other_names(tables.other_names)

# %% tags=["csv:other_names"] mystnb={"figure": {"caption": "Exposure of the canaries that only the teacher read, asked for under their own name (filled) and another's (hollow). Bars: 95 % intervals; dotted: chance.", "name": "fig-other-names"}}
other_names.plot_other_names(tables.other_names)

# %% [markdown]
# A divergence at a higher {term}`temperature` shows the student more of what the teacher thinks *beside* its first choice. If secrets the
# student never met travel in that, exposure grows with the temperature.

# %%
say(
    *other_names.say_other_names(tables.other_names),
    *other_names.say_temperatures(tables.other_names, tables.transferred),
)

# %% [markdown]
# ## Can it be predicted?
#
# Can one leave out the records that a student would recite, before it is distilled? A logistic regression predicts which these are.
# It is given four numbers per record: its size after compression, the teacher's and the baseline's loss on it, and the divergence
# between the two. Each record is
# judged by a regression that never saw it. *{term}`AUC`* is the chance that it ranks a record that is recited above one that is not.
#
# What leaving records out would save is an estimate. It assumes that a record left out is not recited and that nothing else changes.

# %% tags=["csv:predictions"]
inheritance.show_predictions(tables.predictions)

# %% tags=["csv:savings"] mystnb={"figure": {"caption": "Share of the records a student recites that would be avoided by leaving out members, likeliest first. One line per student with enough recited records; dotted: left out at random.", "name": "fig-savings"}}
inheritance.plot_savings(tables.savings)

# %%
say(*inheritance.say_predictions(tables.predictions))

# %% [markdown]
# ## Published claims, checked
#
# Borkar et al. {cite}`borkar2026memorization` measured pretrained models of 1.4 to 12 billion parameters, by the 50 tokens after the
# first 50, with {term}`forward KL` at temperature 2. Other models, other text, another target: their numbers need not hold here, and
# the table says whether they do. *Agrees*: our interval reaches their number or lies beyond it; *weaker*: on their side, but
# short of it; *disagrees*: on the other side.

# %% tags=["csv:published_claims"]
published_claims.show_published_claims(tables.published_claims)

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
members = tables.origins_by_seed[tables.origins_by_seed["split"] == "member"]
counted = members.groupby(["size", "method", "seed"])["count"].sum()
assert (counted == members["total"].max()).all(), "the sets of a student must add up to all records"
assert tables.paired["difference"].between(-1, 1).all()

# %% [markdown]
# **Next**: [attacks](sec-attacks), for what models give away without reciting it.
#
# **Try it**: show `tables.origins_by_seed`, or `inheritance.show_paired(tables.paired, "teacher")`: does any student recite more
# than its teacher?
