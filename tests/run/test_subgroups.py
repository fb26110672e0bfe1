"""Subgroups of an evaluation: rates by a plain loop, intervals by SciPy, and which groups, cameras and days count."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from bldml.metrics.proportions import proportion_by_unit
from bldml.run.photographs import PhotographRow
from bldml.run.predictions import Prediction
from bldml.run.subgroups import LEAST, MOST, NOT_KNOWN, OTHERS, Subgroup, find_subgroups

Case = tuple[list[Prediction], dict[str, PhotographRow]]


def case(seed: int, n: int = 200, *, burst: bool = False) -> Case:
    """Photographs of BLD and of three original classes merged into No_BLD, by four cameras on some days."""
    rng = np.random.default_rng(seed)
    predictions, photographs = [], {}
    for number in range(n):
        original = str(rng.choice(["BLD", "aphids", "erineum", "healthy"]))
        true, called = "BLD" if original == "BLD" else "No_BLD", str(rng.choice(["BLD", "No_BLD"]))
        camera, day = str(rng.choice(["A", "B", "C", "", "rare"], p=[0.4, 0.3, 0.2, 0.08, 0.02])), rng.integers(1, 9)
        path, in_burst = f"{number}.jpg", f"{number // 3 * 3}.jpg" if burst else ""
        predictions.append(Prediction(path, f"tree {number % 7}", true, called, 0.5, in_burst))
        photographs[path] = PhotographRow(
            path, "test", true, "", 0, 0, camera, f"2024-06-0{day}T12:00:00", original_class=original, burst=in_burst
        )
    return predictions, photographs


def by(found: list[Subgroup], kind: str) -> dict[str, Subgroup]:
    return {one.value: one for one in found if one.by == kind}


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_those_of_a_plain_loop_with_wilsons_interval(seed: int) -> None:
    predictions, photographs = case(seed)
    predictions = [Prediction(one.path, "", one.true_class, one.predicted_class, 0.5, "") for one in predictions]
    found = find_subgroups(predictions, photographs, "BLD")
    assert set(by(found, "original class")) == {"aphids", "erineum", "healthy"}, "BLD is no merged class"
    assert "group" not in {one.by for one in found}
    for one in found:
        value_of = {"original class": "original_class", "camera": "camera", "day": "taken"}[one.by]
        hits, n = Counter[str](), Counter[str]()
        for row in predictions:
            value = getattr(photographs[row.path], value_of)[: 10 if one.by == "day" else None] or NOT_KNOWN
            shown = by(found, one.by)
            if one.value == (value if value in shown else OTHERS):
                n[row.true_class] += 1
                hits[row.true_class] += row.true_class == row.predicted_class
        assert (one.n, one.n_positive) == (n.total(), n["BLD"])
        for name, rate in (("BLD", one.sensitivity), ("No_BLD", one.specificity)):
            if not n[name]:
                assert rate.value is None
                continue
            expected = stats.binomtest(hits[name], n[name]).proportion_ci(method="wilson")
            assert rate.numbers == pytest.approx((expected.low, hits[name] / n[name], expected.high), abs=1e-9)


def test_a_subgroup_has_the_sampling_units_of_all_statistics() -> None:
    """But photographs of one group tell of this group: there the units are its bursts."""
    predictions, photographs = case(0, burst=True)
    found = find_subgroups(predictions, photographs, "BLD")
    one = by(found, "camera")["A"]
    rows = [row for row in predictions if photographs[row.path].camera == "A" and row.true_class == "BLD"]
    expected = proportion_by_unit([not row.is_error for row in rows], [int(row.group[5:]) for row in rows])
    assert (one.sensitivity, one.unit) == (expected, "group")
    tree = by(found, "group")["tree 3"]
    rows = [row for row in predictions if row.group == "tree 3" and row.true_class == "No_BLD"]
    bursts = [int((row.burst or "")[:-4]) for row in rows]
    assert tree.specificity == proportion_by_unit([not row.is_error for row in rows], bursts)


def test_of_each_kind_the_lowest_is_first_and_what_is_pooled_last() -> None:
    found = find_subgroups(*case(1), "BLD")
    for kind in ("original class", "group", "camera", "day"):
        some = [one for one in found if one.by == kind]
        alone = [one.lowest for one in some if one.value not in (OTHERS, NOT_KNOWN)]
        assert len(alone) > 1
        assert alone == sorted(alone)
        assert all(one.value in (OTHERS, NOT_KNOWN) for one in some[len(alone) :])
        assert kind == "original class" or sum(one.n for one in some) == 200


def two_cameras(n: int, m: int) -> Case:
    names = ["A"] * n + ["B"] * m + ["C"]
    predictions = [Prediction(f"{i}", "", "BLD", "BLD", 0.9, "") for i in range(len(names))]
    rows = [PhotographRow(f"{i}", "test", "BLD", "", 0, 0, name, "") for i, name in enumerate(names)]
    return predictions, {row.path: row for row in rows}


def test_one_camera_with_enough_photographs_is_no_comparison() -> None:
    assert find_subgroups(*two_cameras(LEAST, LEAST - 1), "BLD") == []
    assert [one.value for one in find_subgroups(*two_cameras(LEAST, LEAST), "BLD")] == ["A", "B", OTHERS]


def test_only_the_largest_are_shown_alone() -> None:
    n = MOST + 5
    predictions = [Prediction(f"{i}", f"{i % n}", "BLD", "BLD", 0.9, "") for i in range(n * LEAST)]
    found = find_subgroups(predictions, {}, "BLD")
    assert len(found) == MOST + 1
    assert (found[-1].value, found[-1].n) == (OTHERS, 5 * LEAST)


def test_what_is_not_recorded_has_no_subgroups() -> None:
    predictions, photographs = case(2)
    found = find_subgroups(predictions, {}, "BLD")
    assert {one.by for one in found} == {"group"}
    old = {path: PhotographRow(path, "test", row.true_class, "", 0, 0, "", "") for path, row in photographs.items()}
    assert find_subgroups(predictions, old, "BLD") == found
