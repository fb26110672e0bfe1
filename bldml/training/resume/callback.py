"""Callback that interrupts a run at the next safe point after a signal, so that it resumes exactly."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from bldml.errors import CheckpointError, MachineError
from bldml.io.platform import replace_path
from bldml.io.text import counted
from bldml.run.folder import RunFolder
from bldml.training.data.loading import LeafLoader
from bldml.training.lightning_internals import can_end_early, has_gradients_waiting, is_between_steps
from bldml.training.recording import EpochTable
from bldml.training.resume.signals import Interrupted, InterruptSignals
from bldml.training.resume.state import (
    KEY,
    Position,
    make_resumable,
    put_metrics,
    read_progress,
    relocate,
    take_metrics,
)
from bldml.training.resume.stretches import StretchLog


class Interruption(Callback):
    """Save and interrupt the run at the next safe point after a signal; save at regular intervals without one.

    Safe points are the end of a training batch whose gradients were applied, the end of a validation batch, and the
    time between two epochs. At each of them all ranks agree. The new checkpoint replaces last.ckpt in one rename; the
    previous one stays as previous.ckpt. A trial run has no run folder and saves nothing.

    Args:
        signals: Flags of the signals received.
        run: The run folder.
        table: The rows of history.csv.
        best: The callback that writes best.ckpt.
        minutes: Minutes between two checkpoints within an epoch.
        stretch: The record of this start; None for a trial run and in the other processes.
    """

    def __init__(
        self,
        signals: InterruptSignals,
        run: RunFolder | None = None,
        table: EpochTable | None = None,
        best: ModelCheckpoint | None = None,
        minutes: float = math.inf,
        stretch: StretchLog | None = None,
    ) -> None:
        super().__init__()
        self.signals, self.run, self.table, self.best, self.seconds = signals, run, table, best, 60 * minutes
        self.stretch = stretch
        self._process_group: Any = None
        self._saved_at = time.monotonic()
        self._resumed_at: int | None = None
        self._metrics: dict[str, Any] = {}
        self._fewest_batches = 0
        self._position: Position | None = None
        self._is_readable = self._has_saved = False
        self.is_restored = False  # whether all of a checkpoint has been taken

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create a process group on the CPUs of all ranks; the one on the GPUs would have to wait for them."""
        if trainer.world_size > 1 and self._process_group is None:
            self._process_group = torch.distributed.new_group(backend="gloo")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore what Lightning does not restore; a CheckpointError if the ranks loaded different checkpoints."""
        if KEY not in checkpoint:
            return  # written by LearningRateFinder or BatchSizeFinder, which restore the state afterwards
        state = checkpoint[KEY]
        step = int(state["step"])
        largest, smallest = self._maximum_over_ranks(step, -step)
        if largest != -smallest:
            message = f"Ranks loaded different checkpoints (steps {-smallest} to {largest}). Start the command again."
            raise CheckpointError(message, "ranks-differ", found=[-smallest, largest])
        trainer.should_stop = state["should_stop"]
        self._metrics = state["metrics"][trainer.global_rank]
        self._resumed_at = state["epoch"] if state["position"] == "epoch" else None
        if self.best is not None:
            best = checkpoint["callbacks"][self.best.state_key]
            relocate(best, str(self.best.dirpath))
            # The only part of its state that ModelCheckpoint saves and does not load.
            self.best.current_score = best["current_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the metrics of the epoch, now that the module is on its device."""
        put_metrics(pl_module, self._metrics)
        self._metrics = {}
        if self.stretch is not None:
            self.stretch.enter("training")
        self._saved_at, self.is_restored = time.monotonic(), True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the previous epoch, which has been logged by now."""
        assert isinstance(trainer.train_dataloader, LeafLoader)
        trainer.train_dataloader.trained_on = 0
        if trainer.current_epoch > 0 and trainer.current_epoch != self._resumed_at:
            self._save(trainer, pl_module, "epoch")
        self._save_or_interrupt(trainer, pl_module, None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Interrupt or save, unless gradients wait to be applied, or a validation or the epoch's end follows."""
        assert isinstance(trainer.train_dataloader, LeafLoader)
        trainer.train_dataloader.trained_on = batch_idx + 1
        if is_between_steps(trainer) and not trainer.is_last_batch:
            self._save_or_interrupt(trainer, pl_module, "batch")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find how many batches all ranks have in common: their numbers of photographs may differ by one."""
        (most,) = self._maximum_over_ranks(-int(trainer.num_val_batches[0]))
        self._fewest_batches = -most
        if self.stretch is not None and not trainer.sanity_checking:
            self.stretch.enter("validation", int(trainer.num_val_batches[0]))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Interrupt, unless it is the last batch: an interrupted validation is repeated, so this one is finished."""
        if self.stretch is not None and not trainer.sanity_checking:
            self.stretch.count(batch_idx + 1)
        if not (trainer.sanity_checking or has_gradients_waiting(trainer)) and batch_idx < self._fewest_batches - 1:
            self._save_or_interrupt(trainer, pl_module, "validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that a validation is complete."""
        if self.stretch is not None and not trainer.sanity_checking:
            self.stretch.validated()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch."""
        self._save(trainer, pl_module, "epoch")

    def _maximum_over_ranks(self, *numbers: int) -> list[int]:
        values = torch.tensor(numbers)
        if self._process_group is not None:
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX, group=self._process_group)
        return [int(value) for value in values]

    def _save_or_interrupt(self, trainer: Trainer, module: LightningModule, position: Position | None) -> None:
        """Save if a checkpoint is due or a rank received a signal; after a signal, interrupt.

        The position is None if it is saved already or nothing has been done yet.
        """
        # Of different signals the largest number counts: SIGTERM wins over SIGUSR1, whose requeue could revive a
        # cancelled job.
        due = position == "batch" and trainer.is_global_zero and time.monotonic() - self._saved_at >= self.seconds
        signum, save = self._maximum_over_ranks(self.signals.received or 0, int(due))
        if position is not None and (signum or save):
            self._save(trainer, module, position)
        if signum:
            if self.run is not None and self.run.last_checkpoint.exists():
                steps = counted(trainer.global_step, "step")
                place = f"{self.run.last_checkpoint} (epoch {trainer.current_epoch}, {steps})"
                again = "; the validation starts again" if position == "validation" else ""
                # At its first safe point, a resumed run has nothing that its checkpoint has not.
                rank_zero_info(f"Saved {place}{again}." if self._has_saved else f"Nothing new to save in {place}.")
            raise Interrupted(signum)

    def _save(self, trainer: Trainer, module: LightningModule, position: Position) -> None:
        if self.run is None:
            return
        self._position, fresh = position, self.run.next_checkpoint
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(fresh, weights_only=False)
        if trainer.is_global_zero:
            if not self._is_readable:
                try:
                    read_progress(fresh)
                except CheckpointError as error:  # better found now than when the run is resumed
                    message = f"{error}\nA callback of the configuration returns a value that is not plain from "
                    message += "state_dict, so no run can be resumed from this checkpoint."
                    raise CheckpointError(message, "checkpoint-not-plain", reason=str(error)) from error
                self._is_readable = True
            try:
                if self.run.last_checkpoint.exists():
                    replace_path(self.run.last_checkpoint, self.run.previous_checkpoint)
                replace_path(fresh, self.run.last_checkpoint)
            except OSError as error:
                message = f"Cannot rename {fresh} to last.ckpt: {error.strerror}. It contains the state of the run."
                raise MachineError(message, "checkpoint-not-renamable", path=fresh, reason=error.strerror) from error
        trainer.strategy.barrier("last.ckpt")
        self._position, self._has_saved = None, True
        self._saved_at = time.monotonic()
        if self.stretch is not None:
            self.stretch.saved(trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Complete a checkpoint of this callback; best.ckpt and others are not for resuming."""
        if self._position is None:
            return
        metrics = [take_metrics(pl_module)]
        if self._process_group is not None:
            metrics *= trainer.world_size
            torch.distributed.all_gather_object(metrics, metrics[0], group=self._process_group)
        # Within an epoch, stopping may still have to wait for min_epochs.
        should_stop = trainer.should_stop and (self._position == "epoch" or not can_end_early(trainer))
        rows = [] if self.table is None else self.table.rows
        make_resumable(checkpoint, self._position, rows, metrics, should_stop=should_stop)


def interrupt_evaluation(signals: InterruptSignals) -> Callback:
    """Return a callback that interrupts an evaluation after a signal; the evaluation keeps what is done."""

    def check(*_: Any) -> None:
        signals.check()

    return LambdaCallback(on_validation_batch_end=check, on_test_batch_end=check, on_predict_batch_end=check)
