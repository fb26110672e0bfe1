"""Resampling, and tests of several classifiers on the same photographs."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.metrics import roc_curve
from statsmodels.api import OLS
from statsmodels.stats.multitest import multipletests

from bldml.metrics.estimates import Interval
from bldml.metrics.paired import (
    McNemar,
    holm,
    mcnemar,
    paired_accuracy,
    paired_sensitivity,
    significance_letters,
)
from bldml.metrics.proportions import paired_difference
from bldml.metrics.resampling import bootstrap, jackknife

Array = NDArray[Any]


def existing(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


# Resampling


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(0, 1, 400)
    found, again = (
        existing(bootstrap(lambda index: float(values[index].mean()), np.ones(400, int), np.arange(400), seed=1))
        for _ in range(2)
    )
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert found == again


def test_groups_are_drawn_as_a_whole_and_within_their_classes() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    seen = []

    def statistic(index: np.ndarray) -> float:
        seen.append(index)
        return float(labels[index].mean())

    bootstrap(statistic, labels, ["a", "a", "b", "c", "c", "d", "e", "e"], replicates=200)
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
    alone, clustered = (
        existing(bootstrap(lambda index: float(values[index].mean()), np.ones(240, int), given))
        for given in (np.arange(240), groups)
    )
    assert (clustered.high - clustered.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(8), rel=0.15)
    assert clustered.method == "bootstrap, 30 units"


def test_what_cannot_be_resampled_is_none_and_what_is_omitted_is_said() -> None:
    assert bootstrap(lambda index: None, [0, 1], [0, 1]) is None
    assert bootstrap(lambda index: math.nan, [0, 1], [0, 1], replicates=20) is None
    assert bootstrap(lambda index: 1.0, [], []) is None
    found = existing(bootstrap(lambda index: 1.0 if index[0] else None, [1, 1, 1], [0, 1, 2], replicates=100))
    assert "undefined draws omitted" in found.method
    found = existing(bootstrap(lambda index: 0.5 if index[0] else math.inf, [1, 1, 1], [0, 1, 2], replicates=200))
    assert (found.low, found.high) == (0.5, 0.5)


def test_one_photograph_one_group_and_few() -> None:
    one = bootstrap(lambda index: float(index.size), [1], [0], replicates=50)
    assert one == Interval(1.0, 1.0, "bootstrap, 1 photograph")
    group = existing(bootstrap(lambda index: float(index.size), [1, 0, 1], ["a"] * 3, replicates=50))
    assert group.method == "bootstrap, 1 unit"
    with pytest.raises(ValueError, match="one unit"):
        bootstrap(lambda index: 1.0, [1, 0], ["a"])


def test_every_draw_has_as_many_of_each_class() -> None:
    labels = np.array([1, 0, 0, 0, 1, 0])
    found = existing(bootstrap(lambda index: float(labels[index].mean()), labels, np.arange(6), replicates=100))
    assert (found.low, found.high) == pytest.approx((1 / 3, 1 / 3))


def by_loop(statistic: Any, units: Array, low: float, high: float) -> tuple[float, float]:
    """Leave out one unit after the other; the statistic is between low and high."""
    names = sorted(set(units.tolist()))
    kept = ([i for i, unit in enumerate(units) if unit != name] for name in (None, *names))
    z = [2 * math.atanh(2 * (statistic(np.array(index)) - low) / (high - low) - 1) for index in kept]
    k, mean = len(names), float(np.mean(z[1:]))
    half = stats.t.ppf(0.975, k - 1) * math.sqrt((k - 1) / k * sum((one - mean) ** 2 for one in z[1:]))
    lowest, highest = (low + (high - low) * (math.tanh((z[0] + side * half) / 2) + 1) / 2 for side in (-1, 1))
    return lowest, highest


@pytest.mark.parametrize("size", [1, 4])
def test_jackknife_is_that_of_a_loop(size: int) -> None:
    rng = np.random.default_rng(size)
    units = rng.permutation(np.repeat(np.arange(12), size))
    values = rng.random(12)[units] * 0.6 + 0.3 * rng.random(units.size)
    others = values + 0.2 * rng.random(units.size)
    for statistic, limits in (
        (lambda index: float(values[index].mean()), (0.0, 1.0)),
        (lambda index: float(np.corrcoef(values[index], others[index])[0, 1]), (-1.0, 1.0)),
    ):
        found = existing(jackknife(statistic, units, limits))
        assert (found.low, found.high) == pytest.approx(by_loop(statistic, units, *limits))
        assert found.method == f"jackknife, 12 {'photographs' if size == 1 else 'units'}"


def test_jackknife_of_a_mean_without_ends_is_the_t_test() -> None:
    values = np.random.default_rng(3).normal(0, 1, 40)
    found = existing(jackknife(lambda index: float(values[index].mean()), np.arange(40), (-math.inf, math.inf)))
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    for low, high, transform, back in (
        (0, math.inf, np.log, np.exp),
        (-math.inf, 1, lambda one: np.log(1 - one), lambda z: 1 - np.exp(z)),
    ):
        near = 0.5 + 0.1 * values
        found = existing(jackknife(lambda index, near=near: float(near[index].mean()), np.arange(40), (low, high)))  # type: ignore[misc]
        left_out = transform((near.sum() - near) / 39)
        half = stats.t.ppf(0.975, 39) * left_out.std(ddof=1) * 39 / math.sqrt(40)
        limits = sorted(back(transform(near.mean()) + side * half) for side in (-1, 1))
        assert (found.low, found.high) == pytest.approx(limits)


def test_jackknife_of_many_units_leaves_out_parts_of_them() -> None:
    values, calls = np.random.default_rng(4).normal(0, 1, 3001), []

    def mean(index: Array) -> float:
        calls.append(index.size)
        return float(values[index].mean())

    found = existing(jackknife(mean, np.arange(3001), (-math.inf, math.inf)))
    assert len(calls) == 201
    assert set(calls[1:]) == {3001 - 15, 3001 - 16}
    assert (found.high - found.low) / 2 == pytest.approx(1.97 * stats.sem(values), rel=0.12)


def test_jackknife_without_an_interval() -> None:
    units = np.arange(4)
    assert jackknife(lambda index: 1.0, units, (0, 1)) is None  # at the end of the range
    assert jackknife(lambda index: 0.5, units, (0, 1)) is None  # no variance
    assert jackknife(lambda index: 0.5 if 3 in index else None, units, (0, 1)) is None
    assert jackknife(lambda index: 0.1 * index.size, [0, 0, 0], (0, 1)) is None  # one unit


def test_jackknife_covers_by_unit() -> None:
    covered, units = 0, np.repeat(np.arange(15), 8)
    truth = special.expit(-2 + math.sqrt(1.25) * stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)).mean()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        errors = special.expit(-2 + np.repeat(rng.normal(size=15), 8) + 0.5 * rng.normal(size=120))
        found = existing(jackknife(lambda index, errors=errors: float(errors[index].mean()), units, (0, 1)))  # type: ignore[misc]
        covered += found.low <= truth <= found.high
    assert covered / 150 >= 0.92


# Several classifiers


@pytest.mark.parametrize(
    ("b", "c"), [(0, 0), (1, 0), (4, 0), (5, 0), (7, 0), (0, 8), (3, 3), (2, 11), (40, 60), (700, 900)]
)
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    first = np.r_[np.ones(b), np.zeros(c), np.ones(4)]
    second = np.r_[np.zeros(b), np.ones(c), np.ones(4)]
    found = mcnemar(first, second)
    assert (found.b, found.c) == (b, c)
    few, n = min(b, c), b + c
    assert found.exact == pytest.approx(stats.binomtest(few, n).pvalue if n else 1.0, rel=1e-9)
    point = stats.binom.pmf(few, n, 0.5)
    mid = 1 - (point / 2 if n else 0) if b == c else 2 * stats.binom.cdf(few, n, 0.5) - point
    assert found.mid == pytest.approx(min(1.0, mid), rel=1e-9)
    assert 0 < found.mid <= found.exact <= 1
    assert mcnemar(second, first) == McNemar(c, b, found.exact, found.mid)


def test_mcnemar_of_nothing_of_other_shapes_and_of_very_many() -> None:
    assert mcnemar([], []) == McNemar(0, 0, 1.0, 1.0)
    with pytest.raises(ValueError, match="shape"):
        mcnemar([True], [True, False])
    found = mcnemar(np.ones(5000), np.zeros(5000))
    assert found.exact > 0
    assert found.mid > 0


def test_accuracies_of_photographs_that_are_their_own_units_are_compared_by_mcnemars_mid_p() -> None:
    first, second = np.repeat([1, 1, 0, 0], [50, 9, 2, 5]), np.repeat([1, 0, 1, 0], [50, 9, 2, 5])
    difference, p = paired_accuracy(first, second, np.arange(66))
    assert difference == paired_difference(50, 9, 2, 5)
    assert p == mcnemar(first, second).mid < mcnemar(first, second).exact


def test_accuracies_by_unit_are_compared_by_the_t_test_of_clustered_regression() -> None:
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(9), rng.integers(2, 7, 9))
    first, second = (rng.random(units.size) < rate for rate in (0.9, 0.7))
    difference, p = paired_accuracy(first, second, units)
    # Cluster-robust variance with the factor k / (k - 1); statsmodels adds (n - 1) / (n - p), here 1.
    fitted = OLS(first * 1.0 - second, np.ones(units.size)).fit(
        cov_type="cluster", cov_kwds={"groups": units}, use_t=True
    )
    assert difference.numbers is not None
    assert difference.value == pytest.approx(fitted.params[0])
    assert p == pytest.approx(fitted.pvalues[0])
    assert difference.numbers[::2] == pytest.approx(tuple(fitted.conf_int()[0]))
    turned, same = paired_accuracy(second, first, units)
    assert (turned.value, same) == (-(difference.value or 0), p)


def test_accuracies_of_units_that_all_agree() -> None:
    units, right, wrong = np.repeat(np.arange(8), 3), np.ones(24), np.zeros(24)
    for first, second, value, expected in ((right, right, 0.0, 1.0), (right, wrong, 1.0, 0.5**8)):
        difference, p = paired_accuracy(first, second, units)
        assert difference.numbers is not None
        assert (difference.value, p) == (value, expected)
        assert difference.numbers[0] < difference.numbers[2]
        counts = (8, 0, 0, 0) if value == 0 else (0, 8, 0, 0)
        assert difference.numbers == paired_difference(*counts).numbers


def test_t_test_by_unit_keeps_its_level() -> None:
    rejected, units = 0, np.repeat(np.arange(12), 6)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        first, second = (np.repeat(rng.normal(size=12), 6) + rng.normal(size=72) < 1.5 for _ in range(2))
        difference, p = paired_accuracy(first, second, units)
        assert difference.numbers is not None
        assert (p < 0.05) == (difference.numbers[0] > 0 or difference.numbers[2] < 0)
        rejected += p < 0.05
    assert rejected <= 24  # 15 are expected


def test_eight_discordant_photographs_stand_up_to_holm_over_six_pairs_and_seven_do_not() -> None:
    others = [1.0] * 5
    assert holm([2 * 0.5**8, *others])[0] < 0.05 < holm([2 * 0.5**7, *others])[0]
    assert holm([2 * 0.5**7, 1.0, 1.0])[0] < 0.05 < holm([2 * 0.5**6, 1.0, 1.0])[0]


def test_holm_is_that_of_the_textbook_and_of_statsmodels() -> None:
    # Holm 1979: sorted .005 .01 .03 .04 times 4, 3, 2, 1, made monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    for seed in range(5):
        values = np.random.default_rng(seed).random(6) ** 3
        assert holm(list(values)) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []
    with pytest.raises(ValueError, match="lie in"):
        holm([0.1, math.nan])


def test_letters_are_shared_exactly_where_nothing_tells_apart() -> None:
    pairs = [frozenset(pair) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")]
    for chosen in product([False, True], repeat=6):
        different = {pair for pair, told in zip(pairs, chosen, strict=True) if told}
        found = significance_letters(list("abcd"), different)
        for pair in pairs:
            one, other = pair
            assert (not set(found[one]) & set(found[other])) == (pair in different)
        assert found["a"].startswith("a")


def test_letters_of_none_of_one_and_of_thirty() -> None:
    assert significance_letters([], set()) == {}
    assert significance_letters(["x"], set()) == {"x": "a"}
    names = [str(i) for i in range(30)]
    every = {frozenset((a, b)) for a in names for b in names if a != b}
    assert len(set(significance_letters(names, every).values())) == 30
    assert set(significance_letters(names, set()).values()) == {"a"}


# Sensitivities at one specificity


@pytest.mark.parametrize("specificity", [0.0, 0.8, 0.9, 0.95, 1.0])
def test_sensitivity_at_a_specificity_is_that_of_scikit_learns_curve(specificity: float) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        labels = np.r_[0, 1, generator.integers(0, 2, 60)]
        scores = [np.round(generator.normal(labels) * factor, 1) for factor in (1, 0.4)]  # with ties
        found = paired_sensitivity(labels, scores[0], scores[1], specificity, np.arange(62), replicates=10)
        assert found is not None
        expected = []
        for score in scores:
            alarms, hits, _ = roc_curve(labels, score, drop_intermediate=False)
            expected.append(hits[1 - alarms >= specificity - 1e-9].max())
        assert found[:2] == pytest.approx(expected)
        assert found[2].value == pytest.approx(expected[0] - expected[1])


def test_difference_of_sensitivities_is_covered() -> None:
    """Scores of two classifiers are normal, with a correlation of .5 within each class."""
    generator, n = np.random.default_rng(0), 116
    labels = np.repeat([1, 0], [45, 71])
    true = stats.norm.cdf(2.5 - stats.norm.ppf(0.9)) - stats.norm.cdf(2.0 - stats.norm.ppf(0.9))
    covered = []
    for _ in range(200):
        shared, *own = generator.normal(0, math.sqrt(0.5), (3, n))
        first, second = (shared + one + shift * labels for one, shift in zip(own, (2.5, 2.0), strict=True))
        found = paired_sensitivity(labels, first, second, 0.9, np.arange(n), replicates=200)
        assert found is not None
        interval = existing(found[2].interval)
        covered.append(interval.low <= true <= interval.high)
    assert 0.91 <= np.mean(covered) <= 0.99


def test_equal_classifiers_and_one_class_have_no_interval_of_a_difference() -> None:
    labels, scores = [0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]
    found = paired_sensitivity(labels, scores, scores, 0.9, range(4))
    assert found is not None
    assert found[2].value == 0
    assert found[2].interval is None
    assert paired_sensitivity([1, 1], [0.1, 0.2], [0.1, 0.2], 0.9, range(2)) is None
