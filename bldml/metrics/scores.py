"""Scores of a binary classifier: pure functions on arrays.

Throughout, `labels` is an integer array of shape (n,) with 1 for the positive class, `logits` and
`probabilities` are float arrays of shape (n,) for the positive class, and an image is called positive where
its probability is greater than *or equal to* the threshold. A score that the data do not define (0/0) is
None, never nan. Wrong shapes or values raise ValueError.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bldml.metrics.checked import checked_pair
from bldml.metrics.operating_point import OperatingPoint, counts_from_the_top

Scores = dict[str, float | int | None]


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
    _, true_positives, called = counts_from_the_top(probability, label)
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


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean squared distance of probability and label (Brier 1950), in [0, 1]; None without images.

    >>> brier_score([0, 1], [0.5, 0.75])
    0.15625
    """
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
    return float(np.mean((probability - label) ** 2)) if label.size else None


def brier_skill(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return 1 - Brier score / that of always saying the prevalence, 1 or less; None unless both classes are there.

    >>> brier_skill([0, 1], [0.5, 0.75])
    0.375
    """
    score, label = brier_score(labels, probabilities), np.asarray(labels)
    if score is None or label.min() == label.max():
        return None
    return 1 - score / float(label.mean() * (1 - label.mean()))


def scores_at(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> Scores:
    """Return the confusion counts and the scores that follow from them at one threshold.

    Returns:
        `tp`, `fp`, `fn`, `tn` (images) and, each in [0, 1] or None where undefined: `accuracy`; `recall`
        = tp / (tp + fn), the sensitivity; `specificity` = tn / (tn + fp); `balanced_accuracy`, the mean of
        these two; `youden_j`, their sum less 1, in [-1, 1]; `precision` = tp / (tp + fp), the positive predictive
        value at this prevalence; `npv` = tn / (tn + fn); `f1` = 2 tp / (2 tp + fp + fn); `mcc`, the correlation of
        call and truth, in [-1, 1] (Matthews 1975).

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
    return scores_of(tp, fp, fn, tn)


def scores_of(tp: int, fp: int, fn: int, tn: int) -> Scores:
    """Return what `scores_at` returns, of the four counts (images, 0 or more).

    >>> scores_of(45, 4, 0, 67)["accuracy"]
    0.9655172413793104
    """
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
        "youden_j": None if recall is None or specificity is None else recall + specificity - 1,
        "precision": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
    }


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
        "brier": brier_score(label, probabilities),
        "brier_skill": brier_skill(label, probabilities),
        "threshold": float(operating_point.threshold),
        "temperature": float(operating_point.temperature),
        "at_threshold": scores_at(label, probabilities, operating_point.threshold),
        "at_0.5": scores_at(label, probabilities, 0.5),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
