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
# The teacher is the model that sees the private letters. Everything a student gives away later, it can only have from
# here: so the first question is how much of its own training text the teacher recites, and what it gained by it.
#
# **What you will see**
#
# - the same small model before and after it has read the members;
# - memorization and held-out loss after every epoch;
# - how much of the text that the teacher writes is simply the reference, word for word.
#
# **Needs**: notebook 01 for the same study. About half a minute for the smoke study, a minute for the demo.

# %% [markdown]
# ## Setup
#
# The next cell holds the parameters; the runner overrides them. With the values here, *Run All* runs the smoke study.

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
import pandas as pd

from palimpsest.book import stages
from palimpsest.chapters import figures, report
from palimpsest.measure import results
from palimpsest.study import load_study

figures.set_theme()
plan = load_study(study)

# %% [markdown]
# How the teacher is fine-tuned, from the study file:

# %%
pd.Series(plan.teacher.model_dump(exclude_none=True), name="teacher training").to_frame()

# %% [markdown]
# ## Before any private text
#
# The base model has read public text only (or comes from elsewhere, if the study names a model). What it gets right about
# the members it cannot have from them: this is the floor under every rate in this book.

# %%
base = stages.train_base(plan, "teacher", run_dir)
figures.facts(results.run_facts(run_dir, "base-teacher"))

# %% [markdown]
# ## Fine-tuning on the members
#
# Cross-entropy on the response, end-of-text included; the prompt is read but not trained on. After every epoch the model
# is scored on members and non-members, whose letters come from the same source and were never trained on. One line per
# epoch:

# %%
teacher = stages.train_teacher(plan, run_dir)
facts = results.run_facts(run_dir, "teacher")
figures.facts(facts)

# %% [markdown]
# ## What it learned, and what it learned by heart
#
# Learning shows as a falling loss on *non-members*. Memorizing shows as members recited, and as the gap between the two
# loss curves. The two do not happen at the same time.

# %% mystnb={"figure": {"caption": "The teacher while it is fine-tuned. Left: loss in nats per response token on members and non-members. Right: share of records whose response is decoded verbatim from the prompt, and share of secrets decoded exactly from the text before them; bands are 95 % Wilson intervals.", "name": "fig-teacher-trajectory"}}
path = results.trajectory(run_dir, "teacher")
figures.trajectory(path)

# %%
best = path[path["split"] == "non_member"].sort_values("loss").iloc[0]
end = path.groupby("split").last()
figures.say(
    f"Held-out loss is lowest after epoch {best['epoch']:g} ({best['loss']:.2f} nats per token) and ends at "
    f"{end.loc['non_member', 'loss']:.2f}; over the whole run, the share of {end['unit'].iloc[0]} recited rises to "
    f"{figures.percent(end.loc['member'], 'memorized', 'counted')} among members, against "
    f"{figures.percent(end.loc['non_member'], 'memorized', 'counted')} among non-members."
)

# %% [markdown]
# ## What the teacher writes
#
# `seq_kd` trains a student on text the teacher wrote. If the teacher recites the references, that text *is* the
# references, and the student is fine-tuned on the private data after all. The share of teacher text that equals its
# reference must therefore be read beside every Seq-KD result.

# %%
if "seq_kd" in plan.methods:
    stages.write_teacher_text(plan, run_dir)
figures.say(report.teacher_text(run_dir, plan))

# %% [markdown]
# ## Checks
#
# Later chapters rely on these facts.

# %%
members = path[path["split"] == "member"]
assert path["loss"].notna().all(), "a loss is not a number"
assert facts["method"] == "sft"

# %% [markdown]
# ## Summary

# %%
figures.say(
    f"- The teacher has {facts['parameters']:,} parameters, was trained for {facts['epochs']:g} epochs in "
    f"{facts['train_seconds']:.0f} s, and recites {figures.percent(end.loc['member'], 'memorized', 'counted')} of the members' {end['unit'].iloc[0]}.",
    f"- Before fine-tuning it recited {figures.percent(members.iloc[0], 'memorized', 'counted')}.",
    f"- Its files are in `{run_dir}/models/teacher`.",
)

# %% [markdown]
# **Next**: [train the students](../every_run.md).
#
# **Try it**: halve `teacher.epochs` in a copy of the study. Does the held-out loss suffer as much as the memorization?
