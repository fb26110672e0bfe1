"""What the best of several classifiers gains by being chosen on the same photographs that assess it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_units

Floats = NDArray[np.float64]
Measure = Callable[[Floats], Floats]
REPLICATES = 400
AT_ONCE = 4_000_000  # weights in memory


def selection_gain(measure: Measure, units: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0) -> float | None:
    """Return by how much the value of the best of k classifiers is expected to exceed its value on new photographs.

    Bias-corrected bootstrap (BBC, Tsamardinos, Greasidou and Borboudakis 2018): units are drawn with replacement; the
    classifier that is best on the drawn ones is assessed on the others. The gain is the highest value on all
    photographs minus the mean of these. All classifiers get the same draws, so their correlation is kept. Of several
    that are equally best in a draw, the mean counts. The estimate is near 0, above or below, for one clear winner.

    Args:
        measure: Function of the weight of each photograph, (draws, n); returns the value of each classifier,
            (draws, k), higher is better, nan where the weights do not define it.
        units: Sampling unit of each photograph, (n,).
        replicates: Number of draws.
        seed: Random seed of the draws.

    Returns:
        The gain; None for fewer than two units or classifiers, or if fewer than half of the draws define all values.

    >>> right = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    >>> round(selection_gain(accuracies(right), np.arange(4)), 3)  # the second is always the best or equally good
    0.117
    """
    chosen = out_of_bag(measure, units, replicates=replicates, seed=seed)
    if chosen is None:
        return None
    return float(measure(np.ones((1, np.size(units))))[0].max() - chosen.mean())


def out_of_bag(measure: Measure, units: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0) -> Floats | None:
    """Return the value, in each draw, of the best classifier on the drawn units, assessed on the others.

    Their mean is the value of the best without its gain; see `selection_gain` for the arguments and for None. Their
    percentiles are an interval of it (Tsamardinos, Greasidou and Borboudakis 2018). Each value is of the third of the
    units that were not drawn, which makes the interval wide; but where nearly all is right, most draws lack the errors.

    >>> right = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    >>> np.quantile(out_of_bag(accuracies(right), np.arange(4)), [0.025, 0.975])
    array([0.5, 1. ])
    """
    everything = np.asarray(units)
    unit = checked_units(everything, everything.size)
    n_units, generator = int(unit.max(initial=-1)) + 1, np.random.default_rng(seed)
    apparent = measure(np.ones((1, unit.size)))[0]
    if n_units < 2 or apparent.size < 2 or np.isnan(apparent).any():
        return None
    drawn, outside = [], []
    step = max(1, AT_ONCE // unit.size)
    for start in range(0, replicates, step):
        counts = generator.multinomial(n_units, np.full(n_units, 1 / n_units), min(step, replicates - start))
        weights = counts[:, unit].astype(np.float64)
        drawn.append(measure(weights))
        outside.append(measure((weights == 0).astype(np.float64)))
    inside, others = np.concatenate(drawn), np.concatenate(outside)
    defined = ~np.isnan(inside).any(axis=1) & ~np.isnan(others).any(axis=1)
    if defined.sum() < max(1, replicates / 2):
        return None
    inside, others = inside[defined], others[defined]
    best = inside >= inside.max(axis=1, keepdims=True) - 1e-12
    chosen: Floats = (best * others).sum(axis=1) / best.sum(axis=1)
    return chosen


def accuracies(correct: ArrayLike) -> Measure:
    """Return the accuracy of each classifier as a function of weights.

    Args:
        correct: Whether each classifier classifies each photograph correctly, (k, n).

    >>> accuracies([[1, 0], [1, 1]])(np.array([[1.0, 3.0]]))
    array([[0.25, 1.  ]])
    """
    right = np.asarray(correct, dtype=np.float64).T

    def measure(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        found: Floats = np.divide(weights @ right, total, out=np.full((len(weights), right.shape[1]), np.nan),
                                  where=total > 0)  # fmt: skip
        return found

    return measure


def areas(labels: ArrayLike, scores: ArrayLike) -> Measure:
    """Return the area under the ROC curve of each classifier as a function of weights.

    Args:
        labels: 0 or 1, (n,).
        scores: Scores of each classifier, higher for the positive class, (k, n).

    >>> areas([0, 0, 1], [[0.1, 0.5, 0.5]])(np.array([[1.0, 1.0, 1.0], [1.0, 3.0, 2.0]]))
    array([[0.75 ],
           [0.625]])
    """
    positive = np.asarray(labels) == 1
    prepared = []
    for score in np.asarray(scores, dtype=np.float64):
        order = np.argsort(score, kind="stable")
        prepared.append((order, np.flatnonzero(np.diff(score[order], prepend=-np.inf))))

    def one(weights: Floats, order: NDArray[np.int64], starts: NDArray[np.int64]) -> Floats:
        """Count, for each score, the negatives below and half of those at it (Mann and Whitney 1947)."""
        here, is_positive = weights[:, order], positive[order]
        positives = np.add.reduceat(here * is_positive, starts, axis=1)
        negatives = np.add.reduceat(here * ~is_positive, starts, axis=1)
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        wins = (positives * (np.cumsum(negatives, axis=1) - negatives / 2)).sum(axis=1)
        found: Floats = np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
        return found

    return lambda weights: np.column_stack([one(weights, *each) for each in prepared])
