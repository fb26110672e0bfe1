"""Baselines that never see the leaf: fitted on the training photographs, compared with the classifier."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bldml.metrics.assessment import EvaluationMetrics, evaluate
from bldml.metrics.auroc import estimate_auroc
from bldml.metrics.checked import units_of
from bldml.metrics.estimates import Estimate, Interval
from bldml.metrics.operating_point import OperatingPoint
from bldml.report.claims import without_leaf
from bldml.run.baselines import (
    FAMILY,
    FAMILY_LEVEL,
    SOURCES,
    Baselines,
    compute_baselines,
    regression_scores,
    severity_of,
)
from bldml.run.photographs import PhotographRow

Change = Callable[[PhotographRow, np.random.Generator], PhotographRow]


PLAIN = {"value": 0.5, "low": 0.4, "high": 0.6, "method": "jackknife"}


def photographs(n: int, seed: int, change: Change = lambda row, _: row) -> list[PhotographRow]:
    """Photographs in which nothing depends on the class but what `change` plants."""
    generator, rows = np.random.default_rng(seed), []
    for number in range(n):
        row = PhotographRow(
            path=f"{number}.jpg",
            split="train",
            true_class=("No_BLD", "BLD")[number % 2],
            group="",
            width=4000,
            height=3000,
            camera=str(generator.choice(["Apple", "Canon", "Nikon"])),
            taken=f"2024-06-{generator.integers(1, 29):02}T{generator.integers(8, 18):02}:00:00",
            format="JPEG",
            mode="RGB",
            quantization=float(generator.choice([4.0, 6.5])),
            border=tuple(generator.uniform(0, 255, 7)),
        )
        rows.append(change(row, generator))
    return rows


def plant_day(row: PhotographRow, generator: np.random.Generator) -> PhotographRow:
    is_early = (row.true_class == "BLD") != (generator.random() < 0.1)
    return replace(row, taken=f"2024-{'05' if is_early else '07'}-10T12:00:00")


def plant_border(row: PhotographRow, generator: np.random.Generator) -> PhotographRow:
    return replace(row, border=(generator.normal(200 if row.true_class == "BLD" else 100, 30), *row.border[1:]))


def plant_texture(row: PhotographRow, _: np.random.Generator) -> PhotographRow:
    return replace(row, border=(*row.border[:6], 30.0 if row.true_class == "BLD" else 10.0))


def found(change: Change, spread: float, n: int = 120) -> tuple[Baselines, np.ndarray]:
    """Baselines of photographs with a planted shortcut, and a classifier whose scores have this spread."""
    training, rows = photographs(200, 1, change), photographs(n, 2, change)
    labels = np.array([row.true_class == "BLD" for row in rows], dtype=np.int64)
    logits = labels * 4.0 - 2 + np.random.default_rng(3).normal(0, spread, n)
    probabilities = 1 / (1 + np.exp(-logits))
    return compute_baselines(training, rows, labels, probabilities, units_of([], n), "BLD"), labels


@pytest.mark.parametrize(
    ("change", "name"), [(plant_day, "time"), (plant_border, "border"), (plant_texture, "texture")]
)
def test_a_planted_shortcut_is_the_best_baseline(change: Change, name: str) -> None:
    baselines, _ = found(change, spread=3.0)
    by_name = {source.name: estimate for source, estimate in baselines.sources.items()}
    best = baselines.best
    assert best is not None
    assert best.name in (name, "metadata" if name == "time" else name)
    assert (by_name[name].value or 0) > 0.85
    assert not baselines.is_exceeded
    assert "not shown that the classifier looks at the leaf" in without_leaf(baselines)


def test_without_a_shortcut_the_classifier_exceeds_them() -> None:
    baselines, _ = found(lambda row, _: row, spread=1.0)
    assert all(estimate.value is None or estimate.value < 0.7 for estimate in baselines.sources.values())
    assert baselines.is_exceeded
    text = without_leaf(baselines)
    assert "is higher by" in text
    assert "not shown" not in text


def test_against_scikit_learn() -> None:
    training, rows = photographs(200, 1, plant_border), photographs(120, 2, plant_border)
    truth, labels = ([row.true_class == "BLD" for row in some] for some in (training, rows))
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=300))
    own, others = ([row.border[:6] for row in some] for some in (training, rows))
    expected = roc_auc_score(labels, model.fit(own, truth).decision_function(others))
    baselines, _ = found(plant_border, spread=1.0)
    assert baselines.sources[SOURCES[5]].value == pytest.approx(expected, abs=1e-6)
    assert not regression_scores(np.ones((4, 2)), np.array([0, 1, 0, 1]), np.zeros((3, 2))).any()


def test_what_is_not_recorded_is_not_a_baseline() -> None:
    def of_0_1(row: PhotographRow, _: np.random.Generator) -> PhotographRow:
        return PhotographRow(row.path, row.split, row.true_class, "", 4000, 3000, row.camera, row.taken)

    baselines, _ = found(of_0_1, spread=1.0)
    undefined = {source.name for source, estimate in baselines.sources.items() if estimate.value is None}
    assert undefined == {"size", "encoding", "border", "texture"}


def test_too_few_training_photographs() -> None:
    rows = photographs(18, 1)
    labels = np.array([0, 1] * 9)
    baselines = compute_baselines(rows, rows, labels, np.full(18, 0.5), units_of([], 18), "BLD")
    assert baselines.best is None
    assert not baselines.is_exceeded
    assert without_leaf(baselines).endswith("could not be tested: fewer than 10 training photographs of a class.")


def test_metrics_json_round_trip() -> None:
    baselines, labels = found(plant_day, spread=1.0)
    assert Baselines.from_plain(baselines.to_plain("photograph")) == baselines
    metrics = evaluate(labels, np.where(labels, 0.9, 0.2), OperatingPoint(0.5, 1.0), [None] * labels.size)
    metrics = replace(metrics, baselines=baselines.to_plain("photograph"))
    assert EvaluationMetrics.from_plain(metrics.to_plain()) == metrics


NO_NUMBERS: tuple[Any, ...] = (math.nan, 10**400, "x", [], True)
NO_AUROC: tuple[Any, ...] = ({"time": math.nan}, {"time": []}, {"time": "x"}, {"time": {"value": 0.5}}, None, [], "x")
NO_NAME: tuple[Any, ...] = ([], {}, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"advantage": PLAIN | {key: one}} for key in ("value", "high") for one in NO_NUMBERS),
        *({"auroc": one} for one in NO_AUROC),
        *({"best": one} for one in NO_NAME),
        {"advantage": None},
    ],
)
def test_baselines_of_a_stranger(wrong: dict[str, Any]) -> None:
    """A report of them ended in a traceback."""
    whole = {"auroc": {"time": PLAIN}, "best": "time", "advantage": PLAIN}
    assert Baselines.from_plain(whole).best
    with pytest.raises(ValueError, match=r"estimate|baselines"):
        Baselines.from_plain(whole | wrong)


@pytest.mark.parametrize("positives", [10, 20, 30])
def test_few_sets_without_a_shortcut_have_a_warning_of_any_source(positives: int) -> None:
    """At most the level that is stated, of all sources together, also in small sets."""
    generator = np.random.default_rng(positives)
    labels = np.repeat([1, 0], [positives, 60 - positives])
    sets = 200
    warned = sum(
        any(severity_of("border", estimate_auroc(labels, generator.normal(size=60))) for _ in range(FAMILY))
        for _ in range(sets)
    )
    assert warned <= binom.ppf(0.95, sets, FAMILY_LEVEL)


@pytest.mark.parametrize(
    ("area", "low", "severity"),
    [(0.66, 0.54, None), (0.66, 0.555, "warning"), (0.9, 0.76, "error"), (1.0, 0.8, "error"), (0.62, 0.52, None)],
)
def test_a_warning_is_above_chance_at_the_level_of_all_sources(area: float, low: float, severity: str | None) -> None:
    assert severity_of("border", Estimate(area, Interval(low, 1.0, ""))) == severity
    # Expected signal is information, which accuses nobody.
    assert severity_of("thumbnail", Estimate(area, Interval(low, 1.0, ""))) == ("info" if low > 0.53 else None)
