"""Slurm: which job this is, how it is requeued, and how its processes find each other."""

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import NoReturn

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from bldml.errors import ConfigError
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import WALL_TIME, Interrupted, InterruptSignals, blocked, is_first_process

CONTROLLER_TIMEOUT_S = 20.0
END_TIMEOUT_S = 300.0
TRIES = 3


class RequeueEnvironment(SLURMEnvironment):
    """Runs in a Slurm job step; when the wall time is near, the run is saved and its job put into the queue again.

    Inside `srun` it is taken by itself; a configuration names it to change something.

    Args:
        auto_requeue: Whether the job is put into the queue again (`scontrol requeue`) when its wall time is near.
        requeue_signal: The signal of `#SBATCH --signal`, SIGUSR1 or SIGUSR2; either is understood.

    Raises:
        ConfigError: It is another one: SIGTERM, for instance, also says that a job is cancelled.
    """

    def __init__(self, auto_requeue: bool = True, requeue_signal: signal.Signals | None = None) -> None:
        if requeue_signal is not None and requeue_signal not in WALL_TIME:
            message = f"requeue_signal must be SIGUSR1 or SIGUSR2, not {requeue_signal.name}."
            raise ConfigError(message, "requeue-signal-unknown", found=requeue_signal.name)
        # Not Lightning's own __init__, which warns wherever Slurm is installed but a command was not started by srun.
        self.auto_requeue = auto_requeue
        self.requeue_signal: signal.Signals = requeue_signal or signal.SIGUSR1

    @staticmethod
    def detect() -> bool:
        """Whether this process was started by srun and no person types in its job.

        Lightning looks at SLURM_NTASKS, which a notebook's job has too; only srun sets the number of the step.
        """
        job = SlurmJob.current()
        return job is not None and not job.interactive and {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys()


def requeue(job: SlurmJob) -> str | None:
    """Put the job into the queue again.

    Returns:
        None if Slurm has done so; otherwise why not.
    """
    if shutil.which("scontrol") is None:
        return "scontrol is not on the PATH (a container without Slurm's commands?)"
    code, text = _scontrol("show", "job", "-o", job.id)
    # Requeueing a cancelled job would raise it from the dead. While its processes are being ended Slurm shows it as
    # completing; one whose time is up too, but with that as its reason.
    shown = dict(field.split("=", 1) for field in text.split() if "=" in field) if code == 0 else {}
    completing = shown.get("JobState") == "COMPLETING" and shown.get("Reason") != "TimeLimit"
    if completing or shown.get("JobState", "").startswith("CANCELLED"):
        return "it was cancelled"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(1)
        code, text = _scontrol("requeue", job.id)
        # Slurm may have done it and ended this very command before it heard so.
        if code == 0 or "pending" in text.lower():
            return None
    return f"scontrol requeue {job.id} was refused: {text.strip() or f'exit code {code}'}"


def leave(
    interrupted: Interrupted,
    job: SlurmJob | None,
    signals: InterruptSignals,
    environment: RequeueEnvironment | None,
    how: str,
) -> NoReturn:
    """End this process in the way that the signal and the queue ask for.

    The wall time is near: requeue, then wait until Slurm ends the process. SIGTERM in a job: wait to be killed. Slurm
    requeues a preempted job only if it is still there when the grace time is over; one that leaves early counts as
    ended. A cancelled job must not be requeued, and cannot be told from a preempted one. Everything else: exit.

    Args:
        interrupted: What interrupted the run.
        job: The job, if there is one.
        signals: Where a later signal shows.
        environment: The plugin in use.
        how: What continues the run, for the user: a command.

    Raises:
        SystemExit: With 128 and the signal's number.
    """
    wanted = environment.auto_requeue if environment else True
    if job is None or job.interactive or interrupted.signum in (signal.SIGINT, signal.SIGHUP):
        raise SystemExit(128 + interrupted.signum)
    if interrupted.signum not in WALL_TIME:
        _say(f"Waiting for Slurm to end job {job.id}. Preempted, it will start again by itself; if cancelled: {how}")
        # A stray SIGTERM, after which nobody kills: the wall time still ends the job, and then it is requeued.
        while not signals.has(*WALL_TIME):
            time.sleep(0.5)
    refusal = None
    if is_first_process():
        refusal = requeue(job) if wanted else "auto_requeue is off"
        _say(f"Job {job.id} is requeued." if refusal is None else f"Job {job.id} is not requeued: {refusal}. {how}")
    # Slurm ends the processes of a requeued job by SIGTERM within seconds; the other ranks wait for it too.
    end = time.monotonic() + END_TIMEOUT_S
    while refusal is None and not signals.has(signal.SIGTERM) and time.monotonic() < end:
        time.sleep(0.2)
    raise SystemExit(128 + interrupted.signum)


def _scontrol(*arguments: str) -> tuple[int, str]:
    """Exit code and what was printed; a controller that does not answer counts as a failure."""
    try:
        with blocked():  # it lives in the job whose end it brings about
            done = subprocess.run(
                ["scontrol", *arguments], capture_output=True, text=True, timeout=CONTROLLER_TIMEOUT_S, check=False
            )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {CONTROLLER_TIMEOUT_S:.0f} s"
    return done.returncode, done.stderr or done.stdout


def _say(text: str) -> None:
    if is_first_process():
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
