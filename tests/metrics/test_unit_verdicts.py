"""Verdicts on units: against a plain loop, and in a small simulation (benchmarks/unit_verdicts.py has a large one)."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

from bldml.metrics.certainty.unit_verdicts import LEAST_UNITS, LIMIT, UnitAssessment, UnitRule, choose_unit_rule

Drawn = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def drawn(units: int, seed: int, icc: float = 0.4, distance: float = 4.0) -> Drawn:
    """Labels, probabilities and units: photographs of one unit share a normal effect; 2 to 9 photographs each."""
    generator = np.random.default_rng(seed)
    label = np.repeat([0, 1], units)
    sizes = generator.integers(2, 10, 2 * units)
    shared = math.sqrt(icc) * generator.normal(size=2 * units) + (label - 0.5) * distance
    unit = np.repeat(np.arange(2 * units), sizes)
    return label[unit], expit(shared[unit] + math.sqrt(1 - icc) * generator.normal(size=unit.size)), unit


def by_hand(label: NDArray[np.int64], probability: NDArray[np.float64], unit: NDArray[np.int64], threshold: float):  # type: ignore[no-untyped-def]
    """The same by plain loops: the cut is the middle, as a probability, of the best interval, nearest to .5."""
    scores: dict[int, list[float]] = {}
    truth: dict[int, int] = {}
    for one_label, p, one in zip(label.tolist(), probability.tolist(), unit.tolist(), strict=True):
        scores.setdefault(one, []).append(min(max(float(logit(p) - logit(threshold)), -LIMIT), LIMIT))
        truth[one] = max(truth.get(one, 0), one_label)

    def rule(kept: list[int]) -> tuple[float, float, int]:
        means = {one: expit(statistics.fmean(scores[one])) for one in kept}
        edges = sorted({0.0, *means.values(), 1.0})
        best = []
        for low, high in pairwise(edges):
            hit = sum(means[one] >= high for one in kept if truth[one]) / sum(truth[one] for one in kept)
            clear = sum(means[one] < high for one in kept if not truth[one]) / sum(not truth[one] for one in kept)
            middle = (low + high) / 2
            best.append((-round(hit + clear, 12), abs(middle - 0.5), middle))
        spreads = []
        for value in (0, 1):
            of_class = [scores[one] for one in kept if truth[one] == value]
            squares = sum((s - statistics.fmean(own)) ** 2 for own in of_class for s in own)
            spreads.append(math.sqrt(squares / sum(len(own) - 1 for own in of_class)))
        return float(logit(min(best)[2])), max(spreads), min(len(scores[one]) for one in kept)

    counts = {(value, outcome): 0 for value in (0, 1) for outcome in ("positive", "negative", "open")}
    for left_out in scores:
        cut, spread, least = rule([one for one in scores if one != left_out])
        n, mean = len(scores[left_out]), statistics.fmean(scores[left_out])
        decided = n >= least and abs(mean - cut) >= statistics.NormalDist().inv_cdf(0.95) * spread / math.sqrt(n)
        outcome = ("positive" if mean >= cut else "negative") if decided else "open"
        counts[truth[left_out], outcome] += 1
    return rule([*scores]), counts


@pytest.mark.parametrize(("seed", "threshold"), [(0, 0.5), (1, 0.2), (2, 0.8)])
def test_rule_and_rates_are_those_of_a_plain_loop(seed: int, threshold: float) -> None:
    label, probability, unit = drawn(12, seed, distance=2.5)
    found = choose_unit_rule(label, probability, unit, threshold)
    assert isinstance(found, UnitAssessment)
    (cut, spread, least), counts = by_hand(label, probability, unit, threshold)
    assert (found.rule.cut, found.rule.spread) == pytest.approx((cut, spread), abs=1e-9)
    assert found.rule.least == least
    assert found.undecided == (counts[0, "open"], counts[1, "open"])
    for value, name, estimate in ((1, "positive", found.sensitivity), (0, "negative", found.specificity)):
        right, decided = counts[value, name], counts[value, "positive"] + counts[value, "negative"]
        assert estimate.numbers is not None
        low, high = proportion_confint(right, decided, method="wilson")
        assert estimate.numbers == pytest.approx((low, right / decided, high), abs=1e-9)


def test_too_few_units_are_refused_and_the_reason_counts_them() -> None:
    label, probability, unit = drawn(LEAST_UNITS, 3)
    assert isinstance(choose_unit_rule(label, probability, unit, 0.5), UnitAssessment)
    # A unit of one photograph shows nothing about the spread within units.
    kept = (unit != 0) | (np.arange(unit.size) == 0)
    reason = choose_unit_rule(label[kept], probability[kept], unit[kept], 0.5)
    assert isinstance(reason, str)
    assert f"{LEAST_UNITS} positive and {LEAST_UNITS - 1} negative" in reason


def test_asked_for_photographs_decide_the_unit() -> None:
    rule = UnitRule(threshold=0.5, cut=0.3, spread=1.7, least=2)
    for value in (0.7, 0.8, 0.9, 0.99):
        few = rule.judge([value] * 2)
        if few.more:
            assert rule.judge([value] * (1 + few.more)).outcome == "too few photographs"
        assert rule.judge([value] * (2 + few.more)).outcome == "positive"
    assert rule.judge([0.9999]).more >= 1  # a unit smaller than all that the rule was chosen on
    assert rule.judge([float(expit(0.3))] * 4).outcome == "undecided"  # on the cut itself
    # One photograph that is certain beyond the limit does not outvote seven.
    assert rule.judge([1.0, *[0.2] * 7]).score < 0


def test_sensitivity_of_new_units_is_inside_the_interval_as_often_as_stated() -> None:
    inside = []
    for seed in range(60):
        found = choose_unit_rule(*drawn(20, 100 + seed, distance=2.5), 0.5)
        assert isinstance(found, UnitAssessment)
        label, probability, unit = drawn(400, 9000 + seed, distance=2.5)
        ends = np.flatnonzero(np.diff(unit)) + 1
        outcomes = [found.rule.judge(own).outcome for own in np.split(probability, ends)]
        truth = [int(own[0]) for own in np.split(label, ends)]
        decided = [o for o, value in zip(outcomes, truth, strict=True) if value and o in ("positive", "negative")]
        assert found.sensitivity.numbers is not None
        low, _, high = found.sensitivity.numbers
        inside.append(low <= decided.count("positive") / len(decided) <= high)
    assert np.mean(inside) >= 0.85  # 60 draws: a coverage of .95 is almost never below
