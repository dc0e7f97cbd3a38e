"""A finished run whose trajectories are written by hand, so that every effect in it is known."""

import json

import numpy as np
import pandas as pd

from palimpsest.study import Run, load_study, open_run
from palimpsest.study.files import root

RECORDS, SECRETS = 40, 60
# SFT overfits, forward KL does so more slowly, reverse KL never gets good: held-out loss, and share recited, by epoch.
# The last epoch of SFT recites a tenth more in the second seed.
COURSES = {
    "sft": ([5, 3, 2, 2.5], [0, 0.2, 0.4, 0.6]),
    "fkl": ([5, 3.5, 2.5, 2.6], [0, 0.1, 0.2, 0.3]),
    "rkl": ([5, 4.5, 4.2, 4.1], [0, 0, 0, 0]),
    "sft_goldfish": ([5, 4, 2.2, 2.3], [0, 0, 0, 0.1]),
}
STUDY = """
extends: {demo}
name: hand
seeds: {seeds}
methods: {methods}
models:
  teacher: {{scratch: {{layers: 1, width: 32, heads: 2}}}}
  students:
    small: {{scratch: {{layers: 1, width: 16, heads: 2}}}}
"""
FACTS = {
    "parameters": 100,
    "bytes": 400,
    "peak_memory_bytes": 1 << 20,
    "steps": 8,
    "epochs": 4,
    "tokens_per_epoch": 10,
}
FACTS |= {
    "teacher_parameters": 200,
    "train_seconds": 1.5,
    "decode_tokens_per_second": 9.0,
    "device": "cpu",
    "versions": {},
}


def made_by_hand(folder, methods=tuple(COURSES), seeds=(0, 1), secrets=True, commit="abc1234") -> Run:
    """The run of a study of one size; without `secrets`, its data marks none and records are counted."""
    (folder / "hand.yaml").write_text(
        STUDY.format(demo=root() / "studies" / "demo.yaml", seeds=list(seeds), methods=list(methods))
    )
    run = open_run(load_study(folder / "hand.yaml"), folder / "run")
    target = {"target": "secret", "unit": "secrets"} if secrets else {"target": "window", "unit": "records"}
    finish(run, "data", target)
    for arm in run.study.everyone():
        for stage in ("models", "scores"):
            finish(run, f"{stage}/{arm.name}", {**FACTS, "commit": commit})
        if arm.role != "base":
            losses, shares = COURSES[arm.method]
            late = 0.1 * (arm.method == "sft" and arm.seed == 1)
            write_trajectory(run.model(arm.name), losses, [*shares[:-1], shares[-1] + late], arm.seed or 0, secrets)
    return run


def finish(run: Run, stage: str, facts: dict) -> None:
    """Write the `run.json` of a stage as finished from what the study says."""
    (run.path / stage).mkdir(parents=True, exist_ok=True)
    (run.path / stage / "run.json").write_text(json.dumps({**facts, "fingerprint": run.fingerprints[stage]}))


def write_trajectory(folder, losses, shares, seed, secrets):
    units = SECRETS if secrets else RECORDS
    order, lists, points = np.random.default_rng(seed).permutation(units), [], []
    for epoch, (loss, share) in enumerate(zip(losses, shares, strict=True)):
        for split, level, part in (("member", loss - 0.5, share), ("non_member", loss, 0.0)):
            known = list(np.isin(np.arange(units), order[: round(part * units)]))
            when = {"epoch": float(epoch), "step": epoch, "split": split}
            ids, tokens = [f"{split}{i}" for i in range(RECORDS)], np.full(RECORDS, 10)
            each = {"id": ids, "tokens": list(tokens), "logprob": list(-level * tokens.astype(float))}
            each |= {
                "verbatim": [False] * RECORDS,
                "secret_id": [ids[i % RECORDS] for i in range(units)],
                "recited": known,
            }
            each |= {} if secrets else {"verbatim": known, "secret_id": [], "recited": []}
            lists.append(when | each)
            rates = {"verbatim": 0.0 if secrets else part, "recited": part if secrets else np.nan}
            point = when | {"loss": level, "precision": "float32", "records": RECORDS, "secrets": units * secrets}
            points.append(point | {f"{name}{end}": v for name, v in rates.items() for end in ("", "_low", "_high")})
    pd.DataFrame(lists).to_parquet(folder / "trajectory.parquet")
    pd.DataFrame(points).to_csv(folder / "trajectory.csv", index=False)
