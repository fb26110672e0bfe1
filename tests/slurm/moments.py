"""A callback for the jobs of the tests: it holds a run at a chosen moment until a signal has come.

Not part of bldml: a job gets it by `--trust_config` and PYTHONPATH.
"""

import atexit
import hashlib
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bldml.training.resume import holding

if "LOCK_PATIENCE_S" in os.environ:  # a configuration's classes are imported before a run is locked
    holding.PATIENCE_S = float(os.environ["LOCK_PATIENCE_S"])
# Longer than Slurm takes to send any of the signals; then the run goes on, and its test fails.
PATIENCE_S = 120.0
AWAITED = {signal.SIGUSR1, signal.SIGTERM}


class Moments(Callback):
    """Holds the run, writes down each epoch's parameters.

    From the environment: MOMENTS_FOLDER, in which each job has a folder by its number; MOMENTS, the moments to hold at,
    once each, whatever restarts there are: `start`, `train-<epoch>-<batch>`, `validation-<epoch>-<batch>`,
    `save-<epoch>`, `exit`; NO_DROPOUT, because dropout differs between the ranks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["MOMENTS_FOLDER"]) / os.environ.get("SLURM_JOB_ID", "0")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.moments = os.environ.get("MOMENTS", "").split()
        self.rank = os.environ.get("SLURM_PROCID", "0")
        # Python writes here the number of every signal that has a handler, whoever has installed it.
        self._signals, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if os.environ.get("NO_DROPOUT"):
            for module in pl_module.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        save = torch.save

        def save_and_hold(*args: Any, **kwargs: Any) -> None:
            save(*args, **kwargs)
            # Serialised, and not yet in its place.
            self._reach(f"save-{trainer.current_epoch}")

        torch.save = save_and_hold
        atexit.register(self._reach, "exit")
        self._reach("start")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._reach(f"train-{trainer.current_epoch}-{batch_idx}")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._reach(f"validation-{trainer.current_epoch}-{batch_idx}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the hash of every rank's parameters and buffers."""
        own = hashlib.sha256()
        for value in pl_module.network.state_dict().values():  # type: ignore[union-attr]
            own.update(value.cpu().contiguous().numpy().tobytes())
        hashes = [own.hexdigest()] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(hashes, own.hexdigest())
        if trainer.is_global_zero:
            (self.folder / f"epoch-{trainer.current_epoch}.json").write_text(json.dumps(hashes))

    def _reach(self, moment: str) -> None:
        if moment not in self.moments:
            return
        try:
            (self.folder / f"{moment}.{self.rank}").touch(exist_ok=False)
        except FileExistsError:
            return
        end, go = time.monotonic() + PATIENCE_S, self.folder / f"{moment}.go"
        while time.monotonic() < end and not go.exists():
            if select.select([self._signals], [], [], 0.5)[0] and AWAITED & set(os.read(self._signals, 100)):
                return
