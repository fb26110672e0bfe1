"""What a search found: its best trial, the search as a procedure, and which options matter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bldml.errors import ConfigError
from bldml.metrics.replicates.pooled import Pooled
from bldml.sweep.plan import Candidate, Trial
from bldml.sweep.results.gathering import CollectedRun, Contender, Experiment, pool_seeds
from bldml.sweep.search.pruning import objective_of
from bldml.sweep.search.study import importances, rank_trials, space_of

MOST_SHOWN = 8  # trials in tables and figures that have a column, a line or rows for each
FEWEST = 10  # complete trials for the importance of options


@dataclass(frozen=True)
class SearchFindings:
    """What a search found.

    Attributes:
        best: The complete trial with the best objective; None if none is complete.
        shown: Names of the trials with the best objectives, the best first.
        procedure: The search as a procedure, as if it were a configuration: in each fold, the trial that is the best by
            the inner validation of this fold. None without folds.
        of_folds: The trial of each fold of it, by number of the fold.
        importance: Importance of each key, the largest first; empty if it was not computed.
        why_not: Why it was not computed, a sentence.
    """

    best: Trial | None
    shown: tuple[str, ...]
    procedure: Contender | None = None
    of_folds: dict[int, str] = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)
    why_not: str = ""

    @property
    def pooled(self) -> Pooled | None:
        """The predictions of the search as a procedure; None if they are not complete."""
        return self.procedure.result.pooled if self.procedure and self.procedure.result else None


def assess_search(experiment: Experiment) -> SearchFindings | None:
    """Return what the search of an experiment found; None if it has none."""
    plan = experiment.plan
    if not plan.search:
        return None
    ranked = rank_trials(plan)
    procedure, of_folds = _procedure(experiment)
    importance, why_not = _importance(experiment, len(ranked))
    return SearchFindings(
        ranked[0] if ranked else None,
        tuple(trial.name for trial in ranked[:MOST_SHOWN]),
        procedure,
        of_folds,
        importance,
        why_not,
    )


def _importance(experiment: Experiment, complete: int) -> tuple[dict[str, float], str]:
    if complete < FEWEST:
        return {}, f"The importance of options is computed from {FEWEST} complete trials on; there are {complete}."
    try:
        found = importances(experiment.plan)
    except ConfigError:
        return {}, "The importance of options needs the package optuna (bldml[search]), which is not installed here."
    except ValueError as error:
        return {}, f"The importance of options could not be computed: {error}."
    return dict(sorted(found.items(), key=lambda one: -one[1])), ""


def _procedure(experiment: Experiment) -> tuple[Contender | None, dict[int, str]]:
    """Return the runs of the best trial of each fold as one configuration; None if a fold has none."""
    plan = experiment.plan
    if not plan.folds:
        return None, {}
    lower = space_of(plan).is_lower_better
    chosen: list[CollectedRun] = []
    of_folds: dict[int, str] = {}
    for fold in plan.search["folds"]:
        best: tuple[float, str, Sequence[CollectedRun]] | None = None
        for one in experiment.configurations:
            runs = [run for run in one.runs if run.planned.fold == fold]
            value = _inner_value(runs, plan.search["monitor"], is_lower_better=lower)
            if value is not None and (best is None or (value < best[0] if lower else value > best[0])):
                best = value, one.candidate.name, runs
        if best is None:
            return None, {}
        of_folds[fold] = best[1]
        chosen += best[2]
    chosen.sort(key=lambda run: plan.search["seeds"].index(run.planned.seed))
    return Contender(Candidate("search"), tuple(chosen), *pool_seeds(chosen, has_folds=True)), of_folds


def _inner_value(runs: Sequence[CollectedRun], monitor: str, *, is_lower_better: bool) -> float | None:
    """Return the mean over seeds of the best inner validation value of a fold; None unless all seeds are evaluated."""
    if not runs or any(run.data is None or run.evaluation is None for run in runs):
        return None
    curves: list[list[Any]] = [
        [row[monitor] for row in run.data.epochs if row.get(monitor) is not None] for run in runs if run.data
    ]
    return objective_of(curves, is_lower_better=is_lower_better)
