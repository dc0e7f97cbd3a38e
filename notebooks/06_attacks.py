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
# Reciting is the loudest way to give a record away. There are quieter ones: a model may not say a letter and still be
# visibly less surprised by it than by a letter it never saw. This chapter asks whether an attacker who has a letter and a
# model can tell that the letter was in the *teacher's* private text, and how far planted secrets stand out.
#
# **What you will see**
#
# - whether members and non-members can be told apart without any model, which would spoil everything after it;
# - eight membership attacks on the teacher and every student, with intervals, and where they stop being measurable;
# - the exposure of planted secrets over the number of their copies, also of secrets only the teacher has seen.
#
# **Needs**: notebooks 01 to 03; nothing is trained or scored here, only tables are read. Some seconds.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import attacks, figures
from palimpsest.measure import membership_inference
from palimpsest.study import load_study
from palimpsest.study.runs import locate, write_table

figures.set_theme()
plan = load_study(study)
tables = locate(run_dir) / "tables"

# %% [markdown]
# ## First without any model
#
# If words alone tell members from non-members, an attack on a model may only be reading those words
# {cite}`das2024blind,duan2024membership`. So a classifier that sees no model comes first: counts of single words and pairs
# of words, judged on letters it was not fitted to. It should do no better than chance, an area under the ROC curve (AUC) of
# 0.5.

# %%
records = attacks.letters(run_dir)
texts = records.groupby("split")["response"].agg(list)
blind = membership_inference.blind_baseline(texts["member"], texts["non_member"])
figures.say(
    f"Word counts alone reach an AUC of {blind['auc']:.2f} (95 % interval {blind['low']:.2f} to {blind['high']:.2f}) on "
    f"{blind['members']} members and {blind['non_members']} non-members. "
    + (blind["warning"] or "Chance is within the interval: the two groups do not differ in their words.")
)

# %% [markdown]
# ## Eight attacks, two passes
#
# Each attack is arithmetic on the score tables. *Loss* {cite}`yeom2018privacy`, *zlib* and *lowercase*
# {cite}`carlini2021extracting`, *Min-K%* {cite}`shi2024detecting` and *Min-K%++* {cite}`zhang2025mink` look at the model
# alone (lowercase needs a second pass, over the text in lower case). The *reference ratio*
# {cite}`mireshghallah2022quantifying`, *EZ-MIA* {cite}`ilic2026powerful` and *WBC* {cite}`chen2026window` compare it, token
# by token, with the same model before fine-tuning. A base model was fine-tuned on nothing, so it meets only the attacks that
# need no comparison, and should not give anything away.
#
# A member is a letter of the teacher's private text, whatever a student was trained on.

# %%
scored = attacks.scores(plan, run_dir)
rated = attacks.evaluate(scored)
write_table(rated, tables / "membership.csv")
attacks.auc_table(rated)

# %% mystnb={"figure": {"caption": "Area under the ROC curve of every membership attack on every model, by size; bars are 95 % DeLong intervals. Dashed: chance. Attacks without a mark need a table that a model does not have (a base has no model before it).", "name": "fig-auc"}}
attacks.auc_figure(rated)

# %% [markdown]
# To compare models, one attack is chosen: the strongest on the teacher. Choosing it for each model would make every number
# the best of eight.

# %%
attack = attacks.strongest(rated)
figures.say(*attacks.told(rated, attack))

# %% [markdown]
# ## Accusing almost nobody wrongly
#
# An average over all thresholds hides what matters to the one who is found: a few records identified for certain. The left
# end of the ROC curve, on log axes, shows it {cite}`carlini2022membership`. In the grey strip a single non-member decides,
# so nothing can be read there.

# %% mystnb={"figure": {"caption": "ROC curves on log axes, by size, of the attack that is strongest on the teacher. Dashed: chance. Grey strip: false positive rates below one non-member, which this study cannot measure.", "name": "fig-roc"}}
others = int((records["split"] == "non_member").sum())
attacks.roc_figure(attacks.roc(scored, attack), others)

# %% [markdown]
# Read off at three false positive rates, with 95 % Clopper-Pearson intervals. The threshold is the lowest that keeps the rate
# on these non-members, which favours the attacker. A rate of 1 in 1,000 needs 1,000 non-members: where there are fewer, there
# is no number to give.

# %%
low = rated[(rated["measure"] == "TPR") & (rated["attack"] == attack)]
low = low.assign(at=[f"at {100 * f:g} % false positives" for f in low["fpr"]])
figures.rate_table(low, ["model"], "at")

# %%
figures.say(attacks.low_told(rated, attack))

# %% [markdown]
# ## Planted secrets
#
# A canary is a letter with a random code, planted 1 to 16 times; its twins are letters of the same form with codes nobody was
# trained on. Exposure {cite}`carlini2019secret` says where the canary's code ranks among the twins' by its log-probability:
# 0 bits is last, the ceiling is first, and a canary no model ever saw has about 1.4 bits on average. The rank is exact, and
# a tie counts against the canary. A dose has few canaries, so its interval is rough: read the rise, not the single point.

# %%
exposed = attacks.exposures(plan, run_dir)
dose = attacks.doses(exposed)
write_table(exposed, tables / "exposure.csv")
write_table(dose, tables / "dose_response.csv")
figures.say(*attacks.dose_told(dose))

# %% mystnb={"figure": {"caption": "Mean exposure of canaries in bits over their copies in the training text, by size and method; bars are 95 % bootstrap intervals over seeds and canaries. Hollow diamonds: canaries that only the teacher was fine-tuned on. Dotted: the ceiling that the number of twins sets; dashed: the mean of a canary never seen.", "name": "fig-dose"}}
attacks.dose_figure(dose)

# %% [markdown]
# ## Secrets only the teacher has seen
#
# Some canaries are in the teacher's private text and in no student's. A student that ranks them above chance has them from
# the teacher: through its soft labels or its text, on *other* letters.

# %%
only = dose[dose["teacher_only"].astype(bool)].set_index(["size", "method"])
only[["copies", "canaries", "exposure", "exposure_low", "exposure_high", "chance", "ceiling", "count", "total"]]

# %%
figures.say(attacks.only_told(dose))

# %% [markdown]
# ## Checks

# %%
assert rated.groupby("model")["members"].first().nunique() == 1, "models were attacked on different members"
assert rated["rate"].dropna().between(0, 1).all()
assert exposed["exposure"].astype(float).between(0, dose["ceiling"].max()).all()

# %% [markdown]
# ## Summary

# %%
figures.say(
    f"- Without a model, words alone tell members from non-members with an AUC of {blind['auc']:.2f} "
    f"({blind['low']:.2f} to {blind['high']:.2f}).",
    *attacks.told(rated, attack),
    f"- {attacks.low_told(rated, attack)}",
    f"- {attacks.only_told(dose)}",
)

# %% [markdown]
# **Next**: [memorization at equal quality](sec-tradeoffs).
#
# **Try it**: replace `attack` by `"loss"` and run the cells after it again: how much of what is told comes from the comparison
# with the model before fine-tuning?
