"""Curves of a report: learning curves over the epochs, ROC and precision-recall curves over all thresholds."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.figures.style import COLOURS, DASHES, INK, MARGIN, Dash, label_of, new_figure, styled, write_message
from bldml.metrics.operating_point import precision_recall_points, roc_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[str, ArrayLike, ArrayLike]  # name, labels, probabilities
Floats = NDArray[np.float64]


@styled
def learning_curves(
    rows: Sequence[Mapping[str, float | None]], unfrozen_at: Sequence[int] = (), best_epoch: int | None = None
) -> "Figure":
    """Draw the loss and the scores of training and validation over the epochs.

    Args:
        rows: One row per epoch, from the run's history.csv: `epoch` and all columns `train_…` and `val_…`. Missing
            values, None and values that are not finite leave a gap.
        unfrozen_at: Epochs, counted from 0, at whose start more stages were unfrozen; marked with a line.
        best_epoch: Epoch of `best.ckpt`; marked with a line.
    """
    figure = new_figure(5.2)
    panels = figure.subplots(2, 1, sharex=True)
    names = list(dict.fromkeys(name for row in rows for name in row if name.startswith(("train_", "val_"))))
    measures = list(dict.fromkeys(name.partition("_")[2] for name in names))
    epochs = [float(row.get("epoch") or 0) for row in rows]
    for axes, is_loss in zip(panels, (True, False), strict=True):
        shown = [measure for measure in measures if (measure == "loss") == is_loss]
        for measure, colour in zip(shown, itertools.cycle(COLOURS), strict=False):
            for stage, word, dash in (("train", "training", "--"), ("val", "validation", "-")):
                values = [row.get(f"{stage}_{measure}") for row in rows]
                heights = [math.nan if v is None or not math.isfinite(v) else v for v in values]
                if not np.isfinite(heights).any():
                    continue
                axes.plot(epochs, heights, dash, color=colour, marker=".", ms=4, lw=1.2, label=f"{measure}, {word}")
        for kind, marked, dash in (
            ("unfrozen", unfrozen_at, ":"),
            ("best epoch", [] if best_epoch is None else [best_epoch], "-."),
        ):
            for number, epoch in enumerate(marked):
                axes.axvline(epoch, ls=dash, lw=1.2, color=INK, alpha=0.7, label=None if number else kind)
        if not axes.lines:
            write_message(axes, "No epoch recorded")
        else:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    panels[0].set_ylabel("Loss (nats per photograph)")
    panels[1].set_ylabel("Score (0 to 1)")
    panels[1].set_ylim(-MARGIN, 1 + MARGIN)
    panels[1].set_xlabel("Epoch (counted from 0)")
    panels[1].xaxis.get_major_locator().set_params(integer=True)
    return figure


@styled
def roc(curves: Sequence[Curve]) -> "Figure":
    """Draw the ROC curve of each (name, labels, probabilities); equal probabilities are one step.

    If the labels have one class only, the legend says that the curve is not estimable.
    """
    figure, axes = _square("False-positive rate (1 − specificity)", "True-positive rate (sensitivity)")
    axes.plot([0, 1], [0, 1], ":", color=INK, lw=1, label="chance")
    for (name, labels, values), colour, dash in _looks(curves):
        points = roc_points(labels, values)
        if points is None:
            axes.plot([], [], ls=dash, color=colour, label=f"{label_of(name)} (not estimable: one class)")
        else:
            axes.plot(*_corners(*points), ls=dash, color=colour, label=label_of(name))
    axes.legend(loc="lower right")
    return figure


@styled
def precision_recall(curves: Sequence[Curve]) -> "Figure":
    """Draw the precision-recall curve of each (name, labels, probabilities), in the steps of average precision.

    The dotted line is the proportion of positives, which is the precision at chance.
    """
    figure, axes = _square("Recall (sensitivity)", "Precision (positive predictive value)")
    prevalences = set()
    for (name, labels, values), colour, dash in _looks(curves):
        points = precision_recall_points(labels, values)
        if points is None:
            axes.plot([], [], ls=dash, color=colour, label=f"{label_of(name)} (not estimable: no positives)")
        else:
            axes.plot(*_corners(*points), ls=dash, color=colour, label=label_of(name))
            prevalences.add(float(np.asarray(labels).mean()))
    for number, prevalence in enumerate(sorted(prevalences)):
        axes.axhline(prevalence, ls=":", color=INK, lw=1, label=None if number else "proportion of positives (chance)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left")
    return figure


def _corners(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Remove points in the middle of a straight line: the drawing stays the same."""
    if x.size < 3:
        return x, y
    dx, dy = np.diff(x), np.diff(y)
    bends = np.abs(dx[:-1] * dy[1:] - dy[:-1] * dx[1:]) > 1e-15
    corner = np.concatenate([[True], bends, [True]])
    return x[corner], y[corner]


def _square(x: str, y: str) -> tuple["Figure", "Axes"]:
    figure = new_figure(4.4, 4.4)
    axes = figure.subplots()
    axes.set(xlim=(-MARGIN, 1 + MARGIN), ylim=(-MARGIN, 1 + MARGIN), xlabel=x, ylabel=y, aspect="equal")
    return figure, axes


def _looks(curves: Sequence[Curve]) -> Iterator[tuple[Curve, str, Dash]]:
    """Give each curve a colour and a dash; with 6 colours and 5 dashes a combination repeats after 30 curves only."""
    yield from zip(curves, itertools.cycle(COLOURS), itertools.cycle(DASHES), strict=False)
