"""What a comparison leaves: one page, two CSV tables, one LaTeX file, and the figure for a paper."""

from pathlib import Path
from typing import Any

from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import Cell, counted, number, p_value, plain
from bldml.metrics.registry import shown_in
from bldml.report.compare import ALPHA, Comparison
from bldml.report.html import page_template
from bldml.report.tables import Entry, Footnotes, Table, of_estimate, raw_estimate, simple, table_csv, table_tex
from bldml.run.costs import duration


def write_comparison(comparison: Comparison, folder: Path, *, version: str) -> list[Path]:
    """Write `comparison.html`, `comparison.csv`, `differences.csv`, `comparison.tex` and `figures/roc.*`.

    The folder is made where it is missing; an earlier comparison in it is written over, file by file.

    Returns:
        Their paths.

    Raises:
        RunError: The files cannot be written.
    """
    from bldml.figures import plots

    runs, costs, differences = standings_table(comparison), costs_table(comparison), differences_table(comparison)
    figure = plots.roc([(s.run.name, s.run.labels, s.run.probabilities) for s in comparison.standings])
    areas = "; ".join(f"{s.run.name} {number(s.run.assessment.overall['auroc'].value)}" for s in comparison.standings)
    drawn = plots.to_svg(figure, title="ROC curves of all runs", description=f"Area under each curve: {areas}.")
    values: dict[str, Any] = {
        "version": version,
        "evaluation": plain(comparison.evaluation),
        "counted": f"{counted(comparison.n, 'photograph')}{_of_groups(comparison)}",
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
    return [*(folder / name for name in contents), *plots.save(figure, folder / "figures", "roc")]


def _of_groups(comparison: Comparison) -> str:
    return f" of {counted(comparison.n_groups, 'group')}" if comparison.n_groups else ""


def standings_table(comparison: Comparison) -> Table:
    """The runs, most accurate first; the CSV file holds what each of them costs too."""
    footnotes, metrics = Footnotes(), shown_in("comparison")
    rows, raw = [], []
    for standing in comparison.standings:
        run, counts = standing.run, standing.run.assessment.counts
        estimates, backbone = run.assessment.estimates(metrics), run.data.setting("model", "backbone")
        rows.append(
            (
                Entry(run.name, backbone),
                *(of_estimate(estimates[one.name], footnotes, one.fraction(counts)) for one in metrics),
                Entry(standing.accuracy_letters or "–"),
                Entry(standing.auroc_letters or "–"),
            )
        )
        line: list[Cell] = [run.name, backbone, run.evaluation.name, comparison.n, comparison.n_positive]
        line += [comparison.n_groups or None, *(counts[key] for key in ("tp", "fp", "fn", "tn"))]
        for estimate in estimates.values():
            line += raw_estimate(estimate)
        costs = run.data.costs(run.evaluation)
        line += [standing.accuracy_letters, standing.auroc_letters, costs.parameters, costs.checkpoint_bytes]
        raw.append([*line, costs.images_per_second, costs.device, costs.training_seconds])
    names = ["run", "backbone", "evaluation", "n", "n_positive", "n_groups", "tp", "fp", "fn", "tn"]
    names += [f"{one.name}{part}" for one in metrics for part in ("", "_low", "_high", "_method")]
    names += ["letters_accuracy", "letters_auroc"]
    names += ["parameters", "checkpoint_bytes", "images_per_second", "device", "training_seconds"]
    caption = (
        f"{counted(comparison.n, 'photograph')}{_of_groups(comparison)} ({comparison.n_positive:,} positive), "
        f"evaluation {plain(comparison.evaluation)}: each run at its own operating point, most accurate first, with "
        "95 % intervals. Runs that share a letter cannot be told apart."
    )
    header = ("Run", *(one.label for one in metrics), "Letters by accuracy", "Letters by AUROC")
    return Table("runs", caption, header, tuple(rows), (names, raw), footnotes.all)


def costs_table(comparison: Comparison) -> Table:
    """What each run costs; a dash for what was not recorded."""
    rows: list[list[str | int | Entry | None]] = []
    for standing in comparison.standings:
        costs = standing.run.data.costs(standing.run.evaluation)
        parameters, size, speed = costs.parameters, costs.checkpoint_bytes, costs.images_per_second
        rows.append(
            [
                standing.run.name,
                None if parameters is None else f"{parameters / 1e6:.2f} million",
                None if size is None else f"{size / 2**20:.1f} MiB",
                None if speed is None else Entry(f"{speed:.3g}", plain(costs.device)),
                None if costs.training_seconds is None else duration(costs.training_seconds),
            ]
        )
    header = ("Run", "Parameters", "Checkpoint", "Photographs/s", "Training time")
    return simple("costs", "What each run costs, as far as it was recorded.", header, rows)


def differences_table(comparison: Comparison) -> Table:
    """All pairs, first minus second."""

    def adjusted(p: float | None) -> Entry:
        return Entry(p_value(p), look="apart" if p is not None and p < ALPHA else "")

    footnotes = Footnotes()
    rows, raw = [], []
    for pair in comparison.differences:
        test = pair.mcnemar
        rows.append(
            (
                Entry(pair.first, f"minus {pair.second}"),
                of_estimate(pair.accuracy, footnotes, sign=True),
                Entry(f"{test.b}\u00a0/\u00a0{test.c}"),
                *(Entry(p_value(p)) for p in (test.exact, test.mid)),
                adjusted(pair.accuracy_adjusted),
                of_estimate(pair.auroc, footnotes, sign=True),
                Entry(p_value(pair.auroc_p)),
                adjusted(pair.auroc_adjusted),
            )
        )
        line: list[Cell] = [pair.first, pair.second, *raw_estimate(pair.accuracy), test.b, test.c, test.exact, test.mid]
        line += [pair.accuracy_p, pair.accuracy_adjusted, *raw_estimate(pair.auroc), pair.auroc_p, pair.auroc_adjusted]
        raw.append(line)
    parts = ("difference", "low", "high", "method")
    names = ["first", "second", *(f"accuracy_{part}" for part in parts), "b", "c", "mcnemar_exact_p", "mcnemar_mid_p"]
    names += ["accuracy_p", "accuracy_p_holm", *(f"auroc_{part}" for part in parts), "auroc_p", "auroc_p_holm"]
    header = ("Pair", "Accuracy", "b / c", "McNemar exact p", "mid-p", "Holm p, accuracy", "AUROC", "p, AUROC",
              "Holm p, AUROC")  # fmt: skip
    caption = (
        "Paired differences with 95 % intervals, first run minus second run, on the same photographs. b: right in the "
        "first only; c: right in the second only."
    )
    return Table("differences", caption, header, tuple(rows), (names, raw), footnotes.all)


def verdict(comparison: Comparison) -> str:
    """Say in a sentence which runs can be told apart by accuracy."""
    apart = [d for d in comparison.differences if d.accuracy_adjusted is not None and d.accuracy_adjusted < ALPHA]
    best = comparison.standings[0].run.name
    if not apart:
        return "By accuracy no two of them can be told apart; a higher figure alone does not make one better."
    equal = [
        d.second if d.first == best else d.first
        for d in comparison.differences
        if best in (d.first, d.second) and d not in apart
    ]
    told = f"By accuracy {len(apart)} of {counted(len(comparison.differences), 'pair')} can be told apart"
    if equal:
        return f"{told}; the most accurate run, {best}, cannot be told apart from {', '.join(equal)}."
    return f"{told}; the most accurate run, {best}, is better than every other one."


def notes(comparison: Comparison) -> list[str]:
    """Say how the numbers were computed and what they do not say; the tables name the methods of intervals."""
    number = len(comparison.differences)
    pairs = "the one pair" if number == 1 else f"all {number} pairs"
    if comparison.n_groups:
        units = (
            f"The photographs are of {counted(comparison.n_groups, 'group')} and those of one group are alike, so "
            "groups were resampled as a whole. McNemar's test takes photographs as independent: it is shown but does "
            "not decide."
        )
    else:
        units = (
            "By accuracy McNemar's exact test decides. The photographs have no groups (tree, site, burst) and were "
            "taken as independent; where several are of one leaf or tree, intervals are too narrow and p too small."
        )
    found = [
        units,
        f"Two families of tests were declared: {pairs} by accuracy and {pairs} by AUROC. Within "
        f"each, p values are adjusted by Holm's method; two runs are told apart where the adjusted p is below {ALPHA}.",
        "That two runs cannot be told apart does not mean that they are equally good.",
        "Each run is used at its own operating point, chosen on its validation photographs.",
        "A difference of two training runs need not be one of their architectures: other seeds give other runs.",
    ]
    if any(standing.run.evaluation.provenance.seconds for standing in comparison.standings):
        found.append(
            "Photographs per second are those of this evaluation, reading and decoding included, on the machine that "
            "made it; only figures of one machine can be compared."
        )
    return found
