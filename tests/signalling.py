"""A callback that sends signals to its own process at planned moments; a run gets it by --trust_config."""

import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

# Moment and signal; each is sent once, whatever restarts there are in this process.
PLAN: dict[str, signal.Signals] = {}
# Every moment that was reached, in order.
REACHED: list[str] = []


def reach(moment: str) -> None:
    REACHED.append(moment)
    if moment in PLAN:
        os.kill(os.getpid(), PLAN.pop(moment))


class SendSignals(Callback):
    """Reaches start, epoch E, train E BATCH, val E BATCH, save E, epoch end E, train end."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            reach("start")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reach(f"epoch {trainer.current_epoch}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        reach(f"train {trainer.current_epoch} {batch_idx}")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        reach(f"val {trainer.current_epoch} {batch_idx}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        reach(f"save {trainer.current_epoch}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reach(f"epoch end {trainer.current_epoch}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reach("train end")


class NotPlain(Callback):
    """Keeps a state that is written and not read back."""

    def state_dict(self) -> dict[str, Any]:
        return {"folder": Path()}
