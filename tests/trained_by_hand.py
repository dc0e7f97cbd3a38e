"""A finished run whose trajectories are written by hand, in several replicates, so that every effect in it is known."""

import json

import numpy as np
import pandas as pd

from palimpsest.study import METHODS, Run, load_study, open_run, write_table
from palimpsest.study.files import root
from palimpsest.study.fingerprints import tuned_name, warm_name
from palimpsest.study.parts import rates_tried
from palimpsest.study.tables import TABLES

SECRETS = 60  # of each group of records
EPOCHS, TOKENS = (0, 0.5, 1, 1.5, 2, 3, 4), 1_000
# Validation loss, and the share of repeated secrets recited, by point. SFT overfits; forward KL learns as much and recites half; reverse
# KL never gets good; the goldfish loss is plain fine-tuning by another name.
COURSES = {
    "sft": ([2.9, 2.7, 2.5, 2.3, 2.1, 2.2, 2.5], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    "fkl": ([2.9, 2.75, 2.55, 2.35, 2.15, 2.2, 2.3], [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
    "rkl": ([5, 4.7, 4.5, 4.4, 4.3, 4.2, 4.1], [0, 0, 0, 0, 0, 0, 0]),
    "sft_goldfish": ([2.9, 2.7, 2.5, 2.3, 2.1, 2.2, 2.5], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
}
COURSES["rkl_student_warm"] = COURSES["fkl"]
STUDY = """
extends: {demo}
name: hand
seeds: {seeds}
replicates: {replicates}
methods: {methods}
by_arm: {{}}
models:
  teacher: {{scratch: {{layers: 1, width: 32, heads: 2}}}}
  students:
    small: {{scratch: {{layers: 1, width: 16, heads: 2}}}}
"""
TUNING = "tuning: {learning_rates: [1.0e-3, 4.0e-3]}\n"
FACTS = {
    "parameters": 100,
    "bytes": 400,
    "peak_memory_bytes": 1 << 20,
    "steps": 8,
    "epochs": 4,
    "tokens_per_epoch": TOKENS,
    "teacher_parameters": 200,
    "train_seconds": 1.5,
    "decode_tokens_per_second": 9.0,
    "device": "cpu",
    "versions": {},
}


def made_by_hand(
    folder,
    methods=("sft", "fkl", "rkl", "sft_goldfish"),
    seeds=(0,),
    replicates=2,
    secrets=True,
    canaries=True,
    tuning=False,
    commit="abc1234",
) -> Run:
    """The run of a study of one size; without `secrets`, its data marks none and records are counted."""
    text = STUDY.format(
        demo=root() / "studies" / "demo.yaml", seeds=list(seeds), methods=list(methods), replicates=replicates
    )
    (folder / "hand.yaml").write_text(text + TUNING * tuning)
    run = open_run(load_study(folder / "hand.yaml"), folder / "run")
    unit = {"target": "secret", "unit": "secrets"} if secrets else {"target": "window", "unit": "records"}
    for part in (run, *(p for name, p in run.parts().items() if name.startswith("replicate"))):
        finish(part, "data", unit)
        for arm in part.study.everyone():
            rng = np.random.default_rng([part.study.replicate, *arm.name.encode()])
            for stage in ("models", "scores"):
                finish(part, f"{stage}/{arm.name}", {**FACTS, "commit": commit})
            if arm.role != "base":
                write_course(part.model(arm.name), arm.method, rng, canaries)
            if arm.role != "base" and (epochs := METHODS[arm.method].settings.get("warm_start_epochs")):
                write_course(part.model(warm_name(arm, epochs)), "sft", rng, canaries)
    if tuning:
        part = run.parts()["tuning"]
        for arm in part.study.everyone():
            if arm.seed is None:
                finish(part, f"models/{arm.name}", {**FACTS, "commit": commit})
            for rate in [] if arm.seed is None else rates_tried(part.study, arm):
                name = tuned_name(arm, rate)
                finish(part, f"models/{name}", {**FACTS, "commit": commit})
                write_course(part.model(name), arm.method, None, canaries, worse=200 * abs(rate - 1e-3))
    return run


def finish(run: Run, stage: str, facts: dict) -> None:
    """Write the `run.json` of a stage as finished from what the study says."""
    (run.path / stage).mkdir(parents=True, exist_ok=True)
    (run.path / stage / "run.json").write_text(json.dumps({**facts, "fingerprint": run.fingerprints[stage]}))


def write_course(folder, method: str, rng, canaries: bool, worse: float = 0.0) -> None:
    """The trajectory of a method and its groups; noise of `rng` makes replicates differ, none where it is None (tuning: validation
    alone). Every loss is `worse` by so much."""
    folder.mkdir(parents=True, exist_ok=True)
    points, groups = [], []
    for step, (epoch, loss, share) in enumerate(zip(EPOCHS, *COURSES[method], strict=True)):
        loss += worse + (rng.normal(0, 0.01) if rng else 0)
        share = float(np.clip(share + (rng.normal(0, 0.005) if rng and step else 0), 0, 1))
        when = {"epoch": epoch, "step": step, "tokens": round(TOKENS * epoch)}
        point = when | {"precision": "fp32", "validation_loss": loss, "temperature": 1.0, "rouge_l": 0.7 - 0.1 * loss}
        points.append(point | {"validation_loss_calibrated": loss - 0.1})
        if rng is None:
            continue
        points[-1] |= {"member_loss": loss - 2 * share, "auc": 0.5 + share / 2, "recited_unrepeated": share / 4}
        points[-1] |= {"recited_repeated": share, "transferred_auc": 0.5}
        for split in ("member", "teacher_only"):
            for kind, copies in (("letter", 1), ("letter", 4), ("letter", 16), *[("canary", 4)] * canaries):
                part = share * min(1.0, copies / 8) * (split == "member")
                about = {
                    "split": split,
                    "kind": kind,
                    "copies": copies,
                    "records": 40,
                    "secrets": SECRETS,
                    "loss": loss,
                }
                bits = 1.4 + 6 * part if kind == "canary" else np.nan
                groups.append(when | about | {"recited": part, "from_prompt": part / 2, "exposure": bits})
        if canaries:
            points[-1] |= {"exposure": 1.4 + 6 * share, "canaries_recited": share, "transferred_exposure": 1.4}
    for name, rows in (("trajectory", points), ("groups", groups)):
        if rows:
            write_table(pd.DataFrame(rows).reindex(columns=TABLES[name]), folder / f"{name}.csv")
