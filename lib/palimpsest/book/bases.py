"""The first stages of a study: its data, and every model before it reads anything private.

What a stage's result depends on is written down in `study.fingerprints` alone.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from palimpsest import measure, train
from palimpsest.data.examples import Example
from palimpsest.data.records import prompt_texts
from palimpsest.data.splits import draw_splits, fit_lengths, load_records, read_study_records, select
from palimpsest.measure.read_back import examples_of, tokenizer_of
from palimpsest.measure.score_file import flatten
from palimpsest.study import Arm, Run, Study, run_once
from palimpsest.study.fingerprints import HEALED_BY
from palimpsest.study.sections import check_logging

UNITS = {"secret": "secrets", "window": "records"}
INFLUENTIAL = 64  # public records that the influence of layers is measured on: it is stable from a few on


def prepare_data(run: Run) -> pd.DataFrame:
    """Read, check, filter and split the records; train or fetch the tokenizer. Writes `data/`.

    `run.json` says which target leads every chapter (`target`: "secret" where the data marks its secrets, else "window") and
    what it counts (`unit`).

    Returns the records, also when they were prepared before.
    """
    study = run.study
    check_logging(study.train)
    asked = {"data": study.data.model_dump(), "tokenizer": study.tokenizer.model_dump()}
    with run_once(run, "data", asked) as facts:
        if facts is not None:
            records, tokenizer = draw_records(study)
            tokenizer.save_pretrained(run.data / "tokenizer")
            records.to_parquet(run.data / "records.parquet")
            target = "secret" if select(records)["secrets"].map(len).any() else "window"
            facts |= {
                "splits": records.groupby("split").size().to_dict(),
                "dropped": records.attrs.get("dropped", {}),
                "cut": records.attrs.get("cut", 0),
                "target": target,
                "unit": UNITS[target],
                "disjoint": records.attrs["disjoint"],
            }
    return load_records(run)


def draw_records(study: Study) -> tuple[pd.DataFrame, Any]:
    """The study's records, checked, filtered and split, and its tokenizer; nothing is written."""
    measure.check_models(study)  # what can be refused is refused before anything is trained
    records = read_study_records(study)
    if study.tokenizer.vocabulary:
        # An own vocabulary comes from public text only: one trained on the members would be a leak by itself.
        drawn = draw_splits(records, study)
        public = drawn[drawn["split"] == "public"]
        texts = prompt_texts(public) + "\n" + public["response"]
        tokenizer = measure.train_tokenizer(texts, study.tokenizer.vocabulary)
    else:
        start = study.models.teacher
        tokenizer = measure.load_tokenizer(start.path, start.trust_remote_code, start.revision)
    records = fit_lengths(records, study, tokenizer, smallest_context(study))
    return draw_splits(records, study), tokenizer


def smallest_context(study: Study) -> int:
    """The shortest context, in tokens, among the study's models."""
    starts = [study.models.teacher, *study.models.students.values()]
    lengths = [s.scratch.context for s in starts if s.scratch]
    configs = (measure.load_config(s.path, s.trust_remote_code, s.revision) for s in starts if s.path)
    lengths += [measure.context_length(config) for config in configs]
    return min(lengths)


def train_base(run: Run, size: str) -> Path:
    """The model of a size before fine-tuning: loaded, trained on the public split, or cut from the teacher's base and healed there.

    Writes `models/base-<size>/` (size "teacher" for the teacher's own) and measures it: what a model knows without
    ever having seen a member is the floor of every rate.
    """
    study, arm = run.study, Arm(size, "none")
    start, folder, seed = study.start(size), run.model(arm.name), study.seed()
    prepare_data(run)
    if start.keep:
        train_base(run, "teacher")
    with run_once(run, f"models/{arm.name}", {"start": start.model_dump(), "seed": seed}) as facts:
        if facts is not None:
            tokenizer = tokenizer_of(run)
            if start.scratch:
                model = measure.build_model(start.scratch, tokenizer, seed).to(measure.default_device())
                facts |= _learn_public(run, model, tokenizer, study.pretraining(size), folder)
            elif start.keep:
                model, learned = _cut(run, start.keep, tokenizer, folder)
                facts |= learned
            else:
                found = measure.find_checkpoint(start.path, start.revision)
                model = measure.load_model(found, trust_remote_code=start.trust_remote_code)
                own = measure.load_tokenizer(found, start.trust_remote_code)
                measure.check_same_tokenizer(tokenizer, own, size)
                facts |= {**found.facts, "notes": found.notes}
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
            began = start.path or ("layers kept" if start.keep else "scratch")
            facts |= about(arm) | describe_model(run, arm, model, began)
    measure.measure_model(run, arm.name)
    return folder


def _cut(run: Run, keep: int, tokenizer, folder: Path) -> tuple[Any, dict]:
    """The teacher's base with its `keep` layers of most influence, healed if the study says so: before any private text is read,
    distilled from the base it was cut from, on public text.

    Facts: `kept` and `influence` of the layers; on the test records `test_loss_whole`, `test_loss_cut` and, healed,
    `test_loss_healed` (nats per response token) and `healed_by` (a method).
    """
    study, records = run.study, prepare_data(run)
    whole, _ = measure.load_trained(run, "base-teacher")
    public = records[records["split"] == "public"]
    influence = measure.block_influence(whole, _whole_texts(run, public.head(INFLUENTIAL), tokenizer, whole))
    kept = sorted(influence.argsort()[::-1][:keep].tolist())
    model = measure.keep_layers(whole, kept)
    test = examples_of(study, records[records["split"] == "test"], tokenizer)
    facts = {"kept": kept, "influence": influence.round(4).tolist()}
    facts |= {"test_loss_whole": _loss(whole, test), "test_loss_cut": _loss(model, test)}
    if not study.heal:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return model, facts
    del whole  # in fp32, as it was measured; what teaches may be half as large
    teacher, _ = measure.load_trained(run, "base-teacher", dtype=study.heal.precision)
    facts |= _learn_public(run, model, tokenizer, study.heal, folder, teacher)
    return model, facts | {"test_loss_healed": _loss(model, test), "healed_by": HEALED_BY}


def _learn_public(run: Run, model, tokenizer, settings, folder: Path, teacher=None) -> dict:
    """Train on the public split: on the text itself, or, with a `teacher`, on the teacher's distribution over it."""
    records = prepare_data(run)
    examples = _whole_texts(run, records[records["split"] == "public"], tokenizer, model)
    given = {"method": HEALED_BY, "teacher": teacher, "cache": run.path / "cache" / "base-teacher"} if teacher else {}
    return train.fine_tune(
        model, tokenizer, examples, settings, folder, seed=run.study.seed(), log_to=run.study.train.log_to, **given
    )


def _whole_texts(run: Run, records: pd.DataFrame, tokenizer, model) -> list[Example]:
    """Records to learn to the last word: a model before fine-tuning learns prompts as well."""
    examples = examples_of(run.study, records, tokenizer, measure.context_length(model))
    return [Example(e.id, e.input_ids, 1) for e in examples]


def _loss(model, examples: list[Example]) -> float:
    return round(-float(flatten(measure.score(model, examples), "logprob")[0].mean()), 4)


def about(arm: Arm) -> dict:
    """What a model is, so that nobody has to read it from its name."""
    return {"size": arm.size, "method": arm.method, "role": arm.role}


def describe_model(run: Run, arm: Arm, model, began: str) -> dict:
    """Facts for `run.json` of a model just made: `start`, what it began from; `trust_remote_code`; `parameters`; `bytes` in memory."""
    start = run.study.start(arm.size)
    kind = run.study.models.teacher if start.keep else start  # a cut model is of the teacher's kind
    size = {"parameters": measure.parameter_count(model), "bytes": model.get_memory_footprint()}
    return {"start": began, "trust_remote_code": kind.trust_remote_code, **size}
