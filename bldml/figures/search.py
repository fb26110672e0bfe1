"""Figures of a search: the objective by trial, and how much each option matters."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bldml.figures.style import COLOURS, label_of, new_figure, styled, write_message

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled()
def search_history(trials: Sequence[tuple[int, float, bool]], label: str, *, is_lower_better: bool) -> "Figure":
    """Draw the objective of each trial, and the best one of the complete trials so far.

    Args:
        trials: Number, objective and whether it was pruned, of each trial with an objective.
        label: Name of the objective.
        is_lower_better: Its direction.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(2.9)
    axes = figure.subplots()
    shown = [one for one in trials if math.isfinite(one[1])]
    complete = [one for one in shown if not one[2]]
    pruned = [one for one in shown if one[2]]
    if complete:
        numbers, values = [one[0] for one in complete], [one[1] for one in complete]
        best = (np.minimum if is_lower_better else np.maximum).accumulate(values)
        axes.step(numbers, best, where="post", color=COLOURS[1], lw=1.4, label="best so far")
        axes.plot(numbers, values, "o", ms=4, color=COLOURS[0], label="complete")
    if pruned:
        axes.plot([one[0] for one in pruned], [one[1] for one in pruned], "x", ms=4, color=COLOURS[3], label="pruned")
    axes.set_xlabel("Trial")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if shown:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        write_message(axes, "No trial has ended")
    return figure


@styled()
def option_importances(importance: Mapping[str, float]) -> "Figure":
    """Draw the importance of each option, whose sum is 1, from top to bottom."""
    figure = new_figure(0.9 + 0.3 * max(1, len(importance)))
    axes = figure.subplots()
    axes.barh(range(len(importance)), list(importance.values()), height=0.6, color=COLOURS[0])
    axes.set_yticks(range(len(importance)), [label_of(key) for key in importance])
    axes.set_ylim(len(importance) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Importance (sum 1)")
    return figure
