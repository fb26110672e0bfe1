"""What an experiment must not forget is read whole or refused, whatever happened to its files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bldml.errors import RunError
from bldml.run.digests.content import digest_of_file
from bldml.run.digests.record import write_provenance
from bldml.run.folder import RunFolder
from bldml.run.predictions import digest_of_predictions, read_predictions
from bldml.run.provenance import Provenance
from bldml.sweep.array import queued_runs
from bldml.sweep.opening import value_of
from bldml.sweep.plan import SweepFolder, ensembles_elsewhere, opened_note, read_plan, write_plan
from bldml.sweep.records import read_record, write_record
from tests.support import Bldml
from tests.sweep.experiments import write_experiment

OPENED = {"schema": 1, "configuration": "b", "how": "metric", "time": "2026-01-02T03:04:05+00:00", "values": {"b": 0.9}}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    sweep = write_experiment(tmp_path / "sweep", {"a": 1.0, "b": 1.5}, seeds=(1,), folds=2)
    write_record(sweep.opened, OPENED)
    write_record(sweep.ensembles_elsewhere, {"schema": 1, "paths": ["/elsewhere/b"]})
    (sweep.path / "slurm").mkdir()
    for run in sweep.path.glob("lightning_logs/*"):
        (run / "stretches.json").write_text('{"stretches": [{"phase": "finished"}]}')
    return sweep


def test_a_changed_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "opened.json"
    write_record(path, OPENED)
    before, refused = path.read_bytes(), 0
    assert read_record(path, "it") == OPENED
    for bit in range(0, len(before) * 8, 5):
        content = bytearray(before)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            # A document whose checksum has another name is one of an older version, with one more entry.
            assert {key: value for key, value in read_record(path, "it").items() if key in OPENED} == OPENED
        except RunError:
            refused += 1
    assert refused > len(before)


def make_folder_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "zeros": lambda path: path.write_bytes(bytes(80)),
    "no mapping": lambda path: path.write_text("[]"),
    "nothing in it": lambda path: path.write_text("{}"),
    "another type": lambda path: path.write_text('{"configuration": 7, "paths": {}, "arrays": []}'),
    "deep": lambda path: path.write_text('{"a": ' + "[" * 900 + "]" * 900 + "}"),
    "folder": make_folder_of,
    "link": link_to_nothing,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_where_it_is_read(sweep: SweepFolder, damage: str) -> None:
    arrays = sweep.path / "slurm" / "arrays.json"
    write_record(arrays, {"schema": 1, "arrays": {"17": ["a-seed1-fold0"]}})
    plan = read_plan(sweep)
    readers: dict[Path, Callable[[], object]] = {
        sweep.opened: lambda: opened_note(sweep, plan),
        sweep.ensembles_elsewhere: lambda: ensembles_elsewhere(sweep),
        arrays: lambda: queued_runs(sweep),
        sweep.plan: lambda: read_plan(sweep),
    }
    for path, read in readers.items():
        DAMAGES[damage](path)
        with pytest.raises(RunError) as caught:
            read()
        assert caught.value.code == "sweep-record-damaged"


def test_a_damaged_opened_json_is_no_sealed_test_set(sweep: SweepFolder, bldml: Bldml) -> None:
    sweep.opened.write_text(sweep.opened.read_text().replace('"b"', '"a"'))
    (sweep.path / "e.yaml").touch()
    for option in ("--status", "--collect"):
        outcome = bldml("sweep", sweep.path / "e.yaml", f"--output={sweep.path}", option)
        assert (outcome.code, outcome.mistake) == (1, "sweep-record-damaged")
        assert "opened.json was damaged or changed: its checksum is not that of its content" in outcome.err
    assert not (sweep.path / "sweep.html").exists()


def test_an_ensemble_does_not_write_over_a_damaged_list_of_the_others(sweep: SweepFolder, bldml: Bldml) -> None:
    sweep.ensembles_elsewhere.write_text("{")
    assert bldml("ensemble", sweep.path / "b").mistake == "sweep-record-damaged"
    assert sweep.ensembles_elsewhere.read_text() == "{"


def test_records_of_an_older_version_have_no_checksum(sweep: SweepFolder) -> None:
    plan = read_plan(sweep)
    for path in (sweep.plan, sweep.opened):
        content = json.loads(path.read_text())
        del content["sha256"]
        path.write_text(json.dumps(content))
    assert read_plan(sweep) == plan
    assert opened_note(sweep, plan) == OPENED
    sweep.opened.write_text('{"configuration": "c", "time": "2026-01-01"}')
    with pytest.raises(RunError, match="was opened for c on 2026-01-01, but the experiment has only a, b"):
        opened_note(sweep, plan)
    sweep.plan.write_text(sweep.plan.read_text().replace('"auroc"', "7"))
    with pytest.raises(RunError, match="its metric is 7"):
        read_plan(sweep)


def test_a_metric_of_a_damaged_document_is_none(sweep: SweepFolder) -> None:
    run = sweep.run("a-seed1-fold0")
    assert value_of(run, "test", "sensitivity") is not None
    (run.evaluation("test") / "metrics.json").write_text('{"at_threshold": "x"}')
    assert value_of(run, "test", "sensitivity") is None


def test_a_run_whose_predictions_were_changed_is_said_and_in_no_ensemble(sweep: SweepFolder, bldml: Bldml) -> None:
    """Its table was pooled, and an ensemble chose its threshold on it, without a word."""
    run = sweep.run("b-seed1-fold0")
    for path in sweep.path.glob("lightning_logs/b-*"):
        RunFolder(path).best_checkpoint.parent.mkdir()
        RunFolder(path).best_checkpoint.touch()
    rows = read_predictions(run.evaluation("test") / "predictions.csv")
    write_provenance(
        run.evaluation("test"), Provenance("test", split="test", sha256={"predictions": digest_of_predictions(rows)})
    )
    sweep.opened.unlink()
    (sweep.path / "e.yaml").touch()
    collect = ("sweep", sweep.path / "e.yaml", f"--output={sweep.path}", "--collect")
    before = bldml(*collect)
    assert before.code == 0
    assert "not as they were written" not in before.out
    table = run.evaluation("test") / "predictions.csv"
    table.write_text(table.read_text().replace(",tree 1,", ",tree 3,", 1))
    after = bldml(*collect)
    said = "b-seed1-fold0: test: the rows of predictions.csv are not those that were written"
    assert "Files are not as they were written, so figures of this page may be wrong." in after.out
    assert said in after.out
    assert said in (sweep.path / "sweep.html").read_text()
    outcome = bldml("ensemble", sweep.path / "b")
    assert outcome.mistake == "ensemble-run-changed"
    assert said.removeprefix("b-seed1-fold0: ") in outcome.err


def test_a_changed_manifest_of_the_folds_is_refused_and_said(sweep: SweepFolder, bldml: Bldml) -> None:
    """A bit of a group or of a split was another division for the runs that were left."""
    sweep.final.parent.mkdir()
    sweep.manifest(0).write_text("path,label,group,split\na.jpg,BLD,tree 1,test\n")
    write_plan(sweep, replace(read_plan(sweep), digests={"fold0.csv": digest_of_file(sweep.manifest(0))}))
    sweep.opened.unlink()
    (sweep.path / "e.yaml").touch()
    sweep.manifest(0).write_text(sweep.manifest(0).read_text().replace("tree 1", "tree 3"))
    assert bldml("sweep", sweep.path / "e.yaml", f"--output={sweep.path}", "--open_test").mistake == (
        "sweep-manifest-changed"
    )
    assert bldml("ensemble", sweep.path / "b").mistake == "sweep-manifest-changed"
    outcome = bldml("sweep", sweep.path / "e.yaml", f"--output={sweep.path}", "--collect")
    assert "folds/fold0.csv is missing or was changed since it was made" in outcome.out
