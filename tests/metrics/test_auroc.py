"""The area under the ROC curve: DeLong's from all pairs, published values, by hand and every small table."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from sklearn import metrics as sklearn_metrics

from bldml.metrics.auroc import Band, binormal_average_precision, curve_bands, estimate_auroc, paired_auroc
from bldml.metrics.proportions import proportion_by_unit
from tests.metrics.test_proportions import is_sound, numbers

Array = NDArray[Any]

# pROC's example: WFNS grade and S100B (µg/l) of 113 patients with a good or poor outcome, data set aSAH of the R
# package pROC 1.18.0 (Robin et al. 2011, BMC Bioinformatics 12:77; licence GPL, version 3 or later), first in Turck
# et al. (2010, Intensive Care Medicine 36:107, doi 10.1007/s00134-009-1641-y). Published there (?roc.test): Z = 2.209,
# p = 0.02718, areas 0.8237 and 0.7314, 95 % interval of the difference 0.0104 to 0.1742.
GOOD = """
1:.13 1:.14 1:.10 1:.04 5:.47 1:.18 2:.10 2:.10 1:.04 2:.08 2:.04 1:.09 1:.11 1:.07 2:.17 1:.07 2:.11 1:.13
1:.19 3:.05 4:.16 1:.14 4:.34 1:.09 5:.50 5:.46 1:.16 1:.07 2:.43 4:.45 1:.11 1:.08 2:.09 2:.08 1:.06 2:.13
1:.10 2:.14 2:.15 1:.06 1:.05 1:.09 1:.04 2:.09 1:.08 2:.16 1:.09 1:.08 3:.33 2:.11 4:.28 2:.07 1:.10 4:.32
1:.07 1:.05 5:.24 4:.38 2:.10 2:.15 1:.08 1:.14 1:.10 3:.07 1:.04 2:.19 2:.15 4:.47 4:.17 1:.15 1:.50 1:.48
"""
POOR = """
3:.13 2:.10 4:.16 5:.12 5:.44 5:.71 5:.49 2:.07 5:.33 2:.09 1:.07 2:.41 5:.35 4:.48 4:.96 2:.25 5:.86 5:.52
5:2.07 2:.07 5:.77 2:.30 5:.03 2:.09 4:.23 5:.70 4:.27 4:.71 1:.08 4:.26 4:.13 2:.10 2:.11 5:.22 5:.56 2:.14
2:.58 5:.32 5:.82 5:.74 5:.44
"""
OUTCOME = np.repeat([0, 1], [len(GOOD.split()), len(POOR.split())])
WFNS, S100B = np.array([cell.split(":") for cell in (GOOD + POOR).split()], dtype=np.float64).T


def drawn(seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.ones(45, int), np.zeros(71, int)]
    common = labels + rng.normal(0, 0.7, labels.size)
    return labels, (common + rng.normal(0, 0.5, labels.size)).round(1), common + rng.normal(0, 0.9, labels.size)


def wins_of(labels: Array, score: Array) -> Array:
    """1 where a positive has the higher score than a negative, one half where both are equal."""
    positive, negative = score[labels == 1][:, None], score[labels == 0][None]
    return np.asarray((positive > negative) + 0.5 * (positive == negative))


def test_two_markers_as_published() -> None:
    found = paired_auroc(OUTCOME, WFNS, S100B)
    assert (OUTCOME.size, OUTCOME.sum()) == (113, 41)
    assert (found.first, found.second) == pytest.approx((0.8237, 0.7314), abs=5e-5)
    assert found.z == pytest.approx(2.209, abs=5e-4)
    assert found.p == pytest.approx(0.02718, abs=5e-6)
    low, _, high = numbers(found.difference)
    assert (low, high) == pytest.approx((0.0104, 0.1742), abs=5e-5)


@pytest.mark.parametrize(("labels", "first", "second"), [(OUTCOME, WFNS, S100B), *(drawn(seed) for seed in range(5))])
def test_delong_is_that_of_all_pairs(labels: Array, first: Array, second: Array) -> None:
    """DeLong's areas and covariance straight from their definition."""
    wins = [wins_of(labels, score) for score in (first, second)]
    v10, v01 = [w.mean(axis=1) for w in wins], [w.mean(axis=0) for w in wins]
    areas, covariance = [w.mean() for w in wins], np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    found = paired_auroc(labels, first, second)
    assert (found.first, found.second) == pytest.approx(tuple(areas), abs=1e-12)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.z == pytest.approx((areas[0] - areas[1]) / error, abs=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(areas[0] - areas[1]) / error))
    low, value, high = numbers(estimate_auroc(labels, first))
    assert value == found.first == pytest.approx(sklearn_metrics.roc_auc_score(labels, first))
    logit = math.log(areas[0] / (1 - areas[0]))
    half = stats.norm.ppf(0.975) * math.sqrt(covariance[0, 0]) / (areas[0] * (1 - areas[0]))
    assert [low, high] == pytest.approx([1 / (1 + math.exp(-(logit + sign * half))) for sign in (-1, 1)])


def test_order_and_scale_of_scores_play_no_part_and_the_sign_turns() -> None:
    order = np.random.default_rng(0).permutation(OUTCOME.size)
    found = paired_auroc(OUTCOME, WFNS, S100B)
    turned = paired_auroc(OUTCOME[order], np.exp(S100B[order]), 10 * WFNS[order])
    assert (turned.first, turned.second) == pytest.approx((found.second, found.first))
    assert (turned.z, turned.p) == pytest.approx((-(found.z or 0), found.p))
    one = numbers(estimate_auroc(OUTCOME, WFNS))
    assert numbers(estimate_auroc(OUTCOME[order], np.exp(WFNS[order]))) == pytest.approx(one)
    assert numbers(estimate_auroc(1 - OUTCOME, WFNS)) == pytest.approx([1 - number for number in reversed(one)])


@pytest.mark.parametrize(("positive", "negative", "lowest"), [(45, 71, 0.964), (150, 143, 0.987)])
def test_perfect_area_has_an_interval(positive: int, negative: int, lowest: float) -> None:
    labels = np.r_[np.ones(positive, int), np.zeros(negative, int)]
    scores = labels + np.linspace(0, 0.1, labels.size)
    found = estimate_auroc(labels, scores)
    assert numbers(found) == pytest.approx((lowest, 1.0, 1.0), abs=5e-4)
    assert found.interval is not None
    assert found.interval.method == "Newcombe, method 5"
    assert numbers(estimate_auroc(labels, -scores)) == pytest.approx([1 - n for n in reversed(numbers(found))])


def test_areas_at_the_edge_are_defined_or_not_estimable() -> None:
    low, value, high = numbers(estimate_auroc([0, 0, 1, 1], [0.5] * 4))
    assert low < 0.5 == value < high
    low, _, high = numbers(estimate_auroc([0, 1], [0.2, 0.4]))
    assert 0 <= low < high == 1
    two_perfect = paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.7, 0.6])
    assert (two_perfect.z, two_perfect.p) == (0.0, 1.0)
    against_constant = paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4)
    assert (against_constant.difference.value, against_constant.p) == (0.5, None)
    assert paired_auroc([1, 1], [0.1, 0.2], [0.2, 0.1]).difference.value is None
    far = paired_auroc(*(np.tile(values, 300) for values in drawn(0)))
    assert far.p is not None
    assert 0 < far.p < 1e-6


def small() -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
    for n in range(5):
        yield from product(product([0, 1], repeat=n), product([0.1, 0.5, 0.9], repeat=n))


def test_area_of_every_small_table() -> None:
    for labels, scores in small():
        found = estimate_auroc(labels, scores)
        assert is_sound(found, 0, 1)
        assert (found.value is None) == (len(set(labels)) < 2)
        if found.interval is not None:
            assert found.interval.low < found.interval.high


@pytest.mark.parametrize("groups", ["aaaa", "aabb", "abab", "abcd", "aaab"])
def test_area_of_few_photographs_in_groups(groups: str) -> None:
    for labels, scores in [table for table in small() if len(table[0]) == 4][::3]:
        found = estimate_auroc(labels, scores, list(groups))
        assert is_sound(found, 0, 1)
        assert found.value == estimate_auroc(labels, scores).value
        if found.interval is not None:
            assert found.interval.low < found.interval.high
    assert estimate_auroc([], [], []).value is None


def test_paired_areas_of_every_small_table() -> None:
    for labels in [(0, 1), (0, 0, 1, 1), (0, 1, 1, 1)]:
        tables = list(product([0.1, 0.5, 0.9], repeat=len(labels)))[::4]
        for first, second in product(tables, tables):
            found = paired_auroc(labels, first, second)
            assert is_sound(found.difference, -1, 1)
            assert (found.z is None) == (found.p is None)
            if found.p is not None and found.z is not None:
                assert 0 < found.p <= 1
                assert math.isfinite(found.z)


@pytest.mark.parametrize("scores", [[0.1, 0.6, 0.3, 0.4, 0.8, 0.6], [0.5] * 6, [0, 0, 0, 1, 1, 1]])
def test_a_classifier_does_not_differ_from_itself(scores: list[float]) -> None:
    found = paired_auroc([0, 0, 0, 1, 1, 1], scores, scores)
    assert (found.z, found.p, found.difference.value) == (0.0, 1.0, 0.0)
    low, _, high = numbers(found.difference)
    assert low < 0 < high


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate_auroc([0, 1], [0.1, math.nan])
    with pytest.raises(ValueError, match="0 or 1"):
        estimate_auroc([0, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="one unit"):
        estimate_auroc([0, 1], [0.1, 0.2], [0])
    with pytest.raises(ValueError, match="must have the same shape"):
        paired_auroc([0, 1], [0.1, 0.2], [0.1])


# Groups


def between(labels: Array, scores: Array, groups: Array) -> float:
    """Variance of an area as in Obuchowski 1997, from all pairs."""
    wins = wins_of(labels, scores)
    m, n = wins.shape
    of_positives, of_negatives = wins.mean(axis=1) - wins.mean(), wins.mean(axis=0) - wins.mean()
    names = sorted(set(groups))
    first = [of_positives[groups[labels == 1] == name].sum() for name in names]
    second = [of_negatives[groups[labels == 0] == name].sum() for name in names]
    i, j, g = len(set(groups[labels == 1])), len(set(groups[labels == 0])), len(names)
    s10 = i / ((i - 1) * m) * sum(value**2 for value in first)
    s01 = j / ((j - 1) * n) * sum(value**2 for value in second)
    s11 = g / (g - 1) * sum(a * b for a, b in zip(first, second, strict=True))
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


@pytest.mark.parametrize("mixed", [False, True])
def test_clustered_area_by_hand(mixed: bool) -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat([f"tree {i}" for i in range(12)], 5)
    labels = np.tile([1, 1, 0, 0, 0], 12) if mixed else np.repeat([1, 0, 0], 20)
    scores = (labels + 0.6 * np.repeat(rng.normal(size=12), 5) + 0.6 * rng.normal(size=60)).round(1)
    found = estimate_auroc(labels, scores, list(groups))
    low, area, high = numbers(found)
    z = stats.norm.ppf(0.975)
    alone_low, alone, _ = numbers(paired_auroc(labels, scores, np.zeros(60)).difference)
    delong = ((alone - alone_low) / z) ** 2  # the variance of the difference to a constant is that of the one area
    m, n = int(labels.sum()), int((1 - labels).sum())
    most = max(m / (12 if mixed else 4), n / (12 if mixed else 8))
    effect = min(max(1.0, between(labels, scores, groups) / delong), most)
    assert effect > 1.2 or mixed
    for limit in (low, high):
        # Newcombe 2006, method 5: a limit is Z standard errors, its own, from the area.
        variance = limit * (1 - limit) / (m / effect * n / effect)
        variance *= 1 + ((m + n) / effect / 2 - 1) * ((1 - limit) / (2 - limit) + limit / (1 + limit))
        assert abs(area - limit) == pytest.approx(z * math.sqrt(variance), rel=1e-6)
    assert found.interval is not None
    assert found.interval.method == "Newcombe, method 5, 12 units"


def test_clustered_area_of_1_counts_groups() -> None:
    labels = np.repeat([1, 0, 0], 20)
    found = estimate_auroc(labels, labels, [str(i) for i in np.repeat(np.arange(12), 5)])
    assert numbers(found) == numbers(estimate_auroc(np.repeat([1, 0, 0], 4), np.repeat([1, 0, 0], 4)))


# Two areas by unit


def by_enumeration(labels: Array, scores: tuple[Array, Array], units: Array) -> Array:
    """Difference of the areas for every way to swap the ranks of both classifiers in whole units."""
    ranks, n_units = [stats.rankdata(score) for score in scores], int(units.max()) + 1
    differences = []
    for swaps in product([False, True], repeat=n_units):
        is_swapped = np.array(swaps)[units]
        mixed = [np.where(is_swapped, *pair) for pair in (ranks[::-1], ranks)]
        areas = [sklearn_metrics.roc_auc_score(labels, score) for score in mixed]
        differences.append(areas[0] - areas[1])
    return np.array(differences)


@pytest.mark.parametrize("seed", range(4))
def test_swap_test_is_that_of_every_swap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, units = np.r_[0, 1, rng.integers(0, 2, 22)], rng.permutation(np.repeat(np.arange(6), 4))
    first, second = ((labels * strength + rng.normal(size=24)).round(1) for strength in (2, 0.2 * seed))
    every = np.abs(by_enumeration(labels, (first, second), units))
    found = paired_auroc(labels, first, second, units)
    assert found.first is not None
    assert found.second is not None
    assert found.p == np.mean(every >= every[0] - 1e-9)
    low, difference, high = numbers(found.difference)
    assert difference == pytest.approx(found.first - found.second)
    critical = np.sort(every)[-4]  # 4 of 64 swaps: the first to give p of .05 or more
    assert (low, high) == pytest.approx((max(-1, difference - critical), min(1, difference + critical)))
    assert found.difference.interval is not None
    assert found.difference.interval.method == "swap permutation, 6 units"


def test_swap_test_of_many_units_keeps_its_level_and_never_contradicts_its_interval() -> None:
    rejected, labels, units = 0, np.tile([0, 1], 60), np.repeat(np.arange(20), 6)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        effects = rng.normal(size=(2, 20))[:, units]
        first, second = labels + effects + rng.normal(size=(2, 120))
        found = paired_auroc(labels, first, second, units)
        low, _, high = numbers(found.difference)
        assert found.p is not None
        assert (found.p < 0.05) == (low > 0 or high < 0)
        rejected += found.p < 0.05
    assert rejected <= 15  # 7.5 are expected


def test_of_equal_classifiers_no_swap_changes_anything() -> None:
    labels, scores = [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.3, 0.8, 0.2, 0.9]
    found = paired_auroc(labels, scores, scores, [0, 0, 0, 1, 1, 1])
    assert (found.p, found.difference.value) == (1.0, 0.0)
    low, _, high = numbers(found.difference)
    assert low < 0 < high


@pytest.mark.parametrize(("area", "prevalence"), [(0.7, 0.5), (0.95, 0.2), (0.99, 0.05)])
def test_average_precision_of_normal_scores_is_that_of_many(area: float, prevalence: float) -> None:
    n_positive = 4000
    n_negative = round(n_positive * (1 / prevalence - 1))
    middles = [stats.norm.ppf((np.arange(n) + 0.5) / n) for n in (n_negative, n_positive)]
    scores = np.r_[middles[0], middles[1] + math.sqrt(2) * stats.norm.ppf(area)]
    labels = np.repeat([0, 1], [n_negative, n_positive])
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert binormal_average_precision(area, prevalence) == pytest.approx(expected, abs=2e-3)
    assert binormal_average_precision(1.0, prevalence) == 1.0
    assert binormal_average_precision(0.0, prevalence) < prevalence


def by_loop(labels: Array, scores: Array, units: Array, rates: Sequence[float]) -> list[tuple[float, float]]:
    """The limits of the sensitivity at false-positive rates, threshold by threshold, highest first."""
    alarms, hits = (
        [
            numbers(proportion_by_unit((scores >= limit)[labels == value], units[labels == value]))
            for limit in [np.inf, *sorted(set(scores), reverse=True)]
        ]
        for value in (0, 1)
    )
    found = []
    for rate in rates:
        low, value, high = [hit for alarm, hit in zip(alarms, hits, strict=True) if alarm[1] <= rate + 1e-12][-1]
        lower = [hit[1] for alarm, hit in zip(alarms, hits, strict=True) if alarm[2] <= rate + 1e-12]
        higher = [hit[1] for alarm, hit in zip(alarms, hits, strict=True) if alarm[0] > rate + 1e-12]
        down = math.sqrt((value - low) ** 2 + (value - max(lower, default=0)) ** 2)
        up = math.sqrt((high - value) ** 2 + (min(higher, default=1) - value) ** 2)
        found.append((max(0.0, value - down), min(1.0, value + up)))
    return found


def at(band: Band, place: float) -> tuple[float, float]:
    here = int(np.argmin(abs(band.at - place)))
    assert band.at[here] == pytest.approx(place)
    return float(band.low[here]), float(band.high[here])


@pytest.mark.parametrize(("decimals", "n_units"), [(6, 46), (1, 46), (6, 16)])
def test_bands_are_those_of_a_loop_over_thresholds(decimals: int, n_units: int) -> None:
    rng = np.random.default_rng(3)
    labels, rates = np.r_[np.ones(16, int), np.zeros(30, int)], (0.0, 0.05, 0.1, 0.25, 0.5, 0.9)
    scores = special.expit(2 * labels - 1 + rng.normal(0, 1, labels.size)).round(decimals)
    units = np.arange(labels.size) % n_units
    found = curve_bands(labels, scores, units)
    assert found is not None
    for rate, expected in zip(rates, by_loop(labels, scores, units, rates), strict=True):
        assert at(found[0], rate) == pytest.approx(expected, abs=1e-9)
    # At a recall, the specificity is the sensitivity for the other class at the rate of missed positives.
    for rate, specificities in zip(rates, by_loop(1 - labels, -scores, units, rates), strict=True):
        hit = (1 - rate) * 16
        precisions = [hit / (hit + (1 - specificity) * 30) for specificity in specificities]
        assert at(found[1], 1 - rate) == pytest.approx(precisions, abs=1e-9)


def test_band_of_many_photographs_is_close_to_that_of_a_loop() -> None:
    rng, labels, rates = np.random.default_rng(1), np.arange(700) % 2, (0.05, 0.2, 0.5)
    scores = special.expit(2 * labels + rng.normal(size=700))
    found = curve_bands(labels, scores)
    assert found is not None
    for rate, expected in zip(rates, by_loop(labels, scores, np.arange(700), rates), strict=True):
        assert at(found[0], rate) == pytest.approx(expected, abs=1e-3)


def test_bands_cover_the_true_curves_at_each_place() -> None:
    """As benchmarks/bands.py, which also draws units of several photographs."""
    rng, rates, recalls, distance = np.random.default_rng(7), (0.05, 0.1, 0.2, 0.5), (0.5, 0.8, 0.95), 2.2
    labels = np.repeat([0, 1], [71, 45])
    alarms = [float(special.ndtr(special.ndtri(recall) - distance)) for recall in recalls]
    truth = [float(special.ndtr(distance + special.ndtri(rate))) for rate in rates]
    truth += [recall * 45 / (recall * 45 + alarm * 71) for recall, alarm in zip(recalls, alarms, strict=True)]
    covered = []
    for _ in range(100):
        found = curve_bands(labels, special.expit(distance * labels + rng.normal(size=116)))
        assert found is not None
        limits = [at(band, place) for band, places in zip(found, (rates, recalls), strict=True) for place in places]
        covered.append([low <= true <= high for (low, high), true in zip(limits, truth, strict=True)])
    assert np.mean(covered, axis=0).min() >= 0.9
    assert np.mean(covered) < 1


def test_band_needs_units_of_both_classes() -> None:
    labels, scores = np.repeat([0, 1], 40), np.linspace(0, 1, 80)
    units = np.repeat(np.arange(16), 5)
    assert curve_bands(labels, scores, units) is not None
    assert curve_bands(labels, scores, np.where(units == 15, 14, units)) is None, "7 units with positives"
    assert curve_bands(labels, scores, np.arange(80) % 7) is None
    assert curve_bands(labels[:47], scores[:47]) is None, "7 positives"
    assert curve_bands(labels[:40], scores[:40]) is None
    assert curve_bands([], []) is None
