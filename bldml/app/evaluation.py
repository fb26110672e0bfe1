"""Evaluations: of the best checkpoint after a fit, and of any checkpoint on a split, a folder or a manifest."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from bldml.app.start import report_data, report_excluded, warn, write_excluded
from bldml.dataset.files import show_path
from bldml.results.run import RunError, RunFolder, check_name, write_atomically
from bldml.training.checkpoint import Checkpoint, CheckpointError, Header, read_checkpoint
from bldml.training.datamodule import LeafDataModule
from bldml.training.module import LeafClassifier
from bldml.training.recording import PredictionRecorder, software_versions

OWN_NAMES = ("train", "val", "test")
SHOWN = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1")


def evaluate_after_fit(
    trainer: Trainer, model: LeafClassifier, datamodule: LeafDataModule, run: RunFolder, splits: Sequence[str]
) -> None:
    """Evaluate the best checkpoint on one device and say where everything is.

    Args:
        trainer: The one that trained; its kind of device and precision are used.
        model: Takes the best checkpoint's weights.
        datamodule: With the photographs of the fit.
        run: The run folder.
        splits: Which splits to evaluate, where there are photographs in them.
    """
    if splits and not run.best_checkpoint.is_file():
        warn("No best checkpoint was written (was the monitored metric never finite?): nothing is evaluated.")
    elif splits:
        checkpoint = read_checkpoint(run.best_checkpoint)
        load_weights(model, checkpoint)
        assert datamodule.collection is not None
        for split in splits:
            if datamodule.collection.splits.get(split):
                single = Trainer(
                    accelerator=trainer.strategy.root_device.type,
                    devices=1,
                    precision=trainer.precision,
                    logger=False,
                    enable_checkpointing=False,
                    enable_model_summary=False,
                    enable_progress_bar=trainer.progress_bar_callback is not None,
                    default_root_dir=trainer.default_root_dir,
                )
                run_evaluation(single, model, datamodule, checkpoint, split, run.evaluation(split))
    report_excluded(datamodule, run.excluded)
    sys.stdout.write(f"\nResults: {show_path(run.path)}\nBest checkpoint: {show_path(run.best_checkpoint)}\n")


def evaluate_checkpoint(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    checkpoint: Checkpoint,
    split: str,
    *,
    external: bool,
    name: str | None,
    output: Path | None,
) -> None:
    """Evaluate a checkpoint on a split of its own photographs, on other labelled ones, or on unlabelled ones.

    Args:
        trainer: Without loggers.
        model: Takes the checkpoint's weights.
        datamodule: Where the photographs are.
        checkpoint: The classifier.
        split: `val`, `test` or `predict`.
        external: Whether the photographs are others than those that the run was divided from.
        name: Name of the evaluation; None for the split's or the folder's.
        output: Folder for the results; None for the run folder's `evaluations/<name>`.

    Raises:
        CheckpointError, DatasetError, RunError: What was asked for cannot be; nothing was written.
    """
    header = checkpoint.header
    folder = output or _place(checkpoint.path, name or _default_name(datamodule, split, external=external))
    if split == "predict" and (folder / "metrics.json").exists():
        raise RunError(f"{folder} holds an evaluation with labels. Give these predictions another --name.")
    load_weights(model, checkpoint)
    datamodule.read_for_evaluation(split, header.class_names, whole=external)
    report_data(datamodule)
    known = header.fingerprints.get(split)
    if not external and known and datamodule.fingerprints[split] != known:
        warn(
            f"The photographs of the {split} split are not those of the training run: some were added, removed, "
            "changed or relabelled since."
        )
    run_evaluation(trainer, model, datamodule, checkpoint, split, folder)
    write_excluded(folder / "excluded.csv", datamodule)
    report_excluded(datamodule, folder / "excluded.csv")
    sys.stdout.write(f"Results: {show_path(folder)}\n")


def run_evaluation(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    checkpoint: Checkpoint,
    split: str,
    folder: Path,
) -> None:
    """Run the model over a split; write predictions, metrics and their provenance; print the scores."""
    made = _make(folder)
    recorder = PredictionRecorder(folder, checkpoint.header)
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]  # set by a connector
    try:
        if split == "predict":
            trainer.predict(model, datamodule=datamodule, return_predictions=False)
        elif split == "val":
            trainer.validate(model, datamodule=datamodule, verbose=False)
        else:
            trainer.test(model, datamodule=datamodule, verbose=False)
        recorder.write()
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # only an empty one goes
    write_atomically(
        folder / "provenance.json", json.dumps(_provenance(datamodule, checkpoint, split), indent=2) + "\n"
    )
    if recorder.metrics is not None:
        sys.stdout.write(format_metrics(split, recorder.metrics, checkpoint.header))


def load_weights(model: LeafClassifier, checkpoint: Checkpoint) -> None:
    """Lay a checkpoint's weights on the model.

    Raises:
        CheckpointError: They are not those of the architecture that it names.
    """
    try:
        model.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {checkpoint.path} are not those of {checkpoint.header.backbone}: {error}"
        ) from error


def format_metrics(title: str, metrics: dict[str, Any], header: Header) -> str:
    """The scores as lines for a terminal."""

    def show(value: float | None) -> str:
        return "      –" if value is None else f"{value:7.4f}"

    chosen, half = metrics["at_threshold"], metrics["at_0.5"]
    lines = [
        f"\n{title}: {metrics['n']} photographs, {metrics['n_positive']} of them {header.positive_class}",
        f"  AUROC {show(metrics['auroc'])}   average precision {show(metrics['average_precision'])}   "
        f"loss {show(metrics['loss'])}",
        f"  {'':20} at {metrics['threshold']:.4f}  at 0.5",
        *(f"  {name.replace('_', ' '):20}   {show(chosen[name])} {show(half[name])}" for name in SHOWN),
        f"  errors: {chosen['fn']} missed, {chosen['fp']} false alarms (at 0.5: {half['fn']}, {half['fp']})",
    ]
    return "\n".join(lines) + "\n"


def _place(checkpoint: Path, name: str) -> Path:
    check_name(name, "evaluation")
    run = RunFolder.of_checkpoint(checkpoint)
    return (run or RunFolder(checkpoint.absolute().parent)).evaluation(name)


def _default_name(datamodule: LeafDataModule, split: str, *, external: bool) -> str:
    if split != "predict" and not external:
        return split
    source = datamodule.manifest or datamodule.root
    name = "photographs" if source is None else source.absolute().stem.lstrip(".-") or "photographs"
    return f"external_{name}" if name in OWN_NAMES else name


def _make(folder: Path) -> bool:
    if folder.is_dir():
        return False
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"The folder {folder} cannot be made: {error.strerror}. Give another with --output.") from error
    return True


def _provenance(datamodule: LeafDataModule, checkpoint: Checkpoint, split: str) -> dict[str, Any]:
    collection = datamodule.collection
    assert collection is not None
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "checkpoint": str(checkpoint.path.absolute()),
        "epoch": checkpoint.epoch,
        "split": split,
        "root": str(collection.root.absolute()),
        "manifest": None if datamodule.manifest is None else str(Path(datamodule.manifest).absolute()),
        "dataset_fingerprint": datamodule.fingerprints.get(split),
        "ignored": dict(collection.ignored),
        "excluded": len(datamodule.excluded),
        "versions": software_versions(),
    }
