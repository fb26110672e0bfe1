"""The recorded facts about an evaluation: what is not recorded of every photograph is not claimed of the rest."""

from dataclasses import replace
from pathlib import Path

from bldml.metrics.assessment import evaluate
from bldml.metrics.checked import Classes
from bldml.metrics.operating_point import OperatingPoint
from bldml.report.claims import caution_with_rest
from bldml.run.evidence import Evidence, evidence_of
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow
from bldml.run.predictions import Prediction
from bldml.run.provenance import Provenance
from bldml.run.reader import Evaluation, RunData

POINT = OperatingPoint(0.5, 1.0)
LEAK = {"kind": "near", "photograph": "t0", "split": "test", "partner": "a", "partner_split": "train"}


def row(path: str, split: str, content: str) -> PhotographRow:
    return PhotographRow(path, split, "BLD", "", 0, 0, "", "", content * 32)


def case(
    provenance: Provenance, *paths: str, photographs: tuple[PhotographRow, ...] = ()
) -> tuple[RunData, Evaluation]:
    """An evaluation of a run with the test photographs t0 and t1, of which t0 is like one of train."""
    splits = {"a": "train", "t0": "test", "t1": "test"}
    data = RunData(
        run=RunFolder(Path("run")), config={}, environment={}, parameters=None, training_seconds=None, epochs=(),
        splits=tuple({"path": path, "label": "BLD", "split": split} for path, split in splits.items()), excluded=(),
        photographs=(row("a", "train", "aa"), row("t0", "test", "00"), row("t1", "test", "11")),
        leaks=(LEAK,), evaluations=(), unlabelled=(), classes=Classes("No_BLD", "BLD"),
    )  # fmt: skip
    rows = tuple(Prediction(path, "", "BLD", "BLD", 0.9) for path in paths)
    metrics = evaluate([1] * len(rows), [0.9] * len(rows), POINT)
    return data, Evaluation(Path("run/evaluations/one"), rows, metrics, provenance, photographs, ())


def evidence(provenance: Provenance, *paths: str, photographs: tuple[PhotographRow, ...] = ()) -> Evidence:
    return evidence_of(*case(provenance, *paths, photographs=photographs))


def test_near_duplicates_found_beside_recorded_relatives_all_count() -> None:
    """The table names one of them; the search in the new photographs found three, without names."""
    there = (row("b", "test", "00"), *(row(f"new{k}", "test", f"{k}f") for k in range(5)))
    provenance = Provenance(role="mixed", known={"train": 0, "val": 0, "test": 1}, near_training_photographs=3)
    found = evidence(provenance, *(one.path for one in there), photographs=there)
    assert found.relatives == {"near": 3}
    assert found.n_unrelated == 0, "no metrics of 'the others': it is not known which these are"


def test_every_copy_of_a_photograph_with_a_relative_has_it() -> None:
    there = (row("b", "test", "00"), row("c", "test", "00"), row("d", "test", "11"))
    found = evidence(Provenance(role="test", known={"train": 0, "val": 0, "test": 3}), "b", "c", "d", photographs=there)
    assert found.relatives == {"near": 2}
    assert found.related == {"b", "c"}
    assert found.n_unrelated == 1


def test_photographs_added_to_the_test_split_were_not_searched() -> None:
    known = {"train": 0, "val": 0, "test": 1}
    assert evidence(Provenance(role="test", known=known), "t1").searched
    assert not evidence(Provenance(role="test", known=known), "t1", "added").searched


def test_sampling_units_are_groups_else_bursts_and_both_may_have_one_name() -> None:
    """Counted again by a plain loop; without the column no bursts are claimed, nor their absence."""
    data, evaluation = case(Provenance(role="test"))
    cells = [("a", "x"), ("a", ""), ("", "a"), ("", "a"), ("", "b"), ("", ""), ("c", "b")]
    rows = tuple(
        Prediction(f"{n}.jpg", group, "BLD", "BLD", 0.9, burst=burst) for n, (group, burst) in enumerate(cells)
    )
    found = evidence_of(data, replace(evaluation, rows=rows))
    assert (found.unit, found.groups, found.bursts, found.lone) == ("group or burst", 2, 2, 1)
    assert len({row.unit or row.path for row in rows}) == 5
    assert replace(evaluation, rows=rows).assess(data.classes).n_units == 5
    old = evidence_of(data, replace(evaluation, rows=tuple(replace(row, burst=None) for row in rows)))
    assert (old.unit, old.groups, old.bursts, old.lone) == ("group", 2, None, 4)


def test_others_of_one_class_have_one_estimate() -> None:
    text = caution_with_rest(*case(Provenance(role="test"), "t0", "t1"))
    assert text.endswith("specificity not estimable, AUROC not estimable.")
