"""The area under the ROC curve: its interval, and the test of two areas on the same photographs."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_groups, checked_pair
from bldml.metrics.estimates import BOTH_CLASSES, Estimate, Interval, Z, undefined
from bldml.metrics.proportions import mover

# A smaller variance is due to rounding.
NO_VARIANCE = 1e-20

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


class PairedAuroc(NamedTuple):
    """Two areas on the same photographs, in [0, 1], and the test of their difference, first minus second.

    All are None with one class only; z and the two-sided p, in (0, 1], also if the variance cannot be estimated.
    """

    first: float | None
    second: float | None
    difference: Estimate
    z: float | None
    p: float | None


def estimate_auroc(labels: ArrayLike, scores: ArrayLike, groups: Sequence[str] | None = None) -> Estimate:
    """Return the area with its interval.

    Independent photographs: DeLong's variance on the logit of the area, which keeps its coverage near 1, where the
    untransformed interval loses it. Where the area is 0 or 1, or the variance 0, DeLong's method has no interval;
    Newcombe's method 5 (Newcombe 2006) is used there.

    Photographs in groups: Newcombe's method 5 with both sizes divided by the design effect (Rao and Scott 1992): the
    variance between groups (Obuchowski 1997) over DeLong's, at least 1 and at most the mean size of a group. Where it
    cannot be estimated, as for an area of 1, each group counts as one photograph. The coverage of the percentile
    cluster bootstrap is too low near 1.

    Args:
        labels: 0 or 1, (n,).
        scores: Finite scores, higher for the positive class, (n,).
        groups: Group of each photograph (tree, site, burst), n names; None if they are independent.

    >>> labels, scores = [0] * 12 + [1] * 12, [0.1] * 12 + [0.9] * 12
    >>> estimate_auroc(labels, scores, [name for name in "abcdef" for _ in range(4)]).interval.method
    'Newcombe, method 5, 6 groups'
    >>> [round(number, 3) for number in estimate_auroc(labels, scores).numbers]
    [0.832, 1.0, 1.0]
    """
    label, score = checked_pair(labels, scores)
    group, in_words = checked_groups(groups, label.size) if groups is not None else (None, "")
    if not label.size or label.min() == label.max():
        return undefined(BOTH_CLASSES)
    placements = _placements(label, score)
    area = float(placements[0].mean())
    variance = float(_covariance([placements])[0, 0])
    sizes = placements[0].size, placements[1].size
    if group is not None:
        effective = _effective_sizes(placements, area, variance, [group[label == 1], group[label == 0]])
        return Estimate(area, _newcombe(area, *effective, f"Newcombe, method 5, {in_words}"))
    if min(sizes) > 1 and 0 < area < 1 and variance > NO_VARIANCE:
        centre, half = math.log(area / (1 - area)), Z * math.sqrt(variance) / (area * (1 - area))
        low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, centre + s * half)))) for s in (-1, 1))
        return Estimate(area, Interval(low, high, "DeLong, logit"))
    return Estimate(area, _newcombe(area, *sizes, "Newcombe, method 5"))


def paired_auroc(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> PairedAuroc:
    """Test whether two areas on the same photographs differ (DeLong, DeLong and Clarke-Pearson 1988).

    Midranks as in Sun and Xu (2014). Equal areas without variance, such as two perfect ones, give z = 0 and p = 1;
    different areas without variance, such as those of a perfect and a constant score, give no test. Without
    variance the interval of the difference is that of two areas on different photographs (MOVER, Zou and Donner 2008):
    wider than necessary, but not empty.

    >>> paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.7, 0.6]).p
    1.0
    """
    label, one = checked_pair(labels, first)
    _, two = checked_pair(labels, second)
    few = min(int(label.sum()), label.size - int(label.sum()))
    if not few:
        return PairedAuroc(None, None, undefined(BOTH_CLASSES), None, None)
    placements = [_placements(label, score) for score in (one, two)]
    area_1, area_2 = (float(of_positives.mean()) for of_positives, _ in placements)
    covariance = _covariance(placements)
    difference = area_1 - area_2
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if few < 2 or variance <= NO_VARIANCE:
        no_difference = few > 1 and abs(difference) < 1e-12
        note = "" if no_difference else "no variance to be estimated from these photographs"
        alone = estimate_auroc(label, one), estimate_auroc(label, two)
        interval = mover(*alone, (1.0, -1.0), method="MOVER, as for different photographs").interval
        z, p = (0.0, 1.0) if no_difference else (None, None)
        return PairedAuroc(area_1, area_2, Estimate(difference, interval, note), z, p)
    spread = math.sqrt(variance)
    z = difference / spread
    interval = Interval(max(-1.0, difference - Z * spread), min(1.0, difference + Z * spread), "DeLong")
    p = max(2 * NormalDist().cdf(-abs(z)), float(np.finfo(np.float64).tiny))
    return PairedAuroc(area_1, area_2, Estimate(difference, interval), z, p)


def midranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values get their mean rank."""
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[position]
    return ranks


def _placements(label: Labels, score: Floats) -> tuple[Floats, Floats]:
    """Return per positive the proportion of negatives below, per negative that of positives above; ties count half."""
    positive, negative = label == 1, label == 0
    ranks = midranks(score)
    below = (ranks[positive] - midranks(score[positive])) / int(negative.sum())
    above = 1 - (ranks[negative] - midranks(score[negative])) / int(positive.sum())
    return below, above


def _covariance(placements: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return DeLong's covariance (k, k) of the areas of k classifiers; a class of one photograph adds nothing."""
    covariance = np.zeros((len(placements), len(placements)))
    for of_class in map(np.stack, zip(*placements, strict=True)):
        if of_class.shape[1] > 1:
            covariance += np.cov(of_class).reshape(covariance.shape) / of_class.shape[1]
    return covariance


def _effective_sizes(
    placements: tuple[Floats, Floats], area: float, variance: float, groups: Sequence[NDArray[np.int64]]
) -> tuple[float, float]:
    """Return the sizes of both classes divided by the design effect; all arguments of positives first."""
    n_groups = max(int(group.max()) for group in groups) + 1
    counts = np.unique(groups[0]).size, np.unique(groups[1]).size
    if min(counts) < 2 or variance <= NO_VARIANCE:
        return counts
    sums, between = [], 0.0
    for own, group, count in zip(placements, groups, counts, strict=True):
        total = np.bincount(group, weights=own - area, minlength=n_groups) / own.size
        between += count / (count - 1) * float(total @ total)
        sums.append(total)
    between += 2 * n_groups / (n_groups - 1) * float(sums[0] @ sums[1])
    most = max(own.size / count for own, count in zip(placements, counts, strict=True))
    effect = min(max(1.0, between / variance), most)
    return placements[0].size / effect, placements[1].size / effect


def _newcombe(area: float, n_positive: float, n_negative: float, method: str) -> Interval:
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

    return Interval(0.0 if area == 0 else limit(0.0), 1.0 if area == 1 else limit(1.0), method)
