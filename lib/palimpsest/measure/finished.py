"""Measure one finished model of a study: one scoring pass over all its records, what that pass can't tell, and text for the
test prompts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.data.records import encode, template
from palimpsest.measure import extraction, membership_inference, models
from palimpsest.measure.near_verbatim import SIMILARITIES, near_misses
from palimpsest.measure.quality import generate_and_compare
from palimpsest.measure.results import load_records
from palimpsest.measure.scoring import score, score_to_parquet
from palimpsest.study import Study, fingerprint
from palimpsest.study.runs import Folder, require, stage

MEASURED = ("member", "non_member", "test", "twin")
COMPARED = ("member", "non_member")


def load_trained(run_dir: str | Path, name: str, **options):
    """A finished model of the study and its tokenizer."""
    folder = Folder.of(run_dir).model(name)
    require(folder, f"the stage that trains {name}")
    return models.load_model(folder, **options), models.load_tokenizer(folder)


def examples_of(study: Study, records: pd.DataFrame, tokenizer, context: int | None = None) -> list[Example]:
    """The study's prompts and responses as token lists."""
    return encode(records, tokenizer, template(study.data.template), context)


def letters(records: pd.DataFrame) -> pd.DataFrame:
    """Members and non-members, canaries left out: their form would give them away."""
    return records[(records["kind"] == "letter") & records["split"].isin(COMPARED)].reset_index(drop=True)


def measure(study: Study, name: str, run_dir: str | Path) -> Path:
    """Score a finished model on members, non-members, test records and twins in one pass; decode the test prompts.

    Writes `scores/<name>/`: `records.parquet` (the score table), `test.parquet` (text written for the test prompts with its
    ROUGE), and, of the members and non-members that are no canaries, what one pass over them can't tell:
    `lowercase.parquet` (score table of their text in lower case; what is then too long for the context is left out),
    `approximate.parquet` (`approximate_scores`), `left_truncated.parquet` (`left_truncated_scores`). `run.json` has the
    seconds and tokens per second of the decoding, and the seconds of the last three under `seconds_more`.
    """
    paths = Folder.of(run_dir)
    folder, trained = paths.scores / name, require(paths.model(name), f"the stage that trains {name}")
    print_ = fingerprint([trained["fingerprint"], study.measure, require(paths.data, "the data stage")["fingerprint"]])
    with stage(folder, print_, {"measure": study.measure.model_dump()}) as facts:
        if facts is not None:
            records = load_records(run_dir)
            model, tokenizer = load_trained(run_dir, name, dtype=study.measure.precision)
            rows, context = records[records["split"].isin(MEASURED)], models.context_length(model)
            examples = examples_of(study, rows, tokenizer, context)
            sampling = {k: v.model_dump() for k, v in study.measure.sampling.items()}
            path = score_to_parquet(model, examples, folder / "records.parquet", sampling=sampling)
            test = rows[rows["split"] == "test"].head(study.measure.generate_test or len(rows))
            written, speed = generate_and_compare(
                model, tokenizer, examples_of(study, test, tokenizer), list(test["response"])
            )
            written.to_parquet(folder / "test.parquet")
            compared, seconds = letters(records), {}
            with _timed(seconds, "lowercase"):
                lower = examples_of(study, membership_inference.lowercased(compared), tokenizer)
                fitting = [e for e in lower if len(e.input_ids) <= context]
                score_to_parquet(model, fitting, folder / "lowercase.parquet")
            with _timed(seconds, "approximate"):
                table = pd.read_parquet(path, columns=["id", "hit"])
                approximate_scores(study, model, tokenizer, compared, table).to_parquet(folder / "approximate.parquet")
            with _timed(seconds, "left_truncated"):
                cut = left_truncated_scores(study, model, tokenizer, compared)
                cut.to_parquet(folder / "left_truncated.parquet")
            facts |= {"precision": str(model.dtype), **speed, "seconds_more": seconds}
    return folder


def approximate_scores(study: Study, model, tokenizer, records: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """How near the model's own text comes to the first `measure.approximate` letters of each split, the same for every model.

    Args:
        records: what `letters` gives.
        table: the model's score table of them (`id`, `hit`).

    Returns:
        `id, split, first_miss, rouge_l, edit_similarity, longest_common` as `approximate.approximate` gives; the text itself
        is not kept. No rows where the study has it off.
    """
    chosen = records.groupby("split", sort=False).head(study.measure.approximate)
    if chosen.empty:
        return pd.DataFrame(columns=["id", "split", "first_miss", *SIMILARITIES])
    found = near_misses(model, tokenizer, examples_of(study, chosen, tokenizer), table).drop(columns="continuation")
    found.insert(1, "split", chosen["split"].to_numpy())
    return found


def left_truncated_scores(study: Study, model, tokenizer, records: pd.DataFrame) -> pd.DataFrame:
    """Whether the last `measure.left_target` response tokens are decoded from only the k tokens before them, for each k.

    Each k of `measure.left_truncated` is scored anew (`extraction.left_truncated_examples`), on the same letters: those long
    enough for the largest k.

    Returns:
        `id, split, k, verbatim`, one row per letter and k. No rows where the study has it off.
    """
    examples, target = examples_of(study, records, tokenizer), study.measure.left_target
    prefixes = sorted(set(study.measure.left_truncated))
    parts = [extraction.left_truncated_examples(examples, -target, k, target) for k in prefixes]
    fitting = {e.id for e in parts[-1]} if parts else set()
    parts = [[e for e in part if e.id in fitting] for part in parts]
    if not fitting:
        return pd.DataFrame(columns=["id", "split", "k", "verbatim"])
    verdict = extraction.verbatim(score(model, [e for part in parts for e in part]))
    found = pd.DataFrame(
        {"id": verdict.index, "k": np.repeat(prefixes, len(fitting)), "verbatim": verdict.to_numpy(bool)}
    )
    found.insert(1, "split", found["id"].map(records.set_index("id")["split"]))
    return found


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - began, 3)
