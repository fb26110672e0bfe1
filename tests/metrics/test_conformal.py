"""Limits by split conformal prediction against the textbook's order statistic and simulated coverage; bands."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from bldml.metrics.certainty.conformal import (
    Bands,
    choose_bands,
    conformal_limit,
    error_in_one_of,
    units_needed,
)

numbers = st.lists(st.integers(-20, 20), min_size=1, max_size=80)


@given(numbers, st.sampled_from(["0.02", "0.05", "0.1", "0.3", "0.5"]))
def test_of_independent_photographs_it_is_the_order_statistic(scores: list[int], error: str) -> None:
    """The textbook: the ceil((n + 1)(1 - error))-th smallest score, infinite if that is more than n."""
    rank = math.ceil((len(scores) + 1) * (1 - Fraction(error)))
    expected = sorted(scores)[rank - 1] if rank <= len(scores) else None
    assert conformal_limit(scores, range(len(scores)), float(error)) == expected
    assert (expected is None) == (len(scores) < units_needed(float(error)))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=60))
def test_with_units_it_is_the_quantile_of_the_weighted_distribution(pairs: list[tuple[int, int]]) -> None:
    """A plain loop in fractions: each unit has the weight 1 / (units + 1), the new one stands at infinity."""
    units, scores = zip(*pairs, strict=True)
    error = Fraction(1, 5)
    k = len(set(units))
    expected = None
    for candidate in sorted(set(scores)):
        mass = sum(Fraction(score <= candidate) / ((k + 1) * units.count(unit)) for unit, score in pairs)
        if mass >= 1 - error:
            expected = candidate
            break
    assert conformal_limit(scores, units, float(error)) == expected


def test_the_error_is_kept_on_new_leaves() -> None:
    """On average over validation sets, at a quantile of its own as often as the Beta distribution says."""
    generator = np.random.default_rng(3)
    n, error = 45, 0.1
    missed = [1 - conformal_limit(generator.uniform(size=n), range(n), error) for _ in range(4000)]  # type: ignore[operator]
    assert np.mean(missed) == pytest.approx(4 / 46, abs=0.003)
    assert np.mean(np.array(missed) > error_in_one_of(n, error)) == pytest.approx(0.05, abs=0.012)
    assert error_in_one_of(n, error) == pytest.approx(beta(4, 42).ppf(0.95))


def test_photographs_of_one_unit_are_no_independent_ones() -> None:
    """With groups of 8 photographs that are alike the error is kept; if each counted as one, it would not be."""
    generator, k = np.random.default_rng(4), 24
    units = np.repeat(np.arange(k), 8)
    missed = []
    for _ in range(1500):
        scores = generator.uniform(size=k)[units]
        limits = conformal_limit(scores, units, 0.05), conformal_limit(scores, range(units.size), 0.05)
        missed.append([1 - limit for limit in limits if limit is not None])
    by_unit, by_photograph = np.mean(missed, axis=0)
    assert by_unit <= 0.05 < by_photograph - 0.01


probabilities = st.floats(0, 1)


@given(st.lists(st.tuples(st.integers(0, 1), probabilities), min_size=1, max_size=60), probabilities, probabilities)
def test_a_band_never_contradicts_the_predicted_class(
    pairs: list[tuple[int, float]], threshold: float, probability: float
) -> None:
    labels, scores = zip(*pairs, strict=True)
    bands = choose_bands(labels, scores, range(len(pairs)), threshold, 0.2)
    band = bands.band(probability)
    enough = min(bands.n_positive, bands.n_negative) >= 4
    assert (bands.n_positive, bands.n_negative) == (sum(labels), len(labels) - sum(labels))
    assert (band is None) == (bands.low is None) == (bands.high is None) == (not enough)
    assert band != "negative" or probability < threshold
    assert band != "positive" or probability >= threshold


def test_limits_of_the_bands() -> None:
    """Of 39 photographs of a class, one may lie beyond the limit."""
    negative, positive = np.linspace(0.01, 0.77, 39), np.linspace(0.22, 0.98, 39)
    labels, scores = np.repeat([0, 1], 39), np.concatenate([negative, positive])
    bands = choose_bands(labels, scores, range(78), 0.5, 0.05)
    assert bands.low is not None
    assert bands.high is not None
    assert bands.low == pytest.approx(positive[1])
    assert sum(negative >= bands.high) == 1
    assert sum(positive < bands.low) == 1
    assert [bands.band(p) for p in (0, positive[1], 0.5, negative[-2], 1)] == [
        "negative",
        "uncertain",
        "uncertain",
        "uncertain",
        "positive",
    ]
    # Of separated classes neither is plausible between them.
    apart = choose_bands(labels, labels * 0.8 + 0.1, range(78), 0.5, 0.05)
    assert [apart.band(p) for p in (0.1, 0.11, 0.89, 0.9)] == ["negative", "uncertain", "uncertain", "positive"]


def test_no_limit_without_enough_units() -> None:
    with pytest.raises(ValueError, match="18 units"):
        error_in_one_of(18, 0.05)
    units = np.repeat(np.arange(18), 5)
    bands = choose_bands(np.repeat([0, 1], 90), np.repeat([0.1, 0.9], 90), np.append(units, units + 18), 0.5, 0.05)
    assert bands == Bands(0.05, 18, 18)
    assert bands.band(0.99) is None
