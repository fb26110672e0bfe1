"""One evaluation's figures with their intervals: what the report and the comparison print."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bldml.io.text import counted
from bldml.metrics.auroc import clustered_auroc, estimate_auroc
from bldml.metrics.bootstrap import bootstrap, has_groups
from bldml.metrics.calibration import Coefficient, calibration_error, calibration_error_of_perfection, calibration_line
from bldml.metrics.estimates import Estimate, Interval, Z
from bldml.metrics.proportions import (
    balanced_accuracy,
    clustered_proportion,
    dirichlet_interval,
    likelihood_ratio_negative,
    likelihood_ratio_positive,
    predictive_values,
    proportion,
    youden,
)
from bldml.metrics.scores import average_precision, brier_score, brier_skill, log_loss, scores_at, scores_of

PREVALENCES = (0.01, 0.05, 0.10, 0.30)

Measure = Literal["f1", "mcc"]
MEASURES: tuple[Measure, ...] = ("f1", "mcc")

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Assessment:
    """Figures of one evaluation.

    Attributes:
        labels: 1 for the positive class, (n,), in the order of the table.
        probabilities: Calibrated, of the positive class, (n,).
        groups: Groups of the photographs, (n,), where every photograph has one; else None.
        threshold: The operating threshold.
        overall: Figures that need no threshold.
        at_threshold: Figures at the operating threshold.
        at_half: The same at 0.5.
        counts: `tp`, `fp`, `fn`, `tn` at the operating threshold.
        counts_at_half: The same at 0.5.
        prevalences: (prevalence, PPV, NPV) at the operating threshold.
        warnings: What a reader must know of the intervals.
    """

    labels: Labels
    probabilities: Floats
    groups: tuple[str, ...] | None
    threshold: float
    overall: dict[str, Estimate]
    at_threshold: dict[str, Estimate]
    at_half: dict[str, Estimate]
    counts: dict[str, int]
    counts_at_half: dict[str, int]
    prevalences: tuple[tuple[float, Estimate, Estimate], ...]
    warnings: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of photographs."""
        return int(self.labels.size)

    @property
    def n_positive(self) -> int:
        """Number of photographs of the positive class."""
        return int(self.labels.sum())

    @property
    def n_groups(self) -> int:
        """Number of groups; 0 where photographs have none."""
        return len(set(self.groups)) if self.groups else 0


def assess(
    labels: Labels,
    probabilities: Floats,
    groups: Sequence[str],
    threshold: float,
    prevalences: Sequence[float] = PREVALENCES,
) -> Assessment:
    """Compute every figure of an evaluation with its 95 % interval.

    Args:
        labels: 1 for the positive class, (n,).
        probabilities: Calibrated, of the positive class, (n,).
        groups: Of the photographs, (n,); they count where every photograph has one.
        threshold: Operating threshold, in [0, 1].
        prevalences: At which PPV and NPV are to be stated, in (0, 1).
    """
    known = tuple(groups) if has_groups(groups) else None
    at_threshold, counts = _at(labels, probabilities, threshold, known)
    at_half, counts_at_half = _at(labels, probabilities, 0.5, known)
    values = [
        (prevalence, *predictive_values(at_threshold["sensitivity"], at_threshold["specificity"], prevalence))
        for prevalence in prevalences
    ]
    return Assessment(
        labels=labels,
        probabilities=probabilities,
        groups=known,
        threshold=threshold,
        overall=_overall(labels, probabilities, known),
        at_threshold=at_threshold,
        at_half=at_half,
        counts=counts,
        counts_at_half=counts_at_half,
        prevalences=tuple(values),
        warnings=_warnings(groups, known, labels),
    )


def _at(
    labels: Labels, probabilities: Floats, threshold: float, groups: Sequence[str] | None
) -> tuple[dict[str, Estimate], dict[str, int]]:
    called = probabilities >= threshold
    scores = scores_at(labels, probabilities, threshold)
    counts = {key: int(scores[key] or 0) for key in ("tp", "fp", "fn", "tn")}
    positive = labels == 1

    def share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Estimate:
        if groups is None:
            return proportion(int(hits[among].sum()), int(among.sum()))
        return clustered_proportion(hits[among], [group for group, counts in zip(groups, among, strict=True) if counts])

    right = called == positive
    sensitivity, specificity = share(called, positive), share(~called, ~positive)
    estimates = {
        "accuracy": share(right, np.ones_like(right)),
        "balanced_accuracy": balanced_accuracy(sensitivity, specificity),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": share(positive, called),
        "npv": share(~positive, ~called),
        "youden_j": youden(sensitivity, specificity),
        "lr_positive": likelihood_ratio_positive(sensitivity, specificity),
        "lr_negative": likelihood_ratio_negative(sensitivity, specificity),
    }
    for name in MEASURES:
        value = scores[name]
        interval = None if value is None else _interval_of(name, labels, probabilities, threshold, groups, counts)
        estimates[name] = Estimate(value, interval, "" if value is not None else "not defined by these counts")
    return estimates, counts


def _interval_of(
    name: Measure,
    labels: Labels,
    probabilities: Floats,
    threshold: float,
    groups: Sequence[str] | None,
    counts: dict[str, int],
) -> Interval | None:
    """By the bootstrap, which would collapse where a cell of the table is empty."""
    if not all(counts.values()):
        return dirichlet_interval(**counts, measure=name)
    cell = 2 * labels + (probabilities >= threshold)

    def score(index: NDArray[np.int64]) -> float | None:
        tn, fp, fn, tp = np.bincount(cell[index], minlength=4).tolist()
        return scores_of(tp, fp, fn, tn)[name]

    return bootstrap(score, labels, groups)


def _overall(labels: Labels, probabilities: Floats, groups: Sequence[str] | None) -> dict[str, Estimate]:
    def resampled(function: Callable[[Labels, Floats], float | None], note: str) -> Estimate:
        value = function(labels, probabilities)
        if value is None:
            return Estimate(None, None, note)
        interval = bootstrap(lambda index: function(labels[index], probabilities[index]), labels, groups)
        return Estimate(value, interval)

    one_class = "one class only"
    area = estimate_auroc(labels, probabilities) if groups is None else clustered_auroc(labels, probabilities, groups)
    perfect = calibration_error_of_perfection(probabilities)
    line = calibration_line(labels, probabilities)
    undetermined = "not estimable: one class only, equal probabilities, or classes separated without error"
    return {
        "auroc": area,
        "average_precision": resampled(average_precision, "no positive photograph"),
        "brier": resampled(brier_score, "no photograph"),
        "brier_skill": resampled(brier_skill, one_class),
        "loss": resampled(log_loss, "no photograph"),
        "ece": Estimate(calibration_error(labels, probabilities)),
        "ece_expected": Estimate(*((None,) if perfect is None else (perfect[0],))),
        "calibration_slope": _wald(line[0]) if line else Estimate(None, None, undetermined),
        "calibration_intercept": _wald(line[1]) if line else Estimate(None, None, undetermined),
    }


def _wald(coefficient: Coefficient) -> Estimate:
    half = Z * coefficient.standard_error
    return Estimate(coefficient.value, Interval(coefficient.value - half, coefficient.value + half, "Wald"))


def _warnings(names: Sequence[str], groups: Sequence[str] | None, labels: Labels) -> tuple[str, ...]:
    warnings = []
    if groups is None:
        some = sum(map(bool, names))
        have = "has" if some == 1 else "have"
        warnings.append(
            "No photograph is known to belong to the same tree, site or burst as another, so all are taken as "
            "independent. Where several show one tree, the intervals are too narrow."
            if not some
            else f"Only {some} of {counted(len(names), 'photograph')} {have} a group, of their own or with others, "
            "that can be used, so all are taken as independent and the intervals may be too narrow."
        )
    elif (found := len(set(groups))) < 10:
        are = "is" if found == 1 else "are"
        warnings.append(f"There {are} only {counted(found, 'group')}: intervals from so few are not reliable.")
    if labels.min() == labels.max():
        warnings.append("All photographs are of one class: what compares the classes cannot be estimated.")
    return tuple(warnings)
