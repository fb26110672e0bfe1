"""The start of a run: weights, photographs, run folder, loggers, checkpoints, in the order in which they can fail."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.messages import device_name, report_data, say_warning
from bldml.app.options import mode_of
from bldml.app.photographs import (
    check_results_folder,
    check_splits,
    excluded_table,
    leaks_table,
    photographs_table,
    write_phashes,
)
from bldml.app.resume import (
    RUN_VARIABLE,
    ResumePlan,
    check_processes,
    read_same_photographs,
    record_resume,
    recorded,
    run_name,
    runs_directory,
    set_damaged_aside,
)
from bldml.app.screen.epochs import EpochLines
from bldml.app.screen.tensorboard import Curves, TrainingImages, begin_last
from bldml.dataset.duplicates.leaks import Leak
from bldml.dataset.files import show_path
from bldml.dataset.manifest import to_manifest
from bldml.errors import ConfigError, RunError
from bldml.io.atomic import check_name
from bldml.report.claims import shortfall
from bldml.report.run_claims import changed_since_start
from bldml.run.digests.record import changed_of_start, environment_text
from bldml.run.folder import RunFolder
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData
from bldml.training.finetuning import check_depth
from bldml.training.module import LeafClassifier
from bldml.training.networks.logistic import check_logistic
from bldml.training.recording import EpochTable, Stopwatch, record_conditions, record_environment
from bldml.training.resume.callback import Interruption
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import InterruptSignals
from bldml.training.resume.stretches import StretchLog


@dataclass
class Start:
    """Everything before the first step of a fit: weights, photographs, run folder, loggers and checkpoint callbacks.

    Without a plan the run is new. `hold` locks a run until the command ends. `stated` are the settings that were typed
    or are in a configuration file, by dotted key; the others are defaults. The folder is that of the run, once it
    exists; None for a `fast_dev_run`, which writes nothing.
    """

    trainer: Trainer
    model: LeafClassifier
    datamodule: LeafDataModule
    config: Namespace
    signals: InterruptSignals
    job: SlurmJob | None
    plan: ResumePlan | None
    hold: Callable[[RunFolder], None]
    stated: Sequence[str]
    folder: RunFolder | None = None

    def __post_init__(self) -> None:
        """Begin the record of this start."""
        progress = self.plan.progress if self.plan else None
        self.stretch = StretchLog(self.job, progress.step if progress else 0)
        if self.plan is not None and self.trainer.is_global_zero:
            self.stretch.write_to(self.plan.run)

    def run(self, config_text: str) -> None:
        """Prepare the fit, in the order in which steps can fail; the configuration as YAML is for the run folder.

        Raises:
            ConfigError, TrainingError, DatasetError, RunError, CheckpointError: The fit cannot start; nothing was
                written.
            Interrupted: A signal arrived.
        """
        self._check()
        plan, dry = self.plan, self.config.trainer.fast_dev_run
        logs = runs_directory(self.config)
        name = run_name(self.config, self.job)
        if not dry and self.config.trainer.logger is not False:
            _check_events(plan.run.path if plan else logs)
        data, leaks = self._read_new(logs, name) if plan is None else (self._resume(plan), None)
        self._describe(data)
        if dry:
            self.trainer.callbacks.append(Interruption(self.signals))  # type: ignore[attr-defined]
            return
        run = plan.run if plan else RunFolder(logs / name)
        if plan is None and self.trainer.is_global_zero:
            content = self._content(config_text, data, leaks)
            run = RunFolder.create(logs, name, content, unique=self.config.run_name is None)
            self.hold(run)
        self.folder = run
        if self.trainer.is_global_zero and plan is None:
            self.stretch.write_to(run)
        if self.trainer.is_global_zero and not run.phashes.is_file():
            write_phashes(run, data)
        data.contents.forget_phashes()
        # On every rank, because all must reach the same barriers; only the first rank writes.
        self._attach(run)
        # For the processes that Lightning starts; the session removes it.
        os.environ[RUN_VARIABLE] = str(run.path.absolute())
        rank_zero_info(f"Run folder: {run.path}")

    def _check(self) -> None:
        # With several processes, none may leave before all have started, because the others would wait for it forever.
        # They stop together before the first batch.
        if self.trainer.world_size == 1:
            self.signals.check()

    def _read_new(self, logs: Path, name: str) -> tuple[PreparedData, list[Leak] | None]:
        """Check a new run and read its photographs; also returns leaks, if they were searched."""
        check_name(name, "run")
        path = logs / name
        if self.trainer.is_global_zero and self.config.run_name and path.exists():
            message = f"The run {path} already exists. Set another --run_name, or resume it with --resume {path}."
            if self.job and (other := self.job.sibling(recorded(RunFolder(path)).get("slurm_job"))):
                message = (
                    f"The run {path} is that of task {other} of the same array. Set a --run_name that differs from "
                )
                message += f"task to task, such as --run_name {self.config.run_name}_$SLURM_ARRAY_TASK_ID."
            raise RunError(message, "run-exists", path=path)
        check_results_folder(self.config.trainer.default_root_dir, "--output", self.datamodule)
        check_depth(self.model, self.config.unfreezing)
        if self.model.kept is not None:
            check_logistic(self.trainer)
        self.model.load_pretrained()
        data = self.datamodule.read_for_fit(self._check)
        # One rank looks for leaks, unless a leak must stop all of them.
        everywhere = self.trainer.is_global_zero or self.datamodule.on_leak == "error"
        if self.config.trainer.fast_dev_run or not everywhere:
            return data, None
        leaks = check_splits(data, self.datamodule.on_leak)
        self._check()
        return data, leaks

    def _resume(self, plan: ResumePlan) -> PreparedData:
        set_damaged_aside(plan)
        check_processes(plan, self.trainer.world_size)
        self.folder = plan.run
        self.model.has_weights = plan.progress is not None
        if plan.progress is None:
            self.model.load_pretrained()
        data = read_same_photographs(plan, self.datamodule, self._check)
        for changed in changed_of_start(plan.run) if self.trainer.is_global_zero else ():
            say_warning(changed_since_start(changed))
        if self.trainer.is_global_zero and (found := record_resume(plan, self.job, self._conditions())):
            say_warning(
                f"This run is resumed under other conditions: {'; '.join(found)}. Resuming is exact only on the same "
                "versions and hardware, so the results may differ from those of an uninterrupted run."
            )
        where = f"epoch {plan.progress.epoch}, step {plan.progress.step}" if plan.progress else "its beginning"
        rank_zero_info(f"Resuming {plan.run.path} from {where}.")
        return data

    def _describe(self, data: PreparedData) -> None:
        """Print the model and its data, and pass the description for checkpoints to the model."""
        model = self.model
        model.balance(*data.class_counts())
        report_data(data, self.datamodule.fold)
        if assured := data.best_assurance(model.criterion):
            model.design_effect = assured.design_effect
            if text := shortfall(model.criterion, assured):
                say_warning(text)
        rank_zero_info(
            f"{model.backbone}: {_parameters(model):,} parameters, {model.image_size} px, weights: {model.weights}. "
            f"Device: {device_name(self.trainer.strategy.root_device)}."
        )
        about = self.datamodule.describe()
        about["settings"] |= {"precision": str(self.config.trainer.precision), "operating_point": vars(model.criterion)}
        model.describe(**about)

    def _content(self, config_text: str, data: PreparedData, leaks: list[Leak] | None) -> dict[str, str]:
        """Return the first files of a run folder, text by name."""
        parameters, conditions = _parameters(self.model), self._conditions()
        record = record_environment(self.model.seed, conditions, data.dataset_digests, parameters, self.stated)
        files = {
            "config.yaml": config_text,
            "splits.csv": to_manifest(data.collection),
            "photographs.csv": photographs_table(data),
        }
        if excluded := excluded_table(data):
            files["excluded.csv"] = excluded
        if leaks is not None:
            files["leaks.csv"] = leaks_table(leaks)
        return {**files, "environment.json": environment_text(record, files)}

    def _conditions(self) -> dict[str, Any]:
        """Return what this start runs on; device and precision are those in use, which `auto` does not tell."""
        trainer = self.trainer
        return record_conditions(
            trainer.strategy.root_device, str(trainer.precision), trainer.world_size, trainer.num_nodes
        )

    def _attach(self, run: RunFolder) -> None:
        """Add what writes into the run folder: TensorBoard's logger (if wanted), history.csv and checkpoints."""
        config, progress = self.config, self.plan.progress if self.plan else None
        # Steps that a killed process logged after its checkpoint are logged again; TensorBoard drops the first log.
        step = progress.next_log_step if progress else 0 if self.plan else None
        mode = mode_of(config.monitor)
        best = ModelCheckpoint(run.checkpoints, "best", monitor=config.monitor, mode=mode, enable_version_counter=False)
        lines = EpochLines(run, best, self.job)
        table = EpochTable(run.history, lines.show)
        curves = []
        if config.trainer.logger is not False:
            curves.append(Curves(run.path.absolute(), name="", version="", default_hp_metric=False, purge_step=step))
            begin_last(run, lambda: curves[0].experiment)
        if progress is not None:
            table.restore(progress.rows)
        self.trainer.loggers = [*self.trainer.loggers, *curves, table]
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                # Not beside ours, because its save_last would overwrite our last.ckpt.
                callback.dirpath = os.path.realpath(run.path / "more_checkpoints")
                say_warning(f"The configuration's own ModelCheckpoint writes to {run.path / 'more_checkpoints'}.")
        # Checkpoint callbacks come last, so that they save what the others decided in this epoch.
        callbacks += [
            TrainingImages(),
            lines,
            Stopwatch(run),
            best,
            Interruption(self.signals, run, table, best, config.checkpoint_minutes, self._own_stretch),
        ]

    @property
    def _own_stretch(self) -> StretchLog | None:
        return self.stretch if self.trainer.is_global_zero else None


def _parameters(model: LeafClassifier) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _check_events(folder: Path) -> None:
    """Raise a ConfigError if TensorBoard's logger, which replaces variables in paths, would write elsewhere."""
    path = str(folder.absolute())
    if (elsewhere := os.path.expandvars(path)) != path:
        message = f"TensorBoard's logger takes a part of {show_path(path)} for a variable and would write to "
        message += f"{show_path(elsewhere)}. Rename that folder, or set another one with --trainer.default_root_dir."
        raise ConfigError(message, "events-elsewhere", path=folder, found=elsewhere)
