"""Runs of a worker that is a task of a Slurm job array: each by the script of a single fit."""

import os
from collections.abc import Sequence

from bldml.doctor.tools import ask
from bldml.sweep.array import SCRIPT_VARIABLE
from bldml.sweep.local import LocalRuns
from bldml.sweep.plan import PlannedRun, SweepFolder
from bldml.training.resume.job import SlurmJob


class JobRuns(LocalRuns):
    """Runs in the job of this process, one after the other.

    Slurm signals the steps of a job, which are the runs, and each run has its job requeued as any other fit. So this
    process passes no signal on.

    Args:
        folder: Folder of the experiment.
        script: The sbatch script of one fit, which takes a configuration and options of fit.
        options: Options of fit for every run, after its own.
    """

    def __init__(self, folder: SweepFolder, script: str, options: Sequence[str] = ()) -> None:
        super().__init__(folder, 1, options)
        self.script = script

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command of a run; the script takes its first configuration without --config."""
        return ["bash", self.script, *(arguments[1:] if arguments[0] == "--config" else arguments)]

    def environment(self, run: PlannedRun) -> dict[str, str]:
        """Return the environment of a run: that of the job, and the whole name of the run."""
        kept = {name: value for name, value in os.environ.items() if name != SCRIPT_VARIABLE}
        return {**kept, "BLDML_TASK": run.name}

    def interrupt(self, name: str) -> None:
        """Let a run save and end: by Slurm, because srun would kill it at a SIGTERM of its own."""
        if self.process_of(name):
            self.note_ended(name)
            job = SlurmJob.current()  # the plain number of one task of an array is that of all of them
            ask("scancel", "--signal=TERM", job.id if job else "")

    def end(self, signum: int) -> None:
        """Wait until the run has ended, which Slurm has signalled."""
        super().end(0)
