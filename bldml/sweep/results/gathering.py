"""The runs of an experiment, read; and the pooled predictions of each configuration, of its complete seeds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bldml.errors import BldmlError
from bldml.io.text import first_few, plain
from bldml.metrics.replicates.pooled import Pooled
from bldml.report.run_claims import changes_said
from bldml.run.digests.record import changed_since
from bldml.run.predictions import Prediction
from bldml.run.provenance import ROLES
from bldml.run.reader import Evaluation, RunData, read_run
from bldml.sweep.plan import Candidate, Plan, PlannedRun, SweepFolder, changed_manifests
from bldml.sweep.results.changes import OF_PAGE, OF_PREDICTIONS, Changes, is_settled, remedy

Seed = int | None


@dataclass(frozen=True)
class CollectedRun:
    """A planned run and what it has recorded.

    Attributes:
        planned: The run in the plan.
        data: Its folder, read; None if there is none or it cannot be read.
        evaluation: The evaluation that is pooled: of its test split with folds, else of its validation split; None if
            the run has none.
        reason: Why it has none, half a sentence; empty if it has.
        changes: Which of the files that a page shows are not what they were when their digests were recorded; see
            `bldml.sweep.results.changes`.
    """

    planned: PlannedRun
    data: RunData | None = None
    evaluation: Evaluation | None = None
    reason: str = ""
    changes: Changes = field(default_factory=dict)


@dataclass(frozen=True)
class PooledRows:
    """The pooled predictions of one configuration.

    Attributes:
        seeds: Its complete seeds, s of them.
        rows: The predictions of each seed, sorted by photograph: the same n photographs in each.
        pooled: The same as arrays.
        positive: Name of the positive class.
    """

    seeds: tuple[Seed, ...]
    rows: tuple[tuple[Prediction, ...], ...]
    pooled: Pooled
    positive: str

    @property
    def photographs(self) -> list[tuple[str, str, object]]:
        """Path, true class and sampling unit of each photograph: what must be equal to be compared."""
        return [(row.path, row.true_class, row.unit) for row in self.rows[0]]

    def of_seeds(self, seeds: Sequence[Seed]) -> Pooled:
        """Return the predictions of some of its seeds, in this order."""
        index, whole = [self.seeds.index(seed) for seed in seeds], self.pooled
        return Pooled(whole.labels, whole.probabilities[index], whole.thresholds[index], whole.folds, whole.named_units)


@dataclass(frozen=True)
class Contender:
    """One configuration of an experiment, with its runs.

    Attributes:
        candidate: What the plan says of it.
        runs: Its runs, in the order of the plan.
        result: Pooled predictions of its complete seeds; None if no seed is complete.
        left_out: Sentences on seeds that are not pooled.
    """

    candidate: Candidate
    runs: tuple[CollectedRun, ...]
    result: PooledRows | None = None
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name, as a page shows it."""
        return plain(self.candidate.name)

    @property
    def read(self) -> list[RunData]:
        """The folders of its runs that could be read."""
        return [run.data for run in self.runs if run.data is not None]


@dataclass(frozen=True)
class Experiment:
    """All that an experiment has recorded.

    Attributes:
        plan: Its plan.
        configurations: Its configurations, in the order of the plan.
        other_photographs: Names of the configurations that have a result, but of other photographs than the first.
        changed: Which manifests of the folds are not as they were made.
    """

    plan: Plan
    configurations: tuple[Contender, ...]
    other_photographs: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def runs(self) -> list[CollectedRun]:
        """The runs of all configurations."""
        return [run for one in self.configurations for run in one.runs]

    @cached_property
    def common_seeds(self) -> tuple[Seed, ...]:
        """The seeds that are complete in every configuration that is compared."""
        found = [one.result.seeds for one in self.compared if one.result]
        return tuple(seed for seed in found[0] if all(seed in other for other in found)) if found else ()

    @property
    def compared(self) -> list[Contender]:
        """The configurations with a result of the same photographs as the first one that has any; complete trials."""
        left_out = {*self.other_photographs, *(one.name for one in self.plan.trials if one.state != "complete")}
        return [one for one in self.configurations if one.result and one.candidate.name not in left_out]


def gather(folder: SweepFolder, plan: Plan, reasons: Mapping[str, str]) -> Experiment:
    """Read the runs of an experiment; what cannot be used is named with the reason, and does not stop the others.

    Args:
        folder: The folder of the experiment.
        plan: Its plan.
        reasons: Why runs have not finished, by name, as far as the caller knows.
    """
    found = tuple(_configuration(folder, plan, candidate, reasons) for candidate in plan.configurations)
    first = next((one.result for one in found if one.result), None)
    others = [
        one.candidate.name
        for one in found
        if one.result and first and (one.result.photographs, one.result.positive) != (first.photographs, first.positive)
    ]
    return Experiment(plan, found, tuple(others), tuple(changed_manifests(folder, plan)))


def _configuration(folder: SweepFolder, plan: Plan, candidate: Candidate, reasons: Mapping[str, str]) -> Contender:
    split = "val" if plan.folds is None else "test"
    runs = tuple(read_planned(folder, one, split, reasons.get(one.name, "")) for one in plan.of(candidate.name))
    return Contender(candidate, runs, *pool_seeds(runs, has_folds=bool(plan.folds)))


def pool_seeds(runs: Sequence[CollectedRun], *, has_folds: bool) -> tuple[PooledRows | None, tuple[str, ...]]:
    """Return the pooled predictions of the complete seeds of runs, and sentences on the other seeds.

    Args:
        runs: Of one configuration.
        has_folds: Whether the runs of one seed are its folds.
    """
    seeds: dict[Seed, list[CollectedRun]] = {}
    for run in runs:
        seeds.setdefault(run.planned.seed, []).append(run)
    whole: dict[Seed, list[tuple[Prediction, float, int]]] = {}
    left_out, positive = [], ""
    for seed, of_seed in seeds.items():
        lacking = [run.planned.name for run in of_seed if run.evaluation is None]
        if lacking:
            if has_folds and len(lacking) < len(of_seed):
                left_out.append(f"{seed_name(seed)}: {len(of_seed) - len(lacking)} of {len(of_seed)} folds are there")
            continue
        rows, problem = _pool(of_seed)
        names = {run.data.classes.positive for run in of_seed if run.data}
        if problem or len(names) > 1 or positive not in ("", *names):
            left_out.append(f"{seed_name(seed)}: {problem or 'its positive class is another one'}")
        elif whole and _identity(rows) != _identity(next(iter(whole.values()))):
            left_out.append(f"{seed_name(seed)}: its photographs, classes or units differ from those of the first seed")
        else:
            whole[seed], positive = rows, names.pop()
    try:
        return _result(whole, positive) if whole else None, tuple(left_out)
    except ValueError as error:  # such as a probability that is no number
        return None, (*left_out, f"nothing can be pooled: {plain(str(error))}")


def seed_name(seed: Seed) -> str:
    """Return how a sentence names a seed."""
    return "the seed of the configuration" if seed is None else f"seed {seed}"


def _pool(runs: Sequence[CollectedRun]) -> tuple[list[tuple[Prediction, float, int]], str]:
    """Return the rows of one seed with threshold and fold, sorted by photograph; and why they cannot be pooled."""
    rows = [
        (row, run.evaluation.point.threshold, run.planned.fold or 0)
        for run in runs
        if run.evaluation
        for row in run.evaluation.rows
    ]
    twice = [path for path, n in Counter(row.path for row, _, _ in rows).items() if n > 1]
    problem = f"in several folds: {first_few([plain(path) for path in twice], 3)}" if twice else ""
    return sorted(rows, key=lambda one: one[0].path), problem


def _identity(rows: Sequence[tuple[Prediction, float, int]]) -> list[tuple[str, str, object]]:
    return [(row.path, row.true_class, row.unit) for row, _, _ in rows]


def _result(whole: Mapping[Seed, Sequence[tuple[Prediction, float, int]]], positive: str) -> PooledRows:
    first = next(iter(whole.values()))
    pooled = Pooled.checked(
        [int(row.true_class == positive) for row, _, _ in first],
        np.array([[row.probability for row, _, _ in rows] for rows in whole.values()]),
        np.array([[threshold for _, threshold, _ in rows] for rows in whole.values()]),
        [fold for _, _, fold in first],
        [row.unit for row, _, _ in first],
    )
    return PooledRows(
        tuple(whole), tuple(tuple(row for row, _, _ in rows) for rows in whole.values()), pooled, positive
    )


def read_planned(folder: SweepFolder, planned: PlannedRun, split: str, reason: str) -> CollectedRun:
    """Read one run and its evaluation of its val or test split; `reason` is why it has not finished, if known."""
    run, wanted = folder.run(planned.name), ROLES[split]
    if not run.path.is_dir():
        return CollectedRun(planned, reason=reason or "not begun")
    try:
        data = read_run(run)
    except BldmlError as error:
        return CollectedRun(planned, reason=reason or plain(str(error)))
    found = CollectedRun(planned, data)
    evaluation = next((one for one in data.evaluations if one.name == split), None)
    if evaluation is None:
        return replace(found, reason=reason or f"it has no evaluation of its {wanted} split")
    if evaluation.role != wanted:
        message = f"its evaluation {split} is of photographs with the role {evaluation.role}, not {wanted}"
        return replace(found, reason=message)
    # A run in the middle of writing is no changed one.
    changes = {} if reason or not is_settled(run) else changed_since(data, [evaluation], OF_PAGE)
    return replace(found, evaluation=evaluation, changes=changes)


def doubtful(runs: Iterable[CollectedRun]) -> tuple[str, str] | None:
    """Say of the first run whose predictions or classes were changed what it is, and what to do; None without any."""
    for run in runs:
        changes = {what: names for what, names in run.changes.items() if what in OF_PREDICTIONS}
        if changes and run.data:
            return f"{plain(run.planned.name)}: {changes_said(changes)[0]}", remedy(run.data.run, changes)
    return None
