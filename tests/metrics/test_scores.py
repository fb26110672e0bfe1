"""Formulas, calibration and the evaluation against scikit-learn, SciPy, statsmodels and brute force."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import statsmodels.api as statsmodels
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from sklearn.calibration import calibration_curve

from bldml.metrics import scores
from bldml.metrics.assessment import evaluate
from bldml.metrics.checked import SamplingUnit
from bldml.metrics.estimates import Estimate
from bldml.metrics.metric import Scored
from bldml.metrics.operating_point import OperatingPoint, choose_threshold
from bldml.metrics.proportions import proportion_by_unit
from bldml.metrics.registry import METRICS, shown_in
from tests.oracles import KINDS, draw

HALF = OperatingPoint(threshold=0.5, temperature=1.0)


# Evaluation


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_does_not_depend_on_the_order(kind: str) -> None:
    for seed in range(25):
        labels, probabilities = draw(kind, seed)
        found, backwards = evaluate(labels, probabilities, HALF), evaluate(labels[::-1], probabilities[::-1], HALF)
        assert backwards.overall == pytest.approx(found.overall)
        assert replace(backwards, overall=found.overall) == found


def test_no_photographs() -> None:
    empty = evaluate([], [], HALF)
    assert {empty.at_half.pop(count) for count in ("tp", "fp", "fn", "tn")} == {0}
    assert set(empty.at_half.values()) | set(empty.overall.values()) == {None}
    assert scores.expected_calibration_error([]) is None
    assert scores.reliability([], []) == []


def test_evaluation_is_what_metrics_json_holds() -> None:
    labels, probabilities = draw("tied", 3)
    units = [SamplingUnit("burst", str(number // 2)) for number in range(len(labels))]
    point = OperatingPoint(threshold=0.4, temperature=1.5)
    found = evaluate(labels, probabilities, point, units).to_plain()
    limits = found.pop("intervals")
    assert evaluate(labels, probabilities, point).to_plain() == found
    names = [metric.name for metric in shown_in("evaluation")]
    overall = [name for name in names if not METRICS[name].needs_threshold]
    at = [name for name in names if METRICS[name].needs_threshold]
    shared = ["schema", "n", "n_positive", "threshold", "temperature"]
    assert list(found) == [*shared, *overall, "loss_uncalibrated", "at_threshold", "at_0.5"]
    assert [found[key] for key in shared] == [2, len(labels), labels.sum(), 0.4, 1.5]
    for name in overall:
        assert found[name] == METRICS[name].value(Scored(labels, probabilities))
    for key, threshold in (("at_threshold", 0.4), ("at_0.5", 0.5)):
        assert list(found[key]) == ["tp", "fp", "fn", "tn", *at]
        sample = Scored(labels, probabilities, threshold)
        assert found[key] == sample.counts | {name: METRICS[name].value(sample) for name in at}
        assert [*limits[key]] == at
        accuracy = METRICS["accuracy"].estimate(Scored(labels, probabilities, threshold, units)).interval
        assert accuracy is not None
        assert limits[key]["accuracy"] == {**vars(accuracy), "unit": "burst"}
    assert [*limits] == [*overall, "at_threshold", "at_0.5"]
    assert limits["ece"]["low"] is None
    assert limits["ece"]["method"].startswith("no interval")
    assert found["at_threshold"] != found["at_0.5"]


def test_every_number_is_plain_python() -> None:
    point = OperatingPoint(threshold=np.float64(0.4), temperature=np.float64(1.0))
    found = evaluate(*draw("informed", 0), point).to_plain()
    numbers = [value for value in found.values() if not isinstance(value, dict)]
    numbers += [*found["at_threshold"].values(), *found["at_0.5"].values()]
    assert {type(number) for number in numbers} == {int, float}


# Wrong input


@pytest.mark.parametrize(
    "function",
    [
        *(choose_threshold, scores.auroc, scores.average_precision, scores.log_loss, scores.calibration_line),
        *(Scored.checked, lambda labels, probabilities: evaluate(labels, probabilities, HALF)),
    ],
)
@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.5], r"same shape, found \(2,\) and \(1,\)"),
        ([0], [[0.5]], r"shape \(n,\), found \(1, 1\)"),
        ([0, 2], [0.5, 0.5], r"0 or 1, found \[0, 2\]"),
        ([0.5, 1], [0.5, 0.5], r"0 or 1, found \[0.5, 1.0\]"),
        (["a", "b"], [0.5, 0.5], "0 or 1, found"),
        ([0, 1], [0.5, math.nan], "finite, 1 of 2 are not"),
        ([0, 1], [0.5, math.inf], "finite, 1 of 2 are not"),
        ([0, 1], [0.5, 1.5], "found 0.5 to 1.5"),
        ([0, 1], [-0.5, 0.5], "found -0.5 to 0.5"),
    ],
)
def test_wrong_input_is_named(
    function: Callable[[Any, Any], object], labels: ArrayLike, probabilities: ArrayLike, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(labels, probabilities)


def test_wrong_threshold_is_named() -> None:
    with pytest.raises(ValueError, match="threshold must be a finite number, found nan"):
        Scored.checked([1], [0.5], math.nan)


# Calibration


def drawn(
    seed: int, n: int = 200, slope: float = 1.0, shift: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels drawn by logit = slope * logit(probability) + shift."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, n)
    labels = (rng.random(n) < special.expit(slope * logits + shift)).astype(np.int64)
    return labels, special.expit(logits)


def standard_error(coefficient: Estimate, n_units: int) -> float:
    assert coefficient.numbers is not None
    low, value, high = coefficient.numbers
    assert value == pytest.approx((low + high) / 2)
    return float((high - low) / 2 / stats.t.ppf(0.975, n_units - 1))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2])
def test_slope_and_intercept_are_those_of_statsmodels(seed: int, size: int) -> None:
    labels, probabilities = drawn(seed, slope=0.6, shift=0.4)
    units = np.arange(200) % (200 // size)
    logits, n_units = special.logit(probabilities), 200 // size
    slope, intercept = scores.calibration_line(labels, probabilities, units)
    # Its factor k / (k - 1) * (n - 1) / (n - p) has a second part, which is taken out.
    clustered = {"cov_type": "cluster", "cov_kwds": {"groups": units}}
    design, family = np.column_stack([logits, np.ones(200)]), statsmodels.families.Binomial()
    for coefficient, fitted in (
        (slope, statsmodels.GLM(labels, design, family).fit(tol=1e-12, **clustered)),
        (intercept, statsmodels.GLM(labels, np.ones(200), family, offset=logits).fit(tol=1e-12, **clustered)),
    ):
        assert coefficient.value == pytest.approx(fitted.params[0], abs=1e-6)
        factor = 199 / (200 - len(fitted.params))
        assert standard_error(coefficient, n_units) == pytest.approx(fitted.bse[0] / factor**0.5, rel=1e-5)


def test_slope_of_few_units_has_no_interval() -> None:
    labels, probabilities = drawn(2)
    slope, intercept = scores.calibration_line(labels, probabilities, np.arange(200) % 99)
    assert slope.value == scores.calibration_line(labels, probabilities)[0].value
    assert (slope.interval, slope.note) == (None, "no interval: not reliable with only 99 units")
    assert intercept.interval is not None


def test_interval_of_the_intercept_covers_by_unit() -> None:
    covered = np.zeros(2)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        units = np.repeat(np.arange(20), 8)
        logits = 2 * rng.normal(size=160)
        # Correlated within units, and calibrated: the same uniform number decides in half of the photographs.
        number = np.where(rng.random(160) < 0.5, np.repeat(rng.random(20), 8), rng.random(160))
        labels = (number < special.expit(logits)).astype(int)
        for kind, given in enumerate((units, None)):
            found = scores.calibration_line(labels, special.expit(logits), given)[1].numbers
            covered[kind] += found is not None and found[0] <= 0 <= found[2]
    assert covered[0] / 150 >= 0.92
    assert covered[1] < covered[0]


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
    for coefficient in scores.calibration_line(labels, probabilities):
        assert (coefficient.value, coefficient.interval) == (None, None)
        assert coefficient.note.startswith("not estimable")


def test_probabilities_of_0_and_1_have_a_slope_and_no_intercept() -> None:
    labels, probabilities = drawn(3)
    slope, intercept = scores.calibration_line([*labels, 1, 0], [*probabilities, 1.0, 0.0])
    assert slope.value is not None
    assert np.isfinite(slope.value)
    assert (intercept.value, intercept.note) == (None, "not estimable: a probability is exactly 0 or 1")


@pytest.mark.parametrize("size", [1, 4])
def test_bins_are_those_of_scikit_learn(size: int) -> None:
    labels, probabilities = drawn(4)
    units = np.arange(200) // size
    fractions, means = calibration_curve(labels, probabilities, n_bins=scores.BINS, strategy="quantile")
    found = scores.reliability(labels, probabilities, units)
    assert [b.n for b in found] == [20] * 10
    assert [b.mean for b in found] == pytest.approx(means)
    assert [b.fraction.value for b in found] == pytest.approx(fractions)
    order = np.argsort(probabilities)[40:60]
    assert found[2].fraction == proportion_by_unit(labels[order], units[order])


def test_equal_probabilities_are_in_one_bin() -> None:
    found = scores.reliability([0, 1] * 20, np.repeat([0.1, 0.5, 0.5, 0.9], 10))
    assert [(b.n, b.mean) for b in found] == [(10, 0.1), (20, 0.5), (10, pytest.approx(0.9))]


def test_a_perfect_model_of_116_photographs_shows_an_error_too() -> None:
    # Published for such a size: about .08 for probabilities all over the range.
    generator = np.random.default_rng(7)
    few = scores.expected_calibration_error(generator.random(116))
    many = scores.expected_calibration_error(generator.random(10_000), replicates=100)
    assert few is not None
    assert many is not None
    assert 0.06 < few < 0.10
    assert 0.008 < many < 0.012


def test_net_benefit_again_by_counting() -> None:
    """Probabilities in steps, so that many equal a threshold."""
    generator = np.random.default_rng(3)
    labels, probabilities = generator.integers(0, 2, 200), generator.integers(0, 21, 200) / 20
    thresholds = np.arange(20) / 20
    found = scores.net_benefit(labels, probabilities, thresholds)
    assert found is not None
    for t, benefit in zip(thresholds, found, strict=True):
        hits = sum(1 for y, p in zip(labels, probabilities, strict=True) if p >= t and y)
        alarms = sum(1 for y, p in zip(labels, probabilities, strict=True) if p >= t and not y)
        assert benefit == pytest.approx(hits / 200 - alarms / 200 * t / (1 - t))
    assert found[0] == pytest.approx(labels.mean()), "at 0 all are treated, at no cost"
    assert scores.net_benefit([], [], [0.5]) is None
