"""A table of claims written by hand: what stands in it is known, so what is said of it can be checked."""

import pandas as pd

from palimpsest.chapters.claims import MOMENTS, PHRASES
from palimpsest.chapters.comparisons import claim
from palimpsest.study.tables import TABLES

MEANINGS = {"equal": ("validation_loss_calibrated", "rouge_l", "tokens"), "end": ("none",)}


def claimed(question, first, second, measure, moment, verdict, size="small", estimate=0.2, because=""):
    """The rows of one comparison: one per meaning of quality; the sign follows the verdict."""
    value = -estimate if verdict == "less" else estimate
    row = {
        "family": f"{question}: {PHRASES[measure][0]}, {MOMENTS[moment]}",
        "claim": claim(first, second),
        "size": size,
    }
    row |= {"first": first, "second": second, "measure": measure, "replicates": 5, "verdict": verdict}
    row |= {"estimate": value, "low": value - 0.05, "high": value + 0.05, "null_largest": 0.02, "p_holm": 0.01}
    if verdict == "undecided":
        row |= {"p_holm": 0.6, "because": because or "its interval holds zero"}
    return [{"because": "", **row, "quality": quality} for quality in MEANINGS[moment]]


def claims_table(*rows) -> pd.DataFrame:
    """The rows of `claimed` as the declared table."""
    return pd.DataFrame([row for part in rows for row in part], columns=TABLES["claims"])


NOTHING = claims_table()
SOME = claims_table(
    claimed("distilling", "word_kd", "sft", "recited_repeated", "end", "less"),
    claimed("distilling", "word_kd", "sft", "recited_repeated", "end", "less", "medium", 0.1),
    claimed("distilling", "word_kd", "sft", "recited_repeated", "equal", "more"),
    claimed("distilling", "seq_kd", "sft", "recited_repeated", "equal", "undecided"),
    claimed("distilling", "seq_kd", "sft", "recited_repeated", "end", "undecided", because="the null is larger"),
    claimed("distilling", "fkl", "sft", "exposure", "end", "less", estimate=1.5),
    claimed("divergence", "rkl", "fkl", "exposure", "equal", "less", estimate=0.7),
    claimed("transferred", "fkl_student", "sft", "transferred_exposure", "equal", "more", estimate=4.2),
    claimed("transferred", "fkl", "sft", "transferred_exposure", "equal", "undecided"),
)
