"""Two methods compared over replicates: at equal quality, in three meanings of it, or at the end of training.

In: trajectories, a row per model and point measured during its training. A replicate draws records, canaries, base, teacher and
students anew, from records that no other replicate has. So replicates are independent, and their spread contains the sampling of
members, non-members and validation records, and with the latter that of the point at which two curves are matched: nothing below
a replicate is resampled. Seeds inside a replicate are averaged first.

How a curve is read, both sides by the same rule:

1. The points up to the best quality, in training order. Quality is made monotone by isotonic regression (Barlow et al. 1972):
   points that do not improve are pooled with those before them, quality and measure alike. Dropping them would keep the lucky
   ones, and a slow method has more points to be lucky with.
2. The measure between points by monotone cubic interpolation (Fritsch & Carlson 1980; scipy's PCHIP). Straight lines lie above a
   convex curve, the more so the further its points are apart, which shows a fast method as one that memorizes more.
3. Nothing is read across a gap wider than `Quality.gap`, as between an untrained model and the first point of a fast method:
   neither side counts there.

Two curves are compared on the range that both reach: from the better of their first qualities to the worse of their best ones less
a margin, so that neither is at its flat optimum, where a small error of quality is a large one of everything else.

`benchmarks/comparing.py` simulates studies with a known truth: there intervals hold it as often as they should, but for shares near
0 or 1 at the end of training (0.84 at worst), whose differences are skewed; and a method's difference from itself, not the p-value,
is what most claims fail at.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression
from scipy.stats import t

from palimpsest.errors import InputError
from palimpsest.measure.statistics import holm

ENOUGH_REPLICATES, LEVEL = 5, 0.05
_POINT = ["size", "method", "replicate", "epoch"]
_ASKED = ["family", "claim", "size", "first", "second", "measure", "quality"]
COLUMNS = [*_ASKED, "replicates", "estimate", "low", "high", "null_largest", "p_holm", "verdict", "because"]
POINT_COLUMNS = [*_ASKED, "distance", "replicates", "estimate", "low", "high"]


@dataclass(frozen=True)
class Question:
    """Whether the method `first` has less or more of `measure` than `second`, asked at every size that has both.

    `family`: the questions whose p-values are corrected together. `at`: "equal" (quality) or "end" (of training).
    """

    family: str
    claim: str
    first: str
    second: str
    measure: str
    at: str


@dataclass(frozen=True)
class Quality:
    """A meaning of quality: a column, in its own unit.

    `sign`: 1 if more is better. `margin`: how far from the worse best quality the range ends. `gap`: the widest that is read across.
    `step`: of the grid that means are taken over. `distances`: from the worse best quality, for `differences_at_distances`. For
    tokens, step and distances are shares: of the largest and of the smaller number of tokens that were read.
    """

    sign: int
    margin: float
    gap: float
    step: float
    distances: tuple[float, ...]


QUALITIES = {
    "validation_loss_calibrated": Quality(-1, 0.1, 0.25, 0.0025, (0.1, 0.2, 0.4)),  # nats per token
    "rouge_l": Quality(1, 0.02, 0.1, 0.001, (0.02, 0.05, 0.1)),
    "tokens": Quality(1, 0.0, np.inf, 0.001, (0.25, 0.5, 0.75)),
}
# At the end of training a curve is one point.
_MEANINGS = QUALITIES | {"none": Quality(1, 0.0, 0.0, 1.0, ())}


class _Reading:
    """What a method's replicates show of one measure under one meaning of quality, on a grid of it (more is better).

    `replicates`: those in which it was measured; by them `best` qualities, `curves` and `values` `[replicates, grid]`, which are
    NaN where a curve says nothing.
    """

    def __init__(self, tables: dict, measure: str, quality: str, grid: np.ndarray):
        rule = _MEANINGS[quality]
        known = {r: np.stack([points[quality], points[measure]], axis=1) for r, points in tables.items()}
        known = {r: points[~np.isnan(points).any(1)] for r, points in known.items()}
        self.replicates = [replicate for replicate, points in known.items() if len(points)]
        paths = [_improving(rule.sign * known[r][:, 0], known[r][:, 1]) for r in self.replicates]
        self.best, self.margin, self.grid = np.array([q[-1] for q, _ in paths]), rule.margin, grid
        self.least = 1 if quality == "none" else 2  # one point of a curve is no range
        self.curves = [_between(*path, rule.gap) for path in paths]
        self.values = np.array([curve(grid) for curve in self.curves]).reshape(-1, len(grid))

    def minus(self, other: "_Reading", rows: list[int], others: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean differences `[pairs]` of rows over the range both reach, NaN where there is none, and every value compared."""
        a, b = self.values[rows], other.values[others]
        worse_best = np.minimum(self.best[rows], other.best[others])[:, None]
        both = ~np.isnan(a) & ~np.isnan(b) & (self.grid <= worse_best - self.margin)
        count = both.sum(1)
        mean = np.where(both, a - b, 0.0).sum(1) / np.where(count >= self.least, count, np.nan)
        return mean, np.concatenate([a[both], b[both]])

    @cached_property
    def null_largest(self) -> float:
        """The largest difference of the method from itself in another replicate; NaN if no two can be compared."""
        pairs = np.array([*combinations(range(len(self.replicates)), 2)], dtype=int).reshape(-1, 2)
        return np.fmax.reduce(np.abs(self.minus(self, *pairs.T)[0]), initial=np.nan)


class _Readings:
    """Curves of a study, each read once."""

    def __init__(self, trajectories: pd.DataFrame, questions: list[Question]):
        self.arms, self.ends = defaultdict(dict), defaultdict(dict)
        measures = list(dict.fromkeys(q.measure for q in questions))
        wanted = list(dict.fromkeys([*_POINT, "seed", *QUALITIES, *measures]))
        missing = [name for name in wanted if name not in trajectories]
        if missing:
            raise InputError(f"trajectories have no {', '.join(missing)}; wanted the columns {', '.join(wanted)}")
        wrong = sorted({q.at for q in questions} - {"equal", "end"})
        if wrong:
            raise InputError(f'a question is asked at "{wrong[0]}"; wanted "equal" (quality) or "end" (of training)')
        twice = trajectories[trajectories.duplicated([*_POINT, "seed"])]
        if len(twice):
            where = ", ".join(f"{name} {twice.iloc[0][name]}" for name in [*_POINT, "seed"])
            raise InputError(f"trajectories have two rows of {where}; wanted one: keep the run that is meant")
        means = {**dict.fromkeys([*QUALITIES, *measures], "mean"), "_seeds": "sum"}
        points = trajectories.assign(_seeds=1).groupby(_POINT, as_index=False).agg(means)
        # A point that some seed lacks would be a mean of other models than the points beside it.
        most = points.groupby(_POINT[:3])["_seeds"].transform("max")
        points = points[points["_seeds"] == most].sort_values("tokens").assign(none=0.0)
        self.sizes = trajectories["size"].drop_duplicates().tolist()
        for (size, method, replicate), part in points.groupby(_POINT[:3]):
            columns = {name: part[name].to_numpy(float) for name in [*_MEANINGS, *measures]}
            self.arms[size, method][replicate] = columns
            self.ends[size, method][replicate] = {name: column[-1:] for name, column in columns.items()}
        # Of a replicate: two of them count other records, so that their shares differ by less than one record is worth.
        each = trajectories.groupby("replicate")[measures]
        self.steps = each.agg(lambda v: v.round(12).drop_duplicates().sort_values().diff().min()).min().to_dict()
        self.grids, self.read = {"none": np.zeros(1)}, {}
        for name, rule in QUALITIES.items():
            found = rule.sign * points[name].dropna()
            low, high = (found.min(), found.max()) if len(found) else (0.0, 0.0)
            step = rule.step * (high or 1.0) if name == "tokens" else rule.step
            # Multiples of the step: the same qualities whoever else is in the table.
            self.grids[name] = np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step

    def of(self, size: str, method: str, measure: str, quality: str) -> _Reading:
        """A method's replicates at one size."""
        key = size, method, measure, quality
        if key not in self.read:
            tables = (self.ends if quality == "none" else self.arms)[size, method]
            self.read[key] = _Reading(tables, measure, quality, self.grids[quality])
        return self.read[key]


def _improving(quality: np.ndarray, measure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points up to the best quality, those that do not improve pooled with the ones before: quality rises strictly."""
    until = int(quality.argmax()) + 1
    fit = isotonic_regression(quality[:until])
    starts = fit.blocks[:-1]
    return fit.x[starts], np.add.reduceat(measure[:until], starts) / np.diff(fit.blocks)


def _between(quality: np.ndarray, measure: np.ndarray, gap: float) -> Callable[[np.ndarray], np.ndarray]:
    """The measure as a function of quality: NaN outside the points' range and inside gaps that are too wide."""
    if len(quality) == 1:
        return lambda at: np.where(at == quality[0], measure[0], np.nan)
    smooth, wide = PchipInterpolator(quality, measure, extrapolate=False), np.append(np.diff(quality) > gap, False)
    return lambda at: np.where(wide[np.searchsorted(quality, at, side="right") - 1], np.nan, smooth(at))


def _over_replicates(differences: np.ndarray, step: float) -> dict[str, float]:
    """Mean, Student's 95 % interval and p-value of "no difference", two-sided; NaN of fewer than two replicates.

    A spread of less than `step`, the least by which two values of the measure differ in a replicate, is taken to be `step`. Shares near 0 or 1 are
    often the same in all of a few replicates: t is then not defined or infinite, and the next replicate may well be a step away.
    """
    d = np.round(differences, 12)  # the same to rounding is the same
    mean, low, high, p = d.mean() if len(d) else np.nan, np.nan, np.nan, np.nan
    if len(d) > 1:
        error = np.maximum(d.std(ddof=1), step) / np.sqrt(len(d))  # NaN if the measure has one value everywhere
        reach = t.ppf(1 - LEVEL / 2, len(d) - 1) * error
        low, high = mean - reach, mean + reach
        p = 2 * t.sf(abs(mean) / error, len(d) - 1) if d.any() else 1.0
    return {"replicates": len(d), "estimate": mean, "low": low, "high": high, "p": p}


def _asked(readings: _Readings, questions: list[Question]):
    """Per question and size that has both methods, a list: of every meaning of quality its columns, the two sides, rows of each."""
    for q in questions:
        for size in readings.sizes:
            if (size, q.first) in readings.arms and (size, q.second) in readings.arms:
                out = []
                for quality in QUALITIES if q.at == "equal" else ("none",):
                    names = dict(zip(_ASKED, (*astuple(q)[:2], size, *astuple(q)[2:5], quality), strict=True))
                    sides = [readings.of(size, method, q.measure, quality) for method in (q.first, q.second)]
                    both = [r for r in sides[0].replicates if r in sides[1].replicates]
                    out.append((names, *sides, *([side.replicates.index(r) for r in both] for side in sides)))
                yield out


def compare_methods(trajectories: pd.DataFrame, questions: list[Question]) -> pd.DataFrame:
    """What the replicates say to every question: a row per question, size and meaning of quality ("none" at the end of training).

    Args:
        trajectories: `size`, `method`, `replicate`, `seed`, `epoch`, the columns of `QUALITIES` and the measures that are asked for,
            NaN where they were not measured.

    Returns:
        pd.DataFrame: `COLUMNS`. `estimate`: first minus second, mean over the `replicates` that have both. `low`, `high`:
        Student's 95 % interval. `null_largest`: the largest difference of either method from itself in another replicate, by the
        same estimator; being a maximum over pairs, it grows with the replicates, and single pairs vary more than a mean of
        replicates. `p_holm`: of the paired t-test, corrected (Holm 1979) within family and meaning of quality. `verdict`: less or
        more only of five replicates or more, with `p_holm` < 0.05, an estimate larger than `null_largest` and, at equal quality,
        the same under all meanings of quality; else undecided, `because` of the first of these that fails.

    Raises:
        InputError: a column is missing, a point is there twice, or a question is asked at neither "equal" nor "end".
    """
    readings, claims, families = _Readings(trajectories, questions), [], defaultdict(list)
    for meanings in _asked(readings, questions):
        claims.append([])
        for names, first, second, *pairs in meanings:
            differences, values = first.minus(second, *pairs)
            row = names | _over_replicates(differences[~np.isnan(differences)], readings.steps[names["measure"]])
            row["null_largest"] = np.fmax(first.null_largest, second.null_largest)
            row |= {"p_holm": np.nan, "because": _unfit(differences, values, names["quality"])}
            claims[-1].append(row)
            if not np.isnan(row["p"]):
                families[names["family"], names["quality"]].append(row)
    for rows in families.values():
        for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = p
    for rows in claims:
        _decide(rows)
    return pd.DataFrame([row for rows in claims for row in rows], columns=COLUMNS)


def _unfit(differences: np.ndarray, values: np.ndarray, quality: str) -> str:
    """Why these replicates `[replicates]` can decide nothing, whatever a test says; empty if they can."""
    if not len(differences):
        return "not measured for both methods in any replicate"
    if len(differences) < ENOUGH_REPLICATES:
        return "fewer than five replicates"
    apart = int(np.isnan(differences).sum())
    if apart:  # the others would be a choice by quality
        return f"the curves share no range under {quality} in {apart} of {len(differences)} replicates"
    if np.ptp(values) == 0 and values[0] in (0, 1):
        return "every model is at 1: a ceiling" if values[0] else "every model is at 0: a floor"
    return ""


def _decide(rows: list[dict]) -> None:
    """Adds the `verdict` to one claim's rows, and why there is none."""
    for row in rows:
        if not row["because"] and not abs(row["estimate"]) > row["null_largest"]:
            row["because"] = "smaller than a method's difference from itself"
        if not row["because"] and row["p_holm"] >= LEVEL:
            row["because"] = f"p_holm {row['p_holm']:.2g}"
        row["verdict"] = "undecided" if row["because"] else "less" if row["estimate"] < 0 else "more"
    if len({row["verdict"] for row in rows}) > 1:
        says = ", ".join(f"{row['verdict']} under {row['quality']}" for row in rows)
        for row in rows:
            row["verdict"], row["because"] = "undecided", row["because"] or f"the meanings of quality disagree: {says}"


def differences_at_distances(trajectories: pd.DataFrame, questions: list[Question]) -> pd.DataFrame:
    """The difference at points of quality, for the questions at equal quality; input and errors as of `compare_methods`.

    Returns:
        pd.DataFrame: `POINT_COLUMNS`: a row per question, size, meaning of quality and `distance` from the worse of the two best
        qualities (see `Quality`). `replicates`: those in which both curves are read there; mean and Student's 95 % interval over
        them.
    """
    readings, rows = _Readings(trajectories, questions), []
    for meanings in _asked(readings, [q for q in questions if q.at == "equal"]):
        for names, first, second, *pairs in meanings:
            for distance in QUALITIES[names["quality"]].distances:
                end = np.minimum(first.best[pairs[0]], second.best[pairs[1]])
                at = end - distance * (end if names["quality"] == "tokens" else 1)
                found = np.array(
                    [first.curves[i](q) - second.curves[j](q) for i, j, q in zip(*pairs, at, strict=True)]
                )
                found = _over_replicates(found[~np.isnan(found)], readings.steps[names["measure"]])
                rows.append({**names, "distance": distance, **found})
    return pd.DataFrame(rows, columns=POINT_COLUMNS)
