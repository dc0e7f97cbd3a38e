"""Chapter 04, how nearly: greedy text beside the response, where it is not the response itself."""

import pandas as pd

from palimpsest.chapters.figures import LABELS, between, names_of, rate_text
from palimpsest.data.splits import COMPARED
from palimpsest.measure.near_verbatim import NEAR
from palimpsest.measure.statistics import bootstrap, rate_of

GROUP = ["size", "method", "role", "split"]


def nearly_verbatim(texts: pd.DataFrame) -> pd.DataFrame:
    """How near greedy text comes to the response: means (bootstrap over seeds and records), and the share of `NEAR` or more."""
    rows = []
    for key, part in texts.groupby(GROUP, sort=False):
        near, seeds = part["edit_similarity"] >= NEAR, part["model"].nunique()
        row = dict(zip(GROUP, key, strict=True)) | rate_of(near.sum() / seeds, len(part) / seeds)
        row["near_only"] = (near & (part["edit_similarity"] < 1)).sum() / seeds
        for what in ("rouge_l", "edit_similarity"):
            # ROUGE is empty for records in a script that it can't read.
            read = part.pivot(index="model", columns="id", values=what).dropna(axis=1).to_numpy()
            mean = bootstrap(read) if read.size else dict.fromkeys(("mean", "low", "high"), float("nan"))
            row |= {what: mean["mean"], f"{what}_low": mean["low"], f"{what}_high": mean["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def show_near_misses(near_misses: pd.DataFrame) -> pd.DataFrame:
    """A row per model: what is nearly verbatim and the mean edit similarity, of members and non-members, and the members that are only
    nearly verbatim."""
    parts, heads = [], {"member": "members", "non_member": "non-members"}
    for split, rows in near_misses.groupby("split", sort=False):
        limits = rows[["edit_similarity", "edit_similarity_low", "edit_similarity_high"]].to_numpy(float)
        shown = {f"nearly verbatim, {heads[split]}": [rate_text(row) for _, row in rows.iterrows()]}
        if split == "member":
            shown["only nearly"] = [f"{n:.3g} of {total:.0f}" for n, total in rows[["near_only", "total"]].to_numpy()]
        shown[f"edit similarity, {heads[split]}"] = [between(*v) for v in limits]
        parts.append(pd.DataFrame(shown, index=pd.Index(names_of(rows), name="model")))
    return pd.concat(parts, axis=1)


def say_near_misses(near_misses: pd.DataFrame) -> list[str]:
    """The largest share of members by a student, and what shared wording alone gives, on non-members."""
    members, others = (near_misses[near_misses["split"] == split] for split in COMPARED)
    students = members[~members["role"].isin(["base", "teacher"])]
    top, chance = (rows.loc[rows["rate"].idxmax()] for rows in (students, others))
    return [
        f"- Students recite at most {rate_text(top)} of {top['total']:.0f} members verbatim or nearly so ({top['size']}, "
        f"{LABELS[top['method']]}), {top['near_only']:.3g} of them only nearly.",
        f"- Of non-members, no model so recites more than {rate_text(chance)}. Their mean edit similarity is at most "
        f"{others['edit_similarity'].max():.2f}, from shared wording.",
    ]
