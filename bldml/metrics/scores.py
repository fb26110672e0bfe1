"""Formulas of metrics that are computed from probabilities: pure functions on arrays.

Throughout, `labels` is an integer array of shape (n,) with 1 for the positive class, `logits` and `probabilities` are
float arrays of shape (n,) for the positive class. A metric that the data do not define (0/0) is None, never nan. Wrong
shapes or values raise ValueError.
"""

import numpy as np
from numpy.typing import ArrayLike

from bldml.metrics.auroc import midranks
from bldml.metrics.checked import checked_probabilities
from bldml.metrics.operating_point import counts_by_threshold


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
