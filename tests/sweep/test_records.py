"""What an experiment must not forget is read whole or refused, whatever happened to its files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bldml.errors import RunError
from bldml.io.locks import OUTPUT_LOCK, Lock
from bldml.run.digests.content import digest_of_file
from bldml.run.digests.record import environment_text, write_provenance
from bldml.run.folder import RunFolder
from bldml.run.predictions import digest_of_predictions, read_predictions
from bldml.run.provenance import Provenance
from bldml.sweep.array import queued_runs
from bldml.sweep.opening import choose, value_of
from bldml.sweep.plan import SweepFolder, ensembles_elsewhere, opened_note, read_plan, write_plan
from bldml.sweep.records import read_record, write_record
from bldml.sweep.states import manifests_to_read
from tests.support import Bldml, mistake
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


@pytest.fixture
def sealed(sweep: SweepFolder) -> SweepFolder:
    """Runs that record the SHA-256 of what they wrote, and a test set that is not open yet."""
    for path in sweep.path.glob("lightning_logs/*"):
        run = RunFolder(path)
        run.best_checkpoint.parent.mkdir()
        run.best_checkpoint.touch()
        (path / "leaks.csv").write_text("kind,split,partner_split\n")
        texts = {name: (path / name).read_text() for name in ("leaks.csv", "config.yaml", "splits.csv")}
        run.environment.write_text(environment_text({"versions": {}}, texts))
        write_evaluation(run, "test")
    sweep.opened.unlink()
    sweep.final.parent.mkdir()
    for manifest in (sweep.manifest(0), sweep.final):
        manifest.write_text("path,label,group,split\na.jpg,BLD,tree 1,test\n")
    digests = {path.name: digest_of_file(path) for path in (sweep.manifest(0), sweep.final)}
    write_plan(sweep, replace(read_plan(sweep), digests=digests))
    (sweep.path / "e.yaml").touch()
    return sweep


def write_evaluation(run: RunFolder, name: str) -> None:
    rows = read_predictions(run.evaluation("test") / "predictions.csv")
    write_provenance(
        run.evaluation(name), Provenance("test", split="test", sha256={"predictions": digest_of_predictions(rows)})
    )


def collected(sweep: SweepFolder, bldml: Bldml) -> str:
    outcome = bldml("sweep", sweep.path / "e.yaml", f"--output={sweep.path}", "--collect")
    assert outcome.code == 0
    return outcome.out


def change(path: Path, old: str = ",tree 1,", new: str = ",tree 3,") -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_run_whose_predictions_were_changed_is_said_and_in_no_ensemble(sealed: SweepFolder, bldml: Bldml) -> None:
    """Its table was pooled, and an ensemble chose its threshold on it, without a word."""
    run = sealed.run("b-seed1-fold0")
    assert "not as they were written" not in collected(sealed, bldml)
    change(run.evaluation("test") / "predictions.csv")
    said = "b-seed1-fold0: test: the rows of predictions.csv are not those that were written"
    out = collected(sealed, bldml)
    assert "Files are not as they were written, so figures of this page may be wrong." in out
    assert said in out
    assert said in (sealed.path / "sweep.html").read_text()
    outcome = bldml("ensemble", sealed.path / "b")
    assert outcome.mistake == "ensemble-run-changed"
    assert said.removeprefix("b-seed1-fold0: ") in outcome.err
    assert "Repeat the evaluation: python -m bldml test " in outcome.err
    change(run.config, "val_auroc", "val_loss")
    assert "Restore the file from a copy, or train" in bldml("ensemble", sealed.path / "b").err


def second_evaluation(run: RunFolder) -> None:
    """As a killed `test --name other` leaves it."""
    shutil.copytree(run.evaluation("test"), run.evaluation("other"))
    (run.evaluation("other") / "provenance.json").unlink()


def edited_evaluation(run: RunFolder) -> None:
    shutil.copytree(run.evaluation("test"), run.evaluation("other"))
    change(run.evaluation("other") / "predictions.csv")
    change(run.evaluation("other") / "provenance.json", '"role": "test"', '"role": "external"')


@pytest.mark.parametrize(
    "damage", [second_evaluation, edited_evaluation, lambda run: (run.path / "leaks.csv").unlink()]
)
def test_a_file_that_is_not_used_accuses_nobody(
    sealed: SweepFolder, bldml: Bldml, damage: Callable[[RunFolder], None]
) -> None:
    damage(sealed.run("b-seed1-fold0"))
    assert "not as they were written" not in collected(sealed, bldml)
    assert bldml("ensemble", sealed.path / "b").mistake == "checkpoint-damaged", "the empty one of this test"


def test_a_run_in_the_middle_of_writing_is_no_changed_one(sealed: SweepFolder, bldml: Bldml) -> None:
    """Its metrics are there before its provenance, and this before the line of the ledger."""
    run = sealed.run("b-seed1-fold0")
    (run.evaluation("test") / "provenance.json").write_text('{"role": "test"}')
    assert "provenance.json is missing or records no SHA-256" in collected(sealed, bldml)
    with Lock(run.path / OUTPUT_LOCK):  # test RUN is writing it
        assert "provenance.json is missing" not in collected(sealed, bldml)
        assert bldml("ensemble", sealed.path / "b").mistake == "ensemble-runs-unfinished"
    (run.path / "stretches.json").write_text('{"stretches": [{"phase": "test"}]}')
    assert "provenance.json is missing" not in collected(sealed, bldml)
    assert bldml("ensemble", sealed.path / "b").mistake == "ensemble-runs-unfinished"


def test_no_configuration_is_chosen_by_changed_predictions(sealed: SweepFolder) -> None:
    """The choice for the test set is recorded and cannot be undone."""
    plan = read_plan(sealed)
    assert choose(sealed, plan).configuration == "b"
    table = sealed.run("b-seed1-fold0").evaluation("test") / "predictions.csv"
    before = table.read_text()
    for old, new, said in ((",tree 1,", ",tree 3,", "the rows of predictions.csv are"), (",0.", ",0.0", "brier is")):
        change(table, old, new)
        with mistake("sweep-choice-doubtful") as caught:
            choose(sealed, plan)
        assert "b-seed1-fold0: " in str(caught.value)
        assert said in str(caught.value)
        table.write_text(before)
    change(table)
    write_record(sealed.opened, OPENED)
    assert choose(sealed, plan).how == "metric", "it was chosen before"


def test_a_changed_manifest_is_said_and_refused_where_it_is_read(sealed: SweepFolder, bldml: Bldml) -> None:
    """A bit of a group or of a split was another division for the runs that were left."""
    plan = read_plan(sealed)
    assert manifests_to_read(sealed, plan) == set(), "all runs are finished"
    (sealed.run("a-seed1-fold0").path / "stretches.json").unlink()
    assert manifests_to_read(sealed, plan) == {"fold0.csv"}
    searched = replace(plan, search={"trials": 9, "folds": [0, 1]})
    assert manifests_to_read(sealed, searched) == {"fold0.csv", "fold1.csv"}
    change(sealed.manifest(0), "tree 1", "tree 3")
    out = collected(sealed, bldml)
    assert "folds/fold0.csv is missing or was changed since it was made" in out
    assert "Files are not as they were written" not in out
    assert bldml("ensemble", sealed.path / "b").mistake == "checkpoint-damaged"
    write_record(sealed.run("a-seed1-fold0").path / "stretches.json", {"stretches": [{"phase": "finished"}]})
    open_it = ("sweep", sealed.path / "e.yaml", f"--output={sealed.path}", "--open_test")
    change(sealed.final, "tree 1", "tree 3")
    assert bldml(*open_it).mistake == "sweep-manifest-changed"
    assert bldml("ensemble", sealed.path / "b").mistake == "sweep-manifest-changed"


@pytest.mark.parametrize("digests", [{"../x": "a"}, {"": "a"}, {"final.csv": 1}, [], None, "a", 3])
def test_a_plan_with_digests_of_other_files_is_refused(sweep: SweepFolder, digests: object) -> None:
    content = json.loads(sweep.plan.read_text())
    assert "digests" not in content, "an older version would not know them"
    del content["sha256"]
    sweep.plan.write_text(json.dumps({**content, "digests": digests}))
    with mistake("plan-damaged"):
        read_plan(sweep)
