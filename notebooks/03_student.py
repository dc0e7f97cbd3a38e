# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-student)=
# # Train one student
#
# One arm of the study: one student size, one method, one seed. The runner executes this notebook once per arm; every
# executed copy is in the book.
#
# **What you will see**
#
# - which text the student reads and what its loss compares;
# - memorization and quality while it is trained, also of the half that only its teacher has read;
# - where the arm ends, beside the {term}`base model` it began from and, if it has one, its teacher.
#
# **Needs**: notebooks 01 and 02 for the same study.

# %% [markdown] tags=["remove-cell"]
# ## Setup
#
# The next cell holds the parameters; the runner overrides them.

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
arm: str = "small-word_kd-s0"  # size-method-sSEED

# %%
import pandas as pd

from palimpsest.book import stages
from palimpsest.chapters import memorization, training
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import METHODS, Arm, methods, open_run

set_theme()
run = open_run(study_file, run_dir)
study = run.study
this = study.arm(arm)
rule, settings = METHODS[this.method], study.training(this.size, this.method)

# %% [markdown]
# ## The method
#
# A method is two choices: whose text the student reads (the references, text the teacher wrote once, or the student's own
# samples) and what is minimized on it ([methods](../methods.md) has the mathematics).

# %%
mixed = f", mixed with {rule.cross_entropy_weight:g} parts cross-entropy" if 0 < rule.cross_entropy_weight < 1 else ""
say(
    f"This arm trains the **{this.size}** student with **{rule.label}**, seed {this.seed}. It reads {methods.TEXTS[rule.text]} "
    f"and minimizes {methods.OBJECTIVES[rule.objective]}{mixed}.",
    methods.mitigation(rule, settings),
)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "All settings of this training", "code_prompt_hide": "Hide the settings"}
pd.Series(settings.model_dump(exclude_none=True), name="student training").to_frame()

# %% [markdown]
# ## Training
#
# The student starts from the base of its size, which has never seen a private record of this study. It is given prompts and
# references of the members alone. While it is trained we measure quality on validation records, and what it knows of the members,
# of {term}`canaries <canary>` and (*transferred*) of the teacher's own half.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "The training, a line per measurement", "code_prompt_hide": "Hide the training"}
stages.train_student(run, this)
facts = run.facts(this)
training.show_facts(facts)

# %%
say(
    f"It took {facts['steps']} optimizer steps, in {facts['train_seconds']:.0f} s, to train {facts['parameters']:,} parameters."
)

# %% tags=["csv:trajectory"] mystnb={"figure": {"caption": "This student while it is trained: loss, likeness of its answers to the references, share recited, and AUC of the loss attack.", "name": "fig-student-trajectory"}}
path = training.trajectory(run, arm)
training.plot_trajectory(path)

# %% [markdown]
# ## Where it ends
#
# What it recites of the half it never read has come through its teacher, or is chance: a student fine-tuned without a teacher
# shows how much. The loss says how surprised it is by a text, in {term}`nats <nat>` per token.

# %%
unit = run.require("data")["unit"]
say(*(f"- {line}" for line in training.say_trajectory(path, unit)))

# %% [markdown]
# How much of the members it recites, beside the base it began from and, for a distilled student, its teacher. In brackets: 95 %
# {term}`intervals <interval>`.

# %% tags=["csv:rates"]
compared = [Arm(this.size, "none"), *([study.arm("teacher")] if rule.distilled else []), this]
memorization.show_targets(memorization.rates_of(run, compared))

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
assert path[["validation_loss", "member_loss"]].notna().all(axis=None), "a loss is not a number"
assert facts["steps"] > 0 and path["epoch"].is_monotonic_increasing

# %% [markdown]
# **Next**: [memorization of all arms](sec-memorization).
#
# **Try it**: run this notebook with another `arm` of the same size and seed, trained by `sft`: fine-tuned instead of distilled.
