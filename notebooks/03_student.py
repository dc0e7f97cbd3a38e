# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-student)=
# # Train one student
#
# One arm of the study: one student size, one method, one seed. The runner executes this notebook once per arm; every
# executed copy is in the book.
#
# **What you will see**
#
# - which text the student reads and what its loss compares;
# - memorization and held-out loss after every epoch;
# - where the arm ends, beside the base model it began from and the teacher.
#
# **Needs**: notebooks 01 and 02 for the same study.

# %% [markdown]
# ## Setup
#
# The next cell holds the parameters; the runner overrides them.

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
arm: str = "small-word_kd-s0"  # size-method-sSEED

# %%
import pandas as pd

from palimpsest.book import stages
from palimpsest.chapters import figures, memorization
from palimpsest.measure import results
from palimpsest.study import Arm, load_study, methods

figures.set_theme()
plan, this = load_study(study), Arm.parse(arm)
rule, settings = methods.METHODS[this.method], plan.training(this.size, this.method)

# %% [markdown]
# ## The method
#
# A method is two choices: whose text the student reads (the references, text the teacher wrote once, or the student's own
# samples) and what is minimized on it ([methods](../methods.md) has the mathematics).

# %%
figures.say(
    f"This arm trains the **{this.size}** student with **{rule.label}**, seed {this.seed}: it reads "
    f"{methods.TEXTS[rule.text]} and minimizes {methods.OBJECTIVES[rule.objective]}"
    + (
        f", mixed with {rule.cross_entropy_weight:g} parts cross-entropy."
        if 0 < rule.cross_entropy_weight < 1
        else "."
    ),
    methods.mitigation(rule, settings),
)

# %%
pd.Series(settings.model_dump(exclude_none=True), name="student training").to_frame()

# %% [markdown]
# ## Training
#
# The student starts from the base of its size, which has never seen a private letter. One line per epoch: loss and
# verbatim rate of members and non-members.

# %%
stages.train_student(plan, this, run_dir)
facts = results.run_facts(run_dir, arm)
figures.facts(facts)

# %% mystnb={"figure": {"caption": "This student while it is trained. Left: loss in nats per response token on members and non-members. Right: share of records decoded verbatim from the prompt and share of secrets decoded exactly from the text before them; bands are 95 % Wilson intervals.", "name": "fig-student-trajectory"}}
path = results.trajectory(run_dir, arm)
figures.trajectory(path)

# %% [markdown]
# ## Where it ends
#
# The excess over non-members is what the student knows *about the members*; the rest it could have guessed.

# %%
end = path.groupby("split").last()
figures.say(
    f"After {facts['epochs']:g} epochs the student recites {figures.percent(end.loc['member'], 'memorized', 'counted')} of "
    f"the members' {end['unit'].iloc[0]} and {figures.percent(end.loc['non_member'], 'memorized', 'counted')} of the non-members', at a "
    f"held-out loss of {end.loc['non_member', 'loss']:.2f} nats per token."
)

# %% [markdown]
# Beside the base it began from and, for a distilled student, its teacher:

# %%
compared = [f"base-{this.size}", *(["teacher"] if rule.distilled else []), arm]
rates = memorization.rates(plan, run_dir, compared)
figures.rate_table(rates[rates["split"] == "member"], ["label"], "reading")

# %% [markdown]
# ## Checks

# %%
assert path["loss"].notna().all(), "a loss is not a number"
assert facts["steps"] > 0 and set(path["split"]) == {"member", "non_member"}

# %% [markdown]
# ## Summary

# %%
figures.say(
    f"- {facts['steps']} optimizer steps in {facts['train_seconds']:.0f} s, {facts['parameters']:,} parameters.",
    f"- Members' {end['unit'].iloc[0]} recited: {figures.percent(end.loc['member'], 'memorized', 'counted')}; "
    f"held-out loss {end.loc['non_member', 'loss']:.2f}.",
)

# %% [markdown]
# **Next**: [memorization of all arms](sec-memorization).
#
# **Try it**: run this notebook with `arm = "small-sft-s0"`: the same student, fine-tuned instead of distilled.
