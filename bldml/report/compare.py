"""Compare runs on the same photographs: each with its intervals, each pair with its difference and tests.

The declared families are all pairs by accuracy and all pairs by AUROC; Holm's method adjusts within each.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bldml.metrics.auroc import clustered_auroc, estimate_auroc, paired_auroc
from bldml.metrics.bootstrap import has_groups, paired_bootstrap
from bldml.metrics.estimates import Estimate
from bldml.metrics.paired import McNemar, holm, letters, mcnemar
from bldml.metrics.proportions import clustered_proportion, paired_difference, proportion
from bldml.metrics.scores import auroc as area
from bldml.report.compared import ComparedRun, read_compared

ALPHA = 0.05  # of a family, two-sided


@dataclass(frozen=True)
class Standing:
    """One run in the comparison.

    Args:
        run: the run and its predictions.
        counts: photographs called right and wrong: tp, fp, fn, tn.
        accuracy, sensitivity, specificity: at the run's own operating point, in [0, 1].
        auroc: area under the ROC curve, in [0, 1].
        accuracy_letters, auroc_letters: runs that share a letter cannot be told apart.
    """

    run: ComparedRun
    counts: dict[str, int]
    accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    auroc: Estimate
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
        evaluation: name of the evaluation that every run has.
        classes: the positive and the negative class.
        n, n_positive: photographs.
        n_groups: groups (trees, sites) that all photographs belong to; 0 where they have none.
        standings: the runs, most accurate first.
        differences: all pairs in the order of the standings.
    """

    evaluation: str
    classes: tuple[str, str]
    n: int
    n_positive: int
    n_groups: int
    standings: tuple[Standing, ...]
    differences: tuple[Difference, ...]


def compare_runs(paths: Sequence[Path], evaluation: str = "test") -> Comparison:
    """Read the runs and compare each with each.

    Args:
        paths: run folders, two or more.
        evaluation: name of an evaluation that all of them have.

    Raises:
        RunError: the runs cannot be compared; see `compared.read_compared`.
    """
    return compare_assessed(read_compared(paths, evaluation), evaluation)


def compare_assessed(runs: Sequence[ComparedRun], evaluation: str) -> Comparison:
    """Compare runs that `read_compared` has found to be of the same photographs."""
    first = runs[0]
    groups = first.groups if has_groups(first.groups) else None
    estimates = {run.name: _estimates(run, groups) for run in runs}
    # Most accurate first, then the greater area, then by name.
    ranked = sorted(runs, key=lambda run: (-int(run.right.sum()), -(estimates[run.name]["auroc"].value or 0), run.name))
    differences = _adjust([_difference(a, b, groups) for a, b in combinations(ranked, 2)])
    names = [run.name for run in ranked]
    by_area = sorted(names, key=lambda name: -(estimates[name]["auroc"].value or 0))
    accuracy_letters = letters(names, _told_apart((d, d.accuracy_adjusted) for d in differences))
    area_letters = letters(by_area, _told_apart((d, d.auroc_adjusted) for d in differences))
    standings = [
        Standing(
            run=run,
            counts=_counts(run),
            accuracy_letters=accuracy_letters[run.name],
            auroc_letters=area_letters[run.name] if estimates[run.name]["auroc"].value is not None else "",
            **estimates[run.name],
        )
        for run in ranked
    ]
    return Comparison(
        evaluation=evaluation,
        classes=(first.classes[0], next((run.classes[1] for run in runs if run.classes[1]), "")),
        n=len(first.rows),
        n_positive=int(first.labels.sum()),
        n_groups=len(set(groups)) if groups else 0,
        standings=tuple(standings),
        differences=tuple(differences),
    )


def _estimates(run: ComparedRun, groups: Sequence[str] | None) -> dict[str, Estimate]:
    """Accuracy, sensitivity, specificity and AUROC, by photographs or, where there are groups, by those."""
    labels, right, scores = run.labels, run.right, run.probabilities
    found: dict[str, Estimate] = {}
    for name, which in (
        ("accuracy", np.ones(labels.size, dtype=bool)),
        ("sensitivity", labels == 1),
        ("specificity", labels == 0),
    ):
        hits = right[which]
        if groups is None:
            found[name] = proportion(int(hits.sum()), hits.size)
        else:
            chosen = [group for group, is_chosen in zip(groups, which, strict=True) if is_chosen]
            found[name] = clustered_proportion(hits, chosen)
    found["auroc"] = estimate_auroc(labels, scores) if groups is None else clustered_auroc(labels, scores, groups)
    return found


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


def _counts(run: ComparedRun) -> dict[str, int]:
    label, called = run.labels == 1, run.called == 1
    return {
        "tp": int(np.sum(label & called)),
        "fp": int(np.sum(~label & called)),
        "fn": int(np.sum(label & ~called)),
        "tn": int(np.sum(~label & ~called)),
    }


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
