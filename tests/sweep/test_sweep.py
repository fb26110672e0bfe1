"""Experiments through the command line: every run once, whatever is killed, started again, at once, or extended."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bldml.dataset.manifest import read_manifest
from bldml.inference.classifier import load
from bldml.io.documents import load_yaml
from bldml.run.predictions import read_predictions
from bldml.sweep.ensemble.members import check_same, read_ingredients
from bldml.sweep.experiment import Division
from bldml.sweep.folds import Photographs, make_folds
from bldml.sweep.plan import SweepFolder, read_plan, write_plan
from bldml.sweep.results.opened import looks_of_ensembles
from bldml.sweep.review.command import LabelSource
from bldml.sweep.review.maps import unseen_maps
from tests.prepared import Prepared
from tests.sameness import checkpoint, flat
from tests.support import Bldml, mistake
from tests.sweep.bench import ONE, Bench


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, leaves: Path) -> Bench:
    """An experiment that nobody interrupted."""
    bench = Bench(tmp_path_factory.mktemp("sweep") / "done", leaves)
    code, said = bench.complete("--jobs=2")
    assert code == 0, said
    return bench


def assert_same_results(run: Path, reference: Path) -> None:
    """Whether two runs of one plan in two folders came to the same, bit for bit; only their paths differ."""
    files = [
        f"evaluations/{split}/{name}"
        for split in ("train", "val", "test")
        for name in ("predictions.csv", "metrics.json")
    ]
    for name in ("history.csv", *files):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = checkpoint(run / "checkpoints" / name), checkpoint(reference / "checkpoints" / name)
        for key in ("epoch", "global_step", "state_dict", "optimizer_states"):
            assert flat(ours[key], run) == flat(theirs[key], reference), f"{name}: {key}"
    evaluations = [
        [line.split(",")[1] for line in (one / "ledger.csv").read_text().splitlines()] for one in (run, reference)
    ]
    assert evaluations[0] == evaluations[1], "no photograph was looked at twice"


def test_a_fold_is_the_test_split_of_its_run_and_the_rest_is_sealed(done: Bench) -> None:
    assert done.runs() == ["a_seed1_fold0", "a_seed1_fold1"]
    tested = []
    for fold in (0, 1):
        manifest = read_manifest(done.sweep.manifest(fold), done.folder / "leaves")
        assert {split: len({s.class_name for s in part}) for split, part in manifest.splits.items()} == {
            "train": 2, "val": 2, "test": 2,
        }  # fmt: skip
        predictions = done.sweep.run(f"a_seed1_fold{fold}").evaluation("test") / "predictions.csv"
        names = {line.split(",")[0] for line in predictions.read_text().splitlines()[1:]}
        assert names == {sample.name for sample in manifest.splits["test"]}
        tested.append(names)
        everything = {sample.name for sample in manifest.samples()}
    assert not tested[0] & tested[1]
    assert tested[0] | tested[1] == everything
    assert 0 < len(everything) < 60, "a test set is in none of them"
    assert [state.state for state in done.states().values()] == ["finished"] * 2


def test_what_the_runs_show_together_and_that_they_are_no_rivals(done: Bench, bldml: Bldml) -> None:
    assert (done.sweep.path / "sweep.html").is_file(), "written when all runs are finished"
    code, said = done.complete("--collect")
    assert (code, "a: " in said, "1 seed × 2 folds" in said) == (0, True, True), said
    with (done.sweep.path / "out_of_fold" / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    everything = [sample.name for sample in read_manifest(done.sweep.manifest(0), done.folder / "leaves").samples()]
    assert sorted(row["path"] for row in rows) == sorted(everything)
    refused = bldml("compare", *(done.sweep.run(name).path for name in done.runs()))
    assert (refused.mistake, refused.fields["key"]) == ("runs-are-replicates", "data.manifest")


def test_a_second_start_does_nothing_and_an_edited_experiment_is_refused(done: Bench) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.sweep.path.rglob("*") if "lightning_logs" in path.parts}
    code, said = done.complete()
    assert (code, "started" in said) == (0, False), said
    try:
        for text, found in (
            (ONE.replace("folds: 2", "folds: 3"), "folds.number: 2 before, 3 now"),
            (ONE.replace("{name: a}", "{name: a, model.lr: 0.5}"), "a: model.lr: not set before, 0.5 now"),
            (ONE.replace("seeds: [1]", "seeds: [2]"), "2 runs are missing now"),
        ):
            done.write(text)
            code, said = done.complete()
            assert (code, found in said) == (2, True), said
        done.write(ONE)
        base = (done.folder / "base.yaml").read_text()
        (done.folder / "base.yaml").write_text(base.replace("max_epochs: 8", "max_epochs: 9"))
        code, said = done.complete()
        assert (code, "trainer.max_epochs: 8 before, 9 now" in said) == (2, True), said
    finally:
        done.write(ONE)
        (done.folder / "base.yaml").write_text(base)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_wall_time_without_progress_is_refused_before_anything_is_submitted(done: Bench) -> None:
    (done.folder / "short.sbatch").write_text("#!/bin/bash\n#SBATCH --time=2 --signal=SIGUSR1@120\nsrun true\n")
    code, said = done.complete("--output=short", "--slurm=short.sbatch")
    assert (code, "short.sbatch: --time and --signal=SIGUSR1@120 leave no time" in said) == (1, True), said
    assert not (done.folder / "short" / "slurm").exists()


def test_the_test_set_is_opened_once_for_one_configuration(done: Bench) -> None:
    done.sweep.opened.write_text('{"configuration": "other", "time": "2026-01-01T00:00:00+00:00"}')
    code, said = done.complete("--open_test")
    assert (code, "was opened for other on 2026-01-01" in said) == (1, True), said
    assert not done.sweep.run("a_seed1_final").path.exists()
    done.sweep.opened.unlink()
    # By processes that Python starts, as a user's are.
    code, said = done.complete("--open_test", program="tests.three_layers")
    assert code == 0, said
    opened = json.loads(done.sweep.opened.read_text())
    assert (opened["configuration"], opened["how"]) == ("a", "metric")
    predictions = done.sweep.run("a_seed1_final").evaluation("test") / "predictions.csv"
    names = {line.split(",")[0] for line in predictions.read_text().splitlines()[1:]}
    folds = {
        s.name for fold in (0, 1) for s in read_manifest(done.sweep.manifest(fold), done.folder / "leaves").samples()
    }
    everything = {
        path.relative_to(done.folder / "leaves").as_posix() for path in (done.folder / "leaves").rglob("*.jpg")
    }
    assert names == everything - folds
    assert "Test set, opened once" in (done.sweep.path / "sweep.html").read_text()
    assert done.complete("--open_test")[0] == 0
    assert done.starts("a_seed1_final") == 1


def test_killed_started_twice_and_extended_by_one_that_fails(bench: Bench, done: Bench) -> None:
    first, second = done.runs()
    process = bench.start()
    bench.wait_for(lambda: bench.epochs(first) > 0)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "To resume, run the same command again." in said
    assert {name: one.state for name, one in bench.states().items()} == {first: "interrupted", second: "missing"}
    # A kill of the sweep alone leaves its run running, which the next start leaves alone.
    process = bench.start()
    bench.wait_for(lambda: bench.states()[first].state == "finished" and bench.epochs(second) > 0)
    process.kill()
    process.communicate()
    assert bench.states()[second].state == "running"
    both = bench.start(), bench.start("--jobs=2")
    told = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [bench.starts(name) for name in (first, second)] == [2, 1], "one was resumed, the other never started again"
    for name in (first, second):
        assert_same_results(bench.sweep.run(name).path, done.sweep.run(name).path)

    before = {name: bench.starts(name) for name in (first, second)}
    bench.write(ONE.replace("{name: a}", "{name: a}, {name: b, model.lr: 1.0e+38}"))
    both = bench.start(), bench.start("--jobs=2")
    told = [process.communicate(timeout=600)[0] for process in both]
    states = bench.states()
    assert [process.returncode for process in both] == [1, 1], told
    assert {name: states[name].state for name in bench.runs()} == {
        first: "finished", "b_seed1_fold0": "failed", second: "finished", "b_seed1_fold1": "failed",
    }  # fmt: skip
    assert "2 runs of 4 failed: b_seed1_fold0, b_seed1_fold1" in told[0]
    assert states["b_seed1_fold0"].reason in told[0]
    assert before == {name: bench.starts(name) for name in before}
    assert bench.starts("b_seed1_fold0") == 1, "the two started it once together"
    # Its failure was recorded while the clock was ahead, or another machine's is.
    os.utime(bench.sweep.code("b_seed1_fold0"), (4e9, 4e9))
    bench.start().communicate(timeout=600)
    assert [bench.starts(f"b_seed1_fold{fold}") for fold in (0, 1)] == [2, 2]


@pytest.fixture(scope="module")
def ensemble(done: Bench) -> Path:
    """The two folds of the experiment as one classifier."""
    said = run_here("ensemble", done.sweep.path / "a", folder=done.folder)
    assert said[0] == 0, said
    return done.sweep.path / "ensembles" / "a"


def run_here(*arguments: str | Path, folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.three_layers", *map(str, arguments)]
    process = Prepared(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_an_ensemble_gives_the_mean_by_hand(done: Bench, ensemble: Path) -> None:
    photographs = sorted(str(path) for path in (done.folder / "leaves").rglob("*.jpg"))[:9]
    classifier, members = load(ensemble), [load(done.sweep.run(name).path) for name in done.runs()]
    temperature = classifier.header.temperature
    ours = [logit(one.probability) * temperature for one in classifier.predict(photographs)]
    theirs = [[logit(one.probability) for one in member.predict(photographs)] for member in members]
    assert ours == pytest.approx([sum(pair) / 2 for pair in zip(*theirs, strict=True)], abs=1e-5)
    # Its own photographs out of fold, each judged by the one network that did not learn from it.
    rows = {row.path: row for row in read_predictions(ensemble / "evaluations" / "out_of_fold" / "predictions.csv")}
    pooled = [
        row
        for name in done.runs()
        for row in read_predictions(done.sweep.run(name).evaluation("test") / "predictions.csv")
    ]
    assert len(rows) == len(pooled)
    for row in pooled:
        assert logit(rows[row.path].probability) * temperature == pytest.approx(logit(row.probability), abs=1e-9)
    # Its distance is the mean of theirs, and the largest one out of fold is the limit: there are few units.
    limit = max(row.distance or 0 for row in pooled)
    assert limit > 0
    for row in pooled:
        assert (rows[row.path].distance or 0) * limit == pytest.approx(row.distance, rel=1e-9)
    for at, one in enumerate(classifier.predict(photographs)):
        both = [member.predict(photographs[at]).distance or 0 for member in members]
        assert (one.distance or 0) * limit == pytest.approx(sum(both) / 2, rel=1e-4)
    for command in (("predict", "leaves"), ("explain", "leaves", "--output=maps"), ("report",)):
        outcome = run_here(command[0], ensemble, *command[1:], folder=done.folder)
        assert outcome[0] == 0, outcome
    page = (ensemble / "report.html").read_text()
    assert "judged by the networks of the ensemble that did not learn from it" in page
    assert "epoch and operating point were chosen" not in page
    # Its test split is the sealed one; it knows what its networks learned from, in another folder too.
    code, said = run_here("test", ensemble, folder=done.folder)
    assert (code, "test: 12 photographs" in said) == (0, True), said
    assert role_of(ensemble, "test") == "test"
    assert done.complete("--collect")[0] == 0
    page = " ".join((done.sweep.path / "sweep.html").read_text().split())
    assert "An ensemble of this experiment evaluated the sealed test set: " in page
    for row in pooled[:1] + pooled[-1:]:
        other = done.folder / "other" / row.path
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(done.folder / "leaves" / row.path, other)
    code, said = run_here("test", ensemble, "other", folder=done.folder)
    assert (code, "2 of 2 photographs are those of the training or validation split" in said) == (1, True), said
    assert len(looks_of_ensembles(done.sweep)) == 1


def role_of(run: Path, evaluation: str) -> str:
    role = json.loads((run / "evaluations" / evaluation / "provenance.json").read_text())["role"]
    assert isinstance(role, str)
    return role


def test_an_ensemble_of_seeds_has_their_split(done: Bench, tmp_path: Path) -> None:
    """Of two runs without folds, here the same run twice: it is that run, with its own val and test split."""
    sweep = SweepFolder(tmp_path / "seeds")
    first, (name, *_) = done.plan.runs[0], done.runs()
    runs = tuple(replace(first, name=f"a_seed{seed}", seed=seed, fold=None) for seed in (1, 2))
    sweep.path.mkdir()
    write_plan(sweep, replace(done.plan, runs=runs, folds=None, settings={}, digests={}))
    for run in runs:
        shutil.copytree(done.sweep.run(name).path, sweep.run(run.name).path)
    here = tmp_path / "elsewhere"
    code, said = run_here("ensemble", sweep.path, "--output", here, folder=done.folder)
    assert (code, "these figures are too good" in said) == (0, True), said
    assert looks_of_ensembles(sweep) == []
    code, said = run_here("test", here, folder=done.folder)
    assert code == 0, said
    assert [Path(look.ensemble).name for look in looks_of_ensembles(sweep)] == ["elsewhere"]
    there = done.sweep.run(name).path
    assert [role_of(here, one) for one in ("val", "test")] == ["validation", "test"]
    for split in ("val", "test"):
        tables = [
            {row.path: row for row in read_predictions(r / "evaluations" / split / "predictions.csv")}
            for r in (here, there)
        ]
        assert tables[0].keys() == tables[1].keys()
    page = (here / "report.html").read_text()
    assert "epoch and operating point were chosen on these photographs" in page


def test_what_is_no_ensemble_is_refused_and_leaves_nothing(done: Bench, ensemble: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(done.sweep.path, part, ignore=shutil.ignore_patterns("ensembles"))
    first, second = (SweepFolder(part).run(name) for name in done.runs())
    content = torch.load(second.best_checkpoint, weights_only=True)
    for arguments, expected, found in (
        (("nowhere",), 2, "no plan.json"),
        ((done.sweep.path / "b",), 2, "no configuration b. It has a"),
        ((done.sweep.path / "a",), 1, "exists already"),
        ((part / "a", "--output", first.path), 2, "is the folder of a run and stays as it is"),
        ((part / "a", "--output", done.folder / "leaves" / "new"), 2, "lies in the folder of the photographs, "),
    ):
        code, said = run_here("ensemble", *arguments, folder=done.folder)
        assert (code, found in said, "Traceback" in said) == (expected, True, False), said
    ingredients = read_ingredients(SweepFolder(part), read_plan(SweepFolder(part)), None)
    large = ingredients[1].checkpoint
    large = replace(large, header=replace(large.header, image_size=96))
    with mistake("ensemble-members-differ", key="image_size", found=96):
        check_same([ingredients[0], replace(ingredients[1], checkpoint=large)])
    content["bldml"]["image_size"] = 96
    torch.save(content, second.best_checkpoint)
    code, said = run_here("ensemble", part, folder=done.folder)
    assert (code, f"{done.runs()[1]} cannot be part of an ensemble" in said) == (1, True), said
    second.best_checkpoint.unlink()
    code, said = run_here("ensemble", part, folder=done.folder)
    assert (code, f"1 of 2 runs are not finished: {done.runs()[1]}" in said) == (1, True), said
    assert not (part / "ensembles").exists()
    code, said = run_here("fit", "--config=base.yaml", "--model.backbone=ensemble:three_layers*2", folder=done.folder)
    assert (code, "is not trained" in said) == (1, True), said


def rows_in(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_labels_are_looked_at_again_and_the_next_experiment_has_the_corrected_ones(
    done: Bench, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the page of labels to the manifest, in the same folds; what the runs learned from stays as it was."""
    monkeypatch.chdir(done.folder)
    output = done.sweep.path / "review" / "a"
    for named in (done.sweep.path / "a", done.sweep.path, done.sweep.path / "out_of_fold" / "a.csv"):
        shutil.rmtree(output, ignore_errors=True)
        outcome = bldml("review", named)
        assert (outcome.code, "not a sign that it is wrong" in outcome.out) == (0, True), outcome.err
        assert (output / "labels.html").is_file()
    page, table = (output / "labels.html").read_text(), rows_in(output / "labels.csv")
    assert str(done.folder) not in page
    assert page.count('alt="Heat map"') == page.count('alt="Photograph ') > 0
    assert len(table) == len(rows_in(done.sweep.path / "out_of_fold" / "a.csv"))
    shown = [row for row in table if row["reason"]]
    assert [line.split('data-path="')[1].split('"')[0] for line in page.split("<li ")[1:]] == [
        row["path"] for row in shown
    ]
    first, second, third = (row["path"] for row in table[:3])
    other = {"BLD": "No_BLD", "No_BLD": "BLD"}
    (done.folder / "confirmed.csv").write_text(
        f"path,verdict,label\n{first},reject,{other[table[0]['label']]}\n{second},not a leaf,\n"
        f"{third},confirm,{table[2]['label']}\n"
    )
    outcome = bldml("review", "confirmed.csv", done.sweep.path / "a")
    assert outcome.code == 0, outcome.err
    assert "3 photographs reviewed: 1 label confirmed, 1 changed" in outcome.out
    rows = {row["path"]: row for row in rows_in(output / "manifest.csv")}
    before = {row["path"]: row for row in rows_in(done.sweep.final)}
    assert rows.keys() == before.keys() - {second}
    changed = {path for path, row in rows.items() if row["label"] != before[path]["label"]}
    assert changed == {first}
    assert {path: row["split"] for path, row in rows.items()} == {p: before[p]["split"] for p in rows}
    for fold in (0, 1):
        tested = {row["path"] for row in rows_in(done.sweep.manifest(fold)) if row["split"] == "test"}
        assert {path for path, row in rows.items() if row["fold"] == str(fold)} == tested - {second}
    photographs = Photographs(done.folder / "leaves", output / "manifest.csv", None, 0.2, "BLD", "error")
    folds = make_folds(photographs, Division())
    assert {sample.name for sample in folds.sealed} == {p for p, row in rows.items() if row["split"] == "test"}

    (done.folder / "confirmed.csv").write_text(f"path,verdict,label\n{third},confirm,{table[2]['label']}\n")
    outcome = bldml("review", "confirmed.csv", done.sweep.path / "a")
    assert f"1 photograph that the manifest before this one had as reviewed, such as {first}, is not" in outcome.out
    said = outcome.out.split("another --output:\n")[1].split("1 photograph")[0]
    keys = {"data.root": str(done.folder / "leaves"), "data.manifest": str(output / "manifest.csv")}
    assert load_yaml(textwrap.dedent(said)) == {"options": keys, "folds": "manifest"}

    # The maps of a fold are of its own run, which has not learned from its photographs.
    name, other_name = done.runs()
    source = LabelSource.of(done.sweep.path / "a")
    of_fold = {row.path for row in read_predictions(done.sweep.run(name).evaluation("test") / "predictions.csv")}
    path = min(of_fold)
    maps, why = unseen_maps(source.contender, [path], source.root)
    both = [load(done.sweep.run(one).path).verdict_with_map(source.root / path)[1] for one in (name, other_name)]
    assert (why, np.array_equal(maps[path], both[0])) == ("", True)
    assert not np.array_equal(both[0], both[1])
    checkpoint_of = done.sweep.run(other_name).best_checkpoint
    checkpoint_of.rename(checkpoint_of.with_suffix(".gone"))
    outcome = bldml("review", done.sweep.path / "a")
    checkpoint_of.with_suffix(".gone").rename(checkpoint_of)
    assert (outcome.code, f"of {len(shown)} photographs have a heat map: " in outcome.out) == (0, True), outcome.err
    page = (output / "labels.html").read_text()
    assert page.count('alt="Heat map"') == sum(row["path"] in of_fold for row in shown) < page.count('alt="Photograph ')
    assert bldml("review", done.sweep.path / "a", "--sheet=0").code == 0
    assert "No label is contradicted" not in (output / "labels.html").read_text()
    sealed = next(path for path, row in before.items() if row["split"] == "test")
    (done.folder / "confirmed.csv").write_text(f"path,verdict,label\n{sealed},confirm,BLD\n")
    for words, expected in (
        (("confirmed.csv", done.sweep.path / "a"), "review-of-other-photographs"),
        (("confirmed.csv",), "experiment-missing"),
        ((done.sweep.path / "a", "--test=0.1"), "review-test-of-experiment"),
        ((done.sweep.path / "a", "--sheet=5000"), "label-sheet-wrong"),
        (("confirmed.csv", done.sweep.path / "a", "--sheet=9"), "review-sheet-not-made"),
        (("a", "b", "c", "d"), "review-inputs-too-many"),
    ):
        assert bldml("review", *words).mistake == expected
