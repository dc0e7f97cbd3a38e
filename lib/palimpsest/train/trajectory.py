"""Quality and memory of a model while it is trained: a row per point of its trajectory, several to an epoch where the curve is steep."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from transformers import TrainerCallback

from palimpsest.measure.forward import plain_model
from palimpsest.measure.models import detect_precision, torch_dtype
from palimpsest.measure.watched import Watched, take_point, validation_point
from palimpsest.study import write_table
from palimpsest.study.tables import TABLES

SHOWN = {  # columns of the line that is printed at every point
    "loss": ("validation_loss", "{:.3f}"),
    "calibrated": ("validation_loss_calibrated", "{:.3f}"),
    "ROUGE-L": ("rouge_l", "{:.2f}"),
    "member loss": ("member_loss", "{:.3f}"),
    "recited, once": ("recited_unrepeated", "{:.0%}"),
    "repeated": ("recited_repeated", "{:.0%}"),
    "AUC": ("auc", "{:.2f}"),
    "bits": ("exposure", "{:.1f}"),
    "transferred": ("transferred_exposure", "{:.1f}"),
}


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
    """Takes a point before training, at the `points` asked for and after the last step, and prints a line for each.

    Writes `trajectory.csv` (`watched.take_point`) and `groups.csv` (the same by half and copies) in `folder`, at once; after a
    resume, points past the resumed step are dropped and taken anew.

    Args:
        steps_per_epoch: optimizer steps.
        every, early: epochs between two points; epochs of further ones. A point lies at the step nearest to its epoch.
        only_validation: measure quality alone, as tuning must.
    """

    def __init__(
        self,
        folder: Path,
        watched: Watched,
        steps_per_epoch: int,
        every: float = 1,
        early: Sequence[float] = (),
        precision: str = "fp32",
        only_validation: bool = False,
    ):
        self.paths = {name: folder / f"{name}.csv" for name in ("trajectory", "groups")}
        self.watched, self.steps_per_epoch, self.every = watched, steps_per_epoch, every
        self.early = {max(1, round(e * steps_per_epoch)) for e in early}
        self.precision = detect_precision() if precision == "auto" else precision
        self.only_validation = only_validation
        self.rows: dict[str, list[dict]] = {"trajectory": [], "groups": []}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step and self.paths["trajectory"].exists():
            for name, path in self.paths.items():
                if path.exists():
                    past = pd.read_csv(path)
                    self.rows[name] = past[past["step"] <= state.global_step].to_dict("records")
        elif not self.rows["trajectory"]:
            print(f"after epoch: {', '.join(SHOWN)}", flush=True)
            self._add(model, state)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        step = state.global_step
        regular = round(step / self.steps_per_epoch / self.every) * self.every * self.steps_per_epoch
        if step in self.early or step == round(regular) or step >= state.max_steps:
            self._add(model, state)

    def _add(self, model, state) -> None:
        w, step = self.watched, state.global_step
        with as_finished(model, self.precision):
            if self.only_validation:
                row, groups = validation_point(model, w.tokenizer, w.examples, w.records, w.prompts), pd.DataFrame()
            else:
                row, groups = take_point(model, w)
        when = {"epoch": round(step / self.steps_per_epoch, 3), "step": step, "tokens": state.num_input_tokens_seen}
        self.rows["trajectory"].append({**when, "precision": self.precision, **row})
        self.rows["groups"] += [{**when, **group} for group in groups.to_dict("records")]
        for name, path in self.paths.items():
            if self.rows[name]:
                write_table(pd.DataFrame(self.rows[name]).reindex(columns=TABLES[name]), path)  # unasked: empty
        shown = ["-" if pd.isna(row[name]) else form.format(row[name]) for name, form in SHOWN.values() if name in row]
        print(f"{when['epoch']:6.2f}    " + "  ".join(shown), flush=True)
