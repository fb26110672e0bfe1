"""The callback that lets a run be stopped at any moment and go on exactly: safe points, agreement, last.ckpt."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from bldml.errors import CheckpointError, RunError
from bldml.io.text import counted
from bldml.run.folder import RunFolder
from bldml.training.data.sampling import LeafLoader
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


class Interruption(Callback):
    """Stops at the next safe point after a signal, with everything saved; saves from time to time without one.

    Safe points are the end of a training batch whose gradients were applied, the end of a validation batch, and the
    time between two epochs. All ranks agree at each of them. What is saved replaces last.ckpt in one rename, and the
    one before stays as previous.ckpt.

    Args:
        signals: Where signals raise their flags.
        run: The run folder; None for a trial run that leaves nothing.
        table: The rows of history.csv.
        best: The callback that writes best.ckpt.
        minutes: Minutes between two checkpoints within an epoch.
    """

    def __init__(
        self,
        signals: InterruptSignals,
        run: RunFolder | None = None,
        table: EpochTable | None = None,
        best: ModelCheckpoint | None = None,
        minutes: float = math.inf,
    ) -> None:
        super().__init__()
        self.signals, self.run, self.table, self.best, self.seconds = signals, run, table, best, 60 * minutes
        self._group: Any = None  # a torch.distributed process group
        self._saved_at = time.monotonic()
        self._resumed_at: int | None = None
        self._metrics: dict[str, Any] = {}
        self._shared_batches = 0
        self._position: Position | None = None
        self._is_readable = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open a channel between the ranks' CPUs, beside the GPUs' own, which would have to be waited for."""
        if trainer.world_size > 1 and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up what Lightning does not.

        Raises:
            CheckpointError: The ranks go on from different checkpoints.
        """
        if KEY not in checkpoint:
            return  # written by a callback that tries something out, and puts back what was before
        state = checkpoint[KEY]
        step = int(state["step"])
        largest, smallest = self._agree(torch.tensor([step, -step])).tolist()
        if largest != -smallest:
            message = f"The processes go on from different steps, {-smallest} to {largest}: start again."
            raise CheckpointError(message, "ranks-differ", found=[-smallest, largest])
        trainer.should_stop = state["should_stop"]
        self._metrics = state["metrics"][trainer.global_rank]
        self._resumed_at = state["epoch"] if state["position"] == "epoch" else None
        if self.best is not None:
            best = checkpoint["callbacks"][self.best.state_key]
            relocate(best, str(self.best.dirpath))
            # The one thing of its state that it saves and does not load.
            self.best.current_score = best["current_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the metrics of the epoch, now that the module is on its device."""
        put_metrics(pl_module, self._metrics)
        self._metrics = {}
        self._saved_at = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch before, which has been logged by now."""
        loader(trainer).trained_on = 0
        if trainer.current_epoch > 0 and trainer.current_epoch != self._resumed_at:
            self._save(trainer, pl_module, "epoch")
        self._interrupt_if_asked(trainer, pl_module, None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop or save here, unless gradients wait to be applied, or the validation or the epoch's end comes now."""
        loader(trainer).trained_on = batch_idx + 1
        if is_between_steps(trainer) and not trainer.is_last_batch:
            self._interrupt_if_asked(trainer, pl_module, "batch")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find how many batches all ranks have: their shares of the photographs may differ by one."""
        self._shared_batches = int(self._agree(torch.tensor([-int(trainer.num_val_batches[0])]))[0]) * -1

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Stop here; the validation will be run again as a whole, so its last batch rather leads to its end."""
        if not (trainer.sanity_checking or has_gradients_waiting(trainer)) and batch_idx < self._shared_batches - 1:
            self._interrupt_if_asked(trainer, pl_module, "validation")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch."""
        self._save(trainer, pl_module, "epoch")

    def _agree(self, values: Tensor) -> Tensor:
        """The largest of all ranks' values."""
        if self._group is not None:
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX, group=self._group)
        return values

    def _interrupt_if_asked(self, trainer: Trainer, module: LightningModule, position: Position | None) -> None:
        """Save if a signal or the clock asks for it, and stop if it was a signal.

        Args:
            trainer: The trainer.
            module: The classifier.
            position: Where the run stands; None where it was saved already or has done nothing yet.

        Raises:
            Interrupted: By a signal, of which one rank at least has heard.
        """
        # Of different signals the largest number: SIGTERM before SIGUSR1, whose requeue could raise a cancelled job.
        due = position == "batch" and trainer.is_global_zero and time.monotonic() - self._saved_at >= self.seconds
        signum, save = self._agree(torch.tensor([self.signals.received or 0, int(due)])).tolist()
        if position is not None and (signum or save):
            self._save(trainer, module, position)
        if signum:
            if self.run is not None and self.run.last_checkpoint.exists():
                steps = counted(trainer.global_step, "step")
                rank_zero_info(f"Saved {self.run.last_checkpoint} (epoch {trainer.current_epoch}, {steps}).")
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
                except CheckpointError as error:  # better known now than when the run is to go on
                    raise CheckpointError(
                        f"{error}\nA callback of the configuration returns from state_dict something that is no plain "
                        "value. No run can go on from such a checkpoint.",
                        "checkpoint-not-plain",
                        reason=str(error),
                    ) from error
                self._is_readable = True
            try:
                if self.run.last_checkpoint.exists():
                    self.run.last_checkpoint.replace(self.run.previous_checkpoint)
                fresh.replace(self.run.last_checkpoint)
            except OSError as error:
                message = f"Cannot rename {fresh} to last.ckpt: {error.strerror}. It holds the run so far."
                raise RunError(message, "checkpoint-not-renamable", path=fresh, reason=error.strerror) from error
        trainer.strategy.barrier("last.ckpt")
        self._position = None
        self._saved_at = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Complete a checkpoint of this callback's own; best.ckpt and others are not for going on from."""
        if self._position is None:
            return
        metrics = [take_metrics(pl_module)]
        if self._group is not None:
            metrics *= trainer.world_size
            torch.distributed.all_gather_object(metrics, metrics[0], group=self._group)
        make_resumable(
            checkpoint,
            self._position,
            # Within an epoch it may wait for min_epochs.
            should_stop=trainer.should_stop and (self._position == "epoch" or not can_end_early(trainer)),
            rows=[] if self.table is None else self.table.rows, metrics=metrics,
        )  # fmt: skip


class InterruptEvaluation(Callback):
    """Stops an evaluation after a signal; there is nothing to save, it is run again.

    Args:
        signals: Where signals raise their flags.
    """

    def __init__(self, signals: InterruptSignals) -> None:
        super().__init__()
        self.signals = signals

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop here."""
        self.signals.check()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop here."""
        self.signals.check()


def loader(trainer: Trainer) -> LeafLoader:
    """The training loader as what it is."""
    found = trainer.train_dataloader
    if not isinstance(found, LeafLoader):
        raise TypeError(f"expected a LeafLoader, got {type(found).__name__}")
    return found
