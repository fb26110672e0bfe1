"""last.ckpt, from which a run is resumed exactly: its content, and its atomic writing and checked reading.

Lightning saves weights, optimizer, gradient scaler, callbacks and the counters of its loops. Added here are the metrics
collected so far in the epoch, the rows of history.csv, and loop counters in a form from which Lightning 2.6 resumes
correctly: with the counters that it saves itself, an interruption in the last batch skips the validation, and one at
the start of an epoch skips the epoch.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from bldml.errors import CheckpointError, MachineError
from bldml.io.platform import replace_path
from bldml.training.checkpoint import read_checkpoint
from bldml.training.lightning_internals import batches_logged, metric_state, put_metric_state
from bldml.training.recording import Row

KEY = "bldml_resume"
TRAIN_METRICS = "scores.train_."

# Where a run can be interrupted: between two epochs, after a training batch, or within the validation, which is then
# repeated from its first batch.
Position = Literal["epoch", "batch", "validation"]


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    path: Path  # of the checkpoint
    epoch: int  # that is resumed or comes next, counted from 0
    step: int  # number of optimizer steps done
    rows: tuple[Row, ...]  # of history.csv
    next_log_step: int  # first step that is logged after resuming
    world_size: int  # number of processes of the training


def make_resumable(
    checkpoint: dict[str, Any], position: Position, rows: list[Row], metrics: list[dict[str, Any]], *, should_stop: bool
) -> None:
    """Complete a Lightning checkpoint, in place, so that the run can be resumed from it exactly.

    Args:
        checkpoint: As Lightning saves it.
        position: Position of the run.
        rows: The rows of history.csv so far.
        metrics: Result of `take_metrics` of each rank.
        should_stop: Whether the training has ended before its last epoch.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epochs, logged = loops["epoch_progress"], batches_logged(checkpoint)
    if position == "epoch":
        done = epochs["current"]["processed"]
        for tracker in epochs.values():
            tracker |= dict.fromkeys(("ready", "started", "processed", "completed"), tracker["processed"])
        # The epoch of these weights, not the next one.
        checkpoint["epoch"] = done - 1
    elif position == "validation":
        # The form in which Lightning continues a validation; here from its first batch.
        batches = loops["epoch_loop.val_loop.batch_progress"]
        for key in ("total", "current"):
            batches[key] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        batches["is_last_batch"] = False
    checkpoint[KEY] = {
        "position": position,
        "epoch": epochs["current"]["completed"],
        "step": checkpoint["global_step"],
        "should_stop": should_stop,
        "rows": [dict(row) for row in rows],
        # After a training batch, Lightning increases its counter only after this checkpoint is written.
        "next_log_step": logged + 1 if position == "batch" else logged,
        "metrics": metrics,
    }


def take_metrics(module: LightningModule) -> dict[str, Any]:
    """Return the metrics of the current epoch as plain values and tensors on the CPU, by submodule name."""
    return {
        name: _map(metric_state(metric), "cpu")
        for name, metric in module.named_modules()
        if isinstance(metric, Metric) and name.startswith(TRAIN_METRICS)
    }


def put_metrics(module: LightningModule, taken: Mapping[str, Any]) -> None:
    """Restore the metrics returned by `take_metrics`."""
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and name in taken:
            put_metric_state(metric, _map(taken[name], module.device))


def relocate(state: dict[str, Any], folder: str) -> None:
    """Adapt a state of ModelCheckpoint, in place, to checkpoints that were moved to `folder`.

    It would lose its best score otherwise.
    """
    old = state["dirpath"]
    for key, value in state.items():
        if isinstance(value, str):
            state[key] = value.replace(old, folder, 1)
        elif isinstance(value, dict):
            state[key] = {str(k).replace(old, folder, 1): v for k, v in value.items()}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final path and rename it, so that a kill leaves the old file or the new one.

    Lightning's own class writes to the system's temporary folder, usually on another disk: there a rename is a copy,
    and a kill leaves half of it. It also removes any path that a checkpoint callback remembers, including folders and
    URLs, and such a path may come from a checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; where that is not possible (MachineError), an old file is unchanged."""
        target = Path(path)
        # Always the same name, so that a partial file left by a kill is overwritten.
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(target.parent.resolve())
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            replace_path(part, target)
        # torch reports a full disk as a RuntimeError.
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            message = f"Cannot write the checkpoint {target}: {reason}. The previous checkpoints are unchanged. "
            message += "Check free space and write permission."
            raise MachineError(message, "checkpoint-not-writable", path=target, reason=reason) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file from a folder that this process has written checkpoints to; nothing else."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file() and file.parent.resolve() in self._folders:
            file.unlink(missing_ok=True)


def read_progress(path: Path) -> Progress:
    """Read the progress of a run.

    Raises:
        DamagedCheckpoint: The file is damaged.
        CheckpointError: A run cannot be resumed from it.
    """
    read_checkpoint(path)
    plain = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(KEY)
    if not isinstance(plain, dict):
        message = f"A run cannot be resumed from {path}: use last.ckpt."
        raise CheckpointError(message, "checkpoint-not-resumable", path=path)
    counts = [plain.get(key) for key in ("epoch", "step", "next_log_step")]
    rows, metrics = plain.get("rows"), plain.get("metrics")
    are_counts = all(type(count) is int and 0 <= count < 2**63 for count in counts)
    if not (are_counts and isinstance(metrics, list) and isinstance(rows, list) and all(map(_is_row, rows))):
        message = f"A run cannot be resumed from {path}: its record of the progress is invalid."
        raise CheckpointError(message, "checkpoint-progress-wrong", path=path)
    return Progress(path, plain["epoch"], plain["step"], tuple(rows), plain["next_log_step"], len(metrics))


@contextmanager
def restoring(path: Path | None, trainer: Trainer) -> Iterator[None]:
    """Make a CheckpointError of what Lightning raises while it takes what a checkpoint holds, which it does not check.

    `path` is that of the checkpoint; None for a new training.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if path is None or any(getattr(one, "is_restored", False) for one in trainer.callbacks):  # type: ignore[attr-defined]
            raise
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        message = (
            f"The run cannot be resumed from {path}: restoring it failed ({reason}). Use another checkpoint of the "
        )
        message += "run as last.ckpt, or start a new run."
        raise CheckpointError(message, "checkpoint-not-restorable", path=path, reason=reason) from error


def _is_row(row: Any) -> bool:
    """Return whether a value is a row of a history: an epoch, and numbers by name."""
    return (
        isinstance(row, dict)
        and type(row.get("epoch")) is int
        and all(isinstance(key, str) and type(value) in (int, float) for key, value in row.items())
    )


def _map(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _map(item, device) for key, item in value.items()}
    return [_map(item, device) for item in value] if isinstance(value, list) else value
