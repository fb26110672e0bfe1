"""Tables of a comparison."""

from bldml.io.text import Cell, counted, number, p_value, plain
from bldml.metrics.registry import shown_in
from bldml.report import claims
from bldml.report.comparison.compare import EQUAL_SPECIFICITY, FAMILIES, Comparison, PairedTest
from bldml.report.comparison.settings import settings_of
from bldml.report.evaluation_tables import best_epoch
from bldml.report.tables import (
    ESTIMATE_COLUMNS,
    Entry,
    Footnotes,
    Shown,
    Table,
    duration,
    estimate_cells,
    estimate_entry,
    text_table,
)
from bldml.run.baselines import baselines_of, verdict_of
from bldml.run.evidence import evidence_of, stretches_of
from bldml.run.subgroups import subgroups_of

ENDS = ("", "_low", "_high", "_method")


def counted_photographs(comparison: Comparison) -> str:
    """Return the number of photographs, and of sampling units if these are others."""
    evidence = evidence_of(comparison.reference.data, comparison.reference.evaluation)
    return counted(evidence.n, "photograph") + claims.units(evidence)


def runs_table(comparison: Comparison) -> Table:
    """Return the runs, most accurate first; the CSV file also contains their costs."""
    footnotes, metrics = Footnotes(), shown_in("comparison")
    rows: list[tuple[Entry, ...]] = []
    raw: list[list[Cell]] = []
    for run in comparison.runs:
        found, data, backbone = run.assessment, run.data, run.data.setting("model", "backbone")
        estimates = found.estimates(metrics)
        shown = (estimate_entry(estimates[one.name], footnotes, one.fraction(found.counts)) for one in metrics)
        rows.append((Entry(run.name, backbone), *shown, *(Entry(run.letters[family] or "–") for family in FAMILIES)))
        raw.append(
            [
                *(run.name, backbone, run.evaluation.name, found.n, found.n_positive, found.n_units or None),
                found.unit,
                *(found.counts[key] for key in ("tp", "fp", "fn", "tn")),
                *(cell for estimate in estimates.values() for cell in estimate_cells(estimate)),
                *(run.letters[family] for family in FAMILIES),
                *(data.parameters, data.checkpoint_bytes, run.evaluation.images_per_second),
                *(run.evaluation.provenance.device, data.training_seconds),
            ]
        )
    names = ["run", "backbone", "evaluation", "n", "n_positive", "n_units", "unit", "tp", "fp", "fn", "tn"]
    names += [f"{one.name}{part}" for one in metrics for part in ENDS]
    names += [f"letters_{family}" for family in FAMILIES]
    names += ["parameters", "checkpoint_bytes", "images_per_second", "device", "training_seconds"]
    reference = comparison.reference
    caption = (
        f"{counted_photographs(comparison)} ({reference.assessment.n_positive:,} positive), evaluation "
        f"{plain(reference.evaluation.name)}: each run at its own operating point, most accurate first, with 95 % "
        "intervals. Runs that share a letter do not differ significantly."
    )
    header = ("Run", *(one.label for one in metrics), "Letters, accuracy", "Letters, AUROC")
    return Table("runs", caption, header, tuple(rows), (names, raw), footnotes.all)


def leaf_table(comparison: Comparison) -> Table | None:
    """Return the best baseline that does not see the leaf, and each run's advantage over it; None if not recorded."""
    notes, rows, raw = Footnotes(), [], []
    for run in comparison.runs:
        found = baselines_of(run.data, run.evaluation)
        if found is None or found.best is None:
            continue
        best = found.sources[found.best]
        shown = "yes" if found.is_exceeded else "no"
        cells = (estimate_entry(best, notes), estimate_entry(found.advantage, notes), Entry(shown))
        rows.append((Entry(run.name), Entry(found.best.title, verdict_of(found.best.name, best)), *cells))
        raw.append([run.name, found.best.name, *estimate_cells(best), *estimate_cells(found.advantage), shown])
    names = ("run", "source", *(f"{part}{end}" for part in ("auroc", "advantage") for end in ENDS), "shown")
    caption = (
        "The best of the baselines that do not see the leaf (metadata, image border), fitted on each run’s training "
        "photographs. Where the advantage of a run is not above 0 beyond chance, it is not shown that the run looks at "
        "the leaf."
    )
    header = ("Run", "Best baseline", "Its AUROC", "Advantage of the run", "Shown to exceed it")
    return Table("without_leaf", caption, header, tuple(rows), (names, raw), notes.all) if rows else None


def original_classes_table(comparison: Comparison) -> Table | None:
    """Return the rate of each original class of merged classes, a row each, by run; None if none is recorded."""
    found = {
        run.name: {one.value: one for one in subgroups_of(run.data, run.evaluation) if one.by == "original class"}
        for run in comparison.runs
    }
    values = dict.fromkeys(value for of_run in found.values() for value in of_run)
    if not values:
        return None
    notes, rows = Footnotes(), []
    raw: list[list[Cell]] = []
    for value in values:
        cells = [Entry(plain(value))]
        for name, of_run in found.items():
            if (one := of_run.get(value)) is None:
                cells.append(Entry("–"))
                continue
            rate, hits = (one.sensitivity, one.n_detected) if one.n_positive else (one.specificity, one.n_cleared)
            cells.append(estimate_entry(rate, notes, f"{hits}/{one.n}"))
            score = "sensitivity" if one.n_positive else "specificity"
            raw.append([value, name, score, one.n, *estimate_cells(rate)])
        rows.append(tuple(cells))
    caption = (
        "Original classes that class_aliases merged into one class: proportion predicted correctly (sensitivity or "
        "specificity) at each run's operating point, with 95 % intervals. A dash: this run did not merge it, "
        "or it is not recorded. The worst of several is low partly by chance."
    )
    names = ("original_class", "run", "metric", "n", *ESTIMATE_COLUMNS)
    return Table("original_classes", caption, ("Original class", *found), tuple(rows), (names, raw), notes.all)


def differing_settings_table(comparison: Comparison) -> Table | None:
    """Return the settings of the configurations that differ, a row each; None if all are equal."""
    found = {run.name: settings_of(run.data) for run in comparison.runs}
    keys = sorted({key for settings in found.values() for key in settings})
    rows: list[list[Shown]] = []
    for key in keys:
        values = [settings.get(key) for settings in found.values()]
        if len(set(values)) > 1:
            rows.append([key, *("not recorded" if value is None else value for value in values)])
    caption = "Settings of the configurations that differ between the runs."
    return text_table("settings", caption, ("Setting", *found), rows) if rows else None


def differing_conditions_table(comparison: Comparison) -> Table | None:
    """Return versions and hardware that differ between the runs or within one, a row each; None if all are equal."""
    found = {run.name: stretches_of(run.data) for run in comparison.runs}
    names = dict.fromkeys(name for stretches in found.values() for one in stretches for name in one.conditions)
    rows: list[list[Shown]] = []
    for name in names:
        recorded = ([one.conditions[name] for one in run if name in one.conditions] for run in found.values())
        values = [" → ".join(dict.fromkeys(values)) for values in recorded]
        if len(set(values)) > 1 or " → " in values[0]:
            rows.append([name, *(value or "not recorded" for value in values)])
    caption = "Software and hardware that differ between the runs, or within a run that was resumed."
    return text_table("conditions", caption, ("Condition", *found), rows) if rows else None


def sensitivity_table(comparison: Comparison) -> Table | None:
    """Return the sensitivities of all pairs at one specificity, and their differences; None without both classes."""
    notes, rows = Footnotes(), []
    raw: list[list[Cell]] = []
    for pair in comparison.differences:
        found = pair.at_equal_specificity
        if found is None:
            return None
        first, second, difference = found
        shown = estimate_entry(difference, notes, sign=True)
        if difference.interval is None:
            shown = Entry(shown.text, mark=notes.mark(difference.note))
        cells = (Entry(number(first)), Entry(number(second)), shown)
        rows.append((Entry(pair.first, f"minus {pair.second}"), *cells))
        raw.append([pair.first, pair.second, EQUAL_SPECIFICITY, first, second, *estimate_cells(difference)])
    caption = (
        f"Sensitivity of both runs of a pair at a specificity of {EQUAL_SPECIFICITY:g} on these photographs, whatever "
        "their operating points, with the 95 % interval of the difference. The thresholds were chosen on these "
        "photographs, so both sensitivities may be optimistic."
    )
    names = ("first", "second", "specificity", "sensitivity_first", "sensitivity_second", "difference", "low", "high",
             "method")  # fmt: skip
    header = ("Pair", "Sensitivity, first", "Sensitivity, second", "Difference")
    return Table("equal_specificity", caption, header, tuple(rows), (names, raw), notes.all)


def costs_table(comparison: Comparison) -> Table:
    """Return the costs of each run; a dash where they were not recorded."""
    rows: list[list[Shown]] = []
    for run in comparison.runs:
        parameters, size, seconds = run.data.parameters, run.data.checkpoint_bytes, run.data.training_seconds
        best, epochs = best_epoch(run.data), len(run.data.epochs)
        speed, device = run.evaluation.images_per_second, run.evaluation.provenance.device
        rows.append(
            [
                run.name,
                None if parameters is None else f"{parameters / 1e6:.2f} million",
                None if size is None else f"{size / 2**20:.1f} MiB",
                None if speed is None else Entry(f"{speed:.3g}", plain(device)),
                None if seconds is None else duration(seconds),
                epochs or None,
                best,
            ]
        )
    header = ("Run", "Parameters", "Checkpoint", "Photographs/s", "Training time", "Epochs", "Best epoch")
    return text_table("costs", "Costs and training of each run, as far as recorded. Epochs count from 0.", header, rows)


def differences_table(comparison: Comparison) -> Table:
    """Return the differences of all pairs, first run minus second run."""

    def adjusted(test: PairedTest) -> Entry:
        return Entry(p_value(test.adjusted), look="significant" if test.is_significant else "")

    footnotes = Footnotes()
    rows: list[tuple[Entry, ...]] = []
    raw: list[list[Cell]] = []
    for pair in comparison.differences:
        test, accuracy, auroc = pair.mcnemar, pair.tests["accuracy"], pair.tests["auroc"]
        rows.append(
            (
                Entry(pair.first, f"minus {pair.second}"),
                estimate_entry(accuracy.difference, footnotes, sign=True),
                Entry(f"{test.b}\u00a0/\u00a0{test.c}"),
                *(Entry(p_value(p)) for p in (test.exact, test.mid)),
                adjusted(accuracy),
                estimate_entry(auroc.difference, footnotes, sign=True),
                Entry(p_value(auroc.p)),
                adjusted(auroc),
            )
        )
        raw.append(
            [
                *(pair.first, pair.second, *estimate_cells(accuracy.difference)),
                *(test.b, test.c, test.exact, test.mid, accuracy.p, accuracy.adjusted),
                *(*estimate_cells(auroc.difference), auroc.p, auroc.adjusted),
            ]
        )
    parts = ("difference", "low", "high", "method")
    names = ["first", "second", *(f"accuracy_{part}" for part in parts), "b", "c", "mcnemar_exact_p", "mcnemar_mid_p"]
    names += ["accuracy_p", "accuracy_p_holm", *(f"auroc_{part}" for part in parts), "auroc_p", "auroc_p_holm"]
    header = ("Pair", "Accuracy difference", "b / c", "McNemar exact p", "McNemar mid-p", "Holm p, accuracy",
              "AUROC difference", "p, AUROC", "Holm p, AUROC")  # fmt: skip
    caption = (
        "Paired differences with 95 % intervals, first run minus second run, on the same photographs. b: photographs "
        "that only the first run classifies correctly; c: only the second. Holm p: p value adjusted by Holm’s method."
    )
    return Table("differences", caption, header, tuple(rows), (names, raw), footnotes.all)
