"""Proportions, their differences, and what is computed from sensitivity and specificity, with closed-form intervals."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bldml.metrics.checked import checked_groups
from bldml.metrics.estimates import BOTH_CLASSES, Estimate, Interval, Z, undefined

NO_PHOTOGRAPH = "no photograph to estimate it from"


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


def clustered_proportion(hits: ArrayLike, groups: Sequence[str]) -> Estimate:
    """Return the proportion of hits, boolean (n,), with Wilson's interval for n / design effect photographs.

    The design effect (Rao and Scott 1992) is the variance of the ratio estimate between groups over that of independent
    photographs, not less than 1. If all or none are hits it cannot be estimated: then each group counts as one
    photograph.

    >>> estimate = clustered_proportion([True] * 4, ["a", "a", "b", "b"])
    >>> estimate.interval == proportion(2, 2).interval, estimate.interval.method
    (False, 'Wilson, 2 groups')
    """
    hit = np.asarray(hits, dtype=np.float64)
    index, in_words = checked_groups(groups, hit.size)
    if not hit.size:
        return undefined(NO_PHOTOGRAPH)
    sizes, rate, n, method = np.bincount(index), float(hit.mean()), hit.size, f"Wilson, {in_words}"
    n_groups = sizes.size
    if rate in (0.0, 1.0) or n_groups == 1:
        return Estimate(rate, _wilson(rate, n_groups, method))
    residual = np.bincount(index, weights=hit) - rate * sizes
    variance = n_groups / (n_groups - 1) * float(np.sum(residual**2)) / n**2
    effect = max(1.0, variance / (rate * (1 - rate) / n))
    return Estimate(rate, _wilson(rate, n / effect, method))


def mover(
    first: Estimate, second: Estimate, factors: tuple[float, float], shift: float = 0.0, method: str = "MOVER, Wilson"
) -> Estimate:
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
    return Estimate(total + shift, Interval(low + shift, high + shift, method))


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
    return Estimate(x / y, Interval(max(0.0, min(low, x / y)), high, "MOVER, Wilson"))


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
    return (
        _by_bayes(sensitivity.numbers, specificity.numbers, prevalence),
        _by_bayes(specificity.numbers, sensitivity.numbers, 1 - prevalence),
    )


def _by_bayes(own: Sequence[float], other: Sequence[float], prevalence: float) -> Estimate:
    """Return the predictive value of a class from the rates at which its own and the other class are recognised."""
    right = [rate * prevalence for rate in own]
    predicted = [hit + (1 - rate) * (1 - prevalence) for hit, rate in zip(right, other, strict=True)]
    if not all(predicted):
        return undefined("no photograph would get this prediction")
    low, value, high = (hit / n for hit, n in zip(right, predicted, strict=True))
    return Estimate(value, Interval(low, high, "band from both Wilson limits"))


def paired_difference(both: int, first_only: int, second_only: int, neither: int) -> Estimate:
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
        product = float(both * neither - first_only * second_only)
        # Edwards' continuity correction, if the correlation is positive.
        product = max(product - n / 2, 0.0) if product > 0 else product
        phi = product / math.sqrt(margins)
    down, up = (p - first.low, second.high - q), (first.high - p, q - second.low)
    low, high = (math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b)) for a, b in (down, up))
    value = (first_only - second_only) / n
    return Estimate(value, Interval(max(-1.0, value - low), min(1.0, value + high), "Newcombe, paired"))


def dirichlet_interval(
    measure: Callable[[float, float, float, float], float | None], counts: Sequence[int], *, draws: int = 20_000
) -> Interval | None:
    """Return an interval from draws of the four cells with Jeffreys' prior (Goutte and Gaussier 2005).

    Unlike the bootstrap interval, it does not collapse if a cell is empty. `measure` is a function of tp, fp, fn and
    tn, such as F1; if the counts do not define it, there is no interval.

    >>> dirichlet_interval(lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn), [45, 0, 0, 71]).low < 1
    True
    """
    observed = measure(*counts)
    if observed is None:
        return None
    drawn = np.random.default_rng(0).dirichlet(np.array(counts) + 0.5, draws) * sum(counts)
    values = [value for row in drawn.tolist() if (value := measure(*row)) is not None]
    low, high = (float(limit) for limit in np.quantile(values, [0.025, 0.975]))
    # At the edge of the range the prior could place the interval beside the estimate.
    return Interval(min(low, observed), max(high, observed), "Jeffreys-Dirichlet")


def _wilson(rate: float, n: float, method: str) -> Interval:
    spread = Z * math.sqrt(rate * (1 - rate) / n + Z * Z / (4 * n * n))
    middle, scale = rate + Z * Z / (2 * n), 1 + Z * Z / n
    low = 0.0 if rate == 0 else max(0.0, (middle - spread) / scale)
    high = 1.0 if rate == 1 else min(1.0, (middle + spread) / scale)
    return Interval(low, high, method)
