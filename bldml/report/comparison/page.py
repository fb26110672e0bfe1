"""Write a comparison: one page, CSV tables, one LaTeX file, and the figure for a paper."""

from pathlib import Path

from bldml.io.atomic import make_folder, write_atomically
from bldml.io.locks import SHORTLY_S, hold_output
from bldml.io.text import counted, number, plain
from bldml.metrics.registry import METRICS
from bldml.report import claims
from bldml.report.comparison.compare import ALPHA, FAMILIES, Comparison
from bldml.report.comparison.tables import (
    costs_table,
    counted_photographs,
    differences_table,
    differing_conditions_table,
    differing_settings_table,
    leaf_table,
    original_classes_table,
    runs_table,
    sensitivity_table,
)
from bldml.report.html import page_template
from bldml.report.run_claims import changed_files
from bldml.report.tables import table_csv, table_tex
from bldml.run.baselines import baselines_of
from bldml.run.evidence import evidence_of, evidence_of_run

CURVES = "Validation loss and AUROC of each run by epoch; a point marks the best epoch of the loss."
LEAST_GAIN = 0.001  # that is printed
# Tables that are shown where they have rows.
MORE = (
    sensitivity_table, differing_settings_table, differing_conditions_table, leaf_table, original_classes_table,
)  # fmt: skip


def write_comparison(comparison: Comparison, folder: Path, *, version: str) -> list[Path]:
    """Write `comparison.html`, its tables as CSV files, `comparison.tex` and `figures/`.

    The folder is created if it is missing; a previous comparison in it is overwritten, file by file.

    Returns:
        The paths of the files.

    Raises:
        RunError: The files cannot be written.
    """
    from bldml.figures import plots, style
    from bldml.figures.overlay import overlaid_curves

    runs, costs, differences = runs_table(comparison), costs_table(comparison), differences_table(comparison)
    more = {table.name: table for make in MORE if (table := make(comparison))}
    curves = overlaid_curves({run.name: run.data.epochs for run in comparison.runs})
    figure = plots.roc([(run.name, run.labels, run.probabilities) for run in comparison.runs])
    areas = "; ".join(f"{run.name} {number(run.value('auroc'))}" for run in comparison.runs)
    explained = notes(comparison)
    reference = comparison.reference
    page = page_template("compare.html").render(
        version=version,
        evaluation=plain(reference.evaluation.name),
        counted=counted_photographs(comparison),
        n=reference.assessment.n,
        n_positive=reference.assessment.n_positive,
        classes=reference.data.classes,
        verdict=verdict(comparison),
        runs=runs,
        costs=costs,
        more=more,
        differences=differences,
        figure=style.to_svg(figure, title="ROC curves of all runs", description=f"Area under each curve: {areas}."),
        curves=style.to_svg(curves, title="Learning curves of all runs", description=CURVES),
        notes=explained,
    )
    contents = {
        "comparison.csv": table_csv(runs),
        "differences.csv": table_csv(differences),
        **{f"{name}.csv": table_csv(table) for name, table in more.items()},
        "comparison.tex": "\n".join(table_tex(table) for table in (runs, costs, differences, *more.values()))
        + "".join(f"% {plain(note)}\n" for note in explained),
        "comparison.html": page,
    }
    make_folder(folder)
    with hold_output(folder, wait=SHORTLY_S):
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return [
            *(folder / name for name in contents),
            *style.save(figure, folder / "figures", "roc"),
            *style.save(curves, folder / "figures", "learning_curves"),
        ]


def verdict(comparison: Comparison) -> list[str]:
    """Return what the tests of each family found, after what makes the comparison itself doubtful; a paragraph each."""
    tests = " ".join(_verdict(comparison, family) for family in FAMILIES)
    found = [_caution(comparison), *_changed(comparison), _replicates(comparison), tests, _leaf_not_shown(comparison)]
    if not any(pair.tests[family].is_significant for pair in comparison.differences for family in FAMILIES):
        found.append("A higher value alone is no evidence that a run is better.")
    found.append(selection(comparison))
    return [text for text in found if text]


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


def _changed(comparison: Comparison) -> list[str]:
    """Say which files of the runs are not what they were when their evaluations were written."""
    found = ((run.name, changed_files(evidence_of_run(run.data))) for run in comparison.runs)
    return [f"{name}: {text}" for name, texts in found for text in texts]


def _replicates(comparison: Comparison) -> str:
    """Say which runs are replicates and so are not tested against each other; empty if none are."""
    groups = [", ".join(names) for names in comparison.replicates]
    return (
        f"Replicates of one configuration, which differ in seed or fold alone and are not tested against each other: "
        f"{'; '.join(groups)}."
        if groups
        else ""
    )


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
        is_one = any(best in group for group in comparison.replicates)
        what = f"{best} is significantly better than every {'run of another configuration' if is_one else 'other run'}"
    return f"{name}: {how_many} significantly; {what}."


def notes(comparison: Comparison) -> list[str]:
    """Return sentences on how the numbers were computed and what they do not show."""
    n_pairs, reference = len(comparison.differences), comparison.reference
    sampling = claims.sampling(evidence_of(reference.data, reference.evaluation))
    kind = " of rivals" if comparison.replicates else ""
    pairs = f"the one pair{kind}" if n_pairs == 1 else f"all {n_pairs} pairs{kind}"
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
