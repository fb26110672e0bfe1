"""Intervals by resampling photographs, or whole groups of photographs."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.estimates import Interval

REPLICATES = 2000
FEW_GROUPS = 10

Index = NDArray[np.int64]
Statistic = Callable[[Index], float | None]


@dataclass(frozen=True)
class PairedBootstrap:
    """Interval and p value of a difference on the same photographs.

    Args:
        interval: Percentile interval of the difference.
        p: Two-sided p value, in (0, 1].
    """

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
        seed: Random seed of the draws.

    Returns:
        The interval; None if no draw, or fewer than half of the draws, defined the statistic.

    >>> values = np.arange(10.0)
    >>> bootstrap(lambda index: float(values[index].mean()), [1] * 10, replicates=100).method
    'bootstrap, 10 photographs'
    """
    drawn, skipped = _draw(statistic, labels, groups, replicates, seed)
    return _interval(drawn, skipped, np.size(labels), groups)


def paired_bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedBootstrap | None:
    """Return the interval of a difference and the p value of the hypothesis that it is 0; draws as in `bootstrap`.

    Args:
        statistic: Function that returns the difference for the indices of the drawn photographs.
        labels: 0 or 1, (n,).
        groups: Group of each photograph, or None.
        replicates: Number of draws.
        seed: Random seed of the draws.

    Returns:
        None as for `bootstrap`. p is twice the smaller proportion of draws on either side of 0, counting 0 for both,
        with one draw added (Davison and Hinkley 1997), so it is never 0.

    >>> difference = np.array([0.0, 0.0, 0.0])
    >>> paired_bootstrap(lambda index: float(difference[index].mean()), [0, 1, 1], replicates=50).p
    1.0
    """
    drawn, skipped = _draw(statistic, labels, groups, replicates, seed)
    interval = _interval(drawn, skipped, np.size(labels), groups)
    if interval is None:
        return None
    # Sums in another order differ by rounding: so small a difference counts as 0.
    below, above = int(np.sum(drawn <= 1e-12)), int(np.sum(drawn >= -1e-12))
    return PairedBootstrap(interval, min(1.0, 2 * (min(below, above) + 1) / (drawn.size + 1)))


def _draw(
    statistic: Statistic, labels: ArrayLike, groups: Sequence[str] | None, replicates: int, seed: int
) -> tuple[NDArray[np.float64], int]:
    label = np.asarray(labels)
    if groups is not None and len(groups) != label.size:
        raise ValueError(f"Each photograph needs one group: found {len(groups)} groups and {label.size} labels.")
    if not label.size:
        return np.empty(0), replicates
    strata = _strata(label, groups)
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        parts = [part for stratum in strata for part in _resample(stratum, generator)]
        value = statistic(np.concatenate(parts))
        if value is not None and math.isfinite(value):
            values.append(value)
    return np.array(values, dtype=np.float64), replicates - len(values)


def _resample(stratum: Index | list[Index], generator: np.random.Generator) -> list[Index]:
    """Draw as many as there are, with replacement: photographs of an array, or groups of a list."""
    chosen = generator.integers(0, len(stratum), len(stratum))
    return [stratum[chosen]] if isinstance(stratum, np.ndarray) else [stratum[i] for i in chosen]


def _strata(label: NDArray[np.int64], groups: Sequence[str] | None) -> list[Index | list[Index]]:
    if groups is None:
        return [np.flatnonzero(label == value) for value in np.unique(label)]
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    strata: dict[frozenset[int], list[Index]] = {}
    for name in sorted(members):
        inside = np.array(members[name], dtype=np.int64)
        strata.setdefault(frozenset(label[inside].tolist()), []).append(inside)
    return [strata[key] for key in sorted(strata, key=sorted)]


def _interval(drawn: NDArray[np.float64], skipped: int, n: int, groups: Sequence[str] | None) -> Interval | None:
    if drawn.size == 0 or drawn.size < skipped:
        return None
    low, high = (float(limit) for limit in np.quantile(drawn, [0.025, 0.975]))
    method = f"bootstrap, {n} photograph{'' if n == 1 else 's'}"
    if groups is not None:
        count = len(Counter(groups))
        few = " (unreliable: few groups)" if count < FEW_GROUPS else ""
        method = f"cluster bootstrap, {count} group{'' if count == 1 else 's'}{few}"
    if skipped:
        method += f", {skipped} undefined draws omitted"
    return Interval(low, high, method)
