# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-comparisons)=
# # Methods compared
#
# One student per method tells little: train it again with another seed and the number moves. This chapter compares methods over
# seeds *and* records, and takes the design apart. Methods differ in two choices, whose text the student reads and which divergence it
# minimizes; crossing the two shows what each choice does by itself. Beside them stand the simplest ways of leaking less that the
# study has.
#
# **What you will see**
#
# - which of the paper's findings {cite}`singh2025teacher` hold here, contradictions first;
# - what the reverse divergence and the student's own text do, at the end of training and at equal held-out loss;
# - whether distilling beats stopping early, and the simplest alternatives.
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read. A study with one seed can't tell
# how far seeds lie apart; published tables of several seeds are then shown instead, if the project keeps any.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
published_dir: str = "book/published/demo-seeds"  # shown where the study has one seed

# %%
from palimpsest.book import published
from palimpsest.chapters import comparisons, tradeoffs
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import open_run

set_theme()
tables, source = published.choose(open_run(study_file, run_dir), published_dir)
effects, doses = tables.effects, tables.doses
say(source, "", comparisons.say_spread(effects))

# %% [markdown]
# All seeds share one teacher; a seed changes the order of a student's batches and what it samples. Every difference below is
# the first method's share of what is recited minus the second's, in percentage points; below zero, the first leaks less. The 95 %
# intervals are percentiles of a paired bootstrap over seeds, then records. *At equal held-out loss* reads both models where they
# first reach the lowest loss that both reach ([the chapter before](sec-tradeoffs)); the members' loss beside it says which of them
# fits the members closer there, in nats per token. At the end, the held-out loss says which has become the worse model.
#
# **Read with care**: the intervals hold other seeds and other records, not another teacher or another draw of the data. At equal
# held-out loss, two runs of one method that differ in their seed alone can lie further apart than two methods do. So a comparison
# that is decided here is an observation of these runs, not yet a claim about methods.
#
# ## The paper's findings
#
# At the end of training, the paper finds less memorization with each of three distillation methods than with fine-tuning, and
# least with reverse KL on the student's own text (RKLD). It has one seed, no held-out control and no comparison at equal quality.
# Here its findings are judged at the end of training by what is recited. At equal held-out loss, where often nobody recites
# anything, they are judged by a finer measure: which of the two has the lower loss on the members.

# %% tags=["csv:effects"]
say(*comparisons.say_paper(effects))

# %% tags=["csv:effects"]
comparisons.show_paper(effects)

# %% tags=["csv:effects"]
comparisons.show_effects(effects, "distilling")

# %% [markdown]
# ## Everything at a glance

# %% tags=["csv:effects"] mystnb={"figure": {"caption": "Differences in what is recited of the members, first method minus second, with 95 % intervals. Filled: at the end of training; hollow: at equal held-out loss. Colours: the question asked.", "name": "fig-effects"}}
comparisons.plot_effects(effects)

# %% [markdown]
# Left of the dotted line the first method leaks less. Where neither of two models recites anything, what they know of the members
# can still differ:

# %% tags=["csv:effects"] mystnb={"figure": {"caption": "Differences in the loss on members, in nats per response token, of two models at the same held-out loss, with 95 % intervals. Left of the dotted line the first method fits the members closer.", "name": "fig-fit"}}
comparisons.plot_effects(effects, fit=True)

# %% [markdown]
# A method that leaks less at the end may just have learned less. The paths show it: each line is the mean over seeds.

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "What is recited of the members against held-out loss (nats per response token of non-members), mean over seeds. One line per method, one point per measured epoch; large: the last.", "name": "fig-mean-trajectories"}}
tradeoffs.plot_trajectories(comparisons.mean_trajectories(tables.trajectories))

# %% [markdown]
# ## Reverse or forward divergence

# %% tags=["csv:effects"]
comparisons.show_effects(effects, "divergence")

# %%
say(*comparisons.say_effects(effects, "divergence"))

# %% [markdown]
# ## Own text or references

# %% tags=["csv:effects"]
comparisons.show_effects(effects, "text")

# %%
say(*comparisons.say_effects(effects, "text"))

# %% [markdown]
# ## Stopping early, and other simple measures
#
# Plain fine-tuning can be stopped early. What else may stand here, if the study has it: the goldfish loss
# {cite}`hans2024goldfish` never trains on some of the response tokens. *Predicted left out*: the method is run once, a regression
# tells which records it makes a student recite, and it is run again without them {cite}`borkar2026memorization`. DP-SGD
# {cite}`abadi2016deep` bounds what can be learned of one record. Leaving records or repetitions out makes an epoch shorter, so such
# a student also takes fewer steps: at the end of training, that alone means less memorization.

# %% tags=["csv:effects"]
comparisons.show_effects(effects, "early stopping", "mitigation", "distilling or masking")

# %%
say(*comparisons.say_effects(effects, "early stopping", "mitigation"))

# %% [markdown]
# Is distilling better than the simplest alternative, one line of code that masks tokens?

# %%
say(*comparisons.say_effects(effects, "distilling or masking"))

# %% [markdown]
# ## Secrets that are repeated
#
# Planted secrets, canaries, may stand in the training text several times. Their exposure, the rank of the true secret among unseen
# ones, in bits, moves long before anything is recited. Intervals are bootstraps over seeds and canaries; canaries are few.

# %% tags=["csv:doses"]
comparisons.show_repeated(doses)

# %%
say(*comparisons.say_repeated(doses), "", comparisons.say_hidden(effects, doses))

# %% [markdown]
# ## Checks

# %%
assert set(effects["verdict"]) <= {"less", "more", "undecided"}
assert (effects["low"] <= effects["difference"] + 1e-9).all() and (
    effects["difference"] <= effects["high"] + 1e-9
).all()

# %% [markdown]
# ## Summary

# %%
say(*comparisons.say_effects(effects))

# %% [markdown]
# **Next**: [every run](../every_run.md), one page per student; or [your own models and data](../use_your_own.md).
#
# **Try it**: give a copy of the study `seeds: [0, 1, 2]`, and this page compares its own students.
