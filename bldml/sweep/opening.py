"""The test set of an experiment: sealed while configurations are compared, and opened once, for one of them."""

import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bldml.dataset.files import shell_word, show_path
from bldml.errors import RunError, UsageError
from bldml.io.atomic import write_atomically
from bldml.io.documents import LARGEST_CONFIGURATION, dump_yaml, load_yaml, read_mapping, read_text
from bldml.io.locks import Lock
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.text import counted, number, plain
from bldml.run.folder import RunFolder
from bldml.run.reader import read_run
from bldml.sweep.array import check_script, queued_runs, submit_runs
from bldml.sweep.local import LocalRuns, own_environment, program
from bldml.sweep.plan import (
    NOTHING,
    Own,
    Plan,
    PlannedRun,
    SweepFolder,
    check_manifests,
    final_runs,
    opened_note,
    opened_runs,
)
from bldml.sweep.planning import arguments_of
from bldml.sweep.records import write_record
from bldml.sweep.results.claims import ensembles_tested
from bldml.sweep.results.opened import looks_of_ensembles
from bldml.sweep.search.worker import has_trials_left
from bldml.sweep.states import is_finished, read_states, state_of, table_of


@dataclass(frozen=True)
class Choice:
    """The configuration for the test set.

    Attributes:
        configuration: Its name.
        how: "beforehand" if the experiment names it, "search" if it is the best trial of one, otherwise "metric".
        values: Metric of the pooled predictions of each compared configuration, by its name; of a search, the objective
            of each complete trial. Empty if it was named beforehand.
    """

    configuration: str
    how: str
    values: dict[str, float | None]


def open_test_set(
    folder: SweepFolder, plan: Plan, jobs: int | None, script: Path | None = None, own: Own = NOTHING
) -> None:
    """Test the chosen configuration on the sealed test set; started again for the same one, do what is left.

    With folds, the configuration is trained once more with each seed, on the photographs of all folds, and tested:
    here, or as jobs. Without, its runs are tested.

    Args:
        folder: Folder of the experiment.
        plan: Its plan.
        jobs: Number of runs at a time; None for one here, and for no limit in Slurm.
        script: The sbatch script of one fit, to train as jobs; None to train here.
        own: What the user brings: trust in classes that bldml does not know, a classifier class.

    Raises:
        RunError: Runs are missing, no test set is sealed, or it was opened for another configuration; nothing was
            recorded.
        UsageError, MachineError: Jobs cannot be submitted; what was recorded stays, and the command may be repeated.
    """
    final = opened_runs(folder, plan)
    if not final or not all(is_finished(folder.run(run.name)) for run in final):
        check_manifests(folder, plan, [folder.final.name])
    _check_ready(folder, plan, script)
    choice = choose(folder, plan)
    if plan.folds is None:
        _check_sealed(folder, plan.of(choice.configuration))
    if script is not None and not opened_note(folder, plan):
        _check_script(folder, plan.of(choice.configuration)[0], script, own)
    with Lock(folder.lock, wait=None, waiting=safe_point):
        _note(folder, plan, choice)
    whys = {"beforehand": "which was named beforehand", "search": "the best trial by inner validation"}
    why = whys.get(choice.how, f"the best by {plan.metric}")
    say(f"The test set is opened for {choice.configuration}, {why}. This is recorded in {show_path(folder.opened)}.\n")
    if said := ensembles_tested(looks_of_ensembles(folder)):
        say(f"{said}\n")
    if plan.folds is None:
        say(_results(folder, plan, _tested(folder, plan, choice)))
        return
    runs = _final_tasks(folder, plan, choice)
    if script is None:
        is_done = _train_here(folder, runs, jobs or 1, own)
    else:
        is_done = _submitted(folder, runs, script, jobs, own)
    if is_done:
        say(_results(folder, plan, runs))
    else:
        say("When all are finished, the same command shows their results, and writes them to sweep.html.\n")


def _check_ready(folder: SweepFolder, plan: Plan, script: Path | None) -> None:
    """Raise RunError or UsageError unless everything that is compared is done, and a test set is sealed."""
    ended = {trial.name for trial in plan.trials if trial.state in ("pruned", "failed")}
    missing = [
        one.run.name
        for one in read_states(folder, plan)
        if one.state != "finished" and one.run.configuration not in ended
    ]
    if missing:
        message = (
            f"{counted(len(missing), 'run')} of {show_path(folder.path)} must finish first, such as {missing[0]}: the "
        )
        message += "test set is opened once, when everything is compared. Repeat the command without --open_test."
        raise RunError(message, "sweep-unfinished", path=folder.path, found=missing)
    if plan.search and has_trials_left(folder, plan):
        message = (
            f"{len(plan.trials)} of {counted(plan.search['trials'], 'trial')} of {show_path(folder.path)} have begun: "
            "the test set is opened once, for the best of all. Do the others first, by the same command without "
            "--open_test. To stop here, set search.trials to the number that there are before that."
        )
        raise RunError(message, "search-unfinished", path=folder.path, found=len(plan.trials))
    if plan.folds is not None and not folder.final.is_file() and not opened_note(folder, plan):
        message = f"No test set of {show_path(folder.path)} is sealed: all photographs are in its folds."
        raise RunError(message, "sweep-no-test-set", path=folder.path)
    if plan.folds is None and script is not None:
        message = "Without folds nothing is trained for the test set: its runs are tested, which takes one command. "
        message += "Repeat it without --slurm, in a job or session if a login node is too small."
        raise UsageError(message, "sweep-test-not-in-slurm", found=str(script))


def choose(folder: SweepFolder, plan: Plan) -> Choice:
    """Return the configuration named beforehand, or the one that the page of the experiment calls the best.

    That is the best by the metric of the pooled predictions, over the seeds that are complete in all of them; of a
    search, the complete trial with the best objective.

    Raises:
        RunError: No configuration is the best: the metric is not defined for all, or has no better direction. Or it
            would be chosen by predictions that were changed or cannot be read, and the test set is sealed.
    """
    from bldml.sweep.results.assessment import assess_experiment
    from bldml.sweep.results.gathering import doubtful, gather
    from bldml.sweep.search.study import rank_trials

    if plan.chosen is not None:
        return Choice(plan.chosen, "beforehand", {})
    if plan.search:
        ranked = rank_trials(plan)
        if not ranked:
            message = f"No trial of {show_path(folder.path)} is complete, so there is none to test."
            raise RunError(message, "search-no-best", path=folder.path)
        return Choice(ranked[0].name, "search", {one.name: one.value for one in ranked})
    findings = assess_experiment(gather(folder, plan, {}))
    unread = [
        (f"{plain(run.planned.name)}: {run.reason.rstrip('.')}.", "")
        for run in findings.experiment.runs
        if run.evaluation is None
    ]
    doubt = doubtful(findings.experiment.runs) or next(iter(unread), None)
    if doubt and not opened_note(folder, plan):
        message = f"{doubt[0]} The best configuration is chosen once, from all runs as they were written. {doubt[1]}"
        raise RunError(message, "sweep-choice-doubtful", path=folder.path, found=doubt[0])
    best = findings.best_configuration
    if best is None:
        message = f"No configuration of {show_path(folder.path)} is the best by {plan.metric}; see its sweep.html."
        raise RunError(message, "sweep-no-best", path=folder.path)
    if others := findings.experiment.other_photographs:
        names = ", ".join(map(plain, others))
        say(f"Not compared, because photographs, classes or units differ from those of the first: {names}.\n")
    return Choice(best.candidate.name, "metric", findings.values)


def _check_sealed(folder: SweepFolder, runs: Sequence[PlannedRun]) -> None:
    """Raise RunError if the runs have no test split; where their splits are not recorded, the test says it."""
    for run in runs:
        rows = read_run(folder.run(run.name)).splits
        if rows and not any(row["split"] == "test" for row in rows):
            message = f"{run.name} has no test split: all photographs are in train and val."
            raise RunError(message, "sweep-no-test-split", path=folder.run(run.name).splits)


def value_of(run: RunFolder, split: str, metric: str) -> float | None:
    """Return a metric of an evaluation, at its threshold where it depends on one; None if it is not estimable."""
    metrics = read_mapping(run.evaluation(split) / "metrics.json")
    at_threshold = metrics.get("at_threshold")
    value = metrics.get(metric, at_threshold.get(metric) if isinstance(at_threshold, dict) else None)
    return float(value) if isinstance(value, int | float) else None


def _note(folder: SweepFolder, plan: Plan, choice: Choice) -> None:
    """Record for which configuration the test set is opened, before anything sees it."""
    if before := opened_note(folder, plan):
        if before["configuration"] != choice.configuration:
            message = (
                f"The test set of {show_path(folder.path)} was opened for {before['configuration']} on "
                f"{before.get('time')}. Opened for {choice.configuration} too, it would choose between them, and its "
                "figures would flatter. Test another configuration on new photographs."
            )
            raise RunError(message, "sweep-test-opened", path=folder.opened, found=before["configuration"])
        return
    content = {
        "schema": 1,
        "configuration": choice.configuration,
        "how": choice.how,
        "values": choice.values,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "ensembles_before": [asdict(look) for look in looks_of_ensembles(folder)],
    }
    write_record(folder.opened, content)


def _final_tasks(folder: SweepFolder, plan: Plan, choice: Choice) -> list[PlannedRun]:
    """Return the trainings on the photographs of all folds, one for each seed, and write what they are started with."""
    runs = final_runs(plan, choice.configuration)
    for run in runs:
        of_fold = next(one for one in plan.of(choice.configuration) if one.seed == run.seed)
        settings: dict[str, Any] = load_yaml(read_text(folder.task(of_fold.name), LARGEST_CONFIGURATION))
        settings["data"]["manifest"], settings["run_name"] = str(folder.final.absolute()), run.name
        settings["trainer"]["default_root_dir"] = str(folder.path.absolute())
        write_atomically(folder.task(run.name), dump_yaml(settings))
    return runs


def _train_here(folder: SweepFolder, runs: Sequence[PlannedRun], jobs: int, own: Own) -> bool:
    """Do the trainings that are missing, and return whether none is left, in the queue of Slurm."""
    queued = queued_runs(folder)
    if waiting := [run.name for run in runs if run.name in queued]:
        say(f"In Slurm's queue and not trained here: {', '.join(waiting)}.\n")
    LocalRuns(folder, jobs, own.options).do(runs, queued)
    left = [run.name for run in runs if not is_finished(folder.run(run.name))]
    failed = [name for name in left if name not in queued]
    if failed:
        message = f"{', '.join(failed)} failed; see {show_path(folder.log(failed[0]))}. The same command tries again."
        raise RunError(message, "sweep-final-failed", path=folder.path, found=failed)
    return not left


def _submitted(folder: SweepFolder, runs: Sequence[PlannedRun], script: Path, at_once: int | None, own: Own) -> bool:
    """Submit the trainings that are missing, and return whether none is left: neither missing nor in the queue."""
    with Lock(folder.lock, wait=None, waiting=safe_point):  # two at once would submit the same runs
        queued = queued_runs(folder)
        states = [state_of(folder, run, queued.get(run.name, "")) for run in runs]
        missing = [one.run for one in states if one.state not in ("finished", "running", "queued")]
        if missing:
            _check_script(folder, missing[0], script, own)
            job = submit_runs(folder, missing, script, at_once, own.options)
            say(f"Submitted {counted(len(missing), 'training')} for the test set as job array {job}.\n")
    queued = queued_runs(folder)
    say(table_of([state_of(folder, run, queued.get(run.name, "")) for run in runs]))
    return all(one.state == "finished" for one in states)


def _check_script(folder: SweepFolder, run: PlannedRun, script: Path, own: Own) -> None:
    from bldml.doctor.configuration import read_configuration

    check_script(script, read_configuration([*arguments_of(folder, run), *own.options], own.model_class).settings)


def _tested(folder: SweepFolder, plan: Plan, choice: Choice) -> list[PlannedRun]:
    """Test the runs of the configuration, unless that is done."""
    runs = final_runs(plan, choice.configuration)
    for run in runs:
        safe_point()
        place = folder.run(run.name)
        evaluation = place.evaluation("test")
        if (evaluation / "provenance.json").is_file() and not (evaluation / ".unfinished").exists():
            continue
        with folder.log(run.name).open("ab") as log:
            done = subprocess.run(
                [*program(), "test", str(place.path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, env=own_environment(),
            )  # fmt: skip
        if done.returncode:
            message = (
                f"{run.name} could not be tested (exit code {done.returncode}); see {show_path(folder.log(run.name))}."
            )
            raise RunError(message, "sweep-test-failed", path=folder.log(run.name), found=done.returncode)
    return runs


def _results(folder: SweepFolder, plan: Plan, runs: Sequence[PlannedRun]) -> str:
    lines = [f"On the test set, {plan.metric}:"]
    for run in runs:
        value = value_of(folder.run(run.name), "test", plan.metric)
        lines.append(f"  {run.name}  {number(value, 4)}   {shell_word(folder.run(run.name).path)}")
    return "\n".join(lines) + "\n"
