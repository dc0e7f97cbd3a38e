# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-tradeoffs)=
# # What memorization buys
#
# Comparing students only at the end of training compares two things at once: the method, and how far it happened to get. A
# worse model always looks more private. This chapter puts memorization and quality into one picture, for every epoch, and
# then asks the fair question: **at the same held-out loss, which method memorizes less?**
#
# **What you will see**
#
# - the path of every student through (held-out loss, memorization);
# - each method beside plain fine-tuning at the same held-out loss;
# - what each model costs to train, to keep and to run.
#
# **Needs**: notebooks 01 to 03; only tables are read.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import cost, figures, report, tradeoffs
from palimpsest.study import load_study
from palimpsest.study.runs import locate, write_table

figures.set_theme()
plan = load_study(study)
tables = locate(run_dir) / "tables"

# %% [markdown]
# ## Every epoch of every student
#
# After each epoch a student was scored on members and non-members. Held-out loss is the loss on non-members: letters from
# the same source, never trained on by anyone. It falls while the student learns the house style, and rises again when the
# student begins to learn single letters by heart.

# %%
paths = tradeoffs.paths(plan, run_dir)
write_table(paths, tables / "trajectories.csv")
students = paths[paths["role"] != "teacher"]

# %% mystnb={"figure": {"caption": "Members' secrets recited against held-out loss (nats per response token of non-members), one line per student, one point per measured epoch; the large marker is the last epoch. Left and low is better: good text, little recited.", "name": "fig-tradeoff"}}
figures.tradeoff(students)

# %% [markdown]
# ## Stopped at its best, or run to the end
#
# Early stopping is the simplest privacy measure there is. The table shows every model at the epoch of its lowest held-out
# loss and after the last one; plain fine-tuning, stopped early, is a row of its own.

# %%
best, end = tradeoffs.stopped(paths), tradeoffs.final(paths)
write_table(best, tables / "early_stopped.csv")
figures.stopped_table(best, end)

# %%
figures.say(*report.early_stopping(best, end))

# %% [markdown]
# ## At equal quality
#
# Each student is laid beside plain fine-tuning of its size and seed at the lowest held-out loss that *both* reach: what had
# each memorized when its held-out loss first came down to that value? Between two epochs we interpolate linearly, record by
# record. The 95 % intervals resample seeds, then records, the same ones for both models; where neither recites anything, so that
# there is nothing to resample, the interval is Newcombe's for two shares {cite}`newcombe1998interval`. The last column compares the loss on the
# *members* at that point: below zero, the student fits them closer than fine-tuning does, at the same quality on others' letters.

# %%
equal = tradeoffs.matched(plan, run_dir)
write_table(equal, tables / "equal_utility.csv")
figures.matched_table(equal)

# %%
figures.say(*report.equal_utility(equal))

# %% [markdown]
# ## What each model costs
#
# Floating-point operations are computed from parameters and tokens ([methods](../methods.md)); seconds and memory were
# measured in this run, on the device named in each run's page. The base models' own training is not counted again.

# %%
costs = cost.table(plan, run_dir)
write_table(costs, tables / "cost.csv")
figures.cost_table(costs)

# %% mystnb={"figure": {"caption": "Training arithmetic (10⁹ floating-point operations) of each student against the share of members' secrets it recites at the end of training.", "name": "fig-cost"}}
figures.cost(costs.merge(end[["model", "memorized", "unit"]], on="model"))

# %% [markdown]
# ## Checks

# %%
assert (best["held_out_loss"] <= end["held_out_loss"] + 1e-9).all()
assert paths["memorized"].between(0, 1).all()
assert (costs["parameters"] > 0).all()

# %% [markdown]
# ## Summary

# %%
figures.say(*report.tradeoff_summary(paths, equal))

# %% [markdown]
# **Next**: [what the grid says](sec-grid), over several seeds.
#
# **Try it**: give `sft` fewer epochs with `by_method: {sft: {epochs: 8}}` in a copy of the study. Is distillation still worth it?
