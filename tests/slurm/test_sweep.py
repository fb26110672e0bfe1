"""An experiment as a job array on a real Slurm: preempted, asked for twice, and the same as on this machine."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bldml.sweep.experiment import read_experiment
from bldml.sweep.plan import SweepFolder, read_plan
from bldml.sweep.planning import plan_experiment
from bldml.sweep.states import is_finished
from tests.prepared import Prepared
from tests.sameness import checkpoint, flat
from tests.slurm.cluster import LARGE, Cluster, Job
from tests.slurm.fits import BACKBONE, Bench, own_script
from tests.support import REPOSITORY
from tests.sweep.bench import write_good_trials
from tests.sweep.experiments import write_run

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def sweep(
    cluster: Cluster, bench: Bench, *options: str, start: Callable[..., "subprocess.Popen[str]"] = Prepared
) -> str:
    """Type the command where the cluster's own commands are found."""
    process = start(
        [sys.executable, "-m", "bldml", "sweep", "tiny.yaml", *options],
        cwd=bench.folder, env={**cluster.environment, "PYTHONPATH": str(REPOSITORY), "BLDML_ENV": sys.prefix},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def test_the_trainings_for_the_test_set_are_jobs_that_are_submitted_once(cluster: Cluster, tmp_path: Path) -> None:
    """The runs of the folds are drawn; the one training for the test set is real."""
    bench = Bench(cluster, tmp_path / "bench")
    settings = {
        "model.backbone": BACKBONE, "model.weights": "none", "model.image_size": 64, "data.root": str(bench.leaves),
        "data.positive_class": "BLD", "data.num_workers": 0, "trainer.max_epochs": 1, "trainer.accelerator": "cpu",
        "trainer.precision": "32-true", "report": False,
    }  # fmt: skip
    experiment = {"options": settings, "configurations": [{"name": "a"}], "seeds": [1], "folds": 2, "chosen": "a"}
    (bench.folder / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    own_script(bench.folder, {"partition": "normal", "cpus-per-task": "1", "mem": "0", "time": "60"})
    folder = SweepFolder(bench.folder / "sweeps" / "tiny")
    plan = plan_experiment(read_experiment(bench.folder / "tiny.yaml"), folder)
    for run in plan.runs:
        write_run(folder, run, 2, 1.0)
        (folder.run(run.name).path / "stretches.json").write_text('{"stretches": [{"phase": "finished"}]}')
    said = sweep(cluster, bench, "--open_test", "--slurm=own.sbatch")
    assert "Submitted 1 training for the test set as job array" in said
    assert "Submitted" not in sweep(cluster, bench, "--open_test", "--slurm=own.sbatch"), "it is in the queue"
    assert "a_seed1_final" in sweep(cluster, bench, "--status")
    number = said.partition("job array ")[2].partition(".")[0]
    final = folder.run("a_seed1_final")
    Job(cluster, f"{number}_0").wait_until(lambda: is_finished(final), "the training ended")
    said = sweep(cluster, bench, "--open_test", "--slurm=own.sbatch")
    assert ("Submitted" in said, "On the test set, balanced_accuracy:" in said) == (False, True)
    assert (folder.path / "test.csv").is_file()
    looks = (final.path / "ledger.csv").read_text().count(",test,")
    assert looks == 1, "the test set was opened once"


def prepare(bench: Bench, experiment: str, epochs: int) -> None:
    """Write an experiment of small runs, and a script for one of them that fits this cluster."""
    base = {
        "model": {"backbone": BACKBONE, "weights": "none", "image_size": 64},
        "data": {"root": str(bench.leaves), "positive_class": "BLD", "batch_size": 8, "num_workers": 0},
        "early_stopping": {"patience": 100},
        "trainer": {"max_epochs": epochs, "accelerator": "cpu", "precision": "32-true"},
        "report": False,
    }
    (bench.folder / "base.yaml").write_text(yaml.safe_dump(base))
    (bench.folder / "tiny.yaml").write_text(f"base: base.yaml\n{experiment}\n")
    own_script(bench.folder, {"partition": "low", "cpus-per-task": str(LARGE), "mem": "0", "time": "60"})


def test_an_array_that_is_preempted_does_what_the_command_does_here(cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(cluster, tmp_path / "bench")
    prepare(bench, "configurations: [{name: a}]\nseeds: [1, 2]", 15)
    said = sweep(cluster, bench, "--slurm=own.sbatch")
    assert "Submitted 2 runs as job array" in said
    assert "Submitted" not in sweep(cluster, bench, "--slurm=own.sbatch"), "both are in the queue"
    number = said.partition("job array ")[2].partition(".")[0]
    folder = SweepFolder(bench.folder / "sweeps" / "tiny")
    first, second = [run.name for run in read_plan(folder).runs]
    jobs = [Job(cluster, f"{number}_{task}") for task in (0, 1)]
    jobs[0].wait_until(lambda: folder.run(first).history.is_file(), "its first epoch was recorded")
    cluster.preempt().wait_for("COMPLETED")
    jobs[0].wait_until(lambda: is_finished(folder.run(first)) and is_finished(folder.run(second)), "both ended")
    assert jobs[0].restarts + jobs[1].restarts > 0, "it was preempted"
    said = sweep(cluster, bench, "--slurm=own.sbatch")
    assert "Submitted" not in said
    assert "2 finished" in said

    said = sweep(cluster, bench, "--output=here", start=subprocess.Popen)
    reference = SweepFolder(bench.folder / "here")
    for name in (first, second):
        ours, theirs = folder.run(name), reference.run(name)
        assert ours.history.read_bytes() == theirs.history.read_bytes()
        files = [f"evaluations/{split}/predictions.csv" for split in ("train", "val")]
        assert [(ours.path / one).read_bytes() for one in files] == [(theirs.path / one).read_bytes() for one in files]
        assert not ours.evaluation("test").exists(), "the test set is sealed"
        weights = [checkpoint(one.best_checkpoint)["state_dict"] for one in (ours, theirs)]
        assert flat(weights[0], ours.path) == flat(weights[1], theirs.path)


def test_two_workers_of_a_search_of_which_one_is_preempted(cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(cluster, tmp_path / "bench")
    ranges = "{model.lr: {low: 1.0e-4, high: 1.0e-2, log: true}}"
    prepare(bench, f"seeds: [1]\nsearch: {{trials: 3, ranges: {ranges}}}", 12)
    said = sweep(cluster, bench, "--slurm=own.sbatch", "--jobs=2")
    assert "Submitted 2 workers as job array" in said
    number = said.partition("job array ")[2].partition(".")[0]
    folder = SweepFolder(bench.folder / "sweeps" / "tiny")
    jobs = [Job(cluster, f"{number}_{task}") for task in (0, 1)]
    first = folder.run("trial-0000_seed1")
    jobs[0].wait_until(lambda: first.history.is_file(), "its first epoch was recorded")
    cluster.preempt().wait_for("COMPLETED")

    def is_over() -> bool:
        trials = read_plan(folder).trials
        return len(trials) == 3 and all(trial.state == "complete" for trial in trials)

    jobs[0].wait_until(is_over, "all trials are complete")
    assert jobs[0].restarts + jobs[1].restarts > 0, "one was preempted"
    assert all(is_finished(folder.run(run.name)) for run in read_plan(folder).runs)
    assert "3 of 3 trials: 3 complete." in sweep(cluster, bench, "--slurm=own.sbatch")


def test_trials_that_are_pruned_in_a_job_end_and_the_worker_goes_on(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(cluster, tmp_path / "bench")
    ranges = "{model.lr: {low: 1.0e-4, high: 1.0e-2, log: true}}"
    prepare(bench, f"options: {{unfreezing.start_epoch: 0}}\nseeds: [1]\nsearch: {{trials: 7, ranges: {ranges}}}", 2000)
    folder = SweepFolder(bench.folder / "sweeps" / "tiny")
    monkeypatch.chdir(bench.folder)
    write_good_trials(Path("tiny.yaml"), folder)
    said = sweep(cluster, bench, "--slurm=own.sbatch", "--jobs=1")
    job = Job(cluster, f"{said.partition('job array ')[2].partition('.')[0]}_0")
    job.wait_for("COMPLETED")
    assert [trial.state for trial in read_plan(folder).trials[5:]] == ["pruned", "pruned"]
    for number in (5, 6):
        epochs = folder.run(f"trial-{number:04}_seed1").history.read_text().count("\n") - 1
        assert 2 < epochs < 2000, "it was ended"
    assert job.restarts == 0
