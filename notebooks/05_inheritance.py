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
# A student that recites a private letter may have it from the letter itself, or from its teacher. To tell, three models are
# laid side by side, letter by letter: the teacher, the distilled student, and the *baseline*, a model of the student's size
# and seed that was fine-tuned on the same letters without a teacher. What teacher and student recite and the baseline does
# not is *inherited* {cite}`borkar2026memorization`.
#
# **What you will see**
#
# - how many letters are inherited, easy for all, left behind, or the student's alone, by method;
# - whether a student recites fewer letters than its baseline, in a paired test;
# - whether students know secrets that only their teacher has read;
# - how well one can tell, before distilling, which letters the student will recite, and how seven published claims fare here.
#
# **Needs**: notebooks 01 to 03; nothing is trained or scored here, only tables are read. Some seconds.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
reading: str = "auto"  # window, whole, secret, or auto: secret where the data marks secrets, else window

# %%
from palimpsest.chapters import claims, figures, inheritance, memorization
from palimpsest.measure import lineage
from palimpsest.study import load_study
from palimpsest.study.runs import locate, write_table

figures.set_theme()
plan = load_study(study)
tables = locate(run_dir) / "tables"

# %% [markdown]
# ## One verdict per letter and model
#
# Every later table is made from one matrix: a row per letter, a column per model, *true* where the model recites it. Letters
# on which some model has no verdict (no secret in it, say) are left out for all, so that each comparison is over the same
# letters.

# %%
letters = memorization.letters(plan, run_dir)
chosen = lineage.choose_reading(letters, reading)
memorized = lineage.verbatim_matrix(plan, run_dir, letters, chosen)
members = inheritance.sets(plan, memorized, letters, "member")
others = inheritance.sets(plan, memorized, letters, "non_member")
figures.say(
    f"Here a model recites a letter if it {inheritance.READINGS[chosen].format(window=plan.measure.window)}. "
    f"{members['id'].nunique()} members and {others['id'].nunique()} non-members have a verdict from all {memorized.shape[1]} models."
)

# %% [markdown]
# ## Eight sets
#
# Three verdicts give eight sets. Beside *inherited* stand *easy* (all three recite it, so no teacher was needed), *shed* (teacher
# and baseline recite it, the student does not), *teacher only*, and what the small models recite without the teacher. A single pair of
# runs also differs by chance: *student only* and *baseline only* show how much. Shares are of all members asked about, means over
# seeds; the 95 % intervals resample seeds, then letters.

# %%
pooled = lineage.across_seeds(members)
write_table(pooled, tables / "inheritance.csv")
write_table(lineage.count_sets(members), tables / "inheritance_by_seed.csv")
inheritance.set_table(pooled)

# %% mystnb={"figure": {"caption": "Members by which of teacher, student and baseline recite them, per size and method, mean over seeds. Red: inherited. Light grey: recited by the teacher alone. Letters that none of the three recites are not drawn.", "name": "fig-sets"}}
inheritance.set_figure(pooled)

# %% [markdown]
# The same sets of letters that nobody was fine-tuned on say how much of this is chance or common wording.

# %%
chance = lineage.across_seeds(others)
figures.say(*inheritance.inherited_told(pooled, chance))

# %% [markdown]
# ## Fewer than the baseline?
#
# Both models were asked about the same letters, so the comparison is paired: the letters on which they agree say nothing. The
# interval of the difference is a bootstrap over seeds and letters; McNemar's exact test {cite}`mcnemar1947note` is done per
# seed. With many pairs, a few small p-values come by chance.

# %%
compared = lineage.compare(members)
write_table(compared, tables / "inheritance_paired.csv")
inheritance.pair_table(compared)

# %%
with_teacher = lineage.compare(members, "teacher")
figures.say(
    inheritance.fewer_told(compared, "their baseline"), "", inheritance.fewer_told(with_teacher, "the teacher")
)

# %% [markdown]
# ## Secrets only the teacher has read
#
# Sets of letters can't prove where a student has them from, since it read them too. These can: some planted secrets are in the
# teacher's text and in no student's. For each model and secret we take what it *gained* by its training: the log-probability
# of the secret minus that before fine-tuning. A student that learned nothing of these canaries gains more on one of them than
# on one of its unseen twins half of the time. Baselines have no teacher and can't do better; they are the control.

# %%
only = inheritance.counterfactual(plan, run_dir)
write_table(only, tables / "counterfactual.csv")
inheritance.canary_table(only) if len(only) else None

# %% mystnb={"figure": {"caption": "Share of pairs in which a model gained more on a canary that only the teacher was fine-tuned on than on one of its unseen twins, with 95 % intervals. Dotted: a model that learned nothing of them. Baselines (SFT) never met the canaries in any way.", "name": "fig-counterfactual"}}
inheritance.counterfactual_figure(only) if len(only) else None

# %%
figures.say(inheritance.counterfactual_told(only))

# %% [markdown]
# ## Told beforehand
#
# Can one leave out the letters that a student would recite, before it is distilled? A logistic regression is given four numbers per
# letter: its size after zlib, the teacher's and the baseline's loss on it, and the divergence between the two. Each letter is
# judged by a regression that never saw it. What leaving letters out would save is an estimate: it counts a letter left out as not
# recited, and assumes that nothing else changes.

# %%
foretold = inheritance.predictions(plan, run_dir, letters, members)
predicted = inheritance.prediction_table(foretold)
write_table(predicted, tables / "prediction.csv")
inheritance.forecast_table(predicted)

# %% mystnb={"figure": {"caption": "Share of the letters a student recites that would be avoided by leaving out members, those likeliest to be recited first. One line per student with enough recited letters; dotted: letters left out at random.", "name": "fig-savings"}}
inheritance.saving_figure(foretold)

# %%
figures.say(*inheritance.predicted_told(predicted))

# %% [markdown]
# ## Published claims, checked
#
# Borkar et al. {cite}`borkar2026memorization` measured pretrained models of 1.4 to 12 billion parameters, by the 50 tokens after the
# first 50, with forward KL at temperature 2. Other models, other text, another reading: their numbers need not hold here, and
# the table says whether they do. *Agrees*: our interval reaches their number or lies beyond it; *weaker*: on their side, but
# short of it; *disagrees*: on the other side.

# %%
checked = claims.check(members, foretold)
write_table(checked, tables / "claims.csv")
inheritance.claim_table(checked)

# %%
figures.say(*inheritance.claims_told(checked))

# %% [markdown]
# ## Checks

# %%
per_arm = lineage.count_sets(members).groupby(["size", "method", "seed"])["count"].sum()
assert (per_arm == members["id"].nunique()).all(), "the sets of an arm must add up to all letters"
assert not set(members["id"]) & set(others["id"])
assert compared["difference"].between(-1, 1).all()

# %% [markdown]
# ## Summary

# %%
outcomes = checked["outcome"].value_counts()
figures.say(
    f"- {inheritance.fewer_told(compared, 'their baseline')}",
    f"- {inheritance.counterfactual_told(only)}",
    f"- Of {len(checked)} checks of published claims, {outcomes.get('agrees', 0)} agree, {outcomes.get('weaker', 0)} are weaker, "
    f"{outcomes.get('disagrees', 0)} disagree; the others cannot be decided here.",
)

# %% [markdown]
# **Next**: [attacks](sec-attacks), for what models give away without reciting it.
#
# **Try it**: set `reading` to `window` and run again: fewer letters are recited whole than secrets; does the order of methods stay?
