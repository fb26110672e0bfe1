"""A worker of a search: asks the study for trials, does their runs, and tells it how they ended."""

import signal
import sys
import time
from dataclasses import dataclass, field

from bldml.dataset.files import show_path
from bldml.errors import BldmlError, TrainingError
from bldml.io.documents import mapping_or_nothing
from bldml.io.locks import Lock, is_taken
from bldml.io.safe_points import note_kept, safe_point
from bldml.io.screen import say
from bldml.io.text import number
from bldml.run.provenance import positive_number
from bldml.sweep.experiment import ExperimentFile
from bldml.sweep.folds import Photographs
from bldml.sweep.local import PAUSE_S, LocalRuns, clock
from bldml.sweep.plan import Plan, PlannedRun, SweepFolder, Trial, TrialState, read_plan
from bldml.sweep.planning import with_trials
from bldml.sweep.search.pruning import Curve, Pruned, find_pruning, objective_of, warm_up
from bldml.sweep.search.study import Study, space_of
from bldml.sweep.states import INTERRUPTS, is_finished, last_code, read_values, reason_of
from bldml.training.resume.signals import Interrupted

LOOK_AGAIN_S = 2.0  # for a trial that another worker left
FAILURES = 3  # in a row, of one worker: then it is not the trials that are wrong


@dataclass
class _Held:
    """A trial that this worker does."""

    trial: Trial
    claim: Lock
    runs: tuple[PlannedRun, ...]
    started: set[str] = field(default_factory=set)
    pruned: Pruned | None = None
    finished: int = 0  # number of its runs that have ended
    seen: tuple[object, ...] = ()  # what its histories were when it was judged


class Worker:
    """Does trials of a search until none is left, several at a time; other workers may do the same.

    A trial is held by a lock, which the system releases when the worker is killed. What to do is decided under the lock
    of the experiment: first a trial that runs and that nobody holds, else a new one. So a kill at any moment loses
    nothing, and no trial is counted or done twice.

    Args:
        folder: Folder of the experiment.
        experiment: The experiment.
        plan: Its plan.
        photographs: The photographs of all its runs.
        runs: What starts the runs.
        is_patient: Whether to wait for the trials of other workers at the end, and take them over if these are killed;
            and to go on with other trials when somebody interrupts a run.
    """

    def __init__(
        self,
        folder: SweepFolder,
        experiment: ExperimentFile,
        plan: Plan,
        photographs: Photographs,
        runs: LocalRuns,
        *,
        is_patient: bool = True,
    ) -> None:
        self.folder, self.experiment, self.photographs, self.runs = folder, experiment, photographs, runs
        self.is_patient = is_patient
        self.monitor = str(plan.search["monitor"])
        self._space = space_of(plan)
        self._warm_up = warm_up(plan.settings, plan.search["ranges"])
        self._plan = plan
        self._held: list[_Held] = []
        self._set_aside: set[str] = set()
        self._leaves = False  # a job that was signalled begins nothing new
        self._failures, self._look_at = 0, 0.0
        self._complete: dict[str, list[Curve]] = {}

    def work(self) -> Plan:
        """Do trials until none is left; return the plan with all of them.

        Raises:
            TrainingError: Several trials failed one after the other.
            Interrupted, KeyboardInterrupt: A signal arrived. It was passed on, and the runs have saved and ended.
        """
        self._begin()
        try:
            while True:
                safe_point()
                self.runs.reap()
                for held in list(self._held):
                    self._advance(held)
                is_time = time.monotonic() >= self._look_at and not self._leaves
                if (self._leaves or (is_time and not self._fill())) and not self._held:
                    return self._plan
                time.sleep(PAUSE_S)
        except (Interrupted, KeyboardInterrupt, BldmlError) as stop:
            default = signal.SIGTERM if isinstance(stop, BldmlError) else signal.SIGINT
            self.runs.end(stop.signum if isinstance(stop, Interrupted) else default)
            raise
        finally:
            for held in self._held:
                held.claim.close()

    def _begin(self) -> None:
        """Bring the plan to what the study has."""
        with self._locked() as lock:
            self._sync(Study(self.folder.study, self._space, lock))

    def _locked(self) -> Lock:
        return Lock(self.folder.lock, wait=None, waiting=safe_point)

    def _sync(self, study: Study) -> None:
        """Write the trials of the study into the plan; the caller has the lock."""
        plan, trials = read_plan(self.folder), study.trials
        if len(trials) < len(plan.trials):
            message = (
                f"{show_path(self.folder.study)} has {len(trials)} trials, and plan.json beside it {len(plan.trials)}. "
                "Restore the file from a backup, or begin another search with a new folder as --output."
            )
            raise TrainingError(message, "study-lost", path=self.folder.study, found=len(trials))
        self._plan = with_trials(self.folder, self.experiment, plan, trials, self.photographs)

    def _fill(self) -> bool:
        """Take trials while there is room; return whether there may be more of them later."""
        while len(self._held) < self.runs.jobs:
            found, others_work = self._next()
            if found is None:
                self._look_at = time.monotonic() + LOOK_AGAIN_S
                return others_work and self.is_patient
            self._held.append(found)
        return True

    def _next(self) -> tuple[_Held | None, bool]:
        """Take a trial that nobody does, else a new one; None if there is none, and whether others do theirs."""
        with self._locked() as lock:
            study = Study(self.folder.study, self._space, lock)
            self._sync(study)
            running = [trial for trial in self._plan.trials if trial.state == "running"]
            for trial in running:
                if trial.name not in self._set_aside and not self._is_held(trial):
                    return self._hold(trial), True
            if has_trials_left(self.folder, self._plan):
                trial = study.ask()
                self._sync(study)
                return self._hold(trial), True
        mine = {held.trial.name for held in self._held}
        return None, any(trial.name not in mine and self._is_held(trial) for trial in running)

    def _is_held(self, trial: Trial) -> bool:
        is_mine = any(held.trial.name == trial.name for held in self._held)  # where the file system has no locks
        return is_mine or is_taken(self.folder.trial_claim(trial.name))

    def _hold(self, trial: Trial) -> _Held:
        return _Held(trial, Lock(self.folder.trial_claim(trial.name)), self._plan.of(trial.name))

    def _advance(self, held: _Held) -> None:
        """Do what is next for a trial: judge it, start its next run, or tell the study that it has ended."""
        while held.finished < len(held.runs) and is_finished(self.folder.run(held.runs[held.finished].name)):
            held.finished += 1
        current = held.runs[held.finished] if held.finished < len(held.runs) else None
        is_active = any(self.runs.process_of(run.name) for run in held.runs) or (
            current is not None
            and (is_taken(self.folder.run(current.name).lock) or is_taken(self.folder.claim(current.name)))
        )
        if held.pruned is None:
            held.pruned = self._judge(held)
            if held.pruned and is_active and current:
                self.runs.interrupt(current.name)
        if is_active:
            return
        code = last_code(self.folder, current.name) if current else None
        if held.pruned:
            self._tell(held, "pruned", held.pruned.value, self._why(held, held.pruned), held.pruned.step)
        elif current is None:
            curves = [self._curve(run) for run in held.runs]
            value = objective_of(curves, is_lower_better=self._space.is_lower_better)
            why = "" if value is not None else f"a run has no {self.monitor} that is a number"
            self._tell(held, "failed" if value is None else "complete", value, why)
        elif code and code not in INTERRUPTS and current.name in held.started:  # of an earlier worker: tried once more
            self._tell(held, "failed", None, f"{current.name}: {reason_of(self.folder, current.name, code)}")
        elif current.name in held.started and code is not None:
            self._set_aside.add(held.trial.name)  # by somebody who means it
            self._leaves = not self.is_patient
            self._release(held)
        elif self.runs.try_to_start(current) == "started":
            held.started.add(current.name)

    def _curve(self, run: PlannedRun) -> Curve:
        return read_values(self.folder.run(run.name), self.monitor)[1]

    def _judge(self, held: _Held) -> Pruned | None:
        """Return where the trial is to be pruned, if its histories have changed since it was judged last."""
        if not self._plan.search["pruning"]:
            return None
        runs = held.runs[: held.finished + 1]
        files = [file.stat() for run in runs if (file := self.folder.run(run.name).history).is_file()]
        seen = (held.finished, *((one.st_size, one.st_mtime_ns) for one in files))
        if seen == held.seen:
            return None
        held.seen = seen
        for trial in self._plan.trials:
            if trial.state == "complete" and trial.name not in self._complete:
                self._complete[trial.name] = [self._curve(run) for run in self._plan.of(trial.name)]
        return find_pruning(
            [self._curve(run) for run in runs],
            list(self._complete.values()),
            finished=held.finished,
            warm_up=self._warm_up,
            is_lower_better=self._space.is_lower_better,
        )

    def _why(self, held: _Held, pruned: Pruned) -> str:
        where = f"after epoch {pruned.epoch} of {held.runs[pruned.run].name}"
        return (
            f"{where}, {self.monitor} was {number(pruned.value, 4)}, "
            f"the median of {pruned.others} complete trials {number(pruned.median, 4)}"
        )

    def _tell(self, held: _Held, state: TrialState, value: float | None, reason: str = "", step: int = 0) -> None:
        """Tell the study how a trial ended, and let it go."""
        with self._locked() as lock:
            study = Study(self.folder.study, self._space, lock)
            study.tell(held.trial.number, state, value, reason, step)
            self._sync(study)
        self._release(held)
        self._look_at = 0.0
        note_kept()
        shown = f", {self.monitor} {number(value, 4)}" if state == "complete" else f": {reason}"
        say(f"{clock()} {held.trial.name}: {state}{shown}\n")
        sys.stdout.flush()
        self._failures = self._failures + 1 if state == "failed" else 0
        if self._failures == FAILURES:
            message = (
                f"{FAILURES} trials failed one after the other, the last with: {reason}\nThe logs are in "
                f"{show_path(self.folder.log('a').parent)}. When that is put right, the same command does the "
                "trials that are left. These have failed for good; a higher search.trials replaces them."
            )
            raise TrainingError(message, "search-trials-fail", path=self.folder.path, reason=reason)

    def _release(self, held: _Held) -> None:
        held.claim.close()
        self._held.remove(held)


def has_trials_left(folder: SweepFolder, plan: Plan) -> bool:
    """Return whether a search may begin another trial, by the number and the hours that it has."""
    hours = plan.search["hours"]
    return len(plan.trials) < plan.search["trials"] and (hours is None or training_hours(folder, plan) < hours)


def training_hours(folder: SweepFolder, plan: Plan) -> float:
    """Return for how many hours the runs of all trials have trained together, as they have recorded it."""
    found = (mapping_or_nothing(folder.run(run.name).training_time).get("training_seconds") for run in plan.runs)
    return sum(positive_number(one) or 0.0 for one in found) / 3600
