"""Write what an experiment shows: one page, CSV tables, LaTeX, pooled predictions, and figures."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bldml.figures import style
from bldml.figures.replicates import configuration_values, replicate_curves
from bldml.figures.search import option_importances, search_history
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import counted, csv_text, plain
from bldml.report.html import page_template
from bldml.report.tables import table_csv, table_tex
from bldml.sweep.results import tables, trials
from bldml.sweep.results.assessment import Findings
from bldml.sweep.results.gathering import Contender
from bldml.sweep.search.study import space_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUT_OF_FOLD = "out_of_fold"
# Tables that have a CSV file of their own.
ALONE = ("baseline", "pairs", "runs", "spread", "test", "trials", "importance")
NOT_IN_TEX = ("runs", "conditions", "trials")
CURVES = (
    "Validation loss and AUROC of each configuration by epoch: the mean of its runs, and the band from the lowest to "
    "the highest. Runs end at different epochs, so a step may be due to a run that ended."
)


def write_sweep(findings: Findings, folder: Path, *, version: str) -> list[Path]:
    """Write `sweep.html`, `sweep.csv` and more tables, `sweep.tex`, `out_of_fold/` and `figures/`.

    Returns:
        The paths of the page and the tables.

    Raises:
        RunError: The files cannot be written.
    """
    shown = {
        table.name: table
        for make in (
            *(tables.configurations_table, tables.spread_table, tables.baseline_table, tables.pairs_table),
            *(tables.metrics_table, tables.planned_runs_table, tables.opened_table),
            *(tables.training_costs_table, tables.options_table, tables.conditions_table),
            *(trials.trials_table, trials.importance_table),
        )
        if (table := make(findings))
    }
    explained, said = trials.experiment_notes(findings), trials.experiment_verdict(findings)
    values, curves = _values(findings), _curves(findings)
    experiment, drawn = findings.experiment, _search(findings)
    result = next((one.result for one in experiment.configurations if one.result), None)
    label = findings.metric.label
    page = page_template("sweep.html").render(
        version=version,
        name=plain(experiment.plan.name),
        verdict=said,
        extent=_extent(findings),
        has_folds=bool(experiment.plan.folds),
        also_tested=bool(findings.opened.looks),
        result=result and {"n": result.pooled.labels.size, "n_positive": int(result.pooled.labels.sum()),
                           "positive": plain(result.positive)},
        tables=shown,
        values=style.to_svg(values, title=f"{label} of each configuration", description="Pooled, and of single runs."),
        curves=style.to_svg(curves, title="Learning curves of all configurations", description=CURVES),
        caption=CURVES,
        search=_search_figures(drawn),
        why_no_importance=findings.search.why_not if findings.search else "",
        notes=explained,
    )  # fmt: skip
    contents = {
        "sweep.csv": table_csv(shown["configurations"]),
        **{f"{name}.csv": table_csv(table) for name, table in shown.items() if name in ALONE},
        "sweep.tex": "\n".join(table_tex(table) for name, table in shown.items() if name not in NOT_IN_TEX)
        + "".join(f"% {plain(note)}\n" for note in (*said, *explained)),
        "sweep.html": page,
    }
    make_folder(folder)
    if experiment.plan.folds:
        for one in experiment.configurations:
            _write_predictions(one, folder / OUT_OF_FOLD)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    style.save(values, folder / "figures", "configurations")
    style.save(curves, folder / "figures", "learning_curves")
    for name, figure in drawn.items():
        style.save(figure, folder / "figures", name)
    return [folder / name for name in contents]


def _search(findings: Findings) -> "dict[str, Figure]":
    """Return the figures of a search by name; none without a search."""
    plan, search = findings.experiment.plan, findings.search
    if search is None:
        return {}
    ended = [(one.number, one.value, one.state == "pruned") for one in plan.trials if one.value is not None]
    label, is_lower = plan.search["monitor"], space_of(plan).is_lower_better
    found = {"search_history": search_history(ended, f"Objective ({label})", is_lower_better=is_lower)}
    if search.importance:
        found["option_importance"] = option_importances(search.importance)
    return found


def _search_figures(figures: "dict[str, Figure]") -> dict[str, str]:
    titles = {
        "search_history": ("Objective of each trial", "Complete and pruned trials, and the best objective so far."),
        "option_importance": ("Importance of options", "Part of the variance that each explains by itself, by fANOVA."),
    }
    return {
        name: style.to_svg(figure, title=titles[name][0], description=titles[name][1])
        for name, figure in figures.items()
    }


def _extent(findings: Findings) -> str:
    """Return how large the experiment is, as planned."""
    plan = findings.experiment.plan
    parts = [
        counted(len(plan.configurations), "trial" if plan.search else "configuration"),
        counted(len({run.seed for run in plan.runs}), "seed"),
    ]
    if plan.folds:
        parts.append(counted(plan.folds, "fold"))
    return f"{', '.join(parts)}; {counted(len(plan.runs), 'run')} planned"


def _values(findings: Findings) -> "Figure":
    rows = []
    for one in findings.displayed:
        if one.result and (found := findings.of(one, findings.metric)):
            runs = one.result.pooled.fold_values(findings.metric).ravel()
            rows.append((one.name, found.estimate, runs[~np.isnan(runs)].tolist()))
    return configuration_values(rows, findings.metric.label, findings.metric.limits)


def _curves(findings: Findings) -> "Figure":
    return replicate_curves({one.name: [data.epochs for data in one.read] for one in findings.displayed})


def _write_predictions(one: Contender, folder: Path) -> None:
    """Write the pooled predictions of a configuration, a row for each photograph and seed."""
    if one.result is None:
        return
    pooled = one.result.pooled
    header = ("path", "group", "burst", "true_class", "predicted_class", "probability", "seed", "fold", "threshold")
    rows = [
        [
            *(row.path, row.group, row.burst, row.true_class, row.predicted_class, row.probability),
            *(seed, int(pooled.folds[i]), float(pooled.thresholds[s, i])),
        ]
        for s, (seed, of_seed) in enumerate(zip(one.result.seeds, one.result.rows, strict=True))
        for i, row in enumerate(of_seed)
    ]
    make_folder(folder)
    write_atomically(folder / f"{one.candidate.name}.csv", csv_text(header, rows))
