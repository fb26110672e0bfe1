"""Compare runs on the same photographs: each as its report assesses it, each pair with its difference and tests.

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
from bldml.metrics.paired import McNemar, holm, letters, mcnemar
from bldml.metrics.proportions import paired_difference
from bldml.metrics.scores import auroc as area
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction
from bldml.run.reader import Evaluation, RunData, read_run

ALPHA = 0.05  # of a family, two-sided
LISTED = 20  # differing photographs in a message; a terminal shows no more


@dataclass(frozen=True)
class ComparedRun:
    """One run in the comparison, its photographs matched with those of the others.

    Args:
        name: What it is called in the comparison; unique there.
        data: The run.
        evaluation: The evaluation that is compared.
        assessment: Its figures, the same as in the run's report.
        rows: Its predictions by the path that the photograph has in the first run.
        contents: SHA-256 by the same path, as far as the run says.
        order: Indices that bring its arrays into the order of paths, which all compared runs have in common, (n,).
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
    def right(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one, in the common order, (n,)."""
        found = (self.probabilities >= self.assessment.threshold) == (self.labels == 1)
        return np.asarray(found, dtype=np.bool_)

    @property
    def groups(self) -> list[str] | None:
        """Groups in the common order, (n,), where every photograph has one."""
        groups = self.assessment.groups
        return None if groups is None else [groups[index] for index in self.order]


@dataclass(frozen=True)
class Standing:
    """One run and how it stands.

    Args:
        run: The run.
        accuracy_letters, auroc_letters: Runs that share a letter cannot be told apart.
    """

    run: ComparedRun
    accuracy_letters: str
    auroc_letters: str


@dataclass(frozen=True)
class Difference:
    """Two runs on the same photographs, first minus second.

    Args:
        first, second: names of the runs.
        accuracy: difference of the accuracies, in [-1, 1].
        mcnemar: photographs that only one of them calls right, and the tests of it.
        accuracy_p: the p value of the family: McNemar's exact one, or the cluster bootstrap's where there are groups.
        accuracy_adjusted: the same after Holm.
        auroc: difference of the areas, in [-1, 1].
        auroc_p, auroc_adjusted: by DeLong, or by the cluster bootstrap; None where not estimable.
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
    """What the page and the tables show.

    Args:
        evaluation: name of the evaluation that is compared.
        classes: the two classes.
        n, n_positive: photographs.
        n_groups: groups (trees, sites) that all photographs belong to; 0 where they have none.
        standings: the runs, most accurate first.
        differences: all pairs in the order of the standings.
    """

    evaluation: str
    classes: Classes
    n: int
    n_positive: int
    n_groups: int
    standings: tuple[Standing, ...]
    differences: tuple[Difference, ...]


def compare_runs(paths: Sequence[Path], evaluation: str | None = None) -> Comparison:
    """Read the runs and compare each with each.

    Args:
        paths: Run folders, two or more.
        evaluation: Name of an evaluation that all of them have; None for each run's test split.

    Raises:
        RunError: Fewer than two different runs, one that is damaged or without this evaluation, or evaluations of
            different photographs; the message lists the differing ones.
    """
    if len(paths) < 2:
        found = plain(str(paths[0])) if paths else "none"
        message = f"A comparison needs two runs or more, found {found}. Give run folders, lightning_logs/<run>."
        raise RunError(message, "runs-too-few", found=found, expected=2)
    same = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if same:
        message = f"The run {plain(str(same[0]))} is given more than once. Name each run once."
        raise RunError(message, "run-given-twice", path=same[0])
    if evaluation is not None:
        RunFolder(paths[0]).evaluation(evaluation)  # refuses what is no name
    chosen: list[tuple[str, RunData, Evaluation]] = []
    for path, name in zip(paths, _names(paths), strict=True):
        data = read_run(RunFolder(path))
        chosen.append((name, data, _chosen(data, evaluation)))
    return compare_evaluations(chosen)


def compare_evaluations(chosen: Sequence[tuple[str, RunData, Evaluation]]) -> Comparison:
    """Compare evaluations of the same photographs.

    Args:
        chosen: For each run its unique name, what was read of it, and which of its evaluations.

    Raises:
        RunError: The photographs are not the same.
    """
    (_, data, evaluation), *_ = chosen
    like = _matched(*chosen[0], {row.path: row.path for row in evaluation.rows}, _contents(data, evaluation))
    runs = [like]
    for one in chosen[1:]:
        runs.append(_like(like, *one))
        _check_same(like, runs[-1])
    groups = like.groups
    # Most accurate first, then the greater area, then by name.
    ranked = sorted(runs, key=lambda run: (-int(run.right.sum()), -(_area(run).value or 0), run.name))
    differences = _adjust([_difference(a, b, groups) for a, b in combinations(ranked, 2)])
    names = [run.name for run in ranked]
    by_area = [run.name for run in sorted(ranked, key=lambda run: -(_area(run).value or 0))]
    accuracy_letters = letters(names, _told_apart((d, d.accuracy_adjusted) for d in differences))
    area_letters = letters(by_area, _told_apart((d, d.auroc_adjusted) for d in differences))
    return Comparison(
        evaluation=evaluation.name,
        classes=data.classes,
        n=like.assessment.n,
        n_positive=like.assessment.n_positive,
        n_groups=like.assessment.n_groups,
        standings=tuple(
            Standing(run, accuracy_letters[run.name], "" if _area(run).value is None else area_letters[run.name])
            for run in ranked
        ),
        differences=tuple(differences),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names, or their paths where a name occurs twice."""
    names = [plain(path.resolve().name) for path in paths]
    count = Counter(names)
    return [name if count[name] == 1 else plain(str(path)) for name, path in zip(names, paths, strict=True)]


def _chosen(data: RunData, name: str | None) -> Evaluation:
    """The evaluation of this name; without a name that of the test split, by its role."""
    found = [one for one in data.evaluations if (one.role == "test" if name is None else one.name == name)]
    if found:
        return found[0]
    run, wanted = plain(str(data.run.path)), "of its test split" if name is None else repr(plain(name))
    if any(one.name == name for one in data.unlabelled):
        message = f"The evaluation {wanted} of {run} has no labels. Compare evaluations of labelled photographs."
        raise RunError(message, "evaluation-unlabelled", path=run, found=wanted)
    there = ", ".join(f"{plain(one.name)} ({one.role})" for one in (*data.evaluations, *data.unlabelled))
    raise RunError(
        f"The run {run} has no evaluation {wanted}; it has {there or 'none at all'}. Give --evaluation NAME for one "
        "that every run has, or evaluate the run: bldml test --ckpt_path <run>/checkpoints/best.ckpt.",
        "evaluation-missing",
        path=run,
        found=there,
        expected=wanted,
    )


def _contents(data: RunData, evaluation: Evaluation) -> dict[str, str]:
    """SHA-256 by path, from the photographs of the evaluation, or of the run; empty where nothing tells."""
    known = {row.path: row.sha256 for row in evaluation.photographs or data.photographs if row.sha256}
    return {row.path: known[row.path] for row in evaluation.rows if row.path in known}


def _matched(
    name: str, data: RunData, evaluation: Evaluation, keys: Mapping[str, str], contents: Mapping[str, str]
) -> ComparedRun:
    """A run whose photographs are called by `keys`, a path for each of its own."""
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


def _like(first: ComparedRun, name: str, data: RunData, evaluation: Evaluation) -> ComparedRun:
    """A run whose photographs are called by the paths that they have in the first one, if contents tell all of them.

    Photographs that lie elsewhere or have been renamed are the same photographs.
    """
    contents, keys = _contents(data, evaluation), {row.path: row.path for row in evaluation.rows}
    paths = {digest: path for path, digest in first.contents.items()}
    n = len(paths)
    if keys.keys() != first.rows.keys() and set(contents.values()) == paths.keys() and len(contents) == n == len(keys):
        keys = {path: paths[digest] for path, digest in contents.items()}
    return _matched(name, data, evaluation, keys, contents)


def _check_same(first: ComparedRun, other: ComparedRun) -> None:
    """Refuse two evaluations that are not of the same photographs with the same classes and groups."""
    a, b = first.rows, other.rows
    told = [f"{plain(path)}: only in {first.name}" for path in sorted(a.keys() - b.keys())]
    told += [f"{plain(path)}: only in {other.name}" for path in sorted(b.keys() - a.keys())]
    for path in sorted(a.keys() & b.keys()):
        for what, one, two in (
            ("class", a[path].true_class, b[path].true_class),
            ("group", a[path].group, b[path].group),
            ("content", *_both(first.contents.get(path), other.contents.get(path))),
        ):
            if one != two:
                told.append(f"{plain(path)}: {what} {plain(one)!r} in {first.name}, {plain(two)!r} in {other.name}")
    if told:
        more = f"\n  and {len(told) - LISTED} more" if len(told) > LISTED else ""
        raise RunError(
            f"The runs {first.name} and {other.name} were not evaluated on the same photographs (evaluation "
            f"{plain(first.evaluation.name)!r}: {len(a)} and {len(b)}), so they cannot be compared. {len(told)} "
            "differences:\n  "
            + "\n  ".join(told[:LISTED])
            + f"{more}\nEvaluate all runs on one folder: bldml test --ckpt_path … --data.root FOLDER --name NAME.",
            "evaluations-differ",
            found=told,
        )
    ours, theirs = first.data.classes.positive, other.data.classes.positive
    if ours != theirs:
        raise RunError(
            f"The positive class of {first.name} is {plain(ours)!r}, that of {other.name} {plain(theirs)!r}. Compare "
            "runs that look for the same class.",
            "positive-classes-differ",
            found=[ours, theirs],
        )


def _both(one: str | None, two: str | None) -> tuple[str, str]:
    """The beginnings of two checksums; nothing where one is not known."""
    return (one[:12], two[:12]) if one and two else ("", "")


def _area(run: ComparedRun) -> Estimate:
    return run.assessment.overall["auroc"]


def _difference(first: ComparedRun, second: ComparedRun, groups: Sequence[str] | None) -> Difference:
    """First minus second; p values are not adjusted yet."""
    a, b, labels = first.right, second.right, first.labels
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
    """A difference with the interval and the p value of the cluster bootstrap."""
    found = paired_bootstrap(statistic, labels, groups)
    if found is None:
        return Estimate(value, None, "no resample defines it"), None
    return Estimate(value, found.interval), found.p


def _difference_of_areas(first: ComparedRun, second: ComparedRun) -> Callable[[NDArray[np.int64]], float | None]:
    labels, a, b = first.labels, first.probabilities, second.probabilities

    def statistic(index: NDArray[np.int64]) -> float | None:
        areas = area(labels[index], a[index]), area(labels[index], b[index])
        return None if areas[0] is None or areas[1] is None else areas[0] - areas[1]

    return statistic


def _told_apart(pairs: Iterable[tuple[Difference, float | None]]) -> set[frozenset[str]]:
    return {frozenset((pair.first, pair.second)) for pair, p in pairs if p is not None and p < ALPHA}


def _adjust(differences: Sequence[Difference]) -> list[Difference]:
    """Holm over all pairs, by accuracy and by AUROC each for itself; what is not estimable is no test."""
    accuracy = _holm([difference.accuracy_p for difference in differences])
    areas = _holm([difference.auroc_p for difference in differences])
    return [
        replace(difference, accuracy_adjusted=p, auroc_adjusted=q)
        for difference, p, q in zip(differences, accuracy, areas, strict=True)
    ]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]
