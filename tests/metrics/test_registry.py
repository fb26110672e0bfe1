"""Every row of the registry: against its oracle, within its range, better in its direction, with its own interval."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bldml.metrics import registry
from bldml.metrics.checked import SamplingUnit
from bldml.metrics.metric import Metric, Scored, no_interval, resampled
from tests import oracles
from tests.metrics_page import PAGE, page
from tests.oracles import TOLERANCES, second_opinion

F2: dict[str, Any] = {
    "name": "f2",
    "title": "F2",
    "definition": "5 TP / (5 TP + 4 FN + FP)",
    "of_counts": lambda tp, fp, fn, tn: 5 * tp / (5 * tp + 4 * fn + fp) if tp + fn + fp else None,
    "interval": resampled,
    "better": "higher",
    "range": (0, 1),
}
KINDS = (*oracles.KINDS, "sick", "healthy")
NAMES = tuple(registry.METRICS)


def draw(kind: str, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and probabilities of one kind."""
    labels, probabilities = oracles.draw(kind if kind in oracles.KINDS else "informed", seed)
    return (labels if kind in oracles.KINDS else np.full(labels.size, int(kind == "sick"))), probabilities


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_that_of_a_second_implementation(name: str, kind: str) -> None:
    if kind in ("extreme", "neighbours") and name.startswith("calibration_"):
        pytest.skip("of such probabilities neither implementation finds the maximum surely")
    metric, seen = registry.METRICS[name], 0
    for seed in range(2 if name == "ece_expected" else 10):
        labels, probabilities = draw(kind, seed)
        for threshold in (0.0, 0.3, 0.5, 1.0) if metric.needs_threshold else (0.5,):
            found = metric.value(Scored.checked(labels, probabilities, threshold))
            assert found is None or type(found) is float
            expected = second_opinion(name, labels, probabilities, threshold)
            if math.isnan(expected):
                assert found is None
                continue
            assert found is not None
            assert found == pytest.approx(expected, rel=1e-9, abs=TOLERANCES.get(name, 1e-12))
            assert metric.limits[0] <= found <= metric.limits[1]
            seen += 1
    assert seen or kind != "informed"


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_better_in_its_direction(name: str) -> None:
    """Of a classifier and a worse one, whose probabilities are partly mixed up, nearly always."""
    metric = registry.METRICS[name]
    if metric.better == "neither":
        pytest.skip("it describes the photographs")
    right = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.random(400)
        labels = (rng.random(400) < truth).astype(np.int64)
        worse = np.where(rng.random(400) < 0.6, rng.random(400), truth) ** 2  # mixed up, and too low
        good, bad = (metric.value(Scored(labels, probability)) for probability in (truth, worse))
        assert good is not None
        assert bad is not None
        if isinstance(metric.better, float):
            right += abs(good - metric.better) < abs(bad - metric.better)
        else:
            right += good > bad if metric.better == "higher" else good < bad
    # Too low probabilities trade sensitivity for specificity, and what goes with it.
    assert right >= (0 if name in ("specificity", "ppv", "lr_positive") else 57)


def test_direction_of_what_a_lower_threshold_lowers() -> None:
    labels, probabilities = draw("informed", 4)
    sample = Scored(labels, probabilities)
    perfect = Scored(labels, labels.astype(np.float64))
    for name in ("specificity", "ppv", "lr_positive"):
        metric = registry.METRICS[name]
        found, best = metric.value(sample), metric.value(perfect)
        assert metric.better == "higher"
        assert found is not None
        assert best is None or best > found


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_estimate_is_sound(kind: str, grouped: bool) -> None:
    labels, probabilities = draw(kind, 1)
    units = [SamplingUnit("group", f"tree {i // 3}") for i in range(labels.size)] if grouped else ()
    sample = Scored(labels, probabilities, 0.5, units)
    for metric in registry.METRICS.values():
        found, (low, high) = metric.estimate(sample), metric.limits
        assert found.value == pytest.approx(metric.value(sample), abs=1e-9), metric.name
        if found.value is None or found.interval is None:
            assert found.note, metric.name
            continue
        assert low <= found.interval.low <= found.interval.high <= high, metric.name
        assert found.interval.low - 1e-9 <= found.value <= found.interval.high + 1e-9, metric.name


def test_places_of_the_registry() -> None:
    """What a training follows was so in 0.1 too; every row is shown somewhere."""
    assert {metric.name for metric in registry.shown_in("history")} == {
        *("sensitivity", "specificity", "ppv", "accuracy", "balanced_accuracy", "f1", "auroc", "average_precision"),
    }
    assert all("report" in metric.shown for metric in registry.METRICS.values())


def test_page_of_the_documents_is_made_from_the_registry() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.metrics_page writes it"


# A row that a user adds


def test_a_whole_row_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "METRICS", dict(registry.METRICS))
    monkeypatch.setattr(registry, "_NAMES", dict(registry._NAMES))
    registry.register(Metric(**F2, aliases=("f_two",)))
    assert "history" in registry.METRICS["f2"].shown
    assert registry.canonical("val_f_two") == "val_f2"
    with pytest.raises(ValueError, match="the name f2 is taken by f2"):
        registry.register(Metric(**F2))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "recall"}, "the name recall is taken by sensitivity"),
        ({"name": "tp"}, "the name tp is taken"),
        ({"aliases": ("precision",)}, "the name precision is taken by ppv"),
        ({"name": ""}, r"The metric \(no name\) .* the name '' must consist of lower-case letters"),
        ({"name": "F-2"}, "the name 'F-2' must consist of lower-case letters, digits and underscores"),
        ({"title": ""}, "it has no title"),
        ({"definition": ""}, "it has no definition"),
        ({"of_counts": None}, "it needs exactly one of part, of_counts and of_probabilities"),
        ({"part": (("tp",), ("tp", "fn"))}, "it needs exactly one of part, of_counts and of_probabilities"),
        ({"interval": None}, "it has no interval rule"),
        ({"better": None}, "it has no direction"),
        ({"range": None}, "it has no range"),
        ({"range": (0, 0.5)}, "its value 1 is outside its range, 0 to 0.5"),
        ({"range": (-math.inf, 1)}, "it cannot be shown in history"),
        ({"better": "neither"}, "it cannot be shown in history"),
    ],
)
def test_a_row_that_lacks_something_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        registry.register(Metric(**F2 | change))
    assert "f2" not in registry.METRICS


def f2_of(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    tp, fp, fn, _ = cells.T
    found: NDArray[np.float64] = 5 * tp / (5 * tp + 4 * fn + fp)
    return found


def test_interval_of_f2_is_its_own() -> None:
    """Near that of multinomial counts, and by the Dirichlet where a cell is empty."""
    rng = np.random.default_rng(5)
    cells = {"tp": 38, "fp": 9, "fn": 7, "tn": 62}
    drawn = f2_of(rng.multinomial(116, np.array([*cells.values()]) / 116, 40_000).astype(np.float64))
    spread = np.log(drawn / (1 - drawn)).std() * stats.t.ppf(0.975, 115)
    centre = np.log(f2_of(np.array([[38.0, 9, 7, 62]]))[0] ** -1 - 1)
    limits = 1 / (1 + np.exp(centre + np.array([1, -1]) * spread))
    assert_interval(cells, limits, "jackknife, 116 photographs", 0.01)
    cells = {"tp": 45, "fp": 9, "fn": 0, "tn": 62}
    drawn = f2_of(rng.dirichlet([45.5, 9.5, 0.5, 62.5], 40_000))
    assert_interval(cells, np.quantile(drawn, [0.025, 0.975]), "Jeffreys-Dirichlet, 116 photographs", 0.003)


def assert_interval(cells: dict[str, int], limits: NDArray[np.float64], method: str, tolerance: float) -> None:
    tp, fp, fn, tn = cells.values()
    labels = np.repeat([1, 0, 1, 0], (tp, fp, fn, tn))
    sample = Scored(labels, np.repeat([0.9, 0.8, 0.2, 0.1], (tp, fp, fn, tn)))
    assert sample.counts == cells
    found = Metric(**F2).estimate(sample)
    assert found.value == 5 * tp / (5 * tp + 4 * fn + fp)
    assert found.interval is not None
    assert found.interval.method == method
    assert (found.interval.low, found.interval.high) == pytest.approx(limits, abs=tolerance)
    other = registry.METRICS["mcc"].estimate(sample).interval
    assert other is not None
    assert abs(found.interval.low - other.low) > 3 * tolerance


def test_a_metric_without_an_interval_says_why() -> None:
    metric = replace(Metric(**F2), interval=no_interval("nobody has found one"))
    found = metric.estimate(Scored(np.array([1, 0]), np.array([0.9, 0.1])))
    assert (found.value, found.interval, found.note) == (1.0, None, "nobody has found one")
    assert metric.estimate(Scored(np.array([0, 0]), np.array([0.1, 0.1]))).value is None
