"""Resampling, and tests of several classifiers on the same photographs."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bldml.metrics.bootstrap import bootstrap, paired_bootstrap
from bldml.metrics.estimates import Interval
from bldml.metrics.paired import McNemar, holm, mcnemar, significance_letters


def existing(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


# Resampling


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(0, 1, 400)
    found, again = (
        existing(bootstrap(lambda index: float(values[index].mean()), np.ones(400, int), seed=1)) for _ in range(2)
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
        for given in (None, groups)
    )
    assert (clustered.high - clustered.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(8), rel=0.15)
    assert clustered.method == "cluster bootstrap, 30 groups"


def test_what_cannot_be_resampled_is_none_and_what_is_omitted_is_said() -> None:
    assert bootstrap(lambda index: None, [0, 1]) is None
    assert bootstrap(lambda index: math.nan, [0, 1], replicates=20) is None
    assert bootstrap(lambda index: 1.0, []) is None
    assert paired_bootstrap(lambda index: None, [0, 1]) is None
    found = existing(bootstrap(lambda index: 1.0 if index[0] else None, [1, 1, 1], replicates=100))
    assert "undefined draws omitted" in found.method
    found = existing(bootstrap(lambda index: 0.5 if index[0] else math.inf, [1, 1, 1], replicates=200))
    assert (found.low, found.high) == (0.5, 0.5)


def test_one_photograph_one_group_and_few() -> None:
    one = bootstrap(lambda index: float(index.size), [1], replicates=50)
    assert one == Interval(1.0, 1.0, "bootstrap, 1 photograph")
    group = existing(bootstrap(lambda index: float(index.size), [1, 0, 1], ["a"] * 3, replicates=50))
    assert group.method == "cluster bootstrap, 1 group (unreliable: few groups)"
    with pytest.raises(ValueError, match="one group"):
        bootstrap(lambda index: 1.0, [1, 0], ["a"])


def test_every_draw_has_as_many_of_each_class() -> None:
    labels = np.array([1, 0, 0, 0, 1, 0])
    found = existing(bootstrap(lambda index: float(labels[index].mean()), labels, replicates=100))
    assert (found.low, found.high) == pytest.approx((1 / 3, 1 / 3))


def test_p_of_the_paired_bootstrap_is_near_that_of_a_z_test() -> None:
    values = np.random.default_rng(5).normal(0.1, 1, 300)
    found = paired_bootstrap(lambda index: float(values[index].mean()), np.ones(300, int))
    assert found is not None
    expected = 2 * stats.norm.sf(abs(values.mean() / (values.std() / math.sqrt(300))))
    assert found.p == pytest.approx(expected, abs=0.02)
    certain = paired_bootstrap(lambda index: 1.0, np.ones(3, int), replicates=99)
    assert certain is not None
    assert certain.p == pytest.approx(0.02)
    none = paired_bootstrap(lambda index: 0.0 if index[0] else math.nan, [1] * 2, replicates=200)
    assert none is None or none.p == 1.0


def test_p_of_the_paired_bootstrap_is_symmetric() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 50)
    up, down = (
        paired_bootstrap(lambda index, sign=sign: sign * float(values[index].mean()), np.ones(50, int), replicates=400)  # type: ignore[misc]
        for sign in (1, -1)
    )
    assert up is not None
    assert down is not None
    assert up.p == down.p
    assert (up.interval.low, up.interval.high) == pytest.approx((-down.interval.high, -down.interval.low))


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
