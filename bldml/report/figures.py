"""The figures of a report: drawn once, inline on the page and as files for a paper."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bldml.figures import plots
from bldml.io.text import counted, number, plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.checked import Classes
from bldml.report.scores import best_epoch
from bldml.report.tables import fine
from bldml.run.reader import Evaluation, RunData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = ("loss", "auroc", "balanced_accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class ReportFigure:
    """A figure on the page.

    Args:
        name: Of its files.
        title: What it is.
        caption: What is to be seen in it, in words.
        svg: The figure itself.
    """

    name: str
    title: str
    caption: str
    svg: str


def training_figure(data: RunData, folder: Path) -> ReportFigure:
    """Draw the learning curves, and write them into a folder.

    Raises:
        RunError: They cannot be written.
    """
    unfrozen = unfreeze_epochs(data)
    best = best_epoch(data)
    losses = [row["val_loss"] for row in data.epochs if row.get("val_loss") is not None]
    # All scores at once could not be told apart.
    shown = {"epoch", *(f"{stage}_{score}" for stage in ("train", "val") for score in CURVES)}
    rows = [{key: value for key, value in row.items() if key in shown} for row in data.epochs]
    caption = f"Loss and scores over {counted(len(data.epochs), 'epoch')}, in training and in validation."
    if losses and losses[-1] is not None and losses[0] is not None:
        caption += f" The validation loss went from {number(losses[0], 4)} to {number(losses[-1], 4)}."
    if unfrozen:
        caption += f" Dotted lines: layers were unfrozen, at epoch {', '.join(map(str, unfrozen))}."
    if best is not None:
        caption += f" Dash-dotted line: the best epoch, {best}, which was evaluated."
    return _picture(plots.learning_curves(rows, unfrozen, best), folder, "learning_curves", "Learning curves", caption)


def unfreeze_epochs(data: RunData) -> list[int]:
    """Epochs, counted from 0, in which more of the network was trained than in the one before."""
    found = []
    before: float | None = None
    for row in data.epochs:
        fraction = row.get("trainable_share")
        if before is not None and fraction is not None and fraction > before:
            found.append(int(row["epoch"] or 0))
        before = fraction if fraction is not None else before
    return found


def evaluation_figures(
    evaluation: Evaluation, assessment: Assessment, classes: Classes, folder: Path
) -> list[ReportFigure]:
    """Draw the figures of one evaluation, and write them into a folder.

    Raises:
        RunError: They cannot be written.
    """
    labels, probabilities, n = assessment.labels, assessment.probabilities, assessment.counts
    at, whole = assessment.at_threshold, assessment.overall
    negative, positive = map(plain, classes.names)
    curve = [(evaluation.name, labels, probabilities)]
    prevalence = assessment.n_positive / assessment.n
    figures = (
        (
            "confusion",
            "Confusion matrix",
            plots.confusion(n, classes),
            f"At the operating point, {positive}: {n['tp']} of {n['tp'] + n['fn']} found, {n['fn']} missed; "
            f"{negative}: {n['tn']} of {n['tn'] + n['fp']} cleared, {counted(n['fp'], 'false alarm')}.",
        ),
        (
            "probabilities",
            "Probabilities by class",
            plots.probabilities(labels, probabilities, assessment.threshold, classes),
            f"How the predicted probabilities of {positive} are spread in each class. Dashed line: the operating point "
            f"{fine(assessment.threshold)}.",
        ),
        (
            "roc",
            "ROC curve",
            plots.roc(curve),
            f"Sensitivity over false alarms at every threshold; area {number(whole['auroc'].value)}, chance 0.500.",
        ),
        (
            "precision_recall",
            "Precision and recall",
            plots.precision_recall(curve),
            f"Precision over recall at every threshold; average precision {number(whole['average_precision'].value)}, "
            f"guessing {number(prevalence)}.",
        ),
        (
            "calibration",
            "Calibration",
            plots.calibration(labels, probabilities),
            "Share of positives among photographs of about equal probability, with 95 % intervals, and how many there "
            f"are. Expected calibration error {number(whole['ece'].value)}; a perfect model of this size would show "
            f"about {number(whole['ece_expected'].value)}.",
        ),
        (
            "predictive_values",
            "Predictive values by prevalence",
            plots.predictive_value_curves(at["sensitivity"], at["specificity"], prevalence),
            "What a positive and a negative call are worth where the share of positives is another, with 95 % bands.",
        ),
    )
    return [_picture(figure, folder, name, title, caption) for name, title, figure, caption in figures]


def _picture(figure: "Figure", folder: Path, name: str, title: str, caption: str) -> ReportFigure:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for all three formats
    plots.save(figure, folder, name)
    return ReportFigure(
        name, title, caption, plots.to_svg(figure, title=f"{title}, {folder.name}", description=caption)
    )
