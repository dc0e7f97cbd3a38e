# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-grid)=
# # What the grid says
#
# One student per method tells little: train it again with another seed and the number moves. This chapter compares methods over
# seeds *and* records, and takes the design apart. Methods differ in two choices, whose text the student reads and which divergence it
# minimizes; crossing the two shows what each choice does by itself. Beside them stand the simplest ways of leaking less: stopping
# early, removing duplicates, masking tokens, leaving records out, and training with differential privacy.
#
# **What you will see**
#
# - which of the paper's findings {cite}`singh2025teacher` hold here, contradictions first;
# - what the reverse divergence and the student's own text do, at the end of training and at equal held-out loss;
# - whether distilling beats stopping early, and the simplest alternatives.
#
# **Needs**: a study with several seeds; for a study with one, the published tables of `demo-seeds` are shown. Only tables are read.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
published_dir: str = "book/published/demo-seeds"  # shown where the study has one seed

# %%
from palimpsest.book import published
from palimpsest.chapters import comparisons, figures
from palimpsest.study import load_study
from palimpsest.study.runs import locate, write_table

figures.set_theme()
plan = load_study(study)
shown = published.choose(plan, run_dir, published_dir)
found = shown.effects
write_table(found, locate(run_dir) / "tables" / "effects.csv")
figures.say(shown.source, "", comparisons.spread(found))

# %% [markdown]
# All seeds share one teacher; a seed changes the order of a student's batches and what it samples. Every difference below is
# the first method's share of recited secrets minus the second's, in percentage points; below zero, the first leaks less. The 95 %
# intervals are percentiles of a paired bootstrap over seeds, then records. *At equal held-out loss* reads both models where they
# first reach the lowest loss that both reach ([the chapter before](sec-tradeoffs)); the members' loss beside it says which of them
# fits the members closer there, in nats per token. At the end, the held-out loss says which has become the worse model.
#
# ## The paper's findings
#
# At the end of training, the paper finds less memorization with each of three distillation methods than with fine-tuning, and
# least with reverse KL on the student's own text (RKLD). It has one seed, no held-out control and no comparison at equal quality.
# Here its findings are judged at the end of training by the secrets recited, and at equal held-out loss, where often nobody
# recites anything, by the finer measure: which of the two has the lower loss on the members.

# %%
figures.say(*comparisons.paper_told(found))

# %%
comparisons.table(found, "distilling")

# %% [markdown]
# ## Everything at a glance

# %% mystnb={"figure": {"caption": "Differences in the share of members' secrets recited, first method minus second, in percentage points, with 95 % intervals over seeds and records. Filled: at the end of training; hollow: at equal held-out loss. Left of the dotted line the first method leaks less. Colours: the question asked.", "name": "fig-effects"}}
comparisons.figure(found)

# %% [markdown]
# At equal held-out loss hardly anybody recites anything. What the models know of the members still differs:

# %% mystnb={"figure": {"caption": "Difference in the loss on members, in nats per response token, of two models at the same held-out loss, with 95 % intervals over seeds and records. Left of the dotted line the first method fits the members closer: it knows more of them at the same quality. Colours: the question asked.", "name": "fig-fit"}}
comparisons.figure(found, fit=True)

# %% [markdown]
# A method that leaks less at the end may just have learned less. The paths show it: each line is the mean over seeds.

# %% mystnb={"figure": {"caption": "Share of members' secrets recited against held-out loss (nats per response token of non-members), mean over seeds, one line per method, one point per epoch; the large marker is the last epoch.", "name": "fig-grid-paths"}}
figures.tradeoff(comparisons.mean_paths(shown.paths))

# %% [markdown]
# ## Reverse or forward divergence

# %%
comparisons.table(found, "divergence")

# %%
figures.say(*comparisons.told(found, "divergence"))

# %% [markdown]
# ## Own text or references

# %%
comparisons.table(found, "text")

# %%
figures.say(*comparisons.told(found, "text"))

# %% [markdown]
# ## Stopping early, and other simple measures
#
# The goldfish loss {cite}`hans2024goldfish` never trains on one response token in four. *Predicted left out*: the method is run
# once, a regression tells which records it makes a student recite, and it is run again without them
# {cite}`borkar2026memorization`. DP-SGD {cite}`abadi2016deep` bounds what can be learned of one record (ε = 8 in `demo-seeds`). All
# train for equally many epochs. Leaving records or repetitions out makes an epoch shorter, so such a student also takes fewer steps:
# at the end of training, that alone means less memorization, even of letters that stand in the data once.

# %%
comparisons.table(found, "early stopping", "mitigation", "distilling or masking")

# %%
figures.say(*comparisons.told(found, "early stopping", "mitigation"))

# %% [markdown]
# Is distilling better than the simplest alternative, one line of code that masks tokens?

# %%
figures.say(*comparisons.told(found, "distilling or masking"))

# %% [markdown]
# ## Secrets that are repeated
#
# Letters occur once in the embedded data; some of the planted canaries are repeated. Their exposure, the rank of the true secret
# among unseen ones, in bits, moves long before anything is recited. Intervals are bootstraps over seeds and canaries; canaries are few.

# %%
comparisons.dose_table(shown.doses) if len(shown.doses) else None

# %%
figures.say(*comparisons.dose_told(shown.doses), "", comparisons.hidden_told(found, shown.doses))

# %% [markdown]
# ## Checks

# %%
assert set(found["verdict"]) <= {"less", "more", "undecided"}
assert (found["low"] <= found["difference"] + 1e-9).all() and (found["difference"] <= found["high"] + 1e-9).all()

# %% [markdown]
# ## Summary

# %%
figures.say(*comparisons.summary(found))

# %% [markdown]
# **Next**: [every run](../every_run.md), one page per student; or [your own models and data](../use_your_own.md).
#
# **Try it**: `make book STUDY=studies/demo-seeds.yaml` makes these numbers again in about an hour on two cores.
