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
# A company fine-tunes a large language model, the *teacher*, on private letters, and the teacher learns part of them by heart. Then
# it *distils* the teacher: a small *student* is trained on what the teacher says, and only the student is handed out.
#
# **How much of the private text does the student still give away? Would plain fine-tuning of the small model have given away as much?**

# %% tags=["parameters", "remove-input"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %% tags=["remove-input"]
from palimpsest.book import published
from palimpsest.chapters import front, memorization
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")
shared, source = published.choose(run, published.FOLDER)

# %% [markdown]
# ## The answer
#
# **Withdrawn first:** what earlier versions of this book claimed of methods "at equal held-out loss" did not survive a referee:
# [what, and why](sec-withdrawn).

# %% tags=["remove-input", "csv:claims", "csv:by_dose"]
say(*front.as_list(front.say_answer(shared.claims, shared.trajectories, shared.by_dose, data["unit"])))

# %% tags=["remove-input", "csv:by_dose"] mystnb={"figure": {"caption": "How much of the private text each student recites, word for word, by how often the text stood in the training data.", "name": "fig-front"}}
front.plot_answer(shared.by_dose, data["unit"])

# %% tags=["remove-input"]
say(front.say_figure(shared.by_dose, data["unit"]))

# %% [markdown]
# ## What should you do?
#
# Each row counts students that were compared with plain fine-tuning of the same size. *Equally good*: read where both models predict
# unseen letters equally well. *At the end*: after the last step of training, whatever each had learned by then.
# {term}`Validation loss <validation loss>` says how surprised a model is by unseen letters, in {term}`nats <nat>` per token: the lower,
# the more it has learned.

# %% tags=["remove-input", "csv:claims"]
front.show_decisions(shared.claims, shared.trajectories)

# %% [markdown]
# Whatever you do, [audit the model](../use_your_own.md) that you hand out: it takes one command and no training.
#
# ## How far to trust it

# %% tags=["remove-input"]
say(f"- {source}")

# %% [markdown]
# - A difference is claimed only if five trainings from scratch or more bear it out, each with records and models of its own. At equal
#   quality it must hold under [three meanings of quality](sec-equal-utility). Everything else is *undecided*.
# - The models are tiny and the letters invented. [Limits](sec-limits) says what that can't show.
#
# ## What this run shows
#
# One training of each student tells how much *it* recites, not whether its method is the cause. In brackets: 95 % {term}`intervals <interval>`,
# the range in which a rate plausibly lies, given so many records.

# %% tags=["remove-input", "csv:rates"] mystnb={"figure": {"caption": "How much each student recites at the end of training, by size and method; bars are 95 % intervals. Circles: text that stands once; squares: repeated; hollow: never read by any model.", "name": "fig-answer"}}
memorization.plot_rates(tables.rates, data["target"])

# %% tags=["remove-input", "csv:rates"]
say(*front.say_run(tables.rates, data["target"], data["unit"]))

# %% tags=["remove-input"]
say(
    "Dotted in the figure: the teacher; dashed: the student before any private text.",
    "",
    *front.say_study(study, data["splits"]),
)

# %% [markdown]
# ## The chapters
#
# - [The data](01_data.ipynb): what is private in it, what is held out, what was planted.
# - [The teacher](02_teacher.ipynb): what it learned and what it learned by heart.
# - [How much is memorized](04_memorization.ipynb): every model against chance, and single records token by token.
# - [Inheritance](05_inheritance.ipynb): which records a student knows because its teacher did.
# - [Attacks](06_attacks.ipynb): what models give away without reciting it.
# - [What memorization buys](07_tradeoffs.ipynb): memorization against quality, over the whole of training.
# - [Methods compared](08_comparisons.ipynb): every question asked of the {term}`replicates <replicate>`, the paper's findings first.
# - [A real language model](09_real_model.ipynb): whether any of it holds for one, and what the small models foretold.
# - [Every run](../every_run.md): one page per student.
#
# The book follows *From Teacher to Student: Tracking Memorization Through Model Distillation* {cite}`singh2025teacher`, which published
# no code. A *palimpsest* is a parchment that was scraped and written over; the old text still shows. All terms are in the
# [glossary](../glossary.md), the mathematics in [methods](../methods.md).
