"""Every metric a second time, by scikit-learn, SciPy or from its definition; nan where it is not defined. Samples."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

Truth = NDArray[np.int64]
Floats = NDArray[np.float64]


def _logit(p: Floats) -> Floats:
    logit: Floats = special.logit(np.clip(p, 1e-12, 1 - 1e-12))
    return logit


def _separated(y: Truth, p: Floats) -> bool:
    one_class, constant = len(set(y)) < 2, len(set(p)) < 2
    return one_class or constant or p[y == 1].min() >= p[y == 0].max() or p[y == 0].min() >= p[y == 1].max()


def _slope(y: Truth, p: Floats) -> float:
    if _separated(y, p):
        return math.nan
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(_logit(p)[:, None], y)
    return float(fitted.coef_[0, 0])


def _intercept(y: Truth, p: Floats) -> float:
    if _separated(y, p) or np.isin([0, 1], p).any():
        return math.nan
    return float(optimize.brentq(lambda a: np.sum(special.expit(_logit(p) + a) - y), -60, 60))


def _calibration_error(y: Truth, p: Floats) -> float:
    error = 0.0
    for low in range(10):
        inside = [(a, b) for a, b in zip(y, p, strict=True) if low <= 10 * b < low + 1 or (low == 9 and b == 1)]
        error += abs(sum(a - b for a, b in inside)) / len(y)
    return error


def _expected_calibration_error(y: Truth, p: Floats) -> float:
    drawn = np.random.default_rng(99).random((200, len(p))) < p
    return float(np.mean([_calibration_error(labels.astype(int), p) for labels in drawn]))


def _brier_skill(y: Truth, p: Floats) -> float:
    if len(set(y)) < 2:
        return math.nan
    guessing = sklearn_metrics.brier_score_loss(y, np.full(len(y), y.mean()))
    return float(1 - sklearn_metrics.brier_score_loss(y, p) / guessing)


def _odds_ratio(y: Truth, c: Truth, *, positive: bool) -> float:
    """How many of the positives for each of the negatives are predicted so."""
    if len(set(y)) < 2:
        return math.nan
    diseased, healthy = (np.mean(c[y == label] == int(positive)) for label in (1, 0))
    return float(diseased / healthy) if healthy else math.nan


def _of_both(y: Truth, value: Callable[[], float]) -> float:
    return value() if len(set(y)) == 2 else math.nan


KINDS = ("informed", "tied", "constant", "separated", "reversed", "extreme", "neighbours")


def draw(kind: str, seed: int) -> tuple[Truth, Floats]:
    """Labels of both classes and probabilities of one kind."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    n = int(rng.integers(2, 60))
    labels = rng.permutation(np.r_[0, 1, rng.random(n - 2) < rng.uniform(0.05, 0.95)]).astype(np.int64)
    informed = np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1)
    return labels, {
        "informed": informed,
        "tied": informed.round(1),
        "constant": np.full(n, rng.random()),
        "separated": 0.5 * labels + 0.49 * rng.random(n),
        "reversed": 1 - (0.5 * labels + 0.49 * rng.random(n)),
        "extreme": rng.choice([0.0, 5e-324, 1e-300, 0.5, 1 - 2**-53, 1.0], n),
        "neighbours": np.ldexp(2**52 + rng.integers(0, 6, n), -53),  # one rounding step apart, from 0.5 up
    }[kind]


UNDEFINED = {"zero_division": math.nan}
OF_PREDICTIONS: dict[str, Callable[[Truth, Truth], float]] = {
    "sensitivity": lambda y, c: sklearn_metrics.recall_score(y, c, **UNDEFINED),
    "specificity": lambda y, c: sklearn_metrics.recall_score(y, c, pos_label=0, **UNDEFINED),
    "ppv": lambda y, c: sklearn_metrics.precision_score(y, c, **UNDEFINED),
    "npv": lambda y, c: sklearn_metrics.precision_score(y, c, pos_label=0, **UNDEFINED),
    "accuracy": sklearn_metrics.accuracy_score,
    "balanced_accuracy": lambda y, c: _of_both(y, lambda: sklearn_metrics.balanced_accuracy_score(y, c)),
    "youden_j": lambda y, c: _of_both(y, lambda: sklearn_metrics.balanced_accuracy_score(y, c, adjusted=True)),
    "f1": lambda y, c: sklearn_metrics.f1_score(y, c, **UNDEFINED),
    # scikit-learn says that the correlation with a constant is 0.
    "mcc": lambda y, c: sklearn_metrics.matthews_corrcoef(y, c) if len(set(y)) == len(set(c)) == 2 else math.nan,
    "lr_positive": lambda y, c: _odds_ratio(y, c, positive=True),
    "lr_negative": lambda y, c: _odds_ratio(y, c, positive=False),
}
OF_PROBABILITIES: dict[str, Callable[[Truth, Floats], float]] = {
    "auroc": lambda y, p: _of_both(y, lambda: sklearn_metrics.roc_auc_score(y, p)),
    "average_precision": lambda y, p: sklearn_metrics.average_precision_score(y, p) if any(y) else math.nan,
    "brier": lambda y, p: sklearn_metrics.brier_score_loss(y, p, labels=[0, 1]),
    "brier_skill": _brier_skill,
    "loss": lambda y, p: sklearn_metrics.log_loss(y, p, labels=[0, 1]),
    "calibration_slope": _slope,
    "calibration_intercept": _intercept,
    "ece": _calibration_error,
    "ece_expected": _expected_calibration_error,
}
# How far a metric may lie from its oracle: what is fitted or drawn is not exact.
TOLERANCES = {"calibration_slope": 1e-4, "calibration_intercept": 1e-6, "ece_expected": 0.03}


def second_opinion(name: str, labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> float:
    """The metric of this name.

    Raises:
        KeyError: It has no oracle. Write one into this file.
    """
    truth, probability = np.asarray(labels).astype(np.int64), np.asarray(probabilities, dtype=np.float64)
    if name in OF_PREDICTIONS:
        return float(OF_PREDICTIONS[name](truth, (probability >= threshold).astype(np.int64)))
    return float(OF_PROBABILITIES[name](truth, probability))
