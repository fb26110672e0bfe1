"""ResumePlan: which run a fit resumes, from which checkpoint, and whether it is still the same run."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.options import flat, load_configuration, values_of, without
from bldml.dataset.files import shell_word, show_path
from bldml.errors import CheckpointError, ConfigError, DatasetError, RunError
from bldml.io.atomic import check_name, write_atomically
from bldml.io.documents import LARGEST_CONFIGURATION, mapping_or_nothing, read_text
from bldml.io.grammar import given_path
from bldml.io.text import counted
from bldml.metrics.registry import canonical
from bldml.run.digests.record import environment_again
from bldml.run.files import read_table
from bldml.run.folder import RunFolder
from bldml.run.provenance import changes, conditions_of, read_stretches
from bldml.training.checkpoint import DamagedCheckpoint
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import is_first_process
from bldml.training.resume.state import Progress, read_progress

LOGS = "lightning_logs"
# By this variable the first process tells the other processes of a fit which run they train in.
RUN_VARIABLE = "BLDML_RUN"
# What may differ when a run is resumed, because no result depends on it.
FREE = (
    "run_name", "test_after_fit", "report", "checkpoint_minutes",
    # The paths of the photographs; their contents are compared.
    "data.root", "data.manifest", "data.num_workers",
    # These change neither the training data nor any number.
    "data.on_leak", "data.cache", "data.cache_dir", "model.feature_cache",
    "trainer.plugins", "trainer.enable_progress_bar", "trainer.default_root_dir",
)  # fmt: skip


@dataclass(frozen=True)
class ResumePlan:
    """Which run a fit resumes and from which checkpoint; made once, when the command line is parsed.

    Attributes:
        run: The run.
        seed: The seed in its environment.json; None if that file is missing or damaged.
        changed: Settings of this command that differ from the recorded ones, as they may.
        progress: Progress in the checkpoint to resume from, last.ckpt or previous.ckpt; None if there is no checkpoint
            yet and the run starts from its beginning.
        damage: What is wrong with a newer checkpoint that is skipped; None if there is none.
    """

    run: RunFolder
    seed: int | None
    changed: dict[str, Any]
    progress: Progress | None
    damage: str | None


def with_config_of_run(arguments: list[str]) -> list[str]:
    """Insert a run's own configuration before all others if `--resume` is set; RunError if there is no such run."""
    given = values_of(arguments, "--resume") if arguments[:1] == ["fit"] else []
    if not given:
        return arguments
    run = RunFolder(given_path(given[-1], "--resume"))
    if not run.config.is_file():
        inside = RunFolder.of_checkpoint(run.path) if run.path.is_file() else None
        hint = f" Its run is {inside.path}." if inside else ""
        message = f"--resume needs a run folder; {run.path} has no config.yaml.{hint}"
        raise RunError(message, "resume-no-run", path=run.path)
    return ["fit", "--config", str(run.config), *arguments[1:]]


def runs_directory(config: Namespace) -> Path:
    """Return the directory of the run folders."""
    return Path(config.trainer.default_root_dir or Path.cwd()).expanduser() / LOGS


def run_name(config: Namespace, job: SlurmJob | None) -> str:
    """Return the name of a run: the configured one, with the task of a job array at its end, or the default name.

    >>> job = SlurmJob("9_1", task="resnet50")
    >>> [run_name(Namespace(run_name=name), job) for name in ("sweep", "lab-resnet50")]
    ['sweep_resnet50', 'lab-resnet50']
    """
    if not config.run_name:
        return _default_run_name(config, job)
    return with_task(config.run_name, job.task if job else "")


def with_task(name: str, task: str) -> str:
    """Return the name of a run that no other task of an array has; the task is empty if there is no array."""
    return name if not task or name == task or name.endswith((f"_{task}", f"-{task}")) else f"{name}_{task}"


def _default_run_name(config: Namespace, job: SlurmJob | None) -> str:
    """Return the default run name: backbone, fold if any, and Slurm job or time."""
    fold = "" if config.data.fold is None else f"_fold-{config.data.fold}"
    when = job.id.replace("_", "-") if job else f"{datetime.now():%Y%m%d-%H%M%S}"
    # Windows allows no colon in a name.
    return f"{config.model.backbone.replace(':', '_')}{fold}_{when}"


def make_plan(
    config: Namespace, job: SlurmJob | None, parser: ArgumentParser, hold: Callable[[RunFolder], None]
) -> ResumePlan | None:
    """Return which run a fit resumes and from where; None for a new run. Changes no file.

    The run is that of `--resume`, the one that a parent process trains in, or that of this requeued Slurm job. It is
    locked by `hold` before a checkpoint is read: a process that is still ending could write a newer one afterwards.

    Raises:
        ConfigError: The configuration differs from the run's in settings that must not differ.
        RunError: The run's configuration cannot be used, or another process trains in it.
        CheckpointError: The run has checkpoints, but all of them are damaged.
    """
    run = _find_run(config, job)
    if run is None:
        return None
    try:
        before = load_configuration(read_text(run.config, LARGEST_CONFIGURATION))
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = f"The configuration {run.config} cannot be read: {error}"
        raise RunError(message, "config-unreadable", path=run.config, reason=str(error)) from error
    config, defaults = without(config, "resume"), without(parser.get_defaults(), "resume")
    seed = recorded(run).get("seed")
    if config.seed_everything is True and seed is not None:  # drawn when the run was started
        config.seed_everything = seed
    now, defaults = (load_configuration(parser.dump(values, skip_unset=False)) for values in (config, defaults))
    changed = changed_settings(run, flat(before), flat(now), flat(defaults))
    hold(run)
    progress, damage = choose_checkpoint(run)
    return ResumePlan(run, seed, changed, progress, damage)


def _find_run(config: Namespace, job: SlurmJob | None) -> RunFolder | None:
    if named := config.resume or os.environ.get(RUN_VARIABLE):
        return RunFolder(Path(named))
    if job is None or job.interactive:
        return None
    logs = runs_directory(config)
    name = run_name(config, job)
    check_name(name, "run")
    # A folder of the default name may belong to another cluster; then this job's folder has a number as suffix.
    numbered = [] if config.run_name else sorted(logs.glob(f"{name}-[0-9]*"))
    runs = map(RunFolder, [logs / name, *numbered])
    return next((run for run in runs if recorded(run).get("slurm_job") == job.key), None)


def recorded(run: RunFolder) -> dict[str, Any]:
    """Read the run's environment.json; empty if there is none."""
    return mapping_or_nothing(run.environment)


def changed_settings(
    run: RunFolder, before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of this command that differ from those that a run was started with, and may.

    All are by dotted key. A setting that the run's version of bldml did not have, in a group that it had, counts as its
    default, which keeps the behaviour of that version.

    Raises:
        ConfigError: Settings differ that must not.
        RunError: The run's version of bldml had other settings.

    >>> run, defaults = RunFolder(Path("run")), {"data.cache": "off", "model.lr": 1, "model.head": 3}
    >>> changed_settings(run, {"data.root": "a", "model.lr": 2}, defaults | {"data.root": "b", "model.lr": 2}, defaults)
    {'data.root': 'b'}
    """
    if isinstance(monitor := before.get("monitor"), str):
        before = {**before, "monitor": canonical(monitor)}
    groups = {key.rpartition(".")[0] for key in before}
    above = {".".join(key.split(".")[:depth]) for key in before for depth in range(1, key.count(".") + 2)}
    added = {k: value for k, value in defaults.items() if k.rpartition(".")[0] in groups and k not in above}
    before = {**added, **before}
    keys = before.keys() | now.keys()
    different = sorted(key for key in keys if before.get(key) != now.get(key))
    refused = [key for key in different if not any(key == name or key.startswith(f"{name}.") for name in FREE)]
    # A setting that only one of the two versions has. A group of keys, or null, counts as present and different.
    unknown = [
        key
        for key in refused
        if (key in before) != (key in now)
        and key.count(".") == 1
        and key.startswith(("model.", "data."))
        and not any(other.startswith(f"{key}.") for other in keys)
    ]
    if unknown:
        raise RunError(
            f"The run {show_path(run.path)} was started by another version of bldml with other settings "
            f"({', '.join(unknown)}). Resume it with that version (see {show_path(run.environment)}), or "
            "start a new run with --run_name.",
            "resume-other-version",
            path=run.path,
            found=unknown,
        )
    if refused:
        lines = [f"  {key}: {before.get(key)} when the run started, {now.get(key)} now" for key in refused]
        raise ConfigError(
            f"The run {show_path(run.path)} was started with another configuration:\n" + "\n".join(lines) + "\n"
            f"To resume it with its own configuration: python -m bldml fit --resume {shell_word(run.path)}\n"
            "To start a new run with this configuration, set --run_name.",
            "resume-config-differs",
            path=run.path,
            found=lines,
        )
    return {key: now.get(key) for key in different}


def choose_checkpoint(run: RunFolder) -> tuple[Progress | None, str | None]:
    """Return the progress of the newest intact checkpoint, if there is any, and what is wrong with a newer one.

    Raises:
        CheckpointError: All checkpoints are damaged, or one cannot be read.
    """
    problems: list[str] = []
    for path in (_newest(run), run.previous_checkpoint):
        if not path.exists():
            continue
        try:
            return read_progress(path), problems[0] if problems else None
        except DamagedCheckpoint as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(
            "\n".join(problems) + "\nThis run cannot be resumed, but its best.ckpt can still be tested. To start over, "
            f"remove these files from {show_path(run.checkpoints)}.",
            "resume-checkpoints-damaged",
            path=run.checkpoints,
            found=problems,
        )
    return None, None


def check_processes(plan: ResumePlan, found: int) -> None:
    """Raise RunError unless the number of processes is that of the checkpoint."""
    expected = plan.progress.world_size if plan.progress else found
    if found != expected:
        raise RunError(
            f"The run {show_path(plan.run.path)} used {counted(expected, 'process', 'processes')}; resume it with "
            f"{expected} (found {found}). Set --trainer.devices and --trainer.num_nodes as before.",
            "processes-differ",
            path=plan.run.path,
            found=found,
            expected=expected,
        )


def set_damaged_aside(plan: ResumePlan) -> None:
    """Rename a damaged checkpoint; otherwise the next save would replace the intact one by it."""
    if plan.damage is not None and plan.progress is not None:
        rank_zero_info(f"Warning: {plan.damage} Resuming from the previous one, {plan.progress.path.name}.")
        if is_first_process():
            _newest(plan.run).replace(plan.run.checkpoints / "damaged.ckpt")


def _newest(run: RunFolder) -> Path:
    # If there is no last.ckpt, the process ended between two renames, and next.ckpt is the newest.
    return run.last_checkpoint if run.last_checkpoint.exists() else run.next_checkpoint


def read_same_photographs(plan: ResumePlan, datamodule: LeafDataModule, check: Callable[[], None]) -> PreparedData:
    """Read the photographs that the run was started with; photographs added since are ignored.

    `check` is called repeatedly and may raise to interrupt.

    Raises:
        DatasetError: A photograph is missing or has changed.
        RunError: The list of excluded photographs is damaged.
    """
    run, excluded = plan.run, []
    if run.excluded.is_file():
        excluded = [(row["path"], row["reason"]) for row in read_table(run.excluded, ("path", "reason"))]
    try:
        data = datamodule.read_for_fit(check, manifest=run.splits, excluded=excluded)
    except DatasetError as error:
        message = f"{error}\nIf the photographs have moved, set their new folder with --data.root FOLDER."
        raise DatasetError(message, "resume-photographs-missing", path=run.path) from error
    before = recorded(run).get("dataset_fingerprint")
    changed = [split for split, digest in data.dataset_digests.items() if (before or {}).get(split) != digest]
    if before is not None and changed:
        raise DatasetError(
            f"The photographs of the {' and '.join(changed)} split changed since the run {show_path(run.path)} "
            "started. Restore them, or start a new run with --run_name.",
            "resume-photographs-changed",
            path=run.path,
            found=changed,
        )
    return data


def record_resume(plan: ResumePlan, job: SlurmJob | None, conditions: Mapping[str, Any]) -> list[str]:
    """Record in environment.json when, from which step and under which conditions and changed settings a run resumes.

    Returns:
        How the conditions differ from those under which the checkpoint was computed; empty without a checkpoint.

    Raises:
        RunError: The file is missing, damaged or cannot be written.
    """
    run, progress = plan.run, plan.progress
    record = recorded(run)
    if not record:
        message = f"The run {show_path(run.path)} cannot be resumed: environment.json is missing or damaged."
        raise RunError(message, "environment-missing", path=run.environment)
    step = progress.step if progress else 0
    before = read_stretches(record, step)
    note = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "slurm_job": job.key if job else None,
        "restarts": job.restarts if job else 0,
        "epoch": progress.epoch if progress else 0,
        "step": step,
        "changed": plan.changed,
        **conditions,
    }
    again = environment_again(record, continued=[*record.get("continued", []), note])
    write_atomically(run.environment, again)
    return changes(before[-1].conditions, conditions_of(note)) if before else []
