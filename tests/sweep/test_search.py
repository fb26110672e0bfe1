"""Searches through the command line: every trial once, whatever is killed; and what is refused before anything runs."""

import csv
import json
import math
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bldml.cli import main
from bldml.io.locks import Lock
from bldml.run.folder import RunFolder
from bldml.sweep.ensemble.command import make_ensemble
from bldml.sweep.plan import Trial, TrialState, find_experiment, write_plan
from bldml.sweep.search.pruning import Pruned, find_pruning
from bldml.sweep.search.study import Study, space_of
from bldml.sweep.states import is_finished, read_values
from tests.support import mistake
from tests.sweep.bench import Bench, write_good_trials

RANGES = """
    model.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
    unfreezing.stages: {low: 0, high: 3}
    data.augmentation.strength: {low: 0, high: 2.0}
    model.frozen_mode: [eval, train]
"""


def search(trials: int, ranges: str = RANGES, more: str = "") -> str:
    options = "{model.image_size: 32, trainer.max_epochs: 4, unfreezing.start_epoch: 0}"
    text = f"base: base.yaml\noptions: {options}\nseeds: [1]\nsearch:\n  trials: {trials}\n  ranges:{ranges}"
    return f"{text.rstrip()}\n  {more}\n"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, leaves: Path) -> Bench:
    """A search of two trials that nobody interrupted."""
    bench = Bench(tmp_path_factory.mktemp("search") / "done", leaves)
    bench.write(search(2))
    code, said = bench.complete()
    assert code == 0, said
    assert "2 of 2 trials: 2 complete." in said
    return bench


@pytest.fixture
def again(done: Bench, bench: Bench) -> Bench:
    """The finished search in a folder of its own, with the same photographs."""
    shutil.copytree(done.sweep.path, bench.sweep.path)
    return bench


def kill(pid: int) -> None:
    """Kill a process and those that it has started, as when a machine dies."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for number in (pid, *map(int, children)):
        os.kill(number, signal.SIGKILL)


def best_of(bench: Bench, trial: Trial) -> float:
    """The objective, from history.csv by hand."""
    found = []
    for run in bench.plan.of(trial.name):
        with bench.sweep.run(run.name).history.open(encoding="utf-8", newline="") as file:
            found.append(min(float(row["val_loss"]) for row in csv.DictReader(file)))
    return sum(found) / len(found)


def predictions(bench: Bench, name: str) -> bytes:
    return (bench.sweep.run(f"{name}_seed1").evaluation("val") / "predictions.csv").read_bytes()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="who the children of a process are")
def test_a_worker_that_is_killed_does_what_an_undisturbed_one_does(done: Bench, bench: Bench) -> None:
    bench.write(search(2))
    process = bench.start()
    bench.wait_for(lambda: bench.sweep.plan.exists() and bench.epochs("trial-0001_seed1") > 0)
    kill(process.pid)
    assert "interrupted" in bench.complete("--status")[1]
    code, said = bench.complete()
    assert code == 0, said
    assert bench.plan.trials == done.plan.trials
    for trial in done.plan.trials:
        assert predictions(bench, trial.name) == predictions(done, trial.name)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="who the children of a process are")
def test_two_workers_of_an_extended_search_of_which_one_is_killed(again: Bench) -> None:
    before = {name: again.starts(name) for name in again.runs()}
    again.write(search(4))
    processes = again.start(), again.start()
    again.wait_for(lambda: len(again.plan.trials) == 4)
    kill(processes[0].pid)
    said = processes[1].communicate(timeout=600)[0]
    assert processes[1].returncode == 0, said
    assert "4 of 4 trials: 4 complete." in said
    trials = again.plan.trials
    assert [trial.number for trial in trials] == list(range(4))
    assert len({json.dumps(trial.params) for trial in trials}) == 4
    for trial in trials:
        assert trial.value == pytest.approx(best_of(again, trial), abs=1e-12)
    starts = {name: again.starts(name) for name in again.runs()}
    assert {name: starts[name] for name in before} == before, "what was complete did not run again"
    assert all(is_finished(again.sweep.run(name)) for name in starts)
    assert sorted(starts.values())[:-1] == [1] * 3, "only the run of the killed worker was started twice"
    with (again.sweep.path / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], float(row["val_loss"])) for row in rows] == [(t.name, t.value) for t in trials]
    best = min(trials, key=lambda trial: trial.value or 0.0).name
    assert f"{best} has the best objective" in (again.sweep.path / "sweep.html").read_text()
    code, said = again.complete("--open_test")
    assert code == 0, said
    opened = json.loads(again.sweep.opened.read_text())
    assert (opened["configuration"], opened["how"]) == (best, "search")


def test_what_a_study_cannot_go_on_with_is_refused(
    again: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(again.folder)
    journal, ranges = again.sweep.study, "\n    data.augmentation.strength: {low: 0, high: 1.0}\n"
    content = journal.read_bytes()
    for text, code, found in (
        (search(3, ranges), 2, "search.ranges"),
        (search(3, more="seed: 1"), 2, "search.seed: 0 before, 1 now"),
        (search(3).replace("seeds: [1]", "seeds: [1, 2]"), 2, "search.seeds: [1] before, [1, 2] now"),
    ):
        again.write(text)
        assert main(["sweep", "tiny.yaml"]) == code
        assert found in capsys.readouterr().err
    again.write(search(3))
    for damaged, code, found in (
        (content.replace(b'"op_code":4', b'"op_code"4', 1), 1, "is damaged (line 3 is no record); it was not changed"),
        (content.replace(b'"seed":0', b'"seed":1', 1), 2, "is a study of another search: seed: 1 before, 0 now"),
        (content.replace(b'"study_name":"bldml"', b'"study_name":"mine"'), 2, "its study is called mine"),
        (None, 1, "has 0 trials, and plan.json beside it 2"),
    ):
        journal.unlink() if damaged is None else journal.write_bytes(damaged)
        assert main(["sweep", "tiny.yaml"]) == code
        assert found in capsys.readouterr().err
        assert damaged is None or journal.read_bytes() == damaged
    assert len(again.plan.trials) == 2


def test_no_trial_begins_when_the_hours_are_used(
    again: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(again.folder)
    again.write(search(4, more="hours: 1.0e-6"))
    assert main(["sweep", "tiny.yaml"]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 trials: 2 complete.\n" in said
    assert "of 1e-06 hours of training are used." in said
    assert len(again.plan.trials) == 2


def test_a_trial_that_fails_is_named_and_does_not_stop_the_others(bench: Bench) -> None:
    bench.write(search(2, "\n    model.lr: [1.0e-3, 1.0e+38]\n"))
    code, said = bench.complete()
    assert code == 0, said
    states = {trial.params["model.lr"]: trial for trial in bench.plan.trials}
    assert {value: trial.state for value, trial in states.items()} == {1e-3: "complete", 1e38: "failed"}
    assert f"{states[1e38].name} failed: {states[1e38].name}_seed1: " in said
    assert "Traceback" not in said


def test_a_trial_that_is_worse_than_the_median_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five trials, only histories are there, with values that no training reaches."""
    monkeypatch.chdir(bench.folder)
    text = search(6).replace("trainer.max_epochs: 4", "trainer.max_epochs: 400, early_stopping.patience: 400")
    bench.write(text)
    write_good_trials(Path("tiny.yaml"), bench.sweep)
    code, said = bench.complete()
    assert code == 0, said
    last = bench.plan.trials[5]
    assert last.state == "pruned", said
    assert "the median of 5 complete trials 0.0100" in last.reason
    assert "trial-0005: pruned: after epoch 2 of trial-0005_seed1, val_loss was" in said
    assert 2 < bench.epochs("trial-0005_seed1") < 400, "it was ended"
    assert bench.states()["trial-0005_seed1"].state == "pruned"
    code, said = bench.complete()
    assert (code, "started" in said or "resumed" in said) == (0, False), said
    for command in ("ensemble", "review"):
        with mistake("trial-not-complete", found="trial-0005"):
            find_experiment(bench.sweep.path / "trial-0005", command)
    with mistake("ensemble-trial-missing", expected="trial-0000"):
        make_ensemble(bench.sweep.path, None)


def test_a_prune_does_not_depend_on_when_somebody_looks() -> None:
    """Whenever a trial is judged while it grows: nothing yet, or what is found at its end."""
    numbers = np.random.default_rng(0)
    found = []
    for _ in range(200):
        trials = [[numbers.uniform(0, 1, numbers.integers(2, 8)).tolist() for _ in range(2)] for _ in range(6)]
        trial, others = trials[0], trials[1:]

        def judge(curves: list[list[float]], finished: int, others: list[list[list[float]]] = others) -> Pruned | None:
            return find_pruning(curves, others, finished=finished, warm_up=1, is_lower_better=True)

        at_end = judge(trial, 2)
        found.append(at_end)
        for run, curve in enumerate(trial):
            seen = [judge([*trial[:run], curve[:epochs]], run) for epochs in range(1, len(curve) + 1)]
            assert {*seen, judge(trial[: run + 1], run + 1)} <= {None, at_end}
        assert judge(trial, 2) == at_end
    assert {None, *(one.run for one in found if one)} >= {0, 1}


def test_the_test_set_stays_sealed_while_trials_are_left(
    again: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(again.folder)
    again.write(search(2))
    write_plan(again.sweep, replace(again.plan, search={**again.plan.search, "trials": 9}))
    assert main(["sweep", "tiny.yaml", "--open_test"]) == 1
    assert "2 of 9 trials of sweeps/tiny have begun" in capsys.readouterr().err
    assert not again.sweep.opened.exists()


def test_an_epoch_without_a_value_keeps_its_place(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.history.write_text("epoch,val_loss\n0,\n1,0.5\n2,0.9\n")
    assert read_values(run, "val_loss") == (3, [pytest.approx(math.nan, nan_ok=True), 0.5, 0.9])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trials: 0", "search.trials must be a whole number from 1"),
        ("hours: 0", "search.trials"),
        ("{trials: 3, hours: 0}", "search.hours must be a number above 0"),
        ("{trials: 3, ranges: {}}", "search.ranges is empty"),
        ("{trials: 3, ranges: {model.lr: []}}", "at least two values"),
        ("{trials: 3, ranges: {model.lr: {low: 1, high: 0.1}}}", "low must be below high, not 1 and 0.1"),
        ("{trials: 3, ranges: {model.lr: {low: 0, high: 0.1, log: true}}}", "with log, low must be above 0"),
        ("{trials: 3, ranges: {model.lr: {low: 0, hgh: 0.1}}}", "must be a range"),
        ("{trials: 3, ranges: {model.lrr: {low: 0.1, high: 0.2}}}", "model.lrr"),
        ("{trials: 3, ranges: {model.lr: {low: -0.1, high: 0.2}}}", "low ends of search.ranges"),
        ("{trials: 3, ranges: {model.backbone: [three_layers, resnet5], model.lr: [1, 2]}}", "resnet5"),
        ("{trials: 3, ranges: {trainer.max_epochs: {low: 1, high: 9}}}", "trainer.max_epochs is in search.ranges and"),
        ("{trials: 3, ranges: {unfreezing.stages: {low: 0, high: 1}}}", "has 2 different configurations, and trials"),
        ("{trials: 3, ranges: {data.positive_class: [BLD, No_BLD], model.lr: [1, 2]}}", "same photographs"),
        ("{trials: 3, ranges: {monitor: [val_loss, val_auroc], model.lr: [1, 2]}}", "compared by its value"),
        ("{trials: 3, ranges: {model.pos_weight: {low: 1.0, high: 9.0}}}", "val_loss is the training criterion"),
        ("{trials: 3, ranges: {seed_everything: {low: 1, high: 9}}}", "seeds are replicates"),
        ("{trials: 3, trails: 4}", "Did you mean trials?"),
        ("{trials: 3, ranges: {1: [2, 3], model.lr: [1, 2]}}", "cannot be used: "),
        ("{trials: 3, ranges: {trainer.logger: [true, false], model.lr: [1, 2]}}", "is to change no result"),
        ("{trials: 3}\nfolds: 2\nbaseline: true", "search or baseline, not both"),
        ("{trials: 3}\nbase: [base.yaml, plain.yaml]", "data.augmentation is null, so data.augmentation.strength"),
        ("40", "search must hold at least trials"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(
    done: Bench, text: str, found: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done.folder)
    value = text if text.startswith(("{", "4")) else f"{{{text}}}"
    options = "{model.image_size: 32, trainer.max_epochs: 4}"
    Path("plain.yaml").write_text("data: {augmentation: null}\n")
    base = "" if "base: [" in value else "base: base.yaml\n"
    Path("wrong.yaml").write_text(f"{base}options: {options}\nsearch: {value}\n")
    assert main(["sweep", "wrong.yaml"]) == 2
    said = capsys.readouterr().err
    assert found in said
    assert not (done.folder / "sweeps" / "wrong").exists()


def space(bench: Bench, folder: Path) -> tuple[Path, Any, Lock]:
    return folder / "study.journal", space_of(bench.plan), Lock(folder / "lock")


def test_what_is_proposed_depends_on_the_trials_before_alone(done: Bench, tmp_path: Path) -> None:
    """Also when TPE has enough of them; with a study that is opened once, and with one opened for each trial."""
    found: list[list[Mapping[str, Any]]] = []
    for name, often in (("once", False), ("often", True)):
        (tmp_path / name).mkdir()
        path, of, lock = space(done, tmp_path / name)
        study, params = Study(path, of, lock), []
        for number in range(16):
            if often:
                with path.open("ab") as file:
                    file.write(b'{"op_code":5,"wor')  # a kill in the middle of a line
                path.with_name("study.journal.lock").touch()
                study = Study(path, of, lock)
            trial = study.ask()
            params.append(trial.params)
            ended: TrialState = "pruned" if number % 5 == 4 else "failed" if number == 7 else "complete"
            study.tell(number, ended, float(trial.params["model.lr"]), "why", number)
        lock.close()
        found.append(params)
        assert [trial.state for trial in study.trials].count("pruned") == 3
    assert found[0] == found[1]
    assert len({json.dumps(params) for params in found[0]}) == 16
