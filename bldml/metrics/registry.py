"""Every metric is one row of this file. To add one, add a `register(Metric(…))` at its end.

It then appears in metrics.json, the report, comparisons, the terminal, the training history, --monitor and
docs/metrics.md. An incomplete row is refused with a sentence on what is missing; `Metric` describes the fields. The
tests also need a second implementation in tests/oracles.py, and `python -m tests.metrics_page` rewrites its page.
"""

import math
from typing import Literal

from bldml.metrics import scores
from bldml.metrics.auroc import binormal_average_precision, estimate_auroc
from bldml.metrics.checked import are_clustered
from bldml.metrics.estimates import BOTH_CLASSES, Estimate, Interval
from bldml.metrics.metric import CELLS, RATES, Metric, Output, Rule, Scored, Value, no_interval, of_both, resampled
from bldml.metrics.proportions import complement, mover, mover_ratio, predictive_values

PAGES: tuple[Output, ...] = ("evaluation", "report")
METRICS: dict[str, Metric] = {}
_NAMES: dict[str, str] = {}  # aliases too
_TAKEN = {
    *CELLS,
    "n",
    "n_positive",
    "threshold",
    "temperature",
    "at_threshold",
    "at_0.5",
    "schema",
    "intervals",
    "loss_uncalibrated",
    "epoch",
    "step",
}


def register(*metrics: Metric) -> None:
    """Add metrics to the registry.

    Raises:
        ValueError: One is incomplete, or a value is outside its range; the message says what to add.
    """
    for metric in metrics:
        names = (metric.name, *metric.aliases)
        lacking = [*metric.lacking(), *(f"the name {name} is taken" for name in names if name in _TAKEN)]
        lacking += [f"the name {name} is taken by {_NAMES[name]}" for name in names if name in _NAMES]
        if lacking:
            what = f"The metric {metric.name or '(no name)'} in bldml/metrics/registry.py"
            raise ValueError(f"{what} cannot be used: {'; '.join(lacking)}.")
        METRICS[metric.name] = metric
        _NAMES.update(dict.fromkeys(names, metric.name))


def canonical(name: str) -> str:
    """Return the current name of a metric, or of a history column, that had another name; any other name unchanged.

    >>> canonical("recall"), canonical("val_recall"), canonical("val_loss"), canonical("epoch")
    ('sensitivity', 'val_sensitivity', 'val_loss', 'epoch')
    """
    stage, _, metric = name.partition("_")
    if stage in ("train", "val", "test") and metric in _NAMES:
        return f"{stage}_{_NAMES[metric]}"
    return _NAMES.get(name, name)


def shown_in(output: Output) -> list[Metric]:
    """Return the metrics that appear in an output, in the order of the registry.

    >>> [metric.name for metric in shown_in("comparison")]
    ['sensitivity', 'specificity', 'accuracy', 'auroc']
    """
    return [metric for metric in METRICS.values() if output in metric.shown]


def _ratio(part: float, whole: float) -> Value:
    return part / whole if whole else None


def _youden(tp: float, fp: float, fn: float, tn: float) -> Value:
    positives, negatives = tp + fn, tn + fp
    return tp / positives + tn / negatives - 1 if positives and negatives else None


def _balanced_accuracy(tp: float, fp: float, fn: float, tn: float) -> Value:
    positives, negatives = tp + fn, tn + fp
    return (tp / positives + tn / negatives) / 2 if positives and negatives else None


def _mcc(tp: float, fp: float, fn: float, tn: float) -> Value:
    return _ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def _average_precision(metric: Metric, scored: Scored) -> Estimate:
    """Return average precision as `resampled`; at 1, with the interval that follows from that of the AUROC.

    That is the average precision of scores with this area that are normal with equal variances in both classes.
    """
    found, area = resampled(metric, scored), estimate_auroc(scored.labels, scored.probabilities, scored.units)
    if found.interval is not None or found.value is None or area.interval is None:
        return found
    limits = [binormal_average_precision(one, scored.labels.mean()) for one in (area.interval.low, area.interval.high)]
    low, high = min(limits[0], found.value), max(limits[1], found.value)
    return Estimate(found.value, Interval(low, high, f"binormal, from that of the AUROC ({area.interval.method})"))


def _predictive_value(which: Literal[0, 1]) -> Rule:
    """Return a rule for PPV (0) and NPV (1).

    How many photographs of a unit get a prediction depends on how well they are recognised, so units differ in weight
    as well as in proportion, which the interval of a proportion by unit does not cover. For units of several
    photographs it is therefore the band that follows from sensitivity and specificity at the prevalence of the set.
    """

    def rule(metric: Metric, scored: Scored) -> Estimate:
        assert metric.part is not None
        value, prevalence = metric.value(scored), float(scored.labels.mean() if scored.labels.size else 0)
        if value is None or not are_clustered(scored.units):
            return scored.proportion(metric.part)
        if prevalence in (0, 1):
            return Estimate(value, None, BOTH_CLASSES)
        sensitivity, specificity = map(scored.proportion, RATES)
        return Estimate(value, predictive_values(sensitivity, specificity, prevalence)[which].interval)

    return rule


# Proportions of photographs and what follows from them, at a threshold.
register(
    Metric(
        name="sensitivity",
        aliases=("recall",),
        title="Sensitivity (recall)",
        definition="TP / (TP + FN): proportion of positive photographs that are predicted positive",
        part=(("tp",), ("tp", "fn")),
        better="higher",
    ),
    Metric(
        name="specificity",
        title="Specificity",
        definition="TN / (TN + FP): proportion of negative photographs that are predicted negative",
        part=(("tn",), ("tn", "fp")),
        better="higher",
    ),
    Metric(
        name="ppv",
        aliases=("precision",),
        title="Positive predictive value (precision), at the prevalence of this set",
        short="PPV (precision)",
        definition="TP / (TP + FP): proportion of positive predictions that are correct; falls with prevalence",
        part=(("tp",), ("tp", "fp")),
        interval=_predictive_value(0),
        better="higher",
        shown=(*PAGES, "terminal", "history"),
    ),
    Metric(
        name="npv",
        title="Negative predictive value, at the prevalence of this set",
        short="NPV",
        definition="TN / (TN + FN): proportion of negative predictions that are correct; rises as prevalence falls",
        part=(("tn",), ("tn", "fn")),
        interval=_predictive_value(1),
        better="higher",
        shown=PAGES,
    ),
    Metric(
        name="accuracy",
        title="Accuracy",
        definition="(TP + TN) / all: proportion of photographs predicted correctly",
        part=(("tp", "tn"), CELLS),
        better="higher",
    ),
    Metric(
        name="balanced_accuracy",
        title="Balanced accuracy",
        definition="(sensitivity + specificity) / 2; 0.5 is chance",
        of_counts=_balanced_accuracy,
        interval=of_both(lambda a, b: mover(a, b, (0.5, 0.5))),
        better="higher",
        range=(0, 1),
        shown=(*PAGES, "sets", "terminal", "history"),
    ),
    Metric(
        name="youden_j",
        title="Youden’s J",
        definition="sensitivity + specificity - 1; 0 is chance (Youden 1950)",
        of_counts=_youden,
        interval=of_both(lambda a, b: mover(a, b, (1.0, 1.0), shift=-1.0)),
        better="higher",
        range=(-1, 1),
        shown=PAGES,
    ),
    Metric(
        name="f1",
        title="F1",
        definition="2 TP / (2 TP + FP + FN): harmonic mean of sensitivity and PPV",
        of_counts=lambda tp, fp, fn, tn: _ratio(2 * tp, 2 * tp + fp + fn),
        interval=resampled,
        better="higher",
        range=(0, 1),
        shown=(*PAGES, "sets", "terminal", "history"),
    ),
    Metric(
        name="mcc",
        title="Matthews correlation (MCC)",
        short="MCC",
        definition="correlation of predicted and true class; 0 is chance (Matthews 1975)",
        of_counts=_mcc,
        interval=resampled,
        better="higher",
        range=(-1, 1),
        shown=PAGES,
    ),
    Metric(
        name="lr_positive",
        title="Likelihood ratio of a positive prediction",
        short="LR+",
        definition="sensitivity / (1 - specificity): factor by which a positive prediction changes the odds",
        of_counts=lambda tp, fp, fn, tn: _ratio(tp * (fp + tn), fp * (tp + fn)),
        interval=of_both(lambda a, b: mover_ratio(a, complement(b))),
        better="higher",
        range=(0, math.inf),
        shown=PAGES,
    ),
    Metric(
        name="lr_negative",
        title="Likelihood ratio of a negative prediction",
        short="LR-",
        definition="(1 - sensitivity) / specificity: factor by which a negative prediction changes the odds",
        of_counts=lambda tp, fp, fn, tn: _ratio(fn * (fp + tn), tn * (tp + fn)),
        interval=of_both(lambda a, b: mover_ratio(complement(a), b)),
        better="lower",
        range=(0, math.inf),
        shown=PAGES,
    ),
)

# Metrics of the probabilities themselves, which need no threshold.
register(
    Metric(
        name="auroc",
        title="Area under the ROC curve (AUROC)",
        short="AUROC",
        definition="proportion of pairs of a positive and a negative photograph in which the positive one has the "
        "higher probability, ties count half; 0.5 is chance",
        of_probabilities=scores.auroc,
        interval=lambda _, scored: estimate_auroc(scored.labels, scored.probabilities, scored.units),
        better="higher",
        range=(0, 1),
    ),
    Metric(
        name="average_precision",
        title="Average precision",
        definition="mean PPV over all thresholds, weighted by the gain in sensitivity; the prevalence is chance",
        of_probabilities=scores.average_precision,
        interval=_average_precision,
        better="higher",
        range=(0, 1),
        undefined="no positive photograph",
        shown=(*PAGES, "terminal", "history"),
    ),
    Metric(
        name="brier",
        title="Brier score (0 is best)",
        definition="mean squared difference between probability and label (Brier 1950)",
        of_probabilities=scores.brier_score,
        interval=resampled,
        better="lower",
        range=(0, 1),
        undefined="no photograph",
        shown=(*PAGES, "sets"),
    ),
    Metric(
        name="brier_skill",
        title="Brier skill (1 is best, 0 is chance)",
        definition="1 - Brier score / Brier score of always predicting the prevalence; 0 is chance",
        of_probabilities=scores.brier_skill,
        interval=resampled,
        better="higher",
        range=(-math.inf, 1),
        undefined="one class only",
        shown=PAGES,
    ),
    Metric(
        name="loss",
        aliases=("log_loss",),
        title="Log loss (nats, 0 is best)",
        short="Loss",
        definition="mean binary cross-entropy of the calibrated probabilities, in nats. In the training history it is"
        " the loss that is minimised: weighted by pos_weight, without temperature",
        of_probabilities=scores.log_loss,
        interval=resampled,
        better="lower",
        range=(0, math.inf),
        undefined="no photograph",
        # The history has the loss of the training instead, see bldml/training/scores.py.
        shown=(*PAGES, "terminal"),
    ),
    Metric(
        name="calibration_slope",
        title="Calibration slope (1 is ideal)",
        definition="slope of the labels on the logit of the probability; below 1: probabilities are too extreme",
        of_probabilities=lambda labels, probabilities: scores.calibration_value(labels, probabilities, 0),
        interval=lambda _, scored: scores.calibration_line(scored.labels, scored.probabilities, scored.units)[0],
        better=1.0,
        range=(-math.inf, math.inf),
        shown=PAGES,
    ),
    Metric(
        name="calibration_intercept",
        title="Calibration intercept (0 is ideal)",
        definition="intercept with the slope held at 1; above 0: probabilities are too low",
        of_probabilities=lambda labels, probabilities: scores.calibration_value(labels, probabilities, 1),
        interval=lambda _, scored: scores.calibration_line(scored.labels, scored.probabilities, scored.units)[1],
        better=0.0,
        range=(-math.inf, math.inf),
        shown=PAGES,
    ),
    Metric(
        name="ece",
        title="Expected calibration error (ECE)",
        short="ECE",
        definition="mean absolute difference between mean probability and proportion of positives in ten bins of equal "
        "width, weighted by the photographs in each",
        of_probabilities=scores.calibration_error,
        interval=no_interval(
            "no interval: even a perfectly calibrated model has an ECE above 0, see the ECE that it would show"
        ),
        better="lower",
        range=(0, 1),
        undefined="no photograph",
        shown=PAGES,
    ),
    Metric(
        name="ece_expected",
        title="ECE that a perfectly calibrated model would show",
        short="ECE of a perfect model",
        definition="mean ECE when labels are drawn with the predicted probabilities (Bröcker and Smith 2007)",
        of_probabilities=lambda _, probabilities: scores.expected_calibration_error(probabilities),
        interval=no_interval("no interval: reference value for the ECE"),
        better="neither",
        range=(0, 1),
        undefined="no photograph",
        shown=("report",),
    ),
)
