"""Scores, operating threshold and calibration of a binary classifier: pure functions on arrays.

Throughout, `labels` is an integer array of shape (n,) with 1 for the positive class, `logits` and
`probabilities` are float arrays of shape (n,) for the positive class, and an image is called positive where
its probability is greater than *or equal to* the threshold. A score that the data do not define (0/0) is
None, never nan. Wrong shapes or values raise ValueError.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.results.checked import checked_pair, checked_scores

TEMPERATURE_RANGE = (0.25, 10.0)

Scores = dict[str, float | int | None]


@dataclass(frozen=True)
class OperatingPoint:
    """What turns a logit into a decision; chosen on validation data, never on test data.

    Args:
        threshold: least calibrated probability that is called positive, in [0, 1].
        temperature: divides the logit before the sigmoid, greater than 0; 1 leaves it as it is.
    """

    threshold: float
    temperature: float


def to_probabilities(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return sigmoid(logit / temperature), without overflow, in float64, shape (n,), range [0, 1].

    >>> to_probabilities([-2.0, 0.0, 2000.0], temperature=2.0).round(3).tolist()
    [0.269, 0.5, 1.0]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"The temperature must be a finite number greater than 0, found {temperature}.")
    return _sigmoid(checked_scores(logits, "logits") / temperature)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the temperature in [0.25, 10] with the least mean negative log-likelihood (Guo et al. 2017).

    With beta = 1 / temperature and margin = logit for a positive, -logit for a negative image, the loss
    mean(log(1 + exp(-beta * margin))) is convex in beta, so bisection on its slope finds the one minimum.

    Returns:
        The temperature, or None where the data do not determine it: no image, one class only, every logit 0,
        or classes that a threshold separates without error (a fit would only make the model overconfident).

    >>> round(fit_temperature([4.0, 4.0, 4.0, -4.0, -4.0, -4.0], [1, 1, 0, 0, 0, 1]), 3)
    5.771
    >>> fit_temperature([2.0, 3.0, -1.0], [1, 1, 0]) is None  # separated without error
    True
    """
    logit, label = checked_pair(logits, labels, "logits")
    positive, negative = logit[label == 1], logit[label == 0]
    if not positive.size or not negative.size or not logit.any():
        return None
    if positive.min() > negative.max() or negative.min() > positive.max():
        return None
    margin = np.where(label == 1, logit, -logit)

    def slope(beta: float) -> float:
        return -float(np.mean(margin * _sigmoid(-beta * margin)))

    lowest, highest = TEMPERATURE_RANGE
    low, high = 1 / highest, 1 / lowest
    # The interval is then below the resolution of float64; a minimum outside the range ends at its near end.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / ((low + high) / 2)


def choose_threshold(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the threshold with the best F1, in [0, 1].

    F1 is constant for all thresholds between two neighbouring distinct probabilities, and also from 0 to the
    least one; the middle of the best such interval is returned. Of several equally good intervals, the one
    whose middle is closest to 0.5 is taken, and of two equally close ones the lower (it misses fewer
    positives). Where a class is absent no threshold can be chosen: 0.5.

    >>> choose_threshold([0, 0, 1, 1], [0.1, 0.25, 0.75, 0.875])
    0.5
    >>> choose_threshold([1, 1], [0.9, 0.8])
    0.5
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    n_positive = int(label.sum())
    if n_positive in (0, label.size):
        return 0.5
    score, true_positives, called = _counts_from_the_top(probability, label)
    # Equal fractions of integers round to equal floats, so the comparison finds ties exactly.
    f1 = 2 * true_positives / (called + n_positive)
    below = np.append(score[1:], 0.0)
    middle = below + (score - below) / 2
    # Scores one rounding step apart have no middle, and at the lower score more images would be called.
    middle = np.where(middle > below, middle, score)
    best = middle[f1 == f1.max()][::-1]
    return float(best[np.argmin(np.abs(best - 0.5))])


def auroc(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the area under the ROC curve, in [0, 1]; None unless both classes are present.

    It is the share of (positive, negative) pairs in which the positive image has the greater probability,
    ties counting one half, computed from mean ranks (Mann-Whitney U; Hanley and McNeil 1982).

    >>> auroc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    n_positive = int(label.sum())
    n_negative = label.size - n_positive
    if not n_positive or not n_negative:
        return None
    _, position, count = np.unique(probability, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    rank_sum = float(mean_rank[position][label == 1].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean precision weighted by the gain in recall, in [0, 1]; None without positives.

    The sum over the distinct probabilities, greatest first, of (recall - previous recall) * precision, not
    interpolated (as scikit-learn's `average_precision_score`).

    >>> average_precision([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8])
    0.8333333333333333
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    n_positive = int(label.sum())
    if not n_positive:
        return None
    _, true_positives, called = _counts_from_the_top(probability, label)
    gain = np.diff(true_positives, prepend=0)
    return float(np.sum(gain * (true_positives / called)) / n_positive)


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean binary cross-entropy in nats, 0 or greater; None without images.

    Probabilities are kept one float64 epsilon away from 0 and 1 (as scikit-learn's `log_loss` does), so that
    one certain mistake costs 36 and not infinity.

    >>> round(log_loss([0, 1], [0.5, 0.25]), 4)
    1.0397
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    if not label.size:
        return None
    epsilon = np.finfo(np.float64).eps
    clipped = np.clip(probability, epsilon, 1 - epsilon)
    return -float(np.mean(np.where(label == 1, np.log(clipped), np.log1p(-clipped))))


def scores_at(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> Scores:
    """Return the confusion counts and the scores that follow from them at one threshold.

    Returns:
        `tp`, `fp`, `fn`, `tn` (images) and, each in [0, 1] or None where undefined: `accuracy`; `recall`
        = tp / (tp + fn), the sensitivity; `specificity` = tn / (tn + fp); `balanced_accuracy`, the mean of
        these two; `precision` = tp / (tp + fp); `f1` = 2 tp / (2 tp + fp + fn).

    >>> scores = scores_at([0, 0, 1, 1], [0.1, 0.6, 0.6, 0.9], threshold=0.6)
    >>> scores["tp"], scores["fp"], scores["recall"], scores["specificity"], scores["f1"]
    (2, 1, 1.0, 0.5, 0.8)
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    if not np.isfinite(threshold):
        raise ValueError(f"The threshold must be a finite number, found {threshold}.")
    called = probability >= threshold
    tp, fp = int(np.sum(called & (label == 1))), int(np.sum(called & (label == 0)))
    fn, tn = int(np.sum(~called & (label == 1))), int(np.sum(~called & (label == 0)))
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "accuracy": _ratio(tp + tn, label.size),
        "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def choose_operating_point(logits: ArrayLike, labels: ArrayLike) -> OperatingPoint:
    """Fit the temperature (1 where not estimable), then choose the threshold on the calibrated probabilities.

    >>> choose_operating_point([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1])
    OperatingPoint(threshold=0.5, temperature=1.0)
    """
    temperature = fit_temperature(logits, labels)
    temperature = 1.0 if temperature is None else temperature
    return OperatingPoint(choose_threshold(labels, to_probabilities(logits, temperature)), temperature)


def evaluate(labels: ArrayLike, probabilities: ArrayLike, operating_point: OperatingPoint) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    `probabilities` are the calibrated ones: `to_probabilities(logits, operating_point.temperature)`. The loss
    depends on the temperature; AUROC, average precision and the scores at 0.5 do not (rounding aside).

    >>> metrics = evaluate([0, 1], [0.2, 0.4], OperatingPoint(threshold=0.3, temperature=1.0))
    >>> metrics["n"], metrics["auroc"], metrics["at_threshold"]["recall"], metrics["at_0.5"]["recall"]
    (2, 1.0, 1.0, 0.0)
    """
    _, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    return {
        "n": label.size,
        "n_positive": int(label.sum()),
        "loss": log_loss(label, probabilities),
        "auroc": auroc(label, probabilities),
        "average_precision": average_precision(label, probabilities),
        "threshold": float(operating_point.threshold),
        "temperature": float(operating_point.temperature),
        "at_threshold": scores_at(label, probabilities, operating_point.threshold),
        "at_0.5": scores_at(label, probabilities, 0.5),
    }


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigmoid through exp(-|logit|), which cannot overflow and keeps the small tail precise."""
    tail = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, tail) / (1.0 + tail)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _counts_from_the_top(
    probability: NDArray[np.float64], label: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct probabilities, greatest first, with the true positives and all positives called at each."""
    order = np.argsort(-probability, kind="stable")
    score, label = probability[order], label[order]
    last_of_its_score = np.append(np.flatnonzero(np.diff(score)), score.size - 1)
    return score[last_of_its_score], np.cumsum(label)[last_of_its_score], last_of_its_score + 1
