"""The figures of a report. Their style and output are in `bldml.figures.style`.

`labels` is an integer array of shape (n,) with 1 for the positive class, `probabilities` a float array of shape (n,) in
[0, 1] for the positive class. If nothing can be drawn, the figure shows the reason.
"""

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.figures.curves import learning_curves, precision_recall, roc
from bldml.figures.style import (
    COLOURS,
    DASHES,
    INK,
    MARGIN,
    checked_probability,
    label_of,
    new_figure,
    save,
    styled,
    to_svg,
    write_message,
)
from bldml.io.text import counted
from bldml.metrics.calibration import reliability
from bldml.metrics.checked import Classes, checked_pair
from bldml.metrics.estimates import Estimate
from bldml.metrics.metric import Scored
from bldml.metrics.proportions import predictive_values, proportion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "calibration",
    "confusion",
    "learning_curves",
    "precision_recall",
    "predictive_value_curves",
    "probabilities",
    "roc",
    "save",
    "to_svg",
]

Floats = NDArray[np.float64]

_ONE_CLASS = "Not estimable: both classes are needed"


@styled
def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> "Figure":
    """Draw the fraction of positives over the mean probability in bins of equal width, with 95 % Wilson intervals.

    A second panel shows the number of photographs in each bin, because bins with few photographs are unreliable.

    Args:
        labels: 1 for the positive class, shape (n,).
        probabilities: Probabilities of the positive class, shape (n,).
        bins: Number of bins between 0 and 1; a probability on an edge belongs to the bin above.
    """
    filled = reliability(labels, probabilities, bins)
    figure = new_figure(5.6, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], ":", color=INK, lw=1, label="perfect calibration")
    if filled:
        fraction = np.array([part.n_positive / part.n for part in filled])
        intervals = [proportion(part.n_positive, part.n).interval for part in filled]
        bounds = np.array([(i.low, i.high) for i in intervals if i is not None]).T
        upper.errorbar(
            [part.mean for part in filled], fraction, np.abs(bounds - fraction), fmt="o", ms=4, lw=1.2, capsize=2,
            color=COLOURS[0], label="photographs in a bin, 95 % interval (Wilson)",
        )  # fmt: skip
    else:
        write_message(upper, "No photographs")
    middles = [(part.low + part.high) / 2 for part in filled]
    bars = lower.bar(middles, [part.n for part in filled], 0.92 / bins, color=COLOURS[0])
    lower.bar_label(bars, [f"{part.n:,}" for part in filled], fontsize=7, padding=1)
    lower.margins(y=0.25)
    lower.set(xlim=(-MARGIN, 1 + MARGIN), xlabel="Predicted probability", ylabel="Photographs")
    upper.set(ylim=(-MARGIN, 1 + MARGIN), ylabel="Observed fraction of positives")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
    return figure


@styled
def probabilities(labels: ArrayLike, probabilities: ArrayLike, threshold: float, classes: Classes) -> "Figure":
    """Draw the distribution of predicted probabilities in each class, with the threshold.

    Args:
        labels: 1 for the positive class, shape (n,).
        probabilities: Probabilities of the positive class, shape (n,).
        threshold: Decision threshold: the lowest probability predicted as positive, in [0, 1].
        classes: The two classes.

    Raises:
        RunError: The threshold is out of range.
    """
    checked_probability(threshold, "threshold")
    probability, label = checked_pair(probabilities, labels, "probabilities", in_unit_range=True)
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


@styled
def confusion(counts: Mapping[str, int], classes: Classes) -> "Figure":
    """Draw the 2 x 2 table of true and predicted class, shaded by the fraction of the true class.

    Args:
        counts: `tp`, `fp`, `fn` and `tn`, each 0 or more.
        classes: The two classes.
    """
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


@styled
def predictive_value_curves(sensitivity: Estimate, specificity: Estimate, prevalence: float) -> "Figure":
    """Draw PPV and NPV over prevalence (the proportion of diseased leaves), by Bayes' rule.

    The band goes from both 95 % intervals at their lower limits to both at their upper limits.

    Args:
        sensitivity: Sensitivity on this set, in [0, 1].
        specificity: Specificity on this set, in [0, 1].
        prevalence: Proportion of positives in this set, in [0, 1]; marked with a line.

    Raises:
        RunError: The prevalence is out of range.
    """
    checked_probability(prevalence, "prevalence")
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(0.1, 100), ylim=(-MARGIN, 1 + MARGIN))
    axes.set(xlabel="Prevalence (% of photographs, logarithmic)", ylabel="Predictive value (0 to 1)")
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    prevalences = np.geomspace(0.001, 1, 241)[:-1]
    pairs = [predictive_values(sensitivity, specificity, float(value)) for value in prevalences]
    if all(estimate.value is None for pair in pairs for estimate in pair):
        write_message(axes, _ONE_CLASS)
        return figure
    for number, name in enumerate(
        (
            "PPV: proportion of positive predictions that are correct",
            "NPV: proportion of negative predictions that are correct",
        )
    ):
        lines = np.array([_with_limits(pair[number]) for pair in pairs]).T
        axes.plot(100 * prevalences, lines[0], DASHES[number], color=COLOURS[number], label=name)
        axes.fill_between(100 * prevalences, lines[1], lines[2], color=COLOURS[number], alpha=0.2, lw=0)
    if prevalence >= 0.001:
        axes.axvline(100 * prevalence, ls=":", lw=1.2, color=INK, label=f"this set: {100 * prevalence:.1f} %")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
    return figure


def _with_limits(estimate: Estimate) -> tuple[float, float, float]:
    """Return value and limits; NaN, which a curve omits, if there is no value or no interval."""
    if estimate.value is None or estimate.interval is None:
        return (math.nan,) * 3
    return estimate.value, estimate.interval.low, estimate.interval.high
