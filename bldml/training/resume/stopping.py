"""Plain commands in a job: a signal interrupts them at their next safe point, and Slurm is told as by a fit."""

import signal
import time
from collections.abc import Callable

from bldml.errors import RunError
from bldml.io.safe_points import count_kept, interruptible
from bldml.io.screen import complain
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import INTERRUPTING, WALL_TIME, Interrupted, InterruptSignals

STARTED = time.monotonic()
"""When this process started, about: the module is loaded first."""
# How often a job starts in which nothing was done, before it fails.
STARTS = 3
# What is said of a job that fails so; benchmarks/interrupt_commands.py looks for it.
NO_PROGRESS = "before it had finished anything that could be kept"


def run_interruptible(work: Callable[[], None], signals: InterruptSignals, *, resumes: bool) -> None:
    """Do the work of a command; `resumes` says whether the same command resumes behind what is done.

    Ctrl-C interrupts at once, as before: there somebody waits, and whatever is finished is kept then too.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the text says that the command resumes.
        RunError: The wall time is near, and no start of this job has done anything, for the third time.
        SystemExit: A signal interrupted it, with 128 and the signal's number.
    """
    signals.install(tuple(signum for signum in INTERRUPTING if signum != signal.SIGINT))
    before = count_kept()
    try:
        with interruptible(signals.check):
            work()
    except KeyboardInterrupt as stop:
        if resumes and not str(stop):
            raise KeyboardInterrupt("interrupted; run the same command again to resume") from None
        raise
    except Interrupted as interrupted:
        again = f"To {'resume' if resumes else 'start again'}, run the same command again."
        complain(f"\nInterrupted; {'what is done is kept' if resumes else 'nothing of it can be kept'}. {again}\n")
        job = SlurmJob.current()
        check_progress(job, interrupted, count_kept() - before)
        # Here because it loads Lightning, which most plain commands do without.
        from bldml.training.resume.slurm import leave

        leave(interrupted, job, signals, None, again)


def check_progress(job: SlurmJob | None, interrupted: Interrupted, kept: int) -> None:
    """Raise a RunError if a job has reached the wall time for the third time, or later, and has kept nothing."""
    if job is None or job.interactive or interrupted.signum not in WALL_TIME or kept or job.restarts < STARTS - 1:
        return
    message = (
        f"Job {job.number} is not requeued: start {job.restarts + 1} got {signal.Signals(interrupted.signum).name}, "
        f"the signal of the wall time, {NO_PROGRESS}, and the next one probably would too. "
        "Submit it with a longer --time."
    )
    raise RunError(message, "job-without-progress", found=job.restarts + 1)
