"""Chapter 01, what a study's records are like: sizes, wording, and how much of one split already stands in another.

What models are accused of memorizing must not be in the held-out text as well; these tables say how far that holds. The page is
the data stage's own: it shows what `splits`, `secret_kinds`, `overlap` and `planted` say of the records, and `tables` writes the
same. Text of the records (`show_samples`, `telling_words`) is shown where the study allows it and never written to a table.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.data.examples import Example
from palimpsest.data.masking import escape, mask
from palimpsest.data.records import prompt_texts
from palimpsest.data.splits import load_records
from palimpsest.measure.read_back import examples_of, tokenizer_of
from palimpsest.measure.statistics import say_copies
from palimpsest.study import Run

WORD, MARK = re.compile(r"[\w'-]+"), re.compile(r"<\w+>")
READERS = ("teacher and students", "the teacher alone", "nobody (unseen twins)")
PLAIN = ("public", "member", "teacher_only", "non_member", "validation", "test")  # in reading order
# What a table calls a split and a kind of record, and what a figure does.
SHOWN = {"public": "public", "member": "members", "teacher_only": "the teacher's own", "non_member": "non-members"}
HALVES = {split: name for split, name in SHOWN.items() if split != "non_member"}
KINDS = {"canary": "canaries", "twin": "twins of canaries"}
SIZES = (1, 3, 5, 8)  # words in the runs that are compared


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """What this chapter counts, as `study.tables` declares it."""
    records = load_records(run)
    counted = {"splits": splits, "secret_kinds": secret_kinds, "overlap": overlap, "planted": planted}
    examples = examples_of(run.study, records, tokenizer_of(run))
    return {**{name: count(records) for name, count in counted.items()}, "lengths": token_lengths(records, examples)}


def by_split(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The records of each split that has some (canaries and twins left out), in reading order."""
    plain = records[records["kind"] == "letter"]
    groups = {split: plain[plain["split"] == split] for split in PLAIN}
    return {split: group for split, group in groups.items() if len(group)}


def forms(records: pd.DataFrame) -> list[str]:
    """The responses with every secret replaced by its kind, such as `<phone>`: the wording without what is secret.

    Args:
        records: `response`, and `secrets` as lists of spans (`start`, `end`, `kind`; end excluded) that don't overlap.
    """
    texts = zip(records["response"], records["secrets"], strict=True)
    return [_rewritten(text, spans, str, lambda kind, _: f"<{kind}>") for text, spans in texts]


def _rewritten(
    text: str, spans: Iterable[dict], plain: Callable[[str], str], secret: Callable[[str, str], str]
) -> str:
    """The text with `secret` (kind, secret) in the place of every secret and `plain` of what stands between them."""
    pieces, at = [], 0
    for span in sorted(spans, key=lambda s: s["start"]):
        pieces += [plain(text[at : span["start"]]), secret(_kind(span), text[span["start"] : span["end"]])]
        at = span["end"]
    return "".join([*pieces, plain(text[at:])])


def _kind(span: dict) -> str:
    return span.get("kind", "secret")


def ngram_share(texts: Iterable[str], among: Iterable[str], n: int) -> float:
    """Share of the runs of `n` words in `texts` (each occurrence counted) that occur in `among`; NaN if there are none."""

    def runs(text: str) -> list[tuple[str, ...]]:
        words = text.split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = {run for text in among for run in runs(text)}
    found = [run in known for text in texts for run in runs(text)]
    return sum(found) / len(found) if found else float("nan")


# ---------------------------------------------------------------- what is counted


def splits(records: pd.DataFrame) -> pd.DataFrame:
    """One row per split and kind: records, their mean lengths in characters, secrets, and how often training sees one."""
    measured = records.assign(
        kind=records["kind"].replace("letter", "record"),
        prompt=prompt_texts(records).str.len() - ("instruction" in records),  # the break between
        answer=records["response"].str.len(),
        held=records["secrets"].map(len),
    )
    table = measured.groupby(["split", "kind"], sort=False).agg(
        records=("id", "size"), prompt_characters=("prompt", "mean"), response_characters=("answer", "mean"),
        secrets_per_record=("held", "mean"), training_rows=("copies", "sum"),
    )  # fmt: skip
    return table.reset_index()


def secret_kinds(records: pd.DataFrame) -> pd.DataFrame:
    """Per kind of secret and split: how many there are, and their mean length in characters; no rows if none is marked."""
    rows = [(_kind(s), row.split, s["end"] - s["start"]) for row in records.itertuples() for s in row.secrets]
    spans = pd.DataFrame(rows, columns=["secret_kind", "split", "length"])
    return spans.groupby(["secret_kind", "split"])["length"].agg(secrets="size", characters="mean").reset_index()


def overlap(records: pd.DataFrame) -> pd.DataFrame:
    """Each split against the members: prompts and responses found whole there, and shares of n-word runs found there.

    Responses are compared by their `forms`, so a shared secret can't hide a difference nor make one.
    """
    groups = by_split(records)
    members, rows = groups.pop("member"), []
    known, prompts = set(forms(members)), set(prompt_texts(members))
    for split, group in groups.items():
        texts, same = forms(group), prompt_texts(group).isin(prompts)
        shares = {f"runs_{n}": ngram_share(texts, known, n) for n in SIZES}
        rows.append(
            {"split": split, "prompts": int(same.sum()), "responses": sum(text in known for text in texts), **shares}
        )
    return pd.DataFrame(rows)


def planted(records: pd.DataFrame) -> pd.DataFrame:
    """Canaries by who reads them, how often they stand in the training text and whether a coin decided it; then the unseen twins."""
    found = records[records["kind"].isin(["canary", "twin"])]
    who = np.select([found["kind"] == "twin", found["split"] == "teacher_only"], READERS[:0:-1], READERS[0])
    counted = found.assign(read_by=pd.Categorical(who, READERS, ordered=True))
    counts = counted.groupby(["read_by", "copies", "coin"], observed=True).size().rename("records").reset_index()
    return counts.astype({"read_by": str})


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


def token_lengths(records: pd.DataFrame, examples: list[Example]) -> pd.DataFrame:
    """Of the records that are neither canary nor twin: `split`, and tokens of `prompt` and `response` (end-of-text included)."""
    tokens = {"prompt": [e.prompt_length for e in examples], "response": [len(e.response_ids) for e in examples]}
    return records[["split"]].assign(**tokens)[records["kind"] == "letter"].reset_index(drop=True)


# ---------------------------------------------------------------- shown


def show_samples(records: pd.DataFrame, show: bool) -> str:
    """A few records as HTML, data text escaped; secrets are marked where `show`, else every text is masked whole."""
    rows = []
    for row in records.itertuples():
        asked = " / ".join(text for text in (row.instruction, row.context) if text)
        answer = _rewritten(row.response, row.secrets, escape, lambda _, secret: f"<mark>{escape(secret)}</mark>")
        prompt, answer = (escape(asked), answer) if show else (mask(row.instruction + row.context), mask(row.response))
        rows.append(f"<tr><td>{row.split}</td><td>{prompt}</td><td>{answer}</td></tr>")
    head = "<tr><th>split</th><th>prompt</th><th>response</th></tr>"
    return f'<table class="dataframe"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def show_splits(splits: pd.DataFrame) -> pd.DataFrame:
    """A row per split and kind of record."""
    names = [
        SHOWN.get(split, split)
        if kind == "record"
        else f"{KINDS[kind]}{', the teacher alone' * (split == 'teacher_only')}"
        for split, kind in zip(splits["split"], splits["kind"], strict=True)
    ]
    shown = {"split": names, "records": splits["records"], "training rows": splits["training_rows"]}
    for name, head in (("prompt_characters", "characters, prompt"), ("response_characters", "characters, response")):
        shown[head] = splits[name].map("{:.0f}".format)
    shown["secrets each"] = splits["secrets_per_record"].map("{:.1f}".format)
    return pd.DataFrame(shown).set_index("split")


def show_planted(planted: pd.DataFrame) -> pd.DataFrame | None:
    """Canaries and twins, a row per reader and number of copies; None without any."""
    if planted.empty:
        return None
    coin = [", by the toss of a coin" * bool(tossed) for tossed in planted["coin"]]
    copies = [f"{say_copies(n)}{more}" for n, more in zip(planted["copies"], coin, strict=True)]
    shown = {"read by": "read by " + planted["read_by"], "copies": copies, "records": planted["records"]}
    return pd.DataFrame(shown).set_index(["read by", "copies"])


def show_overlap(overlap: pd.DataFrame) -> pd.DataFrame:
    """A row per split: prompts and responses that stand whole among the members, and shares of words and of runs of five and eight."""
    shown = {
        "split": [SHOWN.get(split, split) for split in overlap["split"]],
        "whole prompts": overlap["prompts"],
        "whole responses": overlap["responses"],
    }
    for size, head in ((1, "words"), (5, "five-word runs"), (8, "eight-word runs")):
        shown[head] = overlap[f"runs_{size}"].map("{:.1%}".format).str.replace("%", " %")
    return pd.DataFrame(shown).set_index("split")


def show_secret_kinds(secret_kinds: pd.DataFrame) -> pd.DataFrame:
    """A row per kind: how many in each split, and their mean length."""
    rows = secret_kinds.assign(split=secret_kinds["split"].map(HALVES).fillna("held out"))
    wide = rows.pivot_table(index="secret_kind", columns="split", values="secrets", aggfunc="sum", sort=False)
    wide = wide.reindex(columns=[*HALVES.values(), "held out"]).dropna(axis=1, how="all").fillna(0).astype(int)
    length = (rows["secrets"] * rows["characters"]).groupby(rows["secret_kind"]).sum()
    return wide.assign(characters=(length / wide.sum(axis=1)).map("{:.1f}".format)).rename_axis("kind of secret")


def plot_lengths(lengths: pd.DataFrame) -> plt.Figure:
    """Prompt and response lengths in tokens, a row per split: the median, and the range of nine records in ten."""
    splits = [split for split in reversed(PLAIN) if split in set(lengths["split"])]
    figure, axes = figures.panels(1, 2, height=0.5 + 0.3 * len(splits))
    for ax, part in zip(axes[0], ("prompt", "response"), strict=True):
        for place, split in enumerate(splits):
            low, middle, high = lengths.loc[lengths["split"] == split, part].quantile([0.05, 0.5, 0.95])
            ax.plot([low, high], [place, place], color="#999999", lw=2)
            ax.plot([middle], [place], color="#444444", ms=6, **figures.mark_of(split))
        figures.name_rows(ax, [SHOWN.get(split, split) for split in splits])
        ax.set(xlabel=f"{part}, tokens", ylim=(-0.6, len(splits) - 0.4))
    return figure


def say_style(groups: dict[str, pd.DataFrame]) -> str:
    """How much of the private wording the public text already has; `groups` as from `by_split`."""
    if "public" not in groups:
        return "The models were trained on text that is not part of this study."
    members, public = forms(groups["member"]), forms(groups["public"])
    words, runs = (ngram_share(members, public, n) for n in (1, 3))
    return (
        f"Of the words in the members' responses {words:.0%} occur in public responses too, of their three-word runs {runs:.1%}. "
        "A secret counts as one word that does not. The difference is what fine-tuning has to teach."
    )


def say_secrets(members: pd.DataFrame) -> str:
    """How many secrets these records hold and how much of the responses they are."""
    spans = [s["end"] - s["start"] for secrets in members["secrets"] for s in secrets]
    if not spans:
        return "The data does not say which parts of its records are secret; only whole responses can be counted."
    share = sum(spans) / members["response"].str.len().sum()
    return f"The {len(members)} members hold {len(spans)} secrets, {share:.0%} of the characters of their responses."


def say_halves(records: pd.DataFrame) -> str:
    """Who is trained on which half, and how often the records of a half are repeated."""
    groups = by_split(records)
    copies = groups["member"]["copies"]
    line = f"The teacher and the students read {len(copies)} members, {copies.sum()} rows with their copies"
    if copies.max() > 1:
        line += f": {(copies == 1).sum()} stand there once, the others up to {copies.max()} times"
    if "teacher_only" not in groups:
        return f"{line}. The teacher reads no others."
    half = groups["teacher_only"]["copies"]
    return f"{line}. The teacher alone reads {len(half)} more, {half.sum()} rows: what a student knows of them it has from its teacher."


def say_planted(planted: pd.DataFrame) -> str:
    """How many canaries there are and how many rows of training text they take, and how many a coin decided about."""
    if planted.empty:
        return "This study's data has no canaries."
    rows = planted.assign(rows=planted["records"] * planted["copies"]).groupby("read_by")[["records", "rows"]].sum()
    both, alone, nobody = rows.reindex(READERS, fill_value=0).itertuples()
    line = f"{both.records} canaries take {both.rows} rows of every student's training text. "
    if alone.records:
        line += f"{alone.records} more take {alone.rows} rows of the teacher's alone. "
    line += f"{nobody.records} twins are read by nobody."
    coins = planted.loc[planted["coin"], "records"].sum()
    return line + (f" Of {coins} canaries and twins, a fair coin decided which they are." if coins else "")
