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
# This book answers for one study, from data to figures, and every number in it was computed by the page that shows it.
# It implements and goes beyond *From Teacher to Student: Tracking Memorization Through Model Distillation*
# {cite}`singh2025teacher`, which published no code: with held-out records as a control, intervals on every rate, secrets
# apart from phrases, and methods compared at equal quality as well as at the end.

# %% tags=["parameters", "remove-input"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %% tags=["remove-input"]
from palimpsest.chapters import figures, memorization, report, tradeoffs
from palimpsest.study import load_study

figures.set_theme()
plan = load_study(study)
table, paths = memorization.rates(plan, run_dir), tradeoffs.paths(plan, run_dir)

# %% [markdown]
# ## The answer

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Share of secrets decoded exactly from the text before them (of whole records, where a study does not mark its secrets), at the end of training, by student size and method, with 95 % Wilson intervals. Filled: members, on which the models were trained. Hollow: non-members, which nobody has seen. Dotted line: the teacher on members; dashed: the student before any private text.", "name": "fig-answer"}}
figures.rates(table[table["reading"] == report.reading_of(table)[0]])

# %% tags=["remove-input"]
figures.say(*report.answer(table, paths, tradeoffs.matched(plan, run_dir)))

# %% [markdown]
# ## This study

# %% tags=["remove-input"]
figures.say(*report.about(plan, run_dir))

# %% [markdown]
# ## How to read this book
#
# - [The data](01_data.ipynb): what is private in it, what is held out, where the canaries are.
# - [The teacher](02_teacher.ipynb): what it learned and what it learned by heart.
# - [How much is memorized](04_memorization.ipynb): size by method, against chance and the base models.
# - [Inheritance](05_inheritance.ipynb): which records a student knows because its teacher did.
# - [Attacks](06_attacks.ipynb): membership inference and canary exposure.
# - [What memorization buys](07_tradeoffs.ipynb): the same comparison at equal quality, and what each model costs.
# - [What the grid says](08_grid.ipynb): methods taken apart over three seeds, the paper's findings checked, simpler measures.
# - [Every run](../every_run.md): one page per student, as it was executed.
#
# A **member** is a record the models were fine-tuned on; a **non-member** comes from the same source and was held out.
# Rates carry their count and a 95 % interval in brackets. All terms are in the [glossary](../glossary.md), the mathematics
# in [methods](../methods.md), and the way to a study of your own models and data in
# [use your own](../use_your_own.md).
