"""ResumePlan: which run a fit resumes, from which checkpoint, and whether it is still the same run."""

import csv
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.options import load_configuration, values_of, without
from bldml.dataset.files import shell_word, show_path
from bldml.errors import CheckpointError, ConfigError, DatasetError, RunError
from bldml.io.atomic import check_name, write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.io.text import counted
from bldml.metrics.registry import canonical
from bldml.run.folder import RunFolder
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import is_first_process
from bldml.training.resume.state import DamagedCheckpoint, Progress, read_progress

LOGS = "lightning_logs"
# By this variable the first process tells the other processes of a fit which run they train in.
RUN_VARIABLE = "BLDML_RUN"
# What may differ when a run is resumed, because no result depends on it.
FREE = (
    "run_name",
    "test_after_fit",
    "report",
    "checkpoint_minutes",
    # The paths of the photographs; their contents are compared.
    "data.root",
    "data.manifest",
    "data.num_workers",
    # These change neither the training data nor any number.
    "data.on_leak",
    "data.cache",
    "data.cache_dir",
    "model.feature_cache",
    "trainer.plugins",
    "trainer.enable_progress_bar",
    "trainer.default_root_dir",
)


# The reason for resuming a run: the option --resume, a parent process that trains in it, or its requeued Slurm job.
Reason = Literal["option", "child", "job"]


class Differences(NamedTuple):
    """Differences between the recorded settings of a run and the settings of this command.

    Attributes:
        allowed: Settings that may differ: recorded and current value.
        added: Settings that the run's version of bldml did not have, with their defaults, which count as recorded.
        refused: Settings that must not differ: recorded and current value.
        unknown: Settings in `refused` that only one of the two versions of bldml has.
    """

    allowed: dict[str, tuple[Any, Any]]
    added: dict[str, Any]
    refused: dict[str, tuple[Any, Any]]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class ResumePlan:
    """Which run a fit resumes and from which checkpoint; made once, when the command line is parsed.

    Attributes:
        run: The run.
        reason: Why this run is resumed.
        seed: The seed in its environment.json; None if that file is missing or damaged.
        differences: Differences from the recorded configuration; none of them is refused.
        progress: Progress in the checkpoint to resume from, last.ckpt or previous.ckpt; None if there is no checkpoint
            yet and the run starts from its beginning.
        damage: What is wrong with a newer checkpoint that is skipped; None if there is none.
    """

    run: RunFolder
    reason: Reason
    seed: int | None
    differences: Differences
    progress: Progress | None
    damage: str | None

    @property
    def manifest(self) -> Path:
        """Manifest of the photographs that the run was started with."""
        return self.run.splits

    def check_processes(self, found: int) -> None:
        """Check that the number of processes is that of the checkpoint.

        Raises:
            RunError: The numbers differ.
        """
        if self.progress is None or self.progress.world_size == found:
            return
        processes = counted(self.progress.world_size, "process", "processes")
        raise RunError(
            f"The run {show_path(self.run.path)} used {processes}; resume it with {self.progress.world_size} (found "
            f"{found}). Set --trainer.devices and --trainer.num_nodes as before.",
            "processes-differ",
            path=self.run.path,
            found=found,
            expected=self.progress.world_size,
        )


def with_config_of_run(arguments: list[str]) -> list[str]:
    """Insert a run's own configuration before all others if `--resume` is set.

    Raises:
        ConfigError: The run does not exist.
    """
    given = values_of(arguments, "--resume") if arguments[:1] == ["fit"] else []
    if not given:
        return arguments
    run = RunFolder(Path(given[-1]))
    if not run.config.is_file():
        inside = RunFolder.of_checkpoint(run.path) if run.path.is_file() else None
        hint = f" Its run is {inside.path}." if inside else ""
        raise ConfigError(
            f"--resume needs a run folder; {run.path} has no config.yaml.{hint}", "resume-no-run", path=run.path
        )
    return ["fit", "--config", str(run.config), *arguments[1:]]


def runs_directory(config: Namespace) -> Path:
    """Return the directory of the run folders."""
    return Path(config.trainer.default_root_dir or Path.cwd()).expanduser() / LOGS


def default_run_name(config: Namespace, job: SlurmJob | None) -> str:
    """Return the default run name: backbone, fold if any, and Slurm job or time."""
    fold = "" if config.data.fold is None else f"_fold-{config.data.fold}"
    when = job.id.replace("_", "-") if job else f"{datetime.now():%Y%m%d-%H%M%S}"
    return f"{config.model.backbone}{fold}_{when}"


def make_plan(
    config: Namespace, job: SlurmJob | None, parser: ArgumentParser, hold: Callable[[RunFolder, float], None]
) -> ResumePlan | None:
    """Return which run a fit resumes and from where; None for a new run. Changes no file.

    Args:
        config: The parsed configuration of the fit.
        job: The Slurm job of this process.
        parser: The parser of the configuration.
        hold: Locks the run, waiting at most the given seconds. Called before a checkpoint is read, because a process
            that is still ending could otherwise write a newer one afterwards.

    Raises:
        ConfigError: The configuration differs from the run's in settings that must not differ.
        RunError: The name of the run is not valid, or another process trains in it.
        CheckpointError: The run has checkpoints, but all of them are damaged.
    """
    found = _find_run(config, job)
    if found is None:
        return None
    run, reason = found
    record = recorded(run)
    seed = record.get("seed")
    config = without(config, "resume")
    if config.seed_everything is True and seed is not None:  # drawn when the run was started
        config.seed_everything = seed
    now, defaults = (
        load_configuration(parser.dump(values, skip_unset=False))
        for values in (config, without(parser.get_defaults(), "resume"))
    )
    differences = compare_settings(_flat(_read_config(run)), _flat(now), _flat(defaults))
    if differences.refused:
        raise _refusal(run, differences)
    # The previous process may still be ending, and a file server may notice a dead node late.
    hold(run, 120.0 if job and job.restarts else 0.0)
    progress, damage = choose_checkpoint(run)
    return ResumePlan(run, reason, seed, differences, progress, damage)


def _find_run(config: Namespace, job: SlurmJob | None) -> tuple[RunFolder, Reason] | None:
    if config.resume is not None:
        return RunFolder(Path(config.resume)), "option"
    if inherited := os.environ.get(RUN_VARIABLE):
        return RunFolder(Path(inherited)), "child"
    if job is None or job.interactive:
        return None
    logs = runs_directory(config)
    if config.run_name:
        check_name(config.run_name, "run")
        candidates = [logs / config.run_name]
    else:
        # A folder of that name may belong to another cluster; then this job's folder has a number as suffix.
        name = default_run_name(config, job)
        candidates = [logs / name, *sorted(logs.glob(f"{name}-[0-9]*"))]
    runs = (RunFolder(path) for path in candidates)
    return next(((run, "job") for run in runs if recorded(run).get("slurm_job") == job.key), None)


def recorded(run: RunFolder) -> dict[str, Any]:
    """Read the run's environment.json; empty if there is none."""
    return mapping_or_nothing(run.environment)


def _read_config(run: RunFolder) -> Any:
    try:
        return load_configuration(run.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = f"The configuration {run.config} cannot be read: {error}"
        raise ConfigError(message, "config-unreadable", path=run.config, reason=str(error)) from error


def compare_settings(before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> Differences:
    """Compare the recorded settings of a run with the settings of this command.

    Args:
        before: Recorded settings, by dotted key.
        now: Settings of this command.
        defaults: All defaults. A key that the run's version did not have counts as its default, which keeps the
            behaviour of that version.

    >>> compare_settings(
    ...     {"data.root": "a", "model.lr": 1}, {"data.root": "b", "model.lr": 2, "model.head": 3}, {"model.head": 3}
    ... )
    Differences(allowed={'data.root': ('a', 'b')}, added={'model.head': 3}, refused={'model.lr': (1, 2)}, unknown=())
    """
    before = {**before}
    if isinstance(before.get("monitor"), str):
        before["monitor"] = canonical(before["monitor"])
    added = _added(before, defaults)
    before = added | before
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    free = {key for key in keys if any(key == name or key.startswith(f"{name}.") for name in FREE)}
    pairs = {key: (before.get(key), now.get(key)) for key in keys}
    # A setting that only one version has. A group of keys, or null, counts as present and different.
    unknown = tuple(
        key
        for key in keys
        if key not in free
        and (key in before) != (key in now)
        and key.count(".") == 1
        and key.startswith(("model.", "data."))
        and not any(other.startswith(f"{key}.") for other in before.keys() | now.keys())
    )
    return Differences(
        {key: pair for key, pair in pairs.items() if key in free},
        added,
        {key: pair for key, pair in pairs.items() if key not in free},
        unknown,
    )


def _refusal(run: RunFolder, differences: Differences) -> ConfigError:
    if differences.unknown:
        return ConfigError(
            f"The run {show_path(run.path)} was started by another version of bldml with other settings "
            f"({', '.join(differences.unknown)}). Resume it with that version (see {show_path(run.environment)}), or "
            "start a new run with --run_name.",
            "resume-other-version",
            path=run.path,
            found=list(differences.unknown),
        )
    lines = [f"  {key}: {before} when the run started, {now} now" for key, (before, now) in differences.refused.items()]
    return ConfigError(
        f"The run {show_path(run.path)} was started with another configuration:\n" + "\n".join(lines) + "\n"
        f"To resume it with its own configuration: python -m bldml fit --resume {shell_word(run.path)}\n"
        "To start a new run with this configuration, set --run_name.",
        "resume-config-differs",
        path=run.path,
        found=lines,
    )


def choose_checkpoint(run: RunFolder) -> tuple[Progress | None, str | None]:
    """Find the newest intact checkpoint.

    Returns:
        Its progress, None if there is no checkpoint yet; and what is wrong with a newer checkpoint, if it is damaged.

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

    Args:
        plan: The run to resume.
        datamodule: The data module with the paths of the photographs.
        check: Called repeatedly; may raise to interrupt.

    Raises:
        DatasetError: A photograph is missing or has changed.
    """
    run, excluded = plan.run, []
    if run.excluded.is_file():
        with run.excluded.open(encoding="utf-8", newline="") as file:
            excluded = [(row["path"], row["reason"]) for row in csv.DictReader(file)]
    try:
        data = datamodule.read_for_fit(check, manifest=plan.manifest, excluded=excluded)
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


def record_resume(plan: ResumePlan, job: SlurmJob | None) -> None:
    """Record in environment.json when, where, from which step and with which changed settings a run is resumed.

    Raises:
        RunError: The file is missing, damaged or cannot be written.
    """
    run, progress = plan.run, plan.progress
    record = recorded(run)
    if not record:
        message = f"The run {show_path(run.path)} cannot be resumed: environment.json is missing or damaged."
        raise RunError(message, "environment-missing", path=run.environment)
    note = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "slurm_job": job.key if job else None,
        "restarts": job.restarts if job else 0,
        "host": os.uname().nodename,
        "epoch": progress.epoch if progress else 0,
        "step": progress.step if progress else 0,
        "changed": {key: now for key, (_, now) in plan.differences.allowed.items()},
    }
    record["continued"] = [*record.get("continued", []), note]
    write_atomically(run.environment, json.dumps(record, indent=2) + "\n")


def _added(before: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of keys that a configuration lacks, if it has other keys of the same group.

    >>> _added({"a.b": 1, "a.c.d": 2}, {"a.b": 0, "a.c": None, "a.e": 3, "f.g": 4})
    {'a.e': 3}
    """
    groups = {key.rpartition(".")[0] for key in before}
    above = {".".join(key.split(".")[:depth]) for key in before for depth in range(1, key.count(".") + 2)}
    return {k: value for k, value in defaults.items() if k.rpartition(".")[0] in groups and k not in above}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
