"""Which Slurm job this process runs in, and whether a person works in it. Loads nothing heavy."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Names that srun and salloc give to a session in which a person types; Open OnDemand's begin with the other.
INTERACTIVE_NAMES, DASHBOARD = ("bash", "interactive"), "sys/dashboard/"


@dataclass(frozen=True)
class SlurmJob:
    """The job that this process runs in.

    Attributes:
        id: As scontrol takes it: the job's number, or array and task (`4711_3`).
        cluster: Name of the cluster; numbers of two clusters may be equal.
        interactive: Whether a person types in it, or a notebook runs in it; it cannot be requeued.
        restarts: How often Slurm has started it again.
    """

    id: str
    cluster: str = ""
    interactive: bool = False
    restarts: int = 0

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> "SlurmJob | None":
        """The job by its environment variables; None outside one.

        >>> SlurmJob.current({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}).id
        '9_3'
        """
        number = environment.get("SLURM_JOB_ID")
        if not number:
            return None
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        restarts = environment.get("SLURM_RESTART_COUNT", "0")
        return cls(
            f"{array}_{task}" if array and task else number,
            environment.get("SLURM_CLUSTER_NAME", ""),
            interactive_kind(environment) is not None,
            int(restarts) if restarts.isdigit() else 0,
        )

    @property
    def key(self) -> str:
        """What a run folder notes of its job: the same before and after a requeue, different for every job."""
        return f"{self.cluster}:{self.id}"


def interactive_kind(environment: Mapping[str, str]) -> Literal["notebook", "terminal"] | None:
    """Say in what a person works in this job; None for a batch job.

    The one definition, for fit and for doctor. A job in which a person works is neither resumed by its number nor put
    into the queue again. Jupyter's own variables say nothing: a batch job that a notebook submits inherits them.

    >>> interactive_kind({"SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}), interactive_kind({"SLURM_PTY_PORT": "4"})
    ('notebook', 'terminal')
    """
    name = environment.get("SLURM_JOB_NAME", "")
    if name.startswith(DASHBOARD):
        return "notebook"
    # The last: srun --pty, whatever it runs.
    return "terminal" if name in INTERACTIVE_NAMES or "SLURM_PTY_PORT" in environment else None
