"""Limits from validation photographs with a stated error on new ones, by split conformal prediction; three bands.

Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; by class: Vovk (2012), Conditional validity
of inductive conformal predictors. With units of several photographs: Lee, Barber and Willett (2023), Distribution-free
inference with hierarchical data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from bldml.metrics.checked import Units, checked_probabilities, checked_scores, checked_units
from bldml.metrics.estimates import Estimate
from bldml.metrics.proportions import EXACT, proportion_by_unit

BandName = Literal["positive", "uncertain", "negative"]
ONE_IN = 20  # of so many fits, one has a larger error than `error_in_one_of`


def conformal_limit(scores: ArrayLike, units: ArrayLike, error: float) -> float | None:
    """Return the lowest of the scores that one of a new unit exceeds with a probability of at most `error`.

    That is the average over validation sets and new photographs, whatever the distribution of the scores. It needs that
    the units are exchangeable: the new unit is drawn like those of the scores. Each unit has the same weight, shared by
    its photographs. If each has one photograph, the limit is an order statistic.

    Args:
        scores: Of the validation photographs, (n,).
        units: Their sampling units, (n,).
        error: In (0, 1).

    Returns:
        None if there are too few units: less than `units_needed`.

    >>> conformal_limit(range(19), range(19), 0.05), conformal_limit(range(18), range(18), 0.05)
    (18.0, None)
    >>> conformal_limit(range(39), range(39), 0.05)
    37.0
    """
    score = checked_scores(scores, "scores")
    unit = checked_units(units, score.size)
    sizes = np.bincount(unit)
    if sizes.size < units_needed(error):
        return None
    values, index = np.unique(score, return_inverse=True)
    weight = np.bincount(index, weights=1 / ((sizes.size + 1) * sizes[unit]))
    above = np.append(np.cumsum(weight[::-1])[::-1][1:], 0.0)
    # The new unit has a weight too, and may lie above all others.
    room = error - 1 / (sizes.size + 1)
    return float(values[above <= room + (1 - EXACT)][0])


def units_needed(error: float) -> int:
    """Return the smallest number of units for which there is a limit with this error.

    >>> units_needed(0.05), units_needed(0.02)
    (19, 49)
    """
    return math.ceil(EXACT / error) - 1


def error_in_one_of(units: int, error: float) -> float:
    """Return the error that one fit of `ONE_IN` exceeds, if the limit is chosen on so many units of one photograph.

    Given the validation photographs, the probability that a new score exceeds the k-th highest of n has the
    distribution Beta(k, n + 1 - k), where k is the integer part of `error` times n + 1 (Vovk 2012).

    >>> print(*(round(1 - error_in_one_of(n, 0.1), 2) for n in (9, 20, 45, 89)))
    0.72 0.78 0.84 0.84
    """
    from scipy.special import betaincinv  # takes time to load

    k = math.floor(error * (units + 1) / EXACT)
    if k < 1:
        raise ValueError(f"{units} units give no limit with an error of {error}.")
    return float(betaincinv(k, units + 1 - k, 1 - 1 / ONE_IN))


@dataclass(frozen=True)
class Bands:
    """Limits between certain and uncertain predictions, in plain types.

    Args:
        error: Highest proportion of photographs of a class, on average, that get the band of the other, in (0, 1).
        n_positive: Number of sampling units of positive validation photographs.
        n_negative: The same of negative ones.
        low: The band is negative below this probability; None if the units were too few.
        high: The band is positive from this probability on, which may be above 1; None if the units were too few.
    """

    error: float
    n_positive: int
    n_negative: int
    low: float | None = None
    high: float | None = None

    def band(self, probability: float) -> BandName | None:
        """Return the band of a calibrated probability; None without limits."""
        if self.low is None or self.high is None:
            return None
        return "negative" if probability < self.low else "positive" if probability >= self.high else "uncertain"

    @classmethod
    def from_plain(cls, plain: Any) -> "Bands":
        """Return the bands with these fields.

        Raises:
            ValueError: They are no fields of bands.
        """
        names = cls.__dataclass_fields__
        if not isinstance(plain, Mapping) or plain.keys() != names.keys():
            raise ValueError(f"bands need {', '.join(names)}")
        found, limits = cls(**plain), (plain["low"], plain["high"])
        counts = (found.n_positive, found.n_negative)
        good = isinstance(found.error, float) and 0 < found.error < 1
        good = good and all(type(n) is int and n >= 0 for n in counts)
        are_limits = all(isinstance(limit, float) and 0 <= limit < 2 for limit in limits)
        if not good or not (limits == (None, None) or (are_limits and limits[0] <= limits[1])):
            raise ValueError(f"these are no bands: {dict(plain)}")
        return found


@dataclass(frozen=True)
class BandEstimates:
    """What bands come to on labelled photographs, with intervals by sampling unit.

    Args:
        uncertain: Proportion of uncertain photographs.
        error: Proportion of errors among the others.
        positive: Proportion of the positive photographs that have the band negative.
        negative: Proportion of the negative photographs that have the band positive.
        counts: (hits, photographs) of each, in this order.
    """

    uncertain: Estimate
    error: Estimate
    positive: Estimate
    negative: Estimate
    counts: tuple[tuple[int, int], ...]


def estimate_bands(bands: Bands, labels: ArrayLike, probabilities: ArrayLike, units: Units) -> BandEstimates | None:
    """Estimate what bands come to; None without limits. Arguments as in `choose_bands`.

    >>> found = estimate_bands(Bands(0.05, 20, 20, 0.2, 0.8), [1, 1, 0, 0], [0.9, 0.1, 0.5, 0.3], np.arange(4))
    >>> found.counts
    ((2, 4), (1, 2), (1, 2), (0, 2))
    """
    if bands.low is None or bands.high is None:
        return None
    label, probability = checked_probabilities(labels, probabilities)
    below, above = probability < bands.low, probability >= bands.high
    everything = np.ones(label.size, dtype=bool)
    wrong = (below & (label == 1)) | (above & (label == 0))
    parts = ((~(below | above), everything), (wrong, below | above), (below, label == 1), (above, label == 0))
    uncertain, error, positive, negative = (proportion_by_unit(hits[among], units[among]) for hits, among in parts)
    counts = tuple((int(hits[among].sum()), int(among.sum())) for hits, among in parts)
    return BandEstimates(uncertain, error, positive, negative, counts)


def choose_bands(
    labels: ArrayLike, probabilities: ArrayLike, units: ArrayLike, threshold: float, error: float
) -> Bands:
    """Choose the limits on the validation photographs, for each class by itself.

    A photograph is uncertain where both classes are plausible, and also where neither is: between the classes, where
    the validation photographs are separated. A band never contradicts the predicted class: the lower limit is at most
    the threshold, the upper one at least.

    Args:
        labels: 1 for the positive class, (n,).
        probabilities: Calibrated, (n,).
        units: Sampling units, (n,).
        threshold: That of the operating point.
        error: As in `Bands`.

    >>> choose_bands([0] * 19 + [1] * 19, [0.1] * 18 + [0.7] + [0.2] + [0.9] * 18, range(38), 0.5, 0.05)
    Bands(error=0.05, n_positive=19, n_negative=19, low=0.2, high=0.7000000000000001)
    >>> choose_bands([0] * 19 + [1] * 19, [0.1] * 19 + [0.9] * 19, range(38), 0.5, 0.05).high
    0.9
    """
    label, probability = checked_probabilities(labels, probabilities)
    unit = checked_units(units, label.size)
    sides = [(label == value) for value in (1, 0)]
    n_positive, n_negative = (int(np.unique(unit[side]).size) for side in sides)
    below, above = (
        conformal_limit(sign * probability[side], unit[side], error) for sign, side in zip((-1, 1), sides, strict=True)
    )
    if below is None or above is None:
        return Bands(error, n_positive, n_negative)
    # The negative class is plausible at its limit itself.
    limits = -below, math.nextafter(above, 2), threshold
    return Bands(error, n_positive, n_negative, min(limits), max(limits))
