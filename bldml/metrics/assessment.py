"""All metrics of one evaluation: their values for metrics.json, and estimates with intervals for pages."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.io.text import counted
from bldml.metrics.bootstrap import FEW_GROUPS, has_groups
from bldml.metrics.estimates import Estimate
from bldml.metrics.metric import Metric, Scored
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.proportions import predictive_values
from bldml.metrics.registry import METRICS, canonical, shown_in

SCHEMA = 1  # of metrics.json; 0.1 wrote none
_OWN = ("n", "n_positive", "threshold", "temperature")
PREVALENCES = (0.01, 0.05, 0.10, 0.30)

Values = dict[str, float | int | None]


@dataclass(frozen=True)
class EvaluationMetrics:
    """The content of metrics.json; a metric that is not defined is None.

    Attributes:
        n: Number of photographs.
        n_positive: Of the positive class.
        threshold: That of the operating point, in [0, 1].
        temperature: By which the logits were divided.
        overall: Metrics that need no threshold, by name.
        at_threshold: `tp`, `fp`, `fn`, `tn` and the metrics computed from them, at the threshold.
        at_half: The same at 0.5.
    """

    n: int
    n_positive: int
    threshold: float
    temperature: float
    overall: Values
    at_threshold: Values
    at_half: Values

    def to_plain(self) -> dict[str, Any]:
        """Return the mapping that is written to metrics.json."""
        at = {"at_threshold": self.at_threshold, "at_0.5": self.at_half}
        return {"schema": SCHEMA} | {key: getattr(self, key) for key in _OWN} | self.overall | at

    @classmethod
    def from_plain(cls, plain: Any) -> "EvaluationMetrics":
        """Return the metrics from the content of metrics.json, also of version 0.1 (no schema, some other names).

        Raises:
            ValueError: It is not the content of a metrics.json, or a newer version wrote it.
        """
        if not isinstance(plain, dict):
            raise ValueError("it is not a mapping")
        if plain.get("schema", 0) not in (0, SCHEMA):
            raise ValueError(f"its schema is {plain['schema']!r}, this version of bldml reads {SCHEMA}")
        if missing := [key for key in (*_OWN, "at_threshold", "at_0.5") if key not in plain]:
            raise ValueError(f"{', '.join(missing)} missing")
        at_threshold, at_half = plain["at_threshold"], plain["at_0.5"]
        if not isinstance(at_threshold, dict) or not isinstance(at_half, dict):
            raise ValueError("at_threshold and at_0.5 must contain metrics")
        overall = {key: plain[key] for key in plain if key not in (*_OWN, "at_threshold", "at_0.5", "schema")}
        return cls(*(plain[key] for key in _OWN), *map(_renamed, (overall, at_threshold, at_half)))


def _renamed(values: Values) -> Values:
    return {canonical(name): value for name, value in values.items()}


def evaluate(labels: ArrayLike, probabilities: ArrayLike, operating_point: OperatingPoint) -> EvaluationMetrics:
    """Compute the content of metrics.json.

    The probabilities are calibrated: `to_probabilities(logits, operating_point.temperature)`.

    >>> metrics = evaluate([0, 1], [0.2, 0.4], OperatingPoint(threshold=0.3, temperature=1.0))
    >>> metrics.n, metrics.overall["auroc"], metrics.at_threshold["sensitivity"], metrics.at_half["sensitivity"]
    (2, 1.0, 1.0, 0.0)
    """
    scored = Scored.checked(labels, probabilities, operating_point.threshold)
    shown = shown_in("evaluation")

    def at(scored: Scored) -> Values:
        return scored.counts | {metric.name: metric.value(scored) for metric in shown if metric.needs_threshold}

    return EvaluationMetrics(
        n=int(scored.labels.size),
        n_positive=int(scored.labels.sum()),
        threshold=float(operating_point.threshold),
        temperature=float(operating_point.temperature),
        overall={metric.name: metric.value(scored) for metric in shown if not metric.needs_threshold},
        at_threshold=at(scored),
        at_half=at(Scored(scored.labels, scored.probabilities)),
    )


@dataclass(frozen=True)
class Assessment:
    """All metrics of one evaluation, with intervals.

    Attributes:
        labels: 1 for the positive class, (n,), in the order of the table.
        probabilities: Calibrated, of the positive class, (n,).
        groups: Group of each photograph, (n,); None if the photographs are treated as independent.
        threshold: The threshold of the operating point.
        overall: Metrics that need no threshold, by name.
        at_threshold: Metrics at the threshold, by name.
        at_half: The same at 0.5.
        counts: `tp`, `fp`, `fn`, `tn` at the threshold.
        counts_at_half: The same at 0.5.
        prevalences: (prevalence, PPV, NPV) at the threshold.
        warnings: Sentences on the limits of the intervals.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
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
        """Number of groups; 0 if the photographs are treated as independent."""
        return len(set(self.groups)) if self.groups else 0

    def estimates(self, metrics: Iterable[Metric]) -> dict[str, Estimate]:
        """Return the estimates of some metrics by name; those with a threshold at the operating point."""
        return {m.name: (self.at_threshold if m.needs_threshold else self.overall)[m.name] for m in metrics}


def assess(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: Sequence[str], threshold: float
) -> Assessment:
    """Compute all metrics of an evaluation with their 95 % intervals.

    Arguments are those of `Assessment`, but `groups` may be empty or contain empty texts; see `has_groups`.
    """
    known = tuple(groups) if has_groups(groups) else None
    scored, half = (Scored(labels, probabilities, point, known) for point in (threshold, 0.5))
    at_threshold, at_half = (
        {name: metric.estimate(one) for name, metric in METRICS.items() if metric.needs_threshold}
        for one in (scored, half)
    )
    rates = at_threshold["sensitivity"], at_threshold["specificity"]
    return Assessment(
        labels=labels,
        probabilities=probabilities,
        groups=known,
        threshold=threshold,
        overall={name: metric.estimate(scored) for name, metric in METRICS.items() if not metric.needs_threshold},
        at_threshold=at_threshold,
        at_half=at_half,
        counts=scored.counts,
        counts_at_half=half.counts,
        prevalences=tuple((prevalence, *predictive_values(*rates, prevalence)) for prevalence in PREVALENCES),
        warnings=tuple(_warnings(groups, known, labels)),
    )


def _warnings(names: Sequence[str], groups: Sequence[str] | None, labels: NDArray[np.int64]) -> Iterator[str]:
    n_named = sum(map(bool, names))
    if groups is not None:
        n_groups = len(set(groups))
        if n_groups < FEW_GROUPS:
            found = f"There {'is' if n_groups == 1 else 'are'} only {counted(n_groups, 'group')}"
            yield f"{found}; intervals based on fewer than {FEW_GROUPS} groups are not reliable."
    elif not n_named:
        yield (
            "No photograph has a group (tree, site, burst), so all are treated as independent. If several show one "
            "tree, the intervals are too narrow."
        )
    else:
        reason = "No two photographs are of one group"
        if n_named < len(names):
            reason = (
                f"Only {n_named} of {counted(len(names), 'photograph')} {'has' if n_named == 1 else 'have'} a group"
            )
        yield f"{reason}, so all are treated as independent and the intervals may be too narrow."
    if labels.min() == labels.max():
        yield "All photographs are of one class; metrics that compare the classes cannot be estimated."
