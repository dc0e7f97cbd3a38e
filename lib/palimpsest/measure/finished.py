"""Measure one finished model of a study: one scoring pass over all its records, what that pass can't tell, and text for the
test prompts. `read_back` reads what is written here."""

from pathlib import Path

import numpy as np
import pandas as pd

from palimpsest import measure
from palimpsest.data.examples import Example
from palimpsest.data.splits import COMPARED, load_records, select
from palimpsest.measure import extraction, membership_inference
from palimpsest.measure.near_verbatim import SIMILARITIES, near_misses
from palimpsest.measure.read_back import examples_of, under_other_names
from palimpsest.study import Run, Study, run_once

MEASURED = (*COMPARED, "teacher_only", "test", "twin")


def load_trained(run: Run, name: str, **options):
    """A finished model of the run and its tokenizer; options as for `load_model`.

    A model that came with code of its own is loaded with it again, if the study allowed it when it was first loaded.
    """
    own_code = {"trust_remote_code": run.require(f"models/{name}").get("trust_remote_code", False)}
    model = measure.load_model(run.model(name), **own_code, **options)
    return model, measure.load_tokenizer(run.model(name), **own_code)


def measure_model(run: Run, name: str) -> Path:
    """Score a finished model on members, non-members, test records and twins in one pass; decode the test prompts.

    Writes `scores/<name>/`: `records.parquet` (the score table), `test.parquet` (text written for the test prompts with its
    ROUGE), and, of the members and non-members that are no canaries, what one pass over them can't tell:
    `lowercase.parquet` (score table of their text in lower case; what is then too long for the context is left out),
    `near_misses.parquet` (`_near_misses`), `left_truncated.parquet` (`_left_truncated`); and of canaries and twins
    `other_names.parquet`, their score table when they are asked for under another's prompt. `run.json` has the data type of the
    logits, and seconds and tokens per second of the decoding.
    """
    run.require(f"models/{name}")
    study, folder = run.study, run.scores(name)
    with run_once(run, f"scores/{name}", {"measure": study.measure.model_dump()}) as facts:
        if facts is not None:
            records = load_records(run)
            model, tokenizer = load_trained(run, name, dtype=study.measure.precision)
            rows, context = records[records["split"].isin(MEASURED)], measure.context_length(model)
            sampling = {k: v.model_dump() for k, v in study.measure.sampling.items()}
            examples = examples_of(study, rows, tokenizer, context)
            path = _scored(model, examples, folder / "records.parquet", sampling)
            test = rows[rows["split"] == "test"].head(study.measure.generate_test or len(rows))
            written, speed = measure.generate_and_compare(
                model, tokenizer, examples_of(study, test, tokenizer), list(test["response"])
            )
            written.to_parquet(folder / "test.parquet")
            compared = select(records)
            lower = examples_of(study, membership_inference.lowercased(compared), tokenizer)
            fitting = [e for e in lower if len(e.input_ids) <= context]
            _scored(model, fitting, folder / "lowercase.parquet")
            table = pd.read_parquet(path, columns=["id", "hit"])
            _near_misses(study, model, tokenizer, compared, table).to_parquet(folder / "near_misses.parquet")
            _left_truncated(study, model, tokenizer, compared).to_parquet(folder / "left_truncated.parquet")
            others = under_other_names(rows)
            if len(others):
                _scored(model, examples_of(study, others, tokenizer), folder / "other_names.parquet")
            facts |= {"precision": str(model.dtype).removeprefix("torch."), **speed}
    return folder


def _scored(model, examples: list[Example], path: Path, sampling=None) -> Path:
    """The score file of the examples; one that a killed run of this stage has finished is kept (`run_once`)."""
    return path if path.exists() else measure.score_to_parquet(model, examples, path, sampling=sampling)


def _near_misses(study: Study, model, tokenizer, records: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """How near the model's own text comes to the first `measure.approximate` records of each split, the same for every model.

    Args:
        records: what `select` gives.
        table: the model's score table of them (`id`, `hit`).

    Returns:
        `id, split, first_miss, rouge_l, edit_similarity, longest_common` as `near_verbatim.near_misses` gives; the text itself
        is not kept. No rows where the study has it off.
    """
    chosen = records.groupby("split", sort=False).head(study.measure.approximate)
    if chosen.empty:
        return pd.DataFrame(columns=["id", "split", "first_miss", *SIMILARITIES])
    found = near_misses(model, tokenizer, examples_of(study, chosen, tokenizer), table).drop(columns="continuation")
    found.insert(1, "split", chosen["split"].to_numpy())
    return found


def _left_truncated(study: Study, model, tokenizer, records: pd.DataFrame) -> pd.DataFrame:
    """Whether the last `measure.left_target` response tokens are decoded from only the k tokens before them, for each k.

    Each k of `measure.left_truncated` is scored anew (`extraction.left_truncated_examples`), on the same records: those long
    enough for the largest k.

    Returns:
        `id, split, k, verbatim`, one row per record and k. No rows where the study has it off.
    """
    examples, target = examples_of(study, records, tokenizer), study.measure.left_target
    prefixes = sorted(set(study.measure.left_truncated))
    parts = [extraction.left_truncated_examples(examples, k, target) for k in prefixes]
    fitting = {e.id for e in parts[-1]} if parts else set()
    parts = [[e for e in part if e.id in fitting] for part in parts]
    if not fitting:
        return pd.DataFrame(columns=["id", "split", "k", "verbatim"])
    verdict = extraction.verbatim(measure.score(model, [e for part in parts for e in part]))
    found = pd.DataFrame(
        {"id": verdict.index, "k": np.repeat(prefixes, len(fitting)), "verbatim": verdict.to_numpy(bool)}
    )
    found.insert(1, "split", found["id"].map(records.set_index("id")["split"]))
    return found
