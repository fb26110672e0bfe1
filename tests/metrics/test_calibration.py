"""Calibration against statsmodels, scikit-learn and brute force."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special, stats
from sklearn.calibration import calibration_curve

from bldml.metrics import calibration
from bldml.metrics.estimates import Estimate


def drawn(
    seed: int, n: int = 200, slope: float = 1.0, shift: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels drawn by logit = slope * logit(probability) + shift."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, n)
    labels = (rng.random(n) < special.expit(slope * logits + shift)).astype(np.int64)
    return labels, special.expit(logits)


def standard_error(coefficient: Estimate) -> float:
    assert coefficient.numbers is not None
    low, value, high = coefficient.numbers
    assert value == pytest.approx((low + high) / 2)
    return float((high - low) / 2 / stats.norm.ppf(0.975))


@pytest.mark.parametrize("seed", range(5))
def test_slope_and_intercept_are_those_of_a_general_optimiser(seed: int) -> None:
    labels, probabilities = drawn(seed, slope=0.6, shift=0.4)
    logits = special.logit(probabilities)

    def loss(beta: NDArray[np.float64]) -> float:
        linear = beta[0] * logits + beta[1]
        return float(np.sum(np.logaddexp(0, np.where(labels == 1, -linear, linear))))

    expected = optimize.minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    slope, intercept = calibration.calibration_line(labels, probabilities)
    assert slope.value == pytest.approx(expected.x[0], abs=1e-5)
    at_large = optimize.brentq(lambda shift: float(np.sum(special.expit(logits + shift) - labels)), -10, 10)
    assert intercept.value == pytest.approx(at_large, abs=1e-9)
    mean = special.expit(logits + at_large)
    assert standard_error(intercept) == pytest.approx(1 / np.sqrt(np.sum(mean * (1 - mean))), rel=1e-6)


def test_slope_and_standard_error_are_those_of_statsmodels() -> None:
    statsmodels = pytest.importorskip("statsmodels.api")
    labels, probabilities = drawn(9, slope=1.4)
    design = np.column_stack([special.logit(probabilities), np.ones(len(labels))])
    fitted = statsmodels.Logit(labels, design).fit(disp=0)
    slope, _ = calibration.calibration_line(labels, probabilities)
    assert slope.value == pytest.approx(fitted.params[0], abs=1e-6)
    assert standard_error(slope) == pytest.approx(fitted.bse[0], rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([1, 1, 1], [0.2, 0.5, 0.9]),
        ([0, 1, 0], [0.5, 0.5, 0.5]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9]),
        ([1, 1, 0], [0.1, 0.2, 0.8]),
        ([1], [0.5]),
        ([], []),
    ],
)
def test_line_that_the_data_do_not_determine(labels: list[int], probabilities: list[float]) -> None:
    for coefficient in calibration.calibration_line(labels, probabilities):
        assert (coefficient.value, coefficient.interval) == (None, None)
        assert coefficient.note.startswith("not estimable")


def test_probabilities_of_0_and_1_are_no_obstacle() -> None:
    labels, probabilities = drawn(3)
    slope, _ = calibration.calibration_line([*labels, 1, 0], [*probabilities, 1.0, 0.0])
    assert slope.value is not None
    assert np.isfinite(slope.value)


def test_bins_are_those_of_scikit_learn() -> None:
    labels, probabilities = drawn(4)
    shares, means = calibration_curve(labels, probabilities, n_bins=calibration.BINS)
    found = calibration.reliability(labels, probabilities)
    assert [b.mean for b in found] == pytest.approx(means)
    assert [b.n_positive / b.n for b in found] == pytest.approx(shares)
    assert sum(b.n for b in found) == len(labels)
    weights = np.array([b.n for b in found]) / len(labels)
    expected = float(np.sum(weights * np.abs(shares - means)))
    assert calibration.calibration_error(labels, probabilities) == pytest.approx(expected)


def test_a_perfect_model_of_116_photographs_shows_an_error_too() -> None:
    # Published for such a size: about .08 for probabilities all over the range.
    probabilities = np.random.default_rng(7).random(116)
    found = calibration.expected_calibration_error(probabilities)
    assert found is not None
    assert 0.06 < found < 0.10
    many = calibration.expected_calibration_error(np.random.default_rng(7).random(10_000), replicates=100)
    assert many is not None
    assert 0.008 < many < 0.012


def test_one_photograph_and_none() -> None:
    assert calibration.calibration_error([1], [0.75]) == 0.25
    assert calibration.calibration_error([], []) is None
    assert calibration.expected_calibration_error([]) is None
    assert calibration.reliability([], []) == []
