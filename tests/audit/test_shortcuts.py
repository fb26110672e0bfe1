"""Shortcuts: planted ones are found, and nothing is found where there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bldml.audit.checks.features import SOURCES
from bldml.audit.checks.shortcuts import (
    FOLDS,
    Shortcut,
    _folds,
    _predict,
    _select,
    find_shortcuts,
    report_shortcuts,
)
from bldml.audit.examine import FileRecord, Row
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import Sample
from bldml.metrics.estimates import Estimate, Interval
from bldml.run.baselines import ERROR_ABOVE, WARNING_ABOVE, binned, one_hot, verdict_of

Change = Callable[[Row, np.random.Generator], Row]


def plain_rows(count: int, seed: int, change: Change = lambda row, _: row) -> list[Row]:
    """Photographs in which nothing that is measured depends on the class, but for what `change` plants."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = "BLD" if number % 3 == 0 else "healthy"
        day, hour = generator.integers(1, 29), generator.integers(8, 18)
        metadata = Metadata(
            4000, 3000, str(generator.choice(["Canon", "Nikon", "Apple"])), f"2024-06-{day:02}T{hour:02}:00:00",
            format="JPEG", mode="RGB", quantization=float(generator.choice([4.0, 6.5])),
            border=tuple(generator.uniform(0, 255, 7)),
        )  # fmt: skip
        record = FileRecord(
            f"{number:064x}",
            int(generator.integers(10**6, 3 * 10**6)),
            metadata=metadata,
            thumbnail=generator.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            sharpness=100.0,
            brightness=120.0,
        )
        name = f"{label}/{generator.choice(['IMG', 'DSC'])}_{number:04}.JPG"
        rows.append(change(Row(Sample(Path(name), name, label), "train", record), generator))
    return rows


def with_metadata(row: Row, **changes: object) -> Row:
    assert row.file.metadata is not None
    metadata = replace(row.file.metadata, **changes)  # type: ignore[arg-type]
    return replace(row, file=replace(row.file, metadata=metadata))


def is_ill(row: Row) -> bool:
    return row.sample.class_name == "BLD"


def plant_camera(row: Row, generator: np.random.Generator) -> Row:
    return with_metadata(row, camera="Canon" if is_ill(row) != (generator.random() < 0.1) else "Nikon")


def plant_time(row: Row, generator: np.random.Generator) -> Row:
    """Early and late for the one class, between for the other: no order by time tells them."""
    day = generator.choice([2, 3, 27, 28]) if is_ill(row) else generator.integers(10, 20)
    return with_metadata(row, taken=f"2024-06-{day:02}T12:00:00")


def plant_border(row: Row, generator: np.random.Generator) -> Row:
    red = generator.normal(200 if is_ill(row) else 100, 30)
    return with_metadata(row, border=(red, *row.metadata.border[1:]))


def plant_name(row: Row, _: np.random.Generator) -> Row:
    name = f"x/{'P' if is_ill(row) else 'DSCN'}1000.JPG"
    return replace(row, sample=replace(row.sample, name=name))


def plant_class_name(row: Row, _: np.random.Generator) -> Row:
    name = f"x/{row.sample.class_name} (3).JPG"
    return replace(row, sample=replace(row.sample, name=name))


def plant_compression(row: Row, generator: np.random.Generator) -> Row:
    return with_metadata(row, quantization=12.0 if is_ill(row) and generator.random() < 0.9 else 3.0)


@pytest.mark.parametrize(
    ("change", "severity", "name"),
    [
        (plant_camera, "error", "shortcut_metadata"),
        (plant_time, "error", "shortcut_metadata"),
        (plant_compression, "error", "shortcut_metadata"),
        (plant_border, "error", "shortcut_border"),
        (plant_name, "warning", "shortcut_name"),
    ],
)
def test_a_planted_shortcut_is_found_and_named(change: Change, severity: str, name: str) -> None:
    rows = plain_rows(300, 1, change)
    found = find_shortcuts(rows, range(len(rows)), "BLD")
    assert [(one.severity, one.name) for one in report_shortcuts(found, "BLD")] == [(severity, name)]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_found_where_nothing_is(seed: int) -> None:
    rows = plain_rows(300, 10 + seed)
    assert report_shortcuts(find_shortcuts(rows, range(len(rows)), "BLD"), "BLD") == []


def test_a_class_named_in_its_files_is_no_shortcut() -> None:
    rows = plain_rows(120, 5, plant_class_name)
    name = next(one for one in find_shortcuts(rows, range(len(rows)), "BLD") if one.source.name == "name")
    assert name.estimate.value is None


def test_a_burst_remembered_is_no_shortcut() -> None:
    """Thumbnails alike within a burst and not within a class: predicted well only if bursts are split."""
    rows = plain_rows(240, 7)
    generator = np.random.default_rng(8)
    units = [number // 8 for number in range(240)]
    scenes = generator.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    labels = generator.random(30) < 0.5
    for index, (row, unit) in enumerate(zip(rows, units, strict=True)):
        sample = replace(row.sample, class_name="BLD" if labels[unit] else "healthy")
        rows[index] = replace(row, sample=sample, file=replace(row.file, thumbnail=scenes[unit]))

    def area(units: list[int]) -> Shortcut:
        return next(one for one in find_shortcuts(rows, units, "BLD") if one.source.name == "thumbnail")

    assert area(list(range(240))).low > 0.9
    assert area(units).low < WARNING_ABOVE


def test_areas_are_those_of_scikit_learn() -> None:
    rows = plain_rows(200, 3, plant_border)
    label = np.array([is_ill(row) for row in rows], dtype=np.int64)
    folds = _folds(label, np.arange(200), FOLDS)
    border = next(source for source in SOURCES if source.name == "border")
    score = _predict(border.features(rows), label, folds, border.strength)
    found = next(one for one in find_shortcuts(rows, range(200), "BLD") if one.source.name == "border")
    assert found.estimate.value == pytest.approx(roc_auc_score(label, score))


def test_folds_keep_units_whole() -> None:
    generator = np.random.default_rng(0)
    unit = generator.integers(0, 40, 300)
    folds = _folds((unit % 2).astype(np.int64), unit, FOLDS)
    assert len(folds) == FOLDS
    assert all(not set(unit[inside]) & set(unit[outside]) for inside, outside in folds)
    assert sorted(np.concatenate([outside for _, outside in folds])) == list(range(300))


def test_a_large_set_is_tested_on_photographs_of_many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bldml.audit.checks.shortcuts.MAX_PHOTOGRAPHS", 60)
    rows, units = plain_rows(600, 2, plant_border), [number // 20 for number in range(600)]
    border = next(one for one in find_shortcuts(rows, units, "BLD") if one.source.name == "border")
    assert border.low > WARNING_ABOVE
    kept = _select(np.array(units))
    assert (kept // 20).tolist() == [unit for unit in range(30) for _ in range(2)]
    rare = [replace(row, sample=replace(row.sample, class_name="healthy")) for row in rows[36:]]
    assert all(one.estimate.value is None for one in find_shortcuts(rows[:36] + rare, range(600), "BLD"))


LIMITS = st.sampled_from([0.4, (WARNING_ABOVE + ERROR_ABOVE) / 2, 0.9])  # nothing, a warning, an error


@given(st.lists(LIMITS, min_size=len(SOURCES), max_size=len(SOURCES)))
def test_whatever_the_table_calls_an_error_or_a_warning_is_a_finding(lows: list[float]) -> None:
    """A family of metadata that is an error is not hidden by all metadata together, which are only a warning."""
    shortcuts = [
        Shortcut(source, Estimate(0.95, Interval(low, 1.0, ""))) for source, low in zip(SOURCES, lows, strict=True)
    ]
    findings = report_shortcuts(shortcuts, "BLD")
    verdicts = {verdict_of(shortcut.source.name, shortcut.estimate).partition(":")[0] for shortcut in shortcuts}
    severities = {finding.severity for finding in findings}
    assert ("error" in verdicts) == ("error" in severities)
    assert not verdicts & {"error", "warning"} or severities & {"error", "warning"}
    for shortcut in shortcuts:
        if verdict_of(shortcut.source.name, shortcut.estimate).startswith("error"):
            assert any(shortcut.source.phrase in finding.title + finding.text for finding in findings)


def test_too_few_say_nothing() -> None:
    rows = plain_rows(27, 1, plant_camera)
    assert all(one.estimate.value is None for one in find_shortcuts(rows, range(27), "BLD"))
    assert report_shortcuts(find_shortcuts(rows, range(27), "BLD"), "BLD") == []


def test_the_same_again() -> None:
    rows = plain_rows(200, 4, plant_border)
    one, two = (find_shortcuts(rows, range(200), "BLD") for _ in range(2))
    assert [shortcut.estimate for shortcut in one] == [shortcut.estimate for shortcut in two]


def test_bins_and_columns() -> None:
    assert binned(np.full(5, np.nan)).shape == (5, 1)
    assert binned(np.arange(80.0)).sum(axis=0).tolist() == [10.0] * 8
    assert one_hot([str(number) for number in range(100)]).shape == (100, 21)
