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
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import tradeoffs
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
tables = load_tables(open_run(study_file, run_dir))

# %% [markdown]
# ## Every epoch of every student
#
# While it was trained, a student was scored on members and non-members. Held-out loss is the loss on non-members: records of
# the same source, never trained on by anyone. It falls while the student learns what such records are like, and rises again
# when the student begins to learn single ones by heart.

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "Members' secrets (records, where none are marked) recited, against held-out loss in nats per response token. One line per student, one point per measured epoch; large: the last.", "name": "fig-tradeoff"}}
tradeoffs.plot_trajectories(tables.trajectories)

# %% [markdown]
# Left and low is better: a good model that recites little.
#
# ## Stopped at its best, or run to the end
#
# Early stopping is the simplest privacy measure there is. The table shows every model at the epoch of its lowest held-out
# loss and after the last one; plain fine-tuning, stopped early, is a row of its own.

# %% tags=["csv:stopped", "csv:trajectories"]
tradeoffs.show_stopped(tables.stopped, tables.trajectories)

# %%
say(*tradeoffs.say_stopped(tables.stopped, tables.trajectories))

# %% [markdown]
# ## At equal quality
#
# Each student is laid beside plain fine-tuning of its size and seed at the lowest held-out loss that *both* reach: what had
# each memorized when its held-out loss first came down to that value? Between two epochs we interpolate linearly, record by
# record. The 95 % intervals resample seeds, then records, the same ones for both models. Where neither recites anything there is
# nothing to resample, and the interval is Newcombe's for two shares {cite}`newcombe1998interval`. The last column compares the
# loss on the *members* at that point: below zero, the student fits them closer than fine-tuning does, at the same quality.

# %% tags=["csv:equal_quality"]
tradeoffs.show_equal_quality(tables.equal_quality)

# %%
say(*tradeoffs.say_equal_quality(tables.equal_quality))

# %% [markdown]
# ## What each model costs
#
# Floating-point operations are computed from parameters and tokens ([methods](../methods.md)); seconds and memory were
# measured in this run, on the device named in each run's page. The base models' own training is not counted again.

# %% tags=["csv:costs"]
tradeoffs.show_costs(tables.costs)

# %% tags=["csv:costs", "csv:trajectories"] mystnb={"figure": {"caption": "Training arithmetic (10⁹ floating-point operations) of each student, against the members' secrets (records, where none are marked) it recites at the end of training.", "name": "fig-cost"}}
tradeoffs.plot_costs(tables.costs, tables.trajectories)

# %% [markdown]
# ## Checks

# %%
assert tables.trajectories["memorized"].between(0, 1).all()
best = tables.stopped.set_index("model")["held_out_loss"]
assert tables.trajectories.groupby("model")["held_out_loss"].min().eq(best).all()
assert (tables.costs["parameters"] > 0).all()

# %% [markdown]
# ## Summary

# %%
say(*tradeoffs.say_tradeoffs(tables.trajectories, tables.equal_quality))

# %% [markdown]
# **Next**: [methods compared](sec-comparisons), two by two.
#
# **Try it**: give `sft` fewer epochs with `by_method: {sft: {epochs: 8}}` in a copy of the study. Is distillation still worth it?
