"""When a trial is ended early: by the median of the trials that are complete, at the same run and epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bldml.training.finetuning import ProgressiveUnfreezing

STARTUP = 5  # complete trials before any is pruned, as Optuna's MedianPruner has it
AFTER_UNFREEZING = 2  # epochs that a run has after more layers are unfrozen, which disturbs it, before it is judged
STEPS = 100_000  # of a run; more than it has epochs
Curve = Sequence[float]
"""The monitored value of a run after each epoch."""


@dataclass(frozen=True)
class Pruned:
    """That a trial is to be ended.

    Attributes:
        run: Number of the run in the trial, from 0, and
        epoch: its epoch after which the trial is worse than the median.
        value: The mean of the best values of its runs by then.
        median: That of the complete trials.
        others: Number of these.
    """

    run: int
    epoch: int
    value: float
    median: float
    others: int

    @property
    def step(self) -> int:
        """Run and epoch as one number."""
        return self.run * STEPS + self.epoch


def warm_up(settings: Mapping[str, Any], ranges: Mapping[str, Any]) -> int:
    """Return the first epoch of a run after which it may be judged: later than any trial of the space unfreezes layers.

    >>> warm_up({"unfreezing.start_epoch": 3}, {})
    5
    >>> warm_up({"unfreezing.every_n_epochs": 2}, {"unfreezing.start_epoch": {"low": 0, "high": 6}})
    14
    """

    def largest(key: str, default: int) -> int:
        given = ranges.get(key, settings.get(key, default))
        values = [given["high"]] if isinstance(given, Mapping) else given if isinstance(given, list) else [given]
        return max((int(value) for value in values if isinstance(value, int | float)), default=default)

    stock = ProgressiveUnfreezing()
    parts = max(largest("unfreezing.stages", stock.deepest), largest("unfreezing.blocks", 0))
    every = largest("unfreezing.every_n_epochs", stock.every_n_epochs)
    return largest("unfreezing.start_epoch", stock.start_epoch) + every * max(0, parts - 1) + AFTER_UNFREEZING


def objective_of(curves: Sequence[Curve], *, is_lower_better: bool) -> float | None:
    """Return the mean over runs of the best value of each; None if one has none.

    >>> objective_of([[0.5, 0.25, 0.5], [0.75]], is_lower_better=True)
    0.5
    """
    best = [_best(curve, is_lower_better) for curve in curves]
    return float(np.mean(best)) if best and all(map(math.isfinite, best)) else None


def _best(curve: Curve, is_lower_better: bool) -> float:
    finite = [value for value in curve if math.isfinite(value)]
    worst = math.inf if is_lower_better else -math.inf
    return (min if is_lower_better else max)(finite, default=worst)


def find_pruning(
    trial: Sequence[Curve],
    others: Sequence[Sequence[Curve]],
    *,
    finished: int,
    warm_up: int,
    is_lower_better: bool,
) -> Pruned | None:
    """Return where a trial was first worse than the median of the complete ones; None if nowhere so far.

    This is the median rule (Golovin et al. 2017) on the best values so far. A run is judged after each epoch from
    `warm_up` on, once the next epoch is there, and at its end. Runs before it count with their best values. A run that
    ended keeps its best value in the epochs that it does not have. So what is found in a trial depends on its values
    and those of the others, and not on how far the trial is when somebody looks.

    Args:
        trial: Curves of the runs of the trial, as far as they are there, in the order of the plan.
        others: Those of the complete trials, each with all runs.
        finished: Number of runs of the trial that have ended.
        warm_up: First epoch that is judged.
        is_lower_better: Direction of the metric.

    >>> good = [[0.5, 0.4], [0.6, 0.4]]
    >>> find_pruning([[0.9, 0.8, 0.7]], [good] * 5, finished=0, warm_up=1, is_lower_better=True)
    Pruned(run=0, epoch=1, value=0.8, median=0.4, others=5)
    """
    if len(others) < STARTUP:
        return None
    for run, curve in enumerate(trial):
        is_last = run + 1 == len(others[0])
        for epoch in range(len(curve)):
            is_end = epoch + 1 == len(curve)  # or it goes on, and whether it does is not known yet
            if (is_end and (is_last or run >= finished)) or (epoch < warm_up and not is_end):
                continue
            value = _value(trial, run, epoch, is_end, is_lower_better)
            median = float(np.median([_value(other, run, epoch, is_end, is_lower_better) for other in others]))
            if value > median if is_lower_better else value < median:
                return Pruned(run, epoch, value, median, len(others))
    return None


def _value(curves: Sequence[Curve], run: int, epoch: int, is_end: bool, is_lower_better: bool) -> float:
    """Return the mean of the best values of the runs before `run`, and of its own up to an epoch or its end."""
    own = curves[run] if is_end else curves[run][: epoch + 1]
    return float(np.mean([_best(curve, is_lower_better) for curve in (*curves[:run], own)]))
