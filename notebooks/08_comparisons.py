# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-comparisons)=
# # Methods compared
#
# Train a student again and its numbers move. Draw other records and another teacher, and they move further. This chapter asks which
# differences between methods are left when everything random is drawn anew several times over. Methods differ in two choices: whose
# text the student reads, and which divergence from the teacher it minimizes. Beside them stand the simplest ways of leaking less.
#
# **What you will see**
#
# - what we claimed before and withdraw;
# - the paper's findings {cite}`singh2025teacher`: contradictions first, then what agrees, then what is undecided, and why;
# - every other question that was asked, at equal quality and at the end of training.
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read. A study with one {term}`replicate` can't tell
# two methods apart; published tables of several are then shown instead, if the project keeps any.

# %% [markdown]
# ## What is compared

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder
published_dir: str = "book/published/demo-replicates"  # shown where the study has one replicate

# %%
from palimpsest.book import published
from palimpsest.chapters import claims, comparisons, other_names, shadows, tradeoffs
from palimpsest.chapters.figures import read_out, say, set_theme
from palimpsest.study import open_run

set_theme()
tables, source = published.choose(open_run(study_file, run_dir), published_dir)
say(source, "", comparisons.say_families(tables.claims))

# %% [markdown]
# (sec-withdrawn)=
# ## What we withdraw
#
# An earlier version of this chapter compared methods where each first reached the lowest held-out loss that both reach. It read one of
# them at its flat minimum and the other on its steep descent. Two runs of plain fine-tuning that differed in their seed alone came out
# 0.33 to 0.57 {term}`nats <nat>` apart that way, more than most effects it claimed. Withdrawn are:
#
# - that students of the *reverse* divergence know the members better than a fine-tuned one of the same quality;
# - that students of the *forward* divergence, and Word-KD's, know them less;
# - that stopping early does as much as distilling: in that study it spared what stands once, not what is repeated;
# - that some students of that study recite no secret: they recited most of those repeated 16 times, which were not asked for.
#
# What the present study shows of both stands below and on [the front page](00_intro.ipynb).
#
# ## How two methods are compared now
#
# Both are read over the whole range of quality that both reach, by the same rule, in every replicate. Quality has three meanings:
# calibrated {term}`validation loss`, {term}`ROUGE-L <ROUGE>` of the answers, and tokens read. We call a difference *less* or *more* if
#
# - there are five replicates or more;
# - it is larger than the *null*: what a method differs from itself in another replicate;
# - it is significant among all questions of its *family*: one question, asked of one measure at one moment;
# - at equal quality, all three meanings give it one sign. The number shown is the smallest of the three.
#
# Everything else is *undecided*. All families were declared before any result was seen. [Methods](sec-equal-utility) has the formulas,
# the correction of {term}`p-values <p-value>`, and how often this is wrong.
#
# ## The paper's findings
#
# At the end of training, the paper finds less memorization with Word-KD, Seq-KD and RKLD than with plain fine-tuning, and least with
# RKLD. The paper has one training of each, no held-out control and no comparison at equal quality; it measures what is recited. Our
# *{term}`reverse KL`, own text* is a variant of RKLD, token by token and without its language-model term.

# %% tags=["csv:claims"]
read_out(claims.show_paper(tables.claims), *claims.say_paper(tables.claims))

# %% [markdown]
# ## Distilled or fine-tuned

# %% tags=["csv:claims"] mystnb={"figure": {"caption": "First method minus second; bars are 95 % intervals over replicates. Marks: at equal quality; ticks: at the end; in colour: decided; grey bands: the null.", "name": "fig-claims-distilling"}}
comparisons.plot_claims(tables.claims, "distilling")

# %% tags=["csv:claims"]
read_out(claims.show_tally(tables.claims, "distilling"), *claims.say_tally(tables.claims, "distilling"))

# %% [markdown]
# The differences at equal quality, each with its {term}`interval`, and its verdict where it is decided:

# %% tags=["csv:claims"]
comparisons.show_claims(tables.claims, "distilling", "equal")

# %% [markdown]
# A mean over a range can hide where the difference lies. So here it is at stated distances from the worse of the two best qualities.
# One that turns round along the way is no difference of the methods. Missing points were not reached by both.

# %% tags=["csv:distances"] mystnb={"figure": {"caption": "Repeated text recited, distilled minus fine-tuned, at stated distances from the best quality that both reach. Quality improves to the right.", "name": "fig-distances"}}
comparisons.plot_distances(tables.distances, "recited_repeated")

# %%
say(comparisons.say_distances(tables.distances, "recited_repeated"))

# %% [markdown]
# The curves behind it, means over replicates ([how to read them](sec-tradeoffs)):

# %% tags=["csv:trajectories"] mystnb={"figure": {"caption": "What students know of the records, against validation loss. One line per method, the mean over replicates; large: the last point.", "name": "fig-mean-trajectories"}}
tradeoffs.plot_tradeoff(tables.trajectories, "text")

# %% [markdown]
# ## What a student was never given
#
# Half of the private records were read by the teacher alone. What a student knows of them came through the teacher: it is *transferred*.

# %% tags=["csv:claims"] mystnb={"figure": {"caption": "What students know of records that only the teacher read, first method minus second. Marks as above.", "name": "fig-claims-transferred"}}
comparisons.plot_claims(tables.claims, "transferred")

# %% tags=["csv:claims"]
read_out(claims.show_tally(tables.claims, "transferred"), *claims.say_tally(tables.claims, "transferred"))

# %% [markdown]
# Is it the secret that came through, or whose it is? {term}`Canaries <canary>` that only the teacher read, asked for under their own name and under that
# of another one ([how](sec-inheritance)); then what a flatter divergence changes.

# %% tags=["csv:other_names"]
other_names.show_other_names(tables.other_names)

# %% tags=["csv:other_names", "csv:transferred"]
say(
    *other_names.say_other_names(tables.other_names),
    *other_names.say_temperatures(tables.other_names, tables.transferred),
)

# %% [markdown]
# ## The strongest attacks
#
# Students trained alike on other records tell more of one than it does itself ([how](sec-attacks)). Planted canaries prove how
# private a training was at most. Each bound holds for one training with 95 % confidence: one in twenty that gives nothing away shows a
# bound above 0.

# %% tags=["csv:shadow_attacks", "csv:privacy_audit"]
told = [shadows.say_shadow_attacks(tables.shadow_attacks)[0], *shadows.say_privacy_audit(tables.privacy_audit)]
read_out(shadows.show_shadow_attacks(tables.shadow_attacks), *told)

# %% [markdown]
# ## The two choices taken apart
#
# Reverse or forward divergence; own text or references; begun cold or from a fine-tuned student; a flatter distribution.

# %% tags=["csv:claims"]
told = claims.say_tally(tables.claims, "divergence", "text", "warm start", "temperature")
read_out(comparisons.show_choices(tables.claims), *told)

# %% [markdown]
# ## Stopping early, and other simple measures
#
# *Annealed*: the learning rate of plain fine-tuning comes down to nothing within fewer epochs. The goldfish loss {cite}`hans2024goldfish`
# never trains on some tokens. *Predicted left out*: a regression tells which records a method makes a student recite, and it is run
# again without them {cite}`borkar2026memorization`. {term}`DP-SGD <differential privacy>` {cite}`abadi2016deep` bounds what can be learned of one record.

# %% tags=["csv:claims"] mystnb={"figure": {"caption": "Simple measures against what they are made from, first minus second. Marks as above.", "name": "fig-claims-mitigation"}}
comparisons.plot_claims(tables.claims, "mitigation")

# %% tags=["csv:claims"]
asked = ("early stopping", "mitigation")
read_out(claims.show_tally(tables.claims, *asked), *claims.say_tally(tables.claims, *asked))

# %% [markdown]
# ## Tuning
#
# Every method was tried at the same learning rates, on a replicate that is reported nowhere else. Calibrated validation loss alone chose.

# %% tags=["csv:tuning"]
read_out(comparisons.show_tuning(tables.tuning), comparisons.say_tuning(tables.tuning))

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
assert set(tables.claims["verdict"]) <= {"less", "more", "undecided"}
decided = tables.claims[tables.claims["verdict"] != "undecided"]
assert (decided["replicates"] >= 5).all() and (decided["p_holm"] < 0.05).all()
assert (decided["estimate"].abs() > decided["null_largest"]).all()

# %% [markdown]
# **Next**: [every run](../every_run.md), one page per student; or [your own models and data](../use_your_own.md).
#
# **Try it**: give a copy of the study `replicates: 5`, and this page compares its own students.
