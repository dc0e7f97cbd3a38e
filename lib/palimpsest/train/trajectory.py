"""Memorization and held-out loss while a model is trained: one row per epoch and split."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from transformers import TrainerCallback

from palimpsest.data.examples import Example
from palimpsest.measure import extraction
from palimpsest.measure.forward import plain_model
from palimpsest.measure.models import detect_precision, torch_dtype
from palimpsest.measure.scoring import score
from palimpsest.measure.statistics import rate
from palimpsest.study import write_table
from palimpsest.study.files import write_parquet


def point(model, examples: list[Example], window: int) -> tuple[dict, dict]:
    """What one model makes of some records.

    Returns:
        A row of numbers: `loss` (nats per response token), `records`, `verbatim` (share of records whose first `window`
        response tokens, or all if fewer, are decoded greedily from the prompt) with `verbatim_low`/`_high`, `secrets` and
        `recited` (share of secrets decoded exactly from the text before them) with its interval. And what they are made of,
        as lists: `id`, `tokens`, `logprob` (nats, summed) and `verbatim` of each record; `secret_id` and `recited` of each secret.
    """
    table = score(model, examples)
    verbatim, secrets = extraction.verbatim(table, 0, window), extraction.secrets(table, examples)
    each = {
        "id": list(table["id"]),
        "tokens": list(table["length"]),
        "logprob": [float(sum(row)) for row in table["logprob"]],
        "verbatim": [bool(v) for v in verbatim.fillna(False)],
        "secret_id": list(secrets["id"]),
        "recited": [bool(v) for v in secrets["recited"]],
    }
    whole, exact = rate(verbatim), rate(secrets["recited"])
    row = {
        "loss": -sum(each["logprob"]) / sum(each["tokens"]),
        "records": len(table),
        "verbatim": whole["rate"],
        "verbatim_low": whole["low"],
        "verbatim_high": whole["high"],
        "secrets": exact["total"],
        "recited": exact["rate"],
        "recited_low": exact["low"],
        "recited_high": exact["high"],
    }
    return row, each


@contextmanager
def as_finished(model, precision: str) -> Iterator[None]:
    """Meanwhile the model is what it will be when it is loaded to be measured: in evaluation mode, its weights in `precision`
    ("fp32" or "bf16"), its forward pass its class's own, without the autocast a trainer has put around it."""
    weights = [(p, p.data) for p in model.parameters()]
    forwards = [(m, vars(m).pop("forward", None)) for m in {model, plain_model(model)}]
    training = model.training
    model.eval()
    try:
        for p, data in weights:
            p.data = data.to(torch_dtype(precision))
        with torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        for p, data in weights:
            p.data = data
        for m, forward in forwards:
            if forward is not None:
                m.forward = forward
        model.train(training)


class Trajectory(TrainerCallback):
    """Adds a `point` per watched split before training and after every `every`-th epoch, and prints one line.

    Writes `trajectory.csv` (its numbers, with the `precision` they were computed in) and `trajectory.parquet` (its lists) in
    `folder`, at once; after a resume, rows past the resumed epoch are dropped and computed anew.
    """

    def __init__(
        self, folder: Path, watch: dict[str, list[Example]], window: int, every: int = 1, precision: str = "fp32"
    ):
        self.path, self.lists_path = folder / "trajectory.csv", folder / "trajectory.parquet"
        self.watch, self.window, self.every = watch, window, every
        self.precision = detect_precision() if precision == "auto" else precision
        self.rows: list[dict] = []
        self.lists: list[dict] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step and self.path.exists():
            self.rows, self.lists = (
                past[past["step"] <= state.global_step].to_dict("records")
                for past in (pd.read_csv(self.path), pd.read_parquet(self.lists_path))
            )
        elif not self.rows:
            self._add(model, state, epoch=0.0)

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        epoch = round(state.epoch or 0.0, 3)
        last = state.global_step >= state.max_steps
        if last or round(epoch) % self.every == 0:
            self._add(model, state, epoch)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if self.rows[-1]["step"] < state.global_step:  # stopped inside an epoch by max_steps
            self._add(model, state, round(state.epoch or 0.0, 3))

    def _add(self, model, state, epoch: float) -> None:
        points = {}
        with as_finished(model, self.precision):
            for split, examples in self.watch.items():
                points[split], each = point(model, examples, self.window)
                when = {"epoch": epoch, "step": state.global_step, "split": split}
                self.rows.append({**when, "precision": self.precision, **points[split]})
                self.lists.append({**when, **each})
        # The lists first: a row of the other file always has its own here.
        write_parquet(pd.DataFrame(self.lists), self.lists_path)
        write_table(pd.DataFrame(self.rows), self.path)
        if epoch == 0:
            print(f"after epoch: loss, records verbatim and secrets recited, {' | '.join(points)}", flush=True)
        columns = [("loss", "{:.3f}"), ("verbatim", "{:.1%}")]
        if any(p["secrets"] for p in points.values()):
            columns.append(("recited", "{:.1%}"))
        shown = (
            "  ".join((name, " | ".join(form.format(p[name]) for p in points.values()))) for name, form in columns
        )
        print(f"{epoch:5.1f}    " + "    ".join(shown), flush=True)
