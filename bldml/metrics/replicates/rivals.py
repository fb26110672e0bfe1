"""Configurations compared on the same photographs, over the same folds and seeds; the best of them, corrected."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics import scores
from bldml.metrics.auroc import paired_auroc
from bldml.metrics.checked import units_in_words
from bldml.metrics.estimates import NO_VARIANCE, Estimate, Interval, student, undefined
from bldml.metrics.metric import CELLS, Metric
from bldml.metrics.paired import TINY, clustered_difference, paired_accuracy
from bldml.metrics.replicates.pooled import Pooled, estimate_pooled
from bldml.metrics.replicates.spread import pseudo_values
from bldml.metrics.selection import Measure, accuracies, areas, out_of_bag

Floats = NDArray[np.float64]


def compare_pooled(metric: Metric, first: Pooled, second: Pooled) -> tuple[Estimate, float | None]:
    """Return the difference of a metric of the same photographs, first minus second, and its two-sided p value by unit.

    This is the primary test: it uses each photograph once, knows which are of one unit, and is not disturbed by folds
    that share training photographs. It holds the trainings fixed, so it is a test of these trained classifiers.

    Accuracy: McNemar's mid-p or, by unit and with several seeds, a t test of the units' totals. AUROC: DeLong's test or
    the swap of units. Any other metric: a t test of the pseudo-values of the units, averaged over seeds. The p value is
    None where there is no variance to be estimated.

    Raises:
        ValueError: They are not of the same photographs, or have different numbers of seeds.

    >>> from bldml.metrics.registry import METRICS
    >>> one = Pooled.checked([0, 0, 1, 1], [[0.1, 0.6, 0.7, 0.8], [0.1, 0.2, 0.7, 0.4]], 0.5)
    >>> compare_pooled(METRICS["accuracy"], one, one)[1]
    1.0
    """
    if first.probabilities.shape != second.probabilities.shape or not np.array_equal(first.labels, second.labels):
        raise ValueError("Both must predict the same photographs with the same number of seeds.")
    if metric.of_probabilities is scores.auroc:
        found = paired_auroc(first.labels, first.probabilities, second.probabilities, first.units)
        return found.difference, found.p
    if metric.part is not None and set(metric.part[0]) == {"tp", "tn"}:
        return _accuracy(first, second)
    values = [pooled.value(metric) for pooled in (first, second)]
    if values[0] is None or values[1] is None:
        return undefined(metric.undefined), None
    difference, of_units = values[0] - values[1], [pseudo_values(metric, pooled) for pooled in (first, second)]
    if of_units[0] is None or of_units[1] is None:
        return Estimate(difference, None, NO_VARIANCE), None
    return _by_pseudo_values(difference, (of_units[0] - of_units[1]).mean(axis=0), units_in_words(first.units))


def _accuracy(first: Pooled, second: Pooled) -> tuple[Estimate, float | None]:
    if first.n_seeds == 1:
        return paired_accuracy(first.is_correct[0], second.is_correct[0], first.units)
    difference = first.is_correct.mean(axis=0) - second.is_correct.mean(axis=0)
    found, value = clustered_difference(difference, first.units), float(difference.mean())
    return found or (Estimate(value, None, NO_VARIANCE), None if abs(value) > 1e-12 else 1.0)


def _by_pseudo_values(difference: float, of_units: Floats, in_words: str) -> tuple[Estimate, float | None]:
    from scipy.special import stdtr

    n, error = of_units.size, float(of_units.std(ddof=1)) / math.sqrt(of_units.size)
    if error < 1e-12:
        return Estimate(difference, None, NO_VARIANCE), None if abs(difference) > 1e-12 else 1.0
    half = student(n) * error
    interval = Interval(difference - half, difference + half, f"jackknife t, {in_words}")
    return Estimate(difference, interval), max(2 * float(stdtr(n - 1, -abs(difference) / error)), TINY)


def corrected_t(differences: ArrayLike, test_over_train: float) -> tuple[Estimate, float | None]:
    """Return the mean difference of j runs, with the corrected resampled t test (Nadeau and Bengio 2003).

    Runs of different folds share training photographs, so their differences are correlated and the variance of the mean
    is not the variance over j, but that times 1 / j + n_test / n_train. Several seeds are as Bouckaert and Frank (2004)
    have it for repeated cross-validation. The second test here: it knows the variance of training, but neither units
    nor which photographs are hard, and has little power with few folds.

    Args:
        differences: First minus second, of each run, (j,).
        test_over_train: Photographs of the test split over those of train, such as 1 / 4 with five folds (and less, as
            train lacks val).

    >>> estimate, p = corrected_t([0.02, 0.03, 0.0, 0.05, 0.01], 0.25)
    >>> [round(number, 4) for number in estimate.numbers], round(p, 3)
    ([-0.0138, 0.022, 0.0578], 0.163)
    """
    from scipy.special import stdtr

    found = np.asarray(differences, dtype=np.float64).ravel()
    if not 0 < test_over_train < math.inf:
        raise ValueError(f"The ratio of test to train must be above 0 and finite, found {test_over_train}.")
    if not found.size or np.isnan(found).any():
        return undefined("not defined in every run"), None
    mean = float(found.mean())
    if found.size < 2:
        return Estimate(mean, None, "one run shows no variance"), None
    error = math.sqrt((1 / found.size + test_over_train) * float(found.var(ddof=1)))
    if error < 1e-12:
        return Estimate(mean, None, NO_VARIANCE), None if abs(mean) > 1e-12 else 1.0
    half = student(found.size) * error
    interval = Interval(mean - half, mean + half, f"corrected resampled t, {found.size} runs")
    return Estimate(mean, interval), max(2 * float(stdtr(found.size - 1, -abs(mean) / error)), TINY)


class Best(NamedTuple):
    """The configuration with the best value, its value, and this value without what it gains by being the best.

    `corrected` is None for one configuration, or where the gain cannot be estimated. `interval` is that of `corrected`:
    the 2.5 and 97.5 percentiles over the draws of its bootstrap, by sampling unit, and at least the interval of the
    best configuration, moved by the gain: near 1 the percentiles alone are too narrow, as most draws have no error.
    """

    which: int
    value: float
    corrected: float | None
    interval: Interval | None = None


def best_of(metric: Metric, configurations: Sequence[Pooled]) -> Best | None:
    """Return the best of k configurations on the same photographs, corrected by a bootstrap of the pooled predictions.

    BBC-CV (Tsamardinos, Greasidou and Borboudakis 2018): units of the pooled predictions are drawn, and the best
    configuration on the drawn ones is assessed on the others; see `out_of_bag`. Nothing is trained again. With
    several seeds, the value of a configuration is the mean over seeds in every draw.

    Returns:
        None if no higher or lower value of the metric is better, or it is not defined for each configuration.

    >>> from bldml.metrics.registry import METRICS
    >>> labels = np.arange(8) % 2
    >>> good, poor = (Pooled.checked(labels, np.where(labels, high, 1 - high), 0.5) for high in (0.9, 0.4))
    >>> best_of(METRICS["accuracy"], [poor, good])[:3]
    (1, 1.0, 1.0)
    """
    if metric.better not in ("higher", "lower"):
        return None
    values = [pooled.value(metric) for pooled in configurations]
    if not values or None in values:
        return None
    sign = 1.0 if metric.better == "higher" else -1.0
    found = sign * np.array(values, dtype=np.float64)
    best = int(found.argmax())
    chosen = out_of_bag(_measure(metric, sign, configurations), configurations[0].units)
    if chosen is None:
        return Best(best, sign * float(found[best]), None)
    low, high = sorted(sign * np.quantile(chosen, [0.025, 0.975]))
    value, corrected = sign * float(found[best]), sign * float(chosen.mean())
    own = estimate_pooled(metric, configurations[best]).interval
    if own is not None:
        least, most = metric.limits
        low = min(low, max(own.low + corrected - value, least))
        high = max(high, min(own.high + corrected - value, most))
    return Best(best, value, corrected, Interval(float(low), float(high), "BBC-CV, at least that of the best, moved"))


def _measure(metric: Metric, sign: float, configurations: Sequence[Pooled]) -> Measure:
    """Return the value of each configuration, higher is better, as a function of the weights of photographs."""
    first, k = configurations[0], len(configurations)
    of_all: Measure
    if metric.of_probabilities is scores.auroc:
        of_all = areas(first.labels, np.concatenate([pooled.probabilities for pooled in configurations]))
    elif metric.part is not None and set(metric.part[0]) == {"tp", "tn"}:
        of_all = accuracies(np.concatenate([pooled.is_correct for pooled in configurations]))
    else:
        of_all = _of_any(metric, configurations)

    def measure(weights: Floats) -> Floats:
        found: Floats = sign * of_all(weights).reshape(len(weights), k, -1).mean(axis=2)
        return found

    return measure


def _of_any(metric: Metric, configurations: Sequence[Pooled]) -> Measure:
    scored = [pooled.scored(seed) for pooled in configurations for seed in range(pooled.n_seeds)]
    cells = np.array([[one.cells == cell for cell in range(len(CELLS))] for one in scored], dtype=np.float64)

    def measure(weights: Floats) -> Floats:
        found: list[list[float | None]] = []
        for weight in weights:
            if metric.of_probabilities is None:
                found.append([metric.from_counts(*counts) for counts in (cells @ weight).tolist()])
            else:
                index = np.repeat(np.arange(weight.size), weight.astype(np.int64))
                found.append([metric.of_probabilities(one.labels[index], one.probabilities[index]) for one in scored])
        return np.array(found, dtype=np.float64)

    return measure
