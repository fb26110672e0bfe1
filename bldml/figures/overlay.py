"""Learning curves of several runs in one figure, for a comparison."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from bldml.figures.style import COLOURS, DASHES, MARGIN, label_of, new_figure, styled, write_message

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled()
def overlaid_curves(runs: Mapping[str, Sequence[Mapping[str, float | None]]]) -> "Figure":
    """Draw validation loss and AUROC of several runs over the epochs.

    Args:
        runs: Rows of history.csv by name of the run, with `epoch`, `val_loss` and `val_auroc`; what is missing leaves a
            gap. A point marks the epoch with the lowest loss.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(2.9, width=8.6)
    panels = figure.subplots(1, 2)
    for axes, column in zip(panels, ("val_loss", "val_auroc"), strict=True):
        for (name, rows), colour, dash in zip(runs.items(), cycle(COLOURS), cycle(DASHES), strict=False):
            epochs, values, losses = (
                [math.nan if (value := row.get(key)) is None else value for row in rows]
                for key in ("epoch", column, "val_loss")
            )
            if all(map(math.isnan, values)):
                continue
            axes.plot(epochs, values, ls=dash, color=colour, lw=1.2, label=label_of(name))
            if not all(map(math.isnan, losses)):
                best = min(range(len(losses)), key=lambda i: math.inf if math.isnan(losses[i]) else losses[i])
                axes.plot(epochs[best], values[best], "o", ms=4, color=colour)
        axes.set_xlabel("Epoch (counted from 0)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not axes.lines:
            write_message(axes, "No epoch recorded")
    panels[0].set_ylabel("Validation loss (nats per photograph)")
    panels[1].set(ylabel="Validation AUROC", ylim=(-MARGIN, 1 + MARGIN))
    if panels[1].lines:
        panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
