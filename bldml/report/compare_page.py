"""Write a comparison: one page, two CSV tables, one LaTeX file, and the figure for a paper."""

from pathlib import Path
from typing import Any

from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import Cell, counted, number, p_value, plain
from bldml.metrics.registry import shown_in
from bldml.report.compare import ALPHA, Comparison
from bldml.report.html import page_template
from bldml.report.tables import (
    Entry,
    Footnotes,
    Table,
    estimate_cells,
    estimate_entry,
    table_csv,
    table_tex,
    text_table,
)
from bldml.run.costs import duration


def write_comparison(comparison: Comparison, folder: Path, *, version: str) -> list[Path]:
    """Write `comparison.html`, `comparison.csv`, `differences.csv`, `comparison.tex` and `figures/roc.*`.

    The folder is created if it is missing; a previous comparison in it is overwritten, file by file.

    Returns:
        The paths of the files.

    Raises:
        RunError: The files cannot be written.
    """
    from bldml.figures import plots, style

    runs, costs, differences = runs_table(comparison), costs_table(comparison), differences_table(comparison)
    figure = plots.roc([(s.run.name, s.run.labels, s.run.probabilities) for s in comparison.ranked_runs])
    areas = "; ".join(f"{s.run.name} {number(s.run.assessment.overall['auroc'].value)}" for s in comparison.ranked_runs)
    drawn = style.to_svg(figure, title="ROC curves of all runs", description=f"Area under each curve: {areas}.")
    values: dict[str, Any] = {
        "version": version,
        "evaluation": plain(comparison.evaluation),
        "counted": f"{counted(comparison.n, 'photograph')}{_from_groups(comparison)}",
        "n": comparison.n,
        "n_positive": comparison.n_positive,
        "positive": plain(comparison.classes.positive),
        "negative": plain(comparison.classes.negative),
        "verdict": verdict(comparison),
        "runs": runs,
        "costs": costs,
        "differences": differences,
        "figure": drawn,
        "notes": notes(comparison),
    }
    contents = {
        "comparison.csv": table_csv(runs),
        "differences.csv": table_csv(differences),
        "comparison.tex": "\n".join(table_tex(table) for table in (runs, costs, differences))
        + "".join(f"% {plain(note)}\n" for note in notes(comparison)),
        "comparison.html": page_template("compare.html").render(values),
    }
    make_folder(folder)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [*(folder / name for name in contents), *style.save(figure, folder / "figures", "roc")]


def _from_groups(comparison: Comparison) -> str:
    return f" from {counted(comparison.n_groups, 'group')}" if comparison.n_groups else ""


def runs_table(comparison: Comparison) -> Table:
    """Return the runs, most accurate first; the CSV file also contains their costs."""
    footnotes, metrics = Footnotes(), shown_in("comparison")
    rows, raw = [], []
    for ranked in comparison.ranked_runs:
        run, counts = ranked.run, ranked.run.assessment.counts
        estimates, backbone = run.assessment.estimates(metrics), run.data.setting("model", "backbone")
        rows.append(
            (
                Entry(run.name, backbone),
                *(estimate_entry(estimates[one.name], footnotes, one.fraction(counts)) for one in metrics),
                Entry(ranked.accuracy_letters or "–"),
                Entry(ranked.auroc_letters or "–"),
            )
        )
        line: list[Cell] = [run.name, backbone, run.evaluation.name, comparison.n, comparison.n_positive]
        line += [comparison.n_groups or None, *(counts[key] for key in ("tp", "fp", "fn", "tn"))]
        for estimate in estimates.values():
            line += estimate_cells(estimate)
        costs = run.data.costs(run.evaluation)
        line += [ranked.accuracy_letters, ranked.auroc_letters, costs.parameters, costs.checkpoint_bytes]
        raw.append([*line, costs.images_per_second, costs.device, costs.training_seconds])
    names = ["run", "backbone", "evaluation", "n", "n_positive", "n_groups", "tp", "fp", "fn", "tn"]
    names += [f"{one.name}{part}" for one in metrics for part in ("", "_low", "_high", "_method")]
    names += ["letters_accuracy", "letters_auroc"]
    names += ["parameters", "checkpoint_bytes", "images_per_second", "device", "training_seconds"]
    caption = (
        f"{counted(comparison.n, 'photograph')}{_from_groups(comparison)} ({comparison.n_positive:,} positive), "
        f"evaluation {plain(comparison.evaluation)}: each run at its own operating point, most accurate first, with "
        "95 % intervals. Runs that share a letter do not differ significantly."
    )
    header = ("Run", *(one.label for one in metrics), "Letters, accuracy", "Letters, AUROC")
    return Table("runs", caption, header, tuple(rows), (names, raw), footnotes.all)


def costs_table(comparison: Comparison) -> Table:
    """Return the costs of each run; a dash where they were not recorded."""
    rows: list[list[str | int | Entry | None]] = []
    for ranked in comparison.ranked_runs:
        costs = ranked.run.data.costs(ranked.run.evaluation)
        parameters, size, speed = costs.parameters, costs.checkpoint_bytes, costs.images_per_second
        rows.append(
            [
                ranked.run.name,
                None if parameters is None else f"{parameters / 1e6:.2f} million",
                None if size is None else f"{size / 2**20:.1f} MiB",
                None if speed is None else Entry(f"{speed:.3g}", plain(costs.device)),
                None if costs.training_seconds is None else duration(costs.training_seconds),
            ]
        )
    header = ("Run", "Parameters", "Checkpoint", "Photographs/s", "Training time")
    return text_table("costs", "Costs of each run, as far as they were recorded.", header, rows)


def differences_table(comparison: Comparison) -> Table:
    """Return the differences of all pairs, first run minus second run."""

    def adjusted(p: float | None) -> Entry:
        return Entry(p_value(p), look="significant" if p is not None and p < ALPHA else "")

    footnotes = Footnotes()
    rows, raw = [], []
    for pair in comparison.differences:
        test = pair.mcnemar
        rows.append(
            (
                Entry(pair.first, f"minus {pair.second}"),
                estimate_entry(pair.accuracy, footnotes, sign=True),
                Entry(f"{test.b}\u00a0/\u00a0{test.c}"),
                *(Entry(p_value(p)) for p in (test.exact, test.mid)),
                adjusted(pair.accuracy_adjusted),
                estimate_entry(pair.auroc, footnotes, sign=True),
                Entry(p_value(pair.auroc_p)),
                adjusted(pair.auroc_adjusted),
            )
        )
        line: list[Cell] = [
            pair.first,
            pair.second,
            *estimate_cells(pair.accuracy),
            test.b,
            test.c,
            test.exact,
            test.mid,
        ]
        line += [
            pair.accuracy_p,
            pair.accuracy_adjusted,
            *estimate_cells(pair.auroc),
            pair.auroc_p,
            pair.auroc_adjusted,
        ]
        raw.append(line)
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
    """Return a sentence on which runs differ significantly in accuracy."""
    significant = [d for d in comparison.differences if d.accuracy_adjusted is not None and d.accuracy_adjusted < ALPHA]
    best = comparison.ranked_runs[0].run.name
    if not significant:
        return "No two runs differ significantly in accuracy; a higher value alone is no evidence that a run is better."
    similar = [
        d.second if d.first == best else d.first
        for d in comparison.differences
        if best in (d.first, d.second) and d not in significant
    ]
    verb = "differs" if len(significant) == 1 else "differ"
    found = f"{len(significant)} of {counted(len(comparison.differences), 'pair')} {verb} significantly in accuracy"
    if similar:
        return f"{found}; the most accurate run, {best}, does not differ significantly from {', '.join(similar)}."
    return f"{found}; the most accurate run, {best}, is significantly more accurate than every other run."


def notes(comparison: Comparison) -> list[str]:
    """Return sentences on how the numbers were computed and what they do not show."""
    number = len(comparison.differences)
    pairs = "the one pair" if number == 1 else f"all {number} pairs"
    if comparison.n_groups:
        units = (
            f"The photographs come from {counted(comparison.n_groups, 'group')}. Photographs of one group are alike, "
            "so whole groups were resampled. McNemar's test treats photographs as independent, so it is shown but not "
            "used for the adjusted p values."
        )
    else:
        units = (
            "Accuracies were compared by McNemar's exact test. The photographs have no groups (tree, site, burst) and "
            "were treated as independent; if several show one leaf or tree, the intervals are too narrow and the p "
            "values too small."
        )
    found = [
        units,
        f"Two families of tests were declared: {pairs} by accuracy and {pairs} by AUROC. Within each family, p values "
        f"are adjusted by Holm's method; two runs differ significantly if the adjusted p value is below {ALPHA}.",
        "A difference that is not significant does not mean that two runs are equally good.",
        "Each run was evaluated at its own operating point, chosen on its validation photographs.",
        "A difference between two training runs is not necessarily due to their architectures: training with another "
        "random seed gives a different run.",
        "A raised letter in a table refers to the note below it: the method of the interval, or the reason why a value "
        "is missing.",
    ]
    if any(ranked.run.evaluation.provenance.seconds for ranked in comparison.ranked_runs):
        found.append(
            "Photographs per second were measured during this evaluation, including reading and decoding; compare only "
            "values from the same machine."
        )
    return found
