"""Tables of one evaluation (metrics with intervals, predictive values, groups), and the table of all sets."""

from collections.abc import Sequence

import numpy as np

from bldml.io.text import Cell, number, plain
from bldml.metrics.assessment import Assessment, Simulation, loss_uncalibrated, simulation_near
from bldml.metrics.checked import Classes, are_clustered
from bldml.metrics.estimates import Estimate
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.proportions import proportion, proportion_by_unit
from bldml.metrics.registry import shown_in
from bldml.report.tables import (
    ESTIMATE_COLUMNS,
    Entry,
    Footnotes,
    Shown,
    Table,
    count,
    estimate_cells,
    estimate_entry,
    interval_text,
    precise_number,
    text_table,
)
from bldml.run.baselines import ERROR_ABOVE, FAMILY_LEVEL, WARNING_ABOVE, Baselines, verdict_of
from bldml.run.provenance import Role
from bldml.run.reader import Evaluation, RunData
from bldml.run.subgroups import LEAST, Subgroup

Assessed = tuple[Evaluation, Assessment]

SMALL_GROUP = 10  # a group of fewer photographs is too small to judge
GROUPS_SHOWN = 100
SUBGROUPS_SHOWN = 200
_ROLES: dict[Role, str] = {
    "training": "training split",
    "validation": "validation split, used to choose the threshold",
    "test": "test split",
    "external": "external",
    "mixed": "mixed",
    "unknown": "relation to the run not recorded",
}


def role_label(evaluation: Evaluation) -> str:
    """Return in words how the photographs of an evaluation relate to the run."""
    return "used to choose the threshold" if evaluation.is_out_of_fold else _ROLES[evaluation.role]


def threshold_metrics_table(assessment: Assessment) -> Table:
    """Return the metrics that need a threshold, at the operating point and at 0.5."""
    notes, found = Footnotes(), simulation_near(assessment)
    covered = found.coverage if found else {}
    points = (
        ("operating point", assessment.threshold, assessment.at_threshold, assessment.counts),
        ("0.5", 0.5, assessment.at_half, assessment.counts_at_half),
    )
    rows, raw = [], []
    for metric in shown_in("report"):
        if metric.needs_threshold:
            name = metric.name
            cells = (estimate_entry(at[name], notes, metric.fraction(counts)) for _, _, at, counts in points)
            rows.append((Entry(metric.title), *cells, *_coverage(found, name)))
            raw += [
                [name, point, threshold, *estimate_cells(at[name]), covered.get(name)]
                for point, threshold, at, _ in points
            ]
    header = ("Metric", f"At the operating point {precise_number(assessment.threshold)}", "At 0.5", *_covered(found))
    caption = "Metrics that depend on a threshold, with 95 % intervals in brackets." + _simulated(found)
    names = ("metric", "at", "threshold", *ESTIMATE_COLUMNS, "simulated_coverage")
    return Table("scores", caption, header, tuple(rows), (names, raw), notes.all)


def probability_metrics_table(assessment: Assessment, point: OperatingPoint) -> Table:
    """Return the metrics of the probabilities, which need no threshold, and what the temperature does to the loss."""
    notes, found = Footnotes(), simulation_near(assessment)
    covered = found.coverage if found else {}
    shown = [metric for metric in shown_in("report") if not metric.needs_threshold]
    rows = [
        (Entry(metric.title), estimate_entry(assessment.overall[metric.name], notes), *_coverage(found, metric.name))
        for metric in shown
    ]
    raw: list[list[Cell]] = [
        [metric.name, *estimate_cells(assessment.overall[metric.name]), covered.get(metric.name)] for metric in shown
    ]
    if point.temperature != 1:
        loss = loss_uncalibrated(assessment.labels, assessment.probabilities, point)
        title = f"Log loss without the temperature {number(point.temperature)}"
        rows.append((Entry(title), Entry(precise_number(loss)), *_coverage(found, "loss_uncalibrated")))
        raw.append(["loss_uncalibrated", loss, None, None, None, None])
    caption = (
        "Metrics that need no threshold, with 95 % intervals in brackets. The average precision expected by chance is "
        f"the proportion of positives, {number(assessment.n_positive / assessment.n)}."
    ) + _simulated(found)
    names = ("metric", *ESTIMATE_COLUMNS, "simulated_coverage")
    return Table("overall", caption, ("Metric", "Value", *_covered(found)), tuple(rows), (names, raw), notes.all)


def _coverage(found: Simulation | None, name: str) -> tuple[Entry, ...]:
    """Return the cell of the column `_covered`."""
    if found is None:
        return ()
    share = found.coverage.get(name)
    return (Entry("–" if share is None else f"{100 * share:.0f} %"),)


def _covered(found: Simulation | None) -> tuple[str, ...]:
    return ("Interval covered, in simulations",) if found else ()


def _simulated(found: Simulation | None) -> str:
    """Return what the column `_covered` shows, for the caption."""
    if found is None:
        return " The intervals were not simulated for sets of about this size."
    return (
        f" Last column: the percentage of {found.n} simulated sets of {found.size} whose 95 % interval contained the "
        "true value, in the worst case that was simulated."
    )


def confusion_table(assessment: Assessment, classes: Classes) -> Table:
    """Return the counts of true and predicted classes with their margins, at the operating point and at 0.5."""
    negative, positive = map(plain, classes.names)
    rows: list[list[Shown]] = []
    for where, n in (("operating point", assessment.counts), ("0.5", assessment.counts_at_half)):
        for name, yes, no in ((positive, n["tp"], n["fn"]), (negative, n["fp"], n["tn"])):
            rows.append([f"{name}, at {where}", yes, no, yes + no])
        rows.append([f"All, at {where}", n["tp"] + n["fp"], n["fn"] + n["tn"], sum(n.values())])
    header = ("True class", f"Predicted {positive}", f"Predicted {negative}", "All")
    return text_table("confusion", "Photographs by true and predicted class.", header, rows)


def predictive_values_table(assessment: Assessment) -> Table:
    """Return PPV and NPV at several prevalences."""
    notes = Footnotes()
    rows = [
        (Entry(f"{100 * prevalence:g} %"), estimate_entry(ppv, notes), estimate_entry(npv, notes))
        for prevalence, ppv, npv in assessment.prevalences
    ]
    raw = [
        [prevalence, name, *estimate_cells(value)]
        for prevalence, ppv, npv in assessment.prevalences
        for name, value in (("ppv", ppv), ("npv", npv))
    ]
    header = ("Prevalence", "Positive predictive value (PPV)", "Negative predictive value (NPV)")
    caption = "Predictive values at other prevalences (proportions of positives), at the operating point (Bayes’ rule)."
    names = ("prevalence", "metric", *ESTIMATE_COLUMNS)
    return Table("predictive_values", caption, header, tuple(rows), (names, raw), notes.all)


def baselines_table(found: Baselines) -> Table:
    """Return the AUROC of each source that does not see the leaf."""
    notes = Footnotes()
    rows = tuple(
        (Entry(source.title), estimate_entry(estimate, notes), Entry(verdict_of(source.name, estimate)))
        for source, estimate in found.sources.items()
    )
    raw = [
        [source.name, *estimate_cells(estimate), verdict_of(source.name, estimate)]
        for source, estimate in found.sources.items()
    ]
    caption = (
        "How well the class is predicted without the leaf: logistic regression, fitted on the training photographs and "
        f"evaluated on these, 95 % intervals. Lower limit above {WARNING_ABOVE}: warning; above {ERROR_ABOVE}: error. "
        f"A warning must also be above 0.5 at {100 * FAMILY_LEVEL:g} % for all sources together. "
        "Other models may find more. The best of several is partly chance."
    )
    names = ("source", *ESTIMATE_COLUMNS, "verdict")
    return Table("baselines", caption, ("Source", "AUROC", "Verdict"), rows, (names, raw), notes.all)


def groups_table(assessment: Assessment, evaluation: Evaluation) -> Table | None:
    """Return accuracy and errors of each group, least accurate first; None where no photograph has a group."""
    members: dict[str, list[int]] = {}
    for index, row in enumerate(evaluation.rows):
        if row.group:
            members.setdefault(row.group, []).append(index)
    if not members:
        return None
    is_positive = assessment.probabilities >= assessment.threshold
    is_missed, is_alarm = (assessment.labels == 1) & ~is_positive, (assessment.labels == 0) & is_positive
    found = []
    for name, indices in members.items():
        n, missed, alarms = len(indices), int(is_missed[indices].sum()), int(is_alarm[indices].sum())
        accuracy = proportion(n - missed - alarms, n)
        found.append((name, n, int(assessment.labels[indices].sum()), accuracy, missed, alarms))
    found.sort(key=lambda group: (group[1] < SMALL_GROUP, group[3].value, group[0]))
    rows = []
    for name, n, positive, accuracy, missed, alarms in found[:GROUPS_SHOWN]:
        detail = f"{n - missed - alarms}/{n} {interval_text(accuracy)}"
        cells = (plain(name), count(n), count(positive), precise_number(accuracy.value), count(missed), count(alarms))
        look = "faint" if n < SMALL_GROUP else ""
        rows.append(tuple(Entry(cell, detail if k == 3 else "", look=look) for k, cell in enumerate(cells)))
    raw = [
        [name, n, positive, *estimate_cells(accuracy), missed, alarms]
        for name, n, positive, accuracy, missed, alarms in found
    ]
    caption = (
        "Groups (tree, site, burst), least accurate first, with 95 % intervals (Wilson, photographs of one group "
        f"treated as independent). Groups of fewer than {SMALL_GROUP} photographs are listed last, in grey: they are "
        "too small to judge."
    )
    header = ("Group", "Photographs", "Positive", "Accuracy", "Missed", "False alarms")
    names = ("group", "n", "n_positive", *ESTIMATE_COLUMNS, "missed", "false_alarms")
    return Table("groups", caption, header, tuple(rows), (names, raw), left_out=len(found) - len(rows))


def subgroups_table(subgroups: Sequence[Subgroup]) -> Table | None:
    """Return sensitivity and specificity of each subgroup; None without any."""
    if not subgroups:
        return None
    notes, rows = Footnotes(), []
    raw: list[list[Cell]] = []
    for one in subgroups:
        negatives = one.n - one.n_positive
        rows.append(
            (
                Entry(plain(one.value), one.by),
                Entry(count(one.n)),
                Entry(count(one.n_positive)),
                _rate(one.sensitivity, one.n_detected, one.n_positive, notes),
                _rate(one.specificity, one.n_cleared, negatives, notes),
            )
        )
        cells = (*estimate_cells(one.sensitivity), *estimate_cells(one.specificity))
        raw.append([one.by, one.value, one.n, one.n_positive, *cells])
    caption = (
        "Sensitivity and specificity of subgroups at the operating point, of each kind the lowest first, with 95 % "
        "intervals in brackets. An original class is a class before class_aliases. Groups, cameras and days are shown "
        f"alone if they have {LEAST} photographs of a class. The worst of many subgroups is low partly by chance "
        f"({len(rows)} are shown here)."
    )
    header = ("Subgroup", "Photographs", "Positive", "Sensitivity", "Specificity")
    names = [f"{name}_{part}" for name in ("sensitivity", "specificity") for part in ESTIMATE_COLUMNS]
    shown, left_out = tuple(rows[:SUBGROUPS_SHOWN]), max(0, len(rows) - SUBGROUPS_SHOWN)
    return Table("subgroups", caption, header, shown, (("by", "value", "n", "n_positive", *names), raw), notes.all,
                 left_out)  # fmt: skip


def _rate(estimate: Estimate, hits: int, n: int, notes: Footnotes) -> Entry:
    return estimate_entry(estimate, notes, f"{hits}/{n}") if n else Entry("–")


def limits_without_errors(assessment: Assessment) -> list[tuple[int, int, float | None, str]]:
    """Return what the positives, then the negatives, can show at best.

    These are the number of photographs, the number of their sampling units (0 if each is one), the lower limit of
    the sensitivity or specificity of a classifier without errors, and its method.
    """
    found = []
    for value in (1, 0):
        indices = np.flatnonzero(assessment.labels == value)
        units = assessment.units[indices]
        best = proportion_by_unit(np.ones(indices.size, dtype=bool), units).interval
        n_units = np.unique(units).size if are_clustered(units) else 0
        low, method = (best.low, best.method.partition(",")[0]) if best else (None, "")
        found.append((indices.size, n_units, low, method))
    return found


def sets_table(data: RunData, assessed: Sequence[Assessed]) -> Table:
    """Return the metrics of training, validation, test and external sets, one row per set, with its stated site."""
    notes, metrics = Footnotes(), shown_in("sets")
    rows: list[tuple[Entry, ...]] = []
    raw: list[list[Cell]] = []
    first = {one.name: same[0].name for same in data.sets for one in same}
    for evaluation, assessment in assessed:
        estimates = assessment.estimates(metrics)
        cells = [estimate_entry(estimates[m.name], notes, m.fraction(assessment.counts)) for m in metrics]
        n = Entry(count(assessment.n), f"{count(assessment.n_positive)} positive")
        label = role_label(evaluation)
        if (same := first[evaluation.name]) != evaluation.name:
            label += f", the same photographs as {plain(same)}"
        if site := evaluation.provenance.site:
            label += f", from {plain(site)}"
        rows.append((Entry(plain(evaluation.name), label), n, *cells))
        raw += [[evaluation.name, assessment.n, key, *estimate_cells(value)] for key, value in estimates.items()]
    training = {} if data.of_role("training") else _training_metrics(data)
    if training:
        n_train = sum(row["split"] == "train" for row in data.splits)
        note = notes.mark(
            "measured during the best epoch, at threshold 0.5, on augmented photographs, while the weights were still "
            "changing"
        )
        values = [training.get(f"train_{metric.name}") for metric in metrics]
        shown = [Entry("–") if value is None else Entry(number(value), mark=note) for value in values]
        rows.append((Entry("train", "training split"), Entry(count(n_train) if n_train else "–"), *shown))
        raw += [
            ["train", n_train, metric.name, value, None, None, "training epoch, at 0.5"]
            for metric, value in zip(metrics, values, strict=True)
            if "history" in metric.shown
        ]
    header = ("Set", "Photographs", *(metric.label for metric in metrics))
    caption = "Metrics of all sets at the operating point, with 95 % intervals in brackets."
    return Table("sets", caption, header, tuple(rows), (("set", "n", "metric", *ESTIMATE_COLUMNS), raw), notes.all)


def best_epoch(data: RunData) -> int | None:
    """Return the epoch whose weights were evaluated, counted from 0; None where it is not recorded."""
    epochs = (evaluation.provenance.epoch for evaluation in data.evaluations)
    return next((epoch for epoch in epochs if epoch is not None), None)


def _training_metrics(data: RunData) -> dict[str, float | None]:
    epoch = best_epoch(data)
    row = next((row for row in data.epochs if row["epoch"] == epoch), {})
    return {key: value for key, value in row.items() if key.startswith("train_") and value is not None}
