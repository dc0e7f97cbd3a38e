"""TensorBoard's curves of a training, for whoever wants to watch one: opt-in, on this machine alone, without a part in any result."""

from pathlib import Path

from transformers.integrations import TensorBoardCallback

from palimpsest.train.trajectory import Trajectory


class Curves(TensorBoardCallback):
    """Writes what transformers logs, and every point of the trajectory under `trajectory/`, as event files in `folder`.

    Args:
        trajectory: called before this one; None logs the trainer's numbers alone.
    """

    def __init__(self, folder: Path, trajectory: Trajectory | None = None):
        from torch.utils.tensorboard import SummaryWriter  # which needs the package tensorboard

        super().__init__(SummaryWriter(log_dir=str(folder)))
        self.trajectory, self.last = trajectory, -1

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._add_points()

    def on_step_end(self, args, state, control, **kwargs):
        self._add_points()

    def _add_points(self) -> None:
        """The points taken since the last call."""
        rows = self.trajectory.rows["trajectory"] if self.trajectory else []
        for row in (row for row in rows if row["step"] > self.last):
            for name, value in row.items():
                if isinstance(value, int | float) and name not in ("step", "epoch"):
                    self.tb_writer.add_scalar(f"trajectory/{name}", value, row["step"])
            self.last = row["step"]
