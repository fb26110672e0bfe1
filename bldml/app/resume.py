"""A run that goes on: which one, from which checkpoint, and whether it is still the same run."""

import csv
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.options import load_configuration, values_of
from bldml.dataset.files import shell_word, show_path
from bldml.errors import CheckpointError, ConfigError, DatasetError, RunError
from bldml.io.atomic import check_name, write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.metrics.registry import canonical
from bldml.run.folder import RunFolder
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.prepared import PreparedData
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import is_first_process
from bldml.training.resume.state import DamagedCheckpoint, Progress, read_progress

LOGS = "lightning_logs"
# Processes that Lightning starts beside the first one are told its run by this variable.
RUN_VARIABLE = "BLDML_RUN"
# What may be different when a run goes on, because no result depends on it.
FREE = (
    "run_name",
    "test_after_fit",
    "report",
    "checkpoint_minutes",
    # Where the photographs are, not which: their contents are compared.
    "data.root",
    "data.manifest",
    "data.num_workers",
    # Neither says what is trained on, or changes a number.
    "data.on_leak",
    "data.cache",
    "data.cache_dir",
    "model.feature_cache",
    "trainer.plugins",
    "trainer.enable_progress_bar",
    "trainer.default_root_dir",
)


def with_config_of_run(arguments: list[str]) -> list[str]:
    """Put a run's own configuration in front of the others where `--resume` is given.

    Raises:
        ConfigError: There is no such run.
    """
    given = values_of(arguments, "--resume") if arguments[:1] == ["fit"] else []
    if not given:
        return arguments
    run = RunFolder(Path(given[-1]))
    if not run.config.is_file():
        inside = RunFolder.of_checkpoint(run.path) if run.path.is_file() else None
        hint = f" Its run is {inside.path}." if inside else ""
        raise ConfigError(
            f"--resume takes a run folder; {run.path} holds no config.yaml.{hint}", "resume-no-run", path=run.path
        )
    return ["fit", "--config", str(run.config), *arguments[1:]]


def place_of_runs(config: Namespace) -> Path:
    """The folder in which the run folders lie."""
    return Path(config.trainer.default_root_dir or Path.cwd()).expanduser() / LOGS


def default_run_name(config: Namespace, job: SlurmJob | None) -> str:
    """Backbone, fold if there is one, and Slurm job, else time."""
    fold = "" if config.data.fold is None else f"_fold-{config.data.fold}"
    when = job.id.replace("_", "-") if job else f"{datetime.now():%Y%m%d-%H%M%S}"
    return f"{config.model.backbone}{fold}_{when}"


def run_to_continue(config: Namespace, job: SlurmJob | None) -> RunFolder | None:
    """The run that a fit goes on with; None for a new one.

    Args:
        config: The fit's configuration.
        job: The Slurm job that this process runs in.

    Raises:
        RunError: The name given is no name.
    """
    if config.resume is not None:
        return RunFolder(Path(config.resume))
    if told := os.environ.get(RUN_VARIABLE):
        return RunFolder(Path(told))
    if job is None or job.interactive:
        return None
    logs = place_of_runs(config)
    if config.run_name:
        check_name(config.run_name, "run")
        candidates = [logs / config.run_name]
    else:
        # A folder of that name may be another cluster's; then the job's own has a number behind it.
        name = default_run_name(config, job)
        candidates = [logs / name, *sorted(logs.glob(f"{name}-[0-9]*"))]
    return next((RunFolder(path) for path in candidates if recorded(RunFolder(path)).get("slurm_job") == job.key), None)


def recorded(run: RunFolder) -> dict[str, Any]:
    """The run's environment.json; nothing where there is none."""
    return mapping_or_nothing(run.environment)


def check_same(run: RunFolder, config_text: str, defaults_text: str) -> None:
    """Refuse to go on with another configuration than the run was started with.

    Args:
        run: The run.
        config_text: The configuration as YAML.
        defaults_text: All defaults. A key that the run's version did not have yet counts as its default, which does
            what was done before there was the key.

    Raises:
        ConfigError: It differs; the message says in what.
    """
    try:
        before = _flat(load_configuration(run.config.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = f"The configuration {run.config} cannot be read: {error}"
        raise ConfigError(message, "config-unreadable", path=run.config, reason=str(error)) from error
    before |= {key: canonical(before[key]) for key in ("monitor",) if isinstance(before.get(key), str)}
    before = _added(before, _flat(load_configuration(defaults_text))) | before
    now = _flat(load_configuration(config_text))
    different = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and not any(key == free or key.startswith(f"{free}.") for free in FREE)
    )
    if different:
        # A setting that only one of the two has; with keys of its own, or null, it is there and differs.
        missing = [
            key
            for key in different
            if (key in before) != (key in now)
            and key.count(".") == 1
            and key.startswith(("model.", "data."))
            and not any(other.startswith(f"{key}.") for other in before.keys() | now.keys())
        ]
        if missing:
            raise ConfigError(
                f"The run {show_path(run.path)} was started by another version of bldml, whose settings were not these "
                f"({', '.join(missing)}). Go on with that version, which {show_path(run.environment)} names, or start "
                "anew with another --run_name.",
                "resume-other-version",
                path=run.path,
                found=missing,
            )
        lines = [f"  {key}: {before.get(key)} at its start, {now.get(key)} now" for key in different]
        raise ConfigError(
            f"The run {show_path(run.path)} was started with another configuration:\n" + "\n".join(lines) + "\n"
            f"To go on with its own: python -m bldml fit --resume {shell_word(run.path)}\n"
            "To start anew with this one, give another --run_name.",
            "resume-config-differs",
            path=run.path,
            found=lines,
        )


def choose_checkpoint(run: RunFolder) -> Progress | None:
    """The newest checkpoint that is whole; None if the run has not come to write one.

    Raises:
        CheckpointError: There are checkpoints, and none of them is whole, or one cannot be read.
    """
    problems = []
    # Without a last.ckpt the process ended between two renames, and the next one is the newest.
    newest = run.last_checkpoint if run.last_checkpoint.exists() else run.next_checkpoint
    for path in (newest, run.previous_checkpoint):
        if not path.exists():
            continue
        try:
            progress = read_progress(path)
        except DamagedCheckpoint as error:
            problems.append(str(error))
            continue
        if problems:
            rank_zero_info(f"Warning: {problems[0]} Going on from the one before, {path.name}.")
            if is_first_process():
                # Otherwise the next save would let it take the place of the good one.
                newest.replace(run.checkpoints / "damaged.ckpt")
        return progress
    if problems:
        raise CheckpointError(
            "\n".join(problems) + "\nThe run cannot go on; its best.ckpt can still be tested. To begin again, remove "
            f"these files from {show_path(run.checkpoints)}.",
            "resume-checkpoints-damaged",
            path=run.checkpoints,
            found=problems,
        )
    return None


def read_same_photographs(run: RunFolder, datamodule: LeafDataModule, check: Any) -> PreparedData:
    """Read the photographs that the run was started with, whatever has been added since.

    Args:
        run: The run.
        datamodule: Where they are.
        check: Called now and then; may raise to stop.

    Raises:
        DatasetError: One is missing or has changed.
    """
    excluded = []
    if run.excluded.is_file():
        with run.excluded.open(encoding="utf-8", newline="") as file:
            excluded = [(row["path"], row["reason"]) for row in csv.DictReader(file)]
    try:
        data = datamodule.read_for_fit(check, manifest=run.splits, excluded=excluded)
    except DatasetError as error:
        message = f"{error}\nIf the photographs have moved, say where to: --data.root FOLDER."
        raise DatasetError(message, "resume-photographs-missing", path=run.path) from error
    before = recorded(run).get("dataset_fingerprint")
    changed = [split for split, digest in data.dataset_digests.items() if (before or {}).get(split) != digest]
    if before is not None and changed:
        raise DatasetError(
            f"The photographs of the {' and '.join(changed)} split have changed since the run {show_path(run.path)} "
            "was started; what it has learnt is of the others. Put them back, or start a run of another --run_name.",
            "resume-photographs-changed",
            path=run.path,
            found=changed,
        )
    return data


def note_continuation(run: RunFolder, job: SlurmJob | None, progress: Progress | None) -> None:
    """Add to environment.json when, where and from which step the run goes on.

    Raises:
        RunError: It cannot be written.
    """
    record = recorded(run)
    if not record:
        message = f"{run.environment} is missing or damaged: {show_path(run.path)} is no run that can go on."
        raise RunError(message, "environment-missing", path=run.environment)
    note = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "slurm_job": job.key if job else None,
        "restarts": job.restarts if job else 0,
        "host": os.uname().nodename,
        "epoch": progress.epoch if progress else 0,
        "step": progress.step if progress else 0,
    }
    record["continued"] = [*record.get("continued", []), note]
    write_atomically(run.environment, json.dumps(record, indent=2) + "\n")


def _added(before: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of keys that a configuration lacks: neither they nor keys below them are there, but their group is.

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
