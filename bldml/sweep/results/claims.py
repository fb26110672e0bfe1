"""Sentences about an experiment, which follow from what its runs recorded."""

from collections import Counter
from collections.abc import Sequence

from bldml.io.text import counted, first_few, plain
from bldml.metrics.checked import FEW_UNITS, unit_kind
from bldml.metrics.estimates import Estimate
from bldml.report import claims
from bldml.report.run_claims import changes_said
from bldml.report.tables import interval_text, precise_number
from bldml.run.evidence import Evidence
from bldml.sweep.results.assessment import ALPHA, Findings
from bldml.sweep.results.baseline import Finding, against_baseline, baselines
from bldml.sweep.results.gathering import Experiment
from bldml.sweep.results.opened import Look

SHOWN = 20  # sentences about files that are not as they were written
AGAINST: dict[Finding, str] = {
    "better": "Significantly better (Holm)",
    "worse": "Significantly worse",
    "different": "Significantly different",
    "not significant": "Not significantly better or worse",
    "not tested": "Not tested",
}


def sweep_verdict(findings: Findings) -> list[str]:
    """Return the first paragraph: what limits the figures, the best configuration, and what the tests found."""
    experiment = findings.experiment
    return [
        *filter(None, (validation_only(findings), missing(experiment), not_pooled(experiment))),
        *filter(
            None,
            (
                not_compared(findings),
                chosen(findings),
                best(findings),
                against(findings),
                significant_differences(findings),
            ),
        ),
        *filter(None, (opened(findings), ensembles_tested(findings.opened.looks))),
    ]


def changed(findings: Findings) -> list[str]:
    """Say which files that this page is made from, and which manifests, are not as they were written."""
    manifests = [
        f"{text}. A run that has read it since may have other photographs in its splits."
        for text in findings.experiment.changed
    ]
    of_runs = dict.fromkeys(
        f"{plain(run.planned.name)}: {text}"
        for run in (*findings.experiment.runs, *findings.opened.runs)
        for text in changes_said(run.changes)
    )
    found = list(of_runs)
    if found:
        found = ["Files are not as they were written, so figures of this page may be wrong.", *found[:SHOWN]]
    more = len(of_runs) - SHOWN
    return [*manifests, *found, *([f"And {more:,} more."] if more > 0 else [])]


def validation_only(findings: Findings) -> str:
    """Say what figures without folds are worth; empty with folds."""
    experiment, shown = findings.experiment, [run.planned.name for run in findings.opened.runs]
    if experiment.plan.folds:
        return ""
    tested = [run for run in experiment.runs if run.data and run.data.of_role("test")]
    opened = [plain(run.planned.name) for run in tested if run.planned.name not in shown]
    also = f" Evaluations of a test split are recorded in {first_few(opened, 5)}; they are not used here."
    return (
        "There are no folds, so these figures are of the validation split, which also chose epoch, temperature and "
        f"threshold of each run. They are optimistic.{also if opened else ''}"
    )


def missing(experiment: Experiment) -> str:
    """Say which runs are not there; empty if all are."""
    lacking = [run for run in experiment.runs if run.evaluation is None]
    if not lacking:
        return ""
    names = first_few([plain(run.planned.name) for run in lacking], 5, ", ", " and ")
    are = "is" if len(lacking) == 1 else "are"
    return (
        f"{len(lacking)} of {counted(len(experiment.runs), 'run')} {are} not evaluated: {names}; see the table of "
        "runs. Only complete seeds are pooled."
    )


def opened(findings: Findings) -> str:
    """Say for which configuration the sealed test set was opened, and its figure; empty if it was not."""
    test = findings.opened
    if test.configuration is None:
        return ""
    name, time = plain(test.configuration), plain(str(test.note.get("time", "")))[:10]
    how = {
        "beforehand": ", which was named beforehand",
        "metric": ", then the best by the metric",
        "search": ", then the trial with the best objective",
    }
    text = f"The test set was opened for {name}{how.get(str(test.note.get('how')), '')}{time and f', on {time}'}."
    if test.result is not None:
        title, estimate = test.estimates(findings.metric)[0]
        n = counted(test.result.pooled.labels.size, "photograph")
        text += f" On its {n}: {figure_of(findings, estimate)} ({title})."
    if test.missing:
        reasons = [f"{plain(run.planned.name)} ({run.reason})" for run in test.missing]
        text += f" Not tested: {first_few(reasons, 5, ', ', ' and ')}."
    if test.left_out:
        text += f" Not in this figure: {'; '.join(test.left_out)}."
    return f"{text} No other figure of this page is of the test set."


def ensembles_tested(looks: Sequence[Look]) -> str:
    """Say which ensembles of the experiment evaluated the sealed test set; empty if none did."""
    if not looks:
        return ""
    times = Counter(look.ensemble for look in looks)
    first = {look.ensemble: look.time[:10] for look in reversed(looks)}
    names = [f"{plain(name)} ({'' if n == 1 else f'{n} times, first '}on {first[name]})" for name, n in times.items()]
    are = "An ensemble" if len(names) == 1 else f"{len(names)} ensembles"
    return (
        f"{are} of this experiment evaluated the sealed test set: {first_few(names, 5, ', ', ' and ')}. Each figure on "
        "it is of a classifier that was fixed before, but the best of several would flatter."
    )


def not_pooled(experiment: Experiment) -> str:
    """Say which seeds are begun and not pooled, with the reason; empty if there are none."""
    left_out = [f"{one.name}, {text}" for one in experiment.configurations for text in one.left_out]
    return f"Not pooled: {'; '.join(left_out)}." if left_out else ""


def not_compared(findings: Findings) -> str:
    """Say which configurations are not compared with the others, and over which seeds the others are."""
    experiment = findings.experiment
    empty = [one.name for one in experiment.configurations if one.result is None]
    found = []
    if len(empty) == len(experiment.configurations):
        return "No configuration has a complete seed, so nothing can be pooled or compared."
    if empty:
        found.append(f"No complete seed, so not compared: {', '.join(empty)}.")
    if experiment.other_photographs:
        names = ", ".join(map(plain, experiment.other_photographs))
        found.append(f"Not compared, because photographs, classes or units differ from those of the first: {names}.")
    if len(experiment.compared) > 1 and not experiment.common_seeds:
        found.append("The configurations have no complete seed in common, so they are not compared.")
    elif any(one.result and one.result.seeds != experiment.common_seeds for one in experiment.compared):
        seeds = ", ".join(
            "that of the configuration" if seed is None else str(seed) for seed in experiment.common_seeds
        )
        found.append(f"Configurations are compared over the seeds that all of them have: {seeds}.")
    return " ".join(found)


def chosen(findings: Findings) -> str:
    """Give the figure of the configuration that was named beforehand; empty if none was."""
    name = findings.experiment.plan.chosen
    one = next((each for each in findings.experiment.configurations if each.candidate.name == name), None)
    if name is None or one is None:
        return ""
    found = findings.of(one, findings.metric)
    figure = figure_of(findings, found.estimate) if found else "it has no complete seed"
    return f"{one.name} was named beforehand for the test set: {figure}."


def best(findings: Findings) -> str:
    """Name the best configuration, and its figure corrected for being chosen on these predictions."""
    experiment, found, one = findings.experiment, findings.best, findings.best_configuration
    compared = experiment.compared
    if found is None or one is None:
        undecided = len(compared) > 1 and experiment.common_seeds
        return f"No configuration is the best by {findings.metric.label}." if undecided else ""
    value, label = precise_number(found.value), findings.metric.label
    if len(compared) == 1:
        figures = findings.of(one, findings.metric)
        is_named = experiment.plan.chosen == one.candidate.name
        return "" if is_named or figures is None else f"{one.name}: {figure_of(findings, figures.estimate)}."
    text = f"{one.name} has the best {label} of {len(compared)} configurations, {value}."
    values = findings.values
    equal = [other.name for other in compared if other is not one and values[other.candidate.name] == found.value]
    if equal:
        text = f"{one.name} and {', '.join(equal)} have the best {label}, {value}."
    if experiment.plan.chosen is None:
        text += f" {'One of them would be' if equal else 'It was'} chosen on these very predictions"
    else:
        text += " Had it been chosen by that, it would have been chosen on these very predictions"
    if found.corrected is None:
        return f"{text}; what it gains by that cannot be estimated."
    corrected = precise_number(found.corrected)
    interval = interval_text(Estimate(found.corrected, found.interval))
    text += f"; corrected for what the best of {len(compared)} gains by that, its {label} is {corrected} (BBC-CV"
    return f"{text}; 95 % interval {interval})."


def figure_of(findings: Findings, estimate: Estimate) -> str:
    """Return the metric of an experiment with its value and interval, in words."""
    interval = interval_text(estimate)
    value = "not estimable" if estimate.value is None else precise_number(estimate.value)
    return f"{findings.metric.label} {value}{f', 95 % interval {interval}' if interval else ''}"


def against(findings: Findings) -> str:
    """Name the baseline, and say which configurations are significantly better than it; empty without a baseline."""
    known, pairs = baselines(findings), against_baseline(findings)
    if not known:
        return ""
    names = first_few([one.name for one in known], 6, ", ", " and ")
    what = "The baseline is" if len(known) == 1 else "The baselines are"
    text = f"{what} {names}: a logistic regression on features of the frozen backbone."
    if not pairs:
        return f"{text} No other configuration is compared with it."
    beside = {one.name for one in known if len(known) > 1}
    for finding, words in AGAINST.items():
        found = [
            f"{one.configuration}{f' (than {one.baseline})' if one.baseline in beside else ''}"
            for one in pairs
            if one.finding == finding
        ]
        text += f" {words}: {first_few(found, 6, ', ', ' and ')}." if found else ""
    return text


def significant_differences(findings: Findings) -> str:
    """Say which pairs differ significantly by the primary test; empty without pairs."""
    tested = [pair for pair in findings.pairs if pair.adjusted is not None]
    found = [pair for pair in tested if pair.is_significant]
    if not findings.pairs:
        return ""
    if not tested:
        return "No pair of configurations could be tested."
    if not found:
        return f"{counted(len(tested), 'pair')} tested, no difference is significant. They may differ all the same."
    names = first_few([f"{pair.first} and {pair.second}" for pair in found], 6)
    text = f"{counted(len(tested), 'pair')} tested, {len(found)} with a significant difference (Holm): {names}."
    over_runs = [pair for pair in tested if pair.adjusted_over_runs is not None]
    if not over_runs:
        return text
    too = sum(pair.adjusted_over_runs < ALPHA for pair in found if pair.adjusted_over_runs is not None)
    return f"{text} By the test over runs, which allows for another training, {too or 'none'} of these too."


def sampling_units(experiment: Experiment) -> str:
    """Say what the sampling units of the pooled photographs are; empty without any."""
    result = next((one.result for one in experiment.configurations if one.result), None)
    if result is None:
        return ""
    rows = result.rows[0]
    units = [row.unit for row in rows]
    names = {kind: {unit.name for unit in units if unit and unit.kind == kind} for kind in ("group", "burst")}
    return claims.sampling(
        Evidence(
            role="test" if experiment.plan.folds else "validation",
            n=len(rows),
            unit=unit_kind(units),
            groups=len(names["group"]),
            bursts=None if any(row.burst is None for row in rows) else len(names["burst"]),
            lone=units.count(None),
        )
    )


def few_units(experiment: Experiment) -> str:
    """Warn of a class of few sampling units; empty if both have enough."""
    result = next((one.result for one in experiment.configurations if one.result), None)
    if result is None:
        return ""
    of_classes = [len({*result.pooled.units[result.pooled.labels == label].tolist()}) for label in (0, 1)]
    if min(of_classes) >= FEW_UNITS:
        return ""
    return (
        f"The photographs of one class are of {counted(min(of_classes), 'sampling unit')} only. Fewer than {FEW_UNITS} "
        "were not simulated: the intervals are unreliable."
    )


def sweep_notes(findings: Findings) -> list[str]:
    """Return sentences on how the figures were computed and what they do not show."""
    experiment = findings.experiment
    folds = experiment.plan.folds
    several = max((len(one.result.seeds) for one in experiment.compared if one.result), default=0)
    found = [sampling_units(experiment), few_units(experiment)]
    if folds:
        found.append(
            "Each fold was the test split of its run; other photographs were its validation split, which chose epoch, "
            "temperature and threshold. So each photograph is predicted once per seed, by the run whose test split it "
            "is in."
        )
        found.append(
            "Pooled AUROC and average precision compare probabilities of the classifiers of different folds, and are "
            "usually a little lower than the mean over folds."
        )
    found.append(
        "The intervals hold the trainings fixed: they are for these trained classifiers and new photographs. The mean "
        "figure of all possible trainings is covered less often, the more trainings differ. In simulations whose folds "
        "differed by a standard deviation of .03 in accuracy, 86 to 94 % of intervals covered it (accuracy), and 82 to "
        "85 % (AUROC of photographs without groups)."
    )
    if several == 1:
        found.append("With one seed, what is due to training cannot be told apart from what is due to photographs.")
    if findings.pairs:
        found.append(
            f"One family of tests was declared: all pairs by {findings.metric.label}, on pooled predictions by "
            f"sampling unit, significant if the p value adjusted by Holm's method is below {ALPHA}. This test too "
            "holds the trainings fixed: of two configurations that are equally good on average over trainings, it "
            "found a difference in 8 to 10 % of simulations instead of 5 %. The test over runs allows for training (1 "
            "to 6 %), but finds true differences less often."
        )
    found.append("The standard deviation over folds or seeds is no interval, and says nothing of new trees or sites.")
    return [text for text in found if text]
