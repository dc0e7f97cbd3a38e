"""Memorization and held-out loss while a model is trained: one row per epoch and split."""

from pathlib import Path

import pandas as pd
from transformers import TrainerCallback

from palimpsest import extraction
from palimpsest.batches import Example
from palimpsest.runs import write_table
from palimpsest.score import score
from palimpsest.statistics import rate


def point(model, examples: list[Example], window: int) -> dict:
    """What one model makes of some records.

    Returns:
        `loss` (nats per response token), `records`, `verbatim` (share of records whose first `window` response tokens,
        or all if fewer, are decoded greedily from the prompt) with `verbatim_low`/`_high`, `secrets` and `recited` (share
        of secrets decoded exactly from the text before them) with its interval.
    """
    table = score(model, examples)
    verbatim = rate(extraction.verbatim(table, 0, window))
    recited = rate(extraction.secrets(table, examples)["recited"])
    tokens = int(table["length"].sum())
    return {
        "loss": -sum(float(sum(row)) for row in table["logprob"]) / tokens,
        "records": len(table),
        "verbatim": verbatim["rate"],
        "verbatim_low": verbatim["low"],
        "verbatim_high": verbatim["high"],
        "secrets": recited["total"],
        "recited": recited["rate"],
        "recited_low": recited["low"],
        "recited_high": recited["high"],
    }


class Trajectory(TrainerCallback):
    """Adds a `point` per watched split before training and after every `every`-th epoch, and prints one line.

    Rows are written at once; after a resume, rows past the resumed epoch are dropped and computed anew.
    """

    def __init__(self, path: Path, watch: dict[str, list[Example]], window: int, every: int = 1):
        self.path, self.watch, self.window, self.every = path, watch, window, every
        self.rows: list[dict] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step and self.path.exists():
            past = pd.read_csv(self.path)
            self.rows = past[past["step"] <= state.global_step].to_dict("records")
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
        training = model.training
        model.eval()
        points = {split: point(model, examples, self.window) for split, examples in self.watch.items()}
        model.train(training)
        self.rows += [{"epoch": epoch, "step": state.global_step, "split": s, **p} for s, p in points.items()]
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
