"""Intervals and paired tests against SciPy, scikit-learn, published values and brute force."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from bldml.metrics import auroc as ranking
from bldml.metrics import bootstrap, estimates, paired, proportions
from bldml.metrics.registry import METRICS


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (45, 45), (67, 71), (112, 116), (293, 293), (0, 50), (3, 10)])
def test_wilson_is_that_of_scipy(k: int, n: int) -> None:
    found = proportions.proportion(k, n)
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert found.interval is not None
    assert (found.value, found.interval.method) == (k / n, "Wilson")
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_proportion_of_nothing_is_not_estimable() -> None:
    found = proportions.proportion(0, 0)
    assert found.value is None
    assert found.interval is None
    assert found.note
    assert proportions.clustered_proportion([], []).value is None


def test_clustered_proportion_counts_groups_where_photographs_of_one_group_agree() -> None:
    hits = np.repeat([True, False, True, True, False, True, True, True, False, True], 8)
    groups = [f"tree {i}" for i in np.repeat(np.arange(10), 8)]
    found, alone = proportions.clustered_proportion(hits, groups), proportions.proportion(int(hits.sum()), hits.size)
    # All photographs of a tree agree, so they count like the ten trees (9 in the unbiased variance).
    expected = stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert found.interval is not None
    assert alone.interval is not None
    assert found.value == alone.value == 0.7
    assert found.interval.low < expected.low < alone.interval.low
    assert found.interval.low == pytest.approx(expected.low, abs=0.02)
    perfect = proportions.clustered_proportion(np.ones(80, dtype=bool), groups)
    assert perfect.interval is not None
    assert perfect.interval.low == pytest.approx(stats.binomtest(10, 10).proportion_ci(method="wilson").low)


def test_mover_by_hand() -> None:
    sensitivity, specificity = proportions.proportion(40, 45), proportions.proportion(60, 71)
    low_1, high_1 = stats.binomtest(40, 45).proportion_ci(method="wilson")
    low_2, high_2 = stats.binomtest(60, 71).proportion_ci(method="wilson")
    a, b = 40 / 45, 60 / 71
    found = proportions.mover(sensitivity, specificity, (1.0, 1.0), shift=-1.0)
    assert found.interval is not None
    assert found.value == pytest.approx(a + b - 1)
    assert found.interval.low == pytest.approx(a + b - 1 - math.sqrt((a - low_1) ** 2 + (b - low_2) ** 2))
    assert found.interval.high == pytest.approx(a + b - 1 + math.sqrt((high_1 - a) ** 2 + (high_2 - b) ** 2))
    half = proportions.mover(sensitivity, specificity, (0.5, 0.5))
    assert half.interval is not None
    assert half.interval.low == pytest.approx((found.interval.low + 1) / 2)


@pytest.mark.parametrize("method", ["newcomb"])
def test_difference_is_that_of_statsmodels(method: str) -> None:
    statsmodels = pytest.importorskip("statsmodels.stats.proportion")
    for k1, n1, k2, n2 in [(56, 70, 48, 80), (10, 10, 0, 20), (9, 10, 3, 10)]:
        one, two = proportions.proportion(k1, n1), proportions.proportion(k2, n2)
        found = proportions.mover(one, two, (1.0, -1.0))
        assert found.interval is not None
        expected = statsmodels.confint_proportions_2indep(k1, n1, k2, n2, compare="diff", method=method)
        assert (found.interval.low, found.interval.high) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("cells", "limits"),
    [  # Newcombe 1998, Statistics in Medicine 17: 2635, table II, method 10
        ((36, 12, 2, 0), (0.0569, 0.3404)),
    ],
)
def test_paired_difference_as_published(cells: tuple[int, int, int, int], limits: tuple[float, float]) -> None:
    found = proportions.paired_difference(*cells)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(limits, abs=1e-3)


def test_predictive_values_at_other_prevalences() -> None:
    sensitivity, specificity = proportions.proportion(45, 45), proportions.proportion(67, 71)
    for prevalence, expected in [(0.388, 0.919), (0.1, 0.664), (0.01, 0.152)]:
        ppv, npv = proportions.predictive_values(sensitivity, specificity, prevalence)
        assert ppv.value == pytest.approx(expected, abs=2e-3)
        assert npv.value == 1.0
        assert ppv.interval is not None
        assert ppv.interval.low < expected < ppv.interval.high
    ppv, npv = proportions.predictive_values(proportions.proportion(0, 5), proportions.proportion(5, 5), 0.1)
    assert ppv.value is None
    assert npv.value == pytest.approx(0.9)


@pytest.mark.parametrize("cells", [(45, 0, 0, 71), (0, 0, 45, 71), (1, 0, 0, 1), (40, 3, 5, 68), (1, 1, 1, 1)])
def test_f1_and_mcc_have_an_interval_even_with_empty_cells(cells: tuple[int, int, int, int]) -> None:
    tp, fp, fn, tn = cells
    for measure, observed in (
        ("f1", 2 * tp / (2 * tp + fp + fn)),
        ("mcc", (tp * tn - fp * fn) / (math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) or math.nan)),
    ):
        found = proportions.dirichlet_interval(METRICS[measure].from_counts, cells)
        if math.isnan(observed):
            assert found is None
            continue
        assert found is not None
        assert found.low <= observed <= found.high
        assert found.low < found.high


def test_likelihood_ratios() -> None:
    sensitivity, specificity = proportions.proportion(40, 50), proportions.proportion(90, 100)
    positive = proportions.mover_ratio(sensitivity, proportions.complement(specificity))
    negative = proportions.mover_ratio(proportions.complement(sensitivity), specificity)
    assert (positive.value, negative.value) == pytest.approx((8.0, 0.2 / 0.9))
    assert positive.interval is not None
    # Close to the usual interval on the logarithm.
    error = math.sqrt(1 / 40 - 1 / 50 + 1 / 10 - 1 / 100)
    assert positive.interval.low == pytest.approx(8 * math.exp(-1.96 * error), rel=0.1)
    assert positive.interval.high == pytest.approx(8 * math.exp(1.96 * error), rel=0.15)
    assert proportions.mover_ratio(sensitivity, proportions.complement(proportions.proportion(9, 9))).value is None


# Paired tests


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (0, 8), (3, 3), (2, 11), (40, 60), (700, 900)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    first = np.r_[np.ones(b), np.zeros(c), np.ones(4)]
    second = np.r_[np.zeros(b), np.ones(c), np.ones(4)]
    found = paired.mcnemar(first, second)
    assert (found.b, found.c) == (b, c)
    expected = stats.binomtest(min(b, c), b + c).pvalue if b + c else 1.0
    assert found.exact == pytest.approx(expected, rel=1e-9)
    if b + c:
        point = stats.binom.pmf(min(b, c), b + c, 0.5)
        mid = 1 - point / 2 if b == c else 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - point
        assert found.mid == pytest.approx(min(1.0, mid), rel=1e-9)
    assert 0 < found.mid <= found.exact <= 1


def test_p_is_never_0() -> None:
    found = paired.mcnemar(np.ones(5000), np.zeros(5000))
    assert found.exact > 0
    assert found.mid > 0


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for seed in range(5):
        values = np.random.default_rng(seed).random(6) ** 3
        assert paired.holm(list(values)) == pytest.approx(multitest.multipletests(values, method="holm")[1])
    assert paired.holm([]) == []


def test_letters_are_shared_exactly_where_nothing_tells_apart() -> None:
    names = ["a", "b", "c", "d"]
    pairs = [frozenset(pair) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")]
    for chosen in product([False, True], repeat=6):
        different = {pair for pair, told in zip(pairs, chosen, strict=True) if told}
        found = paired.significance_letters(names, different)
        for pair in pairs:
            one, other = pair
            assert (not set(found[one]) & set(found[other])) == (pair in different)
        assert found["a"].startswith("a")


# Areas


def drawn(seed: int, n_positive: int = 45, n_negative: int = 71) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.ones(n_positive, int), np.zeros(n_negative, int)]
    common = labels + rng.normal(0, 0.7, labels.size)
    return labels, (common + rng.normal(0, 0.5, labels.size)).round(1), common + rng.normal(0, 0.9, labels.size)


def brute_force(labels: np.ndarray, *scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's areas and covariance from all pairs, as in their paper."""
    v10, v01 = [], []
    for score in scores:
        positive, negative = score[labels == 1][:, None], score[labels == 0][None]
        wins = (positive > negative) + 0.5 * (positive == negative)
        v10.append(wins.mean(axis=1))
        v01.append(wins.mean(axis=0))
    covariance = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    return np.array([v.mean() for v in v10]), covariance


@pytest.mark.parametrize("seed", range(5))
def test_delong_is_that_of_all_pairs(seed: int) -> None:
    labels, first, second = drawn(seed)
    areas, covariance = brute_force(labels, first, second)
    found = ranking.paired_auroc(labels, first, second)
    assert (found.first, found.second) == pytest.approx(tuple(areas))
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.z == pytest.approx((areas[0] - areas[1]) / error)
    assert found.z is not None
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.z)))
    single = ranking.estimate_auroc(labels, first)
    assert single.value == pytest.approx(sklearn_metrics.roc_auc_score(labels, first))
    assert single.interval is not None
    logit = math.log(areas[0] / (1 - areas[0]))
    half = stats.norm.ppf(0.975) * math.sqrt(covariance[0, 0]) / (areas[0] * (1 - areas[0]))
    expected = [1 / (1 + math.exp(-(logit + sign * half))) for sign in (-1, 1)]
    assert [single.interval.low, single.interval.high] == pytest.approx(expected)


@pytest.mark.parametrize(("positive", "negative", "low"), [(45, 71, 0.964), (150, 143, 0.987)])
def test_perfect_area_has_an_interval(positive: int, negative: int, low: float) -> None:
    labels = np.r_[np.ones(positive, int), np.zeros(negative, int)]
    found = ranking.estimate_auroc(labels, labels.astype(float))
    assert found.interval is not None
    assert found.interval.low == pytest.approx(low, abs=1e-3)
    assert (found.interval.high, found.interval.method) == (1.0, "Newcombe, method 5")
    reverse = ranking.estimate_auroc(labels, -labels.astype(float))
    assert reverse.interval is not None
    assert reverse.interval.high == pytest.approx(1 - found.interval.low)


def test_areas_at_the_edge_are_defined_or_not_estimable() -> None:
    constant = ranking.estimate_auroc([0, 0, 1, 1], [0.5] * 4)
    assert constant.value == 0.5
    assert constant.interval is not None
    assert constant.interval.low < 0.5 < constant.interval.high
    one_each = ranking.estimate_auroc([0, 1], [0.2, 0.4])
    assert one_each.interval is not None
    assert 0 <= one_each.interval.low < one_each.interval.high == 1
    assert ranking.estimate_auroc([1, 1], [0.2, 0.4]).value is None
    assert ranking.estimate_auroc([], []).value is None
    two_perfect = ranking.paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.7, 0.6])
    assert (two_perfect.z, two_perfect.p) == (0.0, 1.0)
    against_constant = ranking.paired_auroc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4)
    assert against_constant.difference.value == 0.5
    assert against_constant.p is None
    assert ranking.paired_auroc([1, 1], [0.1, 0.2], [0.2, 0.1]).difference.value is None
    far = ranking.paired_auroc(*(np.tile(values, 300) for values in drawn(0)))
    assert far.p is not None
    assert 0 < far.p < 1e-6


# Resampling


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(0, 1, 400)
    found = bootstrap.bootstrap(lambda index: float(values[index].mean()), np.ones(400, int), seed=1)
    assert found is not None
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert found == bootstrap.bootstrap(lambda index: float(values[index].mean()), np.ones(400, int), seed=1)


def test_groups_are_drawn_as_a_whole_and_within_their_classes() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    groups = ["a", "a", "b", "c", "c", "d", "e", "e"]
    seen = []

    def statistic(index: np.ndarray) -> float:
        seen.append(index)
        return float(labels[index].mean())

    bootstrap.bootstrap(statistic, labels, groups, replicates=200)
    for index in seen:
        counts = np.bincount(index, minlength=8)
        assert counts[0] == counts[1]
        assert counts[3] == counts[4]
        assert (counts[6], counts[7]) == (1, 1)  # the one group of both classes
        assert counts[[0, 2]].sum() == 2  # two groups of positives
    assert len({tuple(index) for index in seen}) > 3


def test_correlated_photographs_give_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(0, 1, 30), 8) + rng.normal(0, 0.1, 240)
    groups = [str(i) for i in np.repeat(np.arange(30), 8)]
    labels = np.ones(240, int)

    def mean(index: np.ndarray) -> float:
        return float(values[index].mean())

    alone, clustered = bootstrap.bootstrap(mean, labels), bootstrap.bootstrap(mean, labels, groups)
    assert alone is not None
    assert clustered is not None
    ratio = (clustered.high - clustered.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.15)
    assert clustered.method == "cluster bootstrap, 30 groups"


def test_what_cannot_be_resampled_is_none_and_what_is_skipped_is_said() -> None:
    assert bootstrap.bootstrap(lambda index: None, [0, 1]) is None
    assert bootstrap.bootstrap(lambda index: 1.0, []) is None
    assert bootstrap.paired_bootstrap(lambda index: None, [0, 1]) is None
    found = bootstrap.bootstrap(lambda index: 1.0 if index[0] else None, [1, 1, 1], replicates=100)
    assert found is not None
    assert "undefined draws omitted" in found.method
    few = bootstrap.bootstrap(lambda index: 1.0, [1, 1, 1], ["a", "a", "b"])
    assert few is not None
    assert "unreliable" in few.method


def test_p_of_the_paired_bootstrap_is_near_that_of_a_z_test() -> None:
    values = np.random.default_rng(5).normal(0.1, 1, 300)
    found = bootstrap.paired_bootstrap(lambda index: float(values[index].mean()), np.ones(300, int))
    assert found is not None
    expected = 2 * stats.norm.sf(abs(values.mean() / (values.std() / math.sqrt(300))))
    assert found.p == pytest.approx(expected, abs=0.02)
    certain = bootstrap.paired_bootstrap(lambda index: 1.0, np.ones(3, int), replicates=99)
    assert certain is not None
    assert certain.p == pytest.approx(0.02)


def test_level_is_95_percent() -> None:
    assert pytest.approx(stats.norm.ppf(0.975)) == estimates.Z
