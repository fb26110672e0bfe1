"""Tests of several classifiers on the same photographs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import are_clustered, checked_units, units_in_words
from bldml.metrics.estimates import Estimate, Interval, student
from bldml.metrics.proportions import paired_difference
from bldml.metrics.resampling import REPLICATES, bootstrap

TINY = float(np.finfo(np.float64).tiny)  # no p value is 0


class McNemar(NamedTuple):
    """Numbers of photographs that only the first (b) or only the second (c) classifies correctly, and two p values.

    Both are two-sided, in (0, 1]; the mid-p is less conservative (Fagerland, Lydersen and Laake 2013).
    """

    b: int
    c: int
    exact: float
    mid: float


def mcnemar(first_correct: ArrayLike, second_correct: ArrayLike) -> McNemar:
    """Test whether two classifiers err equally often on the same photographs (McNemar 1947).

    Each argument says which photographs a classifier classified correctly, boolean (n,).

    >>> mcnemar([True] * 5, [False] * 5)
    McNemar(b=5, c=0, exact=0.0625, mid=0.03125)
    >>> mcnemar([True], [True]).exact
    1.0
    """
    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"Both must have the same shape (n,), found {first.shape} and {second.shape}.")
    b, c = int(np.sum(first & ~second)), int(np.sum(~first & second))
    few, n = min(b, c), b + c
    if b == c:
        return McNemar(b, c, 1.0, 1.0 - _binomial(few, n) / 2 if n else 1.0)
    tail = math.fsum(_binomial(k, n) for k in range(few + 1))
    return McNemar(b, c, max(min(1.0, 2 * tail), TINY), max(min(1.0, 2 * tail - _binomial(few, n)), TINY))


def paired_accuracy(first_correct: ArrayLike, second_correct: ArrayLike, units: ArrayLike) -> tuple[Estimate, float]:
    """Return the difference of two accuracies on the same photographs, first minus second, and its two-sided p value.

    Photographs that all are units of their own: McNemar's mid-p (Fagerland, Lydersen and Laake 2013) with Newcombe's
    interval. Otherwise the ratio of the units' totals, with Student's t and one degree of freedom less than there are
    units (Obuchowski 1998; Yang, Sun and Hardin 2010). Where all units agree and so have no variance: Newcombe's
    interval and McNemar's mid-p with each unit as one photograph.

    Args:
        first_correct: Whether the first classifies each photograph correctly, (n,).
        second_correct: The same of the second.
        units: Sampling unit of each photograph, (n,).

    >>> difference, p = paired_accuracy([True] * 5 + [False], [False] * 5 + [True], [0, 0, 1, 1, 2, 2])
    >>> round(difference.value, 3), round(p, 3)
    (0.667, 0.184)
    """
    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    unit, n = checked_units(units, first.size), first.size
    found, n_units = mcnemar(first, second), np.unique(unit).size
    cells = np.array([np.sum(first & second), found.b, found.c, np.sum(~first & ~second)])
    if not are_clustered(unit):
        return paired_difference(*cells.tolist()), found.mid
    difference = first.astype(np.float64) - second
    clustered = clustered_difference(difference, unit)
    if clustered is not None:
        return clustered
    value = float(difference.mean())
    interval = paired_difference(*(cells * n_units / n).tolist()).interval
    assert interval is not None
    interval = replace(interval, method=f"{interval.method}, {units_in_words(unit)}")
    return Estimate(value, interval), 0.5**n_units if value else 1.0


def clustered_difference(differences: ArrayLike, units: ArrayLike) -> tuple[Estimate, float] | None:
    """Return the mean of differences in [-1, 1] with its interval, and its two-sided p value, by the units' totals.

    With Student's t and one degree of freedom less than there are units (Obuchowski 1998; Yang, Sun and Hardin 2010).
    None where all units agree, so that there is no variance.

    Args:
        differences: Of each photograph, (n,).
        units: Sampling unit of each photograph, (n,).

    >>> estimate, p = clustered_difference([0.5, 0.0, -0.5, 1.0], [0, 0, 1, 2])
    >>> estimate.value, round(p, 3)
    (0.25, 0.522)
    """
    from scipy.special import stdtr

    difference = np.asarray(differences, dtype=np.float64)
    unit = checked_units(units, difference.size)
    n_units = np.unique(unit).size
    value, totals = float(difference.mean()), np.bincount(unit, weights=difference)
    residual = totals - value * np.bincount(unit)
    error = math.sqrt(n_units / max(1, n_units - 1) * float(residual @ residual)) / difference.size
    if error < 1e-12:
        return None
    half = student(n_units) * error
    interval = Interval(max(-1.0, value - half), min(1.0, value + half), f"clustered t, {units_in_words(unit)}")
    return Estimate(value, interval), max(2 * float(stdtr(n_units - 1, -abs(value) / error)), TINY)


def paired_sensitivity(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    specificity: float,
    units: ArrayLike,
    replicates: int = REPLICATES,
) -> tuple[float, float, Estimate] | None:
    """Return two sensitivities on the same photographs at one specificity, and their difference, first minus second.

    The sensitivity is the highest at any threshold whose specificity is at least this. The interval is that of the
    bootstrap by units, in whose draws thresholds are chosen again. In 200 simulations of each of six settings (17 to
    200 positive photographs, also in groups of 8), it covered the true difference in 93 to 97.5 %. None unless both
    classes are present.

    Args:
        labels: 0 or 1, (n,).
        first: Probabilities of the first classifier, (n,).
        second: The same of the second.
        specificity: In [0, 1].
        units: Sampling unit of each photograph, (n,).
        replicates: Draws of the bootstrap.

    >>> paired_sensitivity([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.35, 0.3, 0.4], 0.9, range(4))[:2]
    (1.0, 0.5)
    """
    label, scores = np.asarray(labels), [np.asarray(one, dtype=np.float64) for one in (first, second)]
    if label.min(initial=1) == label.max(initial=0):
        return None

    def sensitivities(index: NDArray[np.int64]) -> tuple[float, float]:
        one, two = (_sensitivity_at(label[index], score[index], specificity) for score in scores)
        return one, two

    def difference(index: NDArray[np.int64]) -> float:
        one, two = sensitivities(index)
        return one - two

    one, two = sensitivities(np.arange(label.size))
    interval = bootstrap(difference, label, units, replicates=replicates)
    if interval is None or interval.low == interval.high:
        return one, two, Estimate(one - two, None, "no draw of the bootstrap changes the difference")
    return one, two, Estimate(one - two, interval)


def _sensitivity_at(label: NDArray[np.int64], score: NDArray[np.float64], specificity: float) -> float:
    """Return the highest sensitivity at a specificity of at least this; both classes must be present."""
    negative = np.sort(score[label == 0])[::-1]
    alarms = int(np.floor((1 - specificity) * negative.size * (1 + 1e-12)))
    # Above the first negative that may not be predicted positive; equal scores are on one side of a threshold.
    return float(np.mean(score[label == 1] > negative[alarms])) if alarms < negative.size else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p values of one family of tests (Holm 1979), in the same order, each at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values must lie in [0, 1], found {list(p_values)}.")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def significance_letters(names: Sequence[str], different: set[frozenset[str]]) -> dict[str, str]:
    """Return letters such that two names share one exactly if they do not differ significantly (Piepho 2004).

    Args:
        names: Best first; the best gets the letter a.
        different: The pairs that differ significantly.

    >>> significance_letters(["x", "y", "z"], {frozenset("xz")})
    {'x': 'a', 'y': 'ab', 'z': 'b'}
    """
    groups = [frozenset(names)]
    for pair in sorted(different, key=sorted):
        one, other = sorted(pair)
        split = [group - {drop} for group in groups if pair <= group for drop in (one, other)]
        groups = list(dict.fromkeys([group for group in groups if not pair <= group] + split))
        groups = [group for group in groups if group and not any(group < larger for larger in groups)]
    groups.sort(key=lambda group: sorted(names.index(name) for name in group))
    return {name: "".join(_letter(i) for i, group in enumerate(groups) if name in group) for name in names}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"({number + 1})"


def _binomial(k: int, n: int) -> float:
    """Return the probability of k heads in n tosses of a fair coin."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
