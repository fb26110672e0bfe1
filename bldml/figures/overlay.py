"""Learning curves of several runs in one figure: of a comparison, and the frame of those of an experiment."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeVar

from bldml.figures.style import COLOURS, DASHES, MARGIN, label_of, new_figure, styled, write_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = TypeVar("Curves")


def loss_and_auroc(
    curves: Mapping[str, Curves], draw: "Callable[[Axes, str, Curves, dict[str, Any]], None]"
) -> "Figure":
    """Return a panel of the validation loss beside one of the AUROC, over the epochs.

    Args:
        curves: What is drawn, by its name in the legend.
        draw: Draws one of them into a panel: its axes, the column of history.csv, the curves, and the style of a line.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(2.9, width=8.6)
    panels = figure.subplots(1, 2)
    for axes, column in zip(panels, ("val_loss", "val_auroc"), strict=True):
        for (name, one), colour, dash in zip(curves.items(), cycle(COLOURS), cycle(DASHES), strict=False):
            draw(axes, column, one, {"ls": dash, "color": colour, "lw": 1.2, "label": label_of(name)})
        axes.set_xlabel("Epoch (counted from 0)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not axes.lines:
            write_message(axes, "No epoch recorded")
    panels[0].set_ylabel("Validation loss (nats per photograph)")
    panels[1].set(ylabel="Validation AUROC", ylim=(-MARGIN, 1 + MARGIN))
    if panels[1].lines:
        panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled()
def overlaid_curves(runs: Mapping[str, Sequence[Mapping[str, float | None]]]) -> "Figure":
    """Draw validation loss and AUROC of several runs over the epochs.

    Args:
        runs: Rows of history.csv by name of the run, with `epoch`, `val_loss` and `val_auroc`; what is missing leaves a
            gap. A point marks the epoch with the lowest loss.
    """

    def draw(axes: "Axes", column: str, rows: Sequence[Mapping[str, float | None]], style: dict[str, Any]) -> None:
        epochs, values, losses = (
            [math.nan if (value := row.get(key)) is None else value for row in rows]
            for key in ("epoch", column, "val_loss")
        )
        if all(map(math.isnan, values)):
            return
        axes.plot(epochs, values, **style)
        if not all(map(math.isnan, losses)):
            best = min(range(len(losses)), key=lambda i: math.inf if math.isnan(losses[i]) else losses[i])
            axes.plot(epochs[best], values[best], "o", ms=4, color=style["color"])

    return loss_and_auroc(runs, draw)
