"""The figures of a report. Their style and output are in `bldml.figures.style`.

`labels` is an integer array of shape (n,) with 1 for the positive class, `probabilities` a float array of shape (n,) in
[0, 1] for the positive class. If nothing can be drawn, the figure shows the reason.
"""

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.errors import RunError
from bldml.figures.style import COLOURS, DASHES, INK, MARGIN, label_of, new_figure, styled, write_message
from bldml.io.text import counted
from bldml.metrics.auroc import Band
from bldml.metrics.checked import Classes, checked_probabilities
from bldml.metrics.estimates import Estimate
from bldml.metrics.metric import Scored
from bldml.metrics.operating_point import precision_recall_points, roc_points
from bldml.metrics.proportions import predictive_values
from bldml.metrics.scores import net_benefit, reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[str, ArrayLike, ArrayLike]  # name, labels, probabilities
Floats = NDArray[np.float64]
PointsOf = Callable[[ArrayLike, ArrayLike], tuple[Floats, Floats] | None]  # of labels and probabilities


MEASURES = {"loss": "Loss (nats per photograph)", "auroc": "AUROC (0 to 1)"}


@styled()
def learning_curve(
    rows: Sequence[Mapping[str, float | None]],
    measure: str,
    unfrozen_at: Sequence[int] = (),
    best_epoch: int | None = None,
) -> "Figure":
    """Draw one measure of training and validation over the epochs.

    Args:
        rows: One row per epoch, from the run's history.csv: `epoch`, `train_<measure>`, `val_<measure>`. Missing
            values, None and values that are not finite leave a gap.
        measure: A key of `MEASURES`.
        unfrozen_at: Epochs, counted from 0, at whose start more stages were unfrozen; marked with a line.
        best_epoch: Epoch of `best.ckpt`; marked with a line.
    """
    figure = new_figure(3.2)
    axes = figure.subplots()
    epochs = [float(row.get("epoch") or 0) for row in rows]
    for stage, word, dash, colour in (("train", "training", "--", COLOURS[1]), ("val", "validation", "-", COLOURS[0])):
        values = [row.get(f"{stage}_{measure}") for row in rows]
        heights = [math.nan if v is None or not math.isfinite(v) else v for v in values]
        if np.isfinite(heights).any():
            axes.plot(epochs, heights, dash, color=colour, marker=".", ms=4, lw=1.4, label=word)
    if axes.lines:
        best = [] if best_epoch is None else [best_epoch]
        for kind, marked, dash in (("layers unfrozen", unfrozen_at, ":"), ("best epoch", best, "-.")):
            for number, epoch in enumerate(marked):
                axes.axvline(epoch, ls=dash, lw=1.2, color=INK, alpha=0.7, label=None if number else kind)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    else:
        write_message(axes, "Not recorded")
    if measure == "auroc":
        axes.set_ylim(-MARGIN, 1 + MARGIN)
    axes.set(ylabel=MEASURES[measure], xlabel="Epoch (counted from 0)")
    axes.locator_params("x", integer=True)
    return figure


@styled()
def roc(curves: Sequence[Curve], rates: tuple[Estimate, Estimate] | None = None, band: Band | None = None) -> "Figure":
    """Draw the ROC curve of each (name, labels, probabilities); equal probabilities are one step.

    If the labels have one class only, the legend says that the curve is not estimable. `rates` are sensitivity and
    specificity at the operating point, which is marked with both 95 % intervals; `band` is that of the first curve.
    """
    figure, axes = _square("False-positive rate (1 − specificity)", "True-positive rate (sensitivity)")
    axes.plot([0, 1], [0, 1], ":", color=INK, lw=1, label="chance")
    _draw_curves(axes, curves, roc_points, "one class", band)
    if rates and (specificity := rates[1].numbers):
        least, right, most = specificity
        _mark_operating_point(axes, (1 - most, 1 - right, 1 - least), rates[0].numbers)
    axes.legend(loc="lower right")
    return figure


@styled()
def precision_recall(
    curves: Sequence[Curve], rates: tuple[Estimate, Estimate] | None = None, band: Band | None = None
) -> "Figure":
    """Draw the precision-recall curve of each (name, labels, probabilities), in the steps of average precision.

    The dotted line is the proportion of positives, which is the precision at chance. `rates` are recall and precision
    at the operating point, which is marked with both 95 % intervals; `band` is that of the first curve.
    """
    figure, axes = _square("Recall (sensitivity)", "Precision (positive predictive value)")
    _draw_curves(axes, curves, precision_recall_points, "no positives", band)
    prevalences = {float(np.asarray(labels).mean()) for _, labels, _ in curves if np.any(labels)}
    for number, prevalence in enumerate(sorted(prevalences)):
        axes.axhline(prevalence, ls=":", color=INK, lw=1, label=None if number else "proportion of positives (chance)")
    if rates:
        _mark_operating_point(axes, rates[0].numbers, rates[1].numbers)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left")
    return figure


def _mark_operating_point(
    axes: "Axes", x: tuple[float, float, float] | None, y: tuple[float, float, float] | None
) -> None:
    """Mark a point with its intervals, each given as lower limit, value and upper limit; nothing without both."""
    if x is None or y is None:
        return
    errors = [[[max(0, value - low)], [max(0, high - value)]] for low, value, high in (x, y)]
    axes.errorbar(
        [x[1]], [y[1]], xerr=errors[0], yerr=errors[1], fmt="o", ms=5, lw=1.2, capsize=3, color=COLOURS[1],
        label="operating point, 95 % intervals",
    )  # fmt: skip


@styled()
def calibration(labels: ArrayLike, probabilities: ArrayLike, units: ArrayLike | None = None) -> "Figure":
    """Draw the fraction of positives over the mean probability in bins of equal numbers, with 95 % intervals by unit.

    A second panel shows the distribution of the probabilities.
    """
    filled = reliability(labels, probabilities, units)
    figure = new_figure(5.6, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], ":", color=INK, lw=1, label="perfect calibration")
    if filled:
        bounds = np.array([part.fraction.numbers for part in filled], dtype=np.float64)
        upper.errorbar(
            [part.mean for part in filled], bounds[:, 1], np.abs(bounds[:, [0, 2]] - bounds[:, 1:2]).T, fmt="o", ms=4,
            lw=1.2, capsize=2, color=COLOURS[0], label="photographs in a bin, 95 % interval",
        )  # fmt: skip
    else:
        write_message(upper, "No photographs")
    lower.hist(np.asarray(probabilities, dtype=np.float64), np.linspace(0, 1, 21), color=COLOURS[0], rwidth=0.92)
    lower.yaxis.get_major_locator().set_params(integer=True)
    lower.set(xlim=(-MARGIN, 1 + MARGIN), xlabel="Predicted probability", ylabel="Photographs")
    upper.set(ylim=(-MARGIN, 1 + MARGIN), ylabel="Observed fraction of positives")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
    return figure


@styled()
def probabilities(labels: ArrayLike, probabilities: ArrayLike, threshold: float, classes: Classes) -> "Figure":
    """Draw the distribution of predicted probabilities in each class, with the threshold.

    Raises:
        RunError: The threshold is not in [0, 1].
    """
    _check_probability(threshold, "threshold")
    label, probability = checked_probabilities(labels, probabilities)
    counts = Scored(label, probability, threshold).counts
    figure = new_figure(4.2)
    panels = figure.subplots(2, 1, sharex=True)
    for truth, (axes, name) in enumerate(zip(panels, classes.names, strict=True)):
        of_class = probability[label == truth]
        wrong, side = (counts["fn"], "below") if truth else (counts["fp"], "at or above")
        axes.hist(of_class, np.linspace(0, 1, 21), color=COLOURS[truth], rwidth=0.92)
        axes.axvline(threshold, ls="--", lw=1.2, color=INK)
        shown = label_of(name)
        gap = " " if len(shown) <= 20 else "\n"
        axes.set_title(f"{shown}:{gap}{counted(of_class.size, 'photograph')}, {wrong:,} {side} the threshold")
        axes.set_ylabel("Photographs")
        axes.yaxis.get_major_locator().set_params(integer=True)
    panels[0].annotate(
        f"threshold {threshold:.3g}", (threshold, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8,
        xytext=(-4 if threshold > 0.5 else 4, 0), textcoords="offset points", ha="right" if threshold > 0.5 else "left",
    )  # fmt: skip
    panels[1].set(xlim=(-MARGIN, 1 + MARGIN), xlabel=f"Predicted probability of {label_of(classes.positive)}")
    return figure


@styled()
def confusion(counts: Mapping[str, int], classes: Classes) -> "Figure":
    """Draw the 2 x 2 table of `tp`, `fp`, `fn` and `tn`, shaded by the fraction of the true class."""
    from matplotlib.patches import Rectangle

    figure = new_figure(3.4, 4.4)
    axes = figure.subplots()
    axes.grid(False)
    for row, cells in enumerate((("tn", "fp"), ("fn", "tp"))):
        total = sum(counts[cell] for cell in cells)
        for column, cell in enumerate(cells):
            fraction = counts[cell] / total if total else 0.0
            colour = COLOURS[0] if row == column else COLOURS[1]
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=colour, alpha=0.06 + 0.4 * fraction, lw=0))
            percent = f"{100 * fraction:.1f} % of the class" if total else "no photographs"
            axes.text(column, row - 0.08, f"{counts[cell]:,}", ha="center", va="center", fontsize=15)
            axes.text(column, row + 0.22, percent, ha="center", va="center", fontsize=8)
    names = [textwrap.fill(label_of(name), 14) for name in classes.names]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names)
    axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xlabel="Predicted class", ylabel="True class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled()
def predictive_value_curves(sensitivity: Estimate, specificity: Estimate, prevalence: float) -> "Figure":
    """Draw PPV and NPV over prevalence (the proportion of diseased leaves), by Bayes' rule.

    The band goes from both 95 % intervals at their lower limits to both at their upper limits. A line marks
    `prevalence`, the proportion of positives in this set, in [0, 1].

    Raises:
        RunError: The prevalence is not in [0, 1].
    """
    _check_probability(prevalence, "prevalence")
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(0.1, 100), ylim=(-MARGIN, 1 + MARGIN))
    axes.set(xlabel="Prevalence (% of photographs, logarithmic)", ylabel="Predictive value (0 to 1)")
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    prevalences = np.geomspace(0.001, 1, 241)[:-1]
    pairs = [predictive_values(sensitivity, specificity, float(value)) for value in prevalences]
    if all(estimate.value is None for pair in pairs for estimate in pair):
        write_message(axes, "Not estimable: both classes are needed")
        return figure
    for number, (name, sign) in enumerate((("PPV", "positive"), ("NPV", "negative"))):
        # A curve omits nan.
        low, value, high = np.array([pair[number].numbers or (math.nan,) * 3 for pair in pairs]).T
        label = f"{name}: proportion of {sign} predictions that are correct"
        axes.plot(100 * prevalences, value, DASHES[number], color=COLOURS[number], label=label)
        axes.fill_between(100 * prevalences, low, high, color=COLOURS[number], alpha=0.2, lw=0)
    if prevalence >= 0.001:
        axes.axvline(100 * prevalence, ls=":", lw=1.2, color=INK, label=f"this set: {100 * prevalence:.1f} %")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
    return figure


@styled()
def decision_curve(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> "Figure":
    """Draw the net benefit of the classifier, of treating all and of treating none, over the threshold probability.

    Vickers and Elkin (2006). A line marks `threshold`, that of the operating point.

    Raises:
        RunError: The threshold is not in [0, 1].
    """
    _check_probability(threshold, "threshold")
    label, probability = checked_probabilities(labels, probabilities)
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.set(xlim=(-MARGIN, 1 + MARGIN), xlabel="Threshold probability", ylabel="Net benefit (per photograph)")
    at = np.linspace(0.01, 0.99, 99)
    model, all_treated = (net_benefit(label, values, at) for values in (probability, np.ones(label.size)))
    if model is None or all_treated is None or label.min() == label.max():
        write_message(axes, "Not estimable: both classes are needed")
        return figure
    axes.plot(at, model, "-", color=COLOURS[0], label="classifier")
    axes.plot(at, all_treated, "--", color=COLOURS[1], label="treat all")
    axes.axhline(0, ls=":", color=INK, lw=1.2, label="treat none")
    axes.axvline(threshold, ls="-.", color=INK, lw=1.2, label=f"operating point {threshold:.3g}")
    top = float(label.mean())
    axes.set_ylim(-0.15 * top, 1.05 * top)  # the curves may fall to minus infinity
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, columnspacing=1)
    return figure


@styled()
def forest(rows: Sequence[tuple[str, Estimate, Estimate]]) -> "Figure":
    """Draw sensitivity and specificity of each (name, sensitivity, specificity), with 95 % intervals, the first on top.

    One that is not estimable is left out.
    """
    figure = new_figure(1.1 + 0.28 * max(1, len(rows)))
    panels = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows), dtype=np.float64)
    rates = ("Sensitivity", [one for _, one, _ in rows]), ("Specificity", [one for _, _, one in rows])
    for axes, (name, estimates), colour in zip(panels, rates, COLOURS[:2], strict=True):
        known = [(y, *one.numbers) for y, one in zip(places, estimates, strict=True) if one.numbers]
        if known:
            y, low, value, high = np.array(known).T
            errors = np.maximum(0, [value - low, high - value])
            axes.errorbar(value, y, xerr=errors, fmt="o", ms=4, lw=1.2, capsize=2, color=colour)
        axes.set(xlim=(-MARGIN, 1 + MARGIN), ylim=(len(rows) - 0.5, -0.5), xlabel=name)
    panels[0].set_yticks(places, [label_of(name) for name, _, _ in rows])
    return figure


def _check_probability(value: float, what: str) -> None:
    if not 0 <= value <= 1:
        message = f"The {what} must lie in [0, 1], found {value}. Give a proportion, not a percentage."
        raise RunError(message, "value-out-of-range", found=value, expected="[0, 1]")


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


def _draw_curves(axes: "Axes", curves: Sequence[Curve], points_of: PointsOf, missing: str, band: Band | None) -> None:
    """Draw each curve, and the band of the first; with 6 colours and 5 dashes a look repeats after 30 curves only."""
    if band:
        axes.fill_between(*band, color=COLOURS[0], alpha=0.2, lw=0, label="pointwise 95 % band")
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(DASHES), strict=True)
    for (name, labels, values), (colour, dash) in zip(curves, looks, strict=False):
        points = points_of(labels, values)
        label = label_of(name) if points else f"{label_of(name)} (not estimable: {missing})"
        x, y = _corners(*points) if points else (np.empty(0), np.empty(0))
        axes.plot(x, y, ls=dash, color=colour, label=label)
