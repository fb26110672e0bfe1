"""The start of a run: weights, photographs, run folder, loggers, checkpoints, in the order in which they can fail."""

import csv
import io
import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.parser import DATA_SETTINGS, mode_of
from bldml.dataset.files import escape_path, show_path
from bldml.dataset.manifest import to_manifest
from bldml.results.run import RunError, RunFolder, check_name, write_atomically
from bldml.training.datamodule import LeafDataModule
from bldml.training.module import LeafClassifier
from bldml.training.recording import Curves, EpochTable, environment, software_versions

LOGS = "lightning_logs"
DIGITS = 16  # of a SHA-256 in hexadecimal: 64 bits tell 100,000 photographs apart
FEW = 10


def start_run(
    trainer: Trainer, model: LeafClassifier, datamodule: LeafDataModule, config: Namespace, config_text: str
) -> RunFolder | None:
    """Do everything that comes before the first step of a fit.

    Args:
        trainer: Without loggers and checkpoint callbacks of its own.
        model: The classifier; gets its pretrained weights here.
        datamodule: The photographs; found and decoded here.
        config: The fit's configuration.
        config_text: The same as YAML, for the run folder.

    Returns:
        The run folder, or None for a `fast_dev_run`, which writes nothing.

    Raises:
        TrainingError, DatasetError, RunError: What the user asked for cannot be; nothing was written.
    """
    logs = Path(trainer.default_root_dir) / LOGS
    name = config.run_name or default_run_name(model.backbone)
    check_name(name, "run")
    if trainer.is_global_zero and config.run_name and (logs / name).exists():
        raise RunError(f"The run {logs / name} exists already. Give another name with --run_name.")
    model.unfreeze(config.unfreezing.stages).unfreeze(0)  # more stages than there are is said now
    model.load_pretrained()
    datamodule.read_for_fit()
    model.balance(*datamodule.class_counts())
    report_data(datamodule)
    rank_zero_info(
        f"{model.backbone}: {sum(p.numel() for p in model.network.parameters()):,} parameters, "
        f"{model.image_size} px, weights: {model.weights}. Device: {device_name(trainer.strategy.root_device)}."
    )
    assert datamodule.positive_class is not None
    model.describe(
        class_names=datamodule.class_names,
        positive_class=datamodule.positive_class,
        fingerprints=datamodule.fingerprints,
        seen=seen_digests(datamodule),
        versions=software_versions(),
        settings={"data": data_settings(datamodule), "precision": str(config.trainer.precision)},
    )
    if config.trainer.fast_dev_run:
        return None
    run = RunFolder(logs / name)
    if trainer.is_global_zero:
        run = RunFolder.create(logs, name, unique=config.run_name is None)
        assert datamodule.collection is not None
        write_atomically(run.config, config_text)
        write_atomically(run.splits, to_manifest(datamodule.collection))
        record = environment(model.seed, trainer.strategy.root_device, datamodule.fingerprints)
        write_atomically(run.environment, json.dumps(record, indent=2) + "\n")
        write_excluded(run.excluded, datamodule)
    # On every rank, which must all come to the same barriers; only the first one writes.
    attach(trainer, run, config.monitor, curves=config.trainer.logger is not False)
    rank_zero_info(f"Run folder: {run.path}")
    return run


def attach(trainer: Trainer, run: RunFolder, monitor: str, *, curves: bool) -> None:
    """Give the trainer what writes into the run folder: TensorBoard's curves if wanted, metrics.csv, checkpoints."""
    trainer.loggers = [
        *trainer.loggers,
        *([Curves(run.path, name="", version="", default_hp_metric=False)] if curves else []),
        EpochTable(run.metrics, echo=trainer.progress_bar_callback is None),
    ]
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        warn("The configuration has a ModelCheckpoint of its own; best.ckpt and last.ckpt are written as well.")
    # Checkpoint callbacks come last: they save what the others have decided in this epoch.
    callbacks += [
        ModelCheckpoint(
            run.checkpoints, "best", monitor=monitor, mode=mode_of(monitor), enable_version_counter=False
        ),
        # Lightning's save_last writes only when the monitored metric improves, so a second callback does it.
        ModelCheckpoint(
            run.checkpoints, "last", save_top_k=1, monitor=None, enable_version_counter=False,
            save_on_train_epoch_end=True,
        ),
    ]  # fmt: skip


def device_name(device: torch.device) -> str:
    """A device as a person would call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def default_run_name(backbone: str) -> str:
    """Backbone and Slurm job, or backbone and time."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return f"{backbone}_{datetime.now():%Y%m%d-%H%M%S}"
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{backbone}_{array}-{task}" if array and task else f"{backbone}_{job}"


def data_settings(datamodule: LeafDataModule) -> dict[str, object]:
    """The data settings as plain values with absolute paths, for the checkpoint."""
    settings: dict[str, object] = {key: getattr(datamodule, key) for key in DATA_SETTINGS}
    for key in ("root", "manifest"):
        path = getattr(datamodule, key)
        settings[key] = None if path is None else str(Path(path).absolute())
    return settings


def warn(message: str) -> None:
    """Say something that the user should look at, without the file and line that Python's warnings print."""
    rank_zero_info(f"Warning: {message}")


def seen_digests(datamodule: LeafDataModule) -> str:
    """The photographs that training and validation have seen, by the beginnings of their SHA-256, in one string."""
    assert datamodule.collection is not None
    samples = [s for split in ("train", "val") for s in datamodule.collection.splits[split]]
    return "".join(sorted(datamodule.digests[s.name][:DIGITS] for s in samples))


def report_data(datamodule: LeafDataModule) -> None:
    """Say what photographs there are and what was left out."""
    collection = datamodule.collection
    assert collection is not None
    counts = "; ".join(
        f"{split} {sum(count.values())} ({', '.join(f'{n} {name}' for name, n in sorted(count.items()) if name)})"
        for split, count in collection.counts().items()
    ).replace(" ()", "")
    rank_zero_info(
        f"Photographs in {show_path(collection.root)}: {counts}. Positive class: {datamodule.positive_class}."
    )
    for split, count in collection.counts().items():
        few = [f"{number} {name}" for name, number in sorted(count.items()) if name and number < FEW]
        if few:
            warn(f"There are only {' and '.join(few)} in the {split} split: its figures will say little.")
    if collection.ignored:
        left_out = ", ".join(f"{count} × {reason}" for reason, count in sorted(collection.ignored.items()))
        rank_zero_info(f"Left out because they are no photographs of a class: {left_out}.")
    if collection.heif:
        names = ", ".join(show_path(path.relative_to(collection.root)) for path in collection.heif[:10])
        more = f" and {len(collection.heif) - 10} more" if len(collection.heif) > 10 else ""
        warn(
            f"{len(collection.heif)} HEIC photographs are not read: {names}{more}. Install bldml[heif], or export them "
            "as JPEG."
        )


def write_excluded(path: Path, datamodule: LeafDataModule) -> None:
    """List the photographs that could not be read, with the reason; no file where there are none."""
    collection = datamodule.collection
    assert collection is not None
    heif = ((escape_path(p.relative_to(collection.root)), "HEIC: needs bldml[heif]") for p in collection.heif)
    rows: Iterable[tuple[str, str]] = [*datamodule.excluded, *heif]
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier evaluation
    else:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *rows])
        write_atomically(path, text.getvalue())


def report_excluded(datamodule: LeafDataModule, path: Path) -> None:
    """Say at the end how many photographs were left out."""
    if datamodule.excluded:
        warn(f"{len(datamodule.excluded)} photographs could not be read and were left out: see {path}.")
