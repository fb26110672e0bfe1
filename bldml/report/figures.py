"""Draw the figures of a report: each once, as SVG for the page and as files for a paper."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bldml.figures import plots, style
from bldml.io.text import counted, number, plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.auroc import curve_bands
from bldml.metrics.checked import FEW_UNITS, Classes, units_in_words
from bldml.report.evaluation_tables import best_epoch
from bldml.report.tables import precise_number
from bldml.run.reader import Evaluation, RunData
from bldml.run.subgroups import Subgroup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SUBGROUPS_DRAWN = 30


class ReportFigure(NamedTuple):
    """A figure on the page."""

    name: str
    title: str
    svg: str
    caption: str


def training_figures(data: RunData, folder: Path) -> list[ReportFigure]:
    """Draw the learning curves, loss and AUROC, and write them into a folder.

    Raises:
        RunError: They cannot be written.
    """
    unfrozen, best = unfreeze_epochs(data), best_epoch(data)
    drawn = dict(learning_figures(data))
    losses = [loss for row in data.epochs if (loss := row.get("val_loss")) is not None]
    marks = ""
    if unfrozen:
        marks += f" Dotted lines: more layers were unfrozen, at epoch {', '.join(map(str, unfrozen))}."
    if best is not None:
        marks += f" Dash-dotted line: the best epoch, {best}, whose weights were evaluated."
    changed = f" The validation loss changed from {number(losses[0], 4)} to {number(losses[-1], 4)}." if losses else ""
    epochs = f"over {counted(len(data.epochs), 'epoch')}."
    captions = {"loss": f"Loss {epochs}{changed}", "auroc": f"AUROC {epochs}"}
    for name in captions:
        if any(row.get(f"{stage}_{name}") is not None for row in data.epochs for stage in ("train", "val")):
            captions[name] += marks
    titles = {"loss": "Loss by epoch", "auroc": "AUROC by epoch"}
    return [
        _picture(drawn[f"learning_{name}"], folder, f"learning_{name}", titles[name], caption)
        for name, caption in captions.items()
    ]


def learning_figures(data: RunData) -> Iterator[tuple[str, "Figure"]]:
    """Yield name and figure of each learning curve: loss and AUROC by epoch."""
    for name in ("loss", "auroc"):
        yield f"learning_{name}", plots.learning_curve(data.epochs, name, unfreeze_epochs(data), best_epoch(data))


def unfreeze_epochs(data: RunData) -> list[int]:
    """Return the epochs, counted from 0, in which more parameters were trained than in the previous epoch."""
    known = [(row["epoch"], value) for row in data.epochs if (value := row.get("trainable_share")) is not None]
    return [int(epoch or 0) for (_, before), (epoch, fraction) in pairwise(known) if fraction > before]


def evaluation_figures(
    evaluation: Evaluation, assessment: Assessment, classes: Classes, folder: Path
) -> list[ReportFigure]:
    """Draw the figures of one evaluation, and write them into a folder of its name in `folder`.

    Raises:
        RunError: They cannot be written.
    """
    folder, figures = folder / evaluation.name, figures_of(evaluation, assessment, classes)
    return [_picture(figure, folder, name, title, caption) for name, title, figure, caption in figures]


def figures_of(
    evaluation: Evaluation, assessment: Assessment, classes: Classes
) -> Iterator[tuple[str, str, "Figure", str]]:
    """Yield name, title, figure and caption of the figures of one evaluation."""
    yield from _at_operating_point(assessment, classes)
    yield from _at_every_threshold(evaluation.name, assessment)


def _at_operating_point(assessment: Assessment, classes: Classes) -> Iterator[tuple[str, str, "Figure", str]]:
    """Yield name, title, figure and caption of what depends on the threshold."""
    labels, probabilities, n = assessment.labels, assessment.probabilities, assessment.counts
    at = assessment.at_threshold
    negative, positive = map(plain, classes.names)
    yield (
        "confusion",
        "Confusion matrix",
        plots.confusion(n, classes),
        f"At the operating point, {positive}: {n['tp']} of {n['tp'] + n['fn']} detected, {n['fn']} missed; "
        f"{negative}: {n['tn']} of {n['tn'] + n['fp']} correctly classified, {counted(n['fp'], 'false alarm')}.",
    )
    yield (
        "probabilities",
        "Probabilities by class",
        plots.probabilities(labels, probabilities, assessment.threshold, classes),
        f"Distribution of the predicted probability of {positive} in each class. Dashed line: decision threshold "
        f"{precise_number(assessment.threshold)}.",
    )
    yield (
        "decision_curve",
        "Decision curve",
        plots.decision_curve(labels, probabilities, assessment.threshold),
        "Net benefit if a leaf is treated where its probability is at least the threshold: true positives minus false "
        f"alarms, one of which costs t / (1 − t) of what a missed leaf costs (Vickers and Elkin 2006). At the "
        f"proportion of positives in this set, {number(assessment.n_positive / assessment.n)}; without intervals.",
    )
    yield (
        "predictive_values",
        "Predictive values by prevalence",
        plots.predictive_value_curves(at["sensitivity"], at["specificity"], assessment.n_positive / assessment.n),
        "Positive and negative predictive value at other prevalences, with 95 % bands.",
    )


def _at_every_threshold(name: str, assessment: Assessment) -> Iterator[tuple[str, str, "Figure", str]]:
    """Yield name, title, figure and caption of what is drawn at every threshold."""
    labels, probabilities, overall = assessment.labels, assessment.probabilities, assessment.overall
    curve = [(name, labels, probabilities)]
    rates = assessment.at_threshold["sensitivity"], assessment.at_threshold["specificity"]
    recall_precision = assessment.at_threshold["sensitivity"], assessment.at_threshold["ppv"]
    marked, also_marked = (
        " Point: the operating point with its 95 % intervals." if all(one.numbers for one in both) else ""
        for both in (rates, recall_precision)
    )
    bands = curve_bands(labels, probabilities, assessment.units)
    of_roc, of_precision = bands or (None, None)
    shaded = f"No band: it needs at least {FEW_UNITS} sampling units with photographs of each class."
    if bands:
        shaded = (
            f"Band: pointwise 95 % intervals, from {units_in_words(assessment.units)}, of the {{}}, not for the whole "
            "curve at once."
        )
    yield (
        "roc",
        "ROC curve",
        plots.roc(curve, rates, of_roc),
        "Sensitivity against false-positive rate at every threshold; area under the curve "
        f"{number(overall['auroc'].value)}, chance 0.500.{marked} "
        + shaded.format("sensitivity at each false-positive rate"),
    )
    yield (
        "precision_recall",
        "Precision and recall",
        plots.precision_recall(curve, recall_precision, of_precision),
        "Precision against recall at every threshold; average precision "
        f"{number(overall['average_precision'].value)}, chance {number(assessment.n_positive / assessment.n)}."
        f"{also_marked} " + shaded.format("precision at each recall, for this proportion of positives"),
    )
    yield (
        "calibration",
        "Calibration",
        plots.calibration(labels, probabilities, assessment.units),
        "Observed fraction of positives in bins of equal numbers of photographs, with 95 % intervals; below, the "
        f"distribution of the probabilities. Expected calibration error (ECE) {number(overall['ece'].value)}; as many "
        f"photographs of a perfectly calibrated model would show about {number(overall['ece_expected'].value)}.",
    )


def subgroup_figure(subgroups: Sequence[Subgroup], folder: Path) -> ReportFigure | None:
    """Draw sensitivity and specificity of the subgroups, and write them into a folder; None without any.

    Raises:
        RunError: They cannot be written.
    """
    if not subgroups:
        return None
    shown = subgroups[:SUBGROUPS_DRAWN]
    caption = "Sensitivity and specificity of subgroups at the operating point, with 95 % intervals."
    if len(shown) < len(subgroups):
        caption += f" The first {len(shown)} of {len(subgroups)}; the table has all."
    rows = [(f"{one.by}: {one.value}", one.sensitivity, one.specificity) for one in shown]
    return _picture(plots.forest(rows), folder, "subgroups", "Subgroups", caption)


def _picture(figure: "Figure", folder: Path, name: str, title: str, caption: str) -> ReportFigure:
    style.save(figure, folder, name)
    svg = style.to_svg(figure, title=f"{title}, {folder.name}", description=caption)
    return ReportFigure(name, title, svg, caption)
