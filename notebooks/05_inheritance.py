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
# A student that recites a private record may have it from the record itself, or from its teacher. To tell, three models are
# laid side by side, record by record: the teacher, the distilled student, and the *baseline*, a model of the student's size
# and seed that was fine-tuned on the same records without a teacher. What teacher and student recite and the baseline does
# not is *inherited* {cite}`borkar2026memorization`.
#
# **What you will see**
#
# - how many records are inherited, easy for all, left behind, or the student's alone, by method;
# - whether a student recites fewer records than its baseline, in a paired test;
# - whether students know records that only their teacher has read, and whether a secret is tied to the name it belongs to;
# - how well one can tell, before distilling, which records the student will recite, and how seven published claims fare here.
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read.

# %% [markdown] tags=["remove-cell"]
# ## Setup

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

# %% [markdown]
# ## One verdict per record and model
#
# Every later table is made from one matrix: a row per record, a column per model, *true* where the model recites it. Records
# on which some model has no verdict (no secret in it, say) are left out for all, so that each comparison is over the same
# records.

# %%
say(inheritance.say_verdicts(tables.origins, data["target"], study.measure.window))

# %% [markdown]
# ## Eight sets
#
# Three verdicts give eight sets. Beside *inherited* stand *easy* (all three recite it, so no teacher was needed), *shed*
# (teacher and baseline recite it, the student does not), *teacher only*, and what the small models recite without the teacher.
#
# A baseline shows what its size and seed recite from the records alone; it cannot show what another seed would have recited.
# So a record may be called inherited by luck. *Student only* and *baseline only* show how much two runs differ by chance.
# Shares are of all members asked about, means over seeds; the 95 % intervals resample seeds, then records.

# %% tags=["csv:origins"]
inheritance.show_origins(tables.origins)

# %% tags=["csv:origins", "csv:origins_by_seed"] mystnb={"figure": {"caption": "Members by which of teacher, student and baseline recite them, mean over seeds. Red: inherited. Light grey: recited by the teacher alone. Members that none of the three recites are not drawn.", "name": "fig-sets"}}
inheritance.plot_origins(tables.origins)

# %% [markdown]
# The records themselves, by who recites them, whatever the size and method:

# %% tags=["csv:at_risk"]
closely.show_sets(tables.at_risk)

# %% [markdown]
# The same sets of records that nobody was fine-tuned on say how much of this is chance or common wording.

# %%
say(*inheritance.say_origins(tables.origins))

# %% [markdown]
# ## Fewer than the baseline?
#
# Both models were asked about the same records, so we count only those on which they differ. The interval of the difference is
# a bootstrap over seeds and records; McNemar's exact test {cite}`mcnemar1947note` is done per seed. With many pairs, a few
# small p-values come by chance.

# %% tags=["csv:paired"]
told = [inheritance.say_paired(tables.paired), "", inheritance.say_paired(tables.paired, "teacher")]
read_out(inheritance.show_paired(tables.paired), *told)

# %% [markdown]
# ## What was never given
#
# Sets of records can't prove where a student has them from, since it read them too. These can: a half of the records and canaries
# is in the teacher's text and in no student's, neither as a response nor as a prompt. For each model and record we take what it
# *gained* by its training: the log-probability of the secret (of a record without canary, of each token of its response) minus
# that before fine-tuning, so what a record's wording is worth to any model drops out. A student that learned nothing of this half
# gains more on one of its records than on an unseen one half of the time.
#
# A baseline has met neither this half nor the teacher. It can know the form of the records, which unseen ones share; it cannot
# know which secrets were drawn. So it is the control: whatever lies above one half there is luck, and of forty such intervals
# one lies above by luck.

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
# ## Known by heart, or for whom?
#
# A canary is a name in the prompt and a secret in the response. If a student knows the teacher's canaries, does it know whose
# secret is whose? So every canary is asked for a second time under the *name of another* canary of the same half and number
# of copies, and every unseen twin under that of another twin. A secret known by heart is as likely under either name; one that is
# tied to its name is likely under that alone. Exposure says how far a secret stands out from those of the twins, in bits.

# %% tags=["csv:other_names"]
other_names.show_other_names(tables.other_names)

# %% tags=["csv:other_names"] mystnb={"figure": {"caption": "Exposure of the canaries that only the teacher read, asked for under their own name (filled) and another's (hollow), with 95 % intervals. Dotted: chance.", "name": "fig-other-names"}}
other_names.plot_other_names(tables.other_names)

# %% [markdown]
# A divergence at a higher temperature shows the student more of what the teacher thinks *beside* its first choice. If secrets the
# student never met travel in that, exposure grows with the temperature.

# %%
say(
    *other_names.say_other_names(tables.other_names),
    *other_names.say_temperatures(tables.other_names, tables.transferred),
)

# %% [markdown]
# ## Told beforehand
#
# Can one leave out the records that a student would recite, before it is distilled? A logistic regression is given four numbers
# per record: its size after zlib, the teacher's and the baseline's loss on it, and the divergence between the two. Each record
# is judged by a regression that never saw it. What leaving records out would save is an estimate: it counts a record left out
# as not recited, and assumes that nothing else changes.

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
# first 50, with forward KL at temperature 2. Other models, other text, another target: their numbers need not hold here, and
# the table says whether they do. *Agrees*: our interval reaches their number or lies beyond it; *weaker*: on their side, but
# short of it; *disagrees*: on the other side.

# %% tags=["csv:published_claims"]
shown = published_claims.show_published_claims(tables.published_claims)
read_out(shown, *published_claims.say_published_claims(tables.published_claims))

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
members = tables.origins_by_seed[tables.origins_by_seed["split"] == "member"]
counted = members.groupby(["size", "method", "seed"])["count"].sum()
assert (counted == members["total"].max()).all(), "the sets of a student must add up to all records"
assert tables.paired["difference"].between(-1, 1).all()

# %% [markdown]
# ## Summary

# %%
outcomes = tables.published_claims["outcome"].value_counts()
agree, weaker, against = (outcomes.get(name, 0) for name in ("agrees", "weaker", "disagrees"))
say(
    f"- {inheritance.say_paired(tables.paired)}",
    *transfer.say_transferred(tables.transferred),
    *other_names.say_other_names(tables.other_names),
    f"- Of {len(tables.published_claims)} checks of published claims, {agree} agree, {weaker} are weaker, {against} disagree. The "
    "others cannot be decided here.",
)

# %% [markdown]
# **Next**: [attacks](sec-attacks), for what models give away without reciting it.
#
# **Try it**: show `tables.origins_by_seed`, or `inheritance.show_paired(tables.paired, "teacher")`: does any student recite more
# than its teacher?
