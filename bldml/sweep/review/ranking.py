"""Which labelled photographs a person should look at again, by predictions of runs that did not learn from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bldml.metrics.operating_point import OperatingPoint
from bldml.sweep.results.gathering import PooledRows

NEAR_THRESHOLD = 1.0  # logits between a prediction and its threshold, below which it is said to be near
_AS_GIVEN = OperatingPoint(threshold=0.5, temperature=1.0)
REASONS = ("contradicted", "split", "near", "")
"""Why a photograph is among the first, in this order: label contradicted, seeds disagree, near the threshold."""


@dataclass(frozen=True)
class Doubt:
    """One photograph, its label, and what the runs that did not learn from it predict.

    Attributes:
        path: As in predictions.csv.
        unit: Name of its sampling unit; empty if it is one of its own.
        label: The class that it is labelled as.
        predicted: The class that the mean over seeds predicts.
        other: The class that is not its label.
        probability: Of the positive class: that of the mean over seeds of the calibrated logits.
        margin: Mean over seeds of the calibrated logit minus that of the threshold of its run; at least 0 for the
            positive class.
        against: Number of seeds that contradict the label.
        seeds: Number of seeds.
        reason: One of `REASONS`.
        is_confident: Whether the other class is as probable as on average where it is the label: the rule by which
            confident learning counts it as an example of the other class (Northcutt, Jiang and Chuang 2021).
        is_hard_negative: Whether it is labelled negative and predicted positive.
        of_unit: How many photographs of its unit have a contradicted label, and how many it has.
    """

    path: str
    unit: str
    label: str
    predicted: str
    other: str
    probability: float
    margin: float
    against: int
    seeds: int
    reason: str
    is_confident: bool
    is_hard_negative: bool
    of_unit: tuple[int, int]


def rank(result: PooledRows, negative: str) -> list[Doubt]:
    """Return all photographs in the order in which to look at them.

    First those whose label is contradicted, the least probable label first; then those whose label is right by the mean
    over seeds, but not by every seed; then those near the threshold; then the others. Within a reason, photographs of
    one sampling unit stand together, at the place of their first one.

    Args:
        result: Pooled out-of-fold predictions, of s seeds and n photographs.
        negative: Name of the negative class.
    """
    pooled = result.pooled
    logits, thresholds = (_logits(values) for values in (pooled.probabilities, pooled.thresholds))
    margins = logits - thresholds
    mean, margin = logits.mean(axis=0), margins.mean(axis=0)
    is_positive = pooled.labels == 1
    towards = np.where(is_positive, mean, -mean)  # the logit of the label
    against = ((margins >= 0) != is_positive).sum(axis=0)
    contradicted = (margin >= 0) != is_positive
    # Mean probability of each class where it is the label; the class has a photograph, or nothing was pooled.
    usual = {label: _sigmoid(towards[is_positive == label]).mean() for label in set(is_positive.tolist())}
    reasons = [
        REASONS[0] if contradicted[i] else REASONS[1] if against[i] else REASONS[2] if near else REASONS[3]
        for i, near in enumerate(np.abs(margin) < NEAR_THRESHOLD)
    ]
    name_of, units = {True: result.positive, False: negative}, pooled.units
    members, wrong = Counter(units.tolist()), Counter(units[contradicted].tolist())
    found = []
    for i in _order(reasons, np.where(contradicted, towards, np.abs(margin)), units):
        row, other = result.rows[0][i], not is_positive[i]
        found.append(
            Doubt(
                path=row.path,
                unit=row.unit.name if row.unit else "",
                label=name_of[not other],
                predicted=name_of[bool(margin[i] >= 0)],
                other=name_of[other],
                probability=float(_sigmoid(mean[i])),
                margin=float(margin[i]),
                against=int(against[i]),
                seeds=pooled.n_seeds,
                reason=reasons[i],
                is_confident=bool(contradicted[i] and other in usual and _sigmoid(-towards[i]) >= usual[other]),
                is_hard_negative=bool(contradicted[i] and other),
                of_unit=(wrong[units[i]], members[units[i]]),
            )
        )
    return found


def _order(reasons: Sequence[str], keys: NDArray[np.float64], units: NDArray[np.int64]) -> list[int]:
    """Return the order of the photographs: by reason, by the first of a unit, by key."""
    first: dict[tuple[str, int], float] = {}
    of = [(reason, int(unit)) for reason, unit in zip(reasons, units, strict=True)]
    for where, key in zip(of, keys.tolist(), strict=True):
        first[where] = min(first.get(where, key), key)
    return sorted(range(len(of)), key=lambda i: (REASONS.index(reasons[i]), first[of[i]], of[i][1], keys[i], i))


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([_AS_GIVEN.uncalibrated(row) for row in probabilities])


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return found
