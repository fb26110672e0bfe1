"""Intervals by resampling photographs, or whole groups of photographs."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_groups
from bldml.metrics.estimates import Interval

REPLICATES = 2000
FEW_GROUPS = 10

Index = NDArray[np.int64]
Statistic = Callable[[Index], float | None]


class PairedBootstrap(NamedTuple):
    """Percentile interval of a difference on the same photographs, and its two-sided p value, in (0, 1]."""

    interval: Interval
    p: float


def has_groups(groups: Sequence[str]) -> bool:
    """Return whether every photograph has a group and at least two photographs share one.

    >>> has_groups(["a", "a", "b"]), has_groups(["a", "b"]), has_groups(["a", "a", ""])
    (True, False, False)
    """
    return bool(groups) and all(groups) and len(set(groups)) < len(groups)


def bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval | None:
    """Return the percentile interval of a statistic (Efron 1981).

    Photographs are drawn with replacement within each class. If they have groups (tree, site, burst), whole groups are
    drawn, within three strata: groups of positives only, of negatives only and of both (Field and Welsh 2007), because
    photographs of one tree are alike and carry less information than as many of different trees.

    Args:
        statistic: Function of the indices of the drawn photographs, int64 (m,); None (or not finite) if not defined.
        labels: 0 or 1, (n,).
        groups: Group of each photograph, or None if they are independent.
        replicates: Number of draws.
        seed: Of the draws.

    Returns:
        The interval; None if fewer than half of the draws, or none, defined the statistic.

    >>> values = np.arange(10.0)
    >>> bootstrap(lambda index: float(values[index].mean()), [1] * 10, replicates=100).method
    'bootstrap, 10 photographs'
    """
    return _draw(statistic, labels, groups, replicates, seed)[1]


def paired_bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedBootstrap | None:
    """Return the interval of a difference and the p value of the hypothesis that it is 0; arguments as of `bootstrap`.

    Returns:
        None as for `bootstrap`. p is twice the smaller proportion of draws on either side of 0, counting 0 for both,
        with one draw added (Davison and Hinkley 1997), so it is never 0.

    >>> difference = np.array([0.0, 0.0, 0.0])
    >>> paired_bootstrap(lambda index: float(difference[index].mean()), [0, 1, 1], replicates=50).p
    1.0
    """
    drawn, interval = _draw(statistic, labels, groups, replicates, seed)
    if interval is None:
        return None
    # Sums in another order differ by rounding: so small a difference counts as 0.
    below, above = int(np.sum(drawn <= 1e-12)), int(np.sum(drawn >= -1e-12))
    return PairedBootstrap(interval, min(1.0, 2 * (min(below, above) + 1) / (drawn.size + 1)))


def _draw(
    statistic: Statistic, labels: ArrayLike, groups: Sequence[str] | None, replicates: int, seed: int
) -> tuple[NDArray[np.float64], Interval | None]:
    """Return the values of the draws that define the statistic, and their interval."""
    label = np.asarray(labels)
    members: list[Index] | None = None
    kind, method = label, f"bootstrap, {label.size} photograph{'' if label.size == 1 else 's'}"
    if groups is not None:
        group, in_words = checked_groups(groups, label.size)
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
        # 0: only negatives, 1: both classes, 2: only positives.
        kind = np.array([label[inside].min() + label[inside].max() for inside in members if inside.size])
        method = f"cluster bootstrap, {in_words}{' (unreliable: few groups)' if kind.size < FEW_GROUPS else ''}"
    strata = [np.flatnonzero(kind == value) for value in np.unique(kind)]
    generator, values = np.random.default_rng(seed), []
    for _ in range(replicates if label.size else 0):
        index = np.concatenate([stratum[generator.integers(0, stratum.size, stratum.size)] for stratum in strata])
        if members is not None:
            index = np.concatenate([members[number] for number in index])
        value = statistic(index)
        if value is not None and math.isfinite(value):
            values.append(value)
    drawn, omitted = np.array(values, dtype=np.float64), replicates - len(values)
    if not values or len(values) < omitted:
        return drawn, None
    low, high = (float(limit) for limit in np.quantile(drawn, [0.025, 0.975]))
    return drawn, Interval(low, high, f"{method}, {omitted} undefined draws omitted" if omitted else method)
