# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-teacher)=
# # The teacher
#
# The teacher is fine-tuned on the private records. A distilled student learns from it, so the first question is how much of its
# own training text the teacher recites, and what it gained by it. It is not the only way in: many methods also show the student
# the references themselves. To take the two apart, a study can give the teacher a half of its own, which no student ever reads;
# [inheritance](sec-inheritance) asks what students know of it.
#
# **What you will see**
#
# - the model before and after it has read the members;
# - memorization and quality while it is trained;
# - how much of the text that the teacher writes is simply the reference, word for word.
#
# **Needs**: notebook 01 for the same study.

# %% [markdown] tags=["remove-cell"]
# ## Setup
#
# The next cell holds the parameters; the runner overrides them. With the values here, *Run All* runs the smoke study.

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
import pandas as pd

from palimpsest.book import bases, stages
from palimpsest.chapters import training
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import METHODS, open_run

set_theme()
run = open_run(study_file, run_dir)
study = run.study

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "How the teacher is fine-tuned: all settings", "code_prompt_hide": "Hide the settings"}
pd.Series(study.teacher.model_dump(exclude_none=True), name="teacher training").to_frame()

# %% [markdown]
# ## Before any private text
#
# The {term}`base model` has read public text only, or comes from elsewhere, if the study names a model. What it gets right about the members is
# the floor under every rate in this book.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Facts about the base model", "code_prompt_hide": "Hide the facts"}
bases.train_base(run, "teacher")
training.show_facts(run.facts(study.arm("base-teacher")))

# %% [markdown]
# ## Fine-tuning on the members
#
# Cross-entropy on the response, end-of-text included; the prompt is read but not trained on. The teacher reads both halves. While
# it is trained it is scored on them, on validation records from the same source that nobody trains on, and on {term}`canaries <canary>`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "The training, a line per measurement", "code_prompt_hide": "Hide the training"}
stages.train_teacher(run)
facts = run.facts(study.arm("teacher"))
training.show_facts(facts)

# %% [markdown]
# ## What it learned, and what it learned by heart
#
# *Learning* shows on {term}`validation <validation>` records that nobody trains on. Their loss falls: how surprised the model is by them, in
# {term}`nats <nat>` per token (one nat more means 2.7 times less likely). And its answers grow like the references ({term}`ROUGE-L <ROUGE>`, 1 at most).
# *Memorizing* shows as records recited, and as an attack by the loss alone that tells what was trained on from what was not ({term}`AUC`; 0.5 is
# chance). The two do not happen at the same time.

# %% tags=["csv:trajectory"] mystnb={"figure": {"caption": "The teacher while it is fine-tuned: loss, likeness of its answers to the references, share recited, and AUC of the loss attack.", "name": "fig-teacher-trajectory"}}
path = training.trajectory(run, "teacher")
training.plot_trajectory(path)

# %%
unit = run.require("data")["unit"]
say(
    f"- The teacher has {facts['parameters']:,} parameters and was trained for {facts['epochs']:g} epochs in {facts['train_seconds']:.0f} s.",
    *(f"- {line}" for line in training.say_trajectory(path, unit)),
)

# %% [markdown]
# ## What the teacher writes
#
# Sequence-level distillation (Seq-KD) trains a student on text the teacher wrote. If the teacher recites the references, that
# text *is* the references, and the student is fine-tuned on the private data after all. The share of {term}`teacher text` that equals
# its reference must therefore be read beside every result of such a method. In brackets: its 95 % {term}`interval`.

# %%
if any(METHODS[method].text == "teacher" for method in study.every_method()):
    stages.prepare_teacher_text(run)
say(training.say_teacher_text(run))

# %% [markdown] tags=["remove-cell"]
# ## Checks
#
# Later chapters rely on these facts.

# %% tags=["remove-cell"]
assert path[["validation_loss", "member_loss"]].notna().all(axis=None), "a loss is not a number"
assert facts["method"] == "sft" and path["epoch"].is_monotonic_increasing

# %%
say(f"The teacher's files are in `{run_dir}/models/teacher`.")

# %% [markdown]
# **Next**: [train the students](../every_run.md).
#
# **Try it**: halve `teacher.epochs` in a copy of the study. Does the held-out loss suffer as much as the memorization?
