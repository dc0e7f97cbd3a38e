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
from palimpsest.chapters import front, memorization, this_run
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")
shared, source = published.choose(run, published.FOLDER)
real, made = published.tables_of(run, published.REAL), published.made_of(run, published.REAL)

# %% [markdown]
# ## The answer
#
# **Withdrawn first:** most differences that earlier versions of this book claimed "at equal held-out loss" were smaller than the
# difference between two seeds of one method: [which, and why](sec-withdrawn).

# %% tags=["remove-input", "csv:claims", "csv:by_dose", "csv:smollm2/by_dose"]
say(
    *front.as_list(front.say_answer(shared.claims, shared.trajectories, shared.by_dose, data["unit"])),
    "",
    *front.say_real(real.by_dose, made.get("unit", "secrets"), made.get("title", "")),
)

# %% [markdown]
# *Recited*: given the true text before it, the model writes it exactly, each token being its likeliest. What a *secret* is,
# [the data](01_data.ipynb) says. In brackets: 95 % {term}`intervals <interval>` over records. Where nothing is recited, the share may still be
# as large as the bracket's end. A model that recites nothing may still show [who was in its data](06_attacks.ipynb).

# %% tags=["remove-input", "csv:by_dose"] mystnb={"figure": {"caption": "How much of the private text students recite, word for word, by how often the text stood in the training data. Bars: from the least to the most of one replicate; dotted: the teacher.", "name": "fig-front"}}
front.plot_answer(shared.by_dose, data["unit"])

# %% tags=["remove-input"]
say(front.say_figure(shared.by_dose, data["unit"]))

# %% [markdown]
# ## What should you do?
#
# Each row counts students that were compared with plain fine-tuning of the same size. *Equally good*: compared at equal quality, by each
# of [three measures](sec-equal-utility). *At the end*: after the last step of training, whatever each had learned by then.
# {term}`Validation loss <validation loss>` says how surprised a model is by unseen letters, in {term}`nats <nat>` per token: the lower,
# the more it has learned. *Calibrated*: after one {term}`temperature` was fitted to how certain the model is, so that its certainty alone costs nothing.

# %% tags=["remove-input", "csv:claims"]
front.show_decisions(shared.claims, shared.trajectories)

# %% [markdown]
# Whatever you do, [audit the model](../use_your_own.md) that you hand out, with similar records that it never read. A clean audit does
# not prove that a model is safe: it tells of the records and attacks that were tried.
#
# ## How far to trust it

# %% tags=["remove-input"]
say(f"- {source}")

# %% [markdown]
# - A difference is claimed only if at least five {term}`replicates <replicate>` support it, each with its own records, teacher and students. At equal
#   quality it must hold under all [three measures of quality](sec-equal-utility). Everything else is *undecided*.
# - The models are tiny and the letters invented. [Limits](sec-limits) says what that can't show.
#
# ## What this run shows
#
# One training of each student tells how much *it* recites, not whether its method is the cause. In brackets: 95 % intervals,
# over records only; how much another training would differ is not in them.

# %% tags=["remove-input", "csv:rates"] mystnb={"figure": {"caption": "How much each student recites at the end of training, by size and method; bars are 95 % intervals. Circles: text that stands once; squares: repeated; hollow: never read by any model.", "name": "fig-answer"}}
memorization.plot_rates(tables.rates, data["target"])

# %% tags=["remove-input", "csv:rates"]
say(*this_run.say_run(tables.rates, data["target"], data["unit"]))

# %% tags=["remove-input"]
say(
    "Dashed in the figure: the student before any private text.",
    "",
    *this_run.say_study(study, data["splits"]),
)

# %% [markdown]
# ## The chapters
#
# - [The data](01_data.ipynb): what is private in it, what is held out, what was planted.
# - [The teacher](02_teacher.ipynb): what it learned and what it learned by heart.
# - [How much is memorized](04_memorization.ipynb): every model against chance, and single records token by token.
# - [Inheritance](05_inheritance.ipynb): which records a student knows because its teacher did.
# - [Attacks](06_attacks.ipynb): membership inference and {term}`exposure`, for what is known without being recited.
# - [What memorization buys](07_tradeoffs.ipynb): memorization against quality, over the whole of training.
# - [Methods compared](08_comparisons.ipynb): every question asked of the replicates, the paper's findings first.
# - [A real language model](09_real_model.ipynb): whether any of it holds for one, and what the small models foretold.
# - [Every run](../every_run.md): one page per student.
#
# The book follows *From Teacher to Student: Tracking Memorization Through Model Distillation* {cite}`singh2025teacher`, which published
# no code. A *palimpsest* is a parchment that was scraped and written over; the old text still shows. All terms are in the
# [glossary](../glossary.md), the mathematics in [methods](../methods.md).
