"""Compare runs on the same photographs: the assessment of each run, and the difference and tests of each pair."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bldml.errors import RunError, UsageError
from bldml.io.safe_points import safe_point
from bldml.io.text import first_few, plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.auroc import paired_auroc
from bldml.metrics.checked import Units, units_of
from bldml.metrics.estimates import Estimate
from bldml.metrics.paired import (
    McNemar,
    holm,
    mcnemar,
    paired_accuracy,
    paired_sensitivity,
    significance_letters,
)
from bldml.metrics.selection import accuracies, areas, selection_gain
from bldml.report.comparison.settings import configuration_of, replicates_differ_in
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction
from bldml.run.reader import Evaluation, RunData, read_run

FAMILIES = ("accuracy", "auroc")
"""The declared families of tests: all pairs by each of these metrics. Holm's method adjusts within a family."""
ALPHA = 0.05  # two-sided significance level of a family
EQUAL_SPECIFICITY = 0.9  # at which sensitivities are compared
DRAWS = 1000  # of the bootstrap of each pair
MAX_LISTED = 20  # differing photographs in a message


@dataclass(frozen=True)
class ComparedRun:
    """One run in the comparison, its photographs matched with those of the others.

    Args:
        name: Its name in the comparison, unique there.
        data: The run.
        evaluation: The compared evaluation.
        assessment: Its metrics, the same as in the report of the run.
        rows: Its predictions by the path of the photograph in the first run, sorted by this path: all arrays below are
            in this order, which is common to all compared runs.
        contents: SHA-256 by the same path; empty where the run does not record it.
        letters: By family; runs that share a letter do not differ significantly.
    """

    name: str
    data: RunData
    evaluation: Evaluation
    assessment: Assessment
    rows: Mapping[str, Prediction]
    contents: Mapping[str, str]
    letters: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 for a photograph of the positive class, (n,)."""
        return np.array([row.true_class == self.data.classes.positive for row in self.rows.values()], dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probability of the positive class, (n,)."""
        return np.array([row.probability for row in self.rows.values()], dtype=np.float64)

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one, (n,)."""
        return np.array([not row.is_error for row in self.rows.values()], dtype=np.bool_)

    def value(self, family: str) -> float | None:
        """Return accuracy or AUROC, in [0, 1]; None for the AUROC of one class only."""
        return (self.assessment.at_threshold | self.assessment.overall)[family].value


@dataclass(frozen=True)
class PairedTest:
    """Two runs compared by one metric.

    Args:
        difference: First minus second, in [-1, 1].
        p: Two-sided p value of `paired_accuracy` or `paired_auroc`; None where not estimable.
        adjusted: The same, adjusted by Holm's method.
    """

    difference: Estimate
    p: float | None
    adjusted: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the runs differ significantly."""
        return self.adjusted is not None and self.adjusted < ALPHA


@dataclass(frozen=True)
class Difference:
    """Two runs on the same photographs: their names, McNemar's test, and the test of each family.

    `at_equal_specificity` holds both sensitivities at `EQUAL_SPECIFICITY` and their difference; None without both
    classes.
    """

    first: str
    second: str
    mcnemar: McNemar
    tests: dict[str, PairedTest]
    at_equal_specificity: tuple[float, float, Estimate] | None


@dataclass(frozen=True)
class Comparison:
    """The content of the comparison page and its tables.

    Args:
        reference: The run that was named first; photographs, classes and sampling units of the others are the same.
        runs: The runs, most accurate first.
        differences: All pairs of rivals, in the order of `runs`.
        gains: By family, how much the best run is expected to gain by being chosen on these photographs; None where it
            cannot be estimated.
        replicates: Names of the runs of each group that differ in seed or fold alone, which are not tested against each
            other.
    """

    reference: ComparedRun
    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    gains: dict[str, float | None]
    replicates: tuple[tuple[str, ...], ...] = ()


def compare_runs(paths: Sequence[Path], evaluation: str | None = None) -> Comparison:
    """Read the runs and compare all pairs.

    Args:
        paths: Run folders, two or more.
        evaluation: Name of an evaluation that all runs have; None for the test split of each run.

    Raises:
        UsageError: There are fewer than two different runs.
        RunError: A run is damaged or lacks this evaluation, the evaluations are of different photographs (the message
            lists the differences), or all runs are replicates of one configuration.
    """
    if len(paths) < 2:
        found = plain(str(paths[0])) if paths else "none"
        message = f"A comparison needs two runs or more, found {found}. Set run folders such as lightning_logs/<run>."
        raise UsageError(message, "runs-too-few", found=found, expected=2)
    same = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if same:
        message = f"The run {plain(str(same[0]))} is given more than once. Name each run once."
        raise UsageError(message, "run-given-twice", path=same[0])
    if evaluation is not None:
        RunFolder(paths[0]).evaluation(evaluation)  # refuses an invalid name
    read = [read_run(RunFolder(path)) for path in paths]
    chosen = [_chosen(data, evaluation) for data in read]
    reference, *others = zip(_names(paths), read, chosen, strict=True)
    first = _matched(*reference, None)
    runs = [first, *(_matched(*other, first) for other in others)]
    groups = _replicates(runs)
    for run in runs[1:]:
        _check_same(first, run)
    runs = _with_same_bursts(runs)
    first = runs[0]
    runs.sort(key=lambda run: (-(run.value("accuracy") or 0), -(run.value("auroc") or 0), run.name))
    units = units_of([row.unit for row in first.rows.values()], len(first.rows))
    same_group = {frozenset(pair) for group in groups for pair in combinations([run.name for run in group], 2)}
    rivals = [pair for pair in combinations(runs, 2) if frozenset(run.name for run in pair) not in same_group]
    differences = [_difference(one, two, units) for one, two in rivals]
    _adjust(differences)
    _give_letters(runs, differences)
    named = tuple(tuple(run.name for run in group) for group in groups)
    return Comparison(first, tuple(runs), tuple(differences), _gains(runs, units), named)


def _replicates(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Return the groups of runs that are replicates of one configuration: they differ in seed or fold alone.

    Raises:
        RunError: All runs are replicates of one configuration, or those of one are folds of different photographs.
    """
    by_configuration: dict[str, list[ComparedRun]] = {}
    for run in runs:
        by_configuration.setdefault(repr(sorted(configuration_of(run.data).items())), []).append(run)
    groups = [group for group in by_configuration.values() if replicates_differ_in([run.data for run in group])]
    for group in groups:
        if len(group) == len(runs) or any(run.rows.keys() != group[0].rows.keys() for run in group):
            names = ", ".join(run.name for run in group)
            keys = " and ".join(replicates_differ_in([run.data for run in group]))
            raise RunError(
                f"{names} are replicates of one configuration: they differ in {keys} alone. They are no rivals, and "
                "tests between them say nothing of configurations. What folds and seeds show together is in the "
                "sweep.html of their experiment. To compare configurations, name one run of each, on the same "
                "photographs.",
                "runs-are-replicates",
                found=[run.name for run in group],
                key=keys,
            )
    return groups


def _gains(runs: Sequence[ComparedRun], units: Units) -> dict[str, float | None]:
    probabilities = [run.probabilities for run in runs]
    return {
        "accuracy": selection_gain(accuracies([run.is_correct for run in runs]), units),
        "auroc": selection_gain(areas(runs[0].labels, probabilities), units),
    }


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the folder names, or the paths of those whose name occurs twice."""
    names = [plain(path.resolve().name) for path in paths]
    return [name if names.count(name) == 1 else plain(str(path)) for path, name in zip(paths, names, strict=True)]


def _chosen(data: RunData, name: str | None) -> Evaluation:
    """Return the evaluation of this name; without a name, the one with the role `test`."""
    found = [one for one in data.evaluations if (one.role == "test" if name is None else one.name == name)]
    if found:
        return found[0]
    run, wanted = plain(str(data.run.path)), "of its test split" if name is None else repr(plain(name))
    if any(one.name == name for one in data.unlabelled):
        message = f"The evaluation {wanted} of {run} has no labels. Compare evaluations of labelled photographs."
        raise RunError(message, "evaluation-unlabelled", path=run, found=wanted)
    available = ", ".join(f"{plain(one.name)} ({one.role})" for one in (*data.evaluations, *data.unlabelled))
    raise RunError(
        f"The run {run} has no evaluation {wanted}; it has {available or 'no evaluation'}. Set --evaluation to one "
        "that every run has, or evaluate the run: bldml test --ckpt_path <run>/checkpoints/best.ckpt.",
        "evaluation-missing",
        path=run,
        found=available,
        expected=wanted,
    )


def _matched(name: str, data: RunData, evaluation: Evaluation, first: ComparedRun | None) -> ComparedRun:
    """Return a run whose photographs are identified by their paths in the first run, matched by content.

    So photographs that were moved or renamed are recognised. Where the contents do not match all of them one to one,
    the run keeps its own paths.
    """
    known = {row.path: row.sha256 for row in evaluation.photographs or data.photographs}
    contents = {row.path: known.get(row.path, "") for row in evaluation.rows}
    keys = {path: path for path in contents}
    if first is not None and keys.keys() != first.rows.keys():
        paths = {digest: path for path, digest in first.contents.items() if digest}
        if set(contents.values()) == paths.keys() and len(paths) == len(contents):
            keys = {path: paths[digest] for path, digest in contents.items()}
    rows = {keys[row.path]: row for row in evaluation.rows}
    return ComparedRun(
        name=name,
        data=data,
        evaluation=evaluation,
        assessment=evaluation.assess(data.classes),
        rows={path: rows[path] for path in sorted(rows)},
        contents={keys[path]: digest for path, digest in contents.items()},
    )


def _with_same_bursts(runs: list[ComparedRun]) -> list[ComparedRun]:
    """Return the runs with the bursts of the first one that records them, so that all have the same sampling units."""
    recorded = next((run.rows for run in runs if all(row.burst is not None for row in run.rows.values())), None)
    if recorded is None:
        return runs
    found = []
    for run in runs:
        rows = {path: replace(row, burst=recorded[path].burst) for path, row in run.rows.items()}
        if rows != run.rows:
            by_path = {row.path: row for row in rows.values()}
            evaluation = replace(run.evaluation, rows=tuple(by_path[row.path] for row in run.evaluation.rows))
            run = replace(run, rows=rows, evaluation=evaluation, assessment=evaluation.assess(run.data.classes))
        found.append(run)
    return found


def _check_same(first: ComparedRun, other: ComparedRun) -> None:
    """Raise RunError unless both evaluations are of the same photographs with the same classes and groups."""
    a, b = first.rows, other.rows
    differences = [f"{plain(path)}: only in {first.name}" for path in sorted(a.keys() - b.keys())]
    differences += [f"{plain(path)}: only in {other.name}" for path in sorted(b.keys() - a.keys())]
    for path in sorted(a.keys() & b.keys()):
        compared = {"class": (a[path].true_class, b[path].true_class), "group": (a[path].group, b[path].group)}
        if first.contents[path] and other.contents[path]:
            compared["content"] = first.contents[path][:12], other.contents[path][:12]
        differences += [
            f"{plain(path)}: {what} {plain(one)!r} in {first.name}, {plain(two)!r} in {other.name}"
            for what, (one, two) in compared.items()
            if one != two
        ]
    if differences:
        listed = first_few(differences, MAX_LISTED, "\n  ", "\n  and ")
        raise RunError(
            f"The runs {first.name} and {other.name} were not evaluated on the same photographs (evaluation "
            f"{plain(first.evaluation.name)!r}: {len(a)} and {len(b)}), so they cannot be compared. {len(differences)} "
            f"differences:\n  {listed}\n"
            "Evaluate all runs on one folder: bldml test --ckpt_path … --data.root FOLDER --name NAME.",
            "evaluations-differ",
            found=differences,
        )
    ours, theirs = first.data.classes.positive, other.data.classes.positive
    if ours != theirs:
        raise RunError(
            f"The positive class of {first.name} is {plain(ours)!r}, that of {other.name} {plain(theirs)!r}. Compare "
            "runs with the same positive class.",
            "positive-classes-differ",
            found=[ours, theirs],
        )


def _difference(first: ComparedRun, second: ComparedRun, units: Units) -> Difference:
    """Return first minus second, with p values that are not adjusted yet."""
    safe_point()
    correct = first.is_correct, second.is_correct
    of_areas = paired_auroc(first.labels, first.probabilities, second.probabilities, units)
    tests = {
        "accuracy": PairedTest(*paired_accuracy(*correct, units)),
        "auroc": PairedTest(of_areas.difference, of_areas.p),
    }
    equal = paired_sensitivity(first.labels, first.probabilities, second.probabilities, EQUAL_SPECIFICITY, units, DRAWS)
    return Difference(first.name, second.name, mcnemar(*correct), tests, equal)


def _adjust(differences: Sequence[Difference]) -> None:
    """Add the adjusted p values, leaving out pairs without a test."""
    for family in FAMILIES:
        tested = [one for one in differences if one.tests[family].p is not None]
        adjusted = holm([one.tests[family].p or 0 for one in tested])
        for one, p in zip(tested, adjusted, strict=True):
            one.tests[family] = replace(one.tests[family], adjusted=p)


def _give_letters(runs: Sequence[ComparedRun], differences: Sequence[Difference]) -> None:
    for family in FAMILIES:
        significant = {frozenset((one.first, one.second)) for one in differences if one.tests[family].is_significant}
        ordered = sorted(runs, key=lambda run: -(run.value(family) or 0))  # called at once
        letters = significance_letters([run.name for run in ordered], significant)
        for run in runs:
            run.letters[family] = "" if run.value(family) is None else letters[run.name]
