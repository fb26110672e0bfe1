"""Tables and sentences about a search, which follow from what its trials recorded."""

from collections import Counter

from bldml.io.text import Cell, counted, first_few, number, plain
from bldml.report.tables import Entry, Shown, Table, precise_number, text_table
from bldml.sweep.results import claims
from bldml.sweep.results.assessment import Findings

SEARCH_NOTES = (
    "The objective of a trial is the mean over its runs of the best value of the monitored metric on their inner "
    "validation photographs. No test photograph is in it.",
    "Trials were proposed by TPE (Optuna) with a fixed seed. With one worker that does one trial at a time, a search "
    "that is interrupted and resumed proposes the same trials as one that is not; with several it depends on which "
    "trials end first.",
)
PRUNING_NOTE = (
    "A trial was ended early (pruned) when the mean of the best values of its runs so far was worse than the median of "
    "the complete trials at the same run and epoch, from five complete trials on: at the end of a run, and within it "
    "after the last unfreezing. "
    "The objective of a pruned trial is of the runs and epochs that it had done."
)
PAIRS_NOTE = "Pairs of trials are not tested: they are proposals and no hypotheses, and there are too many of them."
IMPORTANCE_NOTE = (
    "The importance of an option is the part of the variance of the objective over the search space that it explains "
    "by itself, as a random forest on the complete trials estimates it (fANOVA). What options explain only together "
    "is the rest to 1. With few trials it is rough, and it says nothing of values outside the space."
)


def experiment_verdict(findings: Findings) -> list[str]:
    """Return the first paragraph of the page of an experiment, with or without a search."""
    if findings.search is None:
        return [*claims.changed(findings), *claims.sweep_verdict(findings)]
    found = [
        *claims.changed(findings),
        claims.validation_only(findings),
        trial_counts(findings),
        best_trial(findings),
        by_fold(findings),
        best_by_metric(findings),
        claims.opened(findings),
        claims.ensembles_tested(findings.opened.looks),
    ]
    return [text for text in found if text]


def experiment_notes(findings: Findings) -> list[str]:
    """Return sentences on how the figures were computed, with or without a search."""
    notes = claims.sweep_notes(findings)
    if findings.search is None:
        return notes
    search = findings.experiment.plan.search
    found = [*SEARCH_NOTES, *([PRUNING_NOTE] if search["pruning"] else []), PAIRS_NOTE]
    return [*found, *([IMPORTANCE_NOTE] if findings.search.importance else []), *notes]


def trial_counts(findings: Findings) -> str:
    """Say how many trials there are, by state."""
    plan = findings.experiment.plan
    counts = Counter(trial.state for trial in plan.trials)
    parts = ", ".join(f"{n} {'not finished' if state == 'running' else state}" for state, n in counts.items())
    return f"{len(plan.trials)} of {counted(plan.search['trials'], 'trial')}: {parts or 'none yet'}."


def best_trial(findings: Findings) -> str:
    """Name the trial with the best objective, with its figure and what that is worth."""
    experiment, search = findings.experiment, findings.search
    assert search is not None
    if search.best is None:
        return "No trial is complete, so there is no best one."
    monitor, best = plain(experiment.plan.search["monitor"]), search.best
    text = f"{best.name} has the best objective: {monitor} {number(best.value, 4)}."
    one = next(each for each in experiment.configurations if each.candidate.name == best.name)
    figures = findings.of(one, findings.metric)
    if figures is None:
        return f"{text} It has no complete seed with an evaluation."
    if not experiment.plan.folds:
        return f"{text} Its {claims.figure_of(findings, figures.estimate)}."
    return (
        f"{text} Its out-of-fold {claims.figure_of(findings, figures.estimate)}. This may be optimistic, by an unknown "
        "amount: it was chosen by the inner validation photographs of all folds, which are test photographs of others."
    )


def by_fold(findings: Findings) -> str:
    """Give the figure of the search as a procedure; empty without folds."""
    search = findings.search
    if search is None or search.procedure is None or search.pooled is None:
        return ""
    figures = findings.of(search.procedure, findings.metric)
    if figures is None:
        return ""
    chosen = first_few([f"fold {fold}: {name}" for fold, name in search.of_folds.items()], 10)
    return (
        "The search as a procedure, with the trial of each fold chosen by the inner validation of this fold alone: "
        f"{claims.figure_of(findings, figures.estimate)} ({chosen}). No photograph chose the trial that predicts it "
        "here; only what was proposed and pruned depends on all folds."
    )


def best_by_metric(findings: Findings) -> str:
    """Say what the best trial by the metric itself would be, corrected; empty for one trial."""
    found, one, compared = findings.best, findings.best_configuration, findings.experiment.compared
    if found is None or one is None or len(compared) < 2 or found.corrected is None:
        return ""
    label = findings.metric.label
    return (
        f"By {label} itself, {one.name} would be the best of {len(compared)} trials, {precise_number(found.value)}; "
        f"corrected for what it gains by being chosen on these very predictions, {precise_number(found.corrected)} "
        "(BBC-CV)."
    )


def trials_table(findings: Findings) -> Table | None:
    """Return every trial with its objective, its pooled metric and what it sets; None without a search."""
    plan, search = findings.experiment.plan, findings.search
    if search is None:
        return None
    keys, monitor = list(plan.search["ranges"]), str(plan.search["monitor"])
    rows: list[list[Shown]] = []
    raw: list[list[Cell]] = []
    of_names = {one.candidate.name: one for one in findings.experiment.configurations}
    for trial in plan.trials:
        one = of_names.get(trial.name)
        figures = findings.of(one, findings.metric) if one else None
        value = figures.estimate.value if figures else None
        state = Entry("not finished" if trial.state == "running" else trial.state, plain(trial.reason))
        params = [trial.params.get(key) for key in keys]
        rows.append(
            [
                Entry(trial.name, look="significant" if search.best == trial else ""),
                state,
                None if trial.value is None else number(trial.value, 4),
                None if value is None else precise_number(value),
                *(f"{param:.4g}" if isinstance(param, float) else plain(str(param)) for param in params),
            ]
        )
        cells: list[Cell] = [param if isinstance(param, int | float) else str(param) for param in params]
        raw.append([trial.name, trial.state, trial.value, value, *cells, trial.reason])
    of = "out-of-fold" if plan.folds else "validation"
    caption = (
        f"All trials. Objective: the mean over runs of the best inner validation {monitor}; of a pruned trial, of what "
        f"it had done. {findings.metric.label}: of the pooled {of} predictions, where all runs of a seed are there."
    )
    names = [plain(key) for key in keys]
    shown = text_table("trials", caption, ("Trial", "State", "Objective", findings.metric.label, *names), rows)
    header = ("trial", "state", monitor, findings.metric.name, *keys, "reason")
    return Table("trials", caption, shown.header, shown.rows, (header, raw))


def importance_table(findings: Findings) -> Table | None:
    """Return the importance of each option; None if it was not computed."""
    search = findings.search
    if search is None or not search.importance:
        return None
    rows: list[list[Shown]] = [[plain(key), number(value)] for key, value in search.importance.items()]
    raw: list[list[Cell]] = [[key, value] for key, value in search.importance.items()]
    caption = "Part of the variance of the objective that each option explains by itself (fANOVA)."
    shown = text_table("importance", caption, ("Option", "Importance"), rows)
    return Table("importance", caption, shown.header, shown.rows, (("option", "importance"), raw))
