"""What the data do not define is None with a reason; nothing is nan, no p is 0, no interval is turned round."""

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from bldml.metrics import auroc as ranking
from bldml.metrics import bootstrap, paired, proportions
from bldml.metrics.estimates import Estimate
from bldml.metrics.registry import METRICS

SIZES = [(0, 0), (0, 1), (1, 1), (0, 9), (9, 9), (1, 9), (8, 9)]


def is_sound(estimate: Estimate, lowest: float, highest: float) -> bool:
    """Whether value and limits are finite, ordered and in the range, or absent for a stated reason."""
    if estimate.value is None:
        return bool(estimate.note) and estimate.interval is None
    inside = math.isfinite(estimate.value) and lowest - 1e-9 <= estimate.value <= highest + 1e-9
    if estimate.interval is None:
        return inside and bool(estimate.note)
    low, high = estimate.interval.low, estimate.interval.high
    ordered = lowest - 1e-9 <= low <= estimate.value + 1e-9 <= high + 2e-9 <= highest + 3e-9
    return inside and math.isfinite(low) and math.isfinite(high) and ordered and bool(estimate.interval.method)


@pytest.mark.parametrize(("first", "second"), list(product(SIZES, SIZES)))
def test_all_that_follows_from_two_proportions(first: tuple[int, int], second: tuple[int, int]) -> None:
    a, b = proportions.proportion(*first), proportions.proportion(*second)
    assert is_sound(a, 0, 1)
    assert (a.value is None) == (first[1] == 0)
    none = first[1] == 0 or second[1] == 0
    for estimate, lowest, highest in [
        (proportions.mover(a, b, (0.5, 0.5)), 0, 1),
        (proportions.mover(a, b, (1.0, 1.0), shift=-1.0), -1, 1),
        (proportions.mover(a, b, (1.0, -1.0)), -1, 1),
    ]:
        assert is_sound(estimate, lowest, highest)
        assert (estimate.value is None) == none
        if estimate.interval is not None:
            assert estimate.interval.low < estimate.interval.high
    for ratio in (
        proportions.mover_ratio(a, proportions.complement(b)),
        proportions.mover_ratio(proportions.complement(a), b),
    ):
        assert is_sound(ratio, 0, math.inf)
    for prevalence in (1e-6, 0.3, 0.999):
        for value in proportions.predictive_values(a, b, prevalence):
            assert is_sound(value, 0, 1)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, math.nan])
def test_prevalence_outside_its_range_is_refused(prevalence: float) -> None:
    one = proportions.proportion(4, 5)
    with pytest.raises(ValueError, match="prevalence"):
        proportions.predictive_values(one, one, prevalence)


def test_impossible_counts_are_refused() -> None:
    for successes, n in [(-1, 3), (4, 3), (0, -1)]:
        with pytest.raises(ValueError, match="successes"):
            proportions.proportion(successes, n)
    with pytest.raises(ValueError, match="one group"):
        proportions.clustered_proportion([True], ["a", "b"])


@pytest.mark.parametrize("cells", [cells for cells in product([0, 1, 6], repeat=4) if sum(cells)])
def test_paired_difference_of_any_table(cells: tuple[int, int, int, int]) -> None:
    found = proportions.paired_difference(*cells)
    assert is_sound(found, -1, 1)
    both, first, second, neither = cells
    turned = proportions.paired_difference(both, second, first, neither)
    assert found.value is not None
    assert found.interval is not None
    assert turned.interval is not None
    assert turned.value == -found.value
    assert (turned.interval.low, turned.interval.high) == pytest.approx((-found.interval.high, -found.interval.low))


def test_paired_difference_of_nothing() -> None:
    assert is_sound(proportions.paired_difference(0, 0, 0, 0), -1, 1)


@pytest.mark.parametrize("measure", ["f1", "mcc"])
@pytest.mark.parametrize("cells", [cells for cells in product([0, 1, 30], repeat=4) if sum(cells)])
def test_dirichlet_interval_of_any_table(cells: tuple[int, int, int, int], measure: str) -> None:
    metric = METRICS[measure]
    found = proportions.dirichlet_interval(metric.from_counts, cells, draws=500)
    if metric.from_counts(*cells) is None:
        assert found is None
        return
    assert found is not None
    assert (0 if measure == "f1" else -1) <= found.low < found.high <= 1


def patterns(n: int) -> Iterator[tuple[list[bool], list[str]]]:
    for hits in product([False, True], repeat=n):
        for groups in combinations_with_replacement("abc", n):
            yield list(hits), list(groups)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_clustered_proportion_of_few_photographs(n: int) -> None:
    for hits, groups in patterns(n):
        found = proportions.clustered_proportion(hits, groups)
        assert is_sound(found, 0, 1)
        assert found.interval is not None
        alone = proportions.proportion(sum(hits), n)
        assert alone.interval is not None
        # Groups never make it surer.
        assert found.interval.low <= alone.interval.low + 1e-12
        assert found.interval.high >= alone.interval.high - 1e-12


def test_groups_of_one_photograph_are_almost_no_groups() -> None:
    hits = np.arange(40) % 4 > 0
    found = proportions.clustered_proportion(hits, [str(i) for i in range(40)])
    alone = proportions.proportion(30, 40)
    assert found.interval is not None
    assert alone.interval is not None
    # The variance between n groups is over n - 1.
    assert found.interval.low == pytest.approx(alone.interval.low, abs=3e-3)
    assert found.interval.high == pytest.approx(alone.interval.high, abs=3e-3)


# Areas


def small() -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
    for n in range(5):
        yield from product(product([0, 1], repeat=n), product([0.1, 0.5, 0.9], repeat=n))


def test_area_of_every_small_table() -> None:
    seen = 0
    for labels, scores in small():
        found = ranking.estimate_auroc(labels, scores)
        assert is_sound(found, 0, 1)
        assert (found.value is None) == (len(set(labels)) < 2)
        if found.interval is not None:
            assert found.interval.low < found.interval.high
        seen += 1
    assert seen > 1000


@pytest.mark.parametrize("groups", ["aaaa", "aabb", "abab", "abcd", "aaab"])
def test_area_of_few_photographs_in_groups(groups: str) -> None:
    for labels, scores in list(product(product([0, 1], repeat=4), product([0.1, 0.5, 0.9], repeat=4)))[::3]:
        found = ranking.estimate_auroc(labels, scores, list(groups))
        assert is_sound(found, 0, 1)
        assert found.value == ranking.estimate_auroc(labels, scores).value
        if found.interval is not None:
            assert found.interval.low < found.interval.high
    assert ranking.estimate_auroc([], [], []).value is None
    with pytest.raises(ValueError, match="one group"):
        ranking.estimate_auroc([0, 1], [0.1, 0.2], ["a"])


def test_paired_areas_of_every_small_table() -> None:
    for labels in [(0, 1), (0, 0, 1, 1), (0, 1, 1, 1)]:
        tables = list(product([0.1, 0.5, 0.9], repeat=len(labels)))[::4]
        for first, second in product(tables, tables):
            found = ranking.paired_auroc(labels, first, second)
            assert is_sound(found.difference, -1, 1)
            assert (found.z is None) == (found.p is None)
            if found.p is not None and found.z is not None:
                assert 0 < found.p <= 1
                assert math.isfinite(found.z)


def test_a_classifier_does_not_differ_from_itself() -> None:
    labels = [0, 0, 0, 1, 1, 1]
    for scores in ([0.1, 0.6, 0.3, 0.4, 0.8, 0.6], [0.5] * 6, labels):
        found = ranking.paired_auroc(labels, scores, scores)
        assert (found.z, found.p, found.difference.value) == (0.0, 1.0, 0.0)
        assert found.difference.interval is not None
        assert found.difference.interval.low < 0 < found.difference.interval.high


def test_area_does_not_depend_on_the_scale_nor_the_order_and_turns_with_the_labels() -> None:
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.r_[np.ones(12, int), np.zeros(20, int)])
    scores = (labels + rng.normal(0, 1, 32)).round(1)
    found = ranking.estimate_auroc(labels, scores)
    order = rng.permutation(32)
    for same in (
        ranking.estimate_auroc(labels, np.exp(5 * scores)),
        ranking.estimate_auroc(labels[order], scores[order]),
    ):
        assert same.value == pytest.approx(found.value)
        assert same.interval is not None
        assert found.interval is not None
        assert same.interval.low == pytest.approx(found.interval.low)
    turned = ranking.estimate_auroc(1 - labels, scores)
    assert turned.value is not None
    assert found.value is not None
    assert found.interval is not None
    assert turned.interval is not None
    assert turned.value == pytest.approx(1 - found.value)
    assert turned.interval.low == pytest.approx(1 - found.interval.high)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ranking.estimate_auroc([0, 1], [0.1, math.nan])
    with pytest.raises(ValueError, match="0 or 1"):
        ranking.estimate_auroc([0, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="must have the same shape"):
        ranking.paired_auroc([0, 1], [0.1, 0.2], [0.1])


# Resampling


def test_a_statistic_that_is_not_finite_counts_as_not_defined() -> None:
    assert bootstrap.bootstrap(lambda index: math.nan, [0, 1], replicates=20) is None
    found = bootstrap.bootstrap(lambda index: math.inf if index[0] else 0.5, [1, 1, 1], replicates=200)
    if found is not None:
        assert (found.low, found.high) == (0.5, 0.5)
    certain = bootstrap.paired_bootstrap(lambda index: 0.0 if index[0] else math.nan, [1] * 2, replicates=200)
    assert certain is None or certain.p == 1.0


def test_bootstrap_with_one_photograph_or_one_group() -> None:
    one = bootstrap.bootstrap(lambda index: float(index.size), [1], replicates=50)
    assert one is not None
    assert (one.low, one.high, one.method) == (1.0, 1.0, "bootstrap, 1 photograph")
    group = bootstrap.bootstrap(lambda index: float(index.size), [1, 0, 1], ["a"] * 3, replicates=50)
    assert group is not None
    assert "1 group (unreliable: few groups)" in group.method
    with pytest.raises(ValueError, match="one group"):
        bootstrap.bootstrap(lambda index: 1.0, [1, 0], ["a"])


def test_every_draw_has_as_many_of_each_class() -> None:
    labels = np.array([1, 0, 0, 0, 1, 0])
    found = bootstrap.bootstrap(lambda index: float(labels[index].mean()), labels, replicates=100)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1 / 3, 1 / 3))


def test_p_of_the_paired_bootstrap_is_symmetric() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 50)
    labels = np.ones(50, int)
    up = bootstrap.paired_bootstrap(lambda index: float(values[index].mean()), labels, replicates=400)
    down = bootstrap.paired_bootstrap(lambda index: -float(values[index].mean()), labels, replicates=400)
    assert up is not None
    assert down is not None
    assert up.p == down.p
    assert (up.interval.low, up.interval.high) == pytest.approx((-down.interval.high, -down.interval.low))


# Several classifiers


def test_mcnemar_of_nothing_and_of_other_shapes() -> None:
    assert paired.mcnemar([], []) == paired.McNemar(0, 0, 1.0, 1.0)
    with pytest.raises(ValueError, match="shape"):
        paired.mcnemar([True], [True, False])


def test_letters_of_none_of_one_and_of_thirty() -> None:
    assert paired.significance_letters([], set()) == {}
    assert paired.significance_letters(["x"], set()) == {"x": "a"}
    names = [str(i) for i in range(30)]
    every = {frozenset((a, b)) for a in names for b in names if a != b}
    assert len(set(paired.significance_letters(names, every).values())) == 30
    assert set(paired.significance_letters(names, set()).values()) == {"a"}
