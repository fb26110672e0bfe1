"""What a comparison leaves: one page, two CSV tables, one LaTeX file, and the figure for a paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import Cell, counted, csv_text, latex_table, number, plain
from bldml.metrics.estimates import Estimate
from bldml.report.compare import Comparison
from bldml.report.compare_cells import (
    COST_COLUMNS,
    DIFFERENCE_COLUMNS,
    MEASURES,
    RUN_COLUMNS,
    ShownDifference,
    all_estimates,
    cost_cells,
    estimate,
    pair_cells,
    run_cells,
)
from bldml.report.compare_words import notes, verdict

TEMPLATES = Path(__file__).parent / "templates"


def write_comparison(comparison: Comparison, folder: Path, *, version: str) -> list[Path]:
    """Write `comparison.html`, `comparison.csv`, `differences.csv`, `comparison.tex` and `figures/roc.*`.

    Returns:
        Their paths.

    The folder is made where it is missing; an earlier comparison in it is written over, file by file.

    Raises:
        RunError: the files cannot be written.
    """
    from bldml.figures import plots

    figure = plots.roc([(s.run.name, s.run.labels, s.run.probabilities) for s in comparison.standings])
    areas = "; ".join(f"{s.run.name} {number(s.auroc.value)}" for s in comparison.standings)
    drawn = plots.to_svg(figure, title="ROC curves of all runs", description=f"Area under each curve: {areas}.")
    contents = {
        "comparison.csv": csv_text(*standings_table(comparison)),
        "differences.csv": csv_text(*differences_table(comparison)),
        "comparison.tex": tex(comparison),
        "comparison.html": comparison_page(comparison, version, drawn),
    }
    make_folder(folder)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [*(folder / name for name in contents), *plots.save(figure, folder / "figures", "roc")]


def standings_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows of `comparison.csv`, numbers in full."""
    header = ["run", "backbone", "evaluation", "n", "n_positive", "n_groups", "tp", "fp", "fn", "tn"]
    for measure in MEASURES:
        header += [measure, f"{measure}_low", f"{measure}_high", f"{measure}_method"]
    header += ["letters_accuracy", "letters_auroc"]
    header += ["parameters", "checkpoint_bytes", "images_per_second", "device", "training_seconds"]
    rows: list[list[Cell]] = []
    for standing in comparison.standings:
        run = standing.run
        row: list[Cell] = [run.name, run.backbone, comparison.evaluation]
        row += [comparison.n, comparison.n_positive, comparison.n_groups or None, *standing.counts.values()]
        for measure in MEASURES:
            row += _cells(estimate(standing, measure))
        costs = run.costs
        row += [standing.accuracy_letters, standing.auroc_letters, costs.parameters, costs.checkpoint_bytes]
        rows.append([*row, costs.images_per_second, costs.device, costs.training_seconds])
    return header, rows


def differences_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows of `differences.csv`, numbers in full, first minus second."""
    header = ["first", "second"]
    header += [f"accuracy_{what}" for what in ("difference", "low", "high", "method")]
    header += ["b", "c", "mcnemar_exact_p", "mcnemar_mid_p", "accuracy_p", "accuracy_p_holm"]
    header += [f"auroc_{what}" for what in ("difference", "low", "high", "method")]
    header += ["auroc_p", "auroc_p_holm"]
    rows: list[list[Cell]] = [
        [
            difference.first,
            difference.second,
            *_cells(difference.accuracy),
            difference.mcnemar.b,
            difference.mcnemar.c,
            difference.mcnemar.exact,
            difference.mcnemar.mid,
            difference.accuracy_p,
            difference.accuracy_adjusted,
            *_cells(difference.auroc),
            difference.auroc_p,
            difference.auroc_adjusted,
        ]
        for difference in comparison.differences
    ]
    return header, rows


def tex(comparison: Comparison) -> str:
    """The tables as LaTeX, as the page shows them; no package is needed."""

    def flat(name: str, cells: Sequence[ShownDifference]) -> list[str]:
        return [name, *(f"{cell.value} {cell.detail}".strip() for cell in cells)]

    runs = latex_table(
        RUN_COLUMNS,
        [flat(standing.run.name, run_cells(standing)) for standing in comparison.standings],
        caption=f"{counted(comparison.n, 'photograph')} ({comparison.n_positive} positive), evaluation "
        f"{comparison.evaluation}; 95 % intervals. Runs that share a letter cannot be told apart.",
    )
    pairs = latex_table(
        DIFFERENCE_COLUMNS,
        [
            flat(f"{difference.first} minus {difference.second}", pair_cells(difference))
            for difference in comparison.differences
        ],
        caption="Paired differences with 95 % intervals, first minus second; b, c: right only in the first, second.",
    )
    costs = latex_table(
        ["Run", *COST_COLUMNS],
        [flat(standing.run.name, cost_cells(standing.run.costs)) for standing in comparison.standings],
        caption="What each run costs, as far as it was recorded.",
    )
    return f"{runs}\n{pairs}\n{costs}\n" + "".join(
        f"% {plain(note)}\n" for note in notes(comparison, all_estimates(comparison))
    )


def comparison_page(comparison: Comparison, version: str, figure: str) -> str:
    """The whole of `comparison.html`: one file, no script, nothing from elsewhere.

    Args:
        comparison: what it shows.
        version: of bldml.
        figure: the ROC curves, as `plots.to_svg` returns them.
    """
    import jinja2
    import markupsafe

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    values: dict[str, Any] = {
        "version": version,
        "evaluation": plain(comparison.evaluation),
        "n": comparison.n,
        "n_groups": comparison.n_groups,
        "n_positive": comparison.n_positive,
        "positive": plain(comparison.classes[0]),
        "negative": plain(comparison.classes[1]),
        "verdict": verdict(comparison),
        "run_columns": [*RUN_COLUMNS, *COST_COLUMNS],
        "standings": [
            {
                "name": standing.run.name,
                "backbone": standing.run.backbone,
                "cells": [*run_cells(standing), *cost_cells(standing.run.costs)],
            }
            for standing in comparison.standings
        ],
        "difference_columns": DIFFERENCE_COLUMNS,
        "differences": [
            {"first": difference.first, "second": difference.second, "cells": pair_cells(difference)}
            for difference in comparison.differences
        ],
        "figure": markupsafe.Markup(figure),  # made by us, names in it escaped there
        "notes": notes(comparison, all_estimates(comparison)),
    }
    return environment.get_template("compare.html").render(values)


def _cells(estimate: Estimate) -> list[Cell]:
    """Value, limits and method of an estimate; empty where there is none."""
    interval = estimate.interval
    if interval is None:
        return [estimate.value, None, None, estimate.note]
    return [estimate.value, interval.low, interval.high, interval.method]
