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
# This book answers for one study, from data to figures. Every number in it comes from a table, and every figure and table
# offers its own. It implements and goes beyond *From Teacher to Student: Tracking Memorization Through Model
# Distillation* {cite}`singh2025teacher`, which published no code: with held-out records as a control, everything random drawn
# several times over, secrets apart from phrases, and methods compared at equal quality as well as at the end.

# %% tags=["parameters", "remove-input"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %% tags=["remove-input"]
from palimpsest import chapters
from palimpsest.book import published
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")
shared, source = published.choose(run, published.FOLDER)

# %% [markdown]
# ## The answer
#
# **First, what we withdraw.** Earlier versions of this book compared methods "at equal held-out loss", by three seeds of one teacher.
# They said that students of the reverse divergence know the members better than a fine-tuned one, that forward KL's know them less, and
# that stopping early does as much as distilling. None of that stands: two runs of plain fine-tuning, read that way, lay further apart
# than most of the effects. They also said that some students recite no secret. That was true only of secrets that stand in the data
# once.
#
# **What can be said of methods** is said by replicates, in which everything random is drawn anew. A difference is claimed if at
# least five replicates bear it out, if it exceeds what a method differs from itself, and, at equal quality, if it has one sign under
# three meanings of quality.

# %% tags=["remove-input", "csv:claims"]
say(source, "", *chapters.claims.say_headline(shared.claims))

# %% [markdown]
# ## What this run shows
#
# One training of each student says how much *it* recites, not which method is to blame.

# %% tags=["remove-input", "csv:rates"] mystnb={"figure": {"caption": "How much each student recites at the end of training, by size and method. Bars: 95 % intervals. Circles: members that stand once in the training text; squares: repeated ones; hollow: non-members. Dotted line: the teacher; dashed: the student before any private text.", "name": "fig-answer"}}
chapters.memorization.plot_rates(tables.rates, data["target"])

# %% tags=["remove-input", "csv:rates"]
say(*chapters.front.say_answer(tables.rates, data["target"], data["unit"]))

# %% [markdown]
# In brackets: 95 % intervals over records.
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
# - [What memorization buys](07_tradeoffs.ipynb): memorization against quality, over the whole of training, and what each model costs.
# - [Methods compared](08_comparisons.ipynb): every question asked of the replicates, the paper's findings first.
# - [Every run](../every_run.md): one page per student, as it was executed.
#
# What this study can't show stands under [limits](sec-limits). A **member** is a record the models were fine-tuned on; a **non-member**
# comes from the same source and was held out. All terms are in the [glossary](../glossary.md), the mathematics in
# [methods](../methods.md), and the way to a study of your own models and data in [use your own](../use_your_own.md).
