# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-attacks)=
# # Attacks
#
# Reciting is the loudest way to give a record away. There are quieter ones: a model may not say a record and still be less surprised by
# it than by one it never saw. So an attacker who has a record and a model may be able to tell that the record was trained on: a
# {term}`membership attack <membership attack>`. This chapter asks how well that works, and how far planted secrets stand out.
#
# **What you will see**
#
# - whether members and {term}`non-members <non-member>` can be told apart without any model, which would spoil everything after it;
# - eight membership attacks on the teacher and every student, with {term}`intervals <interval>`, and where they stop being measurable;
# - the {term}`exposure` of planted secrets over the number of their copies, also of secrets only the teacher has seen;
# - stronger attacks, by models trained for the purpose, where a study trains them;
# - how private training is at most, as guessing coins proves.
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read.

# %% [markdown]
# ## In short

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import attacks, shadows
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
tables = load_tables(open_run(study_file, run_dir))
attack = attacks.strongest(tables.membership)
told = attacks.say_membership(tables.membership, attack)
proven = shadows.say_privacy_audit(tables.privacy_audit)
say(told[0], f"- {attacks.say_found(tables.membership, attack)}", proven[0])

# %% [markdown]
# ## First without any model
#
# If words alone tell members from non-members, an attack on a model may only be reading those words
# {cite}`das2024blind,duan2024membership`. So a classifier that sees no model comes first: it counts words and pairs of words. It should
# do no better than chance. We give its *{term}`AUC`*, the chance that it ranks a member above a non-member: 0.5 is guessing, 1 is certainty.

# %% tags=["csv:blind"]
say(attacks.say_blind(tables.blind))

# %% [markdown]
# ## Eight attacks, two passes
#
# Five attacks look at the model alone, three compare it with the same model before fine-tuning. The table gives the AUC of each: the
# teacher's with its interval, and of each size the fine-tuned model's and the range of the distilled ones.
#
# <details><summary>The attacks</summary>Alone: loss, zlib, lowercase (which needs a second pass, over the text in lower case), Min-K% and
# Min-K%++. Compared, token by token, with the model before: the reference ratio, EZ-MIA and WBC. A base model was fine-tuned on
# nothing, so it meets only the first five, and should give nothing away. A member is a record of the half that teacher and students
# share, whatever a method left out of it.</details>
#
# Sources: loss {cite}`yeom2018privacy`; zlib and lowercase {cite}`carlini2021extracting`; Min-K% {cite}`shi2024detecting`; Min-K%++
# {cite}`zhang2025mink`; reference ratio {cite}`mireshghallah2022quantifying`; EZ-MIA {cite}`ilic2026powerful`; WBC
# {cite}`chen2026window`.

# %% tags=["csv:membership"]
attacks.show_membership(tables.membership)

# %% tags=["csv:membership"] mystnb={"figure": {"caption": "AUC of every membership attack on every model, by size; bars are 95 % intervals. Dashed: chance.", "name": "fig-auc"}}
attacks.plot_membership(tables.membership)

# %% [markdown]
# To compare models, one attack is chosen: the strongest on the teacher. Choosing it for each model would make every number
# the best of eight.

# %%
say(*told[1:])

# %% [markdown]
# ## Accusing almost nobody wrongly
#
# An average hides what matters to the one who is found: a few records identified for certain. So we ask how many members are found when
# almost no outsider may be accused {cite}`carlini2022membership`. That is the left end of the curve. In the grey strip a single
# non-member decides, so nothing can be read there.

# %% tags=["csv:roc"] mystnb={"figure": {"caption": "Members found against non-members accused, on log axes, by the attack that is strongest on the teacher. Dashed: chance; grey: too few non-members to measure.", "name": "fig-roc"}}
attacks.plot_roc(tables.roc, tables.blind["non_members"].iloc[0])

# %% [markdown]
# The same at three rates of false accusation, with exact 95 % intervals. The threshold is the lowest that keeps the rate on these
# non-members, which favours the attacker. A rate of 1 in 1,000 needs 1,000 non-members: where there are fewer, no number is given.

# %% tags=["csv:membership"]
attacks.show_found(tables.membership, attack)

# %% [markdown]
# ## Planted secrets
#
# A {term}`canary` is a record with a random secret, planted a known number of times. Its {term}`twins <twin>` are records of the same
# form with secrets nobody was trained on. Exposure {cite}`carlini2019secret` says how far up the canary's secret ranks among the
# twins', by how likely the model holds it: 0 bits is last, the ceiling is first. A canary that no model ever saw has about 1.4 bits on
# average. There are few canaries of one number of copies, so read the rise, not the single point.

# %% tags=["csv:doses"]
attacks.show_doses(tables.doses)

# %% tags=["csv:doses", "csv:exposure"] mystnb={"figure": {"caption": "Mean exposure of canaries over their copies; bars are 95 % intervals. Diamonds: canaries that only the teacher read; dotted: the ceiling; dashed: chance.", "name": "fig-dose"}}
attacks.plot_doses(tables.doses)

# %%
say(*attacks.say_doses(tables.doses))

# %% [markdown]
# ## Secrets only the teacher has seen
#
# Some canaries may be in the teacher's private text and in no student's. A student that ranks them above chance has them from
# the teacher: through its soft labels or its text, on *other* records. A model without a teacher can know their form, which
# the twins share, but not the secrets. Here by number of copies; [inheritance](sec-inheritance) has all {term}`replicates <replicate>`.

# %% tags=["csv:doses"]
attacks.show_doses(tables.doses, teacher_only=True)

# %%
say(*attacks.say_teacher_only(tables.doses))

# %% [markdown]
# ## Attackers that train models of their own
#
# The attacks above look at one model and its base. A determined attacker trains *shadow* models like it, each on records drawn at
# random, and sees how a record's score changes when it was trained on. LiRA {cite}`carlini2022membership` asks which of the two
# ways of training explains the score better; RMIA {cite}`zarifzadeh2024low` whether the record beats most records that no model
# read. Here each model is the target once and the others are its shadows; plain attacks on the same targets stand beside.
#
# The score is the mean log-probability of the response, minus that of the model's own base: each shadow has a base of its own, and
# what that knows of a record says nothing about membership. Members are asked about twice: those the student read, and those its
# teacher alone read. Every record of this pool stands once in the training text.

# %% tags=["csv:shadow_attacks"]
shadows.show_shadow_attacks(tables.shadow_attacks)

# %% tags=["csv:shadow_attacks"] mystnb={"figure": {"caption": "AUC of attacks with shadow models, and of plain ones on the same targets; bars are 95 % intervals. Dashed: chance.", "name": "fig-shadows"}}
shadows.plot_shadow_attacks(tables.shadow_attacks)

# %%
say(*shadows.say_shadow_attacks(tables.shadow_attacks))

# %% [markdown]
# ## How private is training at most?
#
# {term}`Differential privacy <differential privacy>` bounds what one record can change: with a given {term}`ε <epsilon>`, no outcome is more than e^ε times as likely with a record
# as without it, but for a small probability δ. Fine-tuning with DP-SGD promises such an ε. What *guessing* can prove is the other
# end, a lower bound {cite}`steinke2023privacy`. A fair coin decided about each of some canaries whether it was trained on once or
# not at all. We guess those coins from how much likelier the secret has become. Too many right guesses, and ε cannot be
# small. A bound of 0 does not say that training is private, only that this attack found nothing.
#
# δ must be below one in the records trained on. Whoever publishes one record at random, in full, gives away each with just that
# probability, and would count as private with an ε of 0. All models are judged at the δ of DP-SGD where there is one, else at a
# tenth of that limit. Of twenty such bounds one is too high by luck.

# %% tags=["csv:privacy_audit"]
shadows.show_privacy_audit(tables.privacy_audit)

# %%
say(*proven[1:])

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
membership, exposure = tables.membership, tables.exposure["exposure"]
assert membership.groupby("model")["members"].first().nunique() == 1, "models were attacked on different members"
assert membership["rate"].dropna().between(0, 1).all()
assert exposure.empty or exposure.between(0, tables.doses["ceiling"].max()).all()

# %% [markdown]
# **Next**: [memorization at equal quality](sec-tradeoffs).
#
# **Try it**: replace `attack` by `"loss"` and run the cells after it again: how much of what is told comes from the comparison
# with the model before fine-tuning?
