# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Memorization audit
#
# How much of a file does a language model recite? Nothing was trained for this page: the model read every record once, and
# the rest is arithmetic on what it expected at each token. Rates carry their number of records and a 95 % interval.

# %%
import json
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from palimpsest.audit import report, scores
from palimpsest.chapters import figures
from palimpsest.data import masking

figures.set_theme()

# %% tags=["parameters"]
folder: str = "audit"  # where summary.json and records.parquet lie; figures go there too

# %%
here = Path(folder)
summary = json.loads((here / "summary.json").read_text())
records = scores.numbers(here / "records.parquet", report.DRAWN)
settings = summary["settings"]


def keep(figure, name):
    figure.savefig(here / "figures" / f"{name}.png", dpi=150)
    return figure


# %% [markdown]
# ## The answer

# %%
figures.say(*(f"- {line}" for line in summary["headline"]))

# %%
warned = [f"<li>{masking.escape(line)}</li>" for line in summary["warnings"]]
HTML(f"<p>Read with it:</p><ul>{''.join(warned)}</ul>" if warned else "")

# %% [markdown]
# ## What was audited

# %%
HTML(masking.to_html(report.facts(summary)) + masking.to_html(report.files(summary)))

# %% [markdown]
# ## Verbatim extraction
#
# The model is given the prompt and the first *k* tokens of a record and decodes greedily. The record counts as recited if the
# next *m* tokens come out exactly; where fewer are left, all of them, end-of-text included. This is decided for every *k* from
# one forward pass, and equals what decoding would give in the same arithmetic.

# %%
HTML(masking.to_html(report.rates(summary, "verbatim", ["k", "m"])))

# %% alt="Share of records recited against the number of tokens given"
keep(report.curve(summary), "verbatim")

# %% [markdown]
# Three more views of the same pass: **extraction strength** is the share of a record that comes out, to its end, from the shortest
# prefix that suffices (0 if its last token is missed); the **longest span** is the longest run of tokens that comes out once the
# text before it is given; the **loss** is the mean surprise per token.

# %% alt="Cumulative distributions of extraction strength, longest span and loss"
views = {
    "extraction_strength": "extraction strength",
    "longest_span": "longest span, tokens",
    "loss": "loss, nats per token",
}
keep(report.distributions(records, views, summary), "distributions")

# %%
HTML(masking.to_html(report.means(summary)))

# %% [markdown]
# ## Less context before the same target
#
# The other way to ask: the target stays, the last *m* tokens of a record, and the model is given only the *k* tokens before it. The
# same records at every *k*: those with *m* tokens and the largest *k* before them.

# %%
left = report.rates(summary, "left-truncated", ["k", "m"]) if settings["left_truncated"] else None
HTML("<p>Not measured (<code>--left-truncated</code>).</p>" if left is None else masking.to_html(left))

# %% [markdown]
# ## Extraction by sampling
#
# Greedy decoding undercounts what many samples would find. A record is (*n*, *p*)-discoverable if, of *n* sampled continuations of
# the prompt, at least one is exact with probability *p*.

# %%
HTML(masking.to_html(report.rates(summary, "discoverable", ["sampling", "n", "p", "m"])))

# %% [markdown]
# ## Nearly verbatim
#
# For records that are not recited exactly, the greedy continuation is decoded from its first miss onward and compared with the
# true text. It counts as nearly verbatim from an edit similarity of 0.9.

# %%
near = report.rates(summary, "nearly verbatim") if settings["approximate"] else None
HTML("<p>Not measured (<code>--no-approximate</code>).</p>" if near is None else masking.to_html(near))

# %% [markdown]
# ## Membership
#
# Can one tell from the model's surprise alone whether a record was in its training text? AUC 0.5 is guessing. What counts for
# privacy is the share of members found while few non-members are accused.

# %%
attacks = report.attacks(summary)
HTML(masking.to_html(attacks) if len(attacks) else "<p>Not measurable without <code>--non-members</code>.</p>")

# %% alt="True against false positive rate of every membership attack, on log axes"
keep(report.roc(here / "records.parquet"), "roc") if len(attacks) else None

# %%
blind = summary["blind"]
figures.say(report.blind(blind) if blind else "")

# %% [markdown]
# ## The most memorized records
#
# By extraction strength, then by the longest span. `row` is the record's place in its file.

# %%
HTML(masking.to_html(pd.DataFrame(summary["most_memorized"]), ["text"], show_secrets=True))

# %% [markdown]
# ## How sure are the verdicts?
#
# A verdict may flip where the two likeliest tokens are nearly tied, and another precision or device may break the tie otherwise.

# %%
HTML(masking.to_html(report.rates(summary, "near-tie", ["m"])))

# %% [markdown]
# ## What made these numbers

# %%
HTML(masking.to_html(report.versions(summary)))
