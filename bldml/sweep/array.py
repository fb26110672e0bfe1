"""Runs of an experiment as a Slurm job array: submitted once, resumed by requeueing as any other fit."""

import getpass
import os
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm import query_site
from bldml.doctor.storage import run_folder
from bldml.doctor.submission.duration import check_duration, find_earlier, time_before_signal
from bldml.doctor.submission.sbatch import JobRequest
from bldml.doctor.submission.script import parse_script
from bldml.doctor.tools import ask
from bldml.errors import MachineError, RunError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import read_text
from bldml.io.screen import say
from bldml.sweep.plan import PlannedRun, SweepFolder
from bldml.sweep.records import read_record, write_record

# What an array has of its own: the rest of the lines is taken from the script of a single fit.
_OWN = re.compile(r"^#SBATCH\s+(--(array|output|error|job-name)\b|-[aoeJ])")
_WHOLE = 2_000_000  # bytes of a script that is read

SCRIPT = """\
#!/bin/bash
# Written by `python -m bldml sweep … --slurm {script}`: the runs of {name} that were missing, one task each.
{lines}
#SBATCH --job-name={job}
#SBATCH --output="{logs}/slurm-%A_%a.out"
set -euo pipefail

runs=(
{runs}
)
sweep={sweep}
run=${{runs[${{SLURM_ARRAY_TASK_ID:?submitted by bldml sweep --slurm}}]}}
folder=$sweep/lightning_logs/$run
exec >>"$sweep/logs/$run.log" 2>&1
if grep -qs '"phase": "finished"' "$folder/stretches.json"; then
    echo "$run is finished already"
    exit 0
fi
if [[ -f "$folder/config.yaml" ]]; then
    arguments=(--resume "$folder")
else
    arguments=({base}"$sweep/tasks/$run.yaml")
fi
rm -f "$sweep/logs/$run.code"
# The exit code is the reason of a failure; one of a signal is none.
trap 'echo $? >"$sweep/logs/$run.code"' EXIT
# The name of the run is its whole name, not followed by the number of the task.
export BLDML_TASK=$run
set -- "${{arguments[@]}}"{options}
source {script}
"""
WORKER = "worker-"
"""How the name of a task that is a worker of a search begins."""
SCRIPT_VARIABLE = "BLDML_SWEEP_SCRIPT"
"""In the job of a worker: the script by which it does its runs."""
WORKERS = """\
#!/bin/bash
# Written by `python -m bldml sweep … --slurm {script}`: workers of the search {name}.
{lines}
#SBATCH --job-name={job}
#SBATCH --output="{logs}/slurm-%A_%a.out"
umask 007
export {variable}={script}
# In place of the shell, which a signal would end while a run is saving.
exec {command}
"""


def queued_runs(folder: SweepFolder) -> dict[str, str]:
    """Return Slurm's state of the runs of an experiment in its queue, by name; empty where none was ever submitted.

    Raises:
        MachineError: Arrays were submitted, and Slurm does not answer: nobody knows which of their runs are queued.
    """
    arrays = _arrays(folder)
    if not arrays:
        return {}
    answer = ask("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format=%F|%K|%T")
    if answer.code != 0:
        message = (
            f"Runs of {show_path(folder.path)} were submitted to Slurm, which does not say whether they are still "
            f"queued: {answer.problem}. Repeat the command where squeue works. If no job of them is left, remove "
            f"{show_path(_record(folder))}."
        )
        raise MachineError(message, "sweep-queue-unknown", path=_record(folder), reason=answer.problem)
    found: dict[str, str] = {}
    for line in answer.text.splitlines():
        array, _, rest = line.strip().partition("|")
        task, _, state = rest.partition("|")
        runs = arrays.get(array, [])
        if task.isdigit() and int(task) < len(runs):
            found[runs[int(task)]] = "RUNNING" if state in ("RUNNING", "COMPLETING", "SUSPENDED") else state
    return found


def was_submitted(folder: SweepFolder) -> bool:
    """Return whether an array of this experiment was ever submitted; its tasks read what the plan wrote."""
    return bool(_arrays(folder))


def submit_runs(
    folder: SweepFolder, runs: Sequence[PlannedRun], script: Path, at_once: int | None, options: Sequence[str] = ()
) -> str:
    """Submit an array of these runs and return its number.

    Args:
        folder: Folder of the experiment.
        runs: Runs that are neither finished nor queued nor running.
        script: The sbatch script of one fit, which takes a configuration and options of fit.
        at_once: Largest number of tasks that run at a time; None for no limit.
        options: Options of fit for every run, after its own.

    Raises:
        RunError, UsageError, MachineError: It was not submitted.
    """
    names = [run.name for run in runs]
    return submit_array(folder, names, array_script(folder, runs, script, _read(script), options), at_once)


def submit_workers(folder: SweepFolder, script: Path, command: Sequence[str], workers: int) -> str:
    """Submit an array of workers of a search and return its number.

    Args:
        folder: Folder of the experiment.
        script: The sbatch script of one fit, by which each worker does its runs.
        command: The command of a worker.
        workers: Their number.

    Raises:
        RunError, UsageError, MachineError: It was not submitted.
    """
    number, text = len(_arrays(folder)) + 1, _read(script)
    content = WORKERS.format(**_header(folder, script, text), command=shlex.join(command), variable=SCRIPT_VARIABLE)
    return submit_array(folder, [f"{WORKER}{number}-{worker}" for worker in range(workers)], content, None)


def submit_array(folder: SweepFolder, names: Sequence[str], content: str, at_once: int | None) -> str:
    """Submit an array with a task for each name, record it, and return its number; MachineError if Slurm refuses it."""
    make_folder(folder.path / "slurm")
    number = len(_arrays(folder)) + 1
    file = folder.path / "slurm" / f"array-{number}.sh"
    write_atomically(file, content)
    limit = "" if at_once is None else f"%{at_once}"
    answer = ask("sbatch", "--parsable", f"--array=0-{len(names) - 1}{limit}", str(file))
    job = answer.text.strip().partition(";")[0]
    if answer.code != 0 or not job.isdigit():
        message = f"sbatch refused {show_path(file)}: {answer.problem or answer.text.strip()}"
        raise MachineError(message, "sweep-not-submitted", path=file, reason=answer.problem)
    arrays = {**_arrays(folder), job: [*names]}
    write_record(_record(folder), {"schema": 1, "arrays": arrays})
    return job


def array_script(
    folder: SweepFolder, runs: Sequence[PlannedRun], script: Path, text: str, options: Sequence[str] = ()
) -> str:
    """Return the sbatch script of an array, with the #SBATCH lines of the script that each of its tasks runs."""
    base = [str(path.absolute()) for path in sorted(folder.base.iterdir())]
    words = [shlex.quote(word) for path in base for word in ("--config", path)][1:]  # the first is the script's own
    return SCRIPT.format(
        **_header(folder, script, text),
        runs="\n".join(f"    {shlex.quote(run.name)}" for run in runs),
        sweep=shlex.quote(str(folder.path.absolute())),
        base=f"{' '.join(words)} --config " if words else "",
        options="".join(f" {shlex.quote(word)}" for word in options),
    )


def _header(folder: SweepFolder, script: Path, text: str) -> dict[str, str]:
    """Return the fields that every array script has.

    Raises:
        UsageError: The folder or the script has a name that would end a line of the new script, or that Slurm reads
            otherwise.
    """
    logs = str(folder.log("a").parent.absolute())
    for path, signs in ((logs, '"\\%'), (str(script), "")):
        if wrong := [one for one in path if one in signs or unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")]:
            message = (
                f"{show_path(path)} cannot stand in a job script, because of {wrong[0]!r}. Choose another --output, "
            )
            message += "or rename the folder."
            raise UsageError(message, "sweep-path-not-for-slurm", path=path)
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH") and not _OWN.match(line)]
    return {
        "script": shlex.quote(str(script) if len(script.parts) > 1 else f"./{script}"),  # not looked for on the PATH
        "name": folder.path.name,
        "lines": "\n".join(lines),
        "job": _job_name(folder),
        "logs": logs,
    }


def check_script(script: Path, settings: Settings | None) -> None:
    """Check that a start of a job of this script can make progress, by what earlier runs of the sweep took.

    Raises:
        UsageError: The script cannot be read.
        RunError: Its wall time is too short for the start and one validation, which an interruption repeats.
    """
    request = JobRequest(parse_script(_read(script)), query_site(os.environ), settings, os.environ, Path.cwd())
    left = time_before_signal(request)
    earlier = find_earlier(run_folder(settings), settings) if settings else None
    needed = (earlier.start or 0.0) + earlier.validation if earlier else 0.0
    for finding in check_duration(request):
        text = f"{show_path(script)}: {finding.found}."
        if finding.status != "OK" and left is not None and left <= needed:
            remedy = f" Set more in the script: {finding.remedy}" if finding.remedy else ""
            raise RunError(f"{text}{remedy}", "sweep-wall-time-short", path=script, reason=finding.found)
        if finding.status != "OK":
            say(f"Warning: {text}\n")


def _read(script: Path) -> str:
    try:
        return read_text(script, _WHOLE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = (
            f"The job script {show_path(script)} cannot be read: {reason}. Name one that trains a single run, such as "
        )
        message += "--slurm scripts/slurm/fit.sbatch."
        raise UsageError(message, "sweep-script-unreadable", path=script, reason=reason) from error


def _job_name(folder: SweepFolder) -> str:
    return "sweep-" + (re.sub(r"[^\w.-]+", "-", folder.path.name, flags=re.ASCII) or "runs")


def _record(folder: SweepFolder) -> Path:
    return folder.path / "slurm" / "arrays.json"


def _arrays(folder: SweepFolder) -> Mapping[str, list[str]]:
    """Return the names of the runs of each array that was submitted, by its number; the order is that of its tasks."""
    found = read_record(_record(folder), "which runs were submitted to Slurm", arrays=dict).get("arrays", {})
    return {str(number): [str(name) for name in names] for number, names in found.items() if isinstance(names, list)}
