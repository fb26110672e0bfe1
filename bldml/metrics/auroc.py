"""The ROC curve: its area with an interval, the test of two areas on the same photographs, and bands of curves."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import (
    FEW_UNITS,
    Units,
    are_clustered,
    checked_pair,
    checked_probabilities,
    checked_units,
    units_in_words,
)
from bldml.metrics.estimates import BOTH_CLASSES, NO_VARIANCE, Estimate, Interval, Z, undefined
from bldml.metrics.operating_point import counts_by_threshold
from bldml.metrics.proportions import mover, proportion_by_unit

SWAPS = 2**13  # all of 13 units, or as many at random
LEAST_VARIANCE = 1e-20  # a smaller one is due to rounding
KNOTS = 60  # counts whose interval is computed for a band
PLACES = np.linspace(0, 1, 401)  # of a band

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


class PairedAuroc(NamedTuple):
    """Two areas on the same photographs, in [0, 1], and the test of their difference, first minus second.

    All are None with one class only, and p where not estimable; z is DeLong's, None if the variance cannot be estimated
    or by units. p is two-sided, in (0, 1].
    """

    first: float | None
    second: float | None
    difference: Estimate
    z: float | None
    p: float | None


class Band(NamedTuple):
    """Pointwise 95 % intervals of a curve: the places on the abscissa, the lower and the upper limits, each (m,)."""

    at: Floats
    low: Floats
    high: Floats


def estimate_auroc(labels: ArrayLike, scores: ArrayLike, units: ArrayLike | None = None) -> Estimate:
    """Return the area with its interval.

    Photographs that all are units of their own: DeLong's variance on the logit of the area, which keeps its coverage
    near 1, where the untransformed interval loses it. Where the area is 0 or 1, or the variance 0, DeLong's method has
    no interval; Newcombe's method 5 (Newcombe 2006) is used there.

    Units of several photographs: Newcombe's method 5 with both sizes divided by the design effect (Rao and Scott 1992):
    the variance between units (Obuchowski 1997) over DeLong's of one classifier, at least 1 (one divided by the number
    of classifiers) and at most the mean size of a unit. Where it cannot be estimated, as for an area of 1, each unit
    counts as one photograph. The coverage of the percentile bootstrap of units is too low near 1.

    Args:
        labels: 0 or 1, (n,).
        scores: Finite scores, higher for the positive class, (n,); or (s, n) of several classifiers, such as those of
            several seeds, whose mean area is estimated: the placements of a photograph are averaged over them.
        units: Sampling unit of each photograph, (n,); None if each is a unit of its own.

    >>> labels, scores = [0] * 12 + [1] * 12, [0.1] * 12 + [0.9] * 12
    >>> estimate_auroc(labels, scores, np.repeat(np.arange(6), 4)).interval.method
    'Newcombe, method 5, 6 units'
    >>> [round(number, 3) for number in estimate_auroc(labels, scores).numbers]
    [0.832, 1.0, 1.0]
    """
    label, rows = _checked_rows(labels, scores)
    unit = checked_units(units, label.size)
    if not label.size or label.min() == label.max():
        return undefined(BOTH_CLASSES)
    placements = _mean_placements(label, rows)
    area = float(placements[0].mean())
    variance = float(_covariance([placements])[0, 0])
    sizes = placements[0].size, placements[1].size
    if are_clustered(unit):
        # Newcombe's variance is that of one classifier, and so must be what the variance between units is divided by.
        of_one = float(np.mean([_covariance([_placements(label, score)])[0, 0] for score in rows]))
        units_of_classes = [unit[label == 1], unit[label == 0]]
        effective = _effective_sizes(placements, area, of_one, units_of_classes, least=1 / len(rows))
        return Estimate(area, _newcombe(area, *effective, f"Newcombe, method 5, {units_in_words(unit)}"))
    if min(sizes) > 1 and 0 < area < 1 and variance > LEAST_VARIANCE:
        centre, half = math.log(area / (1 - area)), Z * math.sqrt(variance) / (area * (1 - area))
        low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, centre + s * half)))) for s in (-1, 1))
        return Estimate(area, Interval(low, high, "DeLong, logit"))
    return Estimate(area, _newcombe(area, *sizes, "Newcombe, method 5"))


def paired_auroc(labels: ArrayLike, first: ArrayLike, second: ArrayLike, units: ArrayLike | None = None) -> PairedAuroc:
    """Test whether two areas on the same photographs differ.

    Units of several photographs: permutation test in which the ranks of both classifiers are swapped by unit (after
    Venkatraman and Begg 1996). The interval is the difference plus and minus the critical value of the test, so it
    excludes 0 exactly if p < 0.05.

    Photographs that all are units of their own: DeLong, DeLong and Clarke-Pearson (1988), midranks as in Sun and Xu
    (2014). Equal areas without variance, such as two perfect ones, give z = 0 and p = 1; different areas without
    variance, such as those of a perfect and a constant score, give no test.

    Without variance, or if no swap changes anything, the interval is that of two areas on different photographs (MOVER,
    wider than necessary, but not empty.

    The scores of each are (n,), or (s, n) of several classifiers, such as those of the same seeds: then mean areas are
    compared, and a unit swaps the ranks of all its seeds.

    >>> paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.7, 0.6]).p
    1.0
    """
    label, one = _checked_rows(labels, first)
    _, two = _checked_rows(labels, second)
    few = min(int(label.sum()), label.size - int(label.sum()))
    if not few:
        return PairedAuroc(None, None, undefined(BOTH_CLASSES), None, None)
    unit = checked_units(units, label.size)
    placements = [_mean_placements(label, rows) for rows in (one, two)]
    area_1, area_2 = (float(of_positives.mean()) for of_positives, _ in placements)
    covariance = _covariance(placements)
    difference = area_1 - area_2
    alone = estimate_auroc(label, one, unit), estimate_auroc(label, two, unit)
    apart = mover(*alone, (1.0, -1.0)).interval
    if are_clustered(unit):
        p_swap, critical = _swap(label, [(midranks(a), midranks(b)) for a, b in zip(one, two, strict=True)], unit)
        low, high = max(-1.0, difference - critical), min(1.0, difference + critical)
        interval = Interval(low, high, f"swap permutation, {units_in_words(unit)}") if critical > 1e-12 else apart
        return PairedAuroc(area_1, area_2, Estimate(difference, interval), None, p_swap)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if few < 2 or variance <= LEAST_VARIANCE:
        no_difference = few > 1 and abs(difference) < 1e-12
        note = "" if no_difference else NO_VARIANCE
        z, p = (0.0, 1.0) if no_difference else (None, None)
        return PairedAuroc(area_1, area_2, Estimate(difference, apart, note), z, p)
    spread = math.sqrt(variance)
    z = difference / spread
    interval = Interval(max(-1.0, difference - Z * spread), min(1.0, difference + Z * spread), "DeLong")
    p = max(2 * NormalDist().cdf(-abs(z)), float(np.finfo(np.float64).tiny))
    return PairedAuroc(area_1, area_2, Estimate(difference, interval), z, p)


def _swap(label: Labels, ranks: Sequence[tuple[Floats, Floats]], unit: Units) -> tuple[float, float]:
    """Return p of the swap test, and its critical value: p < 0.05 exactly for a greater difference.

    `ranks` are those of the first and the second classifier, for each seed.

    The difference of the areas is a sum over units, whose terms a swap turns round: with placements among the ranks of
    both classifiers, each pair of a swapped and another unit keeps its part of the sum.
    """
    class_of, term = np.tile(label, 2), np.zeros((2, label.size))
    for pair in ranks:
        for value, placements in zip((1, 0), _placements(class_of, np.concatenate(pair)), strict=True):
            term[:, label == value] += placements.reshape(2, -1) / (int(np.sum(label == value)) * len(ranks))
    terms = np.bincount(unit, weights=term[0] - term[1])
    if 2**terms.size <= SWAPS:
        sums = (1 - 2 * (np.arange(2**terms.size)[:, None] >> np.arange(terms.size) & 1)) @ terms
    else:
        generator = np.random.default_rng(0)
        drawn = [(1 - 2 * generator.integers(0, 2, (SWAPS // 64, terms.size))) @ terms for _ in range(64)]
        sums = np.concatenate(drawn)
        sums[0] = terms.sum()  # as observed
    differences = np.abs(sums)
    p = float(np.mean(differences >= differences[0] - 1e-12))
    return p, float(np.sort(differences)[-math.ceil(0.05 * differences.size)])


def curve_bands(
    labels: ArrayLike, probabilities: ArrayLike, units: ArrayLike | None = None
) -> tuple[Band, Band] | None:
    """Return pointwise 95 % bands: sensitivity at each false-positive rate, and precision at each recall above 0.

    The false-positive rate of a threshold is itself an estimate. So the distance from the ROC curve to a limit has two
    parts: that to the limit of the sensitivity at this threshold (`proportion_by_unit`), and that to the sensitivity at
    the nearest threshold whose own interval excludes this false-positive rate. MOVER (Zou and Donner 2008) adds their
    squares. The band is not empty at 0 or 1, where the percentile bootstrap of units covers too little
    (benchmarks/bands.py).

    The precision is that at the proportion of positives in this set. At a fixed recall it then depends on the
    false-positive rate only, whose interval is found in the same way, with the classes swapped.

    Args:
        labels: 0 or 1, (n,).
        probabilities: Of the positive class, in [0, 1], (n,).
        units: Sampling unit of each photograph, (n,); None if each is a unit of its own.

    Returns:
        The bands at `PLACES`; None if the photographs of a class are of fewer than `FEW_UNITS` units.

    >>> roc, _ = curve_bands(np.arange(40) >= 20, np.linspace(0, 1, 40))  # separated without error
    >>> [[round(float(limit[place]), 2) for limit in roc] for place in (0, 80, 400)]
    [[0.0, 0.0, 1.0], [0.2, 0.84, 1.0], [1.0, 0.84, 1.0]]
    """
    label, probability = checked_probabilities(labels, probabilities)
    unit = checked_units(units, label.size)
    if min(np.unique(unit[label == value]).size for value in (0, 1)) < FEW_UNITS:
        return None
    _, hits, predicted = counts_by_threshold(label, probability)
    ranked = np.argsort(-probability, kind="stable")
    alarm, hit = (
        _rates(np.append(0, count), unit[ranked][label[ranked] == value])
        for value, count in enumerate((predicted - hits, hits))
    )
    swapped = _band(1 - hit[::-1, ::-1], 1 - alarm[::-1, ::-1])
    recall, (low, high) = PLACES[1:], (1 - specificity[-2::-1] for specificity in (swapped.low, swapped.high))
    right, others = recall * label.mean(), 1 - label.mean()
    return _band(alarm, hit), Band(recall, right / (right + low * others), right / (right + high * others))


def _rates(count: Labels, unit: Units) -> Floats:
    """Return lower limit, value and upper limit, (3, m), of the proportions that the first `count` of a class are.

    `unit` are its sampling units, highest score first. Of many counts some are computed, most near the ends, and
    the others interpolated.
    """
    n = unit.size
    knots = np.unique(np.round(n * (1 - np.cos(np.linspace(0, np.pi, KNOTS))) / 2))
    computed = np.array([proportion_by_unit(np.arange(n) < knot, unit).numbers for knot in knots], dtype=np.float64)
    return np.stack([np.interp(count, knots, limit) for limit in computed.T])


def _band(alarm: Floats, hit: Floats) -> Band:
    """Return the intervals of the second rate at `PLACES` of the first; both (3, m), as `_rates` returns them."""
    at = PLACES + 1e-12  # 0.05 is not a binary fraction, and 1 of 20 must reach it
    here = np.searchsorted(alarm[1], at, "right") - 1
    # Of the thresholds whose interval of the first rate ends at or below a place, the last; above it, the first.
    last = np.searchsorted(np.minimum.accumulate(alarm[2][::-1])[::-1], at, "right") - 1
    first = np.searchsorted(np.maximum.accumulate(alarm[0]), at, "right")
    low, value, high = hit[:, here]
    down = np.hypot(value - low, value - np.append(hit[1], 0.0)[last])
    up = np.hypot(high - value, np.append(hit[1], 1.0)[first] - value)
    return Band(PLACES, np.maximum(0.0, value - down), np.minimum(1.0, value + up))


def binormal_average_precision(area: float, prevalence: float) -> float:
    """Return the average precision of scores that are normal with equal variances in both classes.

    Args:
        area: Their area under the ROC curve, in [0, 1].
        prevalence: Proportion of positives, in (0, 1).

    >>> round(binormal_average_precision(0.5, 0.3), 6), binormal_average_precision(1.0, 0.3)
    (0.3, 1.0)
    """
    from scipy.special import ndtr, ndtri

    recall = (np.arange(4000) + 0.5) / 4000
    alarms = ndtr(ndtri(recall) - math.sqrt(2) * ndtri(min(max(area, 1e-12), 1 - 1e-16)))
    return float(np.mean(prevalence * recall / (prevalence * recall + (1 - prevalence) * alarms)))


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


def _checked_rows(labels: ArrayLike, scores: ArrayLike) -> tuple[Labels, list[Floats]]:
    """Return labels, (n,), and the scores of each classifier; raise ValueError as `checked_pair` does."""
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    pairs = [checked_pair(labels, row) for row in rows]
    return pairs[0][0], [score for _, score in pairs]


def _mean_placements(label: Labels, rows: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return the placements of both classes, averaged over classifiers."""
    below, above = zip(*(_placements(label, score) for score in rows), strict=True)
    return np.mean(below, axis=0), np.mean(above, axis=0)


def _covariance(placements: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return DeLong's covariance (k, k) of the areas of k classifiers; a class of one photograph adds nothing."""
    covariance = np.zeros((len(placements), len(placements)))
    for of_class in map(np.stack, zip(*placements, strict=True)):
        if of_class.shape[1] > 1:
            covariance += np.cov(of_class).reshape(covariance.shape) / of_class.shape[1]
    return covariance


def _effective_sizes(
    placements: tuple[Floats, Floats], area: float, variance: float, units: Sequence[NDArray[np.int64]], least: float
) -> tuple[float, float]:
    """Return the sizes of both classes divided by the design effect; arrays and units of positives first.

    `variance` is that of one classifier; with several, whose mean area it is, the design effect is at least `least`.
    """
    n_units = max(int(unit.max()) for unit in units) + 1
    counts = np.unique(units[0]).size, np.unique(units[1]).size
    if min(counts) < 2 or variance <= LEAST_VARIANCE:
        return counts
    sums, between = [], 0.0
    for own, unit, count in zip(placements, units, counts, strict=True):
        total = np.bincount(unit, weights=own - area, minlength=n_units) / own.size
        between += count / (count - 1) * float(total @ total)
        sums.append(total)
    between += 2 * n_units / (n_units - 1) * float(sums[0] @ sums[1])
    most = max(own.size / count for own, count in zip(placements, counts, strict=True))
    effect = min(max(least, between / variance), most)
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
