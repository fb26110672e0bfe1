"""The tables of one evaluation: scores with their intervals, predictive values, groups, and all sets side by side."""

from collections.abc import Sequence

import numpy as np

from bldml.io.text import Cell, counted, number, plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.estimates import Estimate
from bldml.metrics.proportions import clustered_proportion, proportion
from bldml.report.tables import (
    ESTIMATE_COLUMNS,
    Entry,
    Footnotes,
    Table,
    bounds,
    count,
    fine,
    of_estimate,
    raw_estimate,
    simple,
)
from bldml.run.data import Evaluation, RunData

Assessed = tuple[Evaluation, Assessment]

FEW = 10  # fewer photographs than this say nothing of a group
GROUPS_SHOWN = 100
SCORES = {
    "sensitivity": "Sensitivity (recall)",
    "specificity": "Specificity",
    "ppv": "Positive predictive value (precision), as in this set",
    "npv": "Negative predictive value, as in this set",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "youden_j": "Youden’s J",
    "f1": "F1",
    "mcc": "Matthews correlation (MCC)",
    "lr_positive": "Likelihood ratio of a positive call",
    "lr_negative": "Likelihood ratio of a negative call",
}
OVERALL = {
    "auroc": "Area under the ROC curve (AUROC)",
    "average_precision": "Average precision",
    "brier": "Brier score (0 is best)",
    "brier_skill": "Brier skill (1 is best, 0 is guessing)",
    "loss": "Log loss (nats, 0 is best)",
    "calibration_slope": "Calibration slope (1 is ideal)",
    "calibration_intercept": "Calibration intercept (0 is ideal)",
    "ece": "Expected calibration error (ECE)",
    "ece_expected": "ECE that a perfect model of this size would show",
}
# Of the counts, which ones are counted and among which.
FRACTIONS = {
    "sensitivity": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "ppv": (("tp",), ("tp", "fp")),
    "npv": (("tn",), ("tn", "fn")),
    "accuracy": (("tp", "tn"), ("tp", "tn", "fp", "fn")),
}


def fraction(counts: dict[str, int], score: str) -> str:
    """Return a share as it was counted; empty for a score that is no share of photographs.

    >>> fraction({"tp": 40, "fn": 5, "fp": 2, "tn": 9}, "sensitivity")
    '40/45'
    """
    if score not in FRACTIONS:
        return ""
    part, whole = (sum(counts[key] for key in keys) for keys in FRACTIONS[score])
    return f"{part}/{whole}"


def scores(assessment: Assessment) -> Table:
    """Scores at the operating point and at 0.5."""
    notes = Footnotes()
    points = (
        ("operating point", assessment.threshold, assessment.at_threshold, assessment.counts),
        ("0.5", 0.5, assessment.at_half, assessment.counts_at_half),
    )
    rows, raw = [], []
    for key, title in SCORES.items():
        rows.append((Entry(title), *(of_estimate(at[key], notes, fraction(n, key)) for _, _, at, n in points)))
        raw += [[key, point, threshold, *raw_estimate(at[key])] for point, threshold, at, _ in points]
    header = ("Score", f"At the operating point {fine(assessment.threshold)}", "At 0.5")
    caption = "Scores that depend on a threshold, with 95 % intervals in brackets."
    names = ("score", "at", "threshold", *ESTIMATE_COLUMNS)
    return Table("scores", caption, header, tuple(rows), (names, raw), notes.all)


def overall(assessment: Assessment) -> Table:
    """Scores of the probabilities themselves."""
    notes = Footnotes()
    rows = tuple((Entry(title), of_estimate(assessment.overall[key], notes)) for key, title in OVERALL.items())
    raw = [[key, *raw_estimate(assessment.overall[key])] for key in OVERALL]
    prevalence = number(assessment.n_positive / assessment.n)
    caption = (
        "Scores that need no threshold, with 95 % intervals in brackets. The average precision of guessing is the "
        f"share of positives, {prevalence}."
    )
    return Table("overall", caption, ("Score", "Value"), rows, (("score", *ESTIMATE_COLUMNS), raw), notes.all)


def confusion_table(assessment: Assessment, classes: tuple[str, str]) -> Table:
    """Counts of true and predicted classes with their margins, at both thresholds."""
    negative, positive = map(plain, classes)
    rows: list[list[str | int]] = []
    for where, n in (("operating point", assessment.counts), ("0.5", assessment.counts_at_half)):
        for name, yes, no in ((positive, n["tp"], n["fn"]), (negative, n["fp"], n["tn"])):
            rows.append([f"{name}, at {where}", yes, no, yes + no])
        rows.append([f"All, at {where}", n["tp"] + n["fp"], n["fn"] + n["tn"], sum(n.values())])
    header = ("True class", f"Called {positive}", f"Called {negative}", "All")
    return simple("confusion", "Photographs by true and predicted class.", header, rows)


def by_prevalence(assessment: Assessment) -> Table:
    """PPV and NPV where the share of diseased leaves is another."""
    notes = Footnotes()
    rows = [
        (Entry(f"{100 * share:g} %"), of_estimate(ppv, notes), of_estimate(npv, notes))
        for share, ppv, npv in assessment.prevalences
    ]
    raw = [
        [share, name, *raw_estimate(value)]
        for share, ppv, npv in assessment.prevalences
        for name, value in (("ppv", ppv), ("npv", npv))
    ]
    header = ("Share of positives in the field", "Positive predictive value", "Negative predictive value")
    caption = "What a call is worth where the share of positives is another, at the operating point (Bayes’ rule)."
    names = ("prevalence", "score", *ESTIMATE_COLUMNS)
    return Table("predictive_values", caption, header, tuple(rows), (names, raw), notes.all)


def by_group(assessment: Assessment, evaluation: Evaluation) -> Table | None:
    """How each group fared, worst first; None where photographs have no groups."""
    members: dict[str, list[int]] = {}
    for index, row in enumerate(evaluation.rows):
        if row.group:
            members.setdefault(row.group, []).append(index)
    if not members:
        return None
    called = assessment.probabilities >= assessment.threshold
    found: list[tuple[str, int, int, int, int, Estimate]] = []
    for name, indices in members.items():
        label, call = assessment.labels[indices], called[indices]
        right = int(np.sum(label == call))
        missed, alarms = int(np.sum((label == 1) & ~call)), int(np.sum((label == 0) & call))
        found.append((name, len(indices), int(label.sum()), missed, alarms, proportion(right, len(indices))))
    found.sort(key=lambda group: (group[1] < FEW, group[5].value, group[0]))
    rows = []
    for name, n, positive, missed, alarms, accuracy in found[:GROUPS_SHOWN]:
        look = "faint" if n < FEW else ""
        share = Entry(fine(accuracy.value), f"{n - missed - alarms}/{n} {bounds(accuracy)}", "", look)
        rows.append((Entry(plain(name), look=look), *(Entry(count(k), look=look) for k in (n, positive)), share,
                     *(Entry(count(k), look=look) for k in (missed, alarms))))  # fmt: skip
    raw = [
        [n, k, positive, *raw_estimate(accuracy), missed, alarms] for n, k, positive, missed, alarms, accuracy in found
    ]
    caption = (
        "Groups (tree, site, burst), the least accurate first, with 95 % intervals (Wilson, photographs of one group "
        f"taken as independent). Groups of fewer than {FEW} photographs come last and are grey: they say little."
    )
    header = ("Group", "Photographs", "Positive", "Accuracy", "Missed", "False alarms")
    names = ("group", "n", "n_positive", *ESTIMATE_COLUMNS, "missed", "false_alarms")
    return Table("groups", caption, header, tuple(rows), (names, raw), left_out=len(found) - len(rows))


def sample_size(assessment: Assessment) -> str:
    """What the number of photographs can show at best."""
    parts = []
    for name, value, score in (("positives", 1, "sensitivity"), ("negatives", 0, "specificity")):
        mask = assessment.labels == value
        n = int(mask.sum())
        if not n:
            parts.append(f"There are no {name}, so nothing can be said of the {score}.")
            continue
        if assessment.groups is None:
            best, of_groups = proportion(n, n), ""
        else:
            groups = [group for group, inside in zip(assessment.groups, mask, strict=True) if inside]
            best, of_groups = (
                clustered_proportion(np.ones(n, dtype=bool), groups),
                f" of {counted(len(set(groups)), 'group')}",
            )
        low = best.interval.low if best.interval else None
        parts.append(
            f"With {count(n)} {name}{of_groups}, even without a single error the {score} would only be shown to be "
            f"{number(low)} or better (lower 95 % limit, Wilson)."
        )
    return " ".join(parts)


def side_by_side(data: RunData, assessed: Sequence[Assessed]) -> Table:
    """Training, validation, test and external sets beside each other."""
    notes = Footnotes()
    keys = ("sensitivity", "specificity", "accuracy", "balanced_accuracy", "f1")
    rows: list[tuple[Entry, ...]] = []
    raw: list[list[Cell]] = []
    for evaluation, assessment in assessed:
        kind = {"test": "test split", "val": "validation split, chose the threshold", "train": "training split"}.get(
            evaluation.name, "external"
        )
        at, whole = assessment.at_threshold, assessment.overall
        estimates = {key: at[key] for key in keys} | {key: whole[key] for key in ("auroc", "brier")}
        cells = [of_estimate(value, notes, fraction(assessment.counts, key)) for key, value in estimates.items()]
        n = Entry(count(assessment.n), f"{count(assessment.n_positive)} positive")
        rows.append((Entry(plain(evaluation.name), kind), n, *cells))
        raw += [[evaluation.name, assessment.n, key, *raw_estimate(value)] for key, value in estimates.items()]
    training = {} if data.evaluation("train") else _training(data)
    if training:
        columns = ("train_recall", "train_specificity", "train_accuracy", "train_balanced_accuracy", "train_f1",
                   "train_auroc")  # fmt: skip
        n_train = sum(row["split"] == "train" for row in data.splits)
        note = notes.mark(
            "measured during the best epoch, at 0.5, on photographs changed at random, while the weights still moved"
        )
        values = [training.get(column) for column in columns]
        shown = [Entry("–") if value is None else Entry(number(value), mark=note) for value in values]
        rows.append((Entry("train", "training split"), Entry(count(n_train) if n_train else "–"), *shown, Entry("–")))
        raw += [["train", n_train, c.removeprefix("train_"), v, None, None, "training epoch, at 0.5"]
                for c, v in zip(columns, values, strict=True)]  # fmt: skip
    header = ("Set", "Photographs", "Sensitivity", "Specificity", "Accuracy", "Balanced accuracy", "F1", "AUROC",
              "Brier score")  # fmt: skip
    caption = "All sets side by side, at the operating point, with 95 % intervals in brackets."
    return Table("sets", caption, header, tuple(rows), (("set", "n", "score", *ESTIMATE_COLUMNS), raw), notes.all)


def best_epoch(data: RunData) -> int | None:
    """The epoch whose weights were evaluated, counted from 0; None where nothing says so."""
    for evaluation in data.evaluations:
        epoch = evaluation.provenance.get("epoch")
        if isinstance(epoch, int) and not isinstance(epoch, bool):
            return epoch
    return None


def _training(data: RunData) -> dict[str, float | None]:
    epoch = best_epoch(data)
    row = next((row for row in data.epochs if row["epoch"] == epoch), {})
    return row if any(key.startswith("train_") and value is not None for key, value in row.items()) else {}
