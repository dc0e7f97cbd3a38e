"""What an audit says over all records of a group, added up shard by shard: nothing here grows with their number."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from palimpsest.audit import scores
from palimpsest.measure.statistics import rate_of

SHOWN = 10  # most memorized records listed in the report
TOP = ("id", "row", "length", "extraction_strength", "longest_span", "copies", "text")
COUNTED = ("rate", "count", "total", "low", "high")


class Totals:
    """Counts behind rates, moments behind means, curves, and the most memorized records of one group."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = settings
        self._counts: dict[tuple, np.ndarray] = {}
        self._moments: dict[str, tuple[int, float, float]] = {}
        self._curves: dict[str, dict[int, np.ndarray]] = {"model": {}, "reference": {}}
        self._top = pd.DataFrame(columns=list(TOP))
        self.short = 0  # records shorter than the window

    def add(
        self, numbers: pd.DataFrame, table: pd.DataFrame, reference: pd.DataFrame | None, texts: Sequence[str]
    ) -> None:
        """Add a shard.

        Args:
            numbers: `scores.per_record`, with `row`, `copies` and, for a reference, its own numbers as `reference_...`.
            table, reference: the score tables of the same records.
            texts: what may be shown of each record.
        """
        lengths, window, rules = (self._settings[name] for name in ("prefix_lengths", "window", "sampling"))
        self._count("model", scores.rates(numbers, lengths, window, list(rules)))
        scores.add_curve(self._curves["model"], table, window)
        if reference is not None:
            theirs = numbers.filter(like="reference_").rename(columns=lambda c: c.removeprefix("reference_"))
            self._count("reference", scores.verbatim_rates(theirs, lengths, window))
            scores.add_curve(self._curves["reference"], reference, window)
        for name in (name for name in scores.MEANS if name in numbers):
            self._moments[name] = _merged(self._moments.get(name), numbers[name].dropna().to_numpy(float))
        self.short += int((numbers["length"] < window).sum())
        best = _ranked(numbers.assign(text=texts)[list(TOP)])
        self._top = _ranked(pd.concat([self._top, best])) if len(self._top) else best

    def _count(self, model: str, rows: Sequence[Mapping]) -> None:
        for row in rows:
            key = (("model", model), *((k, v) for k, v in row.items() if k not in COUNTED))
            self._counts[key] = self._counts.get(key, np.zeros(2, int)) + (row["count"], row["total"])

    def rates(self) -> list[dict]:
        """Every rate with `rate, count, total, low, high` (95 % Wilson), as `scores.rates` over all records."""
        return [{**dict(key), **rate_of(int(count), int(total))} for key, (count, total) in self._counts.items()]

    def means(self) -> list[dict]:
        """Means over records with a 95 % normal interval: `measure, mean, low, high, total`."""
        rows = []
        for name, (count, mean, squares) in self._moments.items():
            middle = mean if count else np.nan
            reach = 1.96 * np.sqrt(squares / (count - 1) / count) if count > 1 else np.nan
            rows.append(
                {"measure": name, "mean": middle, "low": middle - reach, "high": middle + reach, "total": count}
            )
        return rows

    def mean(self, name: str) -> float:
        """The mean of one measure."""
        return self._moments[name][1]

    def curves(self) -> list[dict]:
        """Verbatim rate for every k, for the model and the reference: `model, k, rate, count, total, low, high`."""
        parts = ((model, scores.curve(total)) for model, total in self._curves.items() if total)
        return [{"model": model, **row} for model, rows in parts for row in rows]

    def most_memorized(self) -> list[dict]:
        """The records of which most is recited, by extraction strength, then by the longest span."""
        return self._top.to_dict("records")


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["extraction_strength", "longest_span"], ascending=False, kind="stable").head(SHOWN)


def _merged(former: tuple[int, float, float] | None, values: np.ndarray) -> tuple[int, float, float]:
    """Count, mean and sum of squared deviations of former values and these (Chan, Golub & LeVeque 1979)."""
    if not len(values):
        return former or (0, 0.0, 0.0)
    count, mean = len(values), float(values.mean())
    squares = float(((values - mean) ** 2).sum())
    if former is None or not former[0]:
        return count, mean, squares
    total, apart = former[0] + count, mean - former[1]
    return (
        total,
        former[1] + apart * count / total,
        former[2] + squares + apart**2 * former[0] * count / total,
    )
