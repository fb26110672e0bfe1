"""The lock of a run: this process waits for one that trains in it, and asks to be requeued if that is its own job."""

import math
import time
from dataclasses import dataclass, field

from lightning.pytorch.utilities import rank_zero_info

from bldml.dataset.files import shell_word
from bldml.errors import RunError
from bldml.io.locks import Lock
from bldml.run.folder import Holder, RunFolder, lock_run, read_holder
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import WALL_TIME, Interrupted, InterruptSignals
from bldml.training.resume.stopping import STARTS

# The previous process may still be ending, and a file server may notice a dead node late: NFS 4 after 90 s.
PATIENCE_S = 120.0
SAY_AGAIN_S = 30.0


@dataclass
class Wait:
    """Waiting for another process to release a run; it says whom it waits for, and ends with a signal.

    Args:
        run: The run.
        job: The job of this process.
        signals: Flags of the signals received.
    """

    run: RunFolder
    job: SlurmJob
    signals: InterruptSignals
    begin: float = field(default_factory=time.monotonic)
    said: float = -math.inf

    def __call__(self) -> None:
        """Say whom it waits for, every now and then; raise Interrupted after a signal."""
        now = time.monotonic()
        if now - self.said >= SAY_AGAIN_S:
            self.said = now
            other = read_holder(self.run)
            waited = f" ({now - self.begin:.0f} s so far)" if now - self.begin >= 1 else ""
            then = "this job asks to be requeued"
            if is_of_another(other, self.job.key):
                then = "this command ends"
            elif starts_since(other, self.job) >= STARTS:
                then = "this job ends"
            rank_zero_info(
                f"Waiting{waited} for {other or 'another process'}, which still trains in {self.run.path}. "
                f"If it has not ended after {PATIENCE_S:.0f} s, {then}."
            )
        self.signals.check()


def is_of_another(other: Holder | None, job: str) -> bool:
    """Return whether a process is known not to be of this job: a person or another job has resumed the run."""
    return other is not None and other.job != job


def starts_since(other: Holder | None, job: SlurmJob) -> int:
    """Return how often a job was started after the start whose process holds the run; 0 where that is not recorded."""
    return job.restarts - other.restarts if other is not None and other.job == job.key else 0


def hold_run(run: RunFolder, job: SlurmJob | None, signals: InterruptSignals) -> Lock:
    """Lock a run. A requeued job waits for the process of its previous start, which may live on a node that is lost.

    Raises:
        Interrupted: A signal arrived while it waited; or the process of the previous start still lives, so the job is
            to be requeued as at its wall time, until that process has ended.
        RunError: Another process trains in the run, the third start in a row has waited for it in vain, or the folder
            is not writable.
    """
    if job is None or job.interactive or not job.restarts:
        return lock_run(run, holder=Holder.here(job.key if job else ""))
    me = Holder.here(job.key, job.restarts)
    try:
        return lock_run(run, wait=PATIENCE_S, holder=me, waiting=Wait(run, job, signals))
    except RunError as error:
        other = read_holder(run)
        if error.code != "run-in-use" or is_of_another(other, job.key):
            raise
        if (number := starts_since(other, job)) >= STARTS:
            message = (
                f"Job {job.number} is not requeued: {number} starts in a row have found {run.path} in use by "
                f"{other}. If its node is lost, it ends when the node is restarted. Then "
                f"submit the job with --resume {shell_word(run.path)}."
            )
            raise RunError(message, "run-held-by-lost-start", path=run.path, found=number) from error
        rank_zero_info(
            f"{run.path} is still in use by {other or 'another process'}, probably of a previous start of this job. If "
            "its node is lost, that process ends when the node is restarted."
        )
        raise Interrupted(next(iter(WALL_TIME))) from error


def await_holder(run: RunFolder, job: SlurmJob | None, signals: InterruptSignals) -> None:
    """Wait until the first process of a requeued job has locked the run: before, its checkpoints may change.

    Raises:
        Interrupted: A signal arrived.
    """
    end = time.monotonic() + 2 * PATIENCE_S  # then this process fails with the first one
    while job is not None and job.restarts and not job.interactive and time.monotonic() < end:
        other = read_holder(run)
        if other is not None and (other.job, other.restarts) == (job.key, job.restarts):
            return
        signals.check()
        time.sleep(1)
