"""Formulas of metrics that are computed from probabilities, and calibration: pure functions on arrays.

Throughout, `labels` is an integer array of shape (n,) with 1 for the positive class, `logits` and `probabilities` are
float arrays of shape (n,) for the positive class. A metric that the data do not define (0/0) is None, never nan. Wrong
shapes or values raise ValueError.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.auroc import midranks
from bldml.metrics.checked import Units, checked_probabilities, checked_units, units_in_words
from bldml.metrics.estimates import NO_VARIANCE, Estimate, Interval, student, undefined
from bldml.metrics.operating_point import counts_by_threshold
from bldml.metrics.proportions import proportion_by_unit

BINS = 10
FEW_FOR_SLOPE = 100  # with 30 and 60 units, the interval of the slope covered as little as .72 and .83
_EPSILON = 1e-12  # a probability of 0 or 1 has no logit
_MAX_COEFFICIENT = 30.0  # a greater coefficient means that the classes are separable

_NO_LINE = (undefined("not estimable: one class only, equal probabilities, or classes separated without error"),) * 2

Floats = NDArray[np.float64]
Fit = tuple[float, Floats]


def auroc(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the area under the ROC curve, in [0, 1]; None unless both classes are present.

    It is the proportion of (positive, negative) pairs in which the positive photograph has the higher probability, ties
    counting one half, computed from mean ranks (Mann-Whitney U; Hanley and McNeil 1982).

    >>> auroc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    label, probability = checked_probabilities(labels, probabilities)
    n_positive = int(label.sum())
    n_negative = label.size - n_positive
    if not n_positive or not n_negative:
        return None
    rank_sum = float(midranks(probability)[label == 1].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean precision weighted by the gain in recall, in [0, 1]; None without positives.

    The sum over the distinct probabilities, highest first, of (recall - previous recall) * precision, not
    interpolated (as scikit-learn's `average_precision_score`).

    >>> average_precision([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8])
    0.8333333333333333
    """
    label, probability = checked_probabilities(labels, probabilities)
    n_positive = int(label.sum())
    if not n_positive:
        return None
    _, hits, predicted = counts_by_threshold(label, probability)
    return float(np.sum(np.diff(hits, prepend=0) * (hits / predicted)) / n_positive)


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean binary cross-entropy in nats, 0 or greater; None without photographs.

    Probabilities are clipped one float64 epsilon away from 0 and 1 (as scikit-learn's `log_loss` does), so that
    one error at full certainty adds 36 and not infinity.

    >>> round(log_loss([0, 1], [0.5, 0.25]), 4)
    1.0397
    """
    label, probability = checked_probabilities(labels, probabilities)
    if not label.size:
        return None
    epsilon = np.finfo(np.float64).eps
    clipped = np.clip(probability, epsilon, 1 - epsilon)
    return -float(np.mean(np.where(label == 1, np.log(clipped), np.log1p(-clipped))))


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean squared difference between probability and label (Brier 1950), in [0, 1]; None if empty.

    >>> brier_score([0, 1], [0.5, 0.75])
    0.15625
    """
    label, probability = checked_probabilities(labels, probabilities)
    return float(np.mean((probability - label) ** 2)) if label.size else None


def brier_skill(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return 1 - Brier score / that of always predicting the prevalence, at most 1; None with one class only.

    >>> brier_skill([0, 1], [0.5, 0.75])
    0.375
    """
    score, label = brier_score(labels, probabilities), np.asarray(labels)
    if score is None or label.min() == label.max():
        return None
    return 1 - score / float(label.mean() * (1 - label.mean()))


def net_benefit(labels: ArrayLike, probabilities: ArrayLike, thresholds: ArrayLike) -> Floats | None:
    """Return the net benefit at each threshold below 1, (m,); None without photographs.

    Proportion of true positives, minus that of false positives times t / (1 - t), of all photographs, if those of a
    probability of at least t are treated (Vickers and Elkin 2006). That of treating all is its value where all
    probabilities are 1; of treating none, 0.

    >>> net_benefit([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8], [0.5, 0.75]).tolist()
    [0.0, 0.25]
    """
    label, probability = checked_probabilities(labels, probabilities)
    threshold = np.asarray(thresholds, dtype=np.float64)
    if not label.size:
        return None
    positives, negatives = np.sort(probability[label == 1]), np.sort(probability[label == 0])
    tp, fp = (of_class.size - np.searchsorted(of_class, threshold) for of_class in (positives, negatives))
    benefit: Floats = (tp - fp * threshold / (1 - threshold)) / label.size
    return benefit


class Bin(NamedTuple):
    """Photographs in one bin: their number, their mean probability, and their proportion of positives."""

    n: int
    mean: float
    fraction: Estimate


def reliability(labels: ArrayLike, probabilities: ArrayLike, units: ArrayLike | None = None) -> list[Bin]:
    """Return bins of about equal numbers of photographs, by probability; equal probabilities share a bin.

    >>> [(b.n, b.mean, b.fraction.value) for b in reliability([0, 1, 1], [0.1, 0.9, 0.9])]
    [(1, 0.1, 0.0), (2, 0.9, 1.0)]
    """
    label, probability = checked_probabilities(labels, probabilities)
    unit = checked_units(units, label.size)
    index = np.searchsorted(np.sort(probability), probability) * BINS // max(1, label.size)
    insides = [index == number for number in np.unique(index)]
    return [
        Bin(int(inside.sum()), float(probability[inside].mean()), proportion_by_unit(label[inside], unit[inside]))
        for inside in insides
    ]


def calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the expected calibration error (Naeini et al. 2015), in [0, 1].

    The mean, over photographs, of the absolute difference between the proportion of positives and the mean probability
    of their bin, one of ten of equal width (an edge belongs to the bin above); None without photographs. Its value for
    a perfect model is not 0: see `expected_calibration_error`.

    >>> calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75])
    0.25
    """
    label, probability = checked_probabilities(labels, probabilities)
    return _error(_bin_of(probability), probability, label) if label.size else None


def expected_calibration_error(probabilities: ArrayLike, *, replicates: int = 1000, seed: int = 0) -> float | None:
    """Return the mean calibration error of a perfectly calibrated model, which is due to chance.

    Labels are drawn with the given probabilities (consistency resampling, Bröcker and Smith 2007), so the number of
    photographs and the distribution of their probabilities are those of the data. None without photographs.

    >>> expected_calibration_error([0.0, 1.0, 1.0])
    0.0
    """
    _, probability = checked_probabilities(np.zeros(np.shape(probabilities)), probabilities)
    if not probability.size:
        return None
    generator, index = np.random.default_rng(seed), _bin_of(probability)
    draws = (generator.random(probability.size) < probability for _ in range(replicates))
    return float(np.mean([_error(index, probability, label) for label in draws]))


def calibration_line(
    labels: ArrayLike, probabilities: ArrayLike, units: ArrayLike | None = None
) -> tuple[Estimate, Estimate]:
    """Return slope and intercept-in-the-large of the logistic calibration.

    After Van Calster et al. (2016). The slope of the labels on the logit of the probability: 1 is ideal; below 1,
    probabilities are too extreme. The intercept with the slope held at 1: 0 is ideal; above 0, probabilities are too
    low. Neither is defined with one class only, equal probabilities, or classes that a threshold separates (the slope
    would be infinite); the intercept neither with a probability of 0 or 1, whose logit is infinite.

    The intervals are of the sandwich variance by unit (Liang and Zeger 1986) times k / (k - 1), with Student's t and
    k - 1 degrees of freedom for k units. With fewer than 100 units that of the slope covers too little and is left out.

    Args:
        labels: 1 for the positive class, (n,).
        probabilities: Of the positive class, (n,).
        units: Sampling unit of each photograph, (n,); None if each is a unit of its own.

    >>> slope, intercept = calibration_line([0, 0, 0, 1, 0, 1, 1, 1], [0.2] * 4 + [0.8] * 4)
    >>> round(slope.value, 3), round(abs(intercept.value), 3)
    (0.792, 0.0)
    """
    label, probability = checked_probabilities(labels, probabilities)
    unit = checked_units(units, label.size)
    slope, intercept = _fit(label, probability)
    if slope is None:
        return _NO_LINE
    few = f"no interval: not reliable with only {units_in_words(unit)}"
    return (
        Estimate(slope[0], None, few) if np.unique(unit).size < FEW_FOR_SLOPE else _with_sandwich(*slope, unit),
        undefined("not estimable: a probability is exactly 0 or 1") if intercept is None
        else _with_sandwich(*intercept, unit),
    )  # fmt: skip


def calibration_value(labels: ArrayLike, probabilities: ArrayLike, which: Literal[0, 1]) -> float | None:
    """Return the slope (0) or the intercept (1) of `calibration_line`; None if it is not estimable."""
    found = _fit(*checked_probabilities(labels, probabilities))[which]
    return None if found is None else found[0]


def _fit(label: NDArray[np.int64], probability: Floats) -> tuple[Fit | None, Fit | None]:
    """Return slope and intercept; None where not estimable."""
    positive, negative = probability[label == 1], probability[label == 0]
    if not positive.size or not negative.size or probability.min() == probability.max():
        return None, None
    if positive.min() >= negative.max() or negative.min() >= positive.max():
        return None, None
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    logit = np.log(clipped) - np.log1p(-clipped)
    slope = _logistic(np.column_stack([logit, np.ones_like(logit)]), label, np.zeros_like(logit))
    intercept = _logistic(np.ones((logit.size, 1)), label, logit)
    if slope is None or intercept is None:
        return None, None
    return slope, None if probability.min() == 0 or probability.max() == 1 else intercept


def _logistic(design: Floats, label: NDArray[np.int64], offset: Floats) -> Fit | None:
    """Return the first coefficient of the greatest likelihood, if it is finite, and each photograph's influence on it.

    By Newton's method with step halving.
    """
    beta = np.zeros(design.shape[1])
    likelihood = _log_likelihood(design @ beta + offset, label)
    for _ in range(200):
        mean = 1 / (1 + np.exp(-np.clip(design @ beta + offset, -700, 700)))
        information = design.T @ (design * (mean * (1 - mean))[:, None])
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e14:
            return None
        step = np.linalg.solve(information, design.T @ (label - mean))
        while (new := _log_likelihood(design @ (beta + step) + offset, label)) < likelihood:
            if np.abs(step).max() <= 1e-12:
                break
            step = step / 2
        beta, likelihood = beta + step, new
        if np.abs(beta).max() > _MAX_COEFFICIENT:
            return None
        if np.abs(step).max() < 1e-10:
            inverse = np.linalg.inv(information)
            return float(beta[0]), (design * (label - mean)[:, None]) @ inverse[0]
    return None


def _with_sandwich(value: float, influence: Floats, unit: Units) -> Estimate:
    """Return a coefficient with the interval from the influence of each photograph on it, (n,)."""
    totals = np.bincount(unit, weights=influence)
    variance = totals.size / max(1, totals.size - 1) * float(totals @ totals)
    if totals.size < 2 or variance < 1e-20:
        return Estimate(value, None, NO_VARIANCE)
    half = student(totals.size) * float(np.sqrt(variance))
    return Estimate(value, Interval(value - half, value + half, f"sandwich, {units_in_words(unit)}"))


def _log_likelihood(logit: Floats, label: NDArray[np.int64]) -> float:
    return -float(np.sum(np.logaddexp(0, np.where(label == 1, -logit, logit))))


def _bin_of(probability: Floats) -> NDArray[np.int64]:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def _error(index: NDArray[np.int64], probability: Floats, label: NDArray[np.int64] | NDArray[np.bool_]) -> float:
    distance = np.bincount(index, weights=label - probability, minlength=BINS)
    return float(np.abs(distance).sum() / index.size)
