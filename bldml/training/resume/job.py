"""The Slurm job and job step of this process, and whether the job is interactive. Imports nothing heavy."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bldml.errors import UsageError
from bldml.io.platform import has_terminal
from bldml.io.text import counted

# Names that srun and salloc give to an interactive session; the names of Open OnDemand begin with the other.
INTERACTIVE_NAMES, DASHBOARD = ("bash", "interactive"), "sys/dashboard/"
# Larger numbers mark the shell of a batch script or of salloc, and other steps that srun did not start.
LARGEST_STEP = 0xFFFFFFEF


@dataclass(frozen=True)
class SlurmJob:
    """The Slurm job of this process."""

    id: str  # that a run folder is named after; for a task of an array, array number and task (`4711_3`)
    cluster: str = ""  # its name; two clusters may use the same job number
    interactive: bool = False  # whether a person works in it, in a terminal or a notebook; it cannot be requeued
    restarts: int = 0  # number of times Slurm has restarted it
    task: str = ""  # name of this task of an array, which the job script sets for the names of runs (BLDML_TASK)
    own_number: str = ""  # SLURM_JOB_ID if the id may be that of another job, otherwise empty

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
            number if array and task and number != array else "",
        )

    @property
    def number(self) -> str:
        """What Slurm's commands need, and certainly this job.

        A job that was submitted in a task of an array may have inherited the variables of that task, but SLURM_JOB_ID
        is its own. For one task of an array it is the number of the whole array; that task needs array and task.

        >>> task = {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}
        >>> [SlurmJob.current({"SLURM_JOB_ID": number, **task}).number for number in ("12", "9")]
        ['12', '9_3']
        """
        return self.own_number or self.id

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


@dataclass(frozen=True)
class SlurmStep:
    """The job step that srun started this process in, as one of its tasks. From it alone a fit has its ranks.

    Attributes:
        number: The step's number in its job.
        tasks_per_node: Number of its tasks on each of its nodes.
        nodes: Its nodes in Slurm's notation, such as `gpu[1-2]`.
    """

    number: int
    tasks_per_node: tuple[int, ...]
    nodes: str = ""

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ, terminal: bool | None = None) -> "SlurmStep | None":
        """Return the step described by the environment variables; None for a process that is no task of srun.

        A shell of `srun --pty` is one, but what is typed there is not: the other tasks do not run it. A job that is
        submitted there inherits the variables of the shell's step, and only srun makes the number of tasks in
        SLURM_NTASKS that of the step. `terminal` is whether this process has a terminal; None finds out.

        >>> step = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
        >>> SlurmStep.current(step), SlurmStep.current({**step, "SLURM_NTASKS": "4"})
        (SlurmStep(number=0, tasks_per_node=(2,), nodes=''), None)
        """
        number, tasks = environment.get("SLURM_STEP_ID", ""), environment.get("SLURM_STEP_NUM_TASKS", "1")
        if not {"SLURM_JOB_ID", "SLURM_PROCID"} <= environment.keys() or not number.isdigit():
            return None
        if int(number) > LARGEST_STEP or environment.get("SLURM_NTASKS", tasks) != tasks:
            return None
        if _is_typed(environment, terminal):
            return None
        per_node = _expanded(environment.get("SLURM_STEP_TASKS_PER_NODE", tasks))
        return cls(int(number), per_node, environment.get("SLURM_STEP_NODELIST", ""))

    @property
    def tasks(self) -> int:
        """Number of tasks on all nodes."""
        return sum(self.tasks_per_node)

    def difference(self, devices: int, nodes: int) -> str | None:
        """Return how the step differs from a trainer's devices per node and its nodes; None if it does not.

        >>> SlurmStep(0, (2, 2)).difference(2, 2) is None, SlurmStep(0, (4,)).difference(1, 1)
        (True, 'srun started 4 tasks on 1 node; trainer.devices is 1 on 1 node')
        """
        if self.tasks_per_node == (devices,) * nodes:
            return None
        tasks = " and ".join(sorted({str(n) for n in self.tasks_per_node}))
        each = " each" if len(self.tasks_per_node) > 1 else ""
        here = f"{tasks} {'task' if tasks == '1' else 'tasks'} on {counted(len(self.tasks_per_node), 'node')}{each}"
        return f"srun started {here}; trainer.devices is {devices} on {counted(nodes, 'node')}"

    def remedies(self, devices: int, nodes: int) -> tuple[str, ...]:
        """Return the options of srun or of the trainer that make both equal."""
        slurm = f"--nodes={nodes} --ntasks-per-node={devices} (for CPUs: --cpus-per-task)"
        if len(set(self.tasks_per_node)) > 1:
            return (slurm,)
        return slurm, f"--trainer.num_nodes {len(self.tasks_per_node)} --trainer.devices {self.tasks_per_node[0]}"


def check_single(command: str) -> None:
    """Raise UsageError if srun started several tasks of a command that does its work in one process."""
    step = SlurmStep.current()
    if step is not None and step.tasks > 1:
        message = f"bldml {command} runs in one process, and srun started {step.tasks} here, which would write the "
        message += "same files. Start it with srun --ntasks=1."
        raise UsageError(message, "processes-too-many", found=step.tasks, expected=1)


def _expanded(counts: str) -> tuple[int, ...]:
    """Return the number of tasks on each node from Slurm's notation.

    >>> _expanded("2(x3),1")
    (2, 2, 2, 1)
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return tuple(int(count) for count, times in found for _ in range(int(times or 1)))


def interactive_kind(
    environment: Mapping[str, str], terminal: bool | None = None
) -> Literal["notebook", "terminal"] | None:
    """Return how a person works in this job; None for a batch job.

    Fit and doctor both use this definition. An interactive job is neither resumed by its number nor requeued; its ranks
    are another question, see `SlurmStep`. Jupyter's own variables are no evidence: a batch job that is submitted from a
    notebook inherits them. `terminal` is whether this process has a terminal; None finds out.

    >>> interactive_kind({"SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}), interactive_kind({"SLURM_JOB_NAME": "bash"})
    ('notebook', 'terminal')
    """
    name = environment.get("SLURM_JOB_NAME", "")
    if name.startswith(DASHBOARD):
        return "notebook"
    return "terminal" if name in INTERACTIVE_NAMES or _is_typed(environment, terminal) else None


def _is_typed(environment: Mapping[str, str], terminal: bool | None) -> bool:
    """Return whether this process runs in a terminal of srun --pty; what is submitted there inherits the variable."""
    return "SLURM_PTY_PORT" in environment and (has_terminal() if terminal is None else terminal)
