"""Files that a run writes: history.csv, training_time.json, predictions of an evaluation, environment.json."""

import hashlib
import json
import platform
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from bldml.errors import CheckpointError, RunError
from bldml.io.atomic import write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.io.platform import cpu_model
from bldml.io.text import csv_text
from bldml.metrics.assessment import EvaluationMetrics, evaluate
from bldml.metrics.certainty.novelty import AnyNovelty
from bldml.metrics.registry import canonical
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction, write_predictions
from bldml.run.provenance import positive_number
from bldml.training.checkpoint import Header, software_versions
from bldml.training.data.loading import UNLABELLED
from bldml.training.module import LeafClassifier
from bldml.training.resume.job import SlurmJob
from bldml.training.trunk import inputs_of

Row = dict[str, float | int]


class EpochTable(Logger):
    """Write history.csv, one row per epoch. The whole file is rewritten each time, so a kill leaves a whole table.

    Args:
        path: The file.
        show: Called with the row of each epoch when it is complete.
    """

    name = version = ""  # of Lightning's interface; unused

    def __init__(self, path: Path, show: Callable[[Row], None] | None = None) -> None:
        super().__init__()
        self.path, self.show = path, show
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
        if self.show and "train_loss" in values:
            self.show(row)

    @rank_zero_only
    def save(self) -> None:
        """Write the table."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        write_atomically(self.path, csv_text(columns, ([row.get(name) for name in columns] for row in self.rows)))


class Stopwatch(Callback):
    """Write training_time.json: seconds of training and its validations, without the pauses of interruptions.

    It is a separate file because checkpoints and history.csv must not depend on whether a run was interrupted.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
        self._start: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start; a resumed run adds to the time measured before."""
        self._start = time.monotonic() - (measured(self.run) or 0.0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Write the time; an interruption is an exception, which may come before the start."""
        if trainer.is_global_zero and self._start is not None:
            seconds = round(time.monotonic() - self._start, 3)
            write_atomically(self.run.training_time, json.dumps({"training_seconds": seconds}) + "\n")

    on_train_end = on_exception = on_train_epoch_end


def measured(run: RunFolder) -> float | None:
    """Return the seconds of training so far; None if the file is missing or damaged."""
    return positive_number(mapping_or_nothing(run.training_time).get("training_seconds"))


class PredictionRecorder(Callback):
    """Collect the logits of one evaluation; write predictions.csv to a folder and, if labels are known, make metrics.

    Attributes:
        metrics: Content of metrics.json; None without labels, and before `write`.
        labels, probabilities: Of the photographs, in the order of the table, (n,).
        rows: The table.
        seconds, device: Duration of the evaluation with its earlier starts, and where it ran; set by who runs it.

    Args:
        folder: Folder of the evaluation.
        header: Of the classifier.
        novelty: The distribution of its training photographs; None if not recorded.
        keep_features: Keep the features of all photographs, for `features` and `complete`.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        novelty: AnyNovelty | None = None,
        *,
        keep_features: bool = False,
    ) -> None:
        super().__init__()
        self.folder, self.header, self.novelty, self.keep_features = folder, header, novelty, keep_features
        self.metrics: EvaluationMetrics | None = None
        self.labels, self.probabilities = np.zeros(0, np.int64), np.zeros(0)
        self.rows: list[Prediction] = []
        self.seconds, self.device = 0.0, ""
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._names: list[str] = []
        self._groups: list[str] = []
        self._inputs: list[Tensor] = []
        self._features: list[NDArray[np.float32]] = []
        self._distances: list[NDArray[np.float64]] = []
        self._watch = ExitStack()

    @property
    def collected(self) -> int:
        """Number of photographs that have been evaluated so far."""
        return len(self._names)

    @property
    def features(self) -> NDArray[np.float32]:
        """Features of the photographs, float32 (n, d), in the order of the table."""
        return np.concatenate(self._features)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch what the classifier computes its logits from."""
        self._inputs = self._watch.enter_context(inputs_of(cast(LeafClassifier, pl_module).last_layer))

    on_validation_start = on_predict_start = on_test_start

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop watching."""
        self._watch.close()

    on_validation_end = on_predict_end = on_test_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching."""
        self._watch.close()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Collect the logits and distances of a batch."""
        features = [part.cpu().numpy() for part in self._inputs]
        self._inputs.clear()
        distances = [] if self.novelty is None else [*map(self.novelty.distances, features)]
        logits, labels = outputs.detach().float().cpu(), batch["label"].cpu()
        names, groups = [*batch["path"]], [*batch["group"]]
        # All or nothing: after an error above, what was collected before is kept, and must be of the same photographs.
        if self.novelty is not None:
            self._distances += distances
        elif self.keep_features:
            self._features += features
        self._logits.append(logits)
        self._labels.append(labels)
        self._names += names
        self._groups += groups

    on_validation_batch_end = on_predict_batch_end = on_test_batch_end

    def state(self) -> dict[str, Any]:
        """Return what has been collected so far, as tensors and lists of text, for `restore`."""
        parts = {"logits": self._logits, "labels": self._labels}
        arrays: dict[str, Sequence[NDArray[Any]]] = {"features": self._features, "distances": self._distances}
        return {
            **{name: torch.cat(batches) for name, batches in parts.items() if batches},
            **{name: torch.from_numpy(np.concatenate(batches)) for name, batches in arrays.items() if batches},
            "names": self._names,
            "groups": self._groups,
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> int:
        """Restore what an interrupted evaluation has collected, and its seconds; return for how many photographs.

        Raises:
            KeyError, TypeError, ValueError: The state is damaged; nothing was restored.
        """
        lengths = {len(part) for name, part in state.items() if name != "seconds"}
        if len(lengths) != 1 or not {"names", "groups", "logits", "labels"} <= state.keys():
            raise ValueError("its parts are not of the same photographs")
        if not all(isinstance(state[name], Tensor) for name in state.keys() - {"names", "groups", "seconds"}):
            raise TypeError("its arrays are no tensors")
        self.seconds = float(state["seconds"])
        self._names, self._groups = list(state["names"]), list(state["groups"])
        self._logits, self._labels = [state["logits"]], [state["labels"]]
        self._features = [state["features"].numpy()] if "features" in state else []
        self._distances = [state["distances"].numpy()] if "distances" in state else []
        return len(self._names)

    def complete(self, header: Header, novelty: AnyNovelty | None) -> None:
        """Judge the photographs by the bands and the distribution that were made from them."""
        self.header, self.novelty = header, novelty
        if novelty is not None and self._features:
            self._distances, self._features = [novelty.distances(self.features)], []

    def judge(self, bursts: Mapping[str, str]) -> list[Prediction]:
        """Return the predictions of all photographs; set labels and probabilities.

        `bursts` has the burst of each by name, empty outside one.

        Raises:
            RunError: Logits are missing.
            CheckpointError: A logit is not finite.
        """
        if (expected := len(bursts)) != len(self._names):
            message = f"Only {len(self._names)} of {expected} photographs were evaluated. Do not set "
            message += "trainer.limit_…_batches or trainer.fast_dev_run: an evaluation must contain the whole split."
            raise RunError(message, "evaluation-incomplete", found=len(self._names), expected=expected)
        header, logits = self.header, torch.cat(self._logits)
        if not_finite := int((~logits.isfinite()).sum()):
            message = f"For {not_finite} of {len(logits)} photographs this classifier's logit is not a finite number: "
            message += "it has diverged in training. Train again with a smaller --model.lr."
            raise CheckpointError(message, "model-diverged", found=not_finite, expected=0)
        probabilities = header.operating_point.probabilities(logits.numpy())
        labels = torch.cat(self._labels).numpy()
        class_of = {0: header.negative_class, 1: header.positive_class, UNLABELLED: ""}
        truths = [class_of[int(label)] for label in labels]
        predicted = [header.label_of(probability) for probability in probabilities]
        in_burst = [bursts[name] for name in self._names]
        distances = np.concatenate(self._distances).tolist() if self._distances else [None] * len(labels)
        bands = [(header.bands and header.bands.band(probability)) or "" for probability in probabilities]
        columns = (self._names, self._groups, truths, predicted, probabilities.tolist(), in_burst, distances, bands)
        self.labels, self.probabilities = labels, probabilities
        return [Prediction(*row) for row in zip(*columns, strict=True)]

    def write(self, bursts: Mapping[str, str], same: Mapping[str, str] | None = None) -> None:
        """Write the predictions of all photographs, and compute their metrics.

        Arguments and errors are those of `judge`; `same` are more columns, equal in all rows. Nothing is written in
        case of an error.
        """
        rows, header, novelty = self.judge(bursts), self.header, self.novelty
        self.folder.mkdir(parents=True, exist_ok=True)
        write_predictions(self.folder / "predictions.csv", rows, same)
        if np.all(self.labels != UNLABELLED):
            found = evaluate(self.labels, self.probabilities, header.operating_point, [row.unit for row in rows])
            self.metrics = replace(
                found,
                bands=asdict(header.bands) if header.bands else {},
                novelty={key: getattr(novelty, key) for key in ("rate", "n_train", "n_val")} if novelty else {},
            )
        self.rows = rows


def record_environment(
    seed: int,
    conditions: Mapping[str, Any],
    dataset_digests: Mapping[str, str],
    parameters: int | None = None,
    stated: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the content of environment.json: what is needed for reporting a run and for repeating it.

    It names the `record_conditions`, the dataset digest of each split, the number of the network's parameters (weights
    and biases), and the settings that are not defaults because they were stated.
    """
    return {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        **conditions,
        "seed": seed,
        "parameters": parameters,
        # A requeued job finds its run by this.
        "slurm_job": job.key if (job := SlurmJob.current()) else None,
        "dataset_fingerprint": dict(dataset_digests),
        "stated": None if stated is None else list(stated),
    }


def record_conditions(
    device: torch.device, precision: str | None = None, processes: int = 1, nodes: int = 1
) -> dict[str, Any]:
    """Return software and hardware of this start of a run, on which the last bits of its results depend."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": software_versions(),
        "git_commit": git_commit(),
        "code": code_digest(),
        "host": socket.gethostname(),
        "device": str(device),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": torch.backends.cudnn.version() if gpu else None,  # type: ignore[no-untyped-call]
        "cpu": f"{cpu_model()} ({torch.backends.cpu.get_cpu_capability()})",
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "precision": precision,
        "processes": processes,
        "nodes": nodes,
    }


def code_digest() -> str:
    """Return 16 digits of a SHA-256 over the files of this package: edits that are not committed have no other name."""
    package, digest = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def git_commit() -> str | None:
    """Return the commit of the checkout that contains this code, with `+changes` if edited; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        # The check prevents an installed package from reporting the commit of a repository that contains its venv.
        tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        show = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
        return (
            subprocess.run(show, capture_output=True, check=True, timeout=10, encoding="utf-8").stdout.strip() or None
        )
    except (OSError, subprocess.SubprocessError):
        return None
