"""Where a set comes from, and who has looked at it before, through the real command line."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.run.reader import read_run
from tests.report.pages import Page
from tests.support import THREE_LAYERS, Bldml

CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0", "--report=false")


@pytest.fixture
def own(run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run of all tests, with the ledger of its fit only and a site in its card."""
    copy = RunFolder(Path(shutil.copytree(run, tmp_path / "logs" / "own")))
    rows = copy.ledger.read_text().splitlines()
    copy.ledger.write_text("\n".join(rows[:4]) + "\n")
    copy.config.write_text(copy.config.read_text().replace("  site: null", "  site: Kent 2020"))
    for path in (copy.path / "evaluations").iterdir():
        if path.name not in ("train", "val", "test"):
            shutil.rmtree(path)
    return copy


def page_of(run: RunFolder, bldml: Bldml) -> Page:
    outcome = bldml("report", run.path)
    assert outcome.code == 0, outcome.err
    return Page(run.path / "report.html")


def test_only_people_know_where_a_set_comes_from(own: RunFolder, bldml: Bldml) -> None:
    write_leaves(Path("site"), images_per_class=4, size=96, seed=99)
    test = ("test", f"--ckpt_path={own.best_checkpoint}", *CPU)
    assert bldml(*test, "--data.root=site").code == 0
    unstated = "whether it comes from another place is not stated"
    assert f"Only 1 external set was evaluated: {unstated}." in page_of(own, bldml).words
    assert bldml(*test, "--data.root=site", "--name=again", "--site=  Ohio   2024 ").code == 0
    document = json.loads((own.evaluation("again") / "provenance.json").read_text())
    assert document["site"] == "Ohio 2024"
    page = page_of(own, bldml)
    stated = "from Ohio 2024, as stated with --site; those of the run from Kent 2020, as stated in its card."
    assert f"Only 1 external set was evaluated: {stated}" in page.words, "two names, one set"
    assert f"none of its photographs belongs to this run. They are {stated}" in page.words
    assert unstated not in page.words
    with (own.path / "tables/run/photographs.csv").open(encoding="utf-8", newline="") as file:
        sets = [row["Set"] for row in csv.DictReader(file)]
    assert sets == ["train", "val", "test", "site, again (external)"]
    assert "external, the same photographs as site, from Ohio 2024" in page.words


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), "site-of-own-photographs"),
        (("--data.root=moved",), "site-of-own-split"),
        (("--data.root=moved", "--site= "), "site-empty"),
    ],
)
def test_the_runs_own_site_is_that_of_the_card(
    options: tuple[str, ...], code: str, own: RunFolder, bldml: Bldml
) -> None:
    root = Path(json.loads((own.evaluation("test") / "provenance.json").read_text())["root"])
    for row in read_run(own).evaluations[0].rows:
        place = Path("moved") / row.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / row.path, place)
    outcome = bldml("test", f"--ckpt_path={own.best_checkpoint}", "--name=new", "--site=Ohio", *options, *CPU)
    assert (outcome.code, outcome.mistake) == (2, code)
    assert not own.evaluation("new").exists()


def test_looks_of_all_runs_of_the_folder_are_counted(own: RunFolder, bldml: Bldml) -> None:
    digest = read_run(own).evaluations[0].provenance.dataset_fingerprint
    assert "This set was evaluated" not in page_of(own, bldml).words
    for name, times in (("b", 5), ("c", 3)):
        other = RunFolder(own.path.parent / name)
        other.path.mkdir()
        for _ in range(times):
            append_entry(other, LedgerEntry("2026-01-01T00:00:00+00:00", "any", "test", digest, 12, "best.ckpt"))
        append_entry(other, LedgerEntry("2026-01-01T00:00:00+00:00", "else", "test", "ab" * 32, 12, "best.ckpt"))
    # Foreign and damaged neighbours.
    for name, content in (("d", b"\xff\x00,\n"), ("e", b"a,b\n1,2\n")):
        (own.path.parent / name).mkdir()
        (own.path.parent / name / "ledger.csv").write_bytes(content)
        (own.path.parent / name / "environment.json").write_bytes(content)
    (own.path.parent / "f" / "ledger.csv").mkdir(parents=True)
    (own.path.parent / "latest").symlink_to(own.path)
    outcome = bldml("test", f"--ckpt_path={own.best_checkpoint}", *CPU)
    sentence = "This set was evaluated 10 times, by 3 runs of this folder;"
    assert f"test: {sentence}" in outcome.out
    page = page_of(own, bldml)
    assert sentence in page.words.partition("Limits: performance")[0]
    assert "Test split. The search for duplicates and bursts found no relative of these photographs among the " in (
        page.words
    )
    with (own.path / "tables/run/ledger.csv").open(encoding="utf-8", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["Evaluation"] == "test"]
    assert (row["Times evaluated"], row["Times, all runs of the folder"], row["Runs"]) == ("2", "10", "3")


def test_half_a_line_of_a_ledger_is_said_to_be_perhaps_one_more_look(own: RunFolder, bldml: Bldml) -> None:
    """As a crash in the middle of a write leaves it: it counts for nothing, but is not passed over in silence."""
    whole = own.ledger.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    own.ledger.write_bytes(whole + last[: len(last) // 2])
    sentence = "1 line of the ledgers (ledger.csv) of the runs of this folder is not whole, as after a crash; it may "
    assert sentence in page_of(own, bldml).words
    outcome = bldml("test", f"--ckpt_path={own.best_checkpoint}", *CPU)
    assert outcome.code == 0
    assert sentence in outcome.out
    own.ledger.write_bytes(b"\0" * 500)
    outcome = bldml("report", own.path)
    assert outcome.code == 0
    assert sentence in page_of(own, bldml).words


def test_a_fit_may_leave_the_test_sealed(split_leaves: Path, bldml: Bldml) -> None:
    fit = ("fit", *THREE_LAYERS, f"--data.root={split_leaves}", "--trainer.max_epochs=1", "--unfreezing.stages=0")
    Path("own.yaml").write_text("model: {lr: 0.002}\noperating_point: {sensitivity: null}\n")
    options = ("--config=own.yaml", "--run_name=a", "--test_after_fit=false", "--data.batch_size", "8", "--report=true")
    assert bldml(*fit, *options).code == 0
    run = RunFolder(Path("lightning_logs/a"))
    assert {path.name for path in (run.path / "evaluations").iterdir()} == {"train", "val"}
    page = Page(run.path / "report.html")
    assert "The test set was not opened: no run of this folder records an evaluation of it." in page.words
    stated = set(json.loads(run.environment.read_text())["stated"])
    assert {"model.lr", "data.batch_size", "operating_point.sensitivity", "data.root"} <= stated
    assert not {"config", "model.weight_decay", "seed_everything"} & stated
    assert "Weight decay 0.0001 (default)" in page.words
    assert "Learning rate 0.002 Backbone" in page.words
    assert "The threshold was chosen by the default criterion; none was stated." in page.words

    outcome = bldml(*fit, "--run_name=b", "--operating_point.sensitivity=0.9", "--operating_point.assurance=0.9")
    assert outcome.code == 0
    assert "operating_point.assurance 0.9 of a sensitivity of at least 0.9 cannot be reached: with" in outcome.err
    assert "val: The threshold gives an assurance of" in outcome.out
    page = page_of(run, bldml)
    assert "but it was opened: its photographs were evaluated once, by b." in page.words
    assert "not opened" not in page.words
    assert "1 other run in the same folder uses the same validation photographs." in page.words
    words = page_of(RunFolder(Path("lightning_logs/b")), bldml).words
    assert "default criterion" not in words
    assert "sensitivity of at least 0.9 on new leaves with an assurance of 0.9" in words
    assert "The assurance of 0.9 that was asked for is not reached: 22 are needed" in words
