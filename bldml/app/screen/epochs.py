"""One line per epoch that stays on the screen, what a training costs, and why it ended."""

import math
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.messages import say_warning
from bldml.dataset.cache.writer import shown_size
from bldml.dataset.files import show_path
from bldml.io.text import counted
from bldml.report.tables import duration
from bldml.run.folder import RunFolder
from bldml.training.checkpoint import read_checkpoint
from bldml.training.finetuning import ProgressiveUnfreezing
from bldml.training.recording import Row, measured
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.slurm import WallTime, wall_time_of

# Title, column of history.csv, format of its values. The monitored metric is added if it is another.
COLUMNS = (
    ("train loss", "train_loss", ".4f"),
    ("val loss", "val_loss", ".4f"),
    ("val AUROC", "val_auroc", ".4f"),
    ("lr of head", "lr_head", ".2g"),
)
# Weights and the two moments of AdamW, of the same size if all parameters are trained.
PARTS = 3
# best.ckpt, last.ckpt and previous.ckpt, and the one being written; the first two stay.
CHECKPOINTS, LASTING = 4, 2
SIGNAL_S = 180.0  # Slurm's signal comes so long before the end of the wall time: 120 s, and up to a minute earlier


class EpochLines(Callback):
    """Say one line per epoch. `show` is called when history.csv has the epoch's row.

    Args:
        run: The run folder.
        best: The callback that writes best.ckpt.
        job: The Slurm job, to compare its wall time with what the training takes.
    """

    def __init__(self, run: RunFolder, best: ModelCheckpoint, job: SlurmJob | None = None) -> None:
        super().__init__()
        self.run, self.best, self.job = run, best, job
        others = [] if best.monitor in [name for _, name, _ in COLUMNS] else [str(best.monitor)]
        self._columns = [*COLUMNS, *((name.replace("_", " "), name, ".4f") for name in others)]
        self._epochs, self._unfreezing = 0, unfreezing_of(None)
        self._began: float | None = None
        self._score = math.nan
        self._is_first = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the checkpoints take, and the titles of the columns; of a resumed run, its best epoch so far."""
        if not trainer.is_global_zero:
            return
        self._epochs, self._unfreezing = trainer.max_epochs or -1, unfreezing_of(trainer)
        self._score = self._best_score()
        size = PARTS * sum(p.numel() * p.element_size() for p in pl_module.parameters())
        free = shutil.disk_usage(self.run.path).free
        rank_zero_info(
            f"Checkpoints take at most about {shown_size(CHECKPOINTS * size)} during the training and "
            f"{shown_size(LASTING * size)} afterwards; {shown_size(free)} are free in {show_path(self.run.path)}."
        )
        if free < CHECKPOINTS * size:
            say_warning("The disk may become full during the training.")
        if math.isfinite(self._score):
            rank_zero_info(f"Best so far: {self.best.monitor} {self._score:.4f}.")
        titles = "  ".join(title for title, _, _ in self._columns)
        rank_zero_info(f"{'epoch':>{self._width}}  {titles}  trained   seconds   (* best so far; epochs count from 0)")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time; an epoch that was interrupted has none."""
        self._began = time.monotonic()

    def show(self, row: Row) -> None:
        """Say the line of an epoch from its row of history.csv."""
        epoch, seconds = int(row["epoch"]), None if self._began is None else time.monotonic() - self._began
        before, self._score, self._began = self._score, self._best_score(), None
        numbers = (
            f"{row[name]:{form}}".rjust(len(title)) if name in row else " " * len(title)
            for title, name, form in self._columns
        )
        mark = "*" if math.isfinite(self._score) and self._score != before else " "
        took = "" if seconds is None else f"{seconds:.1f}"
        number = f"{epoch}/{self._epochs - 1}" if self._epochs > 0 else str(epoch)
        trained = "" if self._unfreezing is None else _trained(self._unfreezing, epoch)
        rank_zero_info(f"{number:>{self._width}}  {'  '.join(numbers)}  {trained:8}  {took:>7} {mark}".rstrip())
        if seconds is not None:
            self._say_pace(epoch, seconds)

    @property
    def _width(self) -> int:
        return max(len("epoch"), 2 * len(str(self._epochs)) + 1)

    def _best_score(self) -> float:
        score = self.best.best_model_score
        return math.nan if score is None else float(score)

    def _say_pace(self, epoch: int, seconds: float) -> None:
        """Say how long the rest takes, after the first epoch and after the first that trains all it ever will."""
        depth = self._unfreezing.depth if self._unfreezing else lambda _: 0
        left = self._epochs - 1 - epoch
        is_new = self._is_first or (depth(epoch) != depth(epoch - 1) and depth(epoch) == depth(self._epochs))
        self._is_first = False
        if left <= 0 or not is_new:
            return
        rest = duration(max(1.0, left * seconds))
        text = f"At the pace of this epoch, the remaining {counted(left, 'epoch')} will take about {rest}, less if "
        text += "the training ends early."
        slower = _first_deeper(depth, depth(epoch), self._epochs)
        if slower is not None:
            text += f" From epoch {slower} on, more layers are trained, which takes longer."
        if self.job is not None and (wall_time := wall_time_of(self.job)) is not None:
            compared = compare_with_wall_time(left * seconds, wall_time, is_slower=slower is not None)
            text = f"{text} {compared}".rstrip()
        rank_zero_info(text)


def _first_deeper(depth: Callable[[int], int], than: int, epochs: int) -> int | None:
    """Return the first of so many epochs with more layers, without a look at each of what may be a billion.

    >>> [_first_deeper(lambda epoch: min(2, epoch // 10**8), than, 10**9) for than in (0, 1, 2)]
    [100000000, 200000000, None]
    """
    first = bisect_right(range(epochs), than, key=depth)
    return first if first < epochs else None


def compare_with_wall_time(rest: float, wall_time: WallTime, *, is_slower: bool = False) -> str:
    """Return whether a training that takes some more seconds ends within the wall time of its job.

    `is_slower` says that it will take longer. Empty where no time is left.

    >>> from datetime import datetime, timedelta
    >>> end, length = datetime(2026, 11, 30, 2), timedelta(hours=8)
    >>> compare_with_wall_time(3600, WallTime(end, length, length))
    'The wall time ends at 2026-11-30 02:00, in 8 h 0 min: at this pace, the training ends before.'
    """
    left = wall_time.left.total_seconds()
    if left <= 0:
        return ""
    text = f"The wall time ends at {wall_time.end:%Y-%m-%d %H:%M}, in {duration(left)}: at this pace, the "
    missing = rest - (left - SIGNAL_S)
    if missing <= 0:
        return f"{text}training ends before."
    length = max(60.0, wall_time.length.total_seconds() - SIGNAL_S)
    about = "at least" if is_slower else "about"
    starts = counted(math.ceil(missing / length), "more start")
    return f"{text}training does not end before. It is then saved, and needs {about} {starts} of this length."


def unfreezing_of(trainer: Trainer | None) -> ProgressiveUnfreezing | None:
    """Return the callback that unfreezes; None without one."""
    callbacks: list[Callback] = [] if trainer is None else trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, ProgressiveUnfreezing)), None)


def _trained(unfreezing: ProgressiveUnfreezing, epoch: int) -> str:
    depth = unfreezing.depth(epoch)
    return counted(depth, unfreezing.unit.removesuffix("s")) if depth else "head"


def say_ending(trainer: Trainer, run: RunFolder) -> None:
    """Say why the training ended, which epoch was the best, and how long it took."""
    took, callbacks = measured(run), trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    best = next(callback.best for callback in callbacks if isinstance(callback, EpochLines))
    rank_zero_info(
        f"Training ended after {counted(trainer.current_epoch, 'epoch')}"
        f"{f' ({duration(took)})' if took is not None else ''}: {reason(trainer)}."
    )
    if not run.best_checkpoint.is_file() or best.best_model_score is None:
        return
    epoch = read_checkpoint(run.best_checkpoint).epoch
    rank_zero_info(f"Best epoch: {epoch}, {best.monitor} {float(best.best_model_score):.4f}.")
    for text in _doubts(epoch, trainer.current_epoch, str(best.monitor), unfreezing_of(trainer)):
        say_warning(text)


def reason(trainer: Trainer) -> str:
    """Return why a training ended, from what the trainer and its callbacks know."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if trainer.lightning_module.hparams.get("head") == "logistic":
        return "the head logistic is fitted once"
    if trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs:
        return f"trainer.max_epochs is {trainer.max_epochs}"
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            match callback.stopping_reason:
                case EarlyStoppingReason.PATIENCE_EXHAUSTED:
                    of = f"{callback.monitor} has not improved for {counted(callback.patience, 'validation')}"
                    return f"early stopping, {of} (early_stopping.patience)"
                case EarlyStoppingReason.NON_FINITE_METRIC:
                    return f"{callback.monitor} is not a finite number, so the classifier has diverged"
                case EarlyStoppingReason.STOPPING_THRESHOLD | EarlyStoppingReason.DIVERGENCE_THRESHOLD:
                    return f"early stopping, {callback.monitor} has passed a threshold"
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            return "trainer.max_time was reached"
    return "a callback has stopped it"


def _doubts(best: int, epochs: int, monitor: str, unfreezing: ProgressiveUnfreezing | None) -> Iterator[str]:
    """Yield what a best epoch that is the first, or before the first unfreezing, means."""
    first = None if unfreezing is None else _first_deeper(unfreezing.depth, 0, epochs)
    if first is not None and best < first:
        yield (
            f"The best epoch, {best}, is before epoch {first}, the first in which layers of the backbone were trained: "
            f"training them has not improved {monitor}."
        )
    elif best == 0 and epochs > 1:
        yield f"The best epoch is the first, 0: no later epoch has improved {monitor}."
