"""Calibration: do predicted probabilities agree with observed proportions? Pure functions on arrays.

`labels` and `probabilities` are as in `bldml.metrics.scores`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_pair

BINS = 10
_EPSILON = 1e-12  # a probability of 0 or 1 has no logit
_MAX_COEFFICIENT = 30.0  # a greater coefficient means that the classes are separable


@dataclass(frozen=True)
class Coefficient:
    """A regression coefficient.

    Args:
        value: The estimate.
        standard_error: From the information matrix (Wald), greater than 0.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class Bin:
    """Photographs with predicted probabilities in one bin.

    Args:
        low: Lower limit of the bin, inclusive.
        high: Upper limit, exclusive except in the last bin.
        n: Number of photographs in it.
        n_positive: Number of positive photographs in it.
        mean: Mean probability.
    """

    low: float
    high: float
    n: int
    n_positive: int
    mean: float


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Return the bins of equal width that contain photographs.

    >>> [(b.n, b.n_positive, b.mean) for b in reliability([0, 1, 1], [0.1, 0.9, 1.0], bins=2)]
    [(1, 0, 0.1), (2, 2, 0.95)]
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    index = _bin_of(probability, bins)
    found = []
    for number in np.unique(index):
        inside = index == number
        found.append(
            Bin(
                low=int(number) / bins,
                high=(int(number) + 1) / bins,
                n=int(inside.sum()),
                n_positive=int(label[inside].sum()),
                mean=float(probability[inside].mean()),
            )
        )
    return found


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float | None:
    """Return the expected calibration error over bins of equal width (Naeini et al. 2015), in [0, 1].

    The mean, over photographs, of the absolute difference between the proportion of positives and the mean probability
    of their bin; None without photographs. Its value for a perfect model is not 0: see `expected_calibration_error`.

    >>> calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
    0.25
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    if not label.size:
        return None
    return _error(_bin_of(probability, bins), probability, label, bins)


def expected_calibration_error(
    probabilities: ArrayLike, bins: int = BINS, *, replicates: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return mean and 95th percentile of the calibration error of a perfectly calibrated model, which is due to chance.

    Labels are drawn with the given probabilities (consistency resampling, Bröcker and Smith 2007), so the number of
    photographs and the distribution of their probabilities are those of the data. None without photographs.

    >>> expected_calibration_error([0.0, 1.0, 1.0])
    (0.0, 0.0)
    """
    probability, _ = checked_pair(probabilities, np.zeros(np.shape(probabilities)), "probabilities", in_unit_range=True)
    if not probability.size:
        return None
    generator, index = np.random.default_rng(seed), _bin_of(probability, bins)
    errors = [
        _error(index, probability, generator.random(probability.size) < probability, bins) for _ in range(replicates)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def calibration_line(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Coefficient, Coefficient] | None:
    """Return slope and intercept-in-the-large of the logistic calibration (Van Calster et al. 2016).

    The slope of the labels on the logit of the probability: 1 is ideal; below 1, probabilities are too extreme. The
    intercept with the slope held at 1: 0 is ideal; above 0, probabilities are too low.

    Returns:
        Slope and intercept; None if the data do not determine them: one class only, equal probabilities, or classes
        that a threshold separates (the slope is then infinite).

    >>> slope, intercept = calibration_line([0, 0, 0, 1, 0, 1, 1, 1], [0.2] * 4 + [0.8] * 4)
    >>> round(slope.value, 3), round(abs(intercept.value), 3)
    (0.792, 0.0)
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    positive, negative = probability[label == 1], probability[label == 0]
    if not positive.size or not negative.size or probability.min() == probability.max():
        return None
    if positive.min() >= negative.max() or negative.min() >= positive.max():
        return None
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    logit = np.log(clipped) - np.log1p(-clipped)
    both = _logistic(np.column_stack([logit, np.ones_like(logit)]), label, np.zeros_like(logit))
    alone = _logistic(np.ones((logit.size, 1)), label, logit)
    return None if both is None or alone is None else (both[0], alone[0])


def _logistic(
    design: NDArray[np.float64], label: NDArray[np.int64], offset: NDArray[np.float64]
) -> list[Coefficient] | None:
    """Maximise the likelihood by Newton's method with step halving; return None if there is no finite maximum."""
    beta = np.zeros(design.shape[1])
    likelihood = _log_likelihood(design @ beta + offset, label)
    for _ in range(200):
        mean = 1 / (1 + np.exp(-np.clip(design @ beta + offset, -700, 700)))
        information = design.T @ (design * (mean * (1 - mean))[:, None])
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e14:
            return None
        step = np.linalg.solve(information, design.T @ (label - mean))
        while (new := _log_likelihood(design @ (beta + step) + offset, label)) < likelihood and np.abs(
            step
        ).max() > 1e-12:
            step = step / 2
        beta, likelihood = beta + step, new
        if np.abs(beta).max() > _MAX_COEFFICIENT:
            return None
        if np.abs(step).max() < 1e-10:
            errors = np.sqrt(np.diag(np.linalg.inv(information)))
            return [Coefficient(float(b), float(e)) for b, e in zip(beta, errors, strict=True)]
    return None


def _log_likelihood(logit: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    return -float(np.sum(np.logaddexp(0, np.where(label == 1, -logit, logit))))


def _bin_of(probability: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.minimum((probability * bins).astype(np.int64), bins - 1)


def _error(
    index: NDArray[np.int64], probability: NDArray[np.float64], label: NDArray[np.int64] | NDArray[np.bool_], bins: int
) -> float:
    distance = np.bincount(index, weights=label - probability, minlength=bins)
    return float(np.abs(distance).sum() / index.size)
