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
    """A row per model: what is verbatim or nearly so and the mean edit similarity, of members and non-members."""
    parts, heads = [], {"member": "members", "non_member": "non-members"}
    for split, rows in near_misses.groupby("split", sort=False):
        limits = rows[["edit_similarity", "edit_similarity_low", "edit_similarity_high"]].to_numpy(float)
        shown = {f"nearly: {heads[split]}": [rate_text(row) for _, row in rows.iterrows()]}
        shown[f"similarity: {heads[split]}"] = [between(*v) for v in limits]
        parts.append(pd.DataFrame(shown, index=pd.Index(names_of(rows), name="model")))
    return pd.concat(parts, axis=1)


def say_near_misses(near_misses: pd.DataFrame) -> list[str]:
    """The largest share of members by a student, and what shared wording alone gives, on non-members."""
    members, others = (near_misses[near_misses["split"] == split] for split in COMPARED)
    students = members[~members["role"].isin(["base", "teacher"])]
    top, chance = (rows.loc[rows["rate"].idxmax()] for rows in (students, others))
    who = (
        f" ({top['size']}, {LABELS[top['method']]}), {top['near_only']:.3g} of them only nearly" if top["rate"] else ""
    )
    return [
        f"- Verbatim or nearly so, students recite at most {rate_text(top)} of {top['total']:.0f} members{who}.",
        f"- Of non-members, no model recites more than {rate_text(chance)}. Shared wording alone gives a mean edit similarity of up to "
        f"{others['edit_similarity'].max():.2f}.",
    ]
