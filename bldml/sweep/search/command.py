"""A search through the command sweep: the trials that are left, their table, and how the command ends."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.errors import RunError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import LARGEST_CONFIGURATION, dump_yaml, load_yaml, read_text
from bldml.io.locks import Lock, is_taken
from bldml.io.safe_points import safe_point
from bldml.io.screen import printable, say
from bldml.io.text import counted, first_few
from bldml.sweep.array import SCRIPT_VARIABLE, WORKER, check_script, queued_runs, submit_workers
from bldml.sweep.collect import collect
from bldml.sweep.experiment import ExperimentFile
from bldml.sweep.local import LocalRuns, program
from bldml.sweep.plan import Own, Plan, SweepFolder, Trial
from bldml.sweep.planning import arguments_of, plan_with_photographs
from bldml.sweep.search.array import JobRuns
from bldml.sweep.search.worker import Worker, has_trials_left, training_hours
from bldml.sweep.states import aligned, read_states, table_of

WORKERS = 4  # in Slurm, where no number is set: the more work at once, the less each proposal knows


def run_search(experiment: ExperimentFile, folder: SweepFolder, jobs: int, own: Own) -> None:
    """Do the trials of a search that are left, on this machine.

    Raises:
        ConfigError, DatasetError, TrainingError, RunError: The search cannot be done as it is. Or trials are left that
            were interrupted by somebody else, or no trial is complete.
    """
    plan, photographs = plan_with_photographs(experiment, folder, own)
    script = os.environ.get(SCRIPT_VARIABLE)
    runs = JobRuns(folder, script, own.options) if script else LocalRuns(folder, jobs, own.options)
    plan = Worker(folder, experiment, plan, photographs, runs, is_patient=not script).work()
    finish_search(folder, plan)


def submit_search(experiment: ExperimentFile, folder: SweepFolder, script: Path, workers: int | None, own: Own) -> None:
    """Submit workers of a search as a Slurm job array, as many as are missing; those in the queue are left there.

    Raises:
        ConfigError, DatasetError, TrainingError, RunError, UsageError, MachineError: Nothing was submitted.
    """
    from bldml.doctor.configuration import read_configuration

    plan, _ = plan_with_photographs(experiment, folder, own)
    with Lock(folder.lock, wait=None, waiting=safe_point):  # two at once would submit the same workers
        queued = queued_runs(folder)
        running = sum(trial.state == "running" for trial in plan.trials)
        left = running + (plan.search["trials"] - len(plan.trials) if has_trials_left(folder, plan) else 0)
        missing = min(left, workers or WORKERS) - sum(name.startswith(WORKER) for name in queued)
        if queued or missing > 0:
            copy = _copied(experiment, folder)
        if missing > 0:
            first = [*arguments_of(folder, plan.runs[0]), *own.options] if plan.runs else []
            check_script(script, read_configuration(first, own.model_class).settings)
            command = [*program(), "sweep", str(copy.absolute()), "--output", str(folder.path.absolute()), *own.options]
            job = submit_workers(folder, script, command, missing)
            say(f"Submitted {counted(missing, 'worker')} as job array {job}.\n")
        elif queued:
            say(f"{counted(len(queued), 'worker is', 'workers are')} in Slurm's queue; none was submitted.\n")
    if left:
        say(table_of_trials(folder, plan, {}))
        say("To see how far they are: the same command with --status.\n")
    else:
        finish_search(folder, plan)


def _copied(experiment: ExperimentFile, folder: SweepFolder) -> Path:
    """Write the experiment and its base files for the workers: what they were made of may be edited while they wait."""
    copy, bases = folder.path / "slurm" / "experiment.yaml", []
    for number, path in enumerate(experiment.base, 1):
        base = copy.parent / "base" / str(number) / path.name  # the name that it has in the plan
        make_folder(base.parent)
        write_atomically(base, read_text(path, LARGEST_CONFIGURATION))
        bases.append(str(base.absolute()))
    content = load_yaml(read_text(experiment.path, LARGEST_CONFIGURATION))
    make_folder(copy.parent)
    write_atomically(copy, dump_yaml({**content, "base": bases} if bases else content))
    return copy


def finish_search(folder: SweepFolder, plan: Plan) -> None:
    """Show and collect what there is; RunError if trials are left or none is complete."""
    say(table_of_trials(folder, plan, {}))
    states = read_states(folder, plan)
    if any(one.state == "finished" for one in states):
        say(collect(folder, {one.run.name: one.reason or one.state for one in states if one.state != "finished"}))
    sys.stdout.flush()
    left = [trial.name for trial in plan.trials if state_of_trial(folder, trial) == "interrupted"]
    if left:
        message = f"{counted(len(left), 'trial is', 'trials are')} not finished: {first_few(left, 10)}. "
        message += "The same command does what is left."
        raise RunError(message, "search-trials-left", path=folder.path, found=left)
    if all(trial.state in ("pruned", "failed") for trial in plan.trials):
        message = f"No trial of {show_path(folder.path)} is complete, so there is no best one."
        raise RunError(message, "search-without-result", path=folder.path)


def table_of_trials(folder: SweepFolder, plan: Plan, queued: Mapping[str, str]) -> str:
    """Return the table of trials as text, and below it that of the runs of the trials that are not finished."""
    keys, monitor = list(plan.search["ranges"]), str(plan.search["monitor"])
    rows = [("trial", "state", monitor, *(key.rpartition(".")[2] for key in keys))]
    for trial in plan.trials:
        values = [option_text(trial.params[key]) for key in keys]
        rows.append(
            (trial.name, state_of_trial(folder, trial), "" if trial.value is None else f"{trial.value:.4f}", *values)
        )
    states = [trial[1] for trial in rows[1:]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = [
        *aligned(rows),
        f"{len(plan.trials)} of {counted(plan.search['trials'], 'trial')}: {counts or 'none yet'}.",
    ]
    if hours := plan.search["hours"]:
        lines.append(f"{training_hours(folder, plan):.2f} of {hours:g} hours of training are used.")
    lines += [f"{trial.name} failed: {printable(trial.reason)}" for trial in plan.trials if trial.state == "failed"]
    running = {trial.name for trial in plan.trials if trial.state == "running"}
    runs = [one for one in read_states(folder, plan, queued) if one.run.configuration in running]
    return "\n".join(lines) + "\n" + (f"\n{table_of(runs)}" if runs else "")


def state_of_trial(folder: SweepFolder, trial: Trial) -> str:
    """Return the state of a trial; one that runs in no worker is interrupted."""
    if trial.state == "running" and not is_taken(folder.trial_claim(trial.name)):
        return "interrupted"
    return trial.state


def option_text(value: object) -> str:
    """Return the value of an option in few characters.

    >>> option_text(0.00123456), option_text(3), option_text("resnet50"), option_text(None)
    ('0.001235', '3', 'resnet50', 'null')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else printable(str(value))
