"""The start of a run: weights, photographs, run folder, loggers, checkpoints, in the order in which they can fail."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.leaks import check_splits, leaks_table, write_phashes
from bldml.app.messages import device_name, report_data, say_warning
from bldml.app.options import mode_of
from bldml.app.photographs import TABLE, photographs_table
from bldml.app.resume import (
    RUN_VARIABLE,
    ResumePlan,
    default_run_name,
    read_same_photographs,
    record_resume,
    runs_directory,
    set_damaged_aside,
)
from bldml.dataset.duplicates.leaks import Leak
from bldml.dataset.files import escape_path
from bldml.dataset.manifest import to_manifest
from bldml.errors import RunError
from bldml.io.atomic import check_name, write_atomically
from bldml.run.folder import RunFolder
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData
from bldml.training.finetuning import check_depth
from bldml.training.module import LeafClassifier
from bldml.training.recording import Curves, EpochTable, Stopwatch, record_environment
from bldml.training.resume.callback import Interruption
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import InterruptSignals
from bldml.training.resume.state import Progress


class Start:
    """Everything before the first step of a fit, and what is held until its last step.

    Args:
        trainer: The trainer, without loggers and checkpoint callbacks.
        model: The classifier; its pretrained weights are loaded here.
        datamodule: The data module; its photographs are found and decoded here.
        config: The configuration of the fit.
        signals: Flags of the signals that interrupt a fit.
        job: The Slurm job of this process.
        plan: The run to resume; None for a new run.
        hold: Locks a run until the command ends.

    Attributes:
        folder: The run folder, after it was created; None for a `fast_dev_run`, which writes nothing.
        data: The photographs, after they were read.
        progress: Progress of the run to resume; None if it starts from its beginning.
    """

    def __init__(
        self, trainer: Trainer, model: LeafClassifier, datamodule: LeafDataModule, config: Namespace,
        signals: InterruptSignals, job: SlurmJob | None, plan: ResumePlan | None, hold: Callable[[RunFolder], None],
    ) -> None:  # fmt: skip
        self.trainer, self.model, self.datamodule, self.config = trainer, model, datamodule, config
        self.signals, self.job, self.plan, self.hold = signals, job, plan, hold
        # With several processes, none may leave before all have started, because the others would wait for it forever.
        # They stop together before the first batch.
        self.check = signals.check if trainer.world_size == 1 else lambda: None
        self.folder: RunFolder | None = None
        self.progress: Progress | None = plan.progress if plan else None
        self.data: PreparedData
        self.leaks: list[Leak] | None = None

    def run(self, config_text: str) -> None:
        """Prepare the fit, in the order in which steps can fail.

        Args:
            config_text: The configuration as YAML, for the run folder.

        Raises:
            ConfigError, TrainingError, DatasetError, RunError, CheckpointError: The fit cannot start; nothing was
                written.
            Interrupted: A signal arrived.
        """
        self.check()
        logs = runs_directory(self.config)
        name = self.config.run_name or default_run_name(self.config, self.job)
        if self.plan is not None:
            self._resume(self.plan)
        else:
            check_name(name, "run")
            if self.trainer.is_global_zero and self.config.run_name and (logs / name).exists():
                raise RunError(
                    f"The run {logs / name} already exists. Set another --run_name, or resume it with --resume "
                    f"{logs / name}.",
                    "run-exists",
                    path=logs / name,
                )
            check_depth(self.model, self.config.unfreezing)
            self.model.load_pretrained()
            self.data = self.datamodule.read_for_fit(self.check)
            # One rank looks for leaks, unless a leak must stop all of them.
            everywhere = self.trainer.is_global_zero or self.datamodule.on_leak == "error"
            if everywhere and not self.config.trainer.fast_dev_run:
                self.leaks = check_splits(self.data, self.datamodule.on_leak)
                self.check()
        self._describe()
        if self.config.trainer.fast_dev_run:
            self.trainer.callbacks.append(Interruption(self.signals))  # type: ignore[attr-defined]
            return
        if self.plan is None:
            self.folder = RunFolder(logs / name)
            if self.trainer.is_global_zero:
                content = self._content(config_text)
                self.folder = RunFolder.create(logs, name, unique=self.config.run_name is None, content=content)
                self.hold(self.folder)
        assert self.folder is not None
        if self.trainer.is_global_zero and not self.folder.phashes.is_file():
            write_phashes(self.folder, self.data)
        self.data.contents.forget_phashes()
        # Steps that a killed process logged after its checkpoint are logged again; TensorBoard drops the first log.
        step = self.progress.next_log_step if self.progress else 0 if self.plan else None
        # On every rank, because all must reach the same barriers; only the first rank writes.
        attach(self.trainer, self.folder, self.config, self.signals, self.progress, step)
        # For the processes that Lightning starts; the session removes it.
        os.environ[RUN_VARIABLE] = str(self.folder.path.absolute())
        rank_zero_info(f"Run folder: {self.folder.path}")

    def _resume(self, plan: ResumePlan) -> None:
        set_damaged_aside(plan)
        plan.check_processes(self.trainer.world_size)
        self.folder = plan.run
        self.model.has_weights = plan.progress is not None
        if plan.progress is None:
            self.model.load_pretrained()
        self.data = read_same_photographs(plan, self.datamodule, self.check)
        if self.trainer.is_global_zero:
            record_resume(plan, self.job)
        where = f"epoch {plan.progress.epoch}, step {plan.progress.step}" if plan.progress else "its beginning"
        rank_zero_info(f"Resuming {plan.run.path} from {where}.")

    def _describe(self) -> None:
        """Print the model and its data, and pass the description for checkpoints to the model."""
        model = self.model
        model.balance(*self.data.class_counts())
        report_data(self.data, self.datamodule.fold)
        rank_zero_info(
            f"{model.backbone}: {sum(p.numel() for p in model.network.parameters()):,} parameters, "
            f"{model.image_size} px, weights: {model.weights}. Device: "
            f"{device_name(self.trainer.strategy.root_device)}."
        )
        about = self.datamodule.describe()
        about["settings"] |= {"precision": str(self.config.trainer.precision), "operating_point": vars(model.criterion)}
        model.describe(**about)

    def _content(self, config_text: str) -> dict[str, str]:
        """Return the first files of a run folder, text by name."""
        parameters = sum(p.numel() for p in self.model.network.parameters())
        record = record_environment(
            self.model.seed, self.trainer.strategy.root_device, self.data.dataset_digests, parameters
        )
        files = {
            "config.yaml": config_text,
            "splits.csv": to_manifest(self.data.collection),
            TABLE: photographs_table(self.data),
            "environment.json": json.dumps(record, indent=2) + "\n",
        }
        if excluded := excluded_table(self.data):
            files["excluded.csv"] = excluded
        if self.leaks is not None:
            files["leaks.csv"] = leaks_table(self.leaks)
        return files


def attach(
    trainer: Trainer,
    run: RunFolder,
    config: Namespace,
    signals: InterruptSignals,
    progress: Progress | None,
    purge_step: int | None,
) -> None:
    """Add what writes into the run folder: TensorBoard's logger (if wanted), history.csv and checkpoints."""
    table = EpochTable(run.history, echo=trainer.progress_bar_callback is None)
    curves = []
    if config.trainer.logger is not False:
        curves.append(Curves(run.path.absolute(), name="", version="", default_hp_metric=False, purge_step=purge_step))
    if progress is not None:
        table.restore(progress.rows)
    trainer.loggers = [*trainer.loggers, *curves, table]
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            # Not beside ours, because its save_last would overwrite our last.ckpt.
            callback.dirpath = os.path.realpath(run.path / "more_checkpoints")
            say_warning(f"The configuration's own ModelCheckpoint writes to {run.path / 'more_checkpoints'}.")
    # Checkpoint callbacks come last, so that they save what the others decided in this epoch.
    best = ModelCheckpoint(
        run.checkpoints, "best", monitor=config.monitor, mode=mode_of(config.monitor), enable_version_counter=False
    )
    callbacks += [Stopwatch(run), best, Interruption(signals, run, table, best, config.checkpoint_minutes)]


def write_excluded(path: Path, data: PreparedData) -> None:
    """Write the photographs that could not be read, with reasons; removes the file if there are none."""
    text = excluded_table(data)
    if text:
        write_atomically(path, text)
    else:
        path.unlink(missing_ok=True)  # of an earlier evaluation


def excluded_table(data: PreparedData) -> str:
    """Return the photographs that could not be read, with reasons, as CSV; empty if there are none."""
    collection = data.collection
    heif = ((escape_path(p.relative_to(collection.root)), "HEIC: needs bldml[heif]") for p in collection.heif)
    rows: Iterable[tuple[str, str]] = [*data.excluded, *heif]
    text = io.StringIO()
    if rows:
        csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *rows])
    return text.getvalue()
