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
# what the original lacks: held-out letters as a control, the base models as a floor, counts and 95 % intervals.
#
# **What you will see**
#
# - the share of records recited verbatim, under three readings of "verbatim", and the share of secrets recited;
# - the same for letters no model was trained on, which is what chance and boilerplate alone give;
# - how the answer depends on how much of a response an attacker already has, and on what is cut off before it;
# - what comes up when the model is sampled many times instead of decoded once, and what is nearly verbatim;
# - what each model is good for (held-out loss, ROUGE).
#
# **Needs**: notebooks 01 to 03; nothing is trained or scored here, only tables are read.

# %% [markdown]
# ## Setup

# %% tags=["parameters"]
study: str = "studies/smoke.yaml"  # the study file
run_dir: str = "runs/smoke"  # the study's run folder

# %%
from palimpsest.chapters import figures, memorization, readings, report
from palimpsest.study import load_study
from palimpsest.study.runs import locate, write_table

figures.set_theme()
plan = load_study(study)
tables = locate(run_dir) / "tables"

# %% [markdown]
# ## One table for everything
#
# Each model has read every record once, in one forward pass; the verdicts are arithmetic on that pass
# ([why this is exact](../methods.md)). Four readings of "memorized":
#
# - **window**: greedy decoding from the prompt gives the first 50 response tokens, end-of-text included, or all of them
#   if there are fewer. This is the headline, and our reading of the paper's "token window k = 50".
# - **whole**: it gives the whole response.
# - **carlini**: after the prompt and 50 response tokens it gives the next 50 {cite}`carlini2023quantifying`; only responses
#   of at least 100 tokens count.
# - **secret**: from the text before it, greedy decoding gives a secret exactly: a name, a number, an address that nothing
#   in the prompt tells.

# %%
table = memorization.rates(plan, run_dir)
write_table(table, tables / "memorization.csv")
together = memorization.seeds_together(table)
figures.rate_table(together[together["reading"] == report.reading_of(table)[0]], ["label"], "split")

# %% [markdown]
# ## Size by method
#
# The first figure is the paper's Table 1 for this study, the reading "window". On the right are the paper's own numbers.
# **They are another data set and another model family (GPT-2 on Dolly), given without intervals: compare shapes, not
# heights.**

# %% mystnb={"figure": {"caption": "Share of records whose first 50 response tokens (or all, if fewer) are decoded greedily from the prompt, by student size and method, with 95 % Wilson intervals. Filled: members. Hollow: non-members, the chance level. Dotted line: the teacher on members; dashed: the base model of that size, before any private text. Right panel: Table 1 of arXiv 2506.16170, other data and models.", "name": "fig-table1"}}
figures.rates(table[table["reading"] == "window"], memorization.PAPER)

# %% mystnb={"figure": {"caption": "Share of secrets decoded exactly from the text before them, by student size and method, with 95 % Wilson intervals. Filled: members' secrets. Hollow: non-members' secrets, which no model has seen. Dotted line: the teacher; dashed: the base model of that size.", "name": "fig-secrets"}}
secret = table[table["reading"] == "secret"]
figures.rates(secret)

# %%
figures.say(*report.headline(table))

# %% [markdown]
# ## The three readings side by side
#
# A ratio without its reading can't be compared with anything. The columns count the same models on the same members.

# %%
members = together[together["split"] == "member"]
shown = figures.rate_table(members[members["total"] > 0], ["label"], "reading")
shown.join(readings.precision(plan, run_dir))

# %% [markdown]
# A reading has no column where no record is eligible: the letters of the embedded study are shorter than the 100 tokens which
# "carlini" asks for. The last two columns say how firm the verdicts are: members in whose window the two largest
# logits somewhere lie less than 0.001 apart, where rounding might decide otherwise, and the data type they were computed in.
#
# ## Beyond chance
#
# What counts is the excess of members over non-members, in percentage points. An interval that holds zero means: not shown to
# be memorized.

# %%
beyond = memorization.excess(table)
write_table(beyond, tables / "excess.csv")
figures.rate_table(beyond[beyond["reading"].isin(["window", "secret"])], ["label"], "reading")

# %% [markdown]
# ## If the attacker already has a part
#
# The more of a response is given, the more likely the rest follows. Every prefix length comes from the same pass.

# %% mystnb={"figure": {"caption": "Share of records decoded verbatim (next 50 tokens, or all that remain) when the prompt and the first k response tokens are given, by k. Colours: methods, on members. Grey: the same models on non-members. Only records with more than k response tokens count; lines end where fewer than 20 are left.", "name": "fig-curve"}}
points = memorization.curve(plan, run_dir)
write_table(points, tables / "curve.csv")
figures.curve(points[points["total"] >= min(20, points["total"].max())])

# %% [markdown]
# That curve mixes two things: more is given, and another target is asked for. The other design holds the target, a response's
# last tokens, and gives only the k tokens just before it {cite}`carlini2023quantifying`; each k is scored anew. To a model
# that has read every letter from its first token, a piece cut out of the middle is something new.

# %% mystnb={"figure": {"caption": "Two designs for the amount of context, by size and method, with 95 % Wilson intervals. Above: the last tokens of a response from only the k tokens before them; \"all\": from everything before them. Below: as many tokens from the prompt and the first k response tokens, a target that moves on with k. Grey, dashed: the same on non-members.", "name": "fig-context"}}
context = readings.truncated(plan, run_dir)
write_table(context, tables / "context.csv")
readings.truncated_figure(context)

# %%
figures.say(*readings.truncated_told(context, plan.measure.left_target))

# %% [markdown]
# ## If the attacker samples
#
# Greedy decoding is one try. Someone who samples can try a thousand times, and a response that is never the likeliest may
# still come up. (n, p)-discoverable extraction {cite}`hayes2025measuring` asks whether at least one of n samples is the target
# with probability p; here p is one half. It is exact arithmetic on the same pass: nothing is drawn.

# %% mystnb={"figure": {"caption": "Share of members whose window (see above) is among n samples with probability 0.5 or more, by size and method, with 95 % Wilson intervals; one row of panels per way of sampling. Grey, dashed: the same on non-members.", "name": "fig-discoverable"}}
sampled = readings.discoverable(plan, run_dir)
write_table(sampled, tables / "discoverable.csv")
readings.discoverable_figure(sampled)

# %%
figures.say(*readings.discoverable_told(sampled))

# %% [markdown]
# ## Nearly verbatim
#
# A letter with one word changed gives its secret away as well, and no verdict above counts it {cite}`ippolito2023preventing`.
# So a part of the letters is decoded from the prompt, to the response's length, and compared with it: ROUGE-L on words,
# edit similarity on characters. "Nearly verbatim" is an edit similarity of 0.9 or more, verbatim included. Means have
# bootstrap intervals, shares Wilson's.

# %%
near = readings.nearness(plan, run_dir)
write_table(near, tables / "approximate.csv")
readings.nearness_table(near)

# %%
figures.say(*readings.nearness_told(near))

# %% [markdown]
# ## What each model is good for
#
# A student that has learned nothing has memorized nothing. Held-out loss and ROUGE {cite}`lin2004rouge` on the test prompts
# say how much was learned; [a later chapter](sec-tradeoffs) compares methods at equal quality.

# %%
quality = memorization.quality(plan, run_dir)
write_table(quality, tables / "quality.csv")
memorization.quality_table(quality)

# %% [markdown]
# Loss in nats per token; ± is the half-width of a 95 % normal interval over records.
#
# ## Checks

# %%
totals = table[(table["split"] == "member") & (table["reading"] == "window")]["total"]
assert totals.nunique() == 1, "models were measured on different members"
assert table["rate"].dropna().between(0, 1).all()
assert set(table["split"]) == {"member", "non_member"}

# %% [markdown]
# ## Summary

# %%
figures.say(*report.summary(table, quality))

# %% [markdown]
# **Next**: [what a student inherits from its teacher](sec-inheritance).
#
# **Try it**: set `readings.PROBABILITY = 0.01` before the call of `readings.discoverable` and run its cells again: how much more does an
# attacker find who is content with a chance of one in a hundred?
