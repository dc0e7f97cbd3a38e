"""How much of one set of texts already stands in another: what a model could repeat without having memorized a record."""

from collections.abc import Iterable

import pandas as pd


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
