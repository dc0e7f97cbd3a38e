"""Measure one finished model of a study: one scoring pass over all its records, and text for the test prompts."""

from pathlib import Path

import pandas as pd

from palimpsest import models
from palimpsest.batches import Example
from palimpsest.records import encode, template
from palimpsest.results import load_records
from palimpsest.runs import Folder, require, stage
from palimpsest.score import score_to_parquet
from palimpsest.study import Study, fingerprint
from palimpsest.utility import generate_and_compare

MEASURED = ("member", "non_member", "test", "twin")


def load_trained(run_dir: str | Path, name: str, **options):
    """A finished model of the study and its tokenizer."""
    folder = Folder.of(run_dir).model(name)
    require(folder, f"the stage that trains {name}")
    return models.load_model(folder, **options), models.load_tokenizer(folder)


def examples_of(study: Study, records: pd.DataFrame, tokenizer, context: int | None = None) -> list[Example]:
    """The study's prompts and responses as token lists."""
    return encode(records, tokenizer, template(study.data.template), context)


def measure(study: Study, name: str, run_dir: str | Path) -> Path:
    """Score a finished model on members, non-members, test records and twins in one pass; decode the test prompts.

    Writes `scores/<name>/`: `records.parquet` (the score table), `test.parquet` (text written for the test prompts with its
    ROUGE), `run.json` with the seconds and tokens per second of both.
    """
    paths = Folder.of(run_dir)
    folder, trained = paths.scores / name, require(paths.model(name), f"the stage that trains {name}")
    print_ = fingerprint([trained["fingerprint"], study.measure, require(paths.data, "the data stage")["fingerprint"]])
    with stage(folder, print_, {"measure": study.measure.model_dump()}) as facts:
        if facts is not None:
            records = load_records(run_dir)
            model, tokenizer = load_trained(run_dir, name, dtype=study.measure.precision)
            rows = records[records["split"].isin(MEASURED)]
            examples = examples_of(study, rows, tokenizer, models.context_length(model))
            sampling = {k: v.model_dump() for k, v in study.measure.sampling.items()}
            score_to_parquet(model, examples, folder / "records.parquet", sampling=sampling)
            test = rows[rows["split"] == "test"].head(study.measure.generate_test or len(rows))
            compared, speed = generate_and_compare(
                model, tokenizer, examples_of(study, test, tokenizer), list(test["response"])
            )
            compared.to_parquet(folder / "test.parquet")
            facts |= {"precision": str(model.dtype), **speed}
    return folder
