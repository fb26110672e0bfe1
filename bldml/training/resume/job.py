"""The Slurm job of this process, and whether it is interactive. Imports nothing heavy."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Names that srun and salloc give to an interactive session; the names of Open OnDemand begin with the other.
INTERACTIVE_NAMES, DASHBOARD = ("bash", "interactive"), "sys/dashboard/"


@dataclass(frozen=True)
class SlurmJob:
    """The Slurm job of this process."""

    id: str  # as scontrol needs it; for an array, array number and task (`4711_3`)
    cluster: str = ""  # its name; two clusters may use the same job number
    interactive: bool = False  # whether a person works in it, in a terminal or a notebook; it cannot be requeued
    restarts: int = 0  # number of times Slurm has restarted it
    task: str = ""  # name of this task of an array, which the job script sets for the names of runs (BLDML_TASK)

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> "SlurmJob | None":
        """Return the job described by the environment variables; None outside a job.

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
            environment.get("BLDML_TASK", "") if array and task else "",
        )

    @property
    def key(self) -> str:
        """Identifier of the job in a run folder: the same before and after a requeue, different for every job."""
        return f"{self.cluster}:{self.id}"

    def sibling(self, key: object) -> str:
        """Return the number of another task of this job's array whose key this is; empty if it is none.

        >>> SlurmJob("9_3").sibling(":9_0"), SlurmJob("9_3").sibling(":9_3"), SlurmJob("9").sibling(":9_0")
        ('0', '', '')
        """
        array, _, task = str(key).rpartition("_")
        return task if task and array == self.key.rpartition("_")[0] and key != self.key else ""


def interactive_kind(environment: Mapping[str, str]) -> Literal["notebook", "terminal"] | None:
    """Return how a person works in this job; None for a batch job.

    Fit and doctor both use this definition. An interactive job is neither resumed by its number nor requeued. Jupyter's
    own variables are no evidence: a batch job that is submitted from a notebook inherits them.

    >>> interactive_kind({"SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}), interactive_kind({"SLURM_PTY_PORT": "4"})
    ('notebook', 'terminal')
    """
    name = environment.get("SLURM_JOB_NAME", "")
    if name.startswith(DASHBOARD):
        return "notebook"
    # SLURM_PTY_PORT: srun --pty, whatever program it runs.
    return "terminal" if name in INTERACTIVE_NAMES or "SLURM_PTY_PORT" in environment else None
