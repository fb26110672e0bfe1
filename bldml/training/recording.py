"""Files that a run writes: history.csv, predictions of an evaluation, the environment."""

import csv
import io
import platform
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from bldml.errors import CheckpointError, RunError
from bldml.io.atomic import write_atomically
from bldml.metrics.assessment import EvaluationMetrics, evaluate
from bldml.metrics.operating_point import to_probabilities
from bldml.metrics.registry import canonical
from bldml.run.predictions import Prediction, write_metrics, write_predictions
from bldml.training.checkpoint import Header, software_versions
from bldml.training.data.loading import UNLABELLED
from bldml.training.module import Batch
from bldml.training.resume.job import SlurmJob

Row = dict[str, float | int]
ECHOED = ("train_loss", "val_loss", "val_auroc", "val_balanced_accuracy", "lr_head", "trainable_share")


class Curves(TensorBoardLogger):
    """TensorBoard's event files, without Lightning's hparams.yaml, which config.yaml makes redundant."""

    @rank_zero_only
    def save(self) -> None:
        """Write logged values to the disk."""
        self.experiment.flush()


class EpochTable(Logger):
    """Write history.csv, one row per epoch. The whole file is rewritten each time, so a kill leaves a whole table.

    Args:
        path: The file.
        echo: Whether to print a line per epoch, for a job's log file, which a progress bar would fill.
    """

    def __init__(self, path: Path, *, echo: bool = False) -> None:
        super().__init__()
        self.path, self.echo = path, echo
        self._rows: dict[int, Row] = {}

    @property
    def rows(self) -> list[Row]:
        """Values logged so far, one row per epoch."""
        return [self._rows[epoch] for epoch in sorted(self._rows)]

    def restore(self, rows: Iterable[Row]) -> None:
        """Restore the rows of a resumed run; other rows of the file will be computed again.

        Columns with a name of version 0.1 get their present name: the whole file is rewritten.
        """
        self._rows = {int(row["epoch"]): {canonical(name): value for name, value in row.items()} for row in rows}

    @property
    def name(self) -> str:
        """Part of Lightning's interface; unused."""
        return ""

    @property
    def version(self) -> str:
        """Part of Lightning's interface; unused."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml contains them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of their epoch. Lightning calls this after validation and at the epoch's end."""
        values = dict(metrics)
        if "epoch" not in values:
            return  # logged by a callback between epochs
        epoch = int(values.pop("epoch"))
        row = self._rows.setdefault(epoch, {"epoch": epoch})
        row.update({"step": step or 0, **values})
        if self.echo and "train_loss" in values:
            shown = "  ".join(f"{name} {row[name]:.4g}" for name in ECHOED if name in row)
            rank_zero_info(f"epoch {epoch}: {shown}")

    @rank_zero_only
    def save(self) -> None:
        """Write the table."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())


class PredictionRecorder(Callback):
    """Collect the logits of one evaluation; write predictions.csv and, if labels are known, the metrics.

    Args:
        folder: `evaluations/<name>`.
        header: Header of the checkpoint, with class names and operating point.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        super().__init__()
        self.folder, self.header = folder, header
        self.metrics: EvaluationMetrics | None = None
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._names: list[str] = []
        self._groups: list[str] = []

    def _record(self, outputs: Any, batch: Batch) -> None:
        self._logits.append(outputs.detach().float().cpu())
        self._labels.append(batch["label"].cpu())
        self._names += batch["path"]
        self._groups += batch["group"]

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Collect the logits of a batch."""
        self._record(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Collect the logits of a batch."""
        self._record(outputs, batch)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Collect the logits of a batch."""
        self._record(outputs, batch)

    def write(self, expected: int) -> None:
        """Write predictions and metrics.

        Args:
            expected: Number of photographs that must have a logit.

        Raises:
            RunError: Logits are missing; nothing was written.
            CheckpointError: A logit is not finite; nothing was written.
        """
        if len(self._names) != expected:
            raise RunError(
                f"Only {len(self._names)} of {expected} photographs were evaluated. Do not set trainer.limit_…_batches "
                "or trainer.fast_dev_run: an evaluation must contain the whole split.",
                "evaluation-incomplete",
                found=len(self._names),
                expected=expected,
            )
        point, logits = self.header, torch.cat(self._logits)
        not_finite = int((~logits.isfinite()).sum())
        if not_finite:
            raise CheckpointError(
                f"For {not_finite} of {len(logits)} photographs this classifier's logit is not a finite number: it has "
                "diverged in training. Train again with a smaller --model.lr.",
                "model-diverged",
                found=not_finite,
                expected=0,
            )
        probabilities = to_probabilities(logits.numpy(), point.temperature)
        labels = torch.cat(self._labels).numpy()
        names = {0: point.negative_class, 1: point.positive_class, UNLABELLED: ""}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_predictions(
            self.folder / "predictions.csv",
            (
                Prediction(
                    name, group, names[int(label)], names[int(probability >= point.threshold)], float(probability)
                )
                for name, group, label, probability in zip(
                    self._names, self._groups, labels, probabilities, strict=True
                )
            ),
        )
        if np.all(labels != UNLABELLED):
            self.metrics = evaluate(labels, probabilities, self.header.operating_point)
            write_metrics(self.folder, self.metrics)


def record_environment(
    seed: int, device: torch.device, dataset_digests: Mapping[str, str], parameters: int | None = None
) -> dict[str, Any]:
    """Return the content of environment.json: the conditions of a run, for reporting and repeating it.

    Args:
        seed: Seed of the run.
        device: Device of the computation.
        dataset_digests: Dataset digest of each split (see `dataset.samples.dataset_digest`).
        parameters: Number of weights and biases of the network.
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": software_versions(),
        "git_commit": git_commit(),
        "seed": seed,
        "parameters": parameters,
        "device": str(device),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        # A requeued job finds its run by this.
        "slurm_job": job.key if (job := SlurmJob.current()) else None,
        "dataset_fingerprint": dict(dataset_digests),
    }


def git_commit() -> str | None:
    """Return the commit of the checkout that contains this code, with `+changes` if edited; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        # The check prevents an installed package from reporting the commit of a repository that contains its venv.
        tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        show = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
        return subprocess.run(show, capture_output=True, check=True, timeout=10, text=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
