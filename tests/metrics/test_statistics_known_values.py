"""Intervals and tests against values that were published or computed elsewhere."""

import math

import numpy as np
import pytest
from scipy import stats

from bldml.metrics import auroc as ranking
from bldml.metrics import paired, proportions
from bldml.metrics.estimates import Estimate
from bldml.metrics.registry import METRICS

# TN, FP, FN, TP of four classifiers on the same 116 photographs; accuracy and its Wilson limits.
EXTERNAL = [
    ("EfficientNetV2-S", (67, 4, 0, 45), 0.9655, (0.915, 0.987)),
    ("InceptionV3", (69, 2, 14, 31), 0.8621, (0.788, 0.913)),
    ("MobileNetV3-L", (64, 7, 7, 38), 0.8793, (0.808, 0.927)),
    ("ResNet50", (59, 12, 5, 40), 0.8534, (0.778, 0.906)),
]


def difference(first: int, n_first: int, second: int, n_second: int) -> Estimate:
    one, two = proportions.proportion(first, n_first), proportions.proportion(second, n_second)
    return proportions.mover(one, two, (1.0, -1.0))


def limits(estimate: Estimate) -> tuple[float, float]:
    assert estimate.interval is not None
    return estimate.interval.low, estimate.interval.high


@pytest.mark.parametrize(("name", "cells", "accuracy", "expected"), EXTERNAL)
def test_accuracies_of_the_external_test(
    name: str, cells: tuple[int, int, int, int], accuracy: float, expected: tuple[float, float]
) -> None:
    tn, fp, fn, tp = cells
    assert (tn + fp, fn + tp) == (71, 45), name
    found = proportions.proportion(tn + tp, 116)
    assert found.value == pytest.approx(accuracy, abs=5e-5)
    assert limits(found) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [(45, 45, (0.921, 1.0)), (67, 71, (0.864, 0.978)), (112, 116, (0.915, 0.987)), (293, 293, (0.9871, 1.0))],
)
def test_wilson_limits(k: int, n: int, expected: tuple[float, float]) -> None:
    assert limits(proportions.proportion(k, n)) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("b", "exact"), [(0, 1.0), (1, 1.0), (4, 0.125), (5, 0.0625), (6, 0.03125), (7, 0.015625), (8, 0.0078125)]
)
def test_mcnemar_with_all_discordant_photographs_one_way(b: int, exact: float) -> None:
    found = paired.mcnemar([True] * (b + 3), [False] * b + [True] * 3)
    assert (found.b, found.c) == (b, 0)
    assert found.exact == pytest.approx(exact)
    assert found.mid == pytest.approx(exact / 2 if b > 1 else 1.0 if b == 0 else 0.5)
    swapped = paired.mcnemar([False] * b + [True] * 3, [True] * (b + 3))
    assert (swapped.c, swapped.exact, swapped.mid) == (b, found.exact, found.mid)


def test_eight_discordant_photographs_stand_up_to_holm_over_six_pairs_and_seven_do_not() -> None:
    others = [1.0] * 5
    assert paired.holm([2 * 0.5**8, *others])[0] < 0.05 < paired.holm([2 * 0.5**7, *others])[0]
    assert paired.holm([2 * 0.5**7, 1.0, 1.0])[0] < 0.05 < paired.holm([2 * 0.5**6, 1.0, 1.0])[0]


def test_holm_as_in_the_textbook() -> None:
    # Holm 1979: sorted .005 .01 .03 .04 times 4, 3, 2, 1, made monotone.
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with pytest.raises(ValueError, match="lie in"):
        paired.holm([0.1, math.nan])


# Newcombe 1998, Statistics in Medicine 17: 873, table II, method 10 (score, without continuity correction)
@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_difference_as_published(counts: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    assert limits(difference(*counts)) == pytest.approx(expected, abs=1e-4)


def test_paired_difference_by_hand() -> None:
    # 112/116 against 102/116, no correlation left after the correction: only the two Wilson limits count.
    found = proportions.paired_difference(98, 14, 4, 0)
    assert found.value == pytest.approx(10 / 116)
    low_1, high_1 = stats.binomtest(112, 116).proportion_ci(method="wilson")
    low_2, high_2 = stats.binomtest(102, 116).proportion_ci(method="wilson")
    phi = (98 * 0 - 14 * 4) / math.sqrt(112 * 4 * 102 * 14)
    p, q = 112 / 116, 102 / 116
    low = p - q - math.sqrt((p - low_1) ** 2 - 2 * phi * (p - low_1) * (high_2 - q) + (high_2 - q) ** 2)
    high = p - q + math.sqrt((high_1 - p) ** 2 - 2 * phi * (high_1 - p) * (q - low_2) + (q - low_2) ** 2)
    assert limits(found) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("prevalence", "ppv", "lowest"), [(45 / 116, 45 / 49, None), (0.1, 0.6636, 0.43), (0.01, 0.152034, 0.064)]
)
def test_predictive_value_falls_with_prevalence(prevalence: float, ppv: float, lowest: float | None) -> None:
    found, _ = proportions.predictive_values(proportions.proportion(45, 45), proportions.proportion(67, 71), prevalence)
    assert found.value == pytest.approx(ppv, abs=5e-5)
    if lowest is not None:
        assert limits(found)[0] == pytest.approx(lowest, abs=5e-3)


def test_likelihood_ratios_keep_both_limits_with_few_errors() -> None:
    sensitivity, specificity = proportions.proportion(45, 45), proportions.proportion(67, 71)
    positive = proportions.mover_ratio(sensitivity, proportions.complement(specificity))
    assert positive.value == pytest.approx(17.75)
    low, high = limits(positive)
    # The limits solve (x - R y)^2 = (x - limit of x)^2 + R^2 (limit of y - y)^2.
    x, y = 1.0, 4 / 71
    x_low, _ = stats.binomtest(45, 45).proportion_ci(method="wilson")
    y_low, y_high = stats.binomtest(4, 71).proportion_ci(method="wilson")
    assert (x - low * y) ** 2 == pytest.approx((x - x_low) ** 2 + low**2 * (y_high - y) ** 2)
    assert (x - high * y) ** 2 == pytest.approx(high**2 * (y - y_low) ** 2)
    assert 5 < low < 17.75 < high < 100
    negative = proportions.mover_ratio(proportions.complement(sensitivity), specificity)
    assert negative.value == 0.0
    assert 0.0 == limits(negative)[0] < limits(negative)[1] < 0.1


@pytest.mark.parametrize(("positive", "negative", "low"), [(45, 71, 0.964), (150, 143, 0.987)])
def test_perfect_area(positive: int, negative: int, low: float) -> None:
    labels = np.r_[np.ones(positive, int), np.zeros(negative, int)]
    found = ranking.estimate_auroc(labels, labels + np.linspace(0, 0.1, labels.size))
    assert found.value == 1.0
    assert limits(found) == pytest.approx((low, 1.0), abs=5e-4)


def test_f1_interval_has_the_coverage_of_its_posterior() -> None:
    # By the Dirichlet's own Beta marginals: 2tp/(2tp+fp+fn) is a function of the share tp/(tp+fp+fn), a Beta variable.
    f1 = METRICS["f1"].from_counts
    found = proportions.dirichlet_interval(f1, [40, 3, 5, 68])
    assert found is not None
    share = stats.beta.ppf([0.025, 0.975], 40.5, 9.0)
    assert (found.low, found.high) == pytest.approx(tuple(2 * share / (1 + share)), abs=2e-3)
    assert found == proportions.dirichlet_interval(f1, [40, 3, 5, 68])


def between(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Variance of an area as in Obuchowski 1997, from all pairs."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])
    area, m, n = wins.mean(), positive.size, negative.size
    of_positives, of_negatives = wins.mean(axis=1) - area, wins.mean(axis=0) - area
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
    found = ranking.estimate_auroc(labels, scores, list(groups))
    alone = ranking.paired_auroc(labels, scores, np.zeros(60)).difference  # its variance is that of the one area
    assert found.value is not None
    assert found.interval is not None
    assert alone.interval is not None
    assert alone.value is not None
    delong = ((alone.value - alone.interval.low) / stats.norm.ppf(0.975)) ** 2
    m, n = int(labels.sum()), int((1 - labels).sum())
    most = max(m / (12 if mixed else 4), n / (12 if mixed else 8))
    effect = min(max(1.0, between(labels, scores, groups) / delong), most)
    assert effect > 1.2 or mixed
    m_effective, n_effective = m / effect, n / effect
    for limit in (found.interval.low, found.interval.high):
        # Newcombe 2006, method 5: a limit is Z standard errors, its own, from the area.
        scale = (m_effective + n_effective) / 2 - 1
        variance = limit * (1 - limit) / (m_effective * n_effective)
        variance *= 1 + scale * ((1 - limit) / (2 - limit) + limit / (1 + limit))
        assert abs(found.value - limit) == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(variance), rel=1e-6)
    assert found.interval.method == "Newcombe, method 5, 12 groups"


def test_clustered_area_of_1_counts_groups() -> None:
    labels = np.repeat([1, 0, 0], 20)
    found = ranking.estimate_auroc(labels, labels, [str(i) for i in np.repeat(np.arange(12), 5)])
    apart = ranking.estimate_auroc(np.repeat([1, 0, 0], 4), np.repeat([1, 0, 0], 4))
    assert limits(found) == limits(apart)
