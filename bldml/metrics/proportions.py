"""Proportions, their differences, and what is computed from sensitivity and specificity."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import Units, are_clustered, checked_units, units_in_words
from bldml.metrics.estimates import BOTH_CLASSES, Estimate, Interval, Z, student, undefined

NO_PHOTOGRAPH = "no photograph to estimate it from"
UNIT_CORRELATION = 0.5  # assumed within a sampling unit for an assurance; benchmarks/assurance.py simulates it
EXACT = 1 - 1e-12  # factor of a minimum: 0.95 is not a binary fraction, and 19 of 20 must reach it
_EDGE = 14.0  # logit of a proportion that counts as 1


def proportion(successes: int, n: int) -> Estimate:
    """Return successes / n with Wilson's score interval (Wilson 1927); not estimable for n = 0.

    >>> low, value, high = proportion(45, 45).numbers
    >>> round(low, 3), value, high
    (0.921, 1.0, 1.0)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"The successes must lie in 0 to {n}, found {successes}.")
    if not n:
        return undefined(NO_PHOTOGRAPH)
    return Estimate(successes / n, _wilson(successes / n, n, "Wilson"))


def proportion_by_unit(hits: ArrayLike, units: ArrayLike) -> Estimate:
    """Return the proportion of hits, boolean (n,), with an interval by sampling unit.

    Photographs that all are units of their own: Wilson's interval. Otherwise the profile likelihood of a beta-binomial
    distribution, whose correlation within units is fitted (Williams 1975), cut where twice its logarithm has fallen by
    the square of the 97.5 % quantile of Student's t with one degree of freedom less than there are units. With the
    quantile of the normal distribution it would cover too little with few units. It is not empty at 0 or 1 either; one
    unit alone shows nothing.

    Args:
        hits: Whether each photograph is a hit, (n,).
        units: Sampling unit of each photograph, (n,).

    >>> estimate = proportion_by_unit([True] * 40, np.repeat(np.arange(10), 4))
    >>> round(estimate.interval.low, 3), estimate.interval.high, estimate.interval.method
    (0.774, 1.0, 'beta-binomial, 10 units')
    """
    hit = np.asarray(hits, dtype=np.float64)
    unit = checked_units(units, hit.size)
    if not are_clustered(unit):
        return proportion(int(hit.sum()), hit.size)
    low, high = _beta_binomial(np.bincount(unit, weights=hit).astype(np.float64), np.bincount(unit))
    rate = float(hit.mean())
    return Estimate(rate, Interval(min(low, rate), max(high, rate), f"beta-binomial, {units_in_words(unit)}"))


def _beta_binomial(hits: NDArray[np.float64], sizes: NDArray[np.int64]) -> tuple[float, float]:
    """Return the limits of the proportion; hits and sizes of the units, (k,)."""
    from scipy.optimize import brentq, minimize_scalar
    from scipy.special import betaln, expit

    (hit, size), count = np.unique(np.stack([hits, sizes]), axis=1, return_counts=True)
    missed, rate, cut = size - hit, hits.sum() / sizes.sum(), student(sizes.size) ** 2
    # (1 - correlation) / correlation within units, from .9999 to .0001
    strengths = np.exp(np.linspace(-9, 9, 37))[:, None]

    def deviance(logit: float) -> float:
        """Return -2 log likelihood of a proportion with the most likely correlation, at the vertex of a parabola."""
        a, b = expit(logit) * strengths, expit(-logit) * strengths
        values = -2 * (betaln(hit + a, missed + b) - betaln(a, b)) @ count
        least = int(values.argmin())
        if not 0 < least < values.size - 1:
            return float(values[least])
        before, here, after = values[least - 1 : least + 2].tolist()
        bend = before + after - 2 * here
        return float(here - ((after - before) ** 2 / (8 * bend) if bend > 0 else 0))

    lowest, centre = 0.0, math.copysign(_EDGE, rate - 0.5)
    if 0 < rate < 1:
        best = minimize_scalar(deviance, bounds=(-9, 9), method="bounded", options={"xatol": 1e-3})
        lowest, centre = float(best.fun), float(best.x)

    def limit(edge: float) -> float:
        if centre == edge or deviance(edge) - lowest <= cut:
            return float(edge > 0)
        return float(expit(brentq(lambda logit: deviance(logit) - lowest - cut, edge, centre, xtol=1e-4)))

    return limit(-_EDGE), limit(_EDGE)


def mover(first: Estimate, second: Estimate, factors: tuple[float, float], shift: float = 0.0) -> Estimate:
    """Return the weighted sum of two independent estimates, plus `shift`.

    Limits by MOVER (Zou and Donner 2008), which adds squared distances to limits.

    >>> balanced_accuracy = mover(proportion(45, 45), proportion(67, 71), (0.5, 0.5))
    >>> [round(number, 3) for number in balanced_accuracy.numbers]
    [0.916, 0.972, 0.989]
    """
    if first.numbers is None or second.numbers is None:
        return undefined(BOTH_CLASSES)
    # A negative factor swaps the limits.
    low_1, value_1, high_1 = sorted(factors[0] * number for number in first.numbers)
    low_2, value_2, high_2 = sorted(factors[1] * number for number in second.numbers)
    total = value_1 + value_2
    low = total - math.hypot(value_1 - low_1, value_2 - low_2)
    high = total + math.hypot(high_1 - value_1, high_2 - value_2)
    return Estimate(total + shift, Interval(low + shift, high + shift, f"MOVER, {_methods(first, second)}"))


def mover_ratio(first: Estimate, second: Estimate) -> Estimate:
    """Return first / second of independent estimates, both 0 or greater; MOVER (Donner and Zou 2012, formula 8).

    >>> likelihood_ratio = mover_ratio(proportion(45, 45), complement(proportion(67, 71)))
    >>> round(likelihood_ratio.value, 2)
    17.75
    """
    if first.numbers is None or second.numbers is None:
        return undefined(BOTH_CLASSES)
    (x_low, x, x_high), (y_low, y, y_high) = first.numbers, second.numbers
    if y == 0:
        return undefined("infinite: the denominator is 0")
    product, reach = x * y, x_low * (2 * x - x_low)
    # The smaller root, written so that it keeps its value where y_high is near 2 y or beyond, as with few errors.
    root = math.sqrt(max(0.0, product**2 - reach * y_high * (2 * y - y_high)))
    low = reach / (product + root) if reach > 0 else 0.0
    above = y_low * (2 * y - y_low)
    if above <= 0:
        return Estimate(x / y, None, "no upper limit: too few photographs")
    high = (product + math.sqrt(max(0.0, product**2 - x_high * (2 * x - x_high) * above))) / above
    return Estimate(x / y, Interval(max(0.0, min(low, x / y)), high, f"MOVER, {_methods(first, second)}"))


def _methods(*estimates: Estimate) -> str:
    """Return the methods of their intervals, without the numbers of units."""
    names = (estimate.interval.method.partition(",")[0] for estimate in estimates if estimate.interval)
    return " and ".join(dict.fromkeys(names))


def complement(estimate: Estimate) -> Estimate:
    """Return 1 - estimate."""
    if estimate.value is None or estimate.interval is None:
        return estimate
    interval = estimate.interval
    return Estimate(1 - estimate.value, Interval(1 - interval.high, 1 - interval.low, interval.method))


def predictive_values(sensitivity: Estimate, specificity: Estimate, prevalence: float) -> tuple[Estimate, Estimate]:
    """Return PPV and NPV at a prevalence in (0, 1) by Bayes' theorem.

    The lower limit takes both at their lower limits, the upper limit both at their upper: a band wider than 95 %.

    >>> ppv, npv = predictive_values(proportion(45, 45), proportion(67, 71), 0.01)
    >>> round(ppv.value, 3), npv.value
    (0.152, 1.0)
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"The prevalence must lie in (0, 1), found {prevalence}.")
    if sensitivity.numbers is None or specificity.numbers is None:
        return undefined(BOTH_CLASSES), undefined(BOTH_CLASSES)
    method = f"band from both limits, {_methods(sensitivity, specificity)}"
    return (
        _by_bayes(sensitivity.numbers, specificity.numbers, prevalence, method),
        _by_bayes(specificity.numbers, sensitivity.numbers, 1 - prevalence, method),
    )


def _by_bayes(own: Sequence[float], other: Sequence[float], prevalence: float, method: str) -> Estimate:
    """Return the predictive value of a class from the rates at which its own and the other class are recognised."""
    right = [rate * prevalence for rate in own]
    predicted = [hit + (1 - rate) * (1 - prevalence) for hit, rate in zip(right, other, strict=True)]
    if not all(predicted):
        return undefined("no photograph would get this prediction")
    low, value, high = (hit / n for hit, n in zip(right, predicted, strict=True))
    return Estimate(value, Interval(low, high, method))


def paired_difference(both: float, first_only: float, second_only: float, neither: float) -> Estimate:
    """Return the difference of two proportions on the same photographs (Newcombe 1998, paired method 10).

    The counts are of photographs that both, only one or neither classifies correctly.

    >>> [round(number, 4) for number in paired_difference(36, 12, 2, 0).numbers]
    [0.0569, 0.2, 0.3404]
    """
    n = both + first_only + second_only + neither
    if not n:
        return undefined(NO_PHOTOGRAPH)
    p, q = (both + first_only) / n, (both + second_only) / n
    first, second = _wilson(p, n, ""), _wilson(q, n, "")
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    phi = 0.0
    if margins:
        product = both * neither - first_only * second_only
        # Edwards' continuity correction, if the correlation is positive.
        product = max(product - n / 2, 0.0) if product > 0 else product
        phi = product / math.sqrt(margins)
    down, up = (p - first.low, second.high - q), (first.high - p, q - second.low)
    low, high = (math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b)) for a, b in (down, up))
    value = (first_only - second_only) / n
    return Estimate(value, Interval(max(-1.0, value - low), min(1.0, value + high), "Newcombe, paired"))


def dirichlet_interval(
    measure: Callable[[float, float, float, float], float | None],
    counts: Sequence[int],
    units: Units,
    *,
    draws: int = 20_000,
) -> Interval | None:
    """Return an interval from draws of the four cells with Jeffreys' prior (Goutte and Gaussier 2005).

    It does not collapse if a cell is empty. The counts are scaled to the number of units, as if each unit were one
    photograph. `measure` is a function of tp, fp, fn and tn, such as F1; if the counts do not define it, there is no
    interval. `units` are those of the photographs, (n,).

    >>> dirichlet_interval(lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn), [45, 0, 0, 71], np.arange(116)).low < 1
    True
    """
    observed = measure(*counts)
    if observed is None:
        return None
    scaled = np.array(counts) * (np.unique(units).size / units.size)
    drawn = np.random.default_rng(0).dirichlet(scaled + 0.5, draws) * sum(counts)
    values = [value for row in drawn.tolist() if (value := measure(*row)) is not None]
    low, high = (float(limit) for limit in np.quantile(values, [0.025, 0.975]))
    # At the edge of the range the prior could place the interval beside the estimate.
    return Interval(min(low, observed), max(high, observed), f"Jeffreys-Dirichlet, {units_in_words(units)}")


def _wilson(rate: float, n: float, method: str) -> Interval:
    spread = Z * math.sqrt(rate * (1 - rate) / n + Z * Z / (4 * n * n))
    middle, scale = rate + Z * Z / (2 * n), 1 + Z * Z / n
    low = 0.0 if rate == 0 else max(0.0, (middle - spread) / scale)
    high = 1.0 if rate == 1 else min(1.0, (middle + spread) / scale)
    return Interval(low, high, method)


@dataclass(frozen=True)
class Assurance:
    """The probability that a minimum sensitivity (or specificity) holds on new leaves, from a validation split.

    If at most r of n photographs of the class may be on the wrong side of the threshold, the rate on new leaves is at
    least that of the (r + 1)-th order statistic, which has the distribution Beta(n - r, r + 1), whatever the
    distribution of the probabilities (Wilks 1941). Photographs of one sampling unit are not independent: n and r are
    divided by a design effect with an assumed correlation (as by Korn and Graubard 1998, who estimate it).

    Args:
        least: The minimum rate, in (0, 1].
        n: Photographs of the class.
        design_effect: By how much fewer independent photographs would show as much, 1 or greater.
        permitted: Photographs that the criterion permits on the wrong side, r.
        missed: Photographs that are there.
    """

    least: float
    n: int
    design_effect: float
    permitted: int = 0
    missed: int = 0

    @property
    def reached(self) -> float:
        """The assurance that the criterion gives with so many photographs; less if more than permitted are missed."""
        missed = np.array([max(self.permitted, self.missed)])
        return float(assurances(self.n, missed, self.least, self.design_effect)[0])

    def needed(self, assurance: float) -> int:
        """Return the smallest n, in units of the same size, that gives this assurance if none is missed.

        >>> Assurance(0.95, 20, 1.0).needed(0.9)
        45
        """
        return math.ceil(math.log1p(-assurance) / math.log(self.least) * self.design_effect * EXACT)


def design_effect(units: Units) -> float:
    """Return by how much fewer independent photographs would show as much, for an assumed correlation within units.

    >>> design_effect(np.array([0, 0, 1, 1])), design_effect(np.array([0, 1]))
    (1.5, 1.0)
    """
    sizes = np.bincount(units)
    return float(1 + UNIT_CORRELATION * (np.sum(sizes**2) / np.sum(sizes) - 1)) if units.size else 1.0


def assurances(n: int, missed: NDArray[np.int64], least: float, effect: float) -> NDArray[np.float64]:
    """Return the assurance of a rate of at least `least` for each number of missed photographs; see `Assurance`."""
    from scipy.special import betaincc  # takes time to load

    found: NDArray[np.float64] = betaincc(np.maximum(n - missed, 1e-9) / effect, missed / effect + 1, least)
    return found
