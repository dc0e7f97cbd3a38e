"""Two methods compared at equal held-out loss, or at the end of training, from what was written after every epoch.

Held-out loss is the mean loss on non-members, records of the same source that no model was trained on.
"""

from functools import cache

import numpy as np
import pandas as pd

from palimpsest.errors import InputError
from palimpsest.measure.statistics import newcombe, paired_bootstrap
from palimpsest.study import Arm, Run


def weights(losses: np.ndarray, where: str | float) -> np.ndarray:
    """How much each epoch counts, `[epochs]`, for a reading "at the end", "stopped" (at the lowest loss) or at a given loss.

    At a loss: linear interpolation between the two epochs around the first crossing from above. The first, because a user who
    wants this quality stops there; the loss may rise through the same value again later, with more memorized.

    Raises:
        InputError: the model never reaches that loss.
    """
    share = np.zeros(len(losses))
    if where == "end":
        share[-1] = 1.0
    elif where == "stopped":
        share[losses.argmin()] = 1.0
    else:
        below = np.flatnonzero(losses <= where)
        if not len(below):
            raise InputError(f"the lowest held-out loss is {losses.min():.4f}; wanted one that reaches {where:.4f}")
        i = below[0]
        part = 1.0 if i == 0 else (losses[i - 1] - where) / (losses[i - 1] - losses[i])
        share[[max(0, i - 1), i]] = (1 - part, part)
    return share


class Curves:
    """What every trained model of a run had memorized after every epoch, and how methods differ; each is computed once."""

    def __init__(self, run: Run):
        self.run, self.seeds, self.arms = run, run.study.seeds, set(run.measured())
        self.data = run.require("data")

    @cache  # noqa: B019 (one short-lived object per run)
    def of(self, size: str, method: str, seed: int) -> dict[str, np.ndarray]:
        """`held_out` `[epochs]`; `memorized` `[epochs, units]`, `unit_of` (their record's id); `member` and `other`, `[epochs,
        records]`, each record's summed loss; `member_tokens`, `other_tokens` `[records]`."""
        path = self.run.model(Arm(size, method, seed).name) / "trajectory.parquet"
        lists = dict(list(pd.read_parquet(path).groupby("split")))
        loss = {s: -np.stack(t["logprob"].to_list()) for s, t in lists.items()}
        tokens = {s: np.asarray(t["tokens"].iloc[0]) for s, t in lists.items()}
        verdict, home = ("recited", "secret_id") if self.data["target"] == "secret" else ("verbatim", "id")
        return {
            "held_out": loss["non_member"].sum(1) / tokens["non_member"].sum(),
            "memorized": np.stack(lists["member"][verdict].to_list()).astype(float),
            "unit_of": np.asarray(lists["member"][home].iloc[0]),
            "member": loss["member"],
            "other": loss["non_member"],
            "member_tokens": tokens["member"],
            "other_tokens": tokens["non_member"],
        }

    def has(self, size: str, *methods: str) -> bool:
        """Whether all these methods were run at that size, with every seed."""
        return all(Arm(size, m, s) in self.arms for m in methods for s in self.seeds)

    @cache  # noqa: B019
    def effect(
        self, size: str, first: tuple[str, ...], second: tuple[str, ...], where: str, second_where: str | None = None
    ) -> dict:
        """What the `first` method does against the `second`; of several methods on a side, their mean.

        Args:
            where: "end", "stopped" (each model at its own lowest held-out loss) or "equal": at the lowest held-out loss that
                all models of the comparison reach, seed by seed.
            second_where: if the second side is read elsewhere.

        Returns:
            `first_rate`, `second_rate` (share of `total` units memorized, mean over `seeds`), `difference`, `low`, `high`; the
            same for `held_out_loss` and `member_loss` (nats per token; `..._difference`, `..._low`, `..._high`); `seed_least`,
            `seed_most`: the difference in single seeds. 95 % intervals are percentiles of a paired bootstrap over seeds, then
            records; where neither side memorizes anything, so that every resample is alike, Newcombe's for two shares of `total`.
        """
        sides = [[[self.of(size, m, s) for m in side] for s in self.seeds] for side in (first, second)]
        values = {"memorized": [], "member": [], "other": []}
        for of_first, of_second in zip(*sides, strict=True):
            lowest = max(c["held_out"].min() for c in of_first + of_second)
            for name, found in values.items():
                pair = []
                for side, at in ((of_first, where), (of_second, second_where or where)):
                    at = lowest if at == "equal" else at
                    pair.append(np.mean([weights(c["held_out"], at) @ c[name] for c in side], axis=0))
                found.append(pair)
        any_ = sides[0][0][0]
        share = np.array(values["memorized"])  # [seeds, 2, units]
        difference = paired_bootstrap(share[:, 0], share[:, 1], clusters=any_["unit_of"])
        total = share.shape[2]
        if difference["low"] == difference["high"]:
            counts = [round(rate * total) for rate in share.mean((0, 2))]
            difference["low"], difference["high"] = newcombe(counts[0], total, counts[1], total)
        each = (share[:, 0] - share[:, 1]).mean(1)
        out = {
            "seeds": len(share),
            "unit": self.data["unit"],
            "total": total,
            "first_rate": share[:, 0].mean(),
            "second_rate": share[:, 1].mean(),
            "difference": difference["mean"],
            "low": difference["low"],
            "high": difference["high"],
            "seed_least": each.min(),
            "seed_most": each.max(),
        }
        for name, label in (("other", "held_out_loss"), ("member", "member_loss")):
            loss = np.array(values[name]) / any_[f"{name}_tokens"].mean()  # means over records are means over tokens
            found = paired_bootstrap(loss[:, 0], loss[:, 1])
            out |= {label: loss[:, 0].mean(), f"{label}_difference": found["mean"]}
            out |= {f"{label}_low": found["low"], f"{label}_high": found["high"]}
        return out
