"""Compare runs on the same photographs: the assessment of each run, and the difference and tests of each pair.

The declared families are all pairs by accuracy and all pairs by AUROC; Holm's method adjusts within each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bldml.errors import RunError
from bldml.io.text import plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.auroc import paired_auroc
from bldml.metrics.bootstrap import paired_bootstrap
from bldml.metrics.checked import Classes
from bldml.metrics.estimates import Estimate
from bldml.metrics.paired import McNemar, holm, mcnemar, significance_letters
from bldml.metrics.proportions import paired_difference
from bldml.metrics.scores import auroc as area
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction
from bldml.run.reader import Evaluation, RunData, read_run

ALPHA = 0.05  # two-sided significance level of a family of tests
MAX_LISTED = 20  # differing photographs in a message


@dataclass(frozen=True)
class ComparedRun:
    """One run in the comparison, its photographs matched with those of the others.

    Args:
        name: Its name in the comparison, unique there.
        data: The run.
        evaluation: The compared evaluation.
        assessment: Its metrics, the same as in the report of the run.
        rows: Its predictions by the path of the photograph in the first run.
        contents: SHA-256 by the same path, as far as the run records it.
        order: Indices that sort its arrays by path, an order common to all compared runs, (n,).
    """

    name: str
    data: RunData
    evaluation: Evaluation
    assessment: Assessment
    rows: Mapping[str, Prediction]
    contents: Mapping[str, str]
    order: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 for a photograph of the positive class, in the common order, (n,)."""
        return self.assessment.labels[self.order]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probability of the positive class, in the common order, (n,)."""
        return self.assessment.probabilities[self.order]

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one, in the common order, (n,)."""
        is_correct = (self.probabilities >= self.assessment.threshold) == (self.labels == 1)
        return np.asarray(is_correct, dtype=np.bool_)

    @property
    def groups(self) -> list[str] | None:
        """Groups in the common order, (n,); None unless every photograph has one."""
        groups = self.assessment.groups
        return None if groups is None else [groups[index] for index in self.order]


@dataclass(frozen=True)
class RankedRun:
    """One run of a comparison, with its letters.

    Args:
        run: The run.
        accuracy_letters, auroc_letters: Runs that share a letter do not differ significantly.
    """

    run: ComparedRun
    accuracy_letters: str
    auroc_letters: str


@dataclass(frozen=True)
class Difference:
    """Two runs on the same photographs, first minus second.

    Args:
        first, second: Names of the runs.
        accuracy: Difference of the accuracies, in [-1, 1].
        mcnemar: McNemar's test on the photographs that only one of them classifies correctly.
        accuracy_p: p value for the family: by McNemar's exact test, or by the cluster bootstrap where there are groups.
        accuracy_adjusted: The same, adjusted by Holm's method.
        auroc: Difference of the areas under the ROC curve, in [-1, 1].
        auroc_p, auroc_adjusted: By DeLong's test, or by the cluster bootstrap; None where not estimable.
    """

    first: str
    second: str
    accuracy: Estimate
    mcnemar: McNemar
    accuracy_p: float | None
    accuracy_adjusted: float | None
    auroc: Estimate
    auroc_p: float | None
    auroc_adjusted: float | None


@dataclass(frozen=True)
class Comparison:
    """The content of the comparison page and its tables.

    Args:
        evaluation: Name of the compared evaluation.
        classes: The two classes.
        n, n_positive: Numbers of photographs.
        n_groups: Number of groups (trees, sites); 0 unless every photograph has one.
        ranked_runs: The runs, most accurate first.
        differences: All pairs, in the order of the ranked runs.
    """

    evaluation: str
    classes: Classes
    n: int
    n_positive: int
    n_groups: int
    ranked_runs: tuple[RankedRun, ...]
    differences: tuple[Difference, ...]


def compare_runs(paths: Sequence[Path], evaluation: str | None = None) -> Comparison:
    """Read the runs and compare all pairs.

    Args:
        paths: Run folders, two or more.
        evaluation: Name of an evaluation that all runs have; None for the test split of each run.

    Raises:
        RunError: There are fewer than two different runs, a run is damaged or lacks this evaluation, or the evaluations
            are of different photographs; the message lists the differences.
    """
    if len(paths) < 2:
        found = plain(str(paths[0])) if paths else "none"
        message = f"A comparison needs two runs or more, found {found}. Set run folders such as lightning_logs/<run>."
        raise RunError(message, "runs-too-few", found=found, expected=2)
    same = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if same:
        message = f"The run {plain(str(same[0]))} is given more than once. Name each run once."
        raise RunError(message, "run-given-twice", path=same[0])
    if evaluation is not None:
        RunFolder(paths[0]).evaluation(evaluation)  # refuses an invalid name
    chosen: list[tuple[str, RunData, Evaluation]] = []
    for path, name in zip(paths, _names(paths), strict=True):
        data = read_run(RunFolder(path))
        chosen.append((name, data, _chosen(data, evaluation)))
    return compare_evaluations(chosen)


def compare_evaluations(chosen: Sequence[tuple[str, RunData, Evaluation]]) -> Comparison:
    """Compare evaluations of the same photographs.

    Args:
        chosen: For each run its unique name, its data, and the evaluation to compare.

    Raises:
        RunError: The photographs are not the same.
    """
    (_, data, evaluation), *_ = chosen
    reference = _with_paths(*chosen[0], {row.path: row.path for row in evaluation.rows}, _contents(data, evaluation))
    runs = [reference]
    for other in chosen[1:]:
        runs.append(_matched_to(reference, *other))
        _check_same(reference, runs[-1])
    groups = reference.groups
    # By accuracy, then by AUROC (both highest first), then by name.
    ranked = sorted(runs, key=lambda run: (-int(run.is_correct.sum()), -(_area(run).value or 0), run.name))
    differences = _adjust([_difference(a, b, groups) for a, b in combinations(ranked, 2)])
    names = [run.name for run in ranked]
    by_area = [run.name for run in sorted(ranked, key=lambda run: -(_area(run).value or 0))]
    accuracy_letters = significance_letters(names, _significant_pairs((d, d.accuracy_adjusted) for d in differences))
    area_letters = significance_letters(by_area, _significant_pairs((d, d.auroc_adjusted) for d in differences))
    return Comparison(
        evaluation=evaluation.name,
        classes=data.classes,
        n=reference.assessment.n,
        n_positive=reference.assessment.n_positive,
        n_groups=reference.assessment.n_groups,
        ranked_runs=tuple(
            RankedRun(run, accuracy_letters[run.name], "" if _area(run).value is None else area_letters[run.name])
            for run in ranked
        ),
        differences=tuple(differences),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the folder names, or the paths of those whose name occurs twice."""
    names = [plain(path.resolve().name) for path in paths]
    count = Counter(names)
    return [name if count[name] == 1 else plain(str(path)) for name, path in zip(names, paths, strict=True)]


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


def _contents(data: RunData, evaluation: Evaluation) -> dict[str, str]:
    """Return SHA-256 by path, from the photographs of the evaluation, or of the run; empty where none is recorded."""
    known = {row.path: row.sha256 for row in evaluation.photographs or data.photographs if row.sha256}
    return {row.path: known[row.path] for row in evaluation.rows if row.path in known}


def _with_paths(
    name: str, data: RunData, evaluation: Evaluation, keys: Mapping[str, str], contents: Mapping[str, str]
) -> ComparedRun:
    """Return a run whose photographs are identified by `keys`: for each of its paths, the path to use instead."""
    paths = [keys[row.path] for row in evaluation.rows]
    return ComparedRun(
        name=name,
        data=data,
        evaluation=evaluation,
        assessment=evaluation.assess(data.classes),
        rows=dict(zip(paths, evaluation.rows, strict=True)),
        contents={keys[path]: digest for path, digest in contents.items()},
        order=np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64),
    )


def _matched_to(first: ComparedRun, name: str, data: RunData, evaluation: Evaluation) -> ComparedRun:
    """Return a run whose photographs are identified by their paths in the first run, matched by content.

    So photographs that were moved or renamed are recognised. Where the contents do not match all of them one to one,
    the run keeps its own paths.
    """
    contents, keys = _contents(data, evaluation), {row.path: row.path for row in evaluation.rows}
    paths = {digest: path for path, digest in first.contents.items()}
    n = len(paths)
    if keys.keys() != first.rows.keys() and set(contents.values()) == paths.keys() and len(contents) == n == len(keys):
        keys = {path: paths[digest] for path, digest in contents.items()}
    return _with_paths(name, data, evaluation, keys, contents)


def _check_same(first: ComparedRun, other: ComparedRun) -> None:
    """Raise RunError unless both evaluations are of the same photographs with the same classes and groups."""
    a, b = first.rows, other.rows
    differences = [f"{plain(path)}: only in {first.name}" for path in sorted(a.keys() - b.keys())]
    differences += [f"{plain(path)}: only in {other.name}" for path in sorted(b.keys() - a.keys())]
    for path in sorted(a.keys() & b.keys()):
        for what, one, two in (
            ("class", a[path].true_class, b[path].true_class),
            ("group", a[path].group, b[path].group),
            ("content", *_first_digits(first.contents.get(path), other.contents.get(path))),
        ):
            if one != two:
                differences.append(
                    f"{plain(path)}: {what} {plain(one)!r} in {first.name}, {plain(two)!r} in {other.name}"
                )
    if differences:
        more = f"\n  and {len(differences) - MAX_LISTED} more" if len(differences) > MAX_LISTED else ""
        raise RunError(
            f"The runs {first.name} and {other.name} were not evaluated on the same photographs (evaluation "
            f"{plain(first.evaluation.name)!r}: {len(a)} and {len(b)}), so they cannot be compared. {len(differences)} "
            "differences:\n  "
            + "\n  ".join(differences[:MAX_LISTED])
            + f"{more}\nEvaluate all runs on one folder: bldml test --ckpt_path … --data.root FOLDER --name NAME.",
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


def _first_digits(one: str | None, two: str | None) -> tuple[str, str]:
    """Return the first 12 digits of two SHA-256 values; two empty texts where one is not known."""
    return (one[:12], two[:12]) if one and two else ("", "")


def _area(run: ComparedRun) -> Estimate:
    return run.assessment.overall["auroc"]


def _difference(first: ComparedRun, second: ComparedRun, groups: Sequence[str] | None) -> Difference:
    """Return first minus second, with p values that are not adjusted yet."""
    a, b, labels = first.is_correct, second.is_correct, first.labels
    test = mcnemar(a, b)
    accuracy = paired_difference(int(np.sum(a & b)), test.b, test.c, int(np.sum(~a & ~b)))
    accuracy_p: float | None = test.exact
    pair = paired_auroc(labels, first.probabilities, second.probabilities)
    areas = pair.difference
    auroc_p = None if areas.value is None else pair.p
    if groups is not None:
        accuracy, accuracy_p = _clustered(
            accuracy.value, lambda index: float(a[index].mean()) - float(b[index].mean()), labels, groups
        )
        if areas.value is not None:
            areas, auroc_p = _clustered(areas.value, _difference_of_areas(first, second), labels, groups)
    return Difference(first.name, second.name, accuracy, test, accuracy_p, None, areas, auroc_p, None)


def _clustered(
    value: float | None,
    statistic: Callable[[NDArray[np.int64]], float | None],
    labels: NDArray[np.int64],
    groups: Sequence[str],
) -> tuple[Estimate, float | None]:
    """Return a difference with the interval and the p value of the cluster bootstrap."""
    resampled = paired_bootstrap(statistic, labels, groups)
    if resampled is None:
        return Estimate(value, None, "not defined in any resample"), None
    return Estimate(value, resampled.interval), resampled.p


def _difference_of_areas(first: ComparedRun, second: ComparedRun) -> Callable[[NDArray[np.int64]], float | None]:
    labels, a, b = first.labels, first.probabilities, second.probabilities

    def statistic(index: NDArray[np.int64]) -> float | None:
        areas = area(labels[index], a[index]), area(labels[index], b[index])
        return None if areas[0] is None or areas[1] is None else areas[0] - areas[1]

    return statistic


def _significant_pairs(pairs: Iterable[tuple[Difference, float | None]]) -> set[frozenset[str]]:
    return {frozenset((pair.first, pair.second)) for pair, p in pairs if p is not None and p < ALPHA}


def _adjust(differences: Sequence[Difference]) -> list[Difference]:
    """Adjust the p values by Holm's method, for accuracy and AUROC separately, leaving out pairs without a test."""
    accuracy = _holm([difference.accuracy_p for difference in differences])
    areas = _holm([difference.auroc_p for difference in differences])
    return [
        replace(difference, accuracy_adjusted=p, auroc_adjusted=q)
        for difference, p, q in zip(differences, accuracy, areas, strict=True)
    ]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]
