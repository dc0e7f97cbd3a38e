# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does a distilled model still know by heart?
#
# A palimpsest is a parchment that was scraped and written over; the old text still shows. Large language models repeat
# parts of the text they were fine-tuned on. A growing habit is to fine-tune a large *teacher* on private data, distil it
# into a small *student*, and ship only the student. **How much of the private text does the student still give away, by
# which method of distillation, compared with simply fine-tuning the small model?**
#
# This book answers for one study, from data to figures. Every number in it comes from a table of this run, and every figure
# and table offers its own. It implements and goes beyond *From Teacher to Student: Tracking Memorization Through Model
# Distillation* {cite}`singh2025teacher`, which published no code: with held-out records as a control, intervals on every
# rate, secrets apart from phrases, and methods compared at equal quality as well as at the end.

# %% tags=["parameters", "remove-input"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %% tags=["remove-input"]
from palimpsest import chapters
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")

# %% [markdown]
# ## The answer

# %% tags=["remove-input", "csv:rates"] mystnb={"figure": {"caption": "How much each student recites at the end of training, by size and method. Bars: 95 % intervals. Filled: members; hollow: non-members. Dotted line: the teacher; dashed: the student before any private text.", "name": "fig-answer"}}
chapters.memorization.plot_rates(tables.rates, data["target"])

# %% tags=["remove-input", "csv:equal_quality"]
say(*chapters.front.say_answer(tables.rates, tables.equal_quality, data["target"], data["unit"]))

# %% [markdown]
# **Read with care.** These are observations of this run. Of methods compared at equal quality, earlier versions of this book claimed
# more than its data bear: two runs of plain fine-tuning that differ in their seed alone can lie further apart than two methods do.
# Those claims are withdrawn.
#
# ## This study

# %% tags=["remove-input"]
say(chapters.front.say_study(study, data["splits"]))

# %% [markdown]
# ## How to read this book
#
# - [The data](01_data.ipynb): what is private in it, what is held out, and canaries if it has some.
# - [The teacher](02_teacher.ipynb): what it learned and what it learned by heart.
# - [How much is memorized](04_memorization.ipynb): size by method, against chance and the base models.
# - [Inheritance](05_inheritance.ipynb): which records a student knows because its teacher did.
# - [Attacks](06_attacks.ipynb): membership inference and canary exposure.
# - [What memorization buys](07_tradeoffs.ipynb): the same comparison at equal quality, and what each model costs.
# - [Methods compared](08_comparisons.ipynb): methods taken apart, the paper's findings checked, simpler measures.
# - [Every run](../every_run.md): one page per student, as it was executed.
#
# A **member** is a record the models were fine-tuned on; a **non-member** comes from the same source and was held out.
# Rates carry their count and a 95 % interval in brackets. All terms are in the [glossary](../glossary.md), the mathematics
# in [methods](../methods.md), and the way to a study of your own models and data in
# [use your own](../use_your_own.md).
