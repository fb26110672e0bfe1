"""All metrics of an evaluation against scikit-learn, SciPy and statsmodels."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import special, stats
from sklearn.metrics import log_loss

from bldml.metrics.assessment import Assessment, evaluate, simulation_near
from bldml.metrics.assessment import assess as assess_arrays
from bldml.metrics.checked import SamplingUnit
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.registry import METRICS
from bldml.run.card import TITLES, read_card
from bldml.run.predictions import Prediction
from tests.oracles import TOLERANCES, second_opinion
from tests.support import REPOSITORY


def assess(rows: list[Prediction], threshold: float = 0.5) -> Assessment:
    probabilities = np.array([row.probability for row in rows])
    labels = np.array([row.true_class == "BLD" for row in rows], dtype=np.int64)
    return assess_arrays(labels, probabilities, [row.unit for row in rows], threshold)


def table(groups: int = 0) -> list[Prediction]:
    rng = np.random.default_rng(0)
    labels = rng.random(120) < 0.4
    scores = 1 / (1 + np.exp(-(2.0 * labels - 1) - rng.normal(0, 1, 120)))
    return [
        Prediction(f"{i}.jpg", f"tree {i % groups}" if groups else "", "BLD" if label else "No_BLD", "", float(score))
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]


def test_loss_without_temperature_is_that_of_the_logits() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 4, 50), generator.integers(0, 2, 50)
    point = OperatingPoint(0.5, 2.5, offset=0.7)
    found = evaluate(labels, point.probabilities(logits), point).overall
    assert found["loss_uncalibrated"] == pytest.approx(log_loss(labels, special.expit(logits - 0.7)))
    assert found["loss"] == pytest.approx(log_loss(labels, special.expit((logits - 0.7) / 2.5)))


@pytest.mark.parametrize(
    ("positive", "negative", "size", "expected"),
    [
        (45, 71, 1, "45 positive and 71 negative photographs"),
        (20, 60, 1, "17 positive and 89 negative photographs"),
        (5, 200, 1, None),
        (9000, 9000, 1, None),
        (0, 71, 1, None),
        (60, 60, 8, "15 units of 8 photographs each"),
        (44, 44, 4, "30 units of 8 photographs each"),
        (6, 6, 6, None),
    ],
)
def test_nearest_simulated_size(positive: int, negative: int, size: int, expected: str | None) -> None:
    labels = np.repeat([1, 0], [positive, negative])
    names = [SamplingUnit("group", str(i // size)) for i in range(labels.size)]
    found = simulation_near(assess_arrays(labels, np.linspace(0.1, 0.9, labels.size), names, 0.5))
    assert (found and found.size) == expected
    if found:
        assert found.n >= 300
        assert {"sensitivity", "auroc"} <= found.coverage.keys() <= METRICS.keys()


def test_packaged_coverage_is_that_of_the_benchmark(tmp_path: Path) -> None:
    written = (REPOSITORY / "bldml/metrics/coverage.json").read_text(encoding="utf-8")
    (tmp_path / "bldml/metrics").mkdir(parents=True)
    result = REPOSITORY / "benchmarks/results/coverage.json"
    command = [sys.executable, f"{REPOSITORY}/benchmarks/coverage.py", "--package", f"--output={result}"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)
    assert (tmp_path / "bldml/metrics/coverage.json").read_text(encoding="utf-8") == written


def of_counts(tp: int, fp: int, fn: int, tn: int) -> list[Prediction]:
    cells = [("BLD", 0.9)] * tp + [("No_BLD", 0.8)] * fp + [("BLD", 0.2)] * fn + [("No_BLD", 0.1)] * tn
    return [Prediction(f"{i}.jpg", "", truth, "", p) for i, (truth, p) in enumerate(cells)]


def test_metrics_are_those_of_scikit_learn() -> None:
    rows = table()
    found = assess(rows, 0.4)
    labels = np.array([row.true_class == "BLD" for row in rows], dtype=int)
    scores = np.array([row.probability for row in rows])
    assert (found.n, found.n_positive, found.n_units) == (120, sum(labels), 0)
    assert [*found.overall, *found.at_threshold] == sorted(METRICS, key=lambda name: METRICS[name].needs_threshold)
    for name, estimate in found.overall.items():
        expected = second_opinion(name, labels, scores)
        assert estimate.value == pytest.approx(expected, abs=TOLERANCES.get(name, 1e-6)), name
    for threshold, estimates in ((0.4, found.at_threshold), (0.5, found.at_half)):
        for name, estimate in estimates.items():
            assert estimate.numbers is not None, name
            low, value, high = estimate.numbers
            assert value == pytest.approx(second_opinion(name, labels, scores, threshold), abs=1e-6), name
            assert low <= value <= high, name
        right = int(np.sum((scores >= threshold) == labels))
        wilson = stats.binomtest(right, len(rows)).proportion_ci(method="wilson")
        limits = wilson.low, right / len(rows), wilson.high
        assert estimates["accuracy"].numbers == pytest.approx(limits, abs=1e-9)


def test_groups_are_resampled_and_counted() -> None:
    found = assess(table(groups=12))
    assert found.n_units == 12
    assert not found.warnings
    methods = [
        estimate.interval.method
        for estimate in (found.overall["brier"], found.at_threshold["f1"], found.at_threshold["accuracy"])
        if estimate.interval
    ]
    assert methods == [*["jackknife, 12 units"] * 2, "beta-binomial, 12 units"]


def test_a_photograph_without_a_group_is_a_unit_of_its_own() -> None:
    rows = table(groups=15)
    found = assess([replace(rows[0], group=""), *rows[1:]])
    assert found.n_units == 16
    assert not found.warnings
    widths = []
    for one in (found, assess(rows)):
        interval = one.at_threshold["accuracy"].interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert widths[0] == pytest.approx(widths[1], rel=0.05)


def test_what_a_reader_must_know_is_said() -> None:
    assert "only 4 units" in assess(table(groups=4)).warnings[0]
    healthy = [Prediction(f"{i}", "", "No_BLD", "", 0.1 * i) for i in range(5)]
    assert any("one class" in warning for warning in assess(healthy).warnings)


@pytest.mark.parametrize(
    "rows",
    [
        of_counts(45, 0, 0, 71),
        of_counts(0, 71, 45, 0),
        of_counts(45, 71, 0, 0),
        of_counts(0, 0, 45, 71),
        of_counts(1, 0, 0, 1),
        of_counts(1, 0, 0, 0),
        of_counts(0, 1, 0, 0),
        of_counts(0, 0, 0, 9),
        [Prediction(f"{i}", "", "BLD" if i % 2 else "No_BLD", "", 0.5) for i in range(10)],
        [Prediction(f"{i}", f"{i % 2}", "BLD" if i % 2 else "No_BLD", "", float(i % 2)) for i in range(10)],
    ],
    ids=["perfect", "reversed", "all", "none", "two", "sick", "healthy", "nine healthy", "same", "sure"],
)
def test_edges_give_numbers_or_nothing(rows: list[Prediction]) -> None:
    found = assess(rows)
    estimates = [*found.overall.values(), *found.at_threshold.values(), *found.at_half.values()]
    estimates += [estimate for _, *pair in found.prevalences for estimate in pair]
    for estimate in estimates:
        assert all(map(math.isfinite, estimate.numbers or [estimate.value or 0]))
        assert estimate.value is not None or estimate.note
    accuracy = found.at_threshold["accuracy"].interval
    assert accuracy is not None
    assert accuracy.low < accuracy.high


def test_shipped_card_has_every_item_and_states_nothing() -> None:
    shipped = yaml.safe_load((REPOSITORY / "configs" / "card.yaml").read_text())
    assert list(shipped["card"]) == list(TITLES)
    assert set(read_card(shipped).values()) == {None}


def test_card_names_what_is_not_stated() -> None:
    found = read_card({"card": {"contact": "me", "licence": "  ", "intended_use": None}})
    assert list(found) == list(TITLES.values())
    assert found["Contact"] == "me"
    assert [title for title, text in found.items() if text] == ["Contact"]
    assert set(read_card({"card": "nonsense"}).values()) == {None}
