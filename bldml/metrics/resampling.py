"""Intervals by leaving out or drawing sampling units: photographs, or whole groups of photographs."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_units, units_in_words
from bldml.metrics.estimates import Interval, student

REPLICATES = 2000
MOST_PARTS = 200  # values that a jackknife computes

Index = NDArray[np.int64]
Floats = NDArray[np.float64]
Statistic = Callable[[Index], float | None]


def jackknife(statistic: Statistic, units: ArrayLike, limits: tuple[float, float]) -> Interval | None:
    """Return the interval of a statistic from its values without each unit (Tukey 1958), with Student's t.

    The values are transformed so that the range of the statistic has no ends: logit for two ends (Fisher's z for a
    correlation), logarithm for one. Of more than `MOST_PARTS` units, random parts of equal numbers of units are left
    out instead (delete-a-group jackknife, Kott 2001).

    Args:
        statistic: Function of the indices of photographs, int64 (m,); None if they do not define it.
        units: Sampling unit of each photograph, (n,).
        limits: Lowest and highest possible value of the statistic.

    Returns:
        The interval; None if a value is undefined or at an end of the range, all are equal, or there is one unit only.

    >>> values = np.arange(10.0)
    >>> found = jackknife(lambda index: float(values[index].mean()), np.arange(10), (-math.inf, math.inf))
    >>> round(found.low, 3), round(found.high, 3), found.method  # the interval of the t test
    (2.334, 6.666, 'jackknife, 10 photographs')
    """
    everything = np.asarray(units)
    unit = checked_units(everything, everything.size)
    n_parts = int(unit.max(initial=0)) + 1
    if n_parts > MOST_PARTS:
        part, n_parts = np.random.default_rng(0).permutation(n_parts)[unit] % MOST_PARTS, MOST_PARTS
    else:
        part = unit
    found = [statistic(np.flatnonzero(part != left_out)) for left_out in range(-1, n_parts)]
    transformed, back = _unbounded(np.array(found, dtype=np.float64), *limits)
    centre, values = float(transformed[0]), transformed[1:]
    if n_parts < 2 or not np.isfinite(transformed).all():
        return None
    error = math.sqrt((n_parts - 1) / n_parts * float(np.sum((values - values.mean()) ** 2)))
    half = student(n_parts) * error
    if half <= 1e-12:
        return None
    low, high = sorted(float(back(centre + side * half)) for side in (-1, 1))
    return Interval(low, high, f"jackknife, {units_in_words(unit)}")


def _unbounded(values: Floats, low: float, high: float) -> tuple[Floats, Callable[[float], float]]:
    """Return the transformed values, not finite at the ends of the range, and the inverse of the transformation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if math.isfinite(low) and math.isfinite(high):
            # Half the logit of a correlation's place in its range is Fisher's z.
            return np.log((values - low) / (high - values)), lambda z: low + (high - low) * _sigmoid(z)
        if math.isfinite(low):
            return np.log(values - low), lambda z: low + math.exp(min(z, 700.0))
        if math.isfinite(high):
            return np.log(high - values), lambda z: high - math.exp(min(z, 700.0))
    return values, lambda z: z


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-min(700.0, max(-700.0, z))))


def bootstrap(
    statistic: Statistic, labels: ArrayLike, units: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0
) -> Interval | None:
    """Return the percentile interval of a statistic from drawn units (Efron 1981), for one that is no smooth function.

    Units are drawn with replacement within three strata: those of positives only, of negatives only and of both (Field
    and Welsh 2007).

    Args:
        statistic: Function of the indices of the drawn photographs, int64 (m,); None (or not finite) if not defined.
        labels: 0 or 1, (n,).
        units: Sampling unit of each photograph, (n,).
        replicates: Number of draws.
        seed: Random seed of the draws.

    Returns:
        The interval; None if no draw, or fewer than half of the draws, defined the statistic.

    >>> values = np.arange(10.0)
    >>> bootstrap(lambda index: float(values[index].mean()), [1] * 10, np.arange(10), replicates=100).method
    'bootstrap, 10 photographs'
    """
    label = np.asarray(labels)
    unit = checked_units(units, label.size)
    sizes, order, generator = np.bincount(unit), np.argsort(unit, kind="stable"), np.random.default_rng(seed)
    starts, positives = np.cumsum(sizes) - sizes, np.bincount(unit, weights=label)
    kinds = np.where(positives == 0, 0, np.where(positives == sizes, 1, 2))
    strata = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    values = []
    for _ in range(replicates if label.size else 0):
        drawn = np.concatenate([stratum[generator.integers(0, stratum.size, stratum.size)] for stratum in strata])
        ends = np.cumsum(sizes[drawn])
        offset = np.repeat(starts[drawn] - ends + sizes[drawn], sizes[drawn])
        value = statistic(order[offset + np.arange(ends[-1])])
        if value is not None and math.isfinite(value):
            values.append(value)
    omitted, method = replicates - len(values), f"bootstrap, {units_in_words(unit)}"
    if not values or len(values) < omitted:
        return None
    low, high = (float(limit) for limit in np.quantile(values, [0.025, 0.975]))
    return Interval(low, high, f"{method}, {omitted} undefined draws omitted" if omitted else method)
