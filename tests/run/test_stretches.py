"""The parts of a training between its starts, and how their conditions differ."""

from typing import Any

import pytest

from bldml.report.run_claims import conditions
from bldml.run.provenance import changed_conditions, changes, conditions_of, read_stretches

OLD = {"versions": {"torch": "2.10.0", "numpy": "2.0"}, "git_commit": "a" * 40, "gpu": "A100", "device": "cuda:0"}
NEW = {**OLD, "versions": {"torch": "2.11.0", "numpy": "2.0"}, "device": "cuda:3", "host": "gpu2", "cpu_threads": 4}


def document(*notes: dict[str, Any]) -> dict[str, Any]:
    return {"created": "2026-11-29T10:00:00+00:00", **OLD, "continued": list(notes)}


def test_what_changed_is_said_with_its_step() -> None:
    stretches = read_stretches(document({**NEW, "step": 40, "time": "2026-11-30"}, {**NEW, "step": 60}), 90)
    ((changed, what),) = changed_conditions(stretches)
    assert (changed.step, changed.time, changed.host) == (40, "2026-11-30", "gpu2")
    assert what == ["torch 2.10.0 → 2.11.0"]
    assert "from step 40, torch 2.10.0 → 2.11.0. Resuming is exact only on" in conditions(stretches)


@pytest.mark.parametrize(
    ("notes", "steps", "expected"),
    [
        ([], 90, [0]),
        ([{**NEW, "step": 40}], 90, [0, 40]),
        # Nothing was computed in this part, or it was computed again: no weight comes from it.
        ([{**NEW, "step": 90}], 90, [0]),
        ([{**NEW, "step": 40}, {**OLD, "step": 40}], 90, [0, 40]),
        ([{**NEW, "step": 0}], 90, [0]),
        ([{**NEW, "step": 40}], None, [0, 40]),
    ],
)
def test_parts_that_the_weights_come_from(notes: list[dict[str, Any]], steps: int | None, expected: list[int]) -> None:
    stretches = read_stretches(document(*notes), steps)
    assert [stretch.step for stretch in stretches] == expected
    if notes and steps and notes[-1]["step"] in (0, 90):
        assert not conditions(stretches)
    if notes and notes[0]["step"] == 0:
        assert stretches[0].conditions["torch"] == "2.11.0"


def test_notes_of_older_versions_record_less() -> None:
    stretches = read_stretches(document({"time": "2026-11-30", "step": 40, "host": "gpu2"}), 90)
    assert not changed_conditions(stretches)
    assert conditions(stretches) == "For 1 of its 2 parts, versions and hardware are not recorded."


@pytest.mark.parametrize(
    "continued", [None, "text", [None, 3, {"step": "x"}], {"step": 1}, [{"step": -1}, {"step": 1e9}]]
)
def test_damage_is_not_recorded(continued: object) -> None:
    assert len(read_stretches({**OLD, "continued": continued}, 90)) == 1
    assert conditions_of({"versions": [1], "gpu": {"a": 1}, "cuda": [2]}) == {}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            {"git_commit": "a" * 40},
            {"git_commit": "b" * 40 + "+changes"},
            [f"git commit {'a' * 12} → {'b' * 12}+changes"],
        ),
        # A commit that does not change the code; edits without a commit.
        ({"git_commit": "a", "code": "1"}, {"git_commit": "b", "code": "1"}, []),
        ({"git_commit": "a+changes", "code": "1"}, {"git_commit": "a+changes", "code": "2"}, ["code of bldml 1 → 2"]),
        ({"git_commit": "a", "code": "1"}, {"git_commit": "b", "code": "2"}, ["git commit a → b"]),
        ({"gpu": None}, {"gpu": "L40S"}, ["GPU none → L40S"]),
        ({}, {"precision": "bf16-mixed"}, []),
    ],
)
def test_changes(before: dict[str, Any], after: dict[str, Any], expected: list[str]) -> None:
    assert changes(conditions_of(before), conditions_of(after)) == expected
