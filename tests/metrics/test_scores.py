"""Operating point, formulas and the evaluation against scikit-learn, SciPy or brute force."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from sklearn import metrics as sklearn_metrics

from bldml.errors import ConfigError
from bldml.metrics import operating_point
from bldml.metrics import scores as evaluation
from bldml.metrics.assessment import evaluate
from bldml.metrics.metric import Scored
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.registry import METRICS, shown_in

Labelled = tuple[NDArray[np.int64], NDArray[np.float64]]
Samples = list[Labelled]
KINDS = ("continuous", "tied", "constant", "separated", "reversed", "extreme", "neighbours")


def draw(kind: str, seed: int) -> Labelled:
    """Labels of both classes and probabilities of one kind."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    n = int(rng.integers(2, 60))
    labels = rng.permutation(np.r_[0, 1, rng.random(n - 2) < rng.uniform(0.05, 0.95)]).astype(np.int64)
    informed = np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1)
    probabilities = {
        "continuous": informed,
        "tied": informed.round(1),
        "constant": np.full(n, rng.random()),
        "separated": 0.5 * labels + 0.49 * rng.random(n),
        "reversed": 1 - (0.5 * labels + 0.49 * rng.random(n)),
        "extreme": rng.choice([0.0, 5e-324, 1e-300, 0.5, 1 - 2**-53, 1.0], n),
        "neighbours": np.ldexp(2**52 + rng.integers(0, 6, n), -53),  # one rounding step apart, from 0.5 up
    }[kind]
    return labels, probabilities


@pytest.fixture(params=KINDS)
def samples(request: pytest.FixtureRequest) -> Samples:
    return [draw(request.param, seed) for seed in range(25)]


def f1_at(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> float:
    called = np.asarray(probabilities) >= threshold
    return float(2 * np.sum(called & (np.asarray(labels) == 1)) / (np.sum(called) + np.sum(labels)))


def overlapping(seed: int, scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that are `scale` times the true ones, and labels drawn with the true probabilities."""
    rng = np.random.default_rng(seed)
    true_logits = rng.normal(0, 2, 300)
    return scale * true_logits, (rng.random(300) < special.expit(true_logits)).astype(np.int64)


def negative_log_likelihood(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    return float(np.mean(np.logaddexp(0, np.where(labels == 1, -logits, logits) / temperature)))


# Probabilities


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.7])
def test_probabilities_are_the_sigmoid(temperature: float) -> None:
    logits = np.r_[np.linspace(-50, 50, 401), -0.0, 1e-300]
    found = operating_point.to_probabilities(logits, temperature)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, special.expit(logits / temperature), rtol=1e-14)


@pytest.mark.filterwarnings("error")
def test_probabilities_do_not_overflow() -> None:
    logits = np.array([-1e308, -800.0, 800.0, 1e308], dtype=np.float64)
    assert operating_point.to_probabilities(logits).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_float32_logits_are_computed_in_float64() -> None:
    logits = np.array([0.1, 5.0], dtype=np.float32)
    found = operating_point.to_probabilities(logits, 3.0)
    np.testing.assert_allclose(found, special.expit(logits.astype(np.float64) / 3.0), rtol=1e-15)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_impossible_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be"):
        operating_point.to_probabilities([0.0], temperature)


# Temperature


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
    found = operating_point.fit_temperature(logits, labels)
    assert found is not None
    assert found == pytest.approx(np.exp(expected.x), rel=1e-5)
    assert negative_log_likelihood(logits, labels, found) <= expected.fun + 1e-15
    assert found == operating_point.fit_temperature(logits, labels)


@pytest.mark.parametrize(("scale", "bound"), [(0.05, 0.25), (60.0, 10.0), (-1.0, 10.0)])
def test_temperature_stays_within_its_range(scale: float, bound: float) -> None:
    assert operating_point.fit_temperature(*overlapping(0, scale)) == bound


def test_temperature_of_huge_logits() -> None:
    logits, labels = overlapping(1, 1.0)
    with np.errstate(all="raise", under="ignore"):
        assert operating_point.fit_temperature(1e6 * logits, labels) == 10.0


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
    assert operating_point.fit_temperature(logits, labels) is None


def test_one_tie_between_the_classes_is_not_separation() -> None:
    assert operating_point.fit_temperature([-1.0, 0.5, 0.5, 3.0], [0, 0, 1, 1]) is not None


# Threshold


def test_threshold_has_the_best_f1(samples: Samples) -> None:
    for labels, probabilities in samples:
        threshold = operating_point.choose_threshold(labels, probabilities)
        assert 0 <= threshold <= 1
        best = max(f1_at(labels, probabilities, score) for score in probabilities)
        assert f1_at(labels, probabilities, threshold) == best


def test_threshold_is_the_middle_of_the_best_interval_nearest_one_half(samples: Samples) -> None:
    for labels, probabilities in samples:
        scores = sorted(set(probabilities.tolist()))
        f1 = [f1_at(labels, probabilities, score) for score in scores]
        middles = []
        for lower, upper, f1_here in zip([0.0, *scores], scores, f1, strict=False):
            if f1_here == max(f1):
                middle = (lower + upper) / 2
                middles.append(middle if middle > lower else upper)
        expected = min(middles, key=lambda middle: (abs(middle - 0.5), middle))
        assert operating_point.choose_threshold(labels, probabilities) == expected


def test_threshold_between_scores_one_rounding_step_apart() -> None:
    # The middle of 1 - 2**-53 and 1 rounds to even, that is to 1; of the two scores below that, down.
    for upper in (1.0, 1 - 2**-53, 1 - 2**-52, 5e-324):
        lower = float(np.nextafter(upper, 0))
        threshold = operating_point.choose_threshold([0, 1], [lower, upper])
        assert lower < threshold <= upper


def test_equally_good_thresholds() -> None:
    # F1 is 2/3 for a threshold in (0.2, 0.9] and, with everything called, also 2/3 in [0, 0.05].
    labels, probabilities = [1, 0, 0, 1], [0.9, 0.2, 0.1, 0.05]
    assert f1_at(labels, probabilities, 0.05) == pytest.approx(2 / 3)
    assert operating_point.choose_threshold(labels, probabilities) == pytest.approx(0.55)
    # Mirrored about 0.5: (0.5, 1.0] and [0, 0.5] are equally close, the lower one is taken.
    assert operating_point.choose_threshold([1, 0, 0, 1], [1.0, 0.5, 0.5, 0.5]) == 0.25


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0], [1, 1]])
def test_threshold_without_a_choice(labels: list[int]) -> None:
    assert operating_point.choose_threshold(labels, np.linspace(0.1, 0.2, len(labels))) == 0.5


# Scores


def reached(
    criterion: operating_point.ThresholdCriterion, labels: ArrayLike, probabilities: ArrayLike, threshold: float
) -> tuple[float, float]:
    """The rank of a threshold under a criterion, by scikit-learn's counts."""
    called = (np.asarray(probabilities) >= threshold).astype(int)
    (tn, fp), (fn, tp) = sklearn_metrics.confusion_matrix(labels, called, labels=[0, 1])
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    if criterion.sensitivity is not None:
        return (round(specificity, 12) if sensitivity >= criterion.sensitivity else -1.0, round(sensitivity, 12))
    if criterion.specificity is not None:
        return (round(sensitivity, 12) if specificity >= criterion.specificity else -1.0, round(specificity, 12))
    return (round(sensitivity + specificity - 1, 12), 0.0)


@pytest.mark.parametrize(
    "criterion",
    [
        operating_point.ThresholdCriterion(maximize="youden"),
        operating_point.ThresholdCriterion(sensitivity=0.8),
        operating_point.ThresholdCriterion(sensitivity=1.0),
        operating_point.ThresholdCriterion(specificity=0.9),
        operating_point.ThresholdCriterion(specificity=1.0),
    ],
    ids=str,
)
def test_threshold_meets_the_criterion_as_well_as_any(
    criterion: operating_point.ThresholdCriterion, samples: Samples
) -> None:
    for labels, probabilities in samples:
        threshold = operating_point.choose_threshold(labels, probabilities, criterion)
        assert 0 <= threshold <= 1
        others = np.unique([0.0, *probabilities, *(np.unique(probabilities)[1:] + np.unique(probabilities)[:-1]) / 2])
        if probabilities.max() < 1:
            others = np.append(others, 1.0)  # calls no image
        best = max(reached(criterion, labels, probabilities, other) for other in others)
        assert reached(criterion, labels, probabilities, threshold) == best


def test_goal_reached_by_nineteen_of_twenty() -> None:
    probabilities = np.r_[np.linspace(0.1, 0.3, 5), 0.2, np.linspace(0.5, 0.9, 19)]
    labels = np.r_[np.zeros(5), np.ones(20)].astype(int)
    threshold = operating_point.choose_threshold(
        labels, probabilities, operating_point.ThresholdCriterion(sensitivity=0.95)
    )
    assert threshold == pytest.approx(0.4)


def test_fixed_threshold_is_taken_as_it_is() -> None:
    criterion = operating_point.ThresholdCriterion(threshold=0.3)
    assert operating_point.choose_threshold([0, 1], [0.1, 0.9], criterion) == 0.3
    assert operating_point.choose_threshold([1, 1], [0.1, 0.9], criterion) == 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"maximize": "f1", "sensitivity": 0.9}, "one threshold criterion, not maximize and sensitivity"),
        ({"sensitivity": 0.0}, r"sensitivity must lie in \(0, 1\], not 0"),
        ({"specificity": 1.5}, "specificity must lie in"),
        ({"threshold": math.nan}, "threshold must lie in"),
    ],
)
def test_impossible_goals_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        operating_point.ThresholdCriterion(**wrong)


def test_scores_do_not_depend_on_the_order(samples: Samples) -> None:
    for labels, probabilities in samples:
        point = OperatingPoint(threshold=0.5, temperature=1.0)
        found = evaluate(labels, probabilities, point)
        backwards = evaluate(labels[::-1], probabilities[::-1], point)
        assert backwards.overall == pytest.approx(found.overall)
        assert replace(backwards, overall=found.overall) == found


def test_log_loss_of_certain_mistakes_is_finite() -> None:
    labels, probabilities = [1, 0, 1, 0], [0.0, 1.0, 1.0, 0.0]
    found = evaluation.log_loss(labels, probabilities)
    assert found == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), rel=1e-12)
    assert found == pytest.approx(-np.log(2**-52) / 2)


def test_one_class() -> None:
    assert evaluation.auroc([1, 1], [0.2, 0.7]) is None
    assert evaluation.auroc([0, 0], [0.2, 0.7]) is None
    assert evaluation.average_precision([1, 1], [0.2, 0.7]) == 1.0
    assert evaluation.average_precision([0, 0], [0.2, 0.7]) is None
    assert evaluation.log_loss([1], [0.25]) == pytest.approx(math.log(4))


def test_no_images() -> None:
    assert evaluation.auroc([], []) is None
    assert evaluation.average_precision([], []) is None
    assert evaluation.log_loss([], []) is None
    assert evaluation.brier_score([], []) is evaluation.brier_skill([], []) is None
    assert evaluation.brier_skill([1, 1], [0.2, 0.4]) is None
    empty = evaluate([], [], OperatingPoint(0.5, 1.0))
    assert {empty.at_half.pop(count) for count in ("tp", "fp", "fn", "tn")} == {0}
    assert set(empty.at_half.values()) | set(empty.overall.values()) == {None}


def test_undefined_scores_are_none() -> None:
    healthy_only = evaluate([0, 0], [0.1, 0.2], OperatingPoint(0.5, 1.0)).at_half
    assert healthy_only["specificity"] == 1.0
    undefined = ("sensitivity", "ppv", "balanced_accuracy", "f1", "youden_j", "mcc")
    assert [healthy_only[score] for score in undefined] == [None] * 6
    diseased_only = evaluate([1, 1], [0.1, 0.2], OperatingPoint(0.5, 1.0)).at_half
    assert diseased_only["sensitivity"] == 0.0
    assert diseased_only["f1"] == 0.0
    assert diseased_only["specificity"] is diseased_only["balanced_accuracy"] is None


def test_a_probability_at_the_threshold_is_positive() -> None:
    assert Scored.checked([1], [0.3], 0.3).counts["tp"] == 1


# Operating point and evaluation


@pytest.mark.parametrize("seed", range(8))
def test_threshold_belongs_to_the_calibrated_probabilities(seed: int) -> None:
    logits, labels = overlapping(seed, 4.0)
    point = operating_point.choose_operating_point(logits, labels)
    assert point.temperature == operating_point.fit_temperature(logits, labels)
    assert point.temperature > 2
    calibrated = special.expit(logits / point.temperature)
    best = max(f1_at(labels, calibrated, score) for score in calibrated)
    assert f1_at(labels, calibrated, point.threshold) == best
    assert point.threshold == pytest.approx(operating_point.choose_threshold(labels, calibrated), rel=1e-12)


def test_operating_point_of_a_perfect_validation() -> None:
    point = operating_point.choose_operating_point([-3.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert point == OperatingPoint(threshold=0.5, temperature=1.0)


def test_evaluation_is_what_metrics_json_holds() -> None:
    labels, probabilities = draw("tied", 3)
    found = evaluate(labels, probabilities, OperatingPoint(threshold=0.4, temperature=1.5)).to_plain()
    names = [metric.name for metric in shown_in("evaluation")]
    overall = [name for name in names if not METRICS[name].needs_threshold]
    at = [name for name in names if METRICS[name].needs_threshold]
    shared = ["schema", "n", "n_positive", "threshold", "temperature"]
    assert list(found) == [*shared, *overall, "at_threshold", "at_0.5"]
    assert [found[key] for key in shared] == [1, len(labels), labels.sum(), 0.4, 1.5]
    for name in overall:
        assert found[name] == METRICS[name].value(Scored(labels, probabilities))
    for key, threshold in (("at_threshold", 0.4), ("at_0.5", 0.5)):
        assert list(found[key]) == ["tp", "fp", "fn", "tn", *at]
        sample = Scored(labels, probabilities, threshold)
        assert found[key] == sample.counts | {name: METRICS[name].value(sample) for name in at}
    assert found["at_threshold"] != found["at_0.5"]


def test_every_number_is_plain_python() -> None:
    point = OperatingPoint(threshold=np.float64(0.4), temperature=np.float64(1.0))
    found = evaluate(*draw("continuous", 0), point).to_plain()
    numbers = [value for value in found.values() if not isinstance(value, dict)]
    numbers += [*found["at_threshold"].values(), *found["at_0.5"].values()]
    assert {type(number) for number in numbers} == {int, float}


# Wrong input

SCORES = (
    operating_point.choose_threshold,
    evaluation.auroc,
    evaluation.average_precision,
    evaluation.log_loss,
    Scored.checked,
    lambda labels, probabilities: evaluate(labels, probabilities, OperatingPoint(0.5, 1.0)),
)


@pytest.mark.parametrize("score", SCORES)
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
    score: Callable[[Any, Any], object], labels: ArrayLike, probabilities: ArrayLike, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(labels, probabilities)


@pytest.mark.parametrize("function", [operating_point.fit_temperature, operating_point.choose_operating_point])
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


def test_wrong_threshold_is_named() -> None:
    with pytest.raises(ValueError, match="threshold must be a finite number, found nan"):
        Scored.checked([1], [0.5], math.nan)
