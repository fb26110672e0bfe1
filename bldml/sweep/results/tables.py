"""Tables of an experiment."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bldml.io.text import Cell, counted, number, p_value, plain
from bldml.metrics.estimates import Estimate
from bldml.metrics.registry import shown_in
from bldml.metrics.replicates.spread import Spread
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
    precise_number,
    text_table,
)
from bldml.run.evidence import stretches_of
from bldml.sweep.results.assessment import Findings
from bldml.sweep.results.baseline import against_baseline
from bldml.sweep.results.gathering import Contender

PROCEDURE = "search, by fold"


def pooled_of(findings: Findings) -> str:
    """Return what a pooled prediction is, as captions say it."""
    return "out-of-fold" if findings.experiment.plan.folds else "validation"


def extent(one: Contender, folds: int | None) -> str:
    """Return how many seeds and folds are pooled, such as 2 seeds × 3 folds."""
    n = len(one.result.seeds) if one.result else 0
    seeds = "1 seed" if n == 1 else f"{n} seeds"
    return f"{seeds} × {folds} folds" if folds else seeds


def configurations_table(findings: Findings) -> Table:
    """Return the pooled estimates of each configuration; the CSV file has every metric, a row each."""
    notes, folds = Footnotes(), findings.experiment.plan.folds
    rows = []
    procedure = findings.search.procedure if findings.search else None
    for one in [*findings.displayed, *([procedure] if procedure else [])]:
        cells = [Entry(PROCEDURE if one is procedure else one.name, extent(one, folds))]
        for metric in findings.shown:
            found = findings.of(one, metric)
            cells.append(estimate_entry(found.estimate, notes) if found else Entry("–"))
        rows.append(tuple(cells))
    caption = (
        f"Estimates from the pooled {pooled_of(findings)} predictions of complete seeds, each photograph once per "
        "seed, at the threshold of the run that predicted it: the mean over seeds, with 95 % intervals by unit."
    )
    if findings.search:
        caption += f" The {counted(len(findings.displayed), 'trial')} with the best objectives, the best first"
        if procedure:
            caption += "; then the search as a procedure, the trial of each fold chosen by its own inner validation"
        caption += "."
    header = ("Configuration", *(metric.label for metric in findings.shown))
    return Table("configurations", caption, header, tuple(rows), _tidy(findings), notes.all)


def _tidy(findings: Findings) -> tuple[Sequence[str], Sequence[Sequence[Cell]]]:
    """Return every figure, a row for each configuration and metric."""
    header = ("configuration", "metric", "predictions", "seeds", "folds", "n", "n_positive", "n_units",
              *ESTIMATE_COLUMNS, "folds_mean", "folds_sd", "seeds_mean", "seeds_sd",
              "sd_training", "sd_units", "sd_both")  # fmt: skip
    raw: list[list[Cell]] = []
    procedure = findings.search.procedure if findings.search else None
    for one in [*findings.experiment.configurations, *([procedure] if procedure else [])]:
        for metric in shown_in("evaluation"):
            found = findings.of(one, metric)
            if one.result is None or found is None:
                continue
            pooled = one.result.pooled
            raw.append(
                [
                    *(one.candidate.name, metric.name, pooled_of(findings), pooled.n_seeds),
                    findings.experiment.plan.folds,
                    *(int(pooled.labels.size), int(pooled.labels.sum()), int(np.unique(pooled.units).size)),
                    *estimate_cells(found.estimate),
                    *(cell for spread in (found.folds, found.seeds) for cell in _mean_and_sd(spread)),
                    *(found.parts or (None, None, None)),
                ]
            )
    return header, raw


def _mean_and_sd(spread: Spread | None) -> tuple[Cell, Cell]:
    return (None, None) if spread is None else (spread.mean, spread.sd)


def spread_table(findings: Findings) -> Table:
    """Return mean and standard deviation over folds and seeds, and what training and photographs contribute."""
    rows: list[list[Shown]] = []
    for one in findings.displayed:
        for metric in findings.shown:
            if found := findings.of(one, metric):
                parts = [None] * 3 if found.parts is None else [precise_number(part) for part in found.parts]
                rows.append([Entry(one.name, metric.label), _spread(found.folds), _spread(found.seeds), *parts])
    caption = (
        "How much the figures vary. ± is the standard deviation of single folds (each the mean over its seeds) and of "
        "seeds (each pooled); it is no interval. The last columns are standard deviations of a figure of one seed by "
        "cause: another training on the same photographs, other sampling units with the same training, and units that "
        "one training recognises and another does not."
    )
    header = ("Configuration", "Folds, mean ± SD", "Seeds, mean ± SD", "SD by training", "SD by units", "SD by both")
    return text_table("spread", caption, header, rows)


def _spread(spread: Spread | None) -> Entry | None:
    if spread is None:
        return None
    if spread.sd is None:
        return Entry(precise_number(spread.mean), "1 value")
    of = f"n = {spread.n}, {number(spread.low)} to {number(spread.high)}"
    return Entry(f"{precise_number(spread.mean)} ± {number(spread.sd)}", of)


def pairs_table(findings: Findings) -> Table | None:
    """Return all pairs of configurations, first minus second; None without a pair."""
    notes, rows = Footnotes(), []
    raw: list[list[Cell]] = []
    for pair in findings.pairs:
        shown = [_difference(estimate, notes) for estimate in (pair.difference, pair.over_runs)]
        adjusted = Entry(p_value(pair.adjusted), look="significant" if pair.is_significant else "")
        second = (Entry(p_value(pair.p_over_runs)), Entry(p_value(pair.adjusted_over_runs)))
        rows.append(
            (Entry(pair.first, f"minus {pair.second}"), shown[0], Entry(p_value(pair.p)), adjusted, shown[1], *second)
        )
        raw.append(
            [
                *(pair.first, pair.second, findings.metric.name),
                *(*estimate_cells(pair.difference), pair.p, pair.adjusted),
                *(*estimate_cells(pair.over_runs), pair.p_over_runs, pair.adjusted_over_runs),
            ]
        )
    parts = ("difference", "low", "high", "method", "p", "p_holm")
    names = ("first", "second", "metric", *parts, *(f"runs_{part}" for part in parts))
    label = findings.metric.label
    caption = (
        f"Differences in {label}, first minus second, over the same photographs"
        f"{', folds' if findings.experiment.plan.folds else ''} and seeds. The pooled difference "
        "is the primary one. Holm p: adjusted by Holm’s method over all pairs. Over runs: the mean difference of runs "
        "of the same seed and fold, with the correction for training sets that overlap (Nadeau and Bengio)."
    )
    header = ("Pair", f"{label}, pooled", "p", "Holm p", f"{label}, over runs", "p, over runs", "Holm p, over runs")
    return Table("pairs", caption, header, tuple(rows), (names, raw), notes.all) if rows else None


def _difference(estimate: Estimate, notes: Footnotes) -> Entry:
    shown = estimate_entry(estimate, notes, sign=True)
    return shown if estimate.interval or estimate.value is None else Entry(shown.text, mark=notes.mark(estimate.note))


def metrics_table(findings: Findings) -> Table | None:
    """Return every metric, a row each, by configuration; None without a result."""
    notes, configurations = Footnotes(), [one for one in findings.displayed if one.result]
    rows, raw = [], []
    for metric in shown_in("evaluation"):
        found = [figures.estimate for one in configurations if (figures := findings.of(one, metric))]
        rows.append((Entry(metric.title), *(estimate_entry(estimate, notes) for estimate in found)))
        raw.append([metric.name, *(estimate.value for estimate in found)])
    caption = f"All metrics of the pooled {pooled_of(findings)} predictions, with 95 % intervals by sampling unit."
    names = [one.name for one in configurations]
    header = ("Metric", *names)
    return Table("metrics", caption, header, tuple(rows), (header, raw), notes.all) if names else None


def planned_runs_table(findings: Findings) -> Table:
    """Return every planned run: what is pooled, or why it is not."""
    rows: list[list[Shown]] = []
    raw: list[list[Cell]] = []
    metric, plan = findings.metric, findings.experiment.plan
    for one in findings.experiment.configurations:
        for run in one.runs:
            value, seconds, epoch = None, None, None
            if run.data:
                seconds, epoch = run.data.training_seconds, best_epoch(run.data)
            if run.evaluation and run.evaluation.metrics:
                metrics = run.evaluation.metrics
                value = (metrics.overall | metrics.at_threshold).get(metric.name)
            seed, fold, state = run.planned.seed, run.planned.fold, run.reason or "evaluated"
            shown = None if value is None else precise_number(value)
            time = None if seconds is None else duration(seconds)
            places = [
                None if seed is None else str(seed),
                *([None if fold is None else str(fold)] if plan.folds else []),
            ]
            look = "missing" if run.reason else ""
            rows.append([Entry(one.name), *places, Entry(state, look=look), shown, epoch, time])
            raw.append([run.planned.name, one.candidate.name, seed, fold, state, value, epoch, seconds])
    caption = f"All planned runs; {metric.label} is that of its own {'fold' if plan.folds else 'validation split'}."
    fold_column = ("Fold",) if plan.folds else ()
    header = ("Configuration", "Seed", *fold_column, "State", metric.label, "Best epoch", "Training time")
    found = text_table("runs", caption, header, rows)
    names = ("run", "configuration", "seed", "fold", "state", metric.name, "best_epoch", "training_seconds")
    return Table("runs", caption, found.header, found.rows, (names, raw))


def baseline_table(findings: Findings) -> Table | None:
    """Return each configuration against the baseline, from the pairs; None without any."""
    notes, label = Footnotes(), findings.metric.label
    rows = [
        (
            Entry(one.configuration, f"minus {one.baseline}"),
            _difference(one.difference, notes),
            Entry(p_value(one.p), look="significant" if one.finding in ("better", "worse", "different") else ""),
            Entry(one.finding),
        )
        for one in against_baseline(findings)
    ]
    raw: list[list[Cell]] = [
        [one.configuration, one.baseline, findings.metric.name, *estimate_cells(one.difference), one.p, one.finding]
        for one in against_baseline(findings)
    ]
    caption = (
        f"Differences in {label} from the baseline, a logistic regression on features of the frozen backbone: the one "
        "with the same backbone, weights and image size, if there is one. They are pairs of the next table; p is "
        "adjusted over all pairs."
    )
    header = ("Configuration", f"{label}, pooled", "Holm p", "Against the baseline")
    names = ("configuration", "baseline", "metric", "difference", "low", "high", "method", "p_holm", "finding")
    return Table("baseline", caption, header, tuple(rows), (names, raw), notes.all) if rows else None


def opened_table(findings: Findings) -> Table | None:
    """Return the figures on the opened test set: the mean of the seeds and each seed; None without a result."""
    test, notes = findings.opened, Footnotes()
    if test.result is None:
        return None
    columns = [test.estimates(metric) for metric in findings.shown]
    rows = [
        (Entry(plain(test.configuration or ""), title), *(estimate_entry(column[i][1], notes) for column in columns))
        for i, (title, _) in enumerate(columns[0])
    ]
    raw: list[list[Cell]] = [
        [test.configuration, metric.name, title, len(test.result.photographs), *estimate_cells(estimate)]
        for metric in shown_in("evaluation")
        for title, estimate in test.estimates(metric)
    ]
    trained = (
        "trained on the photographs of all folds" if findings.experiment.plan.folds else "the runs of this experiment"
    )
    also = ", and evaluated by ensembles too" if test.looks else ""
    caption = (
        f"Test set, opened for this configuration alone{also} ({trained}): estimates at the threshold of each run, "
        "with 95 % intervals by sampling unit."
    )
    header = ("Configuration", *(metric.label for metric in findings.shown))
    names = ("configuration", "metric", "seed", "n", *ESTIMATE_COLUMNS)
    return Table("test", caption, header, tuple(rows), (names, raw), notes.all)


def training_costs_table(findings: Findings) -> Table:
    """Return what the runs of each configuration cost; a dash where that was not recorded."""
    rows: list[list[Shown]] = []
    for one in findings.displayed:
        parameters = sorted({data.parameters for data in one.read if data.parameters})
        sizes = [size for data in one.read if (size := data.checkpoint_bytes)]
        seconds = [data.training_seconds for data in one.read if data.training_seconds]
        epochs = [len(data.epochs) for data in one.read if data.epochs]
        rows.append(
            [
                one.name,
                " or ".join(f"{count / 1e6:.2f} million" for count in parameters) or None,
                f"{np.mean(sizes) / 2**20:.1f} MiB" if sizes else None,
                Entry(duration(float(np.mean(seconds))), f"{len(seconds)} of {len(one.runs)} runs")
                if seconds
                else None,
                duration(sum(seconds)) if seconds else None,
                f"{np.mean(epochs):.1f}" if epochs else None,
            ]
        )
    caption = "Costs, as far as recorded: means over runs, and the training time of all runs together."
    header = ("Configuration", "Parameters", "Checkpoint", "Training time of a run", "Of all runs", "Epochs")
    return text_table("costs", caption, header, rows)


def options_table(findings: Findings) -> Table | None:
    """Return what each configuration sets, a row for each key; None if none sets anything, or they are trials."""
    if findings.search:
        return None
    candidates = findings.experiment.plan.configurations
    keys = dict.fromkeys(key for one in candidates for key in one.options)
    settings = findings.experiment.plan.settings
    rows: list[list[Shown]] = []
    for key in keys:
        values = [one.options.get(key, settings.get(key, "default")) for one in candidates]
        rows.append([key, *("null" if value is None else plain(str(value)) for value in values)])
    header = ("Setting", *(plain(one.name) for one in candidates))
    return text_table("options", "What the configurations set, where one sets it.", header, rows) if rows else None


def conditions_table(findings: Findings) -> Table | None:
    """Return versions and hardware in which runs differ, with the number of runs; None if they are equal."""
    found: dict[str, Counter[str]] = {}
    read = [data for one in findings.experiment.configurations for data in one.read]
    for data in read:
        values: dict[str, list[str]] = {}
        for stretch in stretches_of(data):
            for name, value in stretch.conditions.items():
                values.setdefault(name, []).append(value)
        for name, several in values.items():
            found.setdefault(name, Counter())[" → ".join(dict.fromkeys(several))] += 1
    rows: list[list[Shown]] = []
    for name, counts in found.items():
        if (rest := len(read) - counts.total()) > 0:
            counts["not recorded"] = rest
        if len(counts) > 1 or " → " in next(iter(counts)):
            rows.append([name, "; ".join(f"{value} ({n} of {len(read)} runs)" for value, n in counts.most_common())])
    caption = "Software and hardware that differ between runs, or within a run that was resumed."
    return text_table("conditions", caption, ("Condition", "Values"), rows) if rows else None
