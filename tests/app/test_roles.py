"""What an evaluation's photographs are to the run, through the real command line: by contents, never by a name."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.folder import RunFolder
from bldml.run.photographs import read_photograph_table
from bldml.run.reader import RunData, read_run
from tests.support import Bldml

CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0", "--report=false")
NONE = {"train": 0, "val": 0, "test": 0}


@pytest.fixture
def own(run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run of all tests, to which evaluations may be added."""
    return RunFolder(Path(shutil.copytree(run, tmp_path / "own")))


def evaluate(bldml: Bldml, run: RunFolder, command: str, *options: str) -> RunData:
    outcome = bldml(command, f"--ckpt_path={run.best_checkpoint}", *options, *CPU[: 2 if command == "predict" else 3])
    assert outcome.code == 0, outcome.err
    return read_run(run)


def role(data: RunData, name: str) -> tuple[str, object]:
    (one,) = (one for one in (*data.evaluations, *data.unlabelled) if one.name == name)
    document = json.loads((one.folder / "provenance.json").read_text())
    assert document["schema"] == 1
    assert (document["role"], document["known"]) == (one.role, one.provenance.known)
    return one.role, one.provenance.known


def photographs_of(run: RunFolder, *splits: str) -> list[Path]:
    root = Path(json.loads((run.evaluation("test") / "provenance.json").read_text())["root"])
    return [root / row.path for row in read_photograph_table(run.photographs) if row.split in splits]


def test_of_a_fit(own: RunFolder) -> None:
    data = read_run(own)
    for name, split, expected in (
        ("train", "train", "training"),
        ("val", "val", "validation"),
        ("test", "test", "test"),
    ):
        n = len(photographs_of(own, split))
        assert role(data, name) == (expected, NONE | {split: n})
    assert [one.role for one in data.evaluations] == ["test", "validation", "training"]


def test_the_runs_own_photographs_under_any_name(own: RunFolder, bldml: Bldml) -> None:
    n = {split: len(photographs_of(own, split)) for split in NONE}
    data = evaluate(bldml, own, "validate", "--name=early_look")
    assert role(data, "early_look") == ("validation", NONE | {"val": n["val"]})
    for path in photographs_of(own, "test"):
        place = Path("elsewhere") / path.parent.name / f"moved_{path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    data = evaluate(bldml, own, "test", "--data.root=elsewhere", "--name=again")
    assert role(data, "again") == ("test", NONE | {"test": n["test"]})
    outcome = bldml("report", own.path)
    assert outcome.code == 0, outcome.err
    page = (own.path / "report.html").read_text(encoding="utf-8")
    assert "External set" not in page
    assert "early_look (" not in page, "no other set in the table of photographs"
    with (own.path / "tables" / "run" / "ledger.csv").open(encoding="utf-8", newline="") as file:
        names = [row["Evaluation"].split(", ") for row in csv.DictReader(file)]
    # Other tests may have evaluated the run before it was copied.
    assert any({"test", "again"} <= set(found) for found in names), "the same photographs looked at twice"


def test_training_photographs_are_refused_as_a_test(own: RunFolder, bldml: Bldml) -> None:
    for path in photographs_of(own, "train"):
        place = Path("seen") / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    outcome = bldml("test", f"--ckpt_path={own.best_checkpoint}", "--data.root=seen", "--name=again", *CPU)
    assert outcome.code == 1
    assert not own.evaluation("again").exists()


def test_other_photographs(own: RunFolder, bldml: Bldml) -> None:
    write_leaves(Path("site"), images_per_class=4, size=96, seed=99)
    assert role(evaluate(bldml, own, "test", "--data.root=site", "--name=val_of_site"), "val_of_site") == (
        "external",
        NONE,
    )
    for path in photographs_of(own, "test")[:3]:
        shutil.copy(path, Path("site") / path.parent.name / f"own_{path.name}")
    found, known = role(evaluate(bldml, own, "test", "--data.root=site", "--name=both"), "both")
    assert (found, known) == ("mixed", NONE | {"test": 3})
    assert role(evaluate(bldml, own, "predict", "--data.root=site", "--name=field"), "field")[0] == "unlabelled"


def test_a_checkpoint_alone_tells_what_it_has_seen(own: RunFolder, bldml: Bldml) -> None:
    write_leaves(Path("site"), images_per_class=4, size=96, seed=99)
    Path("handed").mkdir()
    shutil.copy(own.best_checkpoint, "handed/best.ckpt")
    outcome = bldml("test", "--ckpt_path=handed/best.ckpt", "--data.root=site", *CPU)
    assert outcome.code == 0, outcome.err
    assert role(read_run(RunFolder(Path("handed"))), "site") == ("external", {"seen": 0})
