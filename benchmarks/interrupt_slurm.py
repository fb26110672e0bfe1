"""Random events in the life of Slurm jobs, for `interrupt.py --slurm`: what becomes of each job, and of its run.

A job of scripts/slurm/fit.sbatch meets one event after the other, at random moments between its start and its end. A
requeued job resumes by itself; one that has ended is followed by another with `--resume`. At the end of a run its
weights, optimizer, history.csv and predictions must be equal to the last bit to those of a run that was left in peace.
A real Slurm of one node is started for it, as for the tests.
"""

import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.interrupt import content
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.folder import RunFolder
from tests.slurm.cluster import ENDED, LARGE, Cluster, Job
from tests.slurm.fits import HERE, SCRIPTS, settings
from tests.support import REPOSITORY

# Uniform, from when the job runs; a fit starts up for about half of it on an idle machine.
DELAY_S = 25.0
REQUEUED = "requeued"


def wall_time(cluster: Cluster, job: Job) -> None:
    """The signal that Slurm sends when the wall time is near."""
    job.signal("USR1")


def preemption(cluster: Cluster, job: Job, grace: int, mode: str) -> None:
    """A job of a higher partition wants the node."""
    cluster.command("scontrol", "update", "PartitionName=low", f"GraceTime={grace}", f"PreemptMode={mode}")
    preemptor = cluster.preempt()
    preemptor.wait_for("COMPLETED")


# Name, what is done, what must become of the job.
EVENTS: dict[str, tuple[Callable[[Cluster, Job], None], str]] = {
    "wall time": (wall_time, REQUEUED),
    "preemption, grace time 120 s": (lambda cluster, job: preemption(cluster, job, 120, "REQUEUE"), REQUEUED),
    "preemption, no grace time": (lambda cluster, job: preemption(cluster, job, 0, "REQUEUE"), REQUEUED),
    "preemption that cancels": (lambda cluster, job: preemption(cluster, job, 120, "CANCEL"), "FAILED"),
    "scancel": (lambda _, job: job.cancel(), "CANCELLED"),
    "SIGTERM by hand": (lambda _, job: job.signal("TERM"), "FAILED"),
    "SIGKILL": (lambda _, job: job.signal("KILL"), "FAILED"),
    "scontrol requeue": (lambda _, job: job.requeue(), REQUEUED),
}


class Trial:
    """Runs in the queue, and what is done to them."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self.cluster, self.folder, self.chance = cluster, folder, random.Random(seed)
        self.events: list[dict[str, object]] = []
        write_leaves(folder / "leaves", 54, 96, seed=3, splits={"train": 2 / 3, "val": 1 / 6, "test": 1 / 6})
        (folder / "scripts").symlink_to(REPOSITORY / "scripts")
        (folder / "configs").mkdir()
        (folder / "configs" / "slurm.yaml").symlink_to(REPOSITORY / "configs" / "slurm.yaml")
        config = settings(folder / "leaves")
        config["trainer"] = {**config["trainer"], "max_epochs": 12, "callbacks": []}
        config["early_stopping"] = {"patience": 100}
        config["checkpoint_minutes"] = 0.05
        (folder / "configs" / "run.yaml").write_text(yaml.safe_dump(config))

    def submit(self, name: str) -> Job:
        """Submit a run, or one that resumes it."""
        run = self.folder / "lightning_logs" / name
        arguments = ("--resume", str(run)) if run.is_dir() else ("configs/run.yaml", f"--run_name={name}")
        variables = {"BLDML_ENV": sys.prefix}
        options = (*HERE, "--partition=low", f"--cpus-per-task={LARGE}")
        return self.cluster.submit(
            SCRIPTS / "fit.sbatch", *arguments, options=options, environment=variables, folder=self.folder
        )  # fmt: skip

    def run(self, name: str, number: int) -> RunFolder:
        """Train a run to its end with at most so many events."""
        job, restarts = self.submit(name), 0
        while True:
            job.wait_until(lambda job=job: job.state == "RUNNING" or job.state in ENDED, "it runs")  # type: ignore[misc]
            end = time.monotonic() + (self.chance.uniform(0, DELAY_S) if number > 0 else 3600)
            while job.state not in ENDED and time.monotonic() < end:
                time.sleep(0.1)
            if (state := job.state) in ENDED:
                if state == "COMPLETED":
                    return RunFolder(self.folder / "lightning_logs" / name)
                job.fail(f"it is {state} without an event")
            number -= 1
            restarts = self.happen(job, name, restarts)
            if restarts < 0:
                if (done := job.state) == "COMPLETED":
                    return RunFolder(self.folder / "lightning_logs" / name)
                assert done in ENDED
                job, restarts = self.submit(name), 0

    def happen(self, job: Job, name: str, restarts: int) -> int:
        """Do one of the events; return how often the job has been restarted, -1 if it has ended."""
        kind = self.chance.choice(list(EVENTS))
        act, expected = EVENTS[kind]
        began = time.monotonic()
        while job.state not in ENDED:
            try:
                act(self.cluster, job)
            except pytest.fail.Exception:  # no step has begun, or the job has just ended
                time.sleep(0.2)
            else:
                break

        def decided() -> bool:
            shown = job.show()
            return shown["JobState"] in ENDED or int(shown["Restarts"]) > restarts

        job.wait_until(decided, f"something became of it after {kind}")
        shown = job.show()
        found = REQUEUED if int(shown["Restarts"]) > restarts else shown["JobState"]
        event = {"run": name, "kind": kind, "became": found, "seconds": round(time.monotonic() - began, 1)}
        event["is_expected"] = found in (expected, "COMPLETED")  # completed: the event came at the end
        self.events.append(event)
        sys.stderr.write(f"{len(self.events)} {json.dumps(event)}\n")
        return int(shown["Restarts"]) if found == REQUEUED else -1


def interrupt_jobs(number: int, seed: int, output: Path | None) -> int:
    """Do so many events and add the result to the output; return 1 if anything differs or is unexpected, else 0."""
    place = Path(tempfile.mkdtemp(prefix="bldml-slurm-"))
    place.chmod(0o755)
    cluster, work = Cluster(place), Path(tempfile.mkdtemp(prefix="bldml-events-"))
    different, compared, runs = set[str](), 0, 0
    try:
        cluster.start()
        trial = Trial(cluster, work, seed)
        reference = content(trial.run("reference", 0))
        while len(trial.events) < number:
            runs += 1
            found = content(trial.run(f"run_{runs}", number - len(trial.events)))
            compared += len(found)
            different |= {
                f"run_{runs} {k}" for k in reference.keys() | found.keys() if reference.get(k) != found.get(k)
            }
    finally:
        cluster.stop()
        left = cluster.processes()
        shutil.rmtree(place)
    if not different:  # else the runs are needed to find out why
        shutil.rmtree(work)
    became = {kind: dict(Counter(str(e["became"]) for e in trial.events if e["kind"] == kind)) for kind in EVENTS}
    longest = {kind: max((e["seconds"] for e in trial.events if e["kind"] == kind), default=0) for kind in EVENTS}  # type: ignore[type-var]
    result = {
        "seed": seed,
        "events": len(trial.events),
        "runs": runs,
        "became": became,
        "unexpected": [event for event in trial.events if not event["is_expected"]],
        "longest_seconds_until_then": longest,
        "things_compared": compared,
        "different": sorted(different),
        "processes_left_over": len(left),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    before = json.loads(output.read_text()) if output and output.exists() else []
    text = json.dumps([*before, result], indent=2) + "\n"
    sys.stdout.write(text)
    if output:
        output.write_text(text)
    return 1 if different or result["unexpected"] or left else 0
