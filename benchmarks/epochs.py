"""A callback that notes how long the epochs of a fit take, for `training.py`."""

import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EpochTimes(Callback):
    """Appends a JSON line an epoch to the file that $EPOCH_TIMES names: seconds and photographs, as `reference.py`."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self.validation = self.in_validation = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self.start, self.in_validation = time.perf_counter(), 0.0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the validation."""
        self.validation = time.perf_counter()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End it."""
        self.in_validation = time.perf_counter() - self.validation

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        record = {
            "epoch": trainer.current_epoch,
            "train_seconds": time.perf_counter() - self.start - self.in_validation,
            "val_seconds": self.in_validation,
            "train": len(data.photographs.collection.splits["train"]),
            "val": len(data.photographs.collection.splits["val"]),
        }
        with Path(os.environ["EPOCH_TIMES"]).open("a") as file:
            file.write(json.dumps(record) + "\n")
