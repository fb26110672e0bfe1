"""Training time of a run, over all its interruptions."""

import json
import time

from lightning.pytorch import Callback, LightningModule, Trainer

from bldml.io.atomic import write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.run.folder import RunFolder


class Stopwatch(Callback):
    """Write training_time.json: seconds of training and its validations, without the pauses of interruptions.

    It is a separate file because checkpoints and history.csv must not depend on whether a run was interrupted.

    Args:
        run: The run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
        self._before, self._start = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start; a resumed run adds to the time measured before."""
        self._before, self._start = measured(self.run) or 0.0, time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the time."""
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the time."""
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the time; an interruption ends here too."""
        if self._start:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            seconds = self._before + time.monotonic() - self._start
            write_atomically(self.run.training_time, json.dumps({"training_seconds": round(seconds, 3)}) + "\n")


def measured(run: RunFolder) -> float | None:
    """Return the seconds so far; None if the file is missing or damaged."""
    try:
        return max(0.0, float(mapping_or_nothing(run.training_time)["training_seconds"]))
    except (ValueError, TypeError, KeyError):
        return None
