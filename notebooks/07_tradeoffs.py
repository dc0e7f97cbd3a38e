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
# - each method at its own best epoch, beside plain fine-tuning stopped at the same held-out loss;
# - what each model costs to train, to keep and to run.
#
# **Needs**: notebooks 01 to 03; only tables are read.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest import cost, figures, report, tradeoff
from palimpsest.runs import locate, write_table
from palimpsest.study import load_study

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
paths = tradeoff.paths(plan, run_dir)
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
best, end = tradeoff.stopped(paths), tradeoff.final(paths)
write_table(best, tables / "early_stopped.csv")
figures.stopped_table(best, end)

# %%
figures.say(*report.early_stopping(best, end))

# %% [markdown]
# ## At equal quality
#
# For each distilled student at its best epoch we look up what plain fine-tuning of the *same* size and seed had memorized
# when *its* held-out loss first came down to the same value, interpolating linearly between epochs. Where fine-tuning never
# got as good, its own best epoch is taken and the row says so. The interval is Newcombe's for a difference of two shares.

# %%
equal = tradeoff.matched(paths)
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
# **Next**: [every run](../every_run.md), one page per student; or [your own models and data](../use_your_own.md).
#
# **Try it**: give `sft` fewer epochs with `by_method: {sft: {epochs: 8}}` in a copy of the study. Is distillation still worth it?
