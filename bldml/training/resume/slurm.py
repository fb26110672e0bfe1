"""Slurm: requeueing the job, ending the process, and how the processes of a job step find each other."""

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import NoReturn

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from bldml.errors import ConfigError
from bldml.io.screen import complain
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import BY_HAND, WALL_TIME, Interrupted, InterruptSignals, blocked, is_first_process

CONTROLLER_TIMEOUT_S = 20.0
END_TIMEOUT_S = 300.0
TRIES = 3


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
        """Return whether srun started this process and its job is not interactive.

        Lightning checks SLURM_NTASKS, which a notebook's job has too; only srun sets the step number.
        """
        job = SlurmJob.current()
        return job is not None and not job.interactive and {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys()


def requeue(job: SlurmJob) -> str | None:
    """Requeue the job; return the reason if Slurm has not requeued it."""
    if shutil.which("scontrol") is None:
        return "scontrol is not on the PATH (a container without Slurm's commands?)"
    code, text = _scontrol("show", "job", "-o", job.id)
    # Requeueing would revive a cancelled job. While its processes are being ended, Slurm shows it as completing; so it
    # does a job at its time limit, but with that as the reason.
    shown = dict(field.split("=", 1) for field in text.split() if "=" in field) if code == 0 else {}
    completing = shown.get("JobState") == "COMPLETING" and shown.get("Reason") != "TimeLimit"
    if completing or shown.get("JobState", "").startswith("CANCELLED"):
        return "it was cancelled"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(1)
        code, text = _scontrol("requeue", job.id)
        # Slurm may have requeued the job and ended this command before it received the answer.
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
    """End this process as the signal and Slurm require.

    Wall time near: requeue, then wait until Slurm ends the process. SIGTERM in a job: wait to be killed. Slurm requeues
    a preempted job only if it still runs at the end of the grace time; a job that exits early counts as completed. A
    cancelled job must not be requeued, and cannot be distinguished from a preempted one. In all other cases: exit.
    `how` says how the user can resume the run.

    Raises:
        SystemExit: With 128 and the signal's number.
    """
    wanted = environment.auto_requeue if environment else True
    if job is None or job.interactive or interrupted.signum in BY_HAND:
        raise SystemExit(128 + interrupted.signum)
    if interrupted.signum not in WALL_TIME:
        _write(f"Waiting for Slurm to end job {job.id}. If preempted, it restarts automatically; if cancelled: {how}")
        # After a stray SIGTERM nothing kills the process: the wall time still ends the job, which is then requeued.
        while not signals.has(*WALL_TIME):
            time.sleep(0.5)
    refusal = None
    if is_first_process():
        refusal = requeue(job) if wanted else "auto_requeue is off"
        _write(f"Job {job.id} is requeued." if refusal is None else f"Job {job.id} is not requeued: {refusal}. {how}")
    # Slurm ends the processes of a requeued job by SIGTERM within seconds; the other ranks wait for it as well.
    end = time.monotonic() + END_TIMEOUT_S
    while refusal is None and not signals.has(signal.SIGTERM) and time.monotonic() < end:
        time.sleep(0.2)
    raise SystemExit(128 + interrupted.signum)


def _scontrol(*arguments: str) -> tuple[int, str]:
    """Return exit code and output; a controller that does not answer counts as a failure."""
    try:
        with blocked():  # scontrol runs in the job that it ends
            done = subprocess.run(
                ["scontrol", *arguments], capture_output=True, text=True, timeout=CONTROLLER_TIMEOUT_S, check=False
            )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {CONTROLLER_TIMEOUT_S:.0f} s"
    return done.returncode, done.stderr or done.stdout


def _write(text: str) -> None:
    if is_first_process():
        complain(f"{text}\n")
        sys.stderr.flush()
