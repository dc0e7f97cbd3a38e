"""Memorization against what a model is good for: methods compared at equal held-out loss, not only at the end.

Held-out loss is the mean loss on non-members, letters of the same source that no model was trained on.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from palimpsest import results
from palimpsest.study import Study

MEASURES = ["memorized", "memorized_low", "memorized_high", "counted", "unit", "verbatim"]


def paths(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """One row per model and epoch: `held_out_loss`, `member_loss` and the members' memorization with intervals."""
    out = []
    for name in results.model_names(study, run_dir):
        if name.startswith("base-"):
            continue
        rows = results.trajectory(run_dir, name)
        member = rows[rows["split"] == "member"].set_index("epoch")
        other = rows[rows["split"] == "non_member"].set_index("epoch")
        wide = member[MEASURES].assign(
            member_loss=member["loss"], held_out_loss=other["loss"], non_member_memorized=other["memorized"]
        )
        out.append(wide.reset_index().assign(**results.describe(name)))
    return results.label_seeds(pd.concat(out, ignore_index=True))


def stopped(path: pd.DataFrame) -> pd.DataFrame:
    """Each model at its epoch of lowest held-out loss: what early stopping would ship."""
    return path.loc[path.groupby("model", sort=False)["held_out_loss"].idxmin()].reset_index(drop=True)


def final(path: pd.DataFrame) -> pd.DataFrame:
    """Each model after its last epoch."""
    return path.groupby("model", sort=False).tail(1).reset_index(drop=True)


def at_loss(path: pd.DataFrame, loss: float) -> float:
    """What one model memorized when its held-out loss first came down to `loss`; NaN if it never did.

    Linear interpolation between the two epochs around the crossing. The first crossing, because a user who wants this
    quality stops there; the loss may rise through the same value again later, with more memorized.
    """
    losses, values = path["held_out_loss"].to_numpy(), path["memorized"].to_numpy()
    below = np.flatnonzero(losses <= loss)
    if not len(below):
        return float("nan")
    i = below[0]
    if i == 0:
        return float(values[0])
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(values[i - 1] + share * (values[i] - values[i - 1]))


def matched(path: pd.DataFrame) -> pd.DataFrame:
    """Every distilled arm at its best epoch, beside the `sft` baseline of its size and seed at the same held-out loss.

    Returns:
        `label, size, method, seed, held_out_loss, memorized, low, high, total, sft_memorized, difference,
        difference_low, difference_high`. Where the baseline never gets as good, `sft_memorized` is its value at its own best
        epoch and `matched` is False: the arm is then better at lower loss. The interval of the difference is Newcombe's for two
        shares of the same number of secrets.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    out = []
    for _, row in stopped(path).iterrows():
        if row["role"] != "student":
            continue
        base = path[(path["size"] == row["size"]) & (path["method"] == "sft") & (path["seed"] == row["seed"])]
        value = at_loss(base, row["held_out_loss"])
        reached = not np.isnan(value)
        value = value if reached else float(stopped(base)["memorized"].iloc[0])
        total = int(row["counted"])
        low, high = confint_proportions_2indep(
            round(row["memorized"] * total), total, round(value * total), total, method="newcomb", compare="diff"
        )
        out.append(
            {k: row[k] for k in ("model", "label", "size", "method", "seed", "epoch", "held_out_loss")}
            | {
                "unit": row["unit"],
                "memorized": row["memorized"],
                "low": row["memorized_low"],
                "high": row["memorized_high"],
                "total": total,
            }
            | {"sft_memorized": value, "matched": reached, "difference": row["memorized"] - value}
            | {"difference_low": low, "difference_high": high}
        )
    return pd.DataFrame(out)
