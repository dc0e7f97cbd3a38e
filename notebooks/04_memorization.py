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
# The question of the paper this book follows {cite}`singh2025teacher`: of what a model was fine-tuned on, how much does it
# recite, and how much less does a distilled student of the same size? The answer is a table, size by method. Here it has
# what the original lacks: held-out records as a control, the base models as a floor, counts and 95 % intervals.
#
# **What you will see**
#
# - the share of records recited verbatim, by three targets, and the share of secrets recited;
# - the same for records no model was trained on, which is what chance and boilerplate alone give;
# - how the answer depends on how much of a response an attacker already has, and on what is cut off before it;
# - what comes up when the model is sampled many times instead of decoded once, and what is nearly verbatim;
# - what each model is good for (held-out loss, ROUGE).
#
# **Needs**: the finished run; nothing is trained, scored or computed here, only tables are read.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study_file: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import closely, memorization, nearly
from palimpsest.chapters.figures import say, set_theme
from palimpsest.study import load_tables, open_run

set_theme()
run = open_run(study_file, run_dir)
study, tables, data = run.study, load_tables(run), run.require("data")
say(
    f"In this study a window is {study.measure.window} tokens, and the target that leads is **{data['target']}**, which counts {data['unit']}."
)

# %% [markdown]
# ## One table for everything
#
# Each model has read every record once, in one forward pass; the verdicts are arithmetic on that pass
# ([why this is exact](../methods.md)). Four targets, recited by greedy decoding (always the likeliest next token):
#
# - **window**: from the prompt, the first window of response tokens, end-of-text included, or all of them if there are
#   fewer. This is our reading of the paper's "token window k = 50".
# - **whole**: from the prompt, the whole response.
# - **next_window**: from the prompt and the first window, the next one {cite}`carlini2023quantifying`; only responses of at
#   least two windows count.
# - **secret**: from the text before it, a marked secret: a name, a number, an address that nothing in the prompt tells.
#
# The target that leads, for members and non-members:

# %% tags=["csv:rates"]
memorization.show_rates(tables.rates, data["target"])

# %% [markdown]
# ## Size by method
#
# The first figure is the paper's Table 1 for this study, by the target "window". On the right are the paper's own numbers.
# **They are another data set and another model family (GPT-2 on Dolly), given without intervals: compare shapes, not
# heights.** Where the data marks its secrets, they have a figure of their own.

# %% tags=["csv:rates"] mystnb={"figure": {"caption": "Share of records whose first window is recited from the prompt, with 95 % intervals. Circles: members that stand once in the training text; squares: repeated ones; hollow: non-members. Dotted line: the teacher; dashed: the base model. Right: Table 1 of arXiv 2506.16170, other data.", "name": "fig-table1"}}
memorization.plot_rates(tables.rates, "window", memorization.PAPER)

# %% tags=["csv:rates"] mystnb={"figure": {"caption": "Share of secrets recited from the text before them, with 95 % intervals. Circles: secrets of members that stand once in the training text; squares: of repeated ones; hollow: of non-members, which no model has seen. Dotted line: the teacher; dashed: the base model.", "name": "fig-secrets"}}
memorization.plot_rates(tables.rates, "secret")

# %%
say(*memorization.say_rates(tables.rates, data["target"], data["unit"]))

# %% [markdown]
# ## One record, token by token
#
# This is what a verdict is made of. Each token of a response is coloured by how sure the model was of it, given all the true text
# before it. The first one that greedy decoding would get wrong is outlined; secrets are underlined. Pointing at a token tells
# its probability.

# %% tags=["csv:strips"]
closely.show_strips(tables.strips)

# %% [markdown]
# ## The targets side by side
#
# A ratio without its target can't be compared with anything. The columns count the same models on the same members.

# %% tags=["csv:rates", "csv:near_ties"]
memorization.show_targets(tables.rates).join(memorization.show_near_ties(tables.near_ties))

# %% [markdown]
# A target has no column where nothing is eligible: no response is long enough, or no secret is marked. The last two columns say
# how firm the verdicts are: members in whose window the two largest logits somewhere lie less than 0.001 apart, where rounding
# might decide otherwise, and the data type they were computed in.
#
# ## Beyond chance
#
# What counts is the excess of members over non-members, in percentage points. If the interval includes zero, we have not shown
# memorization.

# %% tags=["csv:excess"]
memorization.show_excess(tables.excess)

# %% [markdown]
# ## If the attacker already has a part
#
# The more of a response is given, the more likely the rest follows. Every prefix length comes from the same pass.

# %% tags=["csv:by_prefix"] mystnb={"figure": {"caption": "Share of records whose next window is recited from the prompt and k response tokens. Colours: methods, on members; grey: the same models on non-members. Lines end where fewer than 20 records are left.", "name": "fig-curve"}}
memorization.plot_by_prefix(tables.by_prefix)

# %% tags=["csv:by_prefix"]
closely.show_by_prefix(tables.by_prefix)

# %% [markdown]
# That curve mixes two things: more is given, and another target is asked for. The other design holds the target, a response's
# last tokens, and gives only the k tokens just before it {cite}`carlini2023quantifying`; each k is scored anew. To a model
# that has read every record from its first token, a piece cut out of the middle is something new.

# %% tags=["csv:context"] mystnb={"figure": {"caption": "Two designs, with 95 % intervals. Left-truncated: a response's last tokens from the k tokens before them. Right-growing: as many tokens from the prompt and k response tokens. Grey, dashed: non-members.", "name": "fig-context"}}
memorization.plot_context(tables.context)

# %%
cut = study.measure.left_truncated
say(
    f"The target is {study.measure.left_target} tokens. The models fine-tuned on the members, by size, design and tokens given:"
    if cut
    else "This study does not cut the context (`measure.left_truncated` is empty)."
)

# %% tags=["csv:context"]
memorization.show_context(tables.context) if cut else None

# %% [markdown]
# ## If the attacker samples
#
# Greedy decoding is one try. Someone who samples can try a thousand times, and a response that is never the likeliest may
# still come up. (n, p)-discoverable extraction {cite}`hayes2025measuring` asks whether at least one of n samples is the target
# with probability p; here p is one half. It is exact arithmetic on the same pass: nothing is drawn.

# %% tags=["csv:discoverable"] mystnb={"figure": {"caption": "Share of members whose window is among n samples with probability one half or more, with 95 % intervals; a row of panels per way of sampling. Grey, dashed: non-members.", "name": "fig-discoverable"}}
memorization.plot_discoverable(tables.discoverable)

# %% tags=["csv:discoverable"]
memorization.show_discoverable(tables.discoverable)

# %%
say(*memorization.say_discoverable(tables.discoverable))

# %% [markdown]
# ## Nearly verbatim
#
# A record with one word changed gives its secret away as well, and no verdict above counts it {cite}`ippolito2023preventing`.
# So a part of the records is decoded from the prompt, to the response's length, and compared with it: ROUGE-L on words,
# edit similarity on characters. "Nearly verbatim" is an edit similarity of 0.9 or more, verbatim included.

# %% tags=["csv:near_misses"]
decoded = study.measure.approximate > 0
nearly.show_near_misses(tables.near_misses) if decoded else None

# %%
off = "This study decodes no records from their prompts (`measure.approximate` is 0)."
say(*(nearly.say_near_misses(tables.near_misses) if decoded else [off]))

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
# A student that has learned nothing has memorized nothing. Held-out loss and ROUGE {cite}`lin2004rouge` on the test prompts
# say how much was learned; [a later chapter](sec-tradeoffs) compares methods at equal quality.

# %% tags=["csv:quality"]
memorization.show_quality(tables.quality)

# %% [markdown]
# Loss in nats per token; ± is the half-width of a 95 % normal interval over records.
#
# ## Checks

# %%
totals = tables.rates[(tables.rates["split"] == "member") & (tables.rates["target"] == "window")]["total"]
assert totals.nunique() == 1, "models were measured on different members"
assert tables.rates["rate"].dropna().between(0, 1).all()
assert {"member", "non_member"} <= set(tables.rates["split"]) <= {"member", "repeated", "non_member"}

# %% [markdown]
# ## Summary

# %%
say(
    *memorization.say_rates(tables.rates, data["target"], data["unit"]),
    f"- {memorization.say_quality(tables.quality)}",
)

# %% [markdown]
# **Next**: [what a student inherits from its teacher](sec-inheritance).
#
# **Try it**: add another way of sampling to `measure.sampling` in a copy of the study. What does a lower temperature find that
# greedy decoding does not?
