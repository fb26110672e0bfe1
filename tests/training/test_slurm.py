"""Which job this is and what is asked of its controller; the real one is in tests/slurm/."""

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from bldml.training.resume.job import SlurmJob
from bldml.training.resume.slurm import RequeueEnvironment, fate, requeue
from tests.support import mistake

STEP = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, SlurmJob("12")),
        ({"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "atlas"}, SlurmJob("12", "atlas")),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, SlurmJob("9_3")),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, SlurmJob("12", restarts=2)),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "bash"}, SlurmJob("12", interactive=True)),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "bash_sweep"}, SlurmJob("12")),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}, SlurmJob("12", interactive=True)),
        ({"SLURM_JOB_ID": "12", "SLURM_PTY_PORT": "40000"}, SlurmJob("12", interactive=True)),
        # Submitted by a notebook, whose variables it inherits: a batch job all the same.
        ({"SLURM_JOB_ID": "12", "JPY_PARENT_PID": "9", "JUPYTERHUB_USER": "ann"}, SlurmJob("12")),
    ],
)
def test_job(environment: dict[str, str], expected: SlurmJob | None) -> None:
    assert SlurmJob.current(environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        (STEP, True),
        ({**STEP, "SLURM_JOB_NAME": "interactive"}, False),
        # A notebook's job: Lightning takes it for a task of srun, because it has a number of tasks.
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),
    ],
)
def test_step_of_srun(environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_JOB_NAME", "SLURM_NTASKS", "SLURM_PTY_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert RequeueEnvironment.detect() is expected


def test_requeue_signal_must_not_be_one_that_also_cancels() -> None:
    assert RequeueEnvironment(requeue_signal=signal.SIGUSR2).requeue_signal == signal.SIGUSR2
    with mistake("requeue-signal-unknown", found="SIGTERM"):
        RequeueEnvironment(requeue_signal=signal.SIGTERM)


@pytest.mark.parametrize(
    ("shown", "answer", "asked", "reason"),
    [
        ("JobState=RUNNING Reason=None", "exit 0", 1, None),
        # The time was up while the run was still saving.
        ("JobState=COMPLETING Reason=TimeLimit", "exit 0", 1, None),
        ("JobState=COMPLETING Reason=None", "exit 0", 0, "it was cancelled"),
        ("JobState=CANCELLED Reason=None", "exit 0", 0, "it was cancelled"),
        # Slurm has done it, and ended the first command before it heard so.
        ("JobState=RUNNING Reason=None", "echo Job is pending execution >&2; exit 1", 1, None),
        ("JobState=RUNNING Reason=None", "echo Access denied >&2; exit 1", 3, "was refused: Access denied"),
    ],
)
def test_requeue(
    shown: str, answer: str, asked: int, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in scontrol's place says what Slurm says in states that pass too soon to be tested there."""
    scontrol = tmp_path / "scontrol"
    log = tmp_path / "log"
    scontrol.write_text(
        f"#!/bin/sh\nif [ $1 = show ]; then echo JobId=12 JobName=x {shown}; exit 0; fi\necho $* >>{log}\n{answer}\n"
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = requeue(SlurmJob("12"))
    assert (found is None) == (reason is None)
    if reason is not None:
        assert found is not None
        assert reason in found
    assert (log.read_text().splitlines() if log.exists() else []) == ["requeue 12"] * asked


RUNNING = {"JobState": "RUNNING", "PreemptTime": "None", "Requeue": "1", "Restarts": "1", "Reason": "None"}
PREEMPTED = {**RUNNING, "PreemptTime": "2026-11-29T18:30:15"}
COMPLETING = {"JobState": "COMPLETING", "Reason": "None", "Restarts": "1", "PreemptTime": "None"}


@pytest.mark.parametrize(
    ("shown", "mode", "expected", "why"),
    [
        # By a person (scancel --signal=TERM), who wants it to end.
        (RUNNING, "REQUEUE", "over", "neither preempted nor cancelled"),
        # Within the grace time.
        (PREEMPTED, "REQUEUE", "preempted", "preempted"),
        (PREEMPTED, "GANG,REQUEUE", "preempted", "preempted"),
        ({**PREEMPTED, "Requeue": "0"}, "REQUEUE", "over", "Slurm cancels such jobs here"),
        (PREEMPTED, "CANCEL", "over", "Slurm cancels such jobs here"),
        (PREEMPTED, "", "unknown", "not known"),
        # After it, or with none: cancelled, or requeued.
        ({**COMPLETING, "PreemptTime": "2026-11-29T18:30:15"}, "CANCEL", "over", "Slurm cancels such jobs here"),
        ({**COMPLETING, "Restarts": "2"}, "REQUEUE", "over", "into the queue again"),
        ({**COMPLETING, "JobState": "PENDING", "Restarts": "2"}, "REQUEUE", "over", "into the queue again"),
        (COMPLETING, "REQUEUE", "over", "it was cancelled"),
        ({**COMPLETING, "JobState": "CANCELLED"}, "REQUEUE", "over", "it was cancelled"),
        # As newer versions of Slurm write it.
        ({**COMPLETING, "JobState": "CANCELLED,COMPLETING"}, "REQUEUE", "over", "it was cancelled"),
        # A signal before the wall time that was lost, or a save that took longer.
        ({**COMPLETING, "Reason": "TimeLimit"}, "REQUEUE", "time is up", "wall time"),
        ({**COMPLETING, "JobState": "TIMEOUT"}, "REQUEUE", "time is up", "wall time"),
        # No answer.
        ({}, "REQUEUE", "unknown", "does not say"),
    ],
)
def test_fate_after_sigterm(
    shown: Mapping[str, str], mode: str, expected: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm 22.05 showed it in these situations."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    found, reason = fate(shown, lambda _: mode)
    assert found == expected
    assert why in reason


def test_without_scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "scontrol is not on the PATH" in str(requeue(SlurmJob("12")))
