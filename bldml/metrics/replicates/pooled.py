"""Pooled predictions of several runs of one configuration, each photograph once per seed, and estimates from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics import scores
from bldml.metrics.auroc import estimate_auroc
from bldml.metrics.checked import SamplingUnit, Units, checked_probabilities, units_of
from bldml.metrics.estimates import NO_VARIANCE, Estimate, Interval, undefined
from bldml.metrics.metric import Metric, Scored, Value
from bldml.metrics.resampling import jackknife

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Pooled:
    """Predictions of n photographs by s trainings (seeds); with folds, each by the run whose test split it is in.

    Args:
        labels: 1 for the positive class, (n,).
        probabilities: Of the positive class, in [0, 1], (s, n).
        thresholds: Lowest probability that is predicted positive by the run of this seed and fold, (s, n).
        folds: Fold of each photograph, (n,); all equal without folds.
        named_units: Sampling unit of each photograph, n names, None for a unit of its own; empty if all are.
    """

    labels: NDArray[np.int64]
    probabilities: Floats
    thresholds: Floats
    folds: NDArray[np.int64]
    named_units: Sequence[SamplingUnit | None] = ()

    @classmethod
    def checked(
        cls,
        labels: ArrayLike,
        probabilities: ArrayLike,
        thresholds: ArrayLike,
        folds: ArrayLike | None = None,
        named_units: Sequence[SamplingUnit | None] = (),
    ) -> "Pooled":
        """Return checked input; raise ValueError, which says what is wrong, if the arrays are.

        >>> Pooled.checked([0, 1], [[0.2, 0.7], [0.1, 0.4]], 0.5).n_seeds
        2
        """
        rows = [checked_probabilities(labels, row) for row in np.atleast_2d(np.asarray(probabilities, dtype=float))]
        probability = np.stack([row for _, row in rows])
        threshold = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), probability.shape)
        if not np.isfinite(threshold).all():
            raise ValueError("The thresholds must be finite numbers.")
        label = rows[0][0]
        fold = np.zeros(label.size, np.int64) if folds is None else np.asarray(folds, dtype=np.int64)
        if fold.shape != label.shape:
            raise ValueError(f"Each photograph needs one fold: found {fold.shape} and {label.size} photographs.")
        return cls(label, probability, threshold, fold, named_units)

    @property
    def n_seeds(self) -> int:
        """Number of trainings that predict each photograph."""
        return len(self.probabilities)

    @cached_property
    def units(self) -> Units:
        """Sampling unit of each photograph, (n,): its group, else its burst, else itself."""
        return units_of(self.named_units, self.labels.size)

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether each training predicts the true class, (s, n)."""
        correct: NDArray[np.bool_] = (self.probabilities >= self.thresholds) == (self.labels == 1)
        return correct

    def scored(self, seed: int, index: Index | slice = slice(None)) -> Scored:
        """Return the predictions of one seed, of all photographs or of those at `index`."""
        return Scored(self.labels[index], self.probabilities[seed, index], self.thresholds[seed, index])

    def values(self, metric: Metric, index: Index | slice = slice(None)) -> list[Value]:
        """Return the value of each seed, s values."""
        return [metric.value(self.scored(seed, index)) for seed in range(self.n_seeds)]

    def value(self, metric: Metric, index: Index | slice = slice(None)) -> Value:
        """Return the mean of the values of all seeds; None if one of them is not defined."""
        values = [value for value in self.values(metric, index) if value is not None]
        return float(np.mean(values)) if len(values) == self.n_seeds else None

    def fold_values(self, metric: Metric) -> Floats:
        """Return the value of each run, that of each seed on each of k folds, (s, k); nan where it is not defined."""
        parts = [np.flatnonzero(self.folds == fold) for fold in np.unique(self.folds)]
        found = [[metric.value(self.scored(seed, part)) for part in parts] for seed in range(self.n_seeds)]
        return np.array(found, dtype=np.float64)


def estimate_pooled(metric: Metric, pooled: Pooled) -> Estimate:
    """Return the mean over seeds of a metric of the pooled predictions, with a 95 % interval by sampling unit.

    One seed: the value and interval that the metric has on any photographs, each with the threshold of the run that
    predicted it. Several seeds: the predictions of a photograph by all seeds are in one unit with the others of it,
    so that they count as repeated measurements and not as more photographs. A metric that is a mean over
    photographs has its usual interval by unit; the AUROC that of placements averaged over seeds; any other one a
    jackknife of the mean over seeds by unit. The interval holds the trainings fixed: it is for these trained
    classifiers and new photographs. `decompose` says how much another training changes.

    Pooling compares probabilities of classifiers of different folds. The AUROC of pooled probabilities is therefore a
    little lower than the mean over folds (Forman and Scholz 2010); counts are summed over folds, as they recommend.

    >>> from bldml.metrics.registry import METRICS
    >>> pooled = Pooled.checked([0, 0, 1, 1], [[0.1, 0.6, 0.7, 0.8], [0.1, 0.2, 0.7, 0.4]], 0.5)
    >>> estimate_pooled(METRICS["accuracy"], pooled).value
    0.75
    """
    if pooled.n_seeds == 1:
        scored = pooled.scored(0)
        return metric.estimate(Scored(scored.labels, scored.probabilities, scored.threshold, pooled.named_units))
    value = pooled.value(metric)
    if value is None:
        return undefined(metric.undefined)
    if metric.of_probabilities is scores.auroc:
        return estimate_auroc(pooled.labels, pooled.probabilities, pooled.units)
    stacked = metric.estimate(_stacked(pooled))
    if stacked.value is not None and abs(stacked.value - value) < 1e-9:
        return Estimate(value, stacked.interval, stacked.note)
    if stacked.interval is None and stacked.note != NO_VARIANCE:
        return Estimate(value, None, stacked.note)  # a metric without an interval, or one that has none here
    interval = jackknife(lambda index: pooled.value(metric, index), pooled.units, metric.limits)
    if interval is None and stacked.interval is not None:
        found = stacked.interval
        interval = Interval(min(found.low, value), max(found.high, value), found.method)
    return Estimate(value, interval, "" if interval else NO_VARIANCE)


def _stacked(pooled: Pooled) -> Scored:
    """Return the predictions of all seeds one after the other; a sampling unit has those of all seeds."""
    names = [SamplingUnit("group", str(unit)) for unit in pooled.units.tolist()]
    return Scored(
        np.tile(pooled.labels, pooled.n_seeds),
        pooled.probabilities.ravel(),
        pooled.thresholds.ravel(),
        names * pooled.n_seeds,
    )
