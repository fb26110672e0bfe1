"""The area under the ROC curve: its interval, and the test of two areas on the same photographs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_pair
from bldml.metrics.estimates import Estimate, Interval, Z, undefined

# A smaller variance is due to rounding.
NO_VARIANCE = 1e-20

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedAuroc:
    """Two areas on the same photographs, and the test of their difference.

    Args:
        first: Area of the first, in [0, 1]; None with one class only.
        second: Area of the second.
        difference: First minus second, with DeLong's interval.
        z: Test statistic; None if the variance of the difference cannot be estimated.
        p: Two-sided p, in (0, 1]; None like z.
    """

    first: float | None
    second: float | None
    difference: Estimate
    z: float | None
    p: float | None


def estimate_auroc(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Return the area with its interval: DeLong's variance on the logit of the area.

    On the logit scale the interval keeps its coverage near 1, where the untransformed interval loses it. Where the area
    is 0 or 1, or the variance 0, DeLong's method has no interval; Newcombe's method 5 (Newcombe 2006) is used there.

    >>> estimate = estimate_auroc([0] * 71 + [1] * 45, [0.1] * 71 + [0.9] * 45)
    >>> estimate.value, round(estimate.interval.low, 3), estimate.interval.high
    (1.0, 0.964, 1.0)
    """
    score, label = checked_pair(scores, labels, "scores")
    n_positive = int(label.sum())
    n_negative = label.size - n_positive
    if not n_positive or not n_negative:
        return undefined("needs photographs of both classes")
    areas, covariance = _delong(label, score[None])
    area, variance = float(areas[0]), float(covariance[0, 0])
    if n_positive > 1 and n_negative > 1 and 0 < area < 1 and variance > NO_VARIANCE:
        centre, half = math.log(area / (1 - area)), Z * math.sqrt(variance) / (area * (1 - area))
        low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, centre + s * half)))) for s in (-1, 1))
        return Estimate(area, Interval(low, high, "DeLong, logit"))
    return Estimate(area, _newcombe(area, n_positive, n_negative))


def clustered_auroc(labels: ArrayLike, scores: ArrayLike, groups: Sequence[str]) -> Estimate:
    """Return the area with an interval for photographs in groups (tree, site, burst).

    Newcombe's method 5 with both sizes divided by the design effect (Rao and Scott 1992): the variance between groups
    (Obuchowski 1997) over DeLong's, at least 1 and at most the mean size of a group. Where it cannot be estimated, as
    for an area of 1, each group counts as one photograph. The coverage of the percentile cluster bootstrap is too
    low near 1.

    Args:
        labels: 0 or 1, (n,).
        scores: Finite scores, higher for the positive class, (n,).
        groups: Group of each photograph, n names.

    >>> trees = [name for name in "abcdef" for _ in range(4)]
    >>> estimate = clustered_auroc([0] * 12 + [1] * 12, [0.1] * 12 + [0.9] * 12, trees)
    >>> estimate.value, round(estimate.interval.low, 3), estimate.interval.method
    (1.0, 0.501, 'Newcombe, method 5, 6 groups')
    """
    score, label = checked_pair(scores, labels, "scores")
    if len(groups) != label.size:
        raise ValueError(f"Each photograph needs one group: found {len(groups)} groups and {label.size} labels.")
    if not label.size or label.min() == label.max():
        return undefined("needs photographs of both classes")
    names, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    of_positives, of_negatives = _placements(label, score)
    area = float(of_positives.mean())
    sizes = [float(of_positives.size), float(of_negatives.size)]
    counts = [np.unique(group[label == value]).size for value in (1, 0)]
    independent = _variance([of_positives], [of_negatives])[0, 0]
    if min(counts) > 1 and independent > NO_VARIANCE:
        between = _variance_between(of_positives - area, of_negatives - area, label, group)
        most = max(size / count for size, count in zip(sizes, counts, strict=True))
        effect = min(max(1.0, between / float(independent)), most)
        sizes = [size / effect for size in sizes]
    else:
        sizes = [float(count) for count in counts]
    method = f"Newcombe, method 5, {names.size} group{'' if names.size == 1 else 's'}"
    return Estimate(area, _newcombe(area, sizes[0], sizes[1], method))


def paired_auroc(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> PairedAuroc:
    """Test whether two areas on the same photographs differ (DeLong, DeLong and Clarke-Pearson 1988).

    Midranks as in Sun and Xu (2014). Equal areas without variance, such as two perfect ones, give z = 0 and p = 1;
    different areas without variance, such as those of a perfect and a constant score, give no test. Without
    variance the interval of the difference is that of two areas on different photographs (MOVER, Zou and Donner 2008):
    wider than necessary, but not empty.

    >>> paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.7, 0.6]).p
    1.0
    """
    one, label = checked_pair(first, labels, "scores")
    two, _ = checked_pair(second, labels, "scores")
    few = min(int(label.sum()), label.size - int(label.sum()))
    if not few:
        return PairedAuroc(None, None, undefined("needs photographs of both classes"), None, None)
    areas, covariance = _delong(label, np.stack([one, two]))
    first_area, second_area = float(areas[0]), float(areas[1])
    difference = first_area - second_area
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if few < 2 or variance <= NO_VARIANCE:
        no_difference = few > 1 and abs(difference) < 1e-12
        note = "" if no_difference else "no variance to be estimated from these photographs"
        interval = _as_if_unpaired(estimate_auroc(label, one), estimate_auroc(label, two))
        z, p = (0.0, 1.0) if no_difference else (None, None)
        return PairedAuroc(first_area, second_area, Estimate(difference, interval, note), z, p)
    spread = math.sqrt(variance)
    z = difference / spread
    interval = Interval(max(-1.0, difference - Z * spread), min(1.0, difference + Z * spread), "DeLong")
    p = max(2 * NormalDist().cdf(-abs(z)), float(np.finfo(np.float64).tiny))
    return PairedAuroc(first_area, second_area, Estimate(difference, interval), z, p)


def _as_if_unpaired(first: Estimate, second: Estimate) -> Interval | None:
    """Return the interval of first minus second, treating the areas as independent."""
    if first.value is None or second.value is None or first.interval is None or second.interval is None:
        return None
    a, b, one, two = first.value, second.value, first.interval, second.interval
    low = a - b - math.hypot(a - one.low, two.high - b)
    high = a - b + math.hypot(one.high - a, b - two.low)
    return Interval(low, high, "MOVER, as for different photographs")


def _midranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values get their mean rank."""
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[position]
    return ranks


def _placements(label: NDArray[np.int64], score: Floats) -> tuple[Floats, Floats]:
    """Return per positive the proportion of negatives below, per negative that of positives above; ties count half."""
    positive, negative = label == 1, label == 0
    ranks = _midranks(score)
    below = (ranks[positive] - _midranks(score[positive])) / int(negative.sum())
    above = 1 - (ranks[negative] - _midranks(score[negative])) / int(positive.sum())
    return below, above


def _variance(of_positives: Sequence[Floats], of_negatives: Sequence[Floats]) -> Floats:
    """Return DeLong's covariance (k, k) of the areas of k classifiers; a class of one photograph adds nothing."""
    covariance = np.zeros((len(of_positives), len(of_positives)))
    for placements in (of_positives, of_negatives):
        size = placements[0].size
        if size > 1:
            covariance = covariance + np.cov(np.stack(placements)).reshape(covariance.shape) / size
    return covariance


def _variance_between(
    of_positives: Floats, of_negatives: Floats, label: NDArray[np.int64], group: NDArray[np.int64]
) -> float:
    """Return Obuchowski's variance of an area from its residual placements; needs two groups in each class."""
    n_groups = int(group.max()) + 1
    sums, variance = [], 0.0
    for residuals, value in ((of_positives, 1), (of_negatives, 0)):
        own = group[label == value]
        total = np.bincount(own, weights=residuals, minlength=n_groups) / residuals.size
        count = np.unique(own).size
        variance += count / (count - 1) * float(total @ total)
        sums.append(total)
    return variance + 2 * n_groups / (n_groups - 1) * float(sums[0] @ sums[1])


def _delong(label: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """Return areas (k,) and their covariance (k, k) for the scores (k, n) of k classifiers."""
    of_positives, of_negatives = zip(*(_placements(label, score) for score in scores), strict=True)
    return np.array([placements.mean() for placements in of_positives]), _variance(of_positives, of_negatives)


def _newcombe(area: float, n_positive: float, n_negative: float, method: str = "Newcombe, method 5") -> Interval:
    """Return Newcombe's method 5: score interval, variance of Hanley and McNeil, sizes replaced by their mean."""
    half = (n_positive + n_negative) / 2 - 1

    def variance(value: float) -> float:
        first, second = (1 - value) / (2 - value), value / (1 + value)
        return value * (1 - value) * (1 + half * (first + second)) / (n_positive * n_negative)

    def limit(outside: float) -> float:
        """Find by bisection the value that is Z standard errors from the area."""
        inside = area
        for _ in range(60):  # below the resolution of float64
            middle = (outside + inside) / 2
            if (area - middle) ** 2 <= Z * Z * variance(middle):
                inside = middle
            else:
                outside = middle
        return inside

    lower = 0.0 if area == 0 else limit(0.0)
    upper = 1.0 if area == 1 else limit(1.0)
    return Interval(lower, upper, method)
