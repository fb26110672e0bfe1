"""Proportions and what follows from two of them: SciPy, statsmodels, published values, every small table."""

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.stats.proportion import confint_proportions_2indep

from bldml.metrics.estimates import Estimate, Z
from bldml.metrics.proportions import (
    complement,
    dirichlet_interval,
    mover,
    mover_ratio,
    paired_difference,
    predictive_values,
    proportion,
    proportion_by_unit,
)
from bldml.metrics.registry import METRICS

Array = NDArray[Any]
Cells = tuple[int, int, int, int]
SIZES = [(0, 0), (0, 1), (1, 1), (0, 9), (9, 9), (1, 9), (8, 9)]
UNIT_SIZES = [(2, 8), (5, 2), (5, 8), (15, 8), (30, 8), (30, 20)]  # units, photographs of each
SENSITIVITY, SPECIFICITY = proportion(45, 45), proportion(67, 71)


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


def numbers(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.numbers is not None
    return estimate.numbers


def wilson(successes: int, n: int) -> tuple[float, float]:
    found = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return found.low, found.high


# One proportion


def test_level_is_95_percent() -> None:
    assert pytest.approx(stats.norm.ppf(0.975)) == Z


@pytest.mark.parametrize(
    ("k", "n"), [(0, 1), (1, 1), (45, 45), (67, 71), (112, 116), (100, 116), (293, 293), (0, 50), (3, 10)]
)
def test_wilson_is_that_of_scipy(k: int, n: int) -> None:
    low, value, high = numbers(proportion(k, n))
    assert value == k / n
    assert (low, high) == pytest.approx(wilson(k, n), abs=1e-12)


def test_nothing_is_not_estimable() -> None:
    for found in (proportion(0, 0), proportion_by_unit([], []), paired_difference(0, 0, 0, 0)):
        assert found.value is None
        assert is_sound(found, 0, 1)


def test_impossible_counts_are_refused() -> None:
    for successes, n in [(-1, 3), (4, 3), (0, -1)]:
        with pytest.raises(ValueError, match="successes"):
            proportion(successes, n)
    with pytest.raises(ValueError, match="one unit"):
        proportion_by_unit([True], [0, 1])


def of_units(seed: int, n_units: int, rate: float, correlation: float) -> tuple[Array, Array]:
    """Hits and units of 1 to 8 photographs, whose rates are beta."""
    rng, strength = np.random.default_rng(seed), 1 / correlation - 1
    sizes = rng.integers(1, 9, n_units)
    rates = rng.beta(rate * strength, (1 - rate) * strength, n_units)
    units = np.repeat(np.arange(n_units), sizes)
    return rng.random(units.size) < rates[units], units


def by_grid(hits: Array, units: Array) -> tuple[float, float]:
    """Limits of the profile likelihood on a grid of proportions and correlations."""
    sizes, sums = np.bincount(units), np.bincount(units, weights=hits).astype(int)
    proportions, logits = special.expit(np.linspace(-14, 14, 4001)), np.linspace(-9, 9, 121)
    best = np.full(proportions.size, -np.inf)
    for strength in np.exp(logits):
        a, b = proportions * strength, (1 - proportions) * strength
        terms = [stats.betabinom.logpmf(k, n, a, b) for k, n in zip(sums, sizes, strict=True)]
        best = np.maximum(best, np.sum(terms, axis=0))
    inside = proportions[2 * (best.max() - best) <= stats.t.ppf(0.975, sizes.size - 1) ** 2]
    return inside.min(), inside.max()


@pytest.mark.parametrize(("n_units", "rate", "correlation"), [(8, 0.9, 0.5), (15, 0.97, 0.2), (30, 0.6, 0.05)])
def test_interval_by_unit_is_that_of_a_grid(n_units: int, rate: float, correlation: float) -> None:
    hits, units = of_units(n_units, n_units, rate, correlation)
    low, value, high = numbers(proportion_by_unit(hits, units))
    assert value == hits.mean()
    assert (low, high) == pytest.approx(by_grid(hits, units), abs=2e-3)
    assert numbers(proportion_by_unit(~hits, 99 - units)) == pytest.approx((1 - high, 1 - value, 1 - low), abs=1e-3)


def test_interval_by_unit_covers_and_that_of_photographs_does_not() -> None:
    covered = np.zeros(2)
    for seed in range(150):
        hits, units = of_units(seed, 12, 0.9, 0.5)
        for method, found in enumerate((proportion_by_unit(hits, units), proportion(int(hits.sum()), hits.size))):
            low, _, high = numbers(found)
            covered[method] += low <= 0.9 <= high
    assert covered[0] / 150 >= 0.93
    assert covered[1] / 150 < 0.8


def test_without_errors_more_and_larger_units_prove_more() -> None:
    lows = [numbers(proportion_by_unit(np.ones(k * n), np.repeat(np.arange(k), n)))[0] for k, n in UNIT_SIZES]
    assert lows == sorted(lows)
    assert numbers(proportion_by_unit(np.ones(8), np.zeros(8))) == (0, 1, 1)  # one unit shows nothing


def patterns(n: int) -> Iterator[tuple[list[bool], list[int]]]:
    for hits in product([False, True], repeat=n):
        for units in combinations_with_replacement(range(3), n):
            yield list(hits), list(units)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_units_never_make_a_proportion_surer(n: int) -> None:
    for hits, units in patterns(n):
        found = proportion_by_unit(hits, units)
        assert is_sound(found, 0, 1)
        low, _, high = numbers(proportion(sum(hits), n))
        assert numbers(found)[0] <= low + 1e-12
        assert numbers(found)[2] >= high - 1e-12


def test_units_of_one_photograph_are_photographs() -> None:
    assert proportion_by_unit(np.arange(40) % 4 > 0, 40 - np.arange(40)) == proportion(30, 40)


# Two proportions


def test_mover_by_hand() -> None:
    sensitivity, specificity = proportion(40, 45), proportion(60, 71)
    (low_1, high_1), (low_2, high_2) = wilson(40, 45), wilson(60, 71)
    a, b = 40 / 45, 60 / 71
    low, value, high = numbers(mover(sensitivity, specificity, (1.0, 1.0), shift=-1.0))
    assert value == pytest.approx(a + b - 1)
    assert low == pytest.approx(a + b - 1 - math.sqrt((a - low_1) ** 2 + (b - low_2) ** 2))
    assert high == pytest.approx(a + b - 1 + math.sqrt((high_1 - a) ** 2 + (high_2 - b) ** 2))
    halves = numbers(mover(sensitivity, specificity, (0.5, 0.5)))
    assert halves == pytest.approx([(number + 1) / 2 for number in (low, value, high)])


# Newcombe 1998, Statistics in Medicine 17: 873, table II, method 10 (score, without continuity correction)
@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_difference_as_published(
    first: tuple[int, int], second: tuple[int, int], published: tuple[float, float]
) -> None:
    low, _, high = numbers(mover(proportion(*first), proportion(*second), (1.0, -1.0)))
    assert (low, high) == pytest.approx(published, abs=1e-4)
    expected = confint_proportions_2indep(*first, *second, compare="diff", method="newcomb")
    assert (low, high) == pytest.approx(expected, abs=1e-9)


def test_likelihood_ratios() -> None:
    sensitivity, specificity = proportion(40, 50), proportion(90, 100)
    low, value, high = numbers(mover_ratio(sensitivity, complement(specificity)))
    assert value == pytest.approx(8.0)
    assert mover_ratio(complement(sensitivity), specificity).value == pytest.approx(0.2 / 0.9)
    # Close to the usual interval on the logarithm.
    error = math.sqrt(1 / 40 - 1 / 50 + 1 / 10 - 1 / 100)
    assert low == pytest.approx(8 * math.exp(-1.96 * error), rel=0.1)
    assert high == pytest.approx(8 * math.exp(1.96 * error), rel=0.15)
    assert mover_ratio(sensitivity, complement(proportion(9, 9))).value is None


def test_likelihood_ratios_keep_both_limits_with_few_errors() -> None:
    low, value, high = numbers(mover_ratio(SENSITIVITY, complement(SPECIFICITY)))
    assert value == pytest.approx(17.75)
    # The limits solve (x - R y)^2 = (x - limit of x)^2 + R^2 (limit of y - y)^2.
    x, y = 1.0, 4 / 71
    (x_low, _), (y_low, y_high) = wilson(45, 45), wilson(4, 71)
    assert (x - low * y) ** 2 == pytest.approx((x - x_low) ** 2 + low**2 * (y_high - y) ** 2)
    assert (x - high * y) ** 2 == pytest.approx(high**2 * (y - y_low) ** 2)
    assert 5 < low < 17.75 < high < 100
    low, value, high = numbers(mover_ratio(complement(SENSITIVITY), SPECIFICITY))
    assert low == value == 0.0 < high < 0.1


@pytest.mark.parametrize(
    ("prevalence", "expected", "lowest"), [(45 / 116, 45 / 49, 0.811), (0.1, 0.6636, 0.43), (0.01, 0.152034, 0.064)]
)
def test_predictive_value_falls_with_prevalence(prevalence: float, expected: float, lowest: float) -> None:
    ppv, npv = predictive_values(SENSITIVITY, SPECIFICITY, prevalence)
    low, value, high = numbers(ppv)
    assert value == pytest.approx(expected, abs=5e-5)
    assert low == pytest.approx(lowest, abs=5e-3)
    assert value < high
    assert npv.value == 1.0


def test_predictive_value_of_a_prediction_that_is_never_made() -> None:
    ppv, npv = predictive_values(proportion(0, 5), proportion(5, 5), 0.1)
    assert ppv.value is None
    assert npv.value == pytest.approx(0.9)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, math.nan])
def test_prevalence_outside_its_range_is_refused(prevalence: float) -> None:
    with pytest.raises(ValueError, match="prevalence"):
        predictive_values(SENSITIVITY, SPECIFICITY, prevalence)


@pytest.mark.parametrize(("first", "second"), list(product(SIZES, SIZES)))
def test_all_that_follows_from_two_proportions(first: tuple[int, int], second: tuple[int, int]) -> None:
    a, b = proportion(*first), proportion(*second)
    assert is_sound(a, 0, 1)
    assert (a.value is None) == (first[1] == 0)
    for estimate, lowest in [
        (mover(a, b, (0.5, 0.5)), 0),
        (mover(a, b, (1.0, 1.0), shift=-1.0), -1),
        (mover(a, b, (1.0, -1.0)), -1),
    ]:
        assert is_sound(estimate, lowest, 1)
        assert (estimate.value is None) == (first[1] == 0 or second[1] == 0)
        if estimate.interval is not None:
            assert estimate.interval.low < estimate.interval.high
    for ratio in (mover_ratio(a, complement(b)), mover_ratio(complement(a), b)):
        assert is_sound(ratio, 0, math.inf)
    for prevalence in (1e-6, 0.3, 0.999):
        for value in predictive_values(a, b, prevalence):
            assert is_sound(value, 0, 1)


# Four cells


@pytest.mark.parametrize(("both", "neither", "margin"), [(98, 0, -14 * 4), (60, 38, 60 * 38 - 14 * 4 - 116 / 2)])
def test_paired_difference_by_hand(both: int, neither: int, margin: float) -> None:
    """The second with a positive correlation, which is corrected by half the number of photographs."""
    first, second = both + 14, both + 4
    (low_1, high_1), (low_2, high_2) = wilson(first, 116), wilson(second, 116)
    phi = margin / math.sqrt(first * (116 - first) * second * (116 - second))
    p, q = first / 116, second / 116
    low = p - q - math.sqrt((p - low_1) ** 2 - 2 * phi * (p - low_1) * (high_2 - q) + (high_2 - q) ** 2)
    high = p - q + math.sqrt((high_1 - p) ** 2 - 2 * phi * (high_1 - p) * (q - low_2) + (q - low_2) ** 2)
    assert numbers(paired_difference(both, 14, 4, neither)) == pytest.approx((low, 10 / 116, high))


@pytest.mark.parametrize("cells", [cells for cells in product([0, 1, 6], repeat=4) if sum(cells)])
def test_paired_difference_of_any_table(cells: Cells) -> None:
    found = paired_difference(*cells)
    assert is_sound(found, -1, 1)
    both, first, second, neither = cells
    turned = paired_difference(both, second, first, neither)
    assert numbers(turned) == pytest.approx([-number for number in reversed(numbers(found))])


@pytest.mark.parametrize("measure", ["f1", "mcc"])
@pytest.mark.parametrize("cells", [cells for cells in product([0, 1, 30], repeat=4) if sum(cells)])
def test_dirichlet_interval_of_any_table(cells: Cells, measure: str) -> None:
    metric = METRICS[measure]
    found, observed = (
        dirichlet_interval(metric.from_counts, cells, np.arange(sum(cells)), draws=500),
        metric.from_counts(*cells),
    )
    if observed is None:
        assert found is None
        return
    assert found is not None
    assert metric.limits[0] <= found.low <= observed <= found.high <= 1
    assert found.low < found.high


def test_f1_interval_has_the_coverage_of_its_posterior() -> None:
    # By the Dirichlet's own Beta marginals: 2tp/(2tp+fp+fn) is a function of tp/(tp+fp+fn), a Beta variable.
    found, again = (dirichlet_interval(METRICS["f1"].from_counts, [40, 3, 5, 68], np.arange(116)) for _ in range(2))
    assert found is not None
    fraction = stats.beta.ppf([0.025, 0.975], 40.5, 9.0)
    assert (found.low, found.high) == pytest.approx(tuple(2 * fraction / (1 + fraction)), abs=2e-3)
    assert found == again
    # Of 29 units of 4 photographs, as much is known as of 29 photographs.
    found = dirichlet_interval(METRICS["f1"].from_counts, [40, 3, 5, 68], np.repeat(np.arange(29), 4))
    assert found is not None
    fraction = stats.beta.ppf([0.025, 0.975], 10.5, 3.0)
    assert (found.low, found.high) == pytest.approx(tuple(2 * fraction / (1 + fraction)), abs=4e-3)
    assert found.method == "Jeffreys-Dirichlet, 29 units"
