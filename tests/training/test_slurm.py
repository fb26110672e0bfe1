"""Which job this is and what is asked of its controller; the real one is in tests/slurm/."""

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from bldml.training.resume.job import SlurmJob, SlurmStep, interactive_kind
from bldml.training.resume.signals import Interrupted, InterruptSignals
from bldml.training.resume.slurm import RequeueEnvironment, check_ranks, fate, leave, requeue
from tests.support import Bldml, mistake

# What srun of Slurm 22.05 sets in each of its tasks.
STEP = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "fit",
    "SLURM_NTASKS": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_STEP_NODELIST": "gpu1",
    "SLURM_PROCID": "0",
}
TWO = {**STEP, "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
SESSION = {"SLURM_JOB_NAME": "interactive"}
TASK = {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}
TERMINAL = {"SLURM_JOB_NAME": "bash", "SLURM_PTY_PORT": "40000"}


def set_job(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Let this process believe that it runs with these variables of Slurm alone."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, SlurmJob("12")),
        ({"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "atlas"}, SlurmJob("12", "atlas")),
        ({"SLURM_JOB_ID": "12", **TASK}, SlurmJob("9_3", own_number="12")),
        ({"SLURM_JOB_ID": "9", **TASK}, SlurmJob("9_3")),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, SlurmJob("12", restarts=2)),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "bash"}, SlurmJob("12", interactive=True)),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "bash_sweep"}, SlurmJob("12")),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}, SlurmJob("12", interactive=True)),
        # Submitted by a notebook, whose variables it inherits: a batch job all the same.
        ({"SLURM_JOB_ID": "12", "JPY_PARENT_PID": "9", "JUPYTERHUB_USER": "ann"}, SlurmJob("12")),
    ],
)
def test_job(environment: dict[str, str], expected: SlurmJob | None) -> None:
    assert SlurmJob.current(environment) == expected


@pytest.mark.parametrize(
    ("environment", "terminal", "tasks"),
    [
        ({}, False, None),
        (STEP, False, 1),
        (TWO, False, 2),
        # The name of the job says nothing about ranks: srun in salloc, in a notebook's terminal.
        ({**STEP, **SESSION}, False, 1),
        ({**TWO, **SESSION}, False, 2),
        ({**TWO, "SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}, False, 2),
        # The shell of salloc, here and, by srun --interactive, on the node.
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "2", **SESSION}, True, None),
        ({**STEP, **SESSION, "SLURM_STEP_ID": "4294967290"}, True, None),
        # A notebook's job: Lightning takes it for a task of srun, because it has a number of tasks.
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False, None),
        # What is typed in a shell of srun --pty, of one task and of two; srun in it, which inherits its variables.
        ({**STEP, **TERMINAL}, True, None),
        ({**TWO, **TERMINAL}, True, None),
        ({**TWO, **TERMINAL}, False, 2),
        # A script without srun, submitted there.
        ({**STEP, "SLURM_PTY_PORT": "40000", "SLURM_NTASKS": "2"}, False, None),
    ],
)
def test_step_of_srun(environment: dict[str, str], terminal: bool, tasks: int | None) -> None:
    step = SlurmStep.current(environment, terminal)
    assert (step and step.tasks) == tasks


def test_ranks_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    set_job(monkeypatch, {**TWO, **SESSION, "SLURM_PROCID": "1", "SLURM_NODELIST": "gpu0,gpu1"})
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.delenv("MASTER_PORT")  # and again after the test
    monkeypatch.setenv("MASTER_ADDR", "0")
    monkeypatch.delenv("MASTER_ADDR")
    assert RequeueEnvironment.detect()
    ranks = RequeueEnvironment()
    assert (ranks.world_size(), ranks.global_rank(), ranks.main_address) == (2, 1, "gpu1")
    first = ranks.main_port
    monkeypatch.delenv("MASTER_PORT")
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert ranks.main_port != first
    # torchrun in a task of srun gives the ranks itself.
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert not RequeueEnvironment.detect()


@pytest.mark.parametrize(
    ("environment", "terminal", "kind"),
    [
        (STEP, False, None),
        ({**STEP, **SESSION}, False, "terminal"),
        ({**STEP, "SLURM_PTY_PORT": "40000"}, True, "terminal"),
        # Submitted from a shell of srun --pty: a batch job, which is requeued.
        ({**STEP, "SLURM_PTY_PORT": "40000"}, False, None),
    ],
)
def test_interactive_kind(environment: dict[str, str], terminal: bool, kind: str | None) -> None:
    assert interactive_kind(environment, terminal) == kind


@pytest.mark.parametrize(
    ("per_node", "devices", "nodes", "words"),
    [
        ("1", 1, 1, None),
        ("2", 2, 1, None),
        ("2(x2)", 2, 2, None),
        ("2", 1, 1, "srun started 2 tasks on 1 node; trainer.devices is 1 on 1 node"),
        ("1", 2, 1, "use srun --nodes=1 --ntasks-per-node=2"),
        ("2(x2)", 2, 1, "or set --trainer.num_nodes 2 --trainer.devices 2"),
        ("2(x2)", 4, 1, "srun started 2 tasks on 2 nodes each"),
        ("1,2", 2, 2, "srun started 1 and 2 tasks on 2 nodes"),
        ("16", 1, 1, "for CPUs: --cpus-per-task"),
    ],
)
def test_tasks_and_devices(
    per_node: str, devices: int, nodes: int, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(monkeypatch, {**STEP, "SLURM_STEP_TASKS_PER_NODE": per_node})
    if words is None:
        check_ranks(devices, nodes)
        return
    with mistake("tasks-differ", expected=devices * nodes) as raised:
        check_ranks(devices, nodes)
    assert words in str(raised.value)


@pytest.mark.parametrize("command", [("audit", "photographs"), ("report", "run"), ("test", "run"), ("demo", "leaves")])
def test_a_command_of_one_process_refuses_several_tasks(
    command: tuple[str, ...], bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(monkeypatch, TWO)
    outcome = bldml(*command)
    assert outcome.mistake == "processes-too-many"
    assert f"bldml {command[0]} runs in one process" in outcome.err
    assert not list(Path().iterdir())
    assert bldml(command[0], "--help").code == 0
    set_job(monkeypatch, STEP)
    assert bldml(*command).mistake != "processes-too-many"


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
        ("JobState=COMPLETING Reason=None", "exit 0", 0, "it was cancelled, or its script was ended"),
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


@pytest.mark.parametrize(
    ("number", "shown", "target"),
    [
        ("12", "JobId=12 JobState=RUNNING", "12"),
        ("12", "JobId=12 ArrayJobId=9 ArrayTaskId=3 JobState=RUNNING", "12"),
        ("12", None, "12"),  # the controller is too busy to say anything of the job
        # The task whose own number is that of the array, which means all of its tasks.
        ("9", "JobId=9 ArrayJobId=9 ArrayTaskId=3 JobState=RUNNING", "9_3"),
        ("9", None, "9_3"),
    ],
)
def test_no_other_job_is_requeued(
    number: str, shown: str | None, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A job that was submitted in a task of an array has inherited its variables, unless its script removes them."""
    answer = f"echo {shown}" if shown else "echo Unable to contact slurm controller >&2; exit 1"
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $* >>{tmp_path}/log\n[ $1 = requeue ] || {{ {answer}; }}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    set_job(monkeypatch, {"SLURM_JOB_ID": number, "SLURM_JOB_NAME": "fit", **TASK})
    with pytest.raises(SystemExit, match="138"):
        leave(Interrupted(signal.SIGUSR1), SlurmJob.current(), InterruptSignals(), None, "Resume so.")
    assert (tmp_path / "log").read_text() == f"show job -o {target}\nrequeue {target}\n"
    assert f"Job {target} is requeued." in capfd.readouterr().err


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED"])
def test_a_job_in_the_queue_is_not_called_lost(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $1 >>{tmp_path}/log\necho JobId=12 JobState={state}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SystemExit, match="138"):
        leave(Interrupted(signal.SIGUSR1), SlurmJob("12"), InterruptSignals(), None, "Resume so.")
    assert "Job 12 is requeued." in capfd.readouterr().err
    assert (tmp_path / "log").read_text() == "show\n"


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
        (COMPLETING, "REQUEUE", "over", "it was cancelled, or its script was ended"),
        # Whatever the number of its restarts is.
        ({**COMPLETING, "JobState": "PENDING"}, "REQUEUE", "over", "into the queue again"),
        ({**COMPLETING, "JobState": "REQUEUED"}, "REQUEUE", "over", "into the queue again"),
        ({**PREEMPTED, "JobState": "PENDING"}, "REQUEUE", "over", "into the queue again"),
        ({**COMPLETING, "JobState": "CANCELLED"}, "REQUEUE", "over", "it was cancelled"),
        ({**COMPLETING, "JobState": "DEADLINE"}, "REQUEUE", "over", "Slurm shows it as DEADLINE"),
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


@pytest.mark.parametrize(
    ("mode", "answer", "terminations", "said"),
    [
        ("REQUEUE", 0, 1, "Job 12 is requeued."),
        ("CANCEL", 0, 1, "Job 12 is not requeued: it was preempted, and Slurm cancels such jobs here. Resume so."),
        # It must not end by itself: at the end of the grace time Slurm requeues it.
        ("REQUEUE", 1, 2, "Waiting until Slurm requeues job 12, which was preempted: scontrol requeue 12 was refused"),
    ],
)
def test_a_preempted_job_leaves(
    mode: str, answer: int, terminations: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With a program in scontrol's place; the second SIGTERM is that of the end of the grace time."""
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    answers = {
        "job": "JobState=RUNNING Reason=None Restarts=0 Requeue=1 Partition=low PreemptTime=2026-11-29T18:30:15",
        "config": "PreemptMode = OFF\nPreemptType = preempt/partition_prio",
        "partition": f"PartitionName=low PreemptMode={mode}",
    }
    for what, text in answers.items():
        (tmp_path / what).write_text(text)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\n[ "$1" = requeue ] && exit {answer}\ncat "{tmp_path}/$2"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    signals = InterruptSignals()
    signals.install()
    os.kill(os.getpid(), signal.SIGTERM)
    again = threading.Timer(6, os.kill, (os.getpid(), signal.SIGTERM))
    again.start()
    try:
        with pytest.raises(SystemExit, match="143"):
            leave(Interrupted(signal.SIGTERM), SlurmJob("12"), signals, None, "Resume so.")
        assert signals.count(signal.SIGTERM) == terminations
    finally:
        again.cancel()
        again.join()
        signals.restore()
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("stopping", "Job 12 is requeued."),
        ("running", "it received SIGTERM, but"),
        ("offline", "it received SIGTERM, but"),
    ],
)
def test_a_node_that_is_shut_down(
    state: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It sends SIGTERM as a person does; what systemd says of the node tells them apart."""
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    shown = "JobState=RUNNING Reason=None Restarts=0 Requeue=1 PreemptTime=None"
    programs = {
        "scontrol": f'[ "$1" = requeue ] || echo {shown}',
        "systemctl": f'[ "$1" = is-system-running ] && echo {state}; exit 1',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SystemExit, match="143"):
        leave(Interrupted(signal.SIGTERM), SlurmJob("12"), InterruptSignals(), None, "Resume so.")
    assert said in capfd.readouterr().err


def test_without_scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "scontrol is not on the PATH" in str(requeue(SlurmJob("12")))
