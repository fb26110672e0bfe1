"""What TensorBoard shows: curves in groups, one batch of training images, and the results of the best epoch."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from bldml.app.messages import describe_failure, say_warning
from bldml.app.options import flat, load_configuration
from bldml.metrics.assessment import EvaluationMetrics
from bldml.metrics.checked import Classes
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction, read_metrics, read_predictions
from bldml.training.checkpoint import Checkpoint
from bldml.training.recording import EpochTable

# Settings that runs are compared by: whole groups, and single ones.
GROUPS = ("model", "unfreezing", "early_stopping", "plateau", "operating_point", "data.augmentation")
SETTINGS = ("data.batch_size", "trainer.max_epochs", "trainer.precision", "monitor", "seed_everything")
# Metrics of an evaluation beside them.
OVERALL, AT_THRESHOLD = ("auroc", "loss"), ("sensitivity", "specificity", "balanced_accuracy")
IMAGES, ROW = 16, 4
EVENTS = "events.out.tfevents."  # beginning of the names of event files
RESULTS = ".results"  # end of the name of the event file that holds them


@contextmanager
def disk_errors_of_threads() -> Iterator[None]:
    """Let no thread print the traceback of a failed disk: TensorBoard raises its thread's error in the main thread."""
    before = threading.excepthook

    def tell(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):
            before(failure)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


class Curves(TensorBoardLogger):
    """TensorBoard's event files, without Lightning's hparams.yaml, which config.yaml makes redundant."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write values under the names of their groups."""
        super().log_metrics({tag_of(name): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def save(self) -> None:
        """Write logged values to the disk."""
        self.experiment.flush()


def begin_last(run: RunFolder, begin: Callable[[], object]) -> None:
    """Begin an event file, and date those from its future back to just before it.

    TensorBoard reads the files of a run in the order of their names, which begin with the second in which they were
    begun. If the clock has been set back, it would read a resumed run before its beginning, and drop the curves.
    """
    before = set(run.path.glob(f"{EVENTS}*"))
    begin()
    begun = [_begun(path) for path in set(run.path.glob(f"{EVENTS}*")) - before]
    limit = min(begun, default=0)
    for path in sorted(before, key=_begun, reverse=True) if begun else []:
        limit = min(limit - 1, _begun(path))
        if _begun(path) > limit:
            rest = path.name.removeprefix(EVENTS).partition(".")[2]
            with suppress(OSError):  # the curves are an addition
                path.rename(path.with_name(f"{EVENTS}{limit:010d}.{rest}"))


def _begun(path: Path) -> int:
    text = path.name.removeprefix(EVENTS).partition(".")[0]
    return int(text) if text.isdecimal() and text.isascii() else 0


def tag_of(name: str) -> str:
    """Return the tag of a column of history.csv; TensorBoard groups tags by what is before the slash.

    >>> [tag_of(name) for name in ("train_loss", "val_balanced_accuracy", "lr_head", "trainable_share")]
    ['loss/train', 'balanced_accuracy/val', 'lr/head', 'trainable_share']
    """
    first, _, rest = name.partition("_")
    return f"{rest}/{first}" if first in ("train", "val") else f"lr/{rest}" if first == "lr" else name


class TrainingImages(Callback):
    """Log the first images of the first training batch, as the network gets them: after augmentation."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Log them; they are uint8, (n, 3, side, side)."""
        if trainer.global_step or batch_idx:
            return
        for logger in trainer.loggers:
            if isinstance(logger, Curves) and trainer.is_global_zero:
                grid = make_grid(batch["image"][:IMAGES].cpu(), nrow=ROW)
                logger.experiment.add_image("training images after augmentation", grid, 0)


def log_results(trainer: Trainer, run: RunFolder, checkpoint: Checkpoint, splits: Sequence[str]) -> None:
    """Add confusion matrix and ROC curve of each split, settings and final metrics, if there are curves already.

    They get the step of the best epoch. They are an addition, so an error becomes a warning.
    """
    if not any(isinstance(logger, Curves) for logger in trainer.loggers):
        return
    rows = [row for logger in trainer.loggers if isinstance(logger, EpochTable) for row in logger.rows]
    step = next((int(row["step"]) for row in rows if row["epoch"] == checkpoint.epoch), 0)
    try:
        # Not the logger of the fit: a resumed one would drop all points after its own first step once more.
        # In a file of its own, which replaces the one of an earlier end of this run.
        for old in run.path.glob(f"*{RESULTS}"):
            old.unlink()
        with SummaryWriter(str(run.path), filename_suffix=RESULTS) as writer:
            _log_results(writer, run, checkpoint, splits, step)
    except Exception as error:
        say_warning(f"TensorBoard does not show the final results: {describe_failure(error)}")


def pictures_of(
    split: str, metrics: EvaluationMetrics, rows: Sequence[Prediction], classes: Classes
) -> dict[str, NDArray[np.uint8]]:
    """Return confusion matrix and ROC curve of a split by name, each of shape (height, width, 3)."""
    # Here because only figures need Matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from bldml.figures import plots

    labels = [int(row.true_class == classes.positive) for row in rows]
    counts = {name: int(metrics.at_threshold[name] or 0) for name in ("tp", "fp", "fn", "tn")}
    roc = plots.roc([(split, labels, [row.probability for row in rows])])
    pictures = {}
    for name, figure in {"confusion": plots.confusion(counts, classes), "roc": roc}.items():
        canvas: Any = FigureCanvasAgg(figure)  # untyped
        canvas.draw()
        pictures[name] = np.asarray(canvas.buffer_rgba())[..., :3]
    return pictures


def _log_results(writer: Any, run: RunFolder, checkpoint: Checkpoint, splits: Sequence[str], step: int) -> None:
    header = checkpoint.header
    final: dict[str, float] = {}
    classes = Classes(header.negative_class, header.positive_class)
    for split in splits:
        metrics, rows = read_metrics(run.evaluation(split)), read_predictions(run.evaluation(split) / "predictions.csv")
        for name, image in pictures_of(split, metrics, rows, classes).items():
            writer.add_image(f"{name}/{split}", image, step, dataformats="HWC")
        known = {name: metrics.overall[name] for name in OVERALL}
        known |= {name: metrics.at_threshold[name] for name in AT_THRESHOLD}
        final |= {f"final/{split}_{name}": value for name, value in known.items() if value is not None}
    settings = flat(load_configuration(run.config.read_text(encoding="utf-8")))
    shown = {
        key: value if isinstance(value, int | float | str) else str(value)
        for key, value in settings.items()
        if key in SETTINGS or key.startswith(tuple(f"{group}." for group in GROUPS))
    }
    for part in hparams(shown, final):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(part)
    for name, value in final.items():
        writer.add_scalar(name, value, step)
