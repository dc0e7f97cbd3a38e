# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-real)=
# # A real language model
#
# The models behind this book's claims have under a million parameters and were trained from nothing on letters that a program wrote.
# Does any of it hold for a language model that people use? Here the same questions are put to SmolLM2-135M-Instruct, once on the
# invented letters and once on Dolly, questions and answers that people wrote.
#
# **What you will see**
#
# - what was run, what it took, and what is missing;
# - what a student cut from the model is worth after healing, and what it inherits;
# - what the small models foretold and what they did not, side by side; and the paper's numbers {cite}`singh2025teacher` beside ours.
#
# **Needs**: nothing but published tables; in the run of either study, its own. Nothing is trained or scored here.

# %% [markdown]
# ## What was run

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
real_dir: str = "book/published/smollm2"  # the real model on invented letters
natural_dir: str = "book/published/smollm2-dolly"  # the same on natural text

# %%
from palimpsest.book import published
from palimpsest.chapters import comparisons, inheritance, memorization, real_beside, real_model, transfer
from palimpsest.chapters.figures import read_out, set_theme
from palimpsest.study import open_run

set_theme()
run = open_run(study_file, run_dir)
small = published.tables_of(run, published.FOLDER)
(real, made), (natural, made_natural) = (
    (published.tables_of(run, folder), published.made_of(run, folder)) for folder in (real_dir, natural_dir)
)
unit, target = made.get("unit", "secrets"), made.get("target", "secret")

# %% [markdown]
# SmolLM2-135M-Instruct is a Llama of 30 layers and 135 million parameters, tuned to follow instructions. Its weights come as an
# installable package, in a GGUF file with four bits a number. They are dequantized to 32-bit numbers before training; the error of the four
# bits remains. Teacher, students and {term}`baselines <baseline>` all begin from it, and all conversations go through its own chat template.
#
# A student is the model itself with fewer layers: those of highest *block influence*, which change their input most, measured on public
# text. The cut model is then *healed*: distilled from the whole one on public text only, before any private text is read. No public
# record is one of the members, {term}`non-members <non-member>`, validation or test records.

# %%
told = [
    *real_model.if_made(made, "smollm2", real_model.say_made(made)),
    "",
    *real_model.if_made(made_natural, "smollm2-dolly", real_model.say_made(made_natural)),
]
read_out(real_model.show_made(made, made_natural), *told)

# %% [markdown]
# ## Whole, cut, healed
#
# Loss and {term}`ROUGE-L <ROUGE>` on held-out test records. ROUGE-L is of the text that a model writes for their prompts, in the first
# {term}`replicate`. All this is before private text. In brackets: of a loss, the least and the most of a replicate; of ROUGE-L, a 95 %
# {term}`interval` over records.

# %% tags=["csv:smollm2/healing"] mystnb={"figure": {"caption": "Test loss of the whole model, of the same model cut, and healed; a line per replicate.", "name": "fig-healing"}}
real_model.plot_healing(real.healing)

# %% tags=["csv:smollm2/healing"]
told = real_model.if_made(made, "smollm2", real_model.say_healing(real.healing))
read_out(real_model.show_healing(real.healing), *told)

# %% [markdown]
# ## Memorization by epoch
#
# The teacher reads both halves of the private letters, the fine-tuned students one of them. Some letters stand in the text once, others
# 4 or 16 times. In the table, shares are means over replicates; in the sentences below it, all replicates' secrets are counted together.
# *Calibrated* loss: after one {term}`temperature` was fitted to how certain the model is.

# %% tags=["csv:smollm2/trajectories"] mystnb={"figure": {"caption": "What teacher and fine-tuned students recite after each epoch, and their validation loss. Circles: text that stands once; squares: repeated; a line per replicate.", "name": "fig-real-epochs"}}
real_model.plot_epochs(real.trajectories, unit)

# %% tags=["csv:smollm2/trajectories", "csv:smollm2/by_dose"]
told = real_model.if_made(made, "smollm2", real_model.say_epochs(real.by_dose, real.trajectories, unit))
read_out(real_model.show_epochs(real.trajectories), *told)

# %% [markdown]
# ## Recited by method
#
# First the end of training, where methods also differ in how much they learned. Shares are of all replicates' secrets together, with 95 %
# intervals over secrets. In brackets beside a loss: the least and the most of a replicate.

# %% tags=["csv:smollm2/rates"] mystnb={"figure": {"caption": "What each student recites at the end, in the first replicate; bars are 95 % intervals. Circles: once; squares: repeated; hollow: never read.", "name": "fig-real-rates"}}
memorization.plot_rates(real.rates, target)

# %% tags=["csv:smollm2/by_dose", "csv:smollm2/trajectories"]
told = real_model.if_made(made, "smollm2", real_model.say_ends(real.by_dose, unit))
read_out(real_model.show_ends(real.by_dose, real.trajectories), *told)

# %% [markdown]
# Then each method minus plain fine-tuning, at equal quality and at the end, as in [the chapter before](sec-comparisons). The grey bar is
# what a method differs from itself in another replicate: a difference within it is undecided, one outside it need not be decided. The table
# has the differences at equal quality; which meanings of quality could be read is said below it.

# %% tags=["csv:smollm2/claims"] mystnb={"figure": {"caption": "Distilled minus fine-tuned; bars are 95 % intervals over replicates. Marks: at equal quality; ticks: at the end; grey: the null.", "name": "fig-real-claims"}}
comparisons.plot_claims(real.claims, "distilling")

# %% tags=["csv:smollm2/claims"]
told = real_model.if_made(made, "smollm2", real_model.say_evidence(real.claims))
read_out(comparisons.show_claims(real.claims, "distilling", "equal"), *told)

# %% [markdown]
# ## What a shallower student inherits
#
# Half of the private letters were read by the teacher alone. What a student knows of them came through the teacher. The number is an {term}`AUC`:
# how often a student's fine-tuning gained more on such a letter than on an unseen one. Half is chance. Intervals are over replicates; of a
# model that was trained once, or alike in all replicates, over letters, and then they are too narrow to judge a method by. None is
# corrected for their number: of forty, one lies above one half by luck.

# %% tags=["csv:smollm2/transferred"] mystnb={"figure": {"caption": "How often more was gained on text that only the teacher read than on unseen text. Half is chance; bars are 95 % intervals.", "name": "fig-real-transferred"}}
transfer.plot_transferred(real.transferred)

# %% tags=["csv:smollm2/transferred", "csv:smollm2/origins"]
told = [*transfer.say_transferred(real.transferred), *transfer.say_transferred(real.transferred, "record")]
read_out(inheritance.show_origins(real.origins), *real_model.if_made(made, "smollm2", told))

# %% [markdown]
# The table sorts the letters of the students' own half, in the first replicate, by who recites them. *Inherited*: teacher and student do, the
# fine-tuned student of the same size does not; another seed alone gives some of these, too. *Easy*: all three do. *Shed*: the
# student alone does not. *Without the teacher*: the small models do and the teacher does not.
#
# ## What the small models foretold
#
# The front page speaks of small models in five replicates. Here are the comparisons that its answers rest on, where small models decide
# them and the real model was asked the same. *Agrees*: the
# difference has the same sign, its interval over replicates excludes zero, and it is larger than what a method differs from itself.
# *Opposite*: the same with the other sign. Everything else is *cannot tell*, as is every row of a single replicate.

# %% tags=["csv:demo-replicates/claims", "csv:smollm2/claims"]
told = real_model.if_made(made, "smollm2", real_beside.say_foretold(small.claims, real.claims))
read_out(real_beside.show_foretold(small.claims, real.claims), *told)

# %% [markdown]
# ## The paper's Table 1 beside ours
#
# The paper {cite}`singh2025teacher` counts records whose continuation is the reference, word for word, in a window of 50 tokens. Its models
# are GPT-2 on Dolly, each trained once. Ours: the first 50 tokens from the prompt, of records that stand once, in the first replicate; of
# the larger student, unless a cell names the other. Levels do not compare.

# %% tags=["csv:smollm2-dolly/rates", "csv:smollm2/rates"]
told = real_model.if_made(made_natural, "smollm2-dolly", real_beside.say_beside_paper(natural.rates))
read_out(real_beside.show_beside_paper(natural.rates, real.rates), *told)

# %% [markdown]
# ## Natural text
#
# Dolly's longer answers, of at least 100 tokens, allow the reading of Carlini et al. {cite}`carlini2023quantifying`: from the prompt and
# the first 50 tokens of the answer, are the next 50 recited? Nothing of Dolly's text stands in the published tables.

# %% tags=["csv:smollm2-dolly/rates"]
told = real_model.if_made(made_natural, "smollm2-dolly", real_beside.say_next_window(natural.rates))
read_out(real_beside.show_next_window(natural.rates), *told)

# %% [markdown]
# ## Limits
#
# - One model of one family, of 135 million parameters, with weights that were four-bit numbers. Larger ones may memorize more.
# - Its own training text is not known to us; Dolly may be part of it. The rates of non-members and of models before fine-tuning control
#   for that only in part.
# - Students are cut from the teacher's own base. A student of another origin shares less with its teacher.
# - Learning rates are not tuned: one for the teacher, one for all students, a third for {term}`adapters <adapter>`. A method may owe its place to that.
# - A few epochs over a few dozen records: intervals are wide, and fewer than five replicates decide nothing.

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
assert set(real.claims["verdict"]) <= {"less", "more", "undecided"}
assert real.trajectories.empty or real.trajectories["recited_repeated"].dropna().between(0, 1).all()
assert "text" not in natural.rates and bool(made) == (not real.rates.empty)

# %% [markdown]
# **Next**: [every run](../every_run.md), one page per student; or [your own models and data](../use_your_own.md).
#
# **Try it**: `palimpsest check --estimate studies/smollm2.yaml` says how many hours this takes on your machine.
