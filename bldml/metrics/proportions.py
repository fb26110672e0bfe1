"""Proportions, their differences, and metrics computed from sensitivity and specificity, with closed-form intervals."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bldml.metrics.estimates import Estimate, Interval, Z, undefined

NO_PHOTOGRAPH = "no photograph to estimate it from"


def proportion(successes: int, n: int) -> Estimate:
    """Return successes / n with Wilson's score interval (Wilson 1927); not estimable for n = 0.

    >>> estimate = proportion(45, 45)
    >>> estimate.value, round(estimate.interval.low, 3), estimate.interval.high
    (1.0, 0.921, 1.0)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"The successes must lie in 0 to {n}, found {successes}.")
    if not n:
        return undefined(NO_PHOTOGRAPH)
    return Estimate(successes / n, _wilson(successes / n, n, "Wilson"))


def clustered_proportion(hits: ArrayLike, groups: Sequence[str]) -> Estimate:
    """Return the proportion of hits with Wilson's interval for n / design effect photographs (Rao and Scott 1992).

    The design effect is the variance of the ratio estimate between groups over that of independent photographs, not
    less than 1. If all or none are hits it cannot be estimated: then each group counts as one photograph.

    Args:
        hits: Boolean (n,).
        groups: Group of each photograph, n names.

    >>> estimate = clustered_proportion([True] * 4, ["a", "a", "b", "b"])
    >>> estimate.interval == proportion(2, 2).interval, estimate.interval.method
    (False, 'Wilson, 2 groups')
    """
    hit = np.asarray(hits, dtype=np.float64)
    if hit.shape != (len(groups),):
        raise ValueError(f"Each photograph needs one group: found shape {hit.shape} and {len(groups)} groups.")
    if not hit.size:
        return undefined(NO_PHOTOGRAPH)
    _, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sizes, rate, n = np.bincount(index), float(hit.mean()), hit.size
    n_groups = sizes.size
    method = f"Wilson, {n_groups} group{'' if n_groups == 1 else 's'}"
    if rate in (0.0, 1.0) or n_groups == 1:
        return Estimate(rate, _wilson(rate, n_groups, method))
    residual = np.bincount(index, weights=hit) - rate * sizes
    variance = n_groups / (n_groups - 1) * float(np.sum(residual**2)) / n**2
    effect = max(1.0, variance / (rate * (1 - rate) / n))
    return Estimate(rate, _wilson(rate, n / effect, method))


def balanced_accuracy(sensitivity: Estimate, specificity: Estimate) -> Estimate:
    """Return the mean of both, with limits by MOVER (Zou and Donner 2008), which adds squared distances to limits.

    >>> estimate = balanced_accuracy(proportion(45, 45), proportion(67, 71))
    >>> round(estimate.value, 4), round(estimate.interval.low, 3), round(estimate.interval.high, 3)
    (0.9718, 0.916, 0.989)
    """
    return _linear(sensitivity, specificity, 0.5, 0.0)


def youden(sensitivity: Estimate, specificity: Estimate) -> Estimate:
    """Return sensitivity + specificity - 1 (Youden 1950), in [-1, 1], with limits by MOVER.

    >>> round(youden(proportion(45, 45), proportion(67, 71)).value, 4)
    0.9437
    """
    return _linear(sensitivity, specificity, 1.0, -1.0)


def likelihood_ratio_positive(sensitivity: Estimate, specificity: Estimate) -> Estimate:
    """Return sensitivity / (1 - specificity), 0 or greater, with limits by MOVER for a ratio (Donner and Zou 2012).

    >>> round(likelihood_ratio_positive(proportion(45, 45), proportion(67, 71)).value, 2)
    17.75
    """
    return _ratio(sensitivity, complement(specificity))


def likelihood_ratio_negative(sensitivity: Estimate, specificity: Estimate) -> Estimate:
    """Return (1 - sensitivity) / specificity, 0 or greater, with limits by MOVER for a ratio.

    >>> estimate = likelihood_ratio_negative(proportion(45, 45), proportion(67, 71))
    >>> estimate.value, round(estimate.interval.high, 3)
    (0.0, 0.084)
    """
    return _ratio(complement(sensitivity), specificity)


def complement(estimate: Estimate) -> Estimate:
    """Return 1 - estimate.

    >>> complement(proportion(0, 5)).value
    1.0
    """
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
    se, sp = sensitivity, specificity
    if se.value is None or sp.value is None or se.interval is None or sp.interval is None:
        note = "needs photographs of both classes"
        return undefined(note), undefined(note)
    corners = [(se.value, sp.value), (se.interval.low, sp.interval.low), (se.interval.high, sp.interval.high)]
    estimates = []
    for own in (True, False):
        value, low, high = (_bayes(a, b, prevalence) if own else _bayes(b, a, 1 - prevalence) for a, b in corners)
        if value is None or low is None or high is None:
            estimates.append(undefined("no photograph would get this prediction"))
        else:
            estimates.append(Estimate(value, Interval(low, high, "band from both Wilson limits")))
    return estimates[0], estimates[1]


def difference(first: int, n_first: int, second: int, n_second: int) -> Estimate:
    """Return first / n_first - second / n_second for different photographs (Newcombe 1998, method 10 of two).

    >>> estimate = difference(56, 70, 48, 80)
    >>> round(estimate.value, 2), round(estimate.interval.low, 4), round(estimate.interval.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    one, two = proportion(first, n_first), complement(proportion(second, n_second))
    estimate = _linear(one, two, 1.0, -1.0)
    if estimate.interval is None:
        return estimate
    return Estimate(estimate.value, Interval(estimate.interval.low, estimate.interval.high, "Newcombe"))


def paired_difference(both: int, first_only: int, second_only: int, neither: int) -> Estimate:
    """Return the difference of two proportions on the same photographs (Newcombe 1998, paired method 10).

    Args:
        both: Photographs that both classify correctly.
        first_only: Photographs that only the first classifies correctly.
        second_only: Photographs that only the second classifies correctly.
        neither: Photographs that neither classifies correctly.

    >>> estimate = paired_difference(36, 12, 2, 0)
    >>> round(estimate.value, 2), round(estimate.interval.low, 4), round(estimate.interval.high, 4)
    (0.2, 0.0569, 0.3404)
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
    measure: Callable[[float, float, float, float], float | None],
    tp: int,
    fp: int,
    fn: int,
    tn: int,
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> Interval | None:
    """Return an interval from draws of the four cells with Jeffreys' prior (Goutte and Gaussier 2005).

    Unlike the bootstrap interval, it does not collapse if a cell is empty.

    Args:
        measure: Function of tp, fp, fn and tn, such as F1.
        tp: True positives.
        fp: False positives.
        fn: False negatives.
        tn: True negatives.
        draws: Number of draws.
        seed: Random seed of the draws.

    Returns:
        The interval; None if the counts do not define the measure.

    >>> interval = dirichlet_interval(lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn), 45, 0, 0, 71)
    >>> interval.low < 1.0
    True
    """
    observed = measure(tp, fp, fn, tn)
    if observed is None:
        return None
    cells = np.array([tp, fp, fn, tn])
    drawn = np.random.default_rng(seed).dirichlet(cells + 0.5, draws) * cells.sum()
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


def _linear(a: Estimate, b: Estimate, factor: float, shift: float) -> Estimate:
    """Return factor * (a + b) + shift; MOVER."""
    if a.value is None or b.value is None or a.interval is None or b.interval is None:
        return undefined("needs photographs of both classes")
    total = a.value + b.value
    low = total - math.hypot(a.value - a.interval.low, b.value - b.interval.low)
    high = total + math.hypot(a.interval.high - a.value, b.interval.high - b.value)
    return Estimate(factor * total + shift, Interval(factor * low + shift, factor * high + shift, "MOVER, Wilson"))


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    """Return a / b of independent estimates; MOVER (Donner and Zou 2012, formula 8)."""
    if a.value is None or b.value is None or a.interval is None or b.interval is None:
        return undefined("needs photographs of both classes")
    if b.value == 0:
        return undefined("infinite: the denominator is 0")
    x, y = a.value, b.value
    (al, au), (bl, bu) = (a.interval.low, a.interval.high), (b.interval.low, b.interval.high)
    product, reach = x * y, al * (2 * x - al)
    # The smaller root, written so that it keeps its value where bu is near 2 y or beyond, as with few errors.
    low = reach / (product + math.sqrt(max(0.0, product**2 - reach * bu * (2 * y - bu)))) if reach > 0 else 0.0
    above = bl * (2 * y - bl)
    high = (product + math.sqrt(max(0.0, product**2 - au * (2 * x - au) * above))) / above if above > 0 else math.inf
    if not math.isfinite(high):
        return Estimate(x / y, None, "no upper limit: too few photographs")
    return Estimate(x / y, Interval(max(0.0, min(low, x / y)), high, "MOVER, Wilson"))


def _bayes(sensitivity: float, specificity: float, prevalence: float) -> float | None:
    predicted = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    return sensitivity * prevalence / predicted if predicted else None
