"""Chapter 09, a real language model: what was run, what healing gives back, memorization by epoch, and what it is held against.

Everything takes the tables of one of two studies, a real model on invented letters and on natural text, as the project publishes
them; where a study is not published yet, they have no rows, and that is said. What is the same in every chapter is drawn by them.
"""

import pandas as pd

from palimpsest.measure.finished import load_scores
from palimpsest.study import Arm, Run

STATES = ("whole", "cut", "healed")


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`healing`: of every replicate and size that is cut from the teacher's base: test loss and ROUGE-L of the whole model, cut, and
    healed; ROUGE-L is measured of models that others begin from, so not of one before its healing. No rows where none is cut."""
    rows = []
    for replicate, part in enumerate(run.replicates()):
        for size in (size for size, start in part.study.models.students.items() if start.keep):
            facts, whole = (part.require(f"models/{Arm(name, 'none').name}") for name in (size, "teacher"))
            layers = {"whole": len(facts["influence"])}
            last = "healed" if "test_loss_healed" in facts else "cut"
            for state in (state for state in STATES if f"test_loss_{state}" in facts):
                rows.append({"size": size, "replicate": replicate, "state": state, "records": 0})
                rows[-1] |= {"layers": layers.get(state, len(facts["kept"])), "test_loss": facts[f"test_loss_{state}"]}
                rows[-1]["parameters"] = (whole if state == "whole" else facts)["parameters"]
                scored = {"whole": "base-teacher", last: f"base-{size}"}.get(state)
                texts = load_scores(part, scored, "test")["rougeL"] if scored else pd.Series(dtype=float)
                rows[-1] |= {"records": len(texts), "rougeL": texts.mean(), "rougeL_error": 1.96 * texts.sem()}
    return {"healing": pd.DataFrame(rows)}
