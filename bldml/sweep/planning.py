"""From the file of an experiment to the plan in its folder: everything is checked before anything runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bldml.dataset.files import show_path
from bldml.dataset.folders import check_outside
from bldml.errors import ConfigError, RunError
from bldml.io.atomic import is_leftover, make_folder, write_atomically
from bldml.io.documents import LARGEST_CONFIGURATION, dump_yaml, load_yaml, read_text
from bldml.io.locks import Lock
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.text import counted
from bldml.metrics.registry import canonical
from bldml.sweep.array import was_submitted
from bldml.sweep.experiment import ExperimentFile, nested
from bldml.sweep.folds import Photographs, describe_folds, make_folds, write_folds
from bldml.sweep.plan import (
    NOTHING,
    Candidate,
    Own,
    Plan,
    PlannedRun,
    SweepFolder,
    Trial,
    check_cases,
    check_manifests,
    check_size,
    default_folder,
    read_plan,
    write_plan,
)
from bldml.sweep.search.space import WrongSpace, check_comparable
from bldml.sweep.states import has_begun, manifests_to_read

_FILES = ("plan.json", "base", "folds", "tasks", "logs", "lightning_logs", ".lock", "slurm", "study.journal")
_MANY = 100  # configurations, whose check takes so long that it is said


def plan_experiment(experiment: ExperimentFile, folder: SweepFolder, own: Own = NOTHING) -> Plan:
    """Check an experiment and write its plan, or extend the plan that the folder has by what is new.

    Args:
        experiment: The experiment.
        folder: Its folder, which need not exist.
        own: What the user brings: trust in classes that bldml does not know, a classifier class.

    Raises:
        ConfigError, DatasetError, TrainingError, RunError: Something cannot be as it is asked for. Nothing was written.
    """
    return plan_with_photographs(experiment, folder, own)[0]


def plan_with_photographs(
    experiment: ExperimentFile, folder: SweepFolder, own: Own = NOTHING
) -> tuple[Plan, Photographs]:
    """Do what `plan_experiment` does; return the photographs of the first configuration too.

    All trials of a search have these.
    """
    settings = _common_settings(experiment)
    if experiment.search:
        _check_search(experiment, settings)
    photographs = _check_configurations(experiment, own)
    is_new = not folder.path.exists()
    if folder.path != default_folder(experiment.path) and not folder.plan.exists():
        for of in photographs.values():
            check_outside(folder.path, "--output", of.root, of.manifest)
    _check_folder(folder)
    make_folder(folder.path)
    try:
        with Lock(folder.lock, wait=None, waiting=_Waiting(folder)):
            plan = _plan_in(folder, experiment, settings, photographs)
            return plan, next(iter(photographs.values()))
    except BaseException:
        if is_new and not folder.plan.exists():
            folder.lock.unlink(missing_ok=True)
            with suppress(OSError):  # another sweep uses it by now
                folder.path.rmdir()
        raise


class _Waiting:
    """Says once that another process plans in this folder; a signal ends the waiting."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder, self.said = folder, False

    def __call__(self) -> None:
        safe_point()
        if not self.said:
            say(f"Waiting: another process is planning in {show_path(self.folder.path)}.\n")
            self.said = True


def _check_folder(folder: SweepFolder) -> None:
    if folder.path.exists() and not folder.path.is_dir():
        message = f"{show_path(folder.path)} is not a folder. Set another --output."
        raise RunError(message, "sweep-output-no-folder", path=folder.path)
    others = sorted(entry.name for entry in folder.path.iterdir()) if folder.path.is_dir() else []
    foreign = [name for name in others if name not in _FILES and not is_leftover(name)]
    if foreign and not folder.plan.exists():
        message = f"{show_path(folder.path)} has files that are not of a sweep, such as {show_path(foreign[0])}. "
        message += "Set a new folder as --output."
        raise RunError(message, "sweep-output-not-empty", path=folder.path, found=foreign)


def _common_settings(experiment: ExperimentFile) -> dict[str, Any]:
    """Return what all runs have in common, by dotted key, as JSON keeps it."""
    from bldml.app.options import flat, load_configuration
    from bldml.app.typed import check_files

    check_files([word for path in experiment.base for word in ("--config", str(path))])
    found: dict[str, Any] = {}
    for path in experiment.base:
        found |= flat(load_configuration(read_text(path, LARGEST_CONFIGURATION)))
    if {"resume", "run_name", "test_after_fit"} & found.keys() and found.get("resume"):
        message = f"{show_path(experiment.base[0])} sets resume; a sweep resumes its runs itself."
        raise ConfigError(message, "sweep-base-resumes", path=experiment.base[0])
    settings: dict[str, Any] = json.loads(json.dumps({**found, **flat(nested(experiment.options))}, default=str))
    return settings


def _check_search(experiment: ExperimentFile, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError unless trials can be proposed, and compared by the monitored metric."""
    from bldml.sweep.search.study import load_optuna

    assert experiment.search is not None
    load_optuna()
    try:
        check_comparable(experiment.search.ranges, monitor_of(settings), settings)
    except WrongSpace as error:
        message = f"{show_path(experiment.path)}: {error}"
        raise ConfigError(message, "search-not-comparable", path=experiment.path, key=f"search.{error.key}") from error


def monitor_of(settings: Mapping[str, Any]) -> str:
    """Return the metric that all runs of these settings monitor."""
    return canonical(str(settings.get("monitor", "val_loss")))


def _arguments(base: Iterable[Path], task: Path) -> list[str]:
    return [word for path in (*base, task) for word in ("--config", str(path))]


def _check_configurations(experiment: ExperimentFile, own: Own) -> dict[str, Photographs]:
    """Check each configuration by the parser of fit; return its photographs by its name."""
    from bldml.doctor.configuration import read_configuration
    from bldml.doctor.inputs import check_weights

    checked: set[tuple[str, str]] = set()
    found: dict[str, Photographs] = {}
    with TemporaryDirectory() as temporary:
        corners = experiment.search.corners() if experiment.search else ()
        candidates = experiment.candidates or [Candidate(*corner) for corner in corners]
        if len(candidates) > _MANY:
            say(f"Checking {len(candidates):,} configurations …\n")
        for candidate in candidates:
            safe_point()
            file = Path(temporary) / "configuration.yaml"
            file.write_text(dump_yaml(nested({**experiment.options, **candidate.options})), encoding="utf-8")
            read = read_configuration([*_arguments(experiment.base, file), *own.options], own.model_class)
            problems = [one for one in read.findings if one.status == "FAIL"]
            settings = read.settings
            if not problems and settings and (settings.backbone, settings.weights) not in checked:
                checked.add((settings.backbone, settings.weights))
                problems = [one for one in (check_weights(settings),) if one.status == "FAIL"]
            if problems:
                said, remedy = problems[0].found.removeprefix(f"{file}: "), problems[0].remedy or ""
                stop = "" if said.endswith((".", "?", "!")) else "."
                name = f"with {candidate.name}" if experiment.search else candidate.name
                message = f"The configuration {name} of {show_path(experiment.path)} cannot be used: "
                message += f"{said}{stop}\n{remedy}".rstrip()
                raise ConfigError(
                    message.replace("..", ".").rstrip(), "sweep-configuration-wrong",
                    path=experiment.path, configuration=candidate.name, reason=problems[0].found,
                )  # fmt: skip
            assert read.datamodule is not None
            if experiment.division is None:
                read.datamodule.find_for_fit()
            data = read.datamodule
            found[candidate.name] = Photographs(
                data.root, data.manifest, data.class_aliases, data.test_fraction, data.positive_class, data.unreadable
            )
    _check_same(experiment, found)
    return found


def _check_same(experiment: ExperimentFile, found: Mapping[str, Photographs]) -> None:
    """Raise ConfigError where figures of two configurations would not be about the same classes, or the same folds."""
    (first, one), *others = found.items()
    keys = ["positive_class"] if experiment.division is None else list(asdict(one))
    for name, other in others:
        for key in keys:
            if (mine := getattr(one, key)) != (its := getattr(other, key)):
                why = "so they cannot be compared" if key == "positive_class" else "so they cannot share folds"
                message = f"The configurations {first} and {name} of {show_path(experiment.path)} differ in data.{key} "
                message += f"({mine} and {its}), {why}. Set it once, under options."
                raise ConfigError(message, "sweep-photographs-differ", path=experiment.path, key=f"data.{key}")


def _plan_in(
    folder: SweepFolder,
    experiment: ExperimentFile,
    settings: Mapping[str, Any],
    photographs: Mapping[str, Photographs],
) -> Plan:
    """Return the plan in a folder that this process has locked; it is written if it is new or extended."""
    before, digests = read_plan(folder) if folder.plan.exists() else None, dict[str, str]()
    is_begun = folder.study.exists() or was_submitted(folder)
    if before is None and folder.study.exists():
        message = f"{show_path(folder.path)} has a study, but plan.json is missing. Restore it, or set a new --output."
        raise RunError(message, "search-plan-lost", path=folder.plan)
    if before is not None and not is_begun and not any(has_begun(folder, run.name) for run in before.runs):
        before = None  # nothing depends on it
    if experiment.search and before:
        experiment = replace(experiment, candidates=before.configurations if before.search else ())
    if before is None and experiment.division is not None:
        folds = make_folds(next(iter(photographs.values())), experiment.division)
        numbers: Sequence[int | None] = list(folds.collections)
        digests = write_folds(folder, folds)
        say("".join(f"{line}\n" for line in describe_folds(folds)))
    else:
        known = {*(before.search.get("folds") or (run.fold for run in before.runs))} if before else {None}
        numbers = sorted(known, key=lambda fold: -1 if fold is None else fold)
    check_cases(experiment.path, experiment.candidates, before)
    trials = experiment.search.trials if experiment.search else 0
    check_size(experiment.path, trials or len(experiment.candidates), len(experiment.seeds), len(numbers))
    plan = replace(_plan_of(folder.path.name, experiment, settings, numbers), digests=digests)
    if before is not None:
        plan = replace(plan, trials=before.trials, digests=before.digests)
        _check_extends(folder, before, plan)
        check_manifests(folder, plan, manifests_to_read(folder, plan))
    if experiment.search:
        photographs = dict.fromkeys((one.name for one in plan.configurations), next(iter(photographs.values())))
    _write_files(folder, experiment, plan, photographs)
    return plan


def with_trials(
    folder: SweepFolder, experiment: ExperimentFile, plan: Plan, trials: Sequence[Trial], photographs: Photographs
) -> Plan:
    """Return the plan with the trials of a study as its configurations; it is written if they are new or changed.

    The caller has the lock of the experiment.
    """
    if tuple(trials) == plan.trials:
        return plan
    known = {one.name for one in plan.configurations}
    candidates = tuple(Candidate(trial.name, trial.params) for trial in trials)
    whole = _plan_of(plan.name, replace(experiment, candidates=candidates), plan.settings, plan.search["folds"])
    # trials and hours may have been changed since this process read its experiment.
    whole = replace(whole, trials=tuple(trials), division=plan.division, search=plan.search, digests=plan.digests)
    new = [run for run in whole.runs if run.configuration not in known]
    options = {one.name: {**experiment.options, **one.options} for one in candidates}
    for run in new:
        _write_task(folder, run, options[run.configuration], photographs)
    write_plan(folder, whole)
    return whole


def _plan_of(name: str, experiment: ExperimentFile, settings: Mapping[str, Any], folds: Sequence[int | None]) -> Plan:
    """Return the plan of an experiment; each seed and fold is done by all configurations before the next begins."""
    runs = tuple(
        PlannedRun(_name_of(candidate, seed, fold), candidate.name, seed, fold)
        for seed in experiment.seeds
        for fold in folds
        for candidate in experiment.candidates
    )
    plain = tuple(
        replace(one, options=json.loads(json.dumps(dict(one.options), default=str))) for one in experiment.candidates
    )
    search: dict[str, Any] = {}
    if experiment.search:
        one = experiment.search
        search = {**one.identity, "monitor": monitor_of(settings), "seeds": experiment.seeds, "folds": folds}
        search = json.loads(json.dumps({**search, "trials": one.trials, "hours": one.hours}))
    number = None if folds == [None] else len(folds)
    division = {} if experiment.division is None else asdict(experiment.division)
    return Plan(name, plain, runs, experiment.metric, number, experiment.chosen, settings, division, search)


def _name_of(candidate: Candidate, seed: int | None, fold: int | None) -> str:
    parts = [candidate.name, "" if seed is None else f"seed{seed}", "" if fold is None else f"fold{fold}"]
    return "_".join(part for part in parts if part)


def _check_extends(folder: SweepFolder, before: Plan, now: Plan) -> None:
    """Raise ConfigError unless a plan holds all that the one before it holds, unchanged."""
    from bldml.app.resume import FREE

    def is_free(key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in FREE)

    different: list[str] = []
    pairs: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [("", before.settings, now.settings)]
    known = {one.name: one for one in now.configurations}
    for one in before.configurations:
        if one.name not in known:
            different.append(f"the configuration {one.name} is missing now")
        else:
            pairs.append((f"{one.name}: ", one.options, known[one.name].options))
    for where, old, new in pairs:
        different += [
            f"{where}{key}: {_value(old, key)} before, {_value(new, key)} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not is_free(key)
        ]
    for key, old_value, new_value in (
        ("metric", before.metric, now.metric),
        ("chosen", before.chosen, now.chosen),
        *(
            (f"{group}{key}", old.get(key), new.get(key))
            for group, old, new in (("folds.", before.division, now.division), ("search.", before.search, now.search))
            for key in {**old, **new}
            if (group, key) not in {("search.", "trials"), ("search.", "hours")}
        ),
    ):
        if old_value != new_value:
            different.append(f"{key}: {old_value} before, {new_value} now")
    if before.search and not now.search:
        different = ["it was a search before"]
    missing = {run.name for run in before.runs} - {run.name for run in now.runs}
    if missing and not different:
        different.append(f"{counted(len(missing), 'run is', 'runs are')} missing now, such as {min(missing)}")
    may = "trials and hours of a search may be changed." if now.search else "Configurations and seeds may be added."
    if different:
        raise ConfigError(
            f"{show_path(folder.path)} holds runs of another experiment:\n"
            + "".join(f"  {line}\n" for line in different[:20])
            + f"{may} For anything else, set a new folder as --output.",
            "sweep-differs",
            path=folder.path,
            found=different,
        )


def _value(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "not set"


def _write_files(
    folder: SweepFolder, experiment: ExperimentFile, plan: Plan, photographs: Mapping[str, Photographs]
) -> None:
    """Write what the runs read, with absolute paths: a run may be resumed from another folder; the plan last."""
    for path in (folder.base, folder.task("a").parent, folder.log("a").parent):
        make_folder(path)
    base = [folder.base / f"{number}-{path.name}" for number, path in enumerate(experiment.base, 1)]
    for path, copy in zip(experiment.base, base, strict=True):
        _write_if_other(copy, read_text(path, LARGEST_CONFIGURATION))
    for old in set(folder.base.iterdir()) - set(base):
        old.unlink()
    options = {one.name: {**experiment.options, **one.options} for one in experiment.candidates}
    for run in plan.runs:
        _write_task(folder, run, options[run.configuration], photographs[run.configuration])
    write_plan(folder, plan)


def _write_task(folder: SweepFolder, run: PlannedRun, options: Mapping[str, Any], of: Photographs) -> None:
    """Write the configuration file of a run, unless it is there already."""
    own: dict[str, Any] = {} if run.seed is None else {"seed_everything": run.seed}
    own["test_after_fit"] = run.fold is not None
    root, manifest = of.root, of.manifest
    if run.fold is not None:
        root, manifest = of.folder, folder.manifest(run.fold)
        own["data.fold"] = None
    paths = {"data.root": root, "data.manifest": manifest, "trainer.default_root_dir": folder.path}
    own |= {key: str(path.absolute()) for key, path in paths.items() if path is not None}
    own["run_name"] = run.name
    _write_if_other(folder.task(run.name), dump_yaml(nested({**options, **own})))


def _write_if_other(path: Path, text: str) -> None:
    try:
        if read_text(path, LARGEST_CONFIGURATION) == text:
            return
    except (OSError, ValueError, yaml.YAMLError):
        pass
    write_atomically(path, text)


def arguments_of(folder: SweepFolder, run: PlannedRun) -> list[str]:
    """Return the options of fit with which a run is started, or resumed if its folder exists."""
    if folder.run(run.name).config.is_file():
        # The photographs may have moved since the run began; their contents are compared.
        settings = load_yaml(read_text(folder.task(run.name), LARGEST_CONFIGURATION))
        data = settings["data"] if isinstance(settings.get("data"), dict) else {}
        paths = [f"--data.{key}={data[key]}" for key in ("root", "manifest") if data.get(key) is not None]
        return ["--resume", str(folder.run(run.name).path), *paths]
    return _arguments(sorted(folder.base.iterdir()), folder.task(run.name))
