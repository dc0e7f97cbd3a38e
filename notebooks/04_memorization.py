# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-memorization)=
# # How much is memorized
#
# Of what a model was fine-tuned on, how much does it recite word for word? And how much of that does a distilled student of the same
# size? That is the question of the paper this book follows {cite}`singh2025teacher`. We answer it with what the paper lacks:
# {term}`held-out records <non-member>` as a control, the models before fine-tuning as a floor, counts and 95 % {term}`intervals <interval>`.
#
# **What you will see**
#
# - the share of records recited verbatim, by three targets, and the share of secrets recited;
# - the same for records no model was trained on, which is what chance and boilerplate alone give;
# - how the answer depends on how much of a response an attacker already has, and on what is cut off before it;
# - what comes up when the model is sampled many times instead of decoded once, and what is {term}`nearly verbatim`;
# - what each model is good for (held-out loss, {term}`ROUGE`).
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read.

# %% [markdown]
# ## In short

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import closely, memorization, partly
from palimpsest.chapters.figures import read_out, say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")
told = memorization.say_rates(tables.rates, data["target"], data["unit"])
say(told[0], told[-1], f"- {memorization.say_quality(tables.quality)}")

# %% [markdown]
# ## Who recites what
#
# Each model reads every record once, and everything below is arithmetic on that one pass ([why this is exact](../methods.md)). A model
# *recites* a target if {term}`greedy decoding`, always the likeliest next token, gives it exactly. There are four targets:
#
# - **window**: from the prompt, the first window of response tokens, end-of-text included, or all of them if there are
#   fewer. This is our reading of the paper's "token window k = 50".
# - **whole**: from the prompt, the whole response.
# - **next_window**: from the prompt and the first window, the next one {cite}`carlini2023quantifying`; only responses of at
#   least two windows count.
# - **secret**: from the text before it, a marked secret: a name, a number, an address that nothing in the prompt tells.
#
# The last is what counts, where the data marks its secrets; else it is the window.

# %%
say(
    f"This study counts **{data['unit']}**, and its window is {study.measure.window} tokens. In brackets: 95 % intervals."
)

# %% tags=["csv:rates"]
memorization.show_rates(tables.rates, data["target"])

# %% [markdown]
# ## Size by method
#
# The first figure is the paper's Table 1 for this study, by the target "window". **The paper's numbers, in the last panel, are of another data
# set and model family (GPT-2 on Dolly): compare shapes, not heights.** Where the data marks its secrets, the second figure shows them.
#
# <details><summary>How to read the marks</summary>Circles: text that stands once in the training data. Squares: repeated text. Hollow:
# non-members, which no model has read, so chance. Dashed: the student before fine-tuning.</details>

# %% tags=["csv:rates"] mystnb={"figure": {"caption": "Share of records whose first window is recited from the prompt; bars are 95 % intervals. Last panel: the paper's numbers, of other data and models.", "name": "fig-table1"}}
memorization.plot_rates(tables.rates, "window", memorization.PAPER)

# %% tags=["csv:rates"] mystnb={"figure": {"caption": "Share of secrets recited from the text before them; bars are 95 % intervals.", "name": "fig-secrets"}}
memorization.plot_rates(tables.rates, "secret")

# %%
say(*told[1:-1])

# %% [markdown]
# ## One record, token by token
#
# Here is one record. Each {term}`token <token>` of its response is coloured by how sure the model was of it, given all the true text
# before it. The first token that greedy decoding gets wrong is outlined; secrets are underlined. Point at a token, or tap it, for its probability.

# %% tags=["csv:strips"]
closely.show_strips(tables.strips)

# %% [markdown]
# ## The targets side by side
#
# How much is recited depends on what is asked for. The columns ask the same models for the same members, in three or four ways. Where
# members are repeated in the training text, they are asked for those.

# %% tags=["csv:rates", "csv:near_ties"]
read_out(memorization.show_targets(tables.rates), memorization.say_near_ties(tables.near_ties))

# %% [markdown]
# A target that no record is long enough for has no column. A *{term}`near-tie`* is a place where the two likeliest tokens are nearly as likely.
#
# ## Beyond chance
#
# What counts is the {term}`excess` of members over non-members, in percentage points. If the interval includes zero, we have not shown
# memorization, which is not to say that there is none.

# %% tags=["csv:excess"]
memorization.show_excess(tables.excess)

# %% [markdown]
# ## If the attacker already has a part
#
# The more of a response is given, the more likely the rest follows. Every prefix length comes from the same pass.

# %% tags=["csv:by_prefix"] mystnb={"figure": {"caption": "Share of records whose next window is recited from the prompt and k tokens of the response. Colours: members; grey: the same models on non-members.", "name": "fig-curve"}}
partly.plot_by_prefix(tables.by_prefix)

# %%
say(*partly.say_by_prefix(tables.by_prefix))

# %% tags=["csv:by_prefix"]
closely.show_by_prefix(tables.by_prefix)

# %% [markdown]
# That curve mixes two things: more is given, and another target is asked for. So the other design keeps the target, a response's last
# tokens, and gives only the k tokens just before it {cite}`carlini2023quantifying`. A model that has read every record from its first
# token meets something new there.

# %% tags=["csv:context"] mystnb={"figure": {"caption": "Share recited when the context is cut from the left (above) and when it grows to the right (below). Bars: 95 % intervals; grey, dashed: non-members.", "name": "fig-context"}}
partly.plot_context(tables.context)

# %% tags=["csv:context"]
cut = study.measure.left_truncated
off = "This study does not cut the context (`measure.left_truncated` is empty)."
told = partly.say_context(tables.context) if cut else [off]
read_out(partly.show_context(tables.context) if cut else None, *told)

# %% [markdown]
# ## If the attacker samples
#
# Greedy decoding is one try. Someone who samples can try a thousand times, and a response that is never the likeliest may still come
# up. {term}`(n, p)-discoverable extraction <(n, p)-discoverable>` {cite}`hayes2025measuring` asks whether one of n samples is the target with
# probability p; here p is one half. It is exact arithmetic on the same pass: nothing is drawn.

# %% tags=["csv:discoverable"] mystnb={"figure": {"caption": "Share of members whose window comes up in n samples with probability one half or more. Bars: 95 % intervals; grey, dashed: non-members.", "name": "fig-discoverable"}}
partly.plot_discoverable(tables.discoverable)

# %% tags=["csv:discoverable"]
read_out(partly.show_discoverable(tables.discoverable), *partly.say_discoverable(tables.discoverable))

# %% [markdown]
# ## Nearly verbatim
#
# A record with one word changed gives its secret away as well, and nothing above counts it {cite}`ippolito2023preventing`. So some
# records are decoded from the prompt and compared with the response. *{term}`Edit similarity <edit similarity>`* is the share of characters that need no change;
# from 0.9 on we say *nearly verbatim*.

# %% tags=["csv:near_misses"]
decoded = study.measure.approximate > 0
off = "This study decodes no records from their prompts (`measure.approximate` is 0)."
told = memorization.say_near_misses(tables.near_misses) if decoded else [off]
read_out(memorization.show_near_misses(tables.near_misses) if decoded else None, *told)

# %% [markdown]
# ## Which records are at risk
#
# Every record that a model was fine-tuned on, those that most students recite first. *Teacher*, *fine-tuned* and *students* say how
# many of its secrets the teacher recites, how many a fine-tuned student does, and how many distilled students recite any. *Samples*:
# of so many plain samples from the prompt, one is expected to begin as the record does.

# %% tags=["csv:at_risk"]
closely.show_at_risk(tables.at_risk, data["unit"])

# %% [markdown]
# ## What each model is good for
#
# A student that has learned nothing has memorized nothing. So we also ask how much was learned, on {term}`test records <validation>` that
# nobody was trained on. *Test loss* says how surprised a model is by them, in {term}`nats <nat>` per token; at 0 it would know every token, and one
# nat more means 2.7 times less likely. *ROUGE* {cite}`lin2004rouge` says how many words, or word orders, its answers share with the
# reference.

# %% tags=["csv:quality"]
memorization.show_quality(tables.quality)

# %% [markdown]
# [A later chapter](sec-tradeoffs) compares methods at equal quality.

# %% [markdown] tags=["remove-cell"]
# ## Checks

# %% tags=["remove-cell"]
totals = tables.rates[(tables.rates["split"] == "member") & (tables.rates["target"] == "window")]["total"]
assert totals.nunique() == 1, "models were measured on different members"
assert tables.rates["rate"].dropna().between(0, 1).all()
assert {"member", "non_member"} <= set(tables.rates["split"]) <= {"member", "repeated", "non_member"}

# %% [markdown]
# **Next**: [what a student inherits from its teacher](sec-inheritance).
#
# **Try it**: add another way of sampling to `measure.sampling` in a copy of the study. What does a lower {term}`temperature` find that
# greedy decoding does not?
