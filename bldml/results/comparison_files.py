"""What a comparison leaves: one page, two CSV tables and one LaTeX file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bldml.results.compare import ALPHA, Comparison, Difference, Standing
from bldml.results.run import make_folder, write_atomically
from bldml.results.statistics.estimates import Estimate
from bldml.results.typeset import Cell, csv_text, latex_table, number, p_value, plain

TEMPLATES = Path(__file__).parent / "templates"
MEASURES = ("accuracy", "sensitivity", "specificity", "auroc")
RUN_COLUMNS = (
    "Run",
    "Accuracy",
    "Sensitivity",
    "Specificity",
    "AUROC",
    "Letters by accuracy",
    "Letters by AUROC",
    "Checkpoint",
)
DIFFERENCE_COLUMNS = (
    "Pair",
    "Accuracy",
    "b / c",
    "McNemar exact p",
    "mid-p",
    "Holm p, accuracy",
    "AUROC",
    "p, AUROC",
    "Holm p, AUROC",
)


@dataclass(frozen=True)
class Shown:
    """A cell of the page: its value, what stands smaller below it, and whether it tells two runs apart."""

    value: str
    detail: str = ""
    apart: bool = False


def write_comparison(comparison: Comparison, folder: Path, *, version: str) -> list[Path]:
    """Write `comparison.html`, `comparison.csv`, `differences.csv` and `comparison.tex`; return their paths.

    The folder is made where it is missing; an earlier comparison in it is written over, file by file.

    Raises:
        RunError: the files cannot be written.
    """
    contents = {
        "comparison.csv": csv_text(*standings_table(comparison)),
        "differences.csv": csv_text(*differences_table(comparison)),
        "comparison.tex": tex(comparison),
        "comparison.html": page(comparison, version),
    }
    make_folder(folder)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def standings_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows of `comparison.csv`, numbers in full."""
    header = ["run", "backbone", "evaluation", "n", "n_positive", "n_groups", "tp", "fp", "fn", "tn"]
    for measure in MEASURES:
        header += [measure, f"{measure}_low", f"{measure}_high", f"{measure}_method"]
    header += ["letters_accuracy", "letters_auroc", "checkpoint_bytes"]
    rows: list[list[Cell]] = []
    for standing in comparison.standings:
        run = standing.run
        row: list[Cell] = [run.name, run.backbone, comparison.evaluation]
        row += [comparison.n, comparison.n_positive, comparison.n_groups or None, *standing.counts.values()]
        for measure in MEASURES:
            row += _cells(_estimate(standing, measure))
        rows.append([*row, standing.accuracy_letters, standing.auroc_letters, run.checkpoint_bytes])
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
    """Both tables as LaTeX, as the page shows them; no package is needed."""

    def flat(name: str, cells: Sequence[Shown]) -> list[str]:
        return [name, *(f"{cell.value} {cell.detail}".strip() for cell in cells)]

    runs = latex_table(
        RUN_COLUMNS,
        [flat(standing.run.name, _run_cells(standing)) for standing in comparison.standings],
        caption=f"{comparison.n} photographs ({comparison.n_positive} positive), evaluation {comparison.evaluation}; "
        "95 % intervals. Runs that share a letter cannot be told apart.",
    )
    pairs = latex_table(
        DIFFERENCE_COLUMNS,
        [
            flat(f"{difference.first} minus {difference.second}", _pair_cells(difference))
            for difference in comparison.differences
        ],
        caption="Paired differences with 95 % intervals, first minus second; b, c: right only in the first, second.",
    )
    return runs + "\n" + pairs + "\n" + "".join(f"% {plain(note)}\n" for note in _notes(comparison))


def page(comparison: Comparison, version: str) -> str:
    """The whole of `comparison.html`: one file, no script, nothing from elsewhere."""
    import jinja2

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
        "verdict": _verdict(comparison),
        "run_columns": RUN_COLUMNS,
        "standings": [
            {"name": standing.run.name, "backbone": standing.run.backbone, "cells": _run_cells(standing)}
            for standing in comparison.standings
        ],
        "difference_columns": DIFFERENCE_COLUMNS,
        "differences": [
            {"first": difference.first, "second": difference.second, "cells": _pair_cells(difference)}
            for difference in comparison.differences
        ],
        "figure": "",
        "notes": _notes(comparison),
    }
    return environment.get_template("compare.html").render(values)


def _estimate(standing: Standing, measure: str) -> Estimate:
    estimate = getattr(standing, measure)
    assert isinstance(estimate, Estimate)
    return estimate


def _cells(estimate: Estimate) -> list[Cell]:
    """Value, limits and method of an estimate; empty where there is none."""
    interval = estimate.interval
    if interval is None:
        return [estimate.value, None, None, estimate.note]
    return [estimate.value, interval.low, interval.high, interval.method]


def _shown(estimate: Estimate, *, sign: bool = False, part: str = "") -> Shown:
    if estimate.value is None:
        return Shown("not estimable", estimate.note)
    parts = [part] if part else []
    if estimate.interval is not None:
        low, high = (number(limit, sign=sign) for limit in (estimate.interval.low, estimate.interval.high))
        parts.append(f"[{low}, {high}]")
    return Shown(number(estimate.value, sign=sign), "; ".join(parts))


def _run_cells(standing: Standing) -> list[Shown]:
    tp, fp, fn, tn = (standing.counts[name] for name in ("tp", "fp", "fn", "tn"))
    size = standing.run.checkpoint_bytes
    return [
        _shown(standing.accuracy, part=f"{tp + tn}/{tp + fp + fn + tn}"),
        _shown(standing.sensitivity, part=f"{tp}/{tp + fn}"),
        _shown(standing.specificity, part=f"{tn}/{tn + fp}"),
        _shown(standing.auroc),
        Shown(standing.accuracy_letters or "–"),
        Shown(standing.auroc_letters or "–"),
        Shown("–" if size is None else f"{size / 2**20:.1f} MiB"),
    ]


def _pair_cells(difference: Difference) -> list[Shown]:
    accuracy, area = difference.accuracy_adjusted, difference.auroc_adjusted
    return [
        _shown(difference.accuracy, sign=True),
        Shown(f"{difference.mcnemar.b} / {difference.mcnemar.c}"),
        Shown(p_value(difference.mcnemar.exact)),
        Shown(p_value(difference.mcnemar.mid)),
        Shown(p_value(accuracy), apart=accuracy is not None and accuracy < ALPHA),
        _shown(difference.auroc, sign=True),
        Shown(p_value(difference.auroc_p)),
        Shown(p_value(area), apart=area is not None and area < ALPHA),
    ]


def _verdict(comparison: Comparison) -> str:
    apart = [d for d in comparison.differences if d.accuracy_adjusted is not None and d.accuracy_adjusted < ALPHA]
    best = comparison.standings[0].run.name
    if not apart:
        return "By accuracy no two of them can be told apart; a higher figure alone does not make one better."
    equal = [
        d.second if d.first == best else d.first
        for d in comparison.differences
        if best in (d.first, d.second) and d not in apart
    ]
    told = f"By accuracy {len(apart)} of {len(comparison.differences)} pairs can be told apart"
    if equal:
        return f"{told}; the most accurate run, {best}, cannot be told apart from {', '.join(equal)}."
    return f"{told}; the most accurate run, {best}, is better than every other one."


def _notes(comparison: Comparison) -> list[str]:
    pairs = len(comparison.differences)
    estimates = [_estimate(standing, measure) for standing in comparison.standings for measure in MEASURES]
    estimates += [estimate for d in comparison.differences for estimate in (d.accuracy, d.auroc)]
    methods = dict.fromkeys(estimate.interval.method for estimate in estimates if estimate.interval is not None)
    notes = [
        f"Intervals are of 95 %: {'; '.join(methods) or 'none could be estimated'}.",
        f"Two families of tests were declared: all {pairs} pairs by accuracy and all {pairs} pairs by AUROC. Within "
        f"each, p values are adjusted by Holm's method; two runs are told apart where the adjusted p is below {ALPHA}.",
        "That two runs cannot be told apart does not mean that they are equally good.",
        "Each run is used at its own operating point, chosen on its validation photographs.",
        "A difference of two training runs need not be one of their architectures: other seeds give other runs.",
    ]
    if comparison.n_groups:
        notes.insert(
            1,
            f"The photographs are of {comparison.n_groups} groups and those of one group are alike, so groups were "
            "resampled as a whole. McNemar's test takes photographs as independent: it is shown but does not decide.",
        )
    else:
        notes.insert(
            1,
            "By accuracy McNemar's exact test decides. The photographs have no groups (tree, site, burst) and were "
            "taken as independent; where several are of one leaf or tree, intervals are too narrow and p too small.",
        )
    return notes
