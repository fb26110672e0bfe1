"""Waiting for the process that trains in a run; on a cluster with a lost node in tests/slurm/test_lost_node.py."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bldml.run.folder import Holder, RunFolder, lock_run, read_holder
from bldml.training.resume import holding
from bldml.training.resume.holding import hold_run
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import Interrupted, InterruptSignals
from tests.support import REPOSITORY, mistake

REQUEUED = SlurmJob("77", "atlas", restarts=1)
HOLD = """
import sys, time
from pathlib import Path
from bldml.run.folder import Holder, RunFolder, lock_run
held = lock_run(RunFolder(Path(sys.argv[1])), holder=Holder("gpu9", 4711, "2026-11-29T10:00:00+00:00", sys.argv[2]))
print("held", flush=True)
time.sleep(100)
"""
Held = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def held(run: RunFolder) -> Iterator[Held]:
    """Let a process of a job hold the run."""
    processes = []

    def start(job: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(run.path), job]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_previous_start_of_a_job_is_waited_for_then_the_job_is_requeued(
    run: RunFolder, held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holding, "PATIENCE_S", 2.0)
    held("atlas:77")
    with caplog.at_level("INFO"), pytest.raises(Interrupted) as raised:
        hold_run(run, REQUEUED, InterruptSignals())
    assert raised.value.signum == signal.SIGUSR1
    assert "Waiting for process 4711 of job 77 on gpu9, since 2026-11-29T10:00:00+00:00, which still" in caplog.text
    assert "If it has not ended after 2 s, this job asks to be requeued." in caplog.text


def test_the_third_start_that_waits_is_the_last(
    run: RunFolder, held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holding, "PATIENCE_S", 1.0)
    held("atlas:77")
    with pytest.raises(Interrupted):
        hold_run(run, SlurmJob("77", "atlas", restarts=2), InterruptSignals())
    caplog.clear()
    with caplog.at_level("INFO"), mistake("run-held-by-lost-start") as raised:
        hold_run(run, SlurmJob("77", "atlas", restarts=3), InterruptSignals())
    assert "If it has not ended after 1 s, this job ends." in caplog.text
    assert "asks to be requeued" not in caplog.text
    assert "3 starts in a row have found" in str(raised.value)
    assert "process 4711 of job 77 on gpu9" in str(raised.value)


def test_starts_are_not_counted_where_the_lock_does_not_say_who_holds_it(
    run: RunFolder, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file of an older version, or a damaged one: at its fifth restart the job may wait for the first time."""
    monkeypatch.setattr(holding, "PATIENCE_S", 1.0)
    held("atlas:77")
    run.lock.write_text("")
    with pytest.raises(Interrupted):
        hold_run(run, SlurmJob("77", "atlas", restarts=5), InterruptSignals())


@pytest.mark.parametrize("job", ["atlas:78", ""])
def test_a_run_that_another_has_resumed_is_not_waited_for_again(
    job: str, run: RunFolder, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PATIENCE_S", 1.0)
    held(job)
    with mistake("run-in-use") as raised:
        hold_run(run, REQUEUED, InterruptSignals())
    assert "on gpu9, since 2026" in str(raised.value)


@pytest.mark.parametrize("job", [None, SlurmJob("77", "atlas"), SlurmJob("77", "atlas", interactive=True, restarts=1)])
def test_without_a_requeue_nobody_waits(job: SlurmJob | None, run: RunFolder, held: Held) -> None:
    held("atlas:77")
    with mistake("run-in-use") as raised:
        hold_run(run, job, InterruptSignals())
    assert raised.value.fields["found"]["process"] == 4711


def test_a_signal_ends_the_waiting(run: RunFolder, held: Held) -> None:
    held("atlas:77")
    signals = InterruptSignals()
    signals.install()
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(Interrupted) as raised:
            hold_run(run, REQUEUED, signals)
    finally:
        timer.join()
        signals.restore()
    assert raised.value.signum == signal.SIGTERM


def test_the_run_is_taken_over_when_that_process_ends(run: RunFolder, held: Held) -> None:
    process = held("atlas:77")
    timer = threading.Timer(1, process.kill)
    timer.start()
    with hold_run(run, REQUEUED, InterruptSignals()):
        # Read by another process: this one would release the lock.
        command = "import sys; from pathlib import Path; from bldml.run.folder import *; "
        command += "print(read_holder(RunFolder(Path(sys.argv[1]))).restarts)"
        done = subprocess.run(
            [sys.executable, "-c", command, str(run.path)], capture_output=True, text=True, check=True, cwd=REPOSITORY
        )
        assert done.stdout == "1\n"
    timer.join()


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"host": 3, "process": 1, "since": "", "job": "", "restarts": 0}']
)
def test_a_lock_that_does_not_say_who_holds_it(content: str, run: RunFolder) -> None:
    """Of an older version, or damaged."""
    run.lock.write_text(content)
    assert read_holder(run) is None
    with lock_run(run, holder=Holder("gpu9", 1, "2026")):
        pass
    assert read_holder(run) == Holder("gpu9", 1, "2026")
