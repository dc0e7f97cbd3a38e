"""One forward pass of a model over the records, written down token by token. Everything measured is arithmetic on this table.

One row per record: `id`, `prompt_length`, `length` (response tokens, end-of-text included) and lists with one value per
response token: `token`, `logprob` (nats), `hit` (the model's first choice is the true token), `rank` (0 = first choice),
`margin` (logit of the first choice minus the second's), `mean_logprob` and `std_logprob` (mean and standard deviation of
log p under p, for Min-K%++), and `logprob_<name>` for each sampling setting asked for (-inf where that setting cuts the token).
"""

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from palimpsest.data.examples import Example, by_length, cut_at
from palimpsest.errors import InputError
from palimpsest.measure.forward import (
    check_causal,
    check_examples,
    choose_mode,
    fitting_token_budget,
    labelled_inputs,
    labelled_logits,
)
from palimpsest.measure.memory import run_batches
from palimpsest.measure.models import switch_length
from palimpsest.measure.score_file import describe, in_parts, write_scores
from palimpsest.measure.token_stats import Sampling, sampling_steps, signals
from palimpsest.study import fingerprint
from palimpsest.study.files import remove

# Models that have been scored before, and how (`choose_mode`): four short forward passes less each time.
_MODES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@torch.no_grad()
def _table(model: Any, examples: Sequence[Example], sampling: Sampling, token_budget: int | None) -> pa.Table:
    """The score table of `examples`, in their order, of a model in evaluation mode."""
    if model not in _MODES:
        check_causal(model)
    check_examples(model, examples)
    mode = _MODES.get(model) or choose_mode(model, examples)
    if any(len(e.input_ids) > 1 for e in examples):  # else there was nothing to try it on
        _MODES[model] = mode
    whole, switch = examples, switch_length(model)
    if switch:  # a token is predicted as when text is decoded: by what was read before it, long or not
        examples = [part for e in examples for part in cut_at(e, switch + 1)]
    budget = 1 if mode == "alone" else token_budget or fitting_token_budget(model, mode)
    batches = by_length(list(examples), budget, switch and switch + 1)
    lengths, names = [len(e.input_ids) for e in examples], [f"record {e.id}" for e in examples]
    order, parts = [], [_no_columns(sampling)]

    def run(rows: list[int]) -> dict[str, np.ndarray]:
        return _batch(model, [examples[i] for i in rows], sampling, mode)

    for rows, part in run_batches(batches, run, lengths, names):
        order += rows
        parts.append(part)
    return _assemble(
        whole, examples, order, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )


def _batch(model: Any, examples: Sequence[Example], sampling: Sampling, mode: str) -> dict[str, np.ndarray]:
    """The list columns of one batch, flat, in the order of `examples`."""
    inputs, at, target = labelled_inputs(model, examples)
    parts, start = [], 0
    for logits in labelled_logits(model, inputs, at, mode) if len(target) else ():
        parts.append(signals(logits, target[start : start + len(logits)].to(logits.device), sampling))
        start += len(logits)
    if not parts:
        return _no_columns(sampling)
    columns = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    broken = np.isnan(columns["logprob"]) | np.isnan(columns["std_logprob"])
    if broken.any():
        record = examples[int(at[int(broken.argmax())]) // inputs["input_ids"].shape[1]].id
        raise InputError(
            f"the model gives NaN for record {record} ({int(broken.sum())} of {len(broken)} tokens in its batch); wanted"
            f" finite logits. Its weights are damaged or {model.dtype} is too narrow for them: try float32."
        )
    return columns


def _no_columns(sampling: Sampling) -> dict[str, np.ndarray]:
    """The list columns of no token at all: names and types."""
    columns = signals(torch.zeros(0, 64), torch.zeros(0, dtype=torch.long), sampling)
    return {name: value.numpy() for name, value in columns.items()}


def _assemble(
    whole: Sequence[Example], parts: Sequence[Example], order: list[int], flat: dict[str, np.ndarray]
) -> pa.Table:
    """Cut flat columns, whose parts come in `order`, into lists, put these back in the order of `parts`, and join the parts of
    each record of `whole`."""
    each, lengths = (np.array([len(e.response_ids) for e in side], dtype=np.int32) for side in (parts, whole))
    back = pa.array(np.argsort(order))
    cuts, ends = (pa.array(np.concatenate([[0], np.cumsum(n)]).astype(np.int32)) for n in (each[order], lengths))
    columns = {
        "id": pa.array([e.id for e in whole], pa.string()),
        "prompt_length": pa.array([e.prompt_length for e in whole], pa.int32()),
        "length": pa.array(lengths),
    }
    for name, values in flat.items():
        sorted_ = pa.ListArray.from_arrays(cuts, pa.array(values)).take(back)
        columns[name] = pa.ListArray.from_arrays(ends, sorted_.flatten())
    return pa.table(columns)


def score(
    model: Any,
    examples: Sequence[Example],
    *,
    token_budget: int | None = None,
    sampling: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """Score `examples` with a causal language model, in memory, in one forward pass.

    The numbers do not depend on the batch size or the padding (in fp32, to about 1e-6).

    Args:
        model: any decoder-only `AutoModelForCausalLM`, on any device, in fp32, bf16 or fp16.
        examples: records of at most the model's context length.
        token_budget: padded tokens per batch; sized to the free memory if None, and halved when memory runs out.
        sampling: ways of sampling, each with some of `temperature`, `top_k`, `top_p`, under which the true token's
            log-probability is wanted as well: `{"t07": {"temperature": 0.7}}` adds the column `logprob_t07`.

    Returns:
        The score table described at the head of this module, rows in the order of `examples`, lists as NumPy arrays.

    Raises:
        InputError: a model that is not causal or gives NaN; a record that is too long or tokenized for another model.
    """
    steps, training = sampling_steps(sampling or {}), model.training
    model.eval()
    try:
        return _table(model, examples, steps, token_budget).to_pandas()
    finally:
        model.train(training)


def score_to_parquet(
    model: Any,
    examples: Sequence[Example],
    path: str | Path,
    *,
    sampling: Mapping[str, Mapping[str, float]] | None = None,
    part: int = 2_000,
) -> Path:
    """As `score`, into the Parquet file `path`, which is whole or absent (`score_file.write_scores`).

    Finished parts, of `part` records each, wait in `<path>.parts` in a folder named by a hash of model, settings and records. So
    the same call after a kill goes on with the first part that is missing, and nothing of another model is mixed in.

    Raises:
        InputError: as `score`.
    """
    path = Path(path)
    parts = path.with_name(path.name + ".parts")
    records = [[e.id, e.prompt_length, e.input_ids] for e in examples]
    folder = parts / fingerprint([describe(model, sampling or {}), records])
    table = in_parts(folder, len(examples), part, lambda rows: score(model, examples[rows], sampling=sampling))
    write_scores(table, path)
    remove(parts)
    return path
