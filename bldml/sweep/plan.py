"""The plan of an experiment: its configurations, seeds and folds, and the run of each combination."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bldml.dataset.files import show_path
from bldml.errors import ConfigError, RunError, UsageError
from bldml.io.text import first_few
from bldml.metrics.registry import METRICS, canonical
from bldml.run.digests.content import digest_of_file
from bldml.run.folder import RunFolder
from bldml.sweep.records import read_record, write_record

if TYPE_CHECKING:
    from bldml.training.module import LeafClassifier

SCHEMA = 1
MOST_RUNS = 10_000
_MANIFEST = re.compile(r"(fold[0-9]{1,5}|final)\.csv")


@dataclass(frozen=True)
class Candidate:
    """One of the configurations that an experiment compares.

    Args:
        name: Its name, part of the names of its runs' folders.
        options: What it sets, values by dotted key, such as `{"model.backbone": "resnet50"}`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """One run: a configuration with a seed and a fold, which are replicates of it and no rivals.

    Args:
        name: Name of its folder.
        configuration: Name of its configuration.
        seed: Its `seed_everything`; None for the base configuration's.
        fold: The fold that is its test split, counted from 0; None where the experiment has no folds. Then the run was
            evaluated on train and val alone, and its test split is sealed.
    """

    name: str
    configuration: str
    seed: int | None = None
    fold: int | None = None


TrialState = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """One trial of a search: a configuration of the experiment, with the name `trial-0007`.

    Args:
        number: Its number in the study, counted from 0.
        params: What it sets within the search space, by key of fit.
        state: As the study has it; a running one may be interrupted.
        value: Its objective, the mean over its runs of the best validation value of the monitored metric; of a pruned
            one, the same over what it had done. None while it runs, or if it failed.
        reason: Why it failed or was pruned, in a sentence.
    """

    number: int
    params: Mapping[str, Any]
    state: TrialState = "running"
    value: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of its configuration."""
        return f"trial-{self.number:04}"


@dataclass(frozen=True)
class Own:
    """What a user brings that is not of bldml. It is said with each command: no file of an experiment can say it.

    Args:
        trusted: Whether configurations may name classes that bldml does not know.
        model_class: A subclass of LeafClassifier; None for that itself.
    """

    trusted: bool = False
    model_class: "type[LeafClassifier] | None" = None

    @property
    def options(self) -> list[str]:
        """Options of fit by which a run is told; the class comes from the program that starts it."""
        return ["--trust_config"] if self.trusted else []


NOTHING = Own()


@dataclass(frozen=True)
class Plan:
    """What `plan.json` in the folder of an experiment holds.

    Args:
        name: Name of the experiment.
        configurations: The rivals, in the order in which they were written.
        runs: All runs, in the order in which they are to be done.
        metric: Name of the registered metric by which configurations are compared.
        folds: Number of folds; None for none.
        chosen: Name of the configuration that was named beforehand for the test set; None to choose by the metric.
        settings: What all configurations have in common: what the base files and the experiment's `options` set, by
            dotted key. A configuration's own `options` replace these.
        division: How the folds were made, by key of the experiment's `folds`; empty without folds.
        search: The search that proposes the configurations: its `ranges`, `pruning`, `seed`, `monitor`, `seeds`,
            `folds`, `trials` and `hours`; empty without a search.
        trials: The trials of the search, in their order; each is a configuration.
        digests: SHA-256 of the content of the manifests in `folds`, by file name; empty if an older version wrote it.
    """

    name: str
    configurations: tuple[Candidate, ...]
    runs: tuple[PlannedRun, ...]
    metric: str
    folds: int | None = None
    chosen: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    division: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    def of(self, configuration: str) -> tuple[PlannedRun, ...]:
        """Return the runs of one configuration."""
        return tuple(run for run in self.runs if run.configuration == configuration)


@dataclass(frozen=True)
class SweepFolder:
    """The folder of an experiment and the paths of its files, which need not exist yet.

    Args:
        path: The folder, such as `sweeps/backbones`.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """The plan as JSON."""
        return self.path / "plan.json"

    def manifest(self, fold: int) -> Path:
        """Return the manifest in which this fold is the test split, and other groups are val and train."""
        return self.path / "folds" / f"fold{fold}.csv"

    @property
    def final(self) -> Path:
        """The manifest for the one look at the test set: it is test, and all folds are train and val."""
        return self.path / "folds" / "final.csv"

    @property
    def opened(self) -> Path:
        """For which configuration the test set was opened, as JSON; missing while it is sealed."""
        return self.path / "opened.json"

    @property
    def ensembles(self) -> Path:
        """The run folders of its ensembles, apart from those with an --output of their own."""
        return self.path / "ensembles"

    @property
    def ensembles_elsewhere(self) -> Path:
        """Paths of the run folders of the others, as JSON; missing without any."""
        return self.path / "ensembles.json"

    @property
    def study(self) -> Path:
        """The journal of the study of a search."""
        return self.path / "study.journal"

    @property
    def lock(self) -> Path:
        """Held by a process that makes or changes the plan, or reads or changes the study of a search."""
        return self.path / ".lock"

    @property
    def base(self) -> Path:
        """Copies of the base configuration files, named by their order."""
        return self.path / "base"

    def task(self, name: str) -> Path:
        """Return the configuration file of a run, which follows those in `base`."""
        return self.path / "tasks" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """Return what the processes of a run wrote to their terminal."""
        return self.path / "logs" / f"{name}.log"

    def code(self, name: str) -> Path:
        """Return the file with the exit code of the last process of a run that ended; missing while one runs."""
        return self.path / "logs" / f"{name}.code"

    def claim(self, name: str) -> Path:
        """Return the lock file of a run, held by the sweep that does it."""
        return self.path / "logs" / f"{name}.lock"

    def trial_claim(self, name: str) -> Path:
        """Return the lock file of a trial, held by the worker that does it."""
        return self.path / "logs" / f"{name}.trial"

    def run(self, name: str) -> RunFolder:
        """Return the folder of a run, an ordinary one, where a fit with `--output <this folder>` puts it."""
        return RunFolder(self.path / "lightning_logs" / name)


def default_folder(experiment: Path) -> Path:
    """Return the folder of an experiment for which none is set.

    >>> default_folder(Path("experiments/backbones.yaml")).as_posix()
    'sweeps/backbones'
    """
    return Path("sweeps") / experiment.stem


def write_plan(folder: SweepFolder, plan: Plan) -> None:
    """Write the plan into the folder of an experiment, which exists."""
    content = asdict(plan)
    if not plan.digests:  # versions that do not know it read the plan
        del content["digests"]
    write_record(folder.plan, {"schema": SCHEMA, **content})


def read_plan(folder: SweepFolder) -> Plan:
    """Read the plan of an experiment.

    Raises:
        RunError: The file is missing or is no plan.
    """
    content = read_record(folder.plan, "the configurations, seeds and folds of the experiment", schema=int)
    try:
        if content.pop("schema") != SCHEMA:
            raise ValueError("it was written by another version")
        if canonical(str(content["metric"])) not in METRICS:
            raise ValueError(f"its metric is {content['metric']!r}")
        configurations = tuple(Candidate(**one) for one in content.pop("configurations"))
        runs = tuple(PlannedRun(**one) for one in content.pop("runs"))
        trials = tuple(Trial(**one) for one in content.pop("trials", ()))
        digests = content.get("digests", {})
        if not all(_MANIFEST.fullmatch(name) and isinstance(digest, str) for name, digest in digests.items()):
            raise ValueError("its digests are not those of manifests")
        return Plan(configurations=configurations, runs=runs, trials=trials, **content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"{folder.plan} is not the plan of an experiment ({error}). Repeat the sweep with another --output."
        raise RunError(message, "plan-damaged", path=folder.plan, reason=str(error)) from error


def changed_manifests(folder: SweepFolder, plan: Plan) -> list[str]:
    """Say which manifests of the folds are not as they were made; empty where none is, or it is not recorded."""
    paths = [folder.final.with_name(name) for name in plan.digests]
    changed = [path for path in paths if digest_of_file(path) != plan.digests[path.name]]
    return [
        f"{path.relative_to(folder.path).as_posix()} is missing or was changed since it was made (by the SHA-256 in "
        "plan.json)"
        for path in changed
    ]


def check_manifests(folder: SweepFolder, plan: Plan, names: Collection[str]) -> None:
    """Raise RunError where one of these manifests, which is to be read, is not as it was made."""
    digests = {name: digest for name, digest in plan.digests.items() if name in names}
    if changed := changed_manifests(folder, replace(plan, digests=digests)):
        message = f"{show_path(folder.path)}: {changed[0]}. What is made from it now may have other photographs than "
        message += "what was made before. Restore it from a copy, or repeat the sweep with another --output."
        raise RunError(message, "sweep-manifest-changed", path=folder.path, found=changed)


def final_runs(plan: Plan, configuration: str) -> list[PlannedRun]:
    """Return the runs of a configuration that are tested on the sealed test set, one for each seed.

    With folds they are trained for that, on the photographs of all folds; without, they are its runs.
    """
    runs = plan.of(configuration)
    if plan.folds is None:
        return list(runs)
    seeds = dict.fromkeys(run.seed for run in runs)
    names = {seed: f"{configuration}{'' if seed is None else f'_seed{seed}'}_final" for seed in seeds}
    return [PlannedRun(name, configuration, seed) for seed, name in names.items()]


def opened_runs(folder: SweepFolder, plan: Plan) -> list[PlannedRun]:
    """Return the runs that are trained for the opened test set; none while it is sealed, or without folds."""
    note = opened_note(folder, plan)
    return final_runs(plan, note["configuration"]) if note and plan.folds is not None else []


def opened_note(folder: SweepFolder, plan: Plan) -> dict[str, Any]:
    """Return what opened.json says; empty while the test set is sealed.

    Raises:
        RunError: It is damaged, or names no configuration of the plan: the test set is not taken for sealed.
    """
    what = "that the test set was opened, when and for which configuration"
    note = read_record(folder.opened, what, configuration=str)
    names = [one.name for one in plan.configurations]
    if note and note["configuration"] not in names:
        message = f"According to {show_path(folder.opened)}, the test set was opened for {note['configuration']} on "
        message += (
            f"{note.get('time')}, but the experiment has only {first_few(names, 20, ', ', ' and ')}. Restore the "
        )
        raise RunError(
            f"{message}file from a copy.", "opened-configuration-unknown", path=folder.opened, expected=names
        )
    return note


def ensembles_elsewhere(folder: SweepFolder) -> list[str]:
    """Return the paths of the ensembles with an --output of their own.

    Raises:
        RunError: ensembles.json is damaged: the looks of these ensembles at the test set are not taken for none.
    """
    what = "where other ensembles of this experiment are, whose looks at the test set count"
    found = read_record(folder.ensembles_elsewhere, what, paths=list).get("paths", [])
    return [path for path in found if isinstance(path, str) and "\0" not in path]


def find_experiment(source: Path, command: str) -> tuple[SweepFolder, str | None]:
    """Return the experiment that a path names, and its configuration; None for all of them.

    Args:
        source: Folder of an experiment, or the name of one of its configurations in that folder, such as
            `sweeps/backbones/resnet50`.
        command: The command that asks, for the message.

    Raises:
        UsageError: There is no such experiment or configuration.
        RunError: It is a trial that was pruned or failed.
    """
    if SweepFolder(source).plan.is_file():
        return SweepFolder(source), None
    folder = SweepFolder(source.parent)
    if not folder.plan.is_file():
        message = (
            f"There is no experiment in {show_path(source)} (no plan.json). Give the folder of a sweep, or the name "
        )
        message += f"of one of its configurations in it: python -m bldml {command} sweeps/backbones/NAME."
        raise UsageError(message, "experiment-missing", path=source)
    plan = read_plan(folder)
    names = [one.name for one in plan.configurations]
    if source.name not in names:
        message = f"The experiment in {show_path(folder.path)} has no configuration {source.name}. It has "
        message += f"{first_few(names, 20, ', ', ' and ')}."
        raise UsageError(message, "configuration-unknown", found=source.name, expected=names)
    ended = {one.name: one for one in plan.trials if one.state in ("pruned", "failed")}
    if trial := ended.get(source.name):
        message = f"{source.name} was {trial.state}, so it does not have all its runs ({trial.reason}). Take a trial "
        message += f"that is complete; sweep.html in {show_path(folder.path)} names the best."
        raise RunError(message, "trial-not-complete", path=folder.path, found=source.name)
    return folder, source.name


def check_size(path: Path, configurations: int, seeds: int, folds: int) -> None:
    """Raise ConfigError for more runs than anybody means."""
    runs = configurations * seeds * folds
    if runs > MOST_RUNS:
        shown = f"{runs:,}" if runs < 10**15 else "too many"
        message = f"{show_path(path)}: an experiment has at most {MOST_RUNS:,} runs; this one would have {shown}. Make "
        message += "fewer configurations, trials, seeds or folds."
        raise ConfigError(message, "experiment-too-large", path=path, found=shown, expected=MOST_RUNS)


def check_cases(path: Path, candidates: Iterable[Candidate], before: Plan | None) -> None:
    """Raise ConfigError where names differ in case alone, which some file systems ignore; those of before may."""
    known = {one.name for one in before.configurations} if before else set[str]()
    seen: dict[str, str] = {}
    for one in candidates:
        other = seen.setdefault(one.name.casefold(), one.name)
        if other != one.name and not {other, one.name} <= known:
            message = f"{show_path(path)}: two configurations are called {other} and {one.name} and differ in case "
            message += "alone, which some file systems ignore. Rename one of them."
            raise ConfigError(message, "configurations-differ-in-case", path=path, found=one.name, expected=other)
