"""Evaluations: of the best checkpoint after a fit, and of any checkpoint on a split, a folder or a manifest.

Images and report are optional results. If they cannot be made, a warning is printed and nothing else fails.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from bldml.app.certainty import with_certainty
from bldml.app.evaluation_record import hold_results, provenance_of, record_evaluation
from bldml.app.explain.pictures import draw_images, has_pictures
from bldml.app.messages import (
    describe_failure,
    format_metrics,
    report_data,
    report_excluded,
    say_warning,
)
from bldml.app.photographs import (
    check_external,
    check_results_folder,
    check_unseen,
    compare_with_training,
    write_set_tables,
)
from bldml.app.screen.tensorboard import log_results
from bldml.app.trainer import run_pass, single_trainer
from bldml.dataset.cache.writer import shown_size
from bldml.dataset.files import shell_word, show_path
from bldml.dataset.samples import SPLITS
from bldml.errors import ConfigError, RunError
from bldml.inference.classifier import load_weights
from bldml.io.documents import mapping_or_nothing
from bldml.io.screen import say
from bldml.report.certainty import banding, familiarity, unfamiliar
from bldml.report.claims import caution_with_rest, minimum, repetition, without_leaf
from bldml.report.run_claims import changed_files
from bldml.run.baselines import baselines_of
from bldml.run.evidence import evidence_of, evidence_of_run
from bldml.run.folder import RunFolder, leave_last_checkpoint
from bldml.run.predictions import read_metrics
from bldml.run.provenance import ROLES, Provenance
from bldml.run.reader import read_run
from bldml.training.checkpoint import DATA_SETTINGS, Checkpoint, Header, read_checkpoint
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.module import LeafClassifier
from bldml.training.recording import PredictionRecorder
from bldml.training.resume.callback import interrupt_evaluation
from bldml.training.resume.signals import InterruptSignals
from bldml.training.resume.stretches import StretchLog
from bldml.training.resume.unfinished import UNUSABLE, UnfinishedEvaluation, pass_key


def evaluate_after_fit(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    run: RunFolder,
    splits: Sequence[str],
    signals: InterruptSignals,
    stretch: StretchLog,
    *,
    report: bool,
) -> None:
    """Evaluate the best checkpoint on one device like the fit's, and print the paths of the results.

    Empty splits are skipped. `report` says whether to make images and to write the report.

    Raises:
        RunError: There is no best checkpoint.
        Interrupted: A signal was received; finished evaluations stay.
    """
    if not run.best_checkpoint.is_file():
        message = f"No best checkpoint was written in {run.path}: no validation took place."
        raise RunError(message, "best-checkpoint-missing", path=run.path)
    device = trainer.strategy.root_device
    with UnfinishedEvaluation(run.path, run.best_checkpoint, {"splits": list(splits)}, device) as unfinished:
        if splits:
            _evaluate_splits(trainer, model, datamodule, run, splits, signals, stretch, unfinished, images=report)
        signals.end()
        say_cautions(run, [split for split in splits if split != "train"])
        if report:
            report_run(run)
        unfinished.end()
    stretch.end()
    report_excluded(datamodule.photographs, run.excluded)
    leave_last_checkpoint(run)
    _say_results(run, splits)


def _evaluate_splits(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    run: RunFolder,
    splits: Sequence[str],
    signals: InterruptSignals,
    stretch: StretchLog,
    unfinished: UnfinishedEvaluation,
    *,
    images: bool,
) -> None:
    """Evaluate the splits, behind what an interrupted start of this fit has done."""
    data, checkpoint = datamodule.photographs, read_checkpoint(run.best_checkpoint)
    load_weights(model, checkpoint)
    datamodule.decode = checkpoint.header.decode  # of a resumed run it may be of version 0.1
    filled = [split for split in splits if data.collection.splits.get(split)]
    folders = {split: run.evaluation(split) for split in filled}
    left = [split for split in filled if not unfinished.is_written(split, pass_key(data, split), folders[split])]
    # The training and the validation split are needed together, for the bands and the distribution.
    recorders = {one: _recorder(folders[one], checkpoint, keep_features=True) for one in filled[:2] if one in left}
    for split, recorder in recorders.items():
        stretch.enter(f"evaluation of {split}")
        run_pass(single_trainer(trainer, signals), model, datamodule, split, recorder, unfinished)
    checkpoint = with_certainty(checkpoint, recorders, data, run, model.criterion.band_error)
    unfinished.renew(checkpoint.path)
    for split in left:
        signals.check()
        recorder = recorders.get(split) or _recorder(folders[split], checkpoint)
        if split not in recorders:
            stretch.enter(f"evaluation of {split}")
            run_pass(single_trainer(trainer, signals), model, datamodule, split, recorder, unfinished)
        origin = provenance_of(datamodule, checkpoint, split, external=False)
        with hold_results(folders[split]):
            record_evaluation(recorder, datamodule, checkpoint, origin, unfinished)
        stretch.evaluated(split)
    log_results(trainer, run, checkpoint, [split for split in filled if split != "train"])
    if images:
        stretch.enter("images for the report")
        # Those of an earlier evaluation were removed when this one was written.
        shown = [split for split in filled if split != "train" and not has_pictures(folders[split])]
        evaluated = {folders[split]: data.with_digests(split) for split in shown}
        draw_images(model, checkpoint, evaluated, trainer.strategy.root_device, signals.check)


def _recorder(folder: Path, checkpoint: Checkpoint, *, keep_features: bool = False) -> PredictionRecorder:
    return PredictionRecorder(folder, checkpoint.header, checkpoint.novelty, keep_features=keep_features)


def _say_results(run: RunFolder, splits: Sequence[str]) -> None:
    """Print where the results of a fit are, how large they are, and what to run next."""
    size = shown_size(sum(file.lstat().st_size for file in run.path.rglob("*") if file.is_file()))
    say(f"\nResults: {show_path(run.path)} ({size})\nBest checkpoint: {show_path(run.best_checkpoint)}\n")
    own = "" if "test" in splits else f"  python -m bldml test {shell_word(run.path)}\n"
    say(
        f"Next:\n{own}"
        f"  python -m bldml test {shell_word(run.path)} OTHER_FOLDER\n"
        f"  python -m bldml predict {shell_word(run.path)} PHOTOGRAPHS\n"
        f"  tensorboard --logdir {shell_word(run.path)}\n"
    )


def evaluate_checkpoint(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    checkpoint: Checkpoint,
    split: str,
    *,
    external: bool,
    name: str | None,
    site: str,
    output: Path | None,
    report: bool,
    signals: InterruptSignals,
) -> None:
    """Evaluate a checkpoint on a split of its own photographs, on another labelled set, or on unlabelled photographs.

    The split is `val`, `test` or `predict`; `external` says whether the photographs are others than those of the run's
    data set. The name is by default that of the split or folder, the output the run folder's `evaluations/<name>`. The
    site is where the photographs come from, empty if it is not stated.
    `report` says whether to make images and to write the report of the checkpoint's run.

    Raises:
        ConfigError, CheckpointError, DatasetError, RunError: The evaluation is not possible; nothing was written.
        Interrupted: A signal was received; the same command goes on behind what is done.
    """
    header = checkpoint.header
    if name in SPLITS and (external or split == "predict"):
        message = f"{name} is the name of a split of the run. Set another --name."
        raise ConfigError(message, "evaluation-name-reserved", found=name)
    run = RunFolder.of_checkpoint(checkpoint.path)
    home = run or RunFolder(checkpoint.path.absolute().parent)
    folder = output or home.evaluation(name or _default_name(datamodule, split, external=external))
    check_results_folder(output, "--output", datamodule)
    _check_same(folder, split, datamodule)
    load_weights(model, checkpoint)
    datamodule.decode = header.decode
    data = datamodule.read_for_evaluation(split, header.class_names, signals.check, whole=external)
    report_data(data, datamodule.fold)
    origin = _with_site(_checked_origin(datamodule, checkpoint, split, external=external), site)
    settings = {"split": split, "site": site, "external": external}
    trainer.callbacks.append(interrupt_evaluation(signals))  # type: ignore[attr-defined]  # set by a connector
    with UnfinishedEvaluation(folder, checkpoint.path, settings, trainer.strategy.root_device) as unfinished:
        run_evaluation(trainer, model, datamodule, checkpoint, origin, folder, unfinished, is_external=external)
        signals.check()
        if external and split == "test":
            compare_with_training(data, run)
        if run and split != "predict" and folder.resolve().parent == (run.path / "evaluations").resolve():
            say_cautions(run, [folder.name])
        report_excluded(data, folder / "excluded.csv")
        if report and split != "predict":
            evaluated = {} if has_pictures(folder) else {folder: data.with_digests(split)}
            draw_images(model, checkpoint, evaluated, trainer.strategy.root_device, signals.check)
        signals.end()
        if run and report and split != "predict":
            report_run(run)
        unfinished.end()
    say(f"Results: {show_path(folder)}\n")


def _checked_origin(datamodule: LeafDataModule, checkpoint: Checkpoint, split: str, *, external: bool) -> Provenance:
    """Return the provenance of photographs that were read, which a test may not share with training."""
    data, run = datamodule.photographs, RunFolder.of_checkpoint(checkpoint.path)
    origin = provenance_of(datamodule, checkpoint, split, external=external)
    if split == "test":
        check_unseen(data, checkpoint)
        near = check_external(data, run, datamodule.on_leak) if external else None
        origin = replace(origin, near_training_photographs=near)
    known = checkpoint.header.fingerprints.get(split)
    if not external and known and data.dataset_digests[split] != known:
        how = "photographs were added, removed, changed or relabelled"
        say_warning(f"The photographs of the {split} split differ from those of the training run: {how}.")
    return origin


def run_evaluation(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    checkpoint: Checkpoint,
    origin: Provenance,
    folder: Path,
    unfinished: UnfinishedEvaluation,
    *,
    is_external: bool,
) -> None:
    """Run the model on a split, or on `predict`; write predictions, metrics and provenance.json; print the metrics.

    `origin` is the provenance as far as it is known before. What an earlier start has done is not done again.
    """
    split = origin.split
    if unfinished.is_written(split, pass_key(datamodule.photographs, split), folder):
        if split != "predict":
            say(format_metrics(split, read_metrics(folder), checkpoint.header))
        return
    made, recorder = _make(folder), _recorder(folder, checkpoint)
    try:
        run_pass(trainer, model, datamodule, split, recorder, unfinished)
        with hold_results(folder):
            try:  # again: another process may have written there in the meantime
                _check_same(folder, split, datamodule)
            except RunError:
                unfinished.end()
                raise
            write_set_tables(folder, datamodule.photographs, is_external=is_external and split == "test")
            record_evaluation(recorder, datamodule, checkpoint, origin, unfinished)
    except UNUSABLE:
        unfinished.end()
        raise
    finally:
        if made:
            with suppress(OSError):  # removes only empty folders
                folder.rmdir()
                folder.parent.rmdir()


def _with_site(origin: Provenance, site: str) -> Provenance:
    """Return the provenance with the stated site; ConfigError if the photographs are the run's own."""
    if site and origin.role in ROLES.values():
        message = f"These photographs are those of the {origin.role} split of the run, whose site is stated in its card"
        message += f" (card.site). Leave --site {site} out."
        raise ConfigError(message, "site-of-own-split", found=site)
    return replace(origin, site=site)


def say_cautions(run: RunFolder, names: Sequence[str]) -> None:
    """Print what makes, or may make, the metrics of these evaluations optimistic, and what the leaf adds."""
    try:
        data = read_run(run)
        for text in changed_files(evidence_of_run(data)):
            say_warning(text)
    except RunError:  # another evaluation of the run is damaged, which its report names
        return
    for evaluation in data.evaluations:
        if evaluation.name not in names:
            continue
        evidence = evidence_of(data, evaluation)
        texts = [minimum(evidence)]
        if evaluation.role == "validation":
            texts.append(banding(evidence))
        else:
            found = baselines_of(data, evaluation)
            texts += [
                caution_with_rest(data, evaluation),
                repetition(evidence),
                without_leaf(found) if found else "",
                unfamiliar(evidence) and familiarity(evidence),
            ]
        for text in filter(None, texts):
            say(f"\n{evaluation.name}: {text}\n")


def report_run(run: RunFolder) -> None:
    """Write the report of a run; errors become warnings."""
    try:
        # Here because only the report needs Matplotlib and Jinja2.
        from bldml.report.page import write_report

        say(f"Report: {show_path(write_report(run))}\n")
    except Exception as error:
        command = f"python -m bldml report {shell_word(run.path)}"
        say_warning(f"The report could not be written: {describe_failure(error)}\nTo try again: {command}")


def _default_name(datamodule: LeafDataModule, split: str, *, external: bool) -> str:
    if split != "predict" and not external:
        return split
    source = datamodule.manifest or datamodule.root
    if source is None:
        return "photographs"
    source = source.absolute()
    name = (source.name if source.is_dir() else source.stem).lstrip(".-") or "photographs"
    return f"external_{name}" if name in SPLITS else name


def _check_same(folder: Path, split: str, datamodule: LeafDataModule) -> None:
    """Refuse to overwrite the evaluation of other photographs, or a labelled evaluation by predictions."""
    if split == "predict" and (folder / "metrics.json").exists():
        message = f"{folder} contains an evaluation with labels. Set another --name for these predictions."
        raise RunError(message, "evaluation-has-labels", path=folder)
    before = mapping_or_nothing(folder / "provenance.json")
    if not before:
        return
    now = {"split": split, "root": datamodule.root, "manifest": datamodule.manifest}
    for key, value in now.items():
        found = before.get(key)
        if key != "split" and value is not None and found is not None:
            value, found = Path(value).resolve(), Path(found).resolve()
        if value is not None and found != value:
            message = f"{folder} contains the evaluation of another {key}: {found}. Set another --name."
            raise RunError(message, "evaluation-of-other-photographs", path=folder, key=key, found=found)


def _make(folder: Path) -> bool:
    made = not folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"Cannot create the folder {folder}: {error.strerror}. Set another one with --output."
        raise RunError(message, "output-not-makable", path=folder, reason=error.strerror) from error
    return made


def take_from_checkpoint(typed: Namespace, header: Header) -> tuple[dict[str, Any], bool]:
    """Return the defaults that a checkpoint gives to a verb's configuration, by dotted key.

    Also returns whether the photographs are others than those that the run was divided from.

    Raises:
        ConfigError: The positive class typed is not the checkpoint's.
    """
    settings = header.settings
    if typed.data.positive_class not in (None, header.positive_class):
        found, expected = typed.data.positive_class, header.positive_class
        message = f"The positive class of this checkpoint is {expected}, not {found}."
        message += " Leave --data.positive_class out, or map class names with --data.class_aliases."
        raise ConfigError(message, "positive-class-differs", found=found, expected=expected)
    defaults: dict[str, Any] = {
        f"data.{key}": settings["data"][key] for key in DATA_SETTINGS if key in settings["data"]
    }
    defaults["data.positive_class"] = header.positive_class
    given = {key: typed.data[key] for key in ("root", "manifest")}
    own = {key: Path(value) if (value := settings["data"].get(key)) else None for key in given}
    external = any(value is not None and _real(value) != _real(own[key]) for key, value in given.items())
    if external:
        defaults.pop("data.fold", None)  # a column of the run's own manifest
    for key, value in (given if external else own).items():
        defaults[f"data.{key}"] = value
    return defaults, external


def check_division(data: Namespace, header: Header) -> None:
    """Raise ConfigError for other splits of the checkpoint's own photographs: it would test on what was trained on."""
    for key in ("val_fraction", "test_fraction", "fold"):
        own = header.settings["data"].get(key, data[key])
        if data[key] != own:
            shown = "null" if own is None else own
            message = f"This checkpoint's splits were made with data.{key} {shown}, not {data[key]}. Leave it out."
            raise ConfigError(message, "splits-differ", key=key, found=data[key], expected=own)


def _real(path: Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser().resolve()
