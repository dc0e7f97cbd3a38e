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
# Who compares students only at the end of training compares two things at once: the method, and how far it happened to get. A worse
# model always looks more private. This chapter puts memorization and quality into one picture, over the whole of training. Loss, the
# lower the better, is counted in {term}`nats <nat>` per token: one more means 2.7 times less likely.
#
# **What you will see**
#
# - the path of every method through quality and memorization, for three meanings of quality;
# - what plain fine-tuning recites when it is stopped at its best, by how often a text was repeated;
# - what each model costs to train, to keep and to run.
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read. Which of two methods memorizes less
# is asked in [the next chapter](sec-comparisons), where {term}`replicates <replicate>` can answer.

# %% [markdown]
# ## In short

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import repetition, tradeoffs
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
tables, unit = load_tables(run), run.require("data")["unit"]
say(*tradeoffs.say_tradeoffs(tables.trajectories, unit))

# %% [markdown]
# ## Memorization over quality
#
# Every model was measured several times while it was trained. {term}`Validation loss <validation loss>`, across and calibrated, says how
# surprised it is by records that nobody was trained on, in nats per token. It falls while the student learns what such records are like,
# and rises when it begins to learn single ones by heart. What the student knows of the private records stands upwards.
#
# <details><summary>The measures</summary>Validation loss is taken after one temperature was fitted: a model that is only too sure of
# itself has forgotten nothing. AUC is the chance that an attack by the loss tells a member from a non-member; one half is guessing.
# Exposure says how far planted secrets stand out from unseen ones, in bits; about 1.4 is chance. Transferred: of records that only the
# teacher has read. Each line is the mean over replicates; each point a measurement, the large one the last.</details>

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "What students know of the records, against validation loss, while they are trained. Left and low is better; squares: repeated text, diamonds: read by the teacher alone.", "name": "fig-tradeoff"}}
tradeoffs.plot_tradeoff(tables.trajectories, unit)

# %%
say(*tradeoffs.say_tradeoff(tables.trajectories, unit))

# %% [markdown]
# Loss is one meaning of quality. Another is the text itself: {term}`ROUGE-L <ROUGE>` compares greedy answers to fixed prompts with the references.

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "The same against ROUGE-L, the likeness of answers to the references. Right and low is better.", "name": "fig-tradeoff-rouge"}}
tradeoffs.plot_tradeoff(tables.trajectories, unit, "rouge_l")

# %%
say(*tradeoffs.say_tradeoff(tables.trajectories, unit, "rouge_l"))

# %% [markdown]
# A third is what was spent: the same tokens read.

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "The same against the tokens of training text that were read, a warm start's included.", "name": "fig-tradeoff-tokens"}}
tradeoffs.plot_tradeoff(tables.trajectories, unit, "tokens")

# %% [markdown]
# Methods that were trained at some sizes only are drawn apart, beside plain fine-tuning:

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "What students of further methods know of the records, against validation loss.", "name": "fig-tradeoff-further"}}
tradeoffs.plot_tradeoff(tables.trajectories, unit, further=True)

# %%
say(*tradeoffs.say_tradeoff(tables.trajectories, unit, further=True))

# %% [markdown]
# ## Stopped at its best, or run to the end
#
# To stop early is the simplest privacy measure there is. The table shows every method at its lowest calibrated validation loss and after
# its last step, means over replicates.

# %% tags=["csv:stopped", "csv:trajectories"]
tradeoffs.show_stopped(tables.stopped, tables.trajectories, unit)

# %% [markdown]
# What plain fine-tuning recites depends on how often it read a text. In brackets: the least and the most of one replicate, or, of a
# single training, a 95 % {term}`interval`.

# %% tags=["csv:by_dose"]
repetition.show_baseline_doses(tables.by_dose)

# %%
say(*repetition.say_baseline_doses(tables.by_dose, unit))

# %% tags=["csv:by_dose"] mystnb={"figure": {"caption": "What is recited at the lowest calibrated validation loss, by copies in the training text. One line per method, the mean over replicates.", "name": "fig-doses-best"}}
repetition.plot_by_dose(tables.by_dose, unit)

# %% [markdown]
# ## What each model costs
#
# Floating-point operations are computed from parameters and tokens ([methods](../methods.md)); seconds and memory were
# measured in this run, on the device named in each run's page. The {term}`base models <base model>`' own training is not counted again.

# %% tags=["csv:costs"]
tradeoffs.show_costs(tables.costs)

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
assert tables.trajectories["auc"].dropna().between(0, 1).all()
models = tables.trajectories.groupby(["replicate", "model"])
assert len(tables.stopped) == len(models)
assert (models["step"].diff().dropna() > 0).all()
assert (tables.costs["parameters"] > 0).all()

# %% [markdown]
# **Next**: [methods compared](sec-comparisons), two by two.
#
# **Try it**: give `sft` fewer epochs with `by_method: {sft: {epochs: 2}}` in a copy of the study. Where does its path end now?
