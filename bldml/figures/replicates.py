"""Figures of an experiment: mean learning curves of configurations, and their values with those of single folds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bldml.figures.overlay import loss_and_auroc
from bldml.figures.style import COLOURS, MARGIN, label_of, new_figure, styled, write_message
from bldml.metrics.estimates import Estimate
from bldml.metrics.replicates.spread import mean_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Epochs = Sequence[Mapping[str, float | None]]


@styled()
def replicate_curves(configurations: Mapping[str, Sequence[Epochs]]) -> "Figure":
    """Draw validation loss and AUROC over the epochs, a line and a band for each configuration.

    Args:
        configurations: The histories of its runs by name of the configuration, with `epoch`, `val_loss` and
            `val_auroc`. The line is the mean of the runs that reached an epoch, the band from their lowest to their
            highest value.
    """

    def draw(axes: "Axes", column: str, runs: Sequence[Epochs], style: dict[str, Any]) -> None:
        points = mean_curve(runs, column)
        if points:
            epochs, low, high = [point.epoch for point in points], [p.low for p in points], [p.high for p in points]
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, lw=0)
            axes.plot(epochs, [p.mean for p in points], **style)

    return loss_and_auroc(configurations, draw)


@styled()
def configuration_values(
    rows: Sequence[tuple[str, Estimate, Sequence[float]]], label: str, limits: tuple[float, float]
) -> "Figure":
    """Draw the pooled value of each configuration with its interval, and below it the values of its single runs.

    Args:
        rows: Name, pooled estimate and values of the runs of each configuration, from top to bottom.
        label: Name of the metric.
        limits: Its lowest and highest possible value.
    """
    figure = new_figure(0.9 + 0.45 * max(1, len(rows)))
    axes = figure.subplots()
    drawn = [value for _, estimate, values in rows for value in (*values, *(estimate.numbers or ()))]
    for place, (_, estimate, values) in enumerate(rows):
        axes.plot(values, [place + 0.2] * len(values), "|", ms=7, color=COLOURS[1], alpha=0.8)
        if estimate.value is not None:
            axes.plot(estimate.value, place, "o", ms=5, color=COLOURS[0])
        if estimate.numbers:
            low, _, high = estimate.numbers
            axes.plot([low, high], [place, place], color=COLOURS[0], lw=1.6)
    axes.set_yticks(range(len(rows)), [label_of(name) for name, _, _ in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(visible=False, axis="y")
    if drawn:
        room = 0.04 * (max(drawn) - min(drawn)) or 0.02
        axes.set_xlim(max(limits[0] - MARGIN, min(drawn) - room), min(limits[1] + MARGIN, max(drawn) + room))
    else:
        write_message(axes, "No configuration has a complete seed")
    return figure
