"""Temperature and threshold against scikit-learn, SciPy or brute force."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from bldml.metrics.operating_point import (
    OperatingPoint,
    ThresholdCriterion,
    assurance_of,
    choose_operating_point,
    choose_threshold,
    fit_temperature,
    temperature_interval,
    to_probabilities,
)
from bldml.metrics.proportions import Assurance, assurances, design_effect
from tests.oracles import KINDS, draw
from tests.support import mistake

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


@pytest.fixture(params=KINDS)
def samples(request: pytest.FixtureRequest) -> list[tuple[Labels, Floats]]:
    return [draw(request.param, seed) for seed in range(25)]


def f1_at(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> float:
    predicted = np.asarray(probabilities) >= threshold
    return float(2 * np.sum(predicted & (np.asarray(labels) == 1)) / (np.sum(predicted) + np.sum(labels)))


def overlapping(seed: int, scale: float) -> tuple[Floats, Labels]:
    """Logits that are `scale` times the true ones, and labels drawn with the true probabilities."""
    rng = np.random.default_rng(seed)
    true_logits = rng.normal(0, 2, 300)
    return scale * true_logits, (rng.random(300) < special.expit(true_logits)).astype(np.int64)


def negative_log_likelihood(logits: Floats, labels: Labels, temperature: float) -> float:
    return float(np.mean(np.logaddexp(0, np.where(labels == 1, -logits, logits) / temperature)))


# Temperature


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_are_the_sigmoid_in_float64(temperature: float, dtype: type) -> None:
    logits = np.r_[np.linspace(-50, 50, 401), -0.0, 1e-30, -800.0, 800.0].astype(dtype)
    found = to_probabilities(logits, temperature)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, special.expit(logits.astype(np.float64) / temperature), rtol=1e-14)
    assert to_probabilities([-1e308, 1e308]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_impossible_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be"):
        to_probabilities([0.0], temperature)


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.0, 2.0, 6.0])
@pytest.mark.parametrize("seed", range(8))
def test_temperature_agrees_with_scipy(seed: int, scale: float) -> None:
    logits, labels = overlapping(seed, scale)
    expected = optimize.minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, labels, np.exp(log_t)),
        bounds=np.log([0.25, 10]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    gain = 2 * labels.size * (negative_log_likelihood(logits, labels, 1.0) - expected.fun)
    found = fit_temperature(logits, labels)
    if stats.chi2.sf(gain, 1) >= 0.05:  # the data do not tell it from 1
        assert scale in (0.7, 1.0)
        assert found is None
        return
    assert found is not None
    assert found == pytest.approx(np.exp(expected.x), rel=1e-5)
    assert negative_log_likelihood(logits, labels, found) <= expected.fun + 1e-15
    assert found == fit_temperature(logits, labels)


@pytest.mark.parametrize(("scale", "bound"), [(0.05, 0.25), (60.0, 10.0), (-1.0, 10.0), (1e6, 10.0)])
def test_temperature_stays_within_its_range(scale: float, bound: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        assert fit_temperature(*overlapping(0, scale)) == bound


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([], []),
        ([1.5], [1]),
        ([0.5, -2.0, 3.0], [0, 0, 0]),
        ([0.5, -2.0, 3.0], [1, 1, 1]),
        ([-1.0, -2.0, 0.5, 3.0], [0, 0, 1, 1]),
        ([2.0, 2.5, 2.6, 3.0], [0, 0, 1, 1]),  # by a threshold other than 0
        ([-1.0, -2.0, 0.5, 3.0], [1, 1, 0, 0]),  # the wrong way round
        ([0.0, 0.0, 0.0], [0, 1, 1]),
    ],
)
def test_temperature_that_the_data_do_not_determine(logits: ArrayLike, labels: ArrayLike) -> None:
    assert fit_temperature(logits, labels) is None


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.15, 2.0])
def test_temperature_interval_is_the_profile_likelihood_interval(scale: float) -> None:
    for seed in range(5):
        logits, labels = overlapping(seed, scale)
        found = temperature_interval(logits, labels)
        assert found is not None
        best = optimize.minimize_scalar(
            lambda t, logits, labels: negative_log_likelihood(logits, labels, t),
            bounds=(0.25, 10),
            args=(logits, labels),
            method="bounded",
        )
        assert found.low < best.x < found.high
        for limit in (found.low, found.high):
            lost = 2 * labels.size * (negative_log_likelihood(logits, labels, limit) - best.fun)
            assert lost == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-4) or limit in (0.25, 10.0)
        # It says the same as the fit, which keeps 1 where the data do not tell another temperature from it.
        assert (found.low <= 1 <= found.high) == (fit_temperature(logits, labels) is None)


def test_temperature_interval_covers_the_true_temperature() -> None:
    generator, n = np.random.default_rng(0), 116
    covered: list[bool] = []
    while len(covered) < 400:
        true = generator.normal(0, 2, n)
        found = temperature_interval(2 * true, (generator.random(n) < special.expit(true)).astype(int))
        if found is not None:  # the classes overlap
            covered.append(found.low <= 2 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_one_tie_between_the_classes_is_not_separation() -> None:
    assert fit_temperature([-4.0, 2.0, 2.0, 12.0] * 9, [0, 0, 1, 1] * 9) is not None


# Threshold


def test_threshold_is_the_middle_of_the_best_interval_nearest_one_half(samples: list[tuple[Labels, Floats]]) -> None:
    for labels, probabilities in samples:
        scores = sorted(set(probabilities.tolist()))
        f1 = [f1_at(labels, probabilities, score) for score in scores]
        middles = []
        for lower, upper, f1_here in zip([0.0, *scores], scores, f1, strict=False):
            if f1_here == max(f1):
                middle = (lower + upper) / 2
                middles.append(middle if middle > lower else upper)
        threshold = choose_threshold(labels, probabilities)
        assert threshold == min(middles, key=lambda middle: (abs(middle - 0.5), middle))
        assert f1_at(labels, probabilities, threshold) == max(f1)


def test_threshold_between_scores_one_rounding_step_apart() -> None:
    # The middle of 1 - 2**-53 and 1 rounds to even, that is to 1; of the two scores below that, down.
    for upper in (1.0, 1 - 2**-53, 1 - 2**-52, 5e-324):
        lower = float(np.nextafter(upper, 0))
        assert lower < choose_threshold([0, 1], [lower, upper]) <= upper


def test_equally_good_thresholds() -> None:
    # F1 is 2/3 for a threshold in (0.2, 0.9] and, with everything predicted positive, also 2/3 in [0, 0.05].
    labels, probabilities = [1, 0, 0, 1], [0.9, 0.2, 0.1, 0.05]
    assert f1_at(labels, probabilities, 0.05) == pytest.approx(2 / 3)
    assert choose_threshold(labels, probabilities) == pytest.approx(0.55)
    # Mirrored about 0.5: (0.5, 1.0] and [0, 0.5] are equally close, the lower one is taken.
    assert choose_threshold([1, 0, 0, 1], [1.0, 0.5, 0.5, 0.5]) == 0.25


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0], [1, 1]])
def test_threshold_without_a_choice(labels: list[int]) -> None:
    assert choose_threshold(labels, np.linspace(0.1, 0.2, len(labels))) == 0.5
    assert choose_threshold(labels, np.linspace(0.1, 0.2, len(labels)), ThresholdCriterion(threshold=0.3)) == 0.3


def rank(
    criterion: ThresholdCriterion, labels: ArrayLike, probabilities: ArrayLike, threshold: float
) -> tuple[float, float]:
    """The rank of a threshold under a criterion, by counting."""
    predicted = np.asarray(probabilities) >= threshold
    sensitivity, specificity = float(predicted[labels == 1].mean()), float((~predicted[labels == 0]).mean())
    if criterion.sensitivity is not None:
        return (round(specificity, 12) if sensitivity >= criterion.sensitivity else -1.0, round(sensitivity, 12))
    if criterion.specificity is not None:
        return (round(sensitivity, 12) if specificity >= criterion.specificity else -1.0, round(specificity, 12))
    return (round(sensitivity + specificity - 1, 12), 0.0)


@pytest.mark.parametrize(
    "criterion",
    [
        ThresholdCriterion(maximize="youden"),
        ThresholdCriterion(sensitivity=0.8),
        ThresholdCriterion(sensitivity=1.0),
        ThresholdCriterion(specificity=0.9),
        ThresholdCriterion(specificity=1.0),
    ],
    ids=str,
)
def test_threshold_meets_the_criterion_as_well_as_any(
    criterion: ThresholdCriterion, samples: list[tuple[Labels, Floats]]
) -> None:
    for labels, probabilities in samples:
        threshold = choose_threshold(labels, probabilities, criterion)
        assert 0 <= threshold <= 1
        others = np.unique([0.0, *probabilities, *(np.unique(probabilities)[1:] + np.unique(probabilities)[:-1]) / 2])
        if probabilities.max() < 1:
            others = np.append(others, 1.0)  # predicts no photograph positive
        best = max(rank(criterion, labels, probabilities, other) for other in others)
        assert rank(criterion, labels, probabilities, threshold) == best


# Assurance


@pytest.mark.parametrize("n", [20, 45, 100, 300])
@pytest.mark.parametrize("least", [0.8, 0.9, 0.95])
def test_assurance_is_the_binomial_probability_of_more_errors(n: int, least: float) -> None:
    """A rate below the minimum would cause more errors than permitted with at least this probability."""
    expected = 1 - stats.binom.cdf(np.arange(n), n, 1 - least)
    assert assurances(n, np.arange(n), least, 1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("least", "assurance"), [(0.95, 0.9), (0.9, 0.95), (0.8, 0.5)])
def test_photographs_needed_are_the_fewest_that_reach_it(least: float, assurance: float) -> None:
    needed = Assurance(least, 5, 1.0).needed(assurance)
    assert 1 - least**needed >= assurance > 1 - least ** (needed - 1)
    assert Assurance(least, 5, 4.0).needed(assurance) == pytest.approx(4 * needed, abs=4)


@pytest.mark.parametrize("effect", [1.0, 3.0])
@pytest.mark.parametrize("minimum", ["sensitivity", "specificity"])
def test_threshold_with_an_assurance_misses_no_more_than_permitted(minimum: str, effect: float) -> None:
    which = 0 if minimum == "sensitivity" else 1
    for seed in range(20):
        labels, probabilities = draw("informed", seed)
        criterion = ThresholdCriterion(**{minimum: 0.6}, assurance=0.8)  # type: ignore[arg-type]
        limits = [0.0, *np.unique(probabilities), *([] if probabilities.max() == 1 else [1.0])]
        wrong = [(probabilities >= limit) != (labels == 1) for limit in limits]
        errors = [(int(one[labels == 1].sum()), int(one[labels == 0].sum())) for one in wrong]
        n = int(np.sum(labels == 1 - which))
        permitted = max(int(np.sum(assurances(n, np.arange(n), 0.6, effect) >= 0.8)) - 1, 0)

        chosen = (probabilities >= choose_threshold(labels, probabilities, criterion, effect)) != (labels == 1)
        found = int(chosen[labels == 1].sum()), int(chosen[labels == 0].sum())
        assert found[which] <= permitted
        assert found[1 - which] == min(one[1 - which] for one in errors if one[which] <= permitted)


def test_assurance_of_photographs_in_units() -> None:
    """With one unit of all photographs there are as good as two; without units it is that of a binomial."""
    criterion = ThresholdCriterion(sensitivity=0.9, assurance=0.9)
    alone = assurance_of(criterion, np.ones(45), np.arange(45))
    assert alone is not None
    assert (alone.design_effect, alone.permitted, alone.missed) == (1.0, 1, 0)
    assert alone.reached == pytest.approx(1 - stats.binom.cdf(1, 45, 0.1))
    together = assurance_of(criterion, np.ones(45), np.zeros(45, dtype=int))
    assert together is not None
    assert together.design_effect == 23
    assert (together.permitted, together.missed) == (0, 0)
    assert together.reached == pytest.approx(1 - 0.9 ** (45 / 23))
    assert design_effect(np.array([0, 0, 1, 2])) == pytest.approx(1 + 0.5 * (6 / 4 - 1))
    assert assurance_of(ThresholdCriterion(maximize="youden"), np.ones(3), np.arange(3)) is None
    assert assurance_of(criterion, np.ones(0), np.arange(0)) is None


@pytest.mark.parametrize(("groups", "icc"), [(0, 0.0), (30, 0.5), (30, 0.8)])
def test_minimum_is_missed_no_more_often_than_the_assurance_permits(groups: int, icc: float) -> None:
    """The true sensitivity of a threshold is known where scores are normal."""
    generator, missed = np.random.default_rng(3), []
    units = np.arange(240) // 8 if groups else np.arange(45)
    criterion = ThresholdCriterion(sensitivity=0.9, assurance=0.9)
    labels = np.repeat([1, 0], units.size)
    for _ in range(300):
        scores = np.concatenate(
            [
                math.sqrt(icc) * generator.normal(size=units.max() + 1)[units]
                + math.sqrt(1 - icc) * generator.normal(size=units.size)
                + shift
                for shift in (1.5, 0)
            ]
        )
        threshold = choose_threshold(labels, special.expit(scores), criterion, design_effect(units))
        missed.append(stats.norm.cdf(1.5 - special.logit(threshold)) < 0.9)
    assert np.mean(missed) <= 0.12


def test_criterion_reached_by_nineteen_of_twenty() -> None:
    probabilities = np.r_[np.linspace(0.1, 0.3, 5), 0.2, np.linspace(0.5, 0.9, 19)]
    labels = np.r_[np.zeros(5), np.ones(20)].astype(int)
    assert choose_threshold(labels, probabilities, ThresholdCriterion(sensitivity=0.95)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("wrong", "code", "fields"),
    [
        ({"maximize": "f1", "sensitivity": 0.9}, "criterion-ambiguous", {"found": ["maximize", "sensitivity"]}),
        ({"sensitivity": 0.0}, "criterion-out-of-range", {"key": "sensitivity", "found": 0.0, "expected": "(0, 1]"}),
        ({"specificity": 1.5}, "criterion-out-of-range", {"key": "specificity", "found": 1.5}),
        ({"threshold": -0.1}, "criterion-out-of-range", {"key": "threshold", "expected": "[0, 1]"}),
        ({"threshold": math.nan}, "criterion-out-of-range", {"key": "threshold"}),
        ({"band_error": 0.0}, "band-error-out-of-range", {"found": 0.0, "expected": "(0, 0.5)"}),
        ({"band_error": 0.5, "sensitivity": 0.9}, "band-error-out-of-range", {"found": 0.5}),
        ({"band_error": float("nan")}, "band-error-out-of-range", {}),
        ({"assurance": 0.9}, "assurance-without-minimum", {"found": []}),
        ({"assurance": 0.9, "maximize": "f1"}, "assurance-without-minimum", {"found": ["maximize"]}),
        ({"assurance": 0.9, "threshold": 0.5}, "assurance-without-minimum", {"found": ["threshold"]}),
        ({"assurance": 1.0, "sensitivity": 0.9}, "criterion-out-of-range", {"key": "assurance", "expected": "(0, 1)"}),
        ({"assurance": 0.0, "specificity": 0.9}, "criterion-out-of-range", {"key": "assurance", "found": 0.0}),
        ({"assurance": 0.9, "sensitivity": 1.0}, "criterion-out-of-range", {"key": "sensitivity", "found": 1.0}),
    ],
)
def test_impossible_criteria_are_refused(wrong: dict[str, Any], code: str, fields: dict[str, Any]) -> None:
    with mistake(code, **fields):
        ThresholdCriterion(**wrong)
    assert ThresholdCriterion(threshold=0.0).threshold == 0


# Both


@pytest.mark.parametrize("seed", range(8))
def test_threshold_belongs_to_the_calibrated_probabilities(seed: int) -> None:
    logits, labels = overlapping(seed, 4.0)
    point = choose_operating_point(logits, labels)
    assert point.temperature == fit_temperature(logits, labels)
    assert point.temperature > 2
    calibrated = special.expit(logits / point.temperature)
    best = max(f1_at(labels, calibrated, score) for score in calibrated)
    assert f1_at(labels, calibrated, point.threshold) == best
    assert point.threshold == pytest.approx(choose_threshold(labels, calibrated), rel=1e-12)


def test_operating_point_of_a_perfect_validation() -> None:
    point = choose_operating_point([-3.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert point == OperatingPoint(threshold=0.5, temperature=1.0)


@pytest.mark.parametrize("function", [fit_temperature, choose_operating_point])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0, math.nan], [0, 1], "logits must be finite, 1 of 2"),
        ([1.0, -math.inf], [0, 1], "logits must be finite, 1 of 2"),
        ([1.0, 2.0], [0, 1, 1], r"same shape, found \(3,\) and \(2,\)"),
        ([1.0, 2.0], [0, 3], r"found \[0, 3\]"),
    ],
)
def test_wrong_logits_are_named(
    function: Callable[[Any, Any], object], logits: ArrayLike, labels: ArrayLike, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(logits, labels)


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("weight", [0.25, 1.0, 19.0])
@pytest.mark.parametrize("scale", [0.6, 1.0, 2.0], ids=["underconfident", "right", "overconfident"])
@pytest.mark.parametrize("precision", ["float64", "float32", "float16"])
@pytest.mark.parametrize("criterion", [{}, {"sensitivity": 0.95}, {"maximize": "youden"}, {"threshold": 0.3}], ids=str)
def test_probabilities_of_a_weighted_loss_have_the_true_prevalence(
    prevalence: float, weight: float, scale: float, precision: str, criterion: dict[str, Any]
) -> None:
    """A loss that weights positives by w teaches odds that are w times the true ones."""
    generator = np.random.default_rng(5)
    labels = (generator.random(20_000) < prevalence).astype(int)
    true = 2.5 * generator.normal(2.5 * labels, 1) - 2.5**2 / 2 + math.log(prevalence / (1 - prevalence))
    logits = (scale * true + math.log(weight)).astype(precision)
    point = choose_operating_point(logits, labels, ThresholdCriterion(**criterion), math.log(weight))
    probabilities = point.probabilities(logits)
    assert probabilities.mean() == pytest.approx(labels.mean(), abs=0.006)
    assert point.temperature == pytest.approx(scale, rel=0.08)
    assert point.offset == math.log(weight)
    unweighted = choose_operating_point(logits - math.log(weight), labels, ThresholdCriterion(**criterion))
    if precision == "float64":
        assert unweighted.threshold == pytest.approx(point.threshold)
