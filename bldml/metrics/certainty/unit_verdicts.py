"""A verdict on a sampling unit, such as a tree, from several photographs of it, by a rule chosen on validation units.

The score of a photograph is its logit minus that of the decision threshold, limited to ±`LIMIT`, so that no single
photograph decides for a unit. The score of a unit is the mean of its photographs; the unit is positive from a cut on.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import checked_probabilities, checked_scores, checked_units
from bldml.metrics.estimates import Estimate
from bldml.metrics.operating_point import ThresholdCriterion, choose_threshold, to_probabilities
from bldml.metrics.proportions import proportion

LEAST_UNITS = 10
"""Validation units of each class, with at least two photographs each, without which no rule is chosen."""
LIMIT = math.log(99)  # of a score: odds of 99 to 1
MOST_MORE = 50  # further photographs beyond which more of them are no answer
_Z = 1.6448536269514722  # 95 % quantile of the normal distribution: an error of 5 % on each side

Outcome = Literal["positive", "negative", "too few photographs", "undecided"]


@dataclass(frozen=True)
class UnitVerdict:
    """The verdict on one unit."""

    outcome: Outcome
    score: float  # mean of its photographs
    more: int = 0  # further photographs to take, as far as can be said; 0 unless there are too few


@dataclass(frozen=True)
class UnitRule:
    """A rule for units.

    Args:
        threshold: Decision threshold for photographs, in [0, 1].
        cut: A unit is positive if its score reaches it.
        spread: Standard deviation of scores within units, that of the class where it is larger.
        least: Photographs of the smallest unit that the rule was chosen on.
    """

    threshold: float
    cut: float
    spread: float
    least: int

    def judge(self, probabilities: ArrayLike) -> UnitVerdict:
        """Return the verdict on a unit from the calibrated probabilities of its photographs, (n,), n at least 1.

        It is decided if the score is farther from the cut than 1.645 standard errors, and the unit is not smaller than
        all that the rule was chosen on.

        >>> rule = UnitRule(threshold=0.5, cut=0.0, spread=2.0, least=2)
        >>> rule.judge([0.9, 0.95, 0.97]).outcome, rule.judge([0.6, 0.8, 0.7]).more
        ('positive', 11)
        """
        score = scores_of(probabilities, self.threshold)
        mean, n = float(score.mean()), score.size
        distance = abs(mean - self.cut)
        needed = (_Z * self.spread / distance) ** 2 if distance else math.inf
        if needed > n + MOST_MORE:
            return UnitVerdict("undecided", mean)
        more = max(math.ceil(needed - 1e-9), self.least) - n
        if more > 0:
            return UnitVerdict("too few photographs", mean, more)
        return UnitVerdict("positive" if mean >= self.cut else "negative", mean)


@dataclass(frozen=True)
class UnitAssessment:
    """A rule, and how it does on units that it was not chosen on.

    Args:
        rule: Chosen on all validation units.
        sensitivity, specificity: Of the decided units, each judged by the rule chosen on the others.
        units: Number of validation units without and with the positive class.
        undecided: How many of them were not decided.
        sizes: Photographs of the smallest, the median and the largest unit.
    """

    rule: UnitRule
    sensitivity: Estimate
    specificity: Estimate
    units: tuple[int, int]
    undecided: tuple[int, int]
    sizes: tuple[int, int, int]


def scores_of(probabilities: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Return the scores of photographs, (n,), in [-LIMIT, LIMIT]; 0 is the threshold.

    >>> scores_of([0.5, 1.0], 0.5).round(3).tolist()
    [0.0, 4.595]
    """
    # Neither 0 nor 1 has a logit.
    probability = np.clip(checked_scores(probabilities, "probabilities"), 1e-9, 1 - 1e-9)
    zero = min(max(threshold, 1e-9), 1 - 1e-9)
    logits = np.log(probability) - np.log1p(-probability) - math.log(zero / (1 - zero))
    return np.clip(logits, -LIMIT, LIMIT)


def choose_unit_rule(
    labels: ArrayLike, probabilities: ArrayLike, units: ArrayLike, threshold: float
) -> UnitAssessment | str:
    """Choose the rule with the highest Youden's J on validation units, and assess it by leaving out one unit at a time.

    A unit has the positive class if any of its photographs has. Units of one photograph are left out.

    Args:
        labels: 1 for the positive class, (n,).
        probabilities: Calibrated probabilities, (n,).
        units: Unit of each photograph, (n,).
        threshold: Decision threshold for photographs.

    Returns:
        The assessment, or the reason why there is none.
    """
    label, probability = checked_probabilities(labels, probabilities)
    unit = checked_units(units, label.size)
    size = np.bincount(unit)
    several = size[unit] > 1
    label, unit, score = (
        label[several],
        checked_units(unit[several], int(several.sum())),
        scores_of(probability[several], threshold),
    )
    size = np.bincount(unit)
    truth = (np.bincount(unit, weights=label) > 0).astype(np.int64)
    counts = int((truth == 0).sum()), int(truth.sum())
    if min(counts) < LEAST_UNITS:
        return (
            f"the validation photographs have {counts[1]} positive and {counts[0]} negative groups of two or more "
            f"photographs, and {LEAST_UNITS} of each are needed"
        )
    mean = np.bincount(unit, weights=score) / size
    squares = np.bincount(unit, weights=(score - mean[unit]) ** 2)

    def rule(kept: NDArray[np.bool_]) -> UnitRule:
        classes = [kept & (truth == value) for value in (0, 1)]
        spread = max(math.sqrt(squares[own].sum() / (size[own] - 1).sum()) for own in classes)
        cut = choose_threshold(truth[kept], to_probabilities(mean[kept]), ThresholdCriterion(maximize="youden"))
        return UnitRule(threshold, math.log(cut / (1 - cut)), spread, int(size[kept].min()))

    members = np.split(probability[several][np.argsort(unit, kind="stable")], np.cumsum(size)[:-1])
    everyone = np.ones(size.size, dtype=bool)
    outcomes = []
    for left_out in range(size.size):
        kept = everyone.copy()
        kept[left_out] = False
        outcomes.append(rule(kept).judge(members[left_out]).outcome)
    found = np.array(outcomes)
    decided = np.isin(found, ("positive", "negative"))
    rates = [proportion(int((own & (found == name)).sum()), int((own & decided).sum()))
             for own, name in ((truth == 1, "positive"), (truth == 0, "negative"))]  # fmt: skip
    undecided = int(((truth == 0) & ~decided).sum()), int(((truth == 1) & ~decided).sum())
    sizes = int(size.min()), int(np.median(size)), int(size.max())
    return UnitAssessment(rule(everyone), rates[0], rates[1], counts, undecided, sizes)
