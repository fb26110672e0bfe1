"""Write a comparison: one page, CSV tables, one LaTeX file, and the figure for a paper."""

from pathlib import Path

from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import Cell, counted, number, p_value, plain
from bldml.metrics.registry import METRICS, shown_in
from bldml.report import claims
from bldml.report.compare import ALPHA, FAMILIES, Comparison, PairedTest
from bldml.report.html import page_template
from bldml.report.tables import (
    ESTIMATE_COLUMNS,
    Entry,
    Footnotes,
    Shown,
    Table,
    duration,
    estimate_cells,
    estimate_entry,
    table_csv,
    table_tex,
    text_table,
)
from bldml.run.baselines import baselines_of, verdict_of
from bldml.run.evidence import evidence_of
from bldml.run.subgroups import subgroups_of

ENDS = ("", "_low", "_high", "_method")
LEAST_GAIN = 0.001  # that is printed


def write_comparison(comparison: Comparison, folder: Path, *, version: str) -> list[Path]:
    """Write `comparison.html`, its tables as CSV files, `comparison.tex` and `figures/roc.*`.

    The folder is created if it is missing; a previous comparison in it is overwritten, file by file.

    Returns:
        The paths of the files.

    Raises:
        RunError: The files cannot be written.
    """
    from bldml.figures import plots, style

    runs, costs, differences = runs_table(comparison), costs_table(comparison), differences_table(comparison)
    without_leaf, original = leaf_table(comparison), original_classes_table(comparison)
    figure = plots.roc([(run.name, run.labels, run.probabilities) for run in comparison.runs])
    areas = "; ".join(f"{run.name} {number(run.value('auroc'))}" for run in comparison.runs)
    explained = notes(comparison)
    reference = comparison.reference
    page = page_template("compare.html").render(
        version=version,
        evaluation=plain(reference.evaluation.name),
        counted=_photographs(comparison),
        n=reference.assessment.n,
        n_positive=reference.assessment.n_positive,
        classes=reference.data.classes,
        verdict=verdict(comparison),
        runs=runs,
        costs=costs,
        without_leaf=without_leaf,
        original=original,
        differences=differences,
        figure=style.to_svg(figure, title="ROC curves of all runs", description=f"Area under each curve: {areas}."),
        notes=explained,
    )
    contents = {
        "comparison.csv": table_csv(runs),
        "differences.csv": table_csv(differences),
        **({"without_leaf.csv": table_csv(without_leaf)} if without_leaf else {}),
        **({"original_classes.csv": table_csv(original)} if original else {}),
        "comparison.tex": "\n".join(
            table_tex(table) for table in (runs, costs, differences, without_leaf, original) if table
        )
        + "".join(f"% {plain(note)}\n" for note in explained),
        "comparison.html": page,
    }
    make_folder(folder)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [*(folder / name for name in contents), *style.save(figure, folder / "figures", "roc")]


def _photographs(comparison: Comparison) -> str:
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
        f"{_photographs(comparison)} ({reference.assessment.n_positive:,} positive), evaluation "
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
    names = ("original_class", "run", "score", "n", *ESTIMATE_COLUMNS)
    return Table("original_classes", caption, ("Original class", *found), tuple(rows), (names, raw), notes.all)


def costs_table(comparison: Comparison) -> Table:
    """Return the costs of each run; a dash where they were not recorded."""
    rows: list[list[Shown]] = []
    for run in comparison.runs:
        parameters, size, seconds = run.data.parameters, run.data.checkpoint_bytes, run.data.training_seconds
        speed, device = run.evaluation.images_per_second, run.evaluation.provenance.device
        rows.append(
            [
                run.name,
                None if parameters is None else f"{parameters / 1e6:.2f} million",
                None if size is None else f"{size / 2**20:.1f} MiB",
                None if speed is None else Entry(f"{speed:.3g}", plain(device)),
                None if seconds is None else duration(seconds),
            ]
        )
    header = ("Run", "Parameters", "Checkpoint", "Photographs/s", "Training time")
    return text_table("costs", "Costs of each run, as far as they were recorded.", header, rows)


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


def verdict(comparison: Comparison) -> str:
    """Return what the tests of each family found, after what makes the comparison itself doubtful."""
    found = [_caution(comparison), *(_verdict(comparison, family) for family in FAMILIES), _leaf_not_shown(comparison)]
    if not any(pair.tests[family].is_significant for pair in comparison.differences for family in FAMILIES):
        found.append("A higher value alone is no evidence that a run is better.")
    found.append(selection(comparison))
    return " ".join(filter(None, found))


def selection(comparison: Comparison) -> str:
    """Say how many runs were tried on these photographs, and what the best one gains by that alone."""
    k = len(comparison.runs)
    tried = max(evidence_of(run.data, run.evaluation).looked for run in comparison.runs)
    gains = [
        f"{f'about {gain:.3f}' if gain >= LEAST_GAIN else f'less than {LEAST_GAIN}'} ({METRICS[family].label})"
        for family, gain in comparison.gains.items()
        if gain is not None
    ]
    if not gains:
        return ""
    more = f" {tried:,} runs were evaluated on these photographs, so it may be more." if tried > k else ""
    return (
        f"If the best of these {k} runs is chosen by its value here, this value is expected to be too high by "
        f"{' and '.join(gains)}, because it is the best of {k} (bias-corrected bootstrap).{more}"
    )


def _caution(comparison: Comparison) -> str:
    """Say which runs know photographs of the evaluation, or their relatives; empty if none is recorded to."""
    found = {run.name: evidence_of(run.data, run.evaluation) for run in comparison.runs}
    seen = [name for name, evidence in found.items() if evidence.seen]
    related = [name for name, evidence in found.items() if evidence.n_related and not evidence.seen]
    parts = []
    if seen:
        parts.append(f"photographs of this set trained or chose {', '.join(seen)}")
    if related:
        parts.append(f"photographs of this set have relatives among those that trained or chose {', '.join(related)}")
    return f"Caution: {'; '.join(parts)}. The comparison is no evidence for new photographs." if parts else ""


def _leaf_not_shown(comparison: Comparison) -> str:
    """Say which runs are not shown to be better than a baseline that does not see the leaf; empty if all are."""
    found = {run.name: baselines_of(run.data, run.evaluation) for run in comparison.runs}
    names = [name for name, one in found.items() if one and one.best and not one.is_exceeded]
    return f"Not shown to exceed a baseline that does not see the leaf: {', '.join(names)}." if names else ""


def _verdict(comparison: Comparison, family: str) -> str:
    """Say which runs differ significantly in one metric."""
    pairs = [pair for pair in comparison.differences if pair.tests[family].adjusted is not None]
    different, name = [pair for pair in pairs if pair.tests[family].is_significant], METRICS[family].label
    if not pairs:
        return f"{name}: no pair could be tested."
    if not different:
        return f"{name}: no two runs differ significantly."
    best = max(comparison.runs, key=lambda run: run.value(family) or 0).name
    rivals = [{pair.first, pair.second} for pair in comparison.differences if pair not in different]
    similar = [other for pair in rivals if best in pair for other in pair - {best}]
    how_many = f"{len(different)} of {counted(len(pairs), 'pair')} {'differs' if len(different) == 1 else 'differ'}"
    if similar:
        what = f"the best run, {best}, does not differ significantly from {', '.join(similar)}"
    else:
        what = f"{best} is significantly better than every other run"
    return f"{name}: {how_many} significantly; {what}."


def notes(comparison: Comparison) -> list[str]:
    """Return sentences on how the numbers were computed and what they do not show."""
    n_pairs, reference = len(comparison.differences), comparison.reference
    sampling = claims.sampling(evidence_of(reference.data, reference.evaluation))
    pairs = "the one pair" if n_pairs == 1 else f"all {n_pairs} pairs"
    clustered = (
        f"{sampling} Photographs of one unit are alike, so accuracies were compared by a t test of the units' totals, "
        "AUROCs by a permutation test that swaps the two classifiers in whole units. McNemar's test treats photographs "
        "as independent, so it is shown but not used for the adjusted p values."
    )
    independent = (
        "Accuracies were compared by McNemar's mid-p; the exact test, shown beside it, finds true differences less "
        f"often. AUROCs were compared by DeLong's test. {sampling} The p values are then too small."
    )
    timed = (
        "Photographs per second were measured during this evaluation, including reading and decoding; compare only "
        "values from the same machine."
    )
    is_timed = any(run.evaluation.provenance.seconds for run in comparison.runs)
    return [
        independent if reference.assessment.unit == "photograph" else clustered,
        f"Two families of tests were declared: {pairs} by accuracy and {pairs} by AUROC. Within each family, p values "
        f"are adjusted by Holm's method; two runs differ significantly if the adjusted p value is below {ALPHA}.",
        "A difference that is not significant does not mean that two runs are equally good.",
        "Each run was evaluated at its own operating point, chosen on its validation photographs.",
        "A difference between two training runs is not necessarily due to their architectures: training with another "
        "random seed gives a different run.",
        "A raised letter in a table refers to the note below it: the method of the interval, or the reason why a value "
        "is missing.",
        *([timed] if is_timed else []),
    ]
