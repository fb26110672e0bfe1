"""The study of a search: Optuna's journal in the folder of the experiment, and what its sampler proposes.

The caller holds the lock of the experiment around every use, which the system releases when a process is killed. So
Optuna's own lock of the journal, a file that a killed process leaves, is never waited for.
"""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bldml.dataset.files import show_path
from bldml.errors import ConfigError, RunError
from bldml.io.locks import Lock
from bldml.metrics.registry import METRICS
from bldml.sweep.plan import Plan, Trial, TrialState
from bldml.sweep.search.space import Choices, Ranges, ranges_of

if TYPE_CHECKING:
    import optuna

INSTALL = "pip install 'bldml[search]'"
NAME = "bldml"
PROPOSALS = 1000  # of one trial, until one differs from those of all others
OF_SAMPLER = 10  # of these, how many are TPE's; the others are random


def load_optuna() -> Any:
    """Return the package optuna, which then logs nothing below an error; a ConfigError if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        message = f"A search needs the package optuna, which cannot be imported ({error}). Install it: {INSTALL}"
        raise ConfigError(message, "optuna-not-installed", reason=str(error)) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@dataclass(frozen=True)
class Space:
    """Search space, direction and identity of a study.

    Args:
        ranges: The space.
        seed: Seed of the sampler.
        is_lower_better: Direction of the objective.
        identity: What all parts of a study have in common, as JSON keeps it.
    """

    ranges: Ranges
    seed: int
    is_lower_better: bool
    identity: Mapping[str, Any]

    @property
    def direction(self) -> str:
        """Direction of the objective, as Optuna names it."""
        return "minimize" if self.is_lower_better else "maximize"

    def distributions(self) -> dict[str, "optuna.distributions.BaseDistribution"]:
        """Return the space as Optuna has it; a choice by its JSON text, because values of any type are possible."""
        made = load_optuna().distributions
        found = {}
        for key, one in self.ranges.items():
            if isinstance(one, Choices):
                found[key] = made.CategoricalDistribution([json.dumps(value) for value in one.values])
            elif one.is_whole:
                found[key] = made.IntDistribution(int(one.low), int(one.high), log=one.log)
            else:
                found[key] = made.FloatDistribution(float(one.low), float(one.high), log=one.log)
        return found

    def decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return Optuna's values as those of the options."""
        return {
            key: json.loads(value) if isinstance(self.ranges[key], Choices) else value for key, value in params.items()
        }

    def encoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of the options as Optuna's."""
        return {
            key: json.dumps(value) if isinstance(self.ranges[key], Choices) else value for key, value in params.items()
        }


class Study:
    """The study in a journal; it is made if the file is missing.

    Args:
        path: The journal.
        space: Its search space.
        lock: The lock of the experiment, which this process holds.

    Raises:
        ConfigError: Optuna is missing, or the study is of another search space.
        RunError: The journal is damaged or cannot be read or written. It is not changed.
    """

    def __init__(self, path: Path, space: Space, lock: Lock) -> None:
        self.path, self.space = path, space
        self._optuna = load_optuna()
        journal = self._optuna.storages.journal
        with self._reported():
            is_new = not path.exists()
            _mend(path)
            if lock.is_real:  # nobody alive has the other one
                path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
            file = str(path.absolute())
            # Not the lock by a symbolic link, Optuna's default: Windows refuses it, and it is for NFS before version 3.
            backend = journal.JournalFileBackend(file, lock_obj=journal.JournalFileOpenLock(file))
            self._storage = self._optuna.storages.JournalStorage(backend)
            names = [one.study_name for one in self._storage.get_all_studies()]
            if names and NAME not in names:
                raise self._other(f"its study is called {names[0]}")
            if NAME in names:
                self._study = self._optuna.load_study(storage=self._storage, study_name=NAME)
            else:
                self._study = self._optuna.create_study(
                    storage=self._storage, study_name=NAME, direction=space.direction
                )
            before = self._study.user_attrs.get("space")
            if before is None and (is_new or not self._study.trials):
                self._study.set_user_attr("space", json.loads(json.dumps(space.identity)))
            elif before != json.loads(json.dumps(space.identity)):
                raise self._other("; ".join(_differences(before, space.identity)))
            self._id = self._storage.get_study_id_from_name(NAME)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in their order."""
        with self._reported():
            return tuple(self._trial(one) for one in self._storage.get_all_trials(self._id))

    def _trial(self, one: "optuna.trial.FrozenTrial") -> Trial:
        state: Mapping[str, TrialState] = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned"}
        value = one.value
        if one.state.name == "PRUNED" and one.intermediate_values:
            value = one.intermediate_values[max(one.intermediate_values)]
        params = self.space.decoded(one.params)
        if params.keys() != self.space.ranges.keys():
            raise ValueError(f"trial {one.number} does not set what the search space has")
        reason = str(one.user_attrs.get("reason", ""))
        return Trial(one.number, params, state.get(one.state.name, "failed"), value, reason)

    def ask(self) -> Trial:
        """Add a trial that runs, with what the sampler proposes, and return it.

        The sampler (TPE) is made for this trial alone, seeded by the search's seed and the trial's number. So what is
        proposed depends on nothing but the trials before it. Added in one line of the journal, a trial is whole or not
        there.
        """
        with self._reported(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = self._storage.get_all_trials(self._id)
            params = self._propose(before)
            make = self._optuna.trial.create_trial
            running = self._optuna.trial.TrialState.RUNNING
            self._study.add_trial(make(state=running, params=params, distributions=self.space.distributions()))
            return self.trials[len(before)]

    def _propose(self, before: Sequence["optuna.trial.FrozenTrial"]) -> dict[str, Any]:
        """Return a proposal that no earlier trial had, if there is one."""
        earlier = [one.params for one in before]
        params: dict[str, Any] = {}
        for attempt in range(PROPOSALS):
            words = np.random.SeedSequence([self.space.seed, len(before), attempt]).generate_state(1)
            samplers = self._optuna.samplers
            kind = samplers.TPESampler if attempt < OF_SAMPLER else samplers.RandomSampler
            study = self._optuna.create_study(direction=self.space.direction, sampler=kind(seed=int(words[0])))
            if attempt < OF_SAMPLER:  # what is random needs no history
                study.add_trials(before)
            params = study.ask(self.space.distributions()).params
            if params not in earlier:
                break
        return params

    def tell(self, number: int, state: TrialState, value: float | None, reason: str = "", step: int = 0) -> None:
        """Record how a trial ended.

        Args:
            number: Its number.
            state: Not "running".
            value: Its objective; of a pruned one, what it had reached.
            reason: Why it failed or was pruned.
            step: How far a pruned one was, in runs and epochs.
        """
        with self._reported():
            states = self._optuna.trial.TrialState
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            if reason:
                self._storage.set_trial_user_attr(trial, "reason", reason)
            if state == "complete":
                self._storage.set_trial_state_values(trial, states.COMPLETE, [value])
            elif state == "pruned":
                if value is not None and np.isfinite(value):
                    self._storage.set_trial_intermediate_value(trial, step, value)
                self._storage.set_trial_state_values(trial, states.PRUNED, None)
            else:
                self._storage.set_trial_state_values(trial, states.FAIL, None)

    def _other(self, reason: str) -> ConfigError:
        message = f"{show_path(self.path)} is a study of another search: {reason}. trials and hours of a search may be "
        message += "changed; for anything else, set a new folder as --output."
        return ConfigError(message, "study-of-another-search", path=self.path, reason=reason)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (ConfigError, RunError):
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"The study {show_path(self.path)} cannot be used: {reason}."
            raise RunError(message, "study-unusable", path=self.path, reason=reason) from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, RuntimeError) as error:
            reason = str(error) or type(error).__name__
            message = (
                f"The study {show_path(self.path)} is damaged ({reason}); it was not changed. Restore the file from a "
                "backup, or begin another search with a new folder as --output."
            )
            raise RunError(message, "study-damaged", path=self.path, reason=reason) from error


def space_of(plan: Plan) -> Space:
    """Return the space of the study of a search."""
    search = plan.search
    identity = {key: value for key, value in search.items() if key not in ("trials", "hours")}
    is_lower = METRICS[search["monitor"].removeprefix("val_")].better == "lower"
    return Space(ranges_of(search["ranges"]), search["seed"], is_lower, identity)


def rank_trials(plan: Plan) -> list[Trial]:
    """Return the complete trials of a search, that with the best objective first; of equal ones, the earlier."""
    sign = 1 if space_of(plan).is_lower_better else -1
    complete = [
        (sign * one.value, one.number, one) for one in plan.trials if one.state == "complete" and one.value is not None
    ]
    return [one for *_, one in sorted(complete, key=lambda entry: entry[:2])]


def importances(plan: Plan) -> dict[str, float]:
    """Return the fraction of the variance of the objective that each key alone explains over the space, by fANOVA.

    That is Optuna's evaluator (a random forest on the complete trials; Hutter, Hoos and Leyton-Brown 2014), seeded.
    What several keys explain only together is in none of them, so the sum is at most 1. Logarithmic ranges are weighted
    on their scale.

    Raises:
        ConfigError: Optuna is missing.
        ValueError: It cannot be computed from these trials.
    """
    optuna, space = load_optuna(), space_of(plan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study, distributions = optuna.create_study(direction=space.direction), space.distributions()
        logarithmic = [key for key, one in space.ranges.items() if not isinstance(one, Choices) and one.log]
        for key in logarithmic:  # the evaluator would weight them on a linear scale
            low, high = (math.log10(getattr(space.ranges[key], end)) for end in ("low", "high"))
            distributions[key] = optuna.distributions.FloatDistribution(low, high)
        for trial in plan.trials:
            if trial.state == "complete":
                params = space.encoded(trial.params)
                params |= {key: math.log10(params[key]) for key in logarithmic}
                make = optuna.trial.create_trial
                study.add_trial(make(value=trial.value, params=params, distributions=distributions))
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
        except (RuntimeError, ZeroDivisionError) as error:
            raise ValueError(str(error).rstrip(".")) from error
    return {key: float(value) for key, value in found.items()}


def _mend(path: Path) -> None:
    """Remove the part of a line with which a killed process left the journal: what it says was not yet done.

    Raises:
        ValueError: A line before it is no record.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            is_record = isinstance(json.loads(line), dict)
        except ValueError:
            is_record = False
        if not is_record:
            raise ValueError(f"line {number} is no record")
    if content and not whole:
        raise ValueError("its first line is no record")
    if whole < len(content):
        os.truncate(path, whole)


def _differences(before: object, now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two search spaces, in words.

    >>> _differences({"seed": 0, "ranges": {"a": [1, 2]}}, {"seed": 1, "ranges": {"a": [1, 3]}})
    ['seed: 0 before, 1 now', 'ranges.a: [1, 2] before, [1, 3] now']
    """
    if not isinstance(before, Mapping):
        return ["its search space is not recorded"]
    found: list[str] = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and key == "ranges":
            found += [
                f"ranges.{name}: {old.get(name, 'not there')} before, {new.get(name, 'not there')} now"
                for name in dict.fromkeys((*old, *new))
                if old.get(name) != new.get(name)
            ]
        elif old != new:
            found.append(f"{key}: {old} before, {new} now")
    return found
