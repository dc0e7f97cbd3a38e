"""What a study's records are like: sizes, wording, and how much of one split already stands in another.

What models are accused of memorizing must not be in the held-out text as well; these tables say how far that holds.
"""

import re
from collections import Counter
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.data.masking import escape, mask

WORD, MARK = re.compile(r"[\w'-]+"), re.compile(r"<\w+>")
READERS = ("teacher and students", "the teacher alone", "nobody (unseen twins)")
SIZES = (1, 3, 5, 8)  # words in the runs that are compared


def forms(records: pd.DataFrame) -> pd.Series:
    """The responses with every secret replaced by its kind, such as `<phone>`: the wording without what is secret.

    Args:
        records: `response`, and `secrets` as lists of spans (`start`, `end`, `kind`; end excluded) that don't overlap.
    """

    def form(text: str, spans: Iterable[dict]) -> str:
        for span in sorted(spans, key=lambda s: s["start"], reverse=True):
            text = f"{text[: span['start']]}<{span.get('kind', 'secret')}>{text[span['end'] :]}"
        return text

    return pd.Series(map(form, records["response"], records["secrets"]), index=records.index, dtype=object)


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The text's runs of `n` words, split at white space; a text of fewer words has none."""
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def ngram_share(texts: Iterable[str], among: Iterable[str], n: int) -> float:
    """Share of the n-word runs in `texts` (each occurrence counted) that occur in `among`; NaN if there are none."""
    known = {gram for text in among for gram in ngrams(text, n)}
    found = [gram in known for text in texts for gram in ngrams(text, n)]
    return sum(found) / len(found) if found else float("nan")


def by_split(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The letters of each split that has some (canaries and twins left out), in reading order."""
    letters = records[records["kind"] == "letter"]
    groups = {split: letters[letters["split"] == split] for split in ("public", "member", "non_member", "test")}
    return {split: group for split, group in groups.items() if len(group)}


def overview(records: pd.DataFrame) -> pd.DataFrame:
    """One row per split and kind: records, their mean lengths in characters, secrets, and how often training sees one."""
    measured = records.assign(
        prompt=records["instruction"].str.len() + records["context"].str.len(),
        answer=records["response"].str.len(),
        held=records["secrets"].map(len),
    )
    table = measured.groupby(["split", "kind"], sort=False).agg(
        records=("id", "size"), prompt=("prompt", "mean"), response=("answer", "mean"), secrets=("held", "mean"),
        copies=("copies", "sum"),
    )  # fmt: skip
    names = {"prompt": "prompt, characters", "response": "response, characters", "secrets": "secrets per record"}
    return table.rename(columns={**names, "copies": "rows of training text"}).round(2)


def samples(records: pd.DataFrame, show: bool) -> str:
    """A few records as HTML, data text escaped; secrets are marked where `show`, else every text is masked whole."""
    rows = []
    for row in records.itertuples():
        if show:
            prompt, answer = escape(" / ".join(t for t in (row.instruction, row.context) if t)), ""
            at = 0
            for span in sorted(row.secrets, key=lambda s: s["start"]):
                answer += escape(row.response[at : span["start"]])
                answer += f"<mark>{escape(row.response[span['start'] : span['end']])}</mark>"
                at = span["end"]
            answer += escape(row.response[at:])
        else:
            prompt, answer = mask(row.instruction + row.context), mask(row.response)
        rows.append(f"<tr><td>{row.split}</td><td>{prompt}</td><td>{answer}</td></tr>")
    head = "<tr><th>split</th><th>prompt</th><th>response</th></tr>"
    return f'<table class="dataframe"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def token_lengths(records: pd.DataFrame, examples: list[Example]) -> pd.DataFrame:
    """Per record `split`, `kind`, and tokens: `prompt`, `response` (end-of-text included), `secret` (of the response)."""
    return records[["id", "split", "kind"]].assign(
        prompt=[e.prompt_length for e in examples],
        response=[len(e.response_ids) for e in examples],
        secret=[sum(e.secret) for e in examples],
    )


def length_figure(lengths: pd.DataFrame) -> plt.Figure:
    """Histograms of prompt and response lengths in tokens, one line per split (letters only)."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
    letters = lengths[lengths["kind"] == "letter"]
    for ax, part in zip(axes, ("prompt", "response"), strict=True):
        bins = np.histogram_bin_edges(letters[part], bins=18)
        for split, rows in letters.groupby("split", sort=False):
            weights = np.full(len(rows), 1 / len(rows))
            ax.hist(rows[part], bins=bins, weights=weights, histtype="step", lw=1.5, label=split.replace("_", "-"))
        ax.set(xlabel=f"{part}, tokens")
    axes[0].set_ylabel("share of records")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right center")
    plt.close(figure)
    return figure


def overlap(records: pd.DataFrame) -> pd.DataFrame:
    """Each split against the members: prompts and responses found whole there, and shares of n-word runs found there.

    Responses are compared by their `forms`, so a shared secret can't hide a difference nor make one.
    """
    groups = by_split(records)
    members, known = groups["member"], set(forms(groups["member"]))
    rows = []
    for split, group in groups.items():
        if split == "member":
            continue
        texts = forms(group)
        same = (group["instruction"] + "\n" + group["context"]).isin(
            set(members["instruction"] + "\n" + members["context"])
        )
        shares = {f"{n}-word runs": ngram_share(texts, known, n) for n in SIZES}
        rows.append({"split": split, "prompts": int(same.sum()), "responses": int(texts.isin(known).sum()), **shares})
    return pd.DataFrame(rows).set_index("split")


def telling_words(records: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """The words that tell public from private responses best: by the log odds of the shares of responses holding them.

    One is added to each count, so that a word of one side only has finite odds. Secrets are left out.
    """
    groups = by_split(records)
    holding = {
        side: Counter(w for text in forms(groups[side]) for w in set(WORD.findall(MARK.sub(" ", text.lower()))))
        for side in ("public", "member")
    }

    def odds(word: str) -> float:
        p, q = ((holding[side][word] + 1) / (len(groups[side]) + 2) for side in ("public", "member"))
        return np.log(q / (1 - q)) - np.log(p / (1 - p))

    ranked = sorted(holding["public"] | holding["member"], key=lambda w: (odds(w), w))
    return pd.DataFrame({"public": ranked[:count], "private": ranked[: -count - 1 : -1]}, index=range(1, count + 1))


def style_sentence(splits: dict[str, pd.DataFrame]) -> str:
    """How much of the private wording the public text already has; `splits` as from `by_split`."""
    if "public" not in splits:
        return "The models were trained on text that is not part of this study."
    members, public = forms(splits["member"]), forms(splits["public"])
    words, runs = (ngram_share(members, public, n) for n in (1, 3))
    return (
        f"Of the words in the members' responses {words:.0%} occur in public responses too (a secret counts as one word that "
        f"does not), of their three-word runs {runs:.1%}: the difference is what fine-tuning has to teach."
    )


def doses(records: pd.DataFrame) -> pd.DataFrame:
    """Canaries by who reads them and how often they stand in the training text, then the unseen twins."""
    planted = records[records["kind"].isin(["canary", "twin"])]
    who = np.select([planted["kind"] == "twin", planted["teacher_only"]], READERS[:0:-1], READERS[0])
    readers = pd.Categorical(who, READERS, ordered=True)
    counts = planted.assign(reader=readers).groupby(["reader", "copies"], observed=True).size()
    return counts.rename("records").rename_axis(["read by", "copies"]).to_frame()


def secret_kinds(records: pd.DataFrame) -> pd.DataFrame:
    """Per kind of secret: how many there are in each split, and their mean length in characters."""
    rows = [
        {"kind": s["kind"], "split": r.split, "characters": s["end"] - s["start"]}
        for r in records.itertuples()
        for s in r.secrets
    ]
    if not rows:
        return pd.DataFrame({"characters": []})
    table = pd.DataFrame(rows)
    counts = table.pivot_table(index="kind", columns="split", aggfunc="size", fill_value=0)
    return counts.assign(characters=table.groupby("kind")["characters"].mean().round(1))


def secrets_sentence(letters: pd.DataFrame) -> str:
    """How many secrets these letters hold and how much of the responses they are."""
    spans = [s["end"] - s["start"] for secrets in letters["secrets"] for s in secrets]
    if not spans:
        return "The data does not say which parts of its records are secret; only whole responses can be counted."
    share = sum(spans) / letters["response"].str.len().sum()
    return f"The {len(letters)} members hold {len(spans)} secrets, {share:.0%} of the characters of their responses."


def canaries_sentence(records: pd.DataFrame) -> str:
    """How many canaries there are and how many rows of training text they take."""
    planted = records[records["kind"] == "canary"]
    if planted.empty:
        return "This study's data has no canaries."
    own = planted["teacher_only"]
    return (
        f"{(~own).sum()} canaries take {planted['copies'][~own].sum()} rows of every student's training text; {own.sum()} more "
        f"take {planted['copies'][own].sum()} rows of the teacher's alone. "
        f"{(records['kind'] == 'twin').sum()} twins are read by nobody."
    )
