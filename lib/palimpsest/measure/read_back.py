"""What measuring a study's models wrote, read back, and the examples that it was written of. Nothing here needs a model."""

import numpy as np
import pandas as pd

from palimpsest.data.encoding import encode
from palimpsest.data.examples import Example
from palimpsest.data.records import template
from palimpsest.study import Run, Study


def load_scores(run: Run, name: str, file: str = "records") -> pd.DataFrame:
    """What measuring a model wrote: its score table, or `test`, `lowercase`, `near_misses`, `left_truncated`, `other_names`."""
    run.require(f"scores/{name}")
    return pd.read_parquet(run.scores(name) / f"{file}.parquet")


def tokenizer_of(run: Run):
    """The tokenizer of the run's data, which its models share. It alone needs transformers: pages are made from tables."""
    from palimpsest.measure.models import load_tokenizer

    return load_tokenizer(run.data / "tokenizer")


def examples_of(study: Study, records: pd.DataFrame, tokenizer, context: int | None = None) -> list[Example]:
    """The study's prompts and responses as token lists."""
    return encode(records, tokenizer, template(study.data.template), context)


def under_other_names(records: pd.DataFrame) -> pd.DataFrame:
    """Canaries and twins, each with the prompt of the next one of its split and copies: who is known by heart but not by name,
    is as likely here. One that has nobody to change with is left out."""
    planted = records[records["kind"].isin(["canary", "twin"])].sort_values("id")
    parts = [part for _, part in planted.groupby(["split", "copies"]) if len(part) > 1]
    prompt = [name for name in ("messages", "instruction", "context") if name in records]
    asked = [part.assign(**{c: np.roll(part[c].to_numpy(), 1) for c in prompt}) for part in parts]
    return pd.concat(asked, ignore_index=True) if asked else planted.head(0)
