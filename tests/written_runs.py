"""A finished run folder whose score tables are written by hand: what every model recites is known."""

import random

import numpy as np
import pandas as pd

from palimpsest.data.records import record_ids
from palimpsest.measure.finished import examples_of
from palimpsest.measure.models import train_tokenizer
from palimpsest.study import Run, Study, open_run
from palimpsest.study.files import write_json, write_parquet
from palimpsest.study.tables import Tables, write_table

RECITED = {
    "none": 0.0,
    "teacher": 0.8,
    "sft": 0.4,
    "word_kd": 0.5,
    "seq_kd": 0.2,
}  # share of the members, the first ones
GAINS = {"teacher": 9.0, "word_kd": 5.0}  # log-probability that training gave the canaries only the teacher has read
MEMBERS, NON_MEMBERS, OWN, SHARED, TWINS = 40, 20, 6, 2, 30


def write_run(folder, methods=("sft", "word_kd", "seq_kd"), seeds=(0,), canaries=True, secrets=True) -> Run:
    """A run of these methods, with or without canaries and marked secrets; members are likelier by one nat where trained."""
    train = {"epochs": 1, "batch_size": 1, "learning_rate": 0.1}
    study = Study(
        name="written",
        title="Written",
        seeds=list(seeds),
        data={"source": "d.jsonl", "members": 40, "non_members": 20, "test": 1, "template": "plain"},
        models={"teacher": {"path": "t"}, "students": {"small": {"path": "s"}}},
        methods=list(methods),
        teacher=train,
        student=train,
    )
    run, records = open_run(study, folder), _records(canaries, secrets)
    tokenizer = train_tokenizer(records["instruction"] + records["response"], 300)
    tokenizer.save_pretrained(run.data / "tokenizer")
    write_parquet(records, run.data / "records.parquet")
    target = "secret" if secrets else "window"
    _finish(run, "data", target=target, unit={"secret": "secrets", "window": "records"}[target])
    examples, rng = examples_of(study, records, tokenizer), np.random.default_rng(1)
    for arm in study.everyone():
        kind = "teacher" if arm.role == "teacher" else arm.method
        scores = pd.DataFrame(
            [
                _scored(e, row, number, RECITED.get(kind, 0.3), GAINS.get(kind, 0.0), kind != "none", rng)
                for number, (e, row) in enumerate(zip(examples, records.itertuples(), strict=True))
            ]
        )
        for name in ("records", "lowercase"):
            write_parquet(scores, run.scores(arm.name) / f"{name}.parquet")
        _finish(run, f"models/{arm.name}")
        _finish(run, f"scores/{arm.name}", precision="float32")
    return run


def written_tables(run: Run, *chapters) -> Tables:
    """What these chapters write, as the pages read it."""
    for chapter in chapters:
        for name, table in chapter.tables(run).items():
            write_table(table, run.tables / f"{name}.csv")
    return Tables(run.tables)


def sentences(lines) -> list[str]:
    """The sentences of what a `say_` function gives, without marks of lists."""
    text = " ".join([lines] if isinstance(lines, str) else lines).replace("- ", "")
    return [s for s in text.replace("? ", ". ").split(". ") if s]


def _records(canaries: bool, secrets: bool) -> pd.DataFrame:
    draw, rows = random.Random(0), []
    groups = [("member", "letter", False, MEMBERS), ("non_member", "letter", False, NON_MEMBERS)]
    if canaries:
        groups += [
            ("member", "canary", True, OWN),
            ("member", "canary", False, SHARED),
            ("twin", "twin", False, TWINS),
        ]
    for split, kind, only, count in groups:
        for _ in range(count):
            spans = [{"start": 12, "end": 18, "kind": "code"}] if secrets or kind != "letter" else []
            text = {
                "instruction": f"Code of {draw.random():.6f}?",
                "context": "",
                "response": f"The code is {draw.randrange(10**6):06d}.",
            }
            about = {
                "split": split,
                "kind": kind,
                "secrets": spans,
                "copies": int(split == "member"),
                "teacher_only": only,
            }
            rows.append({**text, **about})
    records = pd.DataFrame(rows)
    return records.assign(id=record_ids(records))


def _scored(example, row, number: int, share: float, gain: float, trained: bool, rng) -> dict:
    length = len(example.response_ids)
    member = row.kind == "letter" and row.split == "member"
    hit = np.full(length, member and number < share * MEMBERS)
    logprob = np.where(hit, -0.1, -3.0) + rng.normal(0, 0.05, length) + (gain / length if row.teacher_only else 0)
    same = {"id": example.id, "prompt_length": example.prompt_length, "length": length, "token": example.response_ids}
    spread = {"mean_logprob": np.full(length, -3.0), "std_logprob": np.ones(length)}
    return {**same, "hit": hit, "logprob": logprob + (member and trained), **spread}


def _finish(run: Run, stage: str, **facts) -> None:
    write_json(run.path / stage / "run.json", {"fingerprint": run.fingerprints[stage], **facts})
