"""How much a figure varies: over folds, over seeds, and by training apart from photographs; mean learning curves."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.metric import Metric
from bldml.metrics.replicates.pooled import Pooled
from bldml.metrics.resampling import MOST_PARTS

Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1) of n values, and the lowest and highest; sd is None for one value."""

    mean: float
    sd: float | None
    n: int
    low: float
    high: float


def spread_of(values: ArrayLike) -> Spread | None:
    """Return the spread of the values that are defined (not nan); None without any.

    >>> spread_of([0.5, 1.0, np.nan])
    Spread(mean=0.75, sd=0.3535533905932738, n=2, low=0.5, high=1.0)
    """
    found = np.asarray(values, dtype=np.float64).ravel()
    found = found[~np.isnan(found)]
    if not found.size:
        return None
    sd = float(found.std(ddof=1)) if found.size > 1 else None
    return Spread(float(found.mean()), sd, found.size, float(found.min()), float(found.max()))


class Decomposition(NamedTuple):
    """Standard deviations of the figure that one seed gives, by cause; the squares of the three add up to the total.

    Args:
        training: Another training (seed) on the same photographs, apart from what is due to single units.
        units: Other sampling units, with the same training.
        both: Their interaction: units that one training recognises and another does not.
    """

    training: float
    units: float
    both: float

    @property
    def total(self) -> float:
        """Standard deviation of the figure with another training and other units."""
        return math.hypot(*self)


def decompose(metric: Metric, pooled: Pooled) -> Decomposition | None:
    """Return by how much training and photographs move the figure of one seed: a two-way decomposition of variance.

    The jackknife pseudo-values of seeds by units (for a proportion: the units' own proportions, by size) are analysed
    as a two-way table with random effects without repetitions, as Dorfman, Berbaum and Metz (1992) do with readers by
    cases. Negative components count as 0. With folds, training includes the differences between the folds of one
    seed, as far as another seed does not repeat them. Of more than `MOST_PARTS` units, random parts are left out.

    Returns:
        None with fewer than two seeds or units, or where leaving out a unit leaves the metric undefined.

    >>> from bldml.metrics.registry import METRICS
    >>> pooled = Pooled.checked([1, 1, 1, 1], [[0.1, 0.6, 0.7, 0.8], [0.1, 0.2, 0.7, 0.4]], 0.5)
    >>> [round(float(sd), 3) for sd in decompose(METRICS["accuracy"], pooled)]
    [0.289, 0.144, 0.204]
    """
    values = pseudo_values(metric, pooled)
    if values is None or len(values) < 2:
        return None
    n_seeds, n_units = values.shape
    of_seeds, of_units, centre = values.mean(axis=1, keepdims=True), values.mean(axis=0), values.mean()
    seeds = n_units * float(((of_seeds - centre) ** 2).sum()) / (n_seeds - 1)
    units = n_seeds * float(((of_units - centre) ** 2).sum()) / (n_units - 1)
    rest = float(((values - of_seeds - of_units + centre) ** 2).sum()) / ((n_seeds - 1) * (n_units - 1))
    return Decomposition(
        math.sqrt(max(0.0, seeds - rest) / n_units),
        math.sqrt(max(0.0, units - rest) / (n_seeds * n_units)),
        math.sqrt(rest / n_units),
    )


def pseudo_values(metric: Metric, pooled: Pooled) -> Floats | None:
    """Return the jackknife's pseudo-values (Tukey 1958) of each seed for each of u units or parts of units, (s, u).

    A pseudo-value is u times the value of all minus u - 1 times the value without the unit. None with fewer than two
    units, or where a value is not defined.
    """
    part, n_parts = pooled.units, int(pooled.units.max(initial=-1)) + 1
    if n_parts > MOST_PARTS:
        part, n_parts = np.random.default_rng(0).permutation(n_parts)[part] % MOST_PARTS, MOST_PARTS
    if n_parts < 2:
        return None
    found = [pooled.values(metric, np.flatnonzero(part != left_out)) for left_out in range(-1, n_parts)]
    table = np.array(found, dtype=np.float64).T
    if not np.isfinite(table).all():
        return None
    values: Floats = n_parts * table[:, :1] - (n_parts - 1) * table[:, 1:]
    return values


class CurvePoint(NamedTuple):
    """Mean, lowest and highest value of the n runs that have one at this epoch."""

    epoch: int
    mean: float
    low: float
    high: float
    n: int


def mean_curve(runs: Sequence[Sequence[Mapping[str, float | None]]], column: str) -> list[CurvePoint]:
    """Return the mean learning curve of several runs, from the rows of their histories with `epoch` and this column.

    Runs end at different epochs; each epoch has the mean of those that reached it, so a step may be due to one that
    ended.

    >>> one, two = [{"epoch": 0, "val_loss": 1.0}, {"epoch": 1, "val_loss": 0.5}], [{"epoch": 0, "val_loss": 0.5}]
    >>> [tuple(point) for point in mean_curve([one, two], "val_loss")]
    [(0, 0.75, 0.5, 1.0, 2), (1, 0.5, 0.5, 0.5, 1)]
    """
    values: dict[int, list[float]] = {}
    for rows in runs:
        for row in rows:
            epoch, value = row.get("epoch"), row.get(column)
            if epoch is not None and value is not None and math.isfinite(value):
                values.setdefault(int(epoch), []).append(value)
    return [CurvePoint(n, float(np.mean(v)), min(v), max(v), len(v)) for n, v in sorted(values.items())]
