"""Slurm: what it has decided about the job, requeueing, and the end of the process; the environment of a job step."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NoReturn

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from bldml.errors import ConfigError
from bldml.io.screen import complain
from bldml.training.resume.job import SlurmJob, SlurmStep
from bldml.training.resume.signals import BY_HAND, WALL_TIME, Interrupted, InterruptSignals, blocked, is_first_process

CONTROLLER_TIMEOUT_S = 20.0
END_TIMEOUT_S = 300.0
ASK_AGAIN_S = 5.0
TRIES = 3
# What becomes of a job that received SIGTERM. If its time is up or it was preempted, it must be requeued, because it
# counts as ended if it exits; one that is over may exit at once; otherwise only Slurm knows.
Fate = Literal["time is up", "preempted", "over", "unknown"]
REQUEUED = "Slurm has put it into the queue again"
BY_HAND_ALONE = "it received SIGTERM, but Slurm has neither preempted nor cancelled it"
CANCELLED_OR_ENDED = "it was cancelled, or its script was ended"
NO_SCONTROL = "scontrol is not on the PATH (a container without Slurm's commands?)"
# States of a job whose processes Slurm ends; it hides which one while they end.
ENDING = {"COMPLETING", "CANCELLED", "PREEMPTED", "PENDING", "FAILED", "NODE_FAIL", "DEADLINE", "REQUEUED"}


class RequeueEnvironment(SLURMEnvironment):
    """Environment of a Slurm job step: when the wall time is near, the run is saved and its job requeued.

    Inside `srun` it is used by default; name it in a configuration to change its settings.

    Args:
        auto_requeue: Whether to requeue the job (`scontrol requeue`) when its wall time is near.
        requeue_signal: The signal of `#SBATCH --signal`, SIGUSR1 or SIGUSR2; both are handled in any case.

    Raises:
        ConfigError: The signal is another one; SIGTERM, for instance, is also sent to a cancelled job.
    """

    def __init__(self, auto_requeue: bool = True, requeue_signal: signal.Signals | None = None) -> None:
        if requeue_signal is not None and requeue_signal not in WALL_TIME:
            message = f"requeue_signal must be SIGUSR1 or SIGUSR2, not {requeue_signal.name}."
            raise ConfigError(message, "requeue-signal-unknown", found=requeue_signal.name)
        # Not Lightning's __init__, which warns if Slurm is installed but the command was not started by srun.
        self.auto_requeue = auto_requeue
        self.requeue_signal: signal.Signals = requeue_signal or next(iter(WALL_TIME), signal.SIGTERM)

    @staticmethod
    def detect() -> bool:
        """Return whether srun started this process as a task, in whatever job, and torchrun does not give the ranks.

        Lightning checks SLURM_NTASKS, which a notebook's job has too, and the name of the job, which says nothing about
        a step: without ranks, each task of srun in a session of salloc would train a run of its own.
        """
        return SlurmStep.current() is not None and not TorchElasticEnvironment.detect()

    def world_size(self) -> int:
        """Return the number of tasks of the step."""
        step = SlurmStep.current()
        return step.tasks if step else 1

    @property
    def main_address(self) -> str:
        """The first node of the step, which need not be the first of the job."""
        step = SlurmStep.current()
        if step and step.nodes:
            os.environ.setdefault("MASTER_ADDR", self.resolve_root_node_address(step.nodes))
        return super().main_address

    @property
    def main_port(self) -> int:
        """A port that depends on job and step: two steps of one job may train on one node at the same time."""
        step, job = SlurmStep.current(), os.environ.get("SLURM_JOB_ID", "")
        if step and job.isdigit():
            os.environ.setdefault("MASTER_PORT", str(15000 + (int(job) + 101 * step.number) % 10000))
        return super().main_port


def check_ranks(devices: int, nodes: int) -> None:
    """Raise ConfigError unless the step has one task for each device of the trainer, on as many nodes."""
    step = SlurmStep.current()
    if step is not None and (found := step.difference(devices, nodes)):
        remedies = ", or set ".join(step.remedies(devices, nodes))
        message = f"{found}. One task per device is needed: use srun {remedies}."
        raise ConfigError(message, "tasks-differ", found=step.tasks, expected=devices * nodes)


@dataclass(frozen=True)
class WallTime:
    """When Slurm will end this start of a job, by the controller's clock; how long a start is, and what is left."""

    end: datetime  # local time
    length: timedelta
    left: timedelta


def wall_time_of(job: SlurmJob) -> WallTime | None:
    """Return the wall time of this start; None if there is no limit, or Slurm does not say.

    What is left is that of the controller too: the clock of this node may be wrong, and a job may have been suspended.
    """
    shown = _show(job)
    try:
        length, passed = read_duration(shown["TimeLimit"]), read_duration(shown["RunTime"])
        return WallTime(datetime.fromisoformat(shown["EndTime"]), length, length - passed)
    except (KeyError, ValueError):  # Unknown, UNLIMITED
        return None


def read_duration(text: str) -> timedelta:
    """Return a duration that scontrol shows; ValueError for a word such as UNLIMITED.

    >>> str(read_duration("1-02:03:04"))
    '1 day, 2:03:04'
    """
    days, _, time_of_day = text.rpartition("-")
    hours, minutes, seconds = map(int, time_of_day.split(":"))
    return timedelta(days=int(days or 0), hours=hours, minutes=minutes, seconds=seconds)


def requeue(job: SlurmJob) -> str | None:
    """Requeue the job; return the reason if Slurm has not requeued it."""
    if shutil.which("scontrol") is None:
        return NO_SCONTROL
    shown = _show(job)
    what, why = fate(shown, lambda _: "REQUEUE")
    if what == "over" and why != BY_HAND_ALONE:  # requeueing would revive a cancelled job
        return None if why == REQUEUED else why
    for attempt in range(TRIES):
        if attempt:
            time.sleep(1)
        code, text = _run("scontrol", "requeue", job.number)
        # Slurm may have requeued the job and ended this command before it received the answer.
        if code == 0 or "pending" in text.lower():
            return None
    return f"scontrol requeue {job.number} was refused: {text.strip() or f'exit code {code}'}"


def fate(shown: Mapping[str, str], preempt_mode: Callable[[Mapping[str, str]], str]) -> tuple[Fate, str]:
    """Return what becomes of a job that received SIGTERM, and why, from what `scontrol show job` says of it.

    `preempt_mode` returns Slurm's mode of preemption for this job, empty if it is not known.

    >>> fate({"JobState": "RUNNING", "PreemptTime": "2026-11-29T18:30:15", "Requeue": "1"}, lambda _: "GANG,REQUEUE")
    ('preempted', 'it was preempted')
    """
    states = set(re.split(r"[,+ ]", shown.get("JobState", "")))
    restarts = shown.get("Restarts", "0")
    if "TIMEOUT" in states or ("COMPLETING" in states and shown.get("Reason") == "TimeLimit"):
        return "time is up", "its wall time is over"
    is_restarted = restarts.isdigit() and int(restarts) > int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if is_restarted or (states & {"PENDING", "REQUEUED"} and "CANCELLED" not in states):
        return "over", REQUEUED
    preempted = shown.get("PreemptTime", "")[:1].isdigit()  # a time, otherwise None
    if states & ENDING:
        if preempted:
            return "over", "it was preempted, and Slurm cancels such jobs here"
        if "CANCELLED" in states:
            return "over", "it was cancelled"
        is_hidden = states & {"COMPLETING", "FAILED"}
        return "over", CANCELLED_OR_ENDED if is_hidden else f"Slurm shows it as {shown['JobState']}"
    if "RUNNING" not in states:
        return "unknown", "Slurm does not say what becomes of it"
    if not preempted:
        return "over", BY_HAND_ALONE
    modes = preempt_mode(shown).split(",")
    if "REQUEUE" in modes and shown.get("Requeue") == "1":
        return "preempted", "it was preempted"
    if {"REQUEUE", "CANCEL"} & set(modes):
        return "over", "it was preempted, and Slurm cancels such jobs here"
    return "unknown", "it was preempted, and it is not known whether Slurm requeues such jobs here"


def _preempt_mode(shown: Mapping[str, str]) -> str:
    """Return the preemption mode of the job's partition or QOS, whichever PreemptType names; empty if not known."""
    text = _run("scontrol", "show", "config")[1]
    config = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
    mode = ""
    if config.get("PreemptType") == "preempt/partition_prio":
        mode = _fields(_run("scontrol", "show", "partition", "-o", shown.get("Partition", ""))).get("PreemptMode", "")
    elif config.get("PreemptType") == "preempt/qos":
        code, mode = _run("sacctmgr", "-nP", "show", "qos", shown.get("QOS", ""), "format=PreemptMode")
        mode = "" if code else mode.strip() if mode.strip() not in ("", "cluster") else config.get("PreemptMode", "")
    return mode.upper()


def leave(
    interrupted: Interrupted,
    job: SlurmJob | None,
    signals: InterruptSignals,
    environment: RequeueEnvironment | None,
    how: str,
) -> NoReturn:
    """End this process as the signal and Slurm require; `how` says how the user can resume.

    Outside Slurm, in an interactive job and after a signal from a terminal: exit. Wall time near: requeue. SIGTERM in a
    job: what `fate` says. The first process decides for all.

    Raises:
        SystemExit: With 128 and the signal's number.
    """
    if job is None or job.interactive or interrupted.signum in BY_HAND:
        raise SystemExit(128 + interrupted.signum)
    terminated = signals.count(signal.SIGTERM)
    if is_first_process():
        what, why = ("time is up", "") if interrupted.signum in WALL_TIME else _await_fate(job, signals)
        is_preempted, wanted = what == "preempted", environment is None or environment.auto_requeue
        refusal = why if what == "over" else requeue(job) if wanted or is_preempted else "auto_requeue is off"
        if refusal is None or refusal == REQUEUED:
            _write(f"Job {job.number} is requeued.")
        elif not is_preempted:
            _write(f"Job {job.number} is not requeued: {refusal}. {how}")
        else:
            _write(f"Waiting until Slurm requeues job {job.number}, which was preempted: {refusal}.")
            while signals.count(signal.SIGTERM) == terminated:  # at the end of the grace time
                time.sleep(0.2)
    else:
        _await_first_process(job, signals)
    raise SystemExit(128 + interrupted.signum)


def _await_first_process(job: SlurmJob, signals: InterruptSignals) -> None:
    """Wait until Slurm ends this process: `srun --kill-on-bad-exit` does so when the first process ends."""
    terminated, end = signals.count(signal.SIGTERM), time.monotonic() + END_TIMEOUT_S
    while signals.count(signal.SIGTERM) == terminated:
        time.sleep(0.2)
        if time.monotonic() > end:
            if fate(_show(job), _preempt_mode)[0] not in ("unknown", "preempted"):
                return
            end += END_TIMEOUT_S


def _await_fate(job: SlurmJob, signals: InterruptSignals) -> tuple[Fate, str]:
    """Return the fate of a job that received SIGTERM; as long as it is unknown, wait for a kill or the wall time."""
    said = ""
    while not signals.has(*WALL_TIME):
        what, why = fate(_show(job), _preempt_mode) if shutil.which("scontrol") else ("unknown", NO_SCONTROL)
        if why == BY_HAND_ALONE and _is_shutting_down():
            return "time is up", ""
        if what != "unknown":
            return what, why
        if why != said:
            said = why
            _write(f"Waiting until Slurm ends job {job.number}: {why}.")
        time.sleep(ASK_AGAIN_S)
    return "time is up", ""


def _is_shutting_down() -> bool:
    """Return whether systemd shuts this node down, so that SIGTERM came from there."""
    return _run("systemctl", "is-system-running")[1].strip() == "stopping"


def _show(job: SlurmJob) -> dict[str, str]:
    """Return what `scontrol show job` says; empty if it does not answer."""
    return _fields(_run("scontrol", "show", "job", "-o", job.number))


def _fields(answer: tuple[int, str]) -> dict[str, str]:
    code, text = answer
    return dict(field.split("=", 1) for field in text.split() if "=" in field) if code == 0 else {}


def _run(*command: str) -> tuple[int, str]:
    """Return exit code and output of a Slurm command; a controller that does not answer counts as a failure."""
    try:
        with blocked():  # scontrol runs in the job that it ends
            # In UTF-8, but a job's name and folder may have any bytes.
            form: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "timeout": CONTROLLER_TIMEOUT_S}
            done = subprocess.run(command, capture_output=True, check=False, **form)
    except FileNotFoundError:
        return 127, f"{command[0]} is not on the PATH"
    except OSError as error:
        return 1, f"{command[0]} cannot be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {CONTROLLER_TIMEOUT_S:.0f} s"
    return done.returncode, done.stderr or done.stdout


def _write(text: str) -> None:
    if is_first_process():
        complain(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        sys.stderr.flush()
