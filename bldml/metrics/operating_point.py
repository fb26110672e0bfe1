"""The operating point, temperature and threshold: chosen on validation data, never on test data.

`labels`, `logits` and `probabilities` are as in `bldml.metrics.scores`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.errors import ConfigError
from bldml.metrics.checked import Units, checked_pair, checked_probabilities, checked_scores
from bldml.metrics.estimates import Interval
from bldml.metrics.proportions import EXACT, Assurance, assurances, design_effect

TEMPERATURE_RANGE = (0.25, 10.0)
CHI_SQUARED_95 = 3.841458820694124  # with one degree of freedom

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """Threshold and temperature.

    Args:
        threshold: Lowest calibrated probability that is predicted positive, in [0, 1].
        temperature: Divides the logit before the sigmoid, greater than 0; 1 changes nothing.
        offset: Subtracted from the logit before that; 0 changes nothing. A loss that weights positives by w teaches
            odds that are w times the true ones (Elkan 2001), so it is log(w).
    """

    threshold: float
    temperature: float
    offset: float = 0.0

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Return the calibrated probabilities of logits, both (n,)."""
        return to_probabilities(np.asarray(logits, dtype=np.float64) - self.offset, self.temperature)

    def uncalibrated(self, probabilities: ArrayLike) -> Floats:
        """Return the logits without the temperature that have these calibrated probabilities, both (n,).

        0 and 1, which no finite logit has, count as the nearest numbers that `log_loss` counts them as. The offset is
        not added.
        """
        epsilon = np.finfo(np.float64).eps
        probability = np.clip(checked_scores(probabilities, "probabilities"), epsilon, 1 - epsilon)
        logits: Floats = (np.log(probability) - np.log1p(-probability)) * self.temperature
        return logits


@dataclass(frozen=True)
class ThresholdCriterion:
    """Criterion for choosing the threshold on the validation photographs. Set one at most; the default is the best F1.

    Only `assurance` goes with another one, with a minimum sensitivity or specificity below 1; `band_error` goes with
    all.

    Args:
        maximize: Metric to maximise: f1, or youden (sensitivity + specificity - 1).
        sensitivity: Minimum sensitivity, in (0, 1]; the specificity is then maximised.
        specificity: Minimum specificity, in (0, 1]; the sensitivity is then maximised.
        threshold: Fixed threshold, in [0, 1]; nothing is then chosen.
        assurance: Probability, in (0, 1), that the minimum holds on new leaves like the validation photographs; without
            it, the minimum holds on the validation photographs only.
        band_error: Highest proportion of new leaves of a class, on average, that get the band of the other class, in
            (0, 0.5): photographs between the two bands are uncertain. Null: no bands.
    """

    maximize: Literal["f1", "youden"] | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    threshold: float | None = None
    assurance: float | None = None
    band_error: float | None = 0.05

    def __post_init__(self) -> None:
        """Check that at most one criterion is set, in its range, and an assurance only with a minimum."""
        criteria = {key: value for key, value in vars(self).items() if value is not None}
        assurance, band_error = criteria.pop("assurance", None), criteria.pop("band_error", None)
        if len(criteria) > 1:
            message = f"operating_point takes one threshold criterion, not {' and '.join(criteria)}. Remove the others."
            raise ConfigError(message, "criterion-ambiguous", found=[*criteria])
        if assurance is not None and self.minimum is None:
            message = "operating_point.assurance needs a minimum sensitivity or specificity"
            message += f", not {' and '.join(criteria)}." if criteria else ": set operating_point.sensitivity too."
            raise ConfigError(message, "assurance-without-minimum", found=[*criteria])
        criteria.pop("maximize", None)
        for key, value in (criteria | ({} if assurance is None else {"assurance": assurance})).items():
            # No number of photographs assures that no leaf at all is missed.
            bracket = "[0, 1]" if key == "threshold" else "(0, 1]" if assurance is None else "(0, 1)"
            if not 0 <= value <= 1 or (value == 0 and bracket[0] == "(") or (value == 1 and bracket[-1] == ")"):
                message = f"operating_point.{key} must lie in {bracket}{_WITH if ')' in bracket else ''}, not {value}."
                raise ConfigError(message, "criterion-out-of-range", key=key, found=value, expected=bracket)
        if band_error is not None and not 0 < band_error < 0.5:
            message = f"operating_point.band_error must lie in (0, 0.5), or be null for no bands, not {band_error}."
            raise ConfigError(message, "band-error-out-of-range", found=band_error, expected="(0, 0.5)")

    @property
    def minimum(self) -> tuple[Literal["sensitivity", "specificity"], float] | None:
        """The metric that has a minimum, and the minimum; None without one."""
        if self.sensitivity is not None:
            return "sensitivity", self.sensitivity
        return None if self.specificity is None else ("specificity", self.specificity)

    def __str__(self) -> str:
        """Return the criterion in words.

        >>> str(ThresholdCriterion()), str(ThresholdCriterion(sensitivity=0.95))
        ('highest F1', 'sensitivity of at least 0.95')
        """
        if self.threshold is not None:
            return f"threshold fixed in advance at {self.threshold:g}"
        if self.minimum is not None:
            name, least = self.minimum
            sure = "" if self.assurance is None else f" on new leaves with an assurance of {self.assurance:g}"
            return f"{name} of at least {least:g}{sure}"
        return "highest Youden's J" if self.maximize == "youden" else "highest F1"


BEST_F1 = ThresholdCriterion()


def assurance_of(criterion: ThresholdCriterion, hits: ArrayLike, units: Units) -> Assurance | None:
    """Return what a criterion with a minimum assures; None for any other criterion, or without photographs.

    Args:
        criterion: By which the threshold was chosen.
        hits: Whether each photograph is on the right side of the threshold, (n,); of the class of the minimum only.
        units: Their sampling units, (n,).
    """
    n = int(units.size)
    if criterion.minimum is None or not n:
        return None
    effect, least = design_effect(units), criterion.minimum[1]
    permitted = n - _fewest_hits(criterion, n, effect)
    return Assurance(least, n, effect, permitted, n - int(np.sum(hits)))


def _fewest_hits(criterion: ThresholdCriterion, n: int, effect: float) -> int:
    """Return how many of n photographs must be on the right side; all of them where none gives the assurance."""
    assert criterion.minimum is not None
    least = criterion.minimum[1]
    if criterion.assurance is None:
        return math.ceil(n * least * EXACT)
    reached = assurances(n, np.arange(n), least, effect) >= criterion.assurance * EXACT
    return n - max(int(reached.sum()) - 1, 0)


def to_probabilities(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Return sigmoid(logit / temperature), without overflow, in float64, shape (n,), range [0, 1].

    >>> to_probabilities([-2.0, 0.0, 2000.0], temperature=2.0).round(3).tolist()
    [0.269, 0.5, 1.0]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"The temperature must be a finite number greater than 0, found {temperature}.")
    return _sigmoid(checked_scores(logits, "logits") / temperature)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the temperature in [0.25, 10] with the lowest mean negative log-likelihood (Guo et al. 2017).

    None if the data do not determine it: no photograph, one class only, every logit 0, classes that a threshold
    separates without error (a fit would only make the model overconfident), or a likelihood-ratio test that does not
    tell it from 1 at the 5 % level (for few photographs a fit then harms more often than it helps).

    >>> round(fit_temperature([4.0, 4.0, 4.0, -4.0, -4.0, -4.0], [1, 1, 0, 0, 0, 1]), 3)
    5.771
    >>> fit_temperature([2.0, 3.0, -1.0], [1, 1, 0]) is None  # separated without error
    True
    """
    margin = _margins(logits, labels)
    if margin is None:
        return None
    beta = _best_beta(margin)
    return 1 / beta if _deviance(margin, 1.0, beta) > CHI_SQUARED_95 else None


def temperature_interval(logits: ArrayLike, labels: ArrayLike) -> Interval | None:
    """Return the 95 % interval of the temperature within [0.25, 10]; None where the data do not determine it.

    It contains the temperatures that a likelihood-ratio test does not tell from the best one, and so excludes 1 exactly
    where `fit_temperature` returns one. Photographs count as independent.

    >>> found = temperature_interval([4.0, 4.0, 4.0, -4.0, -4.0, -4.0], [1, 1, 0, 0, 0, 1])
    >>> round(found.low, 2), found.high
    (1.5, 10.0)
    """
    from scipy.optimize import brentq  # takes time to load

    margin = _margins(logits, labels)
    if margin is None:
        return None
    best = _best_beta(margin)

    def excess(beta: float) -> float:
        return _deviance(margin, beta, best) - CHI_SQUARED_95

    edges = (1 / temperature for temperature in TEMPERATURE_RANGE)
    low, high = (1 / (edge if excess(edge) <= 0 else brentq(excess, edge, best, xtol=1e-12)) for edge in edges)
    return Interval(low, high, "likelihood ratio, photographs treated as independent")


def _margins(logits: ArrayLike, labels: ArrayLike) -> Floats | None:
    """Return the logits with the sign of the true class, (n,); None if they do not determine a temperature."""
    label, logit = checked_pair(labels, logits, "logits")
    positive, negative = logit[label == 1], logit[label == 0]
    if not positive.size or not negative.size or not logit.any():
        return None
    if positive.min() > negative.max() or negative.min() > positive.max():
        return None
    return np.where(label == 1, logit, -logit)


def _best_beta(margin: Floats) -> float:
    """Return the most likely 1 / temperature within the range.

    The loss mean(log(1 + exp(-beta * margin))) is convex in beta, so bisection on its slope finds the one minimum. 60
    halvings reach the resolution of float64; a minimum outside the range gives the nearer limit.
    """
    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    for _ in range(60):
        beta = (low + high) / 2
        falls = float(np.mean(margin * _sigmoid(-beta * margin))) > 0
        low, high = (beta, high) if falls else (low, beta)
    return (low + high) / 2


def _deviance(margin: Floats, beta: float, best: float) -> float:
    """Return twice the log-likelihood ratio of two values of 1 / temperature."""
    return 2 * float(np.sum(np.logaddexp(0, -beta * margin) - np.logaddexp(0, -best * margin)))


def choose_threshold(
    labels: ArrayLike, probabilities: ArrayLike, criterion: ThresholdCriterion = BEST_F1, effect: float = 1.0
) -> float:
    """Return the threshold that meets the criterion best, in [0, 1].

    The middle of the best interval between neighbouring distinct probabilities, in which every metric is constant; also
    from 0 to the lowest one, and from the highest one to 1, where no photograph is predicted positive. Of several
    equally good intervals, the one whose middle is closest to 0.5, and of two equally close ones the lower (it misses
    fewer positives). If a class is absent, the threshold is 0.5.

    >>> choose_threshold([0, 0, 1, 1], [0.1, 0.25, 0.75, 0.875])
    0.5
    >>> choose_threshold([0, 1, 0, 1], [0.1, 0.2, 0.6, 0.8], ThresholdCriterion(sensitivity=0.95))
    0.15000000000000002
    >>> choose_threshold([1, 1], [0.9, 0.8])
    0.5
    """
    label, probability = checked_probabilities(labels, probabilities)
    if criterion.threshold is not None:
        return criterion.threshold
    n_positive = int(label.sum())
    if n_positive in (0, label.size):
        return 0.5
    score, true_positives, predicted = counts_by_threshold(label, probability)
    below = np.append(score[1:], 0.0)
    middle = below + (score - below) / 2
    # Scores one rounding step apart have no middle, and the lower score would predict more photographs positive.
    middle = np.where(middle > below, middle, score)
    if score[0] < 1:  # a threshold at which no photograph is predicted positive
        above = score[0] + (1 - score[0]) / 2
        middle = np.append(above if above > score[0] else 1.0, middle)
        true_positives, predicted = np.append(0, true_positives), np.append(0, predicted)
    first, second = _objectives(criterion, effect, true_positives, predicted, n_positive, label.size - n_positive)
    best = first == first.max()
    best &= second == second[best].max()
    candidates = middle[best][::-1]
    return float(candidates[np.argmin(np.abs(candidates - 0.5))])


def choose_operating_point(
    logits: ArrayLike,
    labels: ArrayLike,
    criterion: ThresholdCriterion = BEST_F1,
    offset: float = 0.0,
    effect: float = 1.0,
) -> OperatingPoint:
    """Fit the temperature (1 if not estimable), then choose the threshold on the calibrated probabilities.

    Args:
        logits: Of the network, (n,).
        labels: 1 for the positive class, (n,).
        criterion: For the threshold.
        offset: Subtracted from the logits first; see `OperatingPoint`.
        effect: As in `choose_threshold`.

    >>> choose_operating_point([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1])
    OperatingPoint(threshold=0.5, temperature=1.0, offset=0.0)
    """
    shifted = checked_scores(logits, "logits") - offset
    temperature = fit_temperature(shifted, labels)
    temperature = 1.0 if temperature is None else temperature
    threshold = choose_threshold(labels, to_probabilities(shifted, temperature), criterion, effect)
    return OperatingPoint(threshold, temperature, offset)


def counts_by_threshold(
    label: NDArray[np.int64], probability: Floats
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct probabilities, highest first, and at each the true positives and all predicted positives."""
    order = np.argsort(-probability, kind="stable")
    score, label = probability[order], label[order]
    last_of_its_score = np.append(np.flatnonzero(np.diff(score)), score.size - 1)
    return score[last_of_its_score], np.cumsum(label)[last_of_its_score], last_of_its_score + 1


def roc_points(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats] | None:
    """Return the false-positive rate and the sensitivity at every threshold, highest first, each (m,).

    Both start with 0 and end with 1; equal probabilities are one step. None unless both classes are present.

    >>> rate, sensitivity = roc_points([0, 1, 1], [0.2, 0.2, 0.9])
    >>> rate.tolist(), sensitivity.tolist()
    ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])
    """
    label, probability = checked_probabilities(labels, probabilities)
    n_positive = int(label.sum())
    if n_positive in (0, label.size):
        return None
    _, hits, predicted = counts_by_threshold(label, probability)
    alarms = (predicted - hits) / (label.size - n_positive)
    return np.concatenate([[0.0], alarms]), np.concatenate([[0.0], hits / n_positive])


def precision_recall_points(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats] | None:
    """Return recall and precision as steps, each (2m,); the area below them is the average precision.

    None without positives.

    >>> recall, precision = precision_recall_points([0, 1, 1], [0.2, 0.2, 0.9])
    >>> recall.tolist(), precision.round(3).tolist()
    ([0.0, 0.5, 0.5, 1.0], [1.0, 1.0, 0.667, 0.667])
    """
    label, probability = checked_probabilities(labels, probabilities)
    n_positive = int(label.sum())
    if not n_positive:
        return None
    _, hits, predicted = counts_by_threshold(label, probability)
    return np.repeat(np.concatenate([[0.0], hits / n_positive]), 2)[1:-1], np.repeat(hits / predicted, 2)


def _objectives(
    criterion: ThresholdCriterion,
    effect: float,
    tp: NDArray[np.int64],
    predicted: NDArray[np.int64],
    n_positive: int,
    n_negative: int,
) -> tuple[Floats, Floats]:
    """Return the objective at each threshold and a second one for ties. Ties of fractions are exact."""
    if criterion.minimum is not None:
        hits = (tp, n_negative - (predicted - tp))
        sizes = (n_positive, n_negative)
        own, other = (0, 1) if criterion.minimum[0] == "sensitivity" else (1, 0)
        reached = hits[own] >= _fewest_hits(criterion, sizes[own], effect)
        return np.where(reached, hits[other] / sizes[other], -1.0), hits[own] / sizes[own]
    none = np.zeros(tp.size)
    if criterion.maximize == "youden":
        # Over a common denominator, in integers: equal values compare equal.
        return (tp * n_negative - (predicted - tp) * n_positive).astype(np.float64), none
    return 2 * tp / (predicted + n_positive), none


_WITH = " with an assurance"


def _sigmoid(logit: Floats) -> Floats:
    """Return the sigmoid through exp(-|logit|), which cannot overflow and keeps the small tail precise."""
    tail = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, tail) / (1.0 + tail)
