"""How far the comparison of methods can be trusted: studies drawn with a known truth, and how often it is told rightly.

    python benchmarks/comparing.py [--studies 400]

Prints, by number of replicates: the coverage of the 95 % intervals, how often a family of 18 claims of which none is true has a
false finding, and how often a true effect is found, by its size.
"""

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm

from palimpsest.measure.comparison import Question, compare_methods

EPOCHS = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 3, 4, 6, 8])
TOKENS = 60_000  # of one epoch
MEASURES = ("recited_unrepeated", "recited_repeated", "auc")


@dataclass(frozen=True)
class Simulated:
    """A method: its speed (`sft` is 1), how far above `sft` its best validation loss lies (`worse`, nats), and its `effect`: at every
    quality it recites that share less than `sft`, and its AUC is lower by a quarter of it. At 0 there is nothing to find."""

    name: str
    speed: float = 1.0
    worse: float = 0.0
    effect: float = 0.0


def simulate(
    methods: list[Simulated],
    rng: np.random.Generator,
    *,
    sizes: tuple[str, ...] = ("medium",),
    replicates: int = 5,
    epochs: np.ndarray = EPOCHS,
    exact: bool = False,
) -> pd.DataFrame:
    """Trajectories as a study would write them, from a known truth.

    Validation loss falls like a power of the tokens read to a minimum and rises again. Until there, memorization is a function of
    the true loss; after it ever more is memorized. Start, minimum, steepness and the ease of memorizing are drawn per replicate,
    speed, minimum and its place per model too. The same `rng` state draws the same truth, whatever `epochs` and `exact`.

    Args:
        exact: as if measured on infinitely many records; else on 100 validation records and 32 prompts, on which the methods of a
            replicate differ by less than by two draws of them, 100 secrets, each of its own difficulty, half of it shared by the
            methods, and 100 members and non-members.
    """
    truth, sampling = rng.spawn(2)
    t, shape = np.asarray(epochs, dtype=float), (len(sizes) * replicates, len(methods), 1)
    shared, model = (lambda sd: sd * truth.normal(size=(shape[0], 1, 1))), (lambda sd: sd * truth.normal(size=shape))
    speed, worse, effect = np.array([(m.speed, m.worse, m.effect) for m in methods]).T[:, None, :, None]
    start, steep, ease = 3.2 + shared(0.1), 2 * np.exp(shared(0.2)), shared(0.06)
    low, rate = 1.5 + worse + shared(0.1) + model(0.03), steep * speed * np.exp(model(0.1))
    best = 4 / np.sqrt(speed) * np.exp(model(0.1))  # epoch of the lowest loss
    past = np.maximum(t - best, 0)
    fallen = low + (start - low) * (1 + rate * np.minimum(t, best)) ** -1.2
    loss, knows = fallen + 0.06 * past, fallen - 0.08 * past + ease
    rates = {
        m: (1 - effect) * norm.cdf((at - knows) / 0.2)
        for m, at in (("recited_unrepeated", 1.65), ("recited_repeated", 2))
    }
    area = 0.5 + 0.5 * norm.cdf((1.8 - knows) / 0.3) - effect / 4
    rouge = 0.1 + 0.5 * norm.cdf((2.0 - fallen) / 0.5)
    if not exact:
        draw = partial(sampling.normal, 0.0, 1.0)
        each, every, point = (shape[0], 1, 1), shape, (*shape[:2], len(t))
        loss = loss + 0.05 * draw(each) + 0.01 * draw(every) + 0.01 * draw(point)
        rouge = rouge + 0.03 * draw(each) + 0.01 * draw(every) + 0.015 * draw(point)
        for name, share in rates.items():
            difficulty = norm.cdf((draw((*each, 100)) + draw((*every, 100))) / np.sqrt(2))
            rates[name] = (difficulty < share[..., None]).mean(-1)
        spread = np.sqrt(area * (1 - area) / 100)
        area = area + spread * (0.7 * draw(each) + 0.7 * draw(every) + 0.3 * draw(point))
    index = pd.MultiIndex.from_product(
        [sizes, range(replicates), [m.name for m in methods], t], names=["size", "replicate", "method", "epoch"]
    )
    columns = {"validation_loss_calibrated": loss, "rouge_l": rouge, **rates, "auc": np.clip(area, 0, 1)}
    out = pd.DataFrame({name: np.ravel(column) for name, column in columns.items()}, index=index).reset_index()
    return out.assign(tokens=TOKENS * out["epoch"], seed=0.0)


SFT = Simulated("sft")
# They reach another quality at another speed, but at equal quality none memorizes more or less than `sft`.
ALIKE = [Simulated("same"), Simulated("fast", speed=2), Simulated("slow", speed=0.5, worse=0.05)]
LESS = [Simulated(f"less {effect:.0%}", speed=1.5, worse=0.05, effect=effect) for effect in (0.25, 0.5, 0.75, 1)]


def trials(methods: list[Simulated], studies: int, rng: np.random.Generator, replicates: int = 5) -> pd.DataFrame:
    """Claims of that many simulated studies of two sizes, numbered by `study`: every method against `sft`, by every measure.

    With three methods a family, all comparisons at equal quality or all at the end, has 18 claims.
    """
    asked, out = _questions(methods), []
    for study in range(studies):
        trajectories = simulate([SFT, *methods], rng, sizes=("small", "medium"), replicates=replicates)
        out.append(compare_methods(trajectories, asked).assign(study=study))
    return pd.concat(out, ignore_index=True)


def truths(methods: list[Simulated], rng: np.random.Generator, replicates: int = 2000) -> pd.DataFrame:
    """The true difference by `first`, `measure` and `quality`: at equal quality 0 of methods that are alike, of the others' AUC a
    quarter of the effect; by tokens and at the end the mean of that many replicates, measured without noise and at 161 points."""
    dense = simulate([SFT, *methods], rng, replicates=replicates, epochs=np.linspace(0, EPOCHS[-1], 161), exact=True)
    path = dense.groupby(["method", "epoch"])[list(MEASURES)].mean()
    inside = dense["epoch"].between(0, EPOCHS[-1], inclusive="neither")
    middle = dense[inside].groupby("method")[list(MEASURES)].mean()
    first, last = (path.xs(epoch, level="epoch") for epoch in (0, EPOCHS[-1]))
    over_tokens = (159 * middle + (first + last) / 2) / 160  # trapezoids
    rows = []
    for method in methods:
        for measure in MEASURES:
            level = -method.effect / 4 if measure == "auc" else 0.0 if not method.effect else np.nan
            true = dict.fromkeys(("validation_loss_calibrated", "rouge_l"), level)
            for quality, means in (("tokens", over_tokens), ("none", last)):
                true[quality] = means.loc[method.name, measure] - means.loc[SFT.name, measure]
            rows += [{"first": method.name, "measure": measure, "quality": q, "truth": v} for q, v in true.items()]
    return pd.DataFrame(rows)


def _questions(methods: list[Simulated]) -> list[Question]:
    return [
        Question(at, m.name, m.name, "sft", measure, at)
        for m in methods
        for measure in MEASURES
        for at in ("equal", "end")
    ]


def coverage(claims: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """By method, measure and meaning of quality: share of 95 % intervals that hold the truth, `bias` (mean error) and the `spread`
    of estimates, over `intervals` many."""
    rows = claims.merge(true.dropna(), on=["first", "measure", "quality"]).dropna(subset=["low"])
    rows["covered"] = (rows["low"] <= rows["truth"]) & (rows["truth"] <= rows["high"])
    rows["error"] = rows["estimate"] - rows["truth"]
    by = rows.groupby(["first", "measure", "quality"], sort=False)
    return by.agg(
        covered=("covered", "mean"), bias=("error", "mean"), spread=("error", "std"), intervals=("error", "size")
    ).reset_index()


def false_findings(claims: pd.DataFrame) -> pd.Series:
    """Of methods that are alike, the share of studies whose family has a finding: by the p-value under each meaning of quality under
    which they are alike, and by the verdict."""
    equal = claims[claims["quality"] != "none"]
    found = {
        quality: (equal[equal["quality"] == quality].groupby("study")["p_holm"].min() < 0.05).mean()
        for quality in ("validation_loss_calibrated", "rouge_l")
    }
    return pd.Series({**found, "verdict": (equal["verdict"] != "undecided").groupby(equal["study"]).any().mean()})


def power(claims: pd.DataFrame) -> pd.DataFrame:
    """By method, measure and meaning of quality: how often p alone decides, how often the null contrast allows it, the verdict."""
    rows = claims.assign(
        p=claims["p_holm"] < 0.05,
        beyond_null=claims["estimate"].abs() > claims["null_largest"],
        decided=claims["verdict"] == "less",
    )
    columns = ["estimate", "null_largest", "p", "beyond_null", "decided"]
    return rows.groupby(["first", "measure", "quality"], sort=False)[columns].mean().reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400, help="simulated studies per number of replicates")
    studies, rng = parser.parse_args().studies, np.random.default_rng(0)
    true = truths(ALIKE + LESS, rng)
    for replicates in (3, 5, 8):
        print(f"\n{replicates} replicates, {studies} studies\n")
        alike = trials(ALIKE, studies, rng, replicates)
        less = trials(LESS, studies // 4, rng, replicates)
        covered = coverage(pd.concat([alike, less]), true)
        print(covered.round(4).to_string(index=False), f"\nmean coverage {covered['covered'].mean():.4f}\n")
        print("families of 18 claims with a false finding:", false_findings(alike).round(4).to_dict(), "\n")
        print(power(less).round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
