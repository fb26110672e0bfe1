"""The command `sweep`: the plan of an experiment, its runs, and what they say together."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.errors import RunError, UsageError
from bldml.io.locks import Lock
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.text import counted, first_few
from bldml.sweep.array import check_script, queued_runs, submit_runs
from bldml.sweep.experiment import read_experiment
from bldml.sweep.plan import NOTHING, Own, Plan, SweepFolder, default_folder, opened_runs, read_plan
from bldml.sweep.states import RunState, read_states, state_of, table_of


def run_sweep(experiment: Path, output: Path | None, jobs: int, own: Own = NOTHING) -> None:
    """Do the runs of an experiment that are missing, on this machine.

    Raises:
        ConfigError, DatasetError, TrainingError, RunError: The experiment cannot be done as it is; nothing ran. Or runs
            failed or were interrupted by somebody else, which the message names; all others are finished, or in Slurm's
            queue, which is said.
    """
    from bldml.sweep.local import LocalRuns
    from bldml.sweep.planning import plan_experiment

    _check_jobs(jobs)
    folder, content = SweepFolder(output or default_folder(experiment)), read_experiment(experiment)
    if content.search:
        from bldml.sweep.search.command import run_search

        run_search(content, folder, jobs, own)
        return
    plan = plan_experiment(content, folder, own)
    queued = queued_runs(folder)
    if queued:
        say(f"{counted(len(queued), 'run is', 'runs are')} in Slurm's queue and not done here.\n")
    LocalRuns(folder, jobs, own.options).do(plan.runs, queued)
    states = read_states(folder, plan, queued)
    say(table_of(states))
    finish(folder, plan, states)
    left = [one for one in states if one.state not in ("finished", "queued") and one.run.name not in queued]
    if left:
        sys.stdout.flush()
        names = first_few([f"{one.run.name} ({one.state})" for one in left], 10)
        message = (
            f"{counted(len(left), 'run is', 'runs are')} not finished: {names}. The same command does what is left."
        )
        raise RunError(message, "sweep-runs-left", found=[one.run.name for one in left], path=folder.path)


def submit_sweep(experiment: Path, output: Path | None, script: Path, at_once: int | None, own: Own = NOTHING) -> None:
    """Submit the runs of an experiment that are missing as a Slurm job array; those in the queue are left there.

    Raises:
        ConfigError, DatasetError, TrainingError, RunError, UsageError, MachineError: Nothing was submitted.
    """
    from bldml.doctor.configuration import read_configuration
    from bldml.sweep.planning import arguments_of, plan_experiment

    _check_jobs(at_once)
    folder, content = SweepFolder(output or default_folder(experiment)), read_experiment(experiment)
    if content.search:
        from bldml.sweep.search.command import submit_search

        submit_search(content, folder, script, at_once, own)
        return
    plan = plan_experiment(content, folder, own)
    with Lock(folder.lock, wait=None, waiting=safe_point):  # two at once would submit the same runs
        states = read_states(folder, plan, queued_runs(folder))
        missing = [one.run for one in states if one.state not in ("finished", "running", "queued")]
        if missing:
            first = [*arguments_of(folder, missing[0]), *own.options]
            check_script(script, read_configuration(first, own.model_class).settings)
            job = submit_runs(folder, missing, script, at_once, own.options)
            say(f"Submitted {counted(len(missing), 'run')} as job array {job}.\n")
    say(table_of(read_states(folder, plan, queued_runs(folder))))
    if all(one.state == "finished" for one in states):
        finish(folder, plan, states)
    else:
        say("To see how far they are: the same command with --status.\n")


def _check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}.", "sweep-jobs-wrong", found=jobs)


def show_status(experiment: Path, output: Path | None) -> None:
    """Print the state of each run of an experiment; nothing is changed."""
    folder = SweepFolder(output or default_folder(experiment))
    plan, queued = planned(folder), queued_runs(folder)
    final = final_states(folder, plan, queued)
    if plan.search:
        from bldml.sweep.search.command import table_of_trials

        say(table_of_trials(folder, plan, queued) + (table_of(final) if final else ""))
    else:
        say(table_of([*read_states(folder, plan, queued), *final]))


def collect_runs(experiment: Path, output: Path | None) -> None:
    """Write the page of an experiment from the runs that are finished by now."""
    folder = SweepFolder(output or default_folder(experiment))
    plan = planned(folder)
    states = read_states(folder, plan, queued_runs(folder))
    if not any(one.state == "finished" for one in states):
        message = f"No run of {show_path(folder.path)} is finished yet; --status shows how far they are."
        raise RunError(message, "sweep-nothing-finished", path=folder.path)
    if plan.search:
        say(collect_page(folder, states))
    else:
        finish(folder, plan, states)


def open_sealed(
    experiment: Path, output: Path | None, jobs: int | None, script: Path | None = None, own: Own = NOTHING
) -> None:
    """Open the test set of an experiment for the one configuration; see `bldml.sweep.opening`."""
    from bldml.sweep.opening import open_test_set

    _check_jobs(jobs)
    folder = SweepFolder(output or default_folder(experiment))
    plan = planned(folder)
    open_test_set(folder, plan, jobs, script, own)
    say(collect_page(folder, read_states(folder, plan)))


def planned(folder: SweepFolder) -> Plan:
    """Return the plan of an experiment that was started; RunError if there is none."""
    if not folder.plan.exists():
        message = f"There is no sweep in {show_path(folder.path)}. Start it first, or set its folder as --output."
        raise RunError(message, "sweep-missing", path=folder.path)
    return read_plan(folder)


def finish(folder: SweepFolder, plan: Plan, states: Sequence[RunState]) -> None:
    """Collect what is finished, say what is next, and raise RunError if runs failed."""
    failed = [one for one in states if one.state == "failed"]
    if any(one.state == "finished" for one in states):
        say(collect_page(folder, states))
    if failed:
        sys.stdout.flush()
        names = ", ".join(one.run.name for one in failed[:10]) + (", …" if len(failed) > 10 else "")
        message = (
            f"{counted(len(failed), 'run')} of {len(states)} failed: {names}. The first: {failed[0].reason}\n"
            f"The logs are in {show_path(folder.log('a').parent)}. The same command tries them again."
        )
        raise RunError(message, "sweep-runs-failed", found=[one.run.name for one in failed], path=folder.path)


def collect_page(folder: SweepFolder, states: Sequence[RunState]) -> str:
    """Write the page of an experiment, with the reasons why runs are not finished; return what to say."""
    from bldml.sweep.collect import collect

    final = final_states(folder, read_plan(folder), queued_runs(folder))
    return collect(
        folder, {one.run.name: one.reason or one.state for one in (*states, *final) if one.state != "finished"}
    )


def final_states(folder: SweepFolder, plan: Plan, queued: Mapping[str, str]) -> list[RunState]:
    """Return the states of the runs that are trained for the opened test set."""
    return [state_of(folder, run, queued.get(run.name, "")) for run in opened_runs(folder, plan)]
