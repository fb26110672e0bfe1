"""What last.ckpt must hold so that a run goes on exactly where it was, and how it is read back.

Lightning keeps weights, optimizer, gradient scaler, callbacks and the counters of its loops. Here are added the metrics
gathered so far in the epoch, the rows of history.csv, and loop counters in a form from which Lightning 2.6 continues
correctly: as it saves them itself, a stop inside the last batch skips the validation, and one at an epoch's start the
epoch.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric

from bldml.errors import CheckpointError
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.lightning_internals import batches_logged, metric_state, put_metric_state
from bldml.training.recording import Row

KEY = "bldml_resume"
TRAIN_METRICS = "scores.train_."

# Where a run can stop: between two epochs, after a training batch, or inside the validation, which is then run again
# from its first batch.
Position = Literal["epoch", "batch", "validation"]


class DamagedCheckpoint(CheckpointError):
    """Not every byte of a checkpoint is as it was written."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        path: The checkpoint.
        epoch: The epoch that goes on or comes next, counted from 0.
        step: Optimizer steps done.
        rows: The rows of history.csv.
        next_log_step: What is logged from here on has this step or a later one.
        world_size: How many processes trained together.
    """

    path: Path
    epoch: int
    step: int
    rows: tuple[Row, ...]
    next_log_step: int
    world_size: int


def make_resumable(
    checkpoint: dict[str, Any],
    position: Position,
    *,
    should_stop: bool,
    rows: list[Row],
    metrics: list[dict[str, Any]],
) -> None:
    """Complete a checkpoint of Lightning's so that the run can go on from it exactly.

    Args:
        checkpoint: As Lightning dumps it; changed in place.
        position: Where the run stands.
        should_stop: Whether the training has ended before its last epoch.
        rows: The rows of history.csv so far.
        metrics: What `take_metrics` gave, of each rank.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epochs, logged = loops["epoch_progress"], batches_logged(checkpoint)
    if position == "epoch":
        done = epochs["current"]["processed"]
        for tracker in epochs.values():
            tracker |= dict.fromkeys(("ready", "started", "processed", "completed"), tracker["processed"])
        # The epoch whose weights these are, not the one that comes.
        checkpoint["epoch"] = done - 1
    elif position == "validation":
        # The form that Lightning takes for a validation that is to be finished; all of it, from its first batch.
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
        # After a training batch Lightning counts on only behind the place where this is written.
        "next_log_step": logged + 1 if position == "batch" else logged,
        "metrics": metrics,
    }


def take_metrics(module: LightningModule) -> dict[str, Any]:
    """The metrics of the running epoch as plain values and tensors on the CPU, by their place in the module."""
    return {
        name: _map(metric_state(metric), "cpu")
        for name, metric in module.named_modules()
        if isinstance(metric, Metric) and name.startswith(TRAIN_METRICS)
    }


def put_metrics(module: LightningModule, taken: Mapping[str, Any]) -> None:
    """Put back what `take_metrics` took."""
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and name in taken:
            put_metric_state(metric, _map(taken[name], module.device))


def relocate(state: dict[str, Any], folder: str) -> None:
    """Let ModelCheckpoint go on in a run folder that has been moved; it would forget its best score.

    Args:
        state: Its state; changed in place.
        folder: Where the run's checkpoints lie now.
    """
    old = state["dirpath"]
    for key, value in state.items():
        if isinstance(value, str):
            state[key] = value.replace(old, folder, 1)
        elif isinstance(value, dict):
            state[key] = {str(k).replace(old, folder, 1): v for k, v in value.items()}


def read_progress(path: Path) -> Progress:
    """Read where a run stands, after checking that every byte of the file is as it was written.

    Raises:
        DamagedCheckpoint: It is not.
        CheckpointError: No run can go on from it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except OSError as error:  # which says nothing of the file: another try may succeed
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}.", "checkpoint-unreadable", path=path, reason=error.strerror
        ) from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise DamagedCheckpoint(
            f"{path} is damaged: {error}.", "checkpoint-cut", path=path, reason=str(error)
        ) from error
    if broken is not None:
        message = f"{path} is damaged: the checksum of {broken} is wrong."
        raise DamagedCheckpoint(message, "checkpoint-checksum-wrong", path=path, found=broken)
    checkpoint: Checkpoint = read_checkpoint(path)
    plain = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(KEY)
    if not isinstance(plain, dict):
        message = f"{path} is not a checkpoint that a run can go on from: take last.ckpt."
        raise CheckpointError(message, "checkpoint-not-resumable", path=path)
    return Progress(
        checkpoint.path, plain["epoch"], plain["step"], tuple(plain["rows"]), plain["next_log_step"],
        len(plain["metrics"]),
    )  # fmt: skip


def _map(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _map(item, device) for key, item in value.items()}
    return [_map(item, device) for item in value] if isinstance(value, list) else value
