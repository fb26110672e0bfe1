"""All metrics of one evaluation: their values for metrics.json, and estimates with intervals for pages."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.checked import FEW_UNITS, SamplingUnit, UnitKind, Units, unit_kind, units_in_words
from bldml.metrics.estimates import Estimate, plain_limits
from bldml.metrics.metric import Metric, Scored
from bldml.metrics.operating_point import OperatingPoint, to_probabilities
from bldml.metrics.proportions import predictive_values
from bldml.metrics.registry import METRICS, canonical, shown_in
from bldml.metrics.scores import log_loss

NEAR = 3.0  # factor between the size of a set and a simulated one
SCHEMA = 2  # of metrics.json; 1 had no intervals, and 0.1 wrote none
_OWN = ("n", "n_positive", "threshold", "temperature")
_NESTED = ("at_threshold", "at_0.5")
_OPTIONAL = {"intervals": dict, "baselines": dict, "subgroups": list, "bands": dict, "novelty": dict}
PREVALENCES = (0.01, 0.05, 0.10, 0.30)

Values = dict[str, float | int | None]
Limits = dict[str, dict[str, float | str | None]]


@dataclass(frozen=True)
class EvaluationMetrics:
    """The content of metrics.json; a metric that is not defined is None.

    Attributes:
        n: Number of photographs.
        n_positive: Of the positive class.
        threshold: That of the operating point, in [0, 1].
        temperature: By which the logits were divided.
        overall: Metrics that need no threshold, by name, and `loss_uncalibrated`, the log loss at temperature 1.
        at_threshold: `tp`, `fp`, `fn`, `tn` and the metrics computed from them, at the threshold.
        at_half: The same at 0.5.
        intervals: `low`, `high`, `method` and `unit` (a `UnitKind`) of each metric, by name; nested as in metrics.json.
            Without an interval the limits are None, and the method is the reason. Empty if not computed.
        baselines: What metadata and image border alone reach, as `run.baselines.Baselines` writes it; empty if unknown.
        subgroups: Sensitivity and specificity of parts of the set, as `run.subgroups.Subgroup` writes them.
        bands: Fields of the classifier's `Bands`; empty if not recorded.
        novelty: `rate`, `n_train` and `n_val` of its `Novelty`; empty if not recorded.
    """

    n: int
    n_positive: int
    threshold: float
    temperature: float
    overall: Values
    at_threshold: Values
    at_half: Values
    intervals: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Any] = field(default_factory=dict)
    subgroups: list[dict[str, Any]] = field(default_factory=list)
    bands: dict[str, Any] = field(default_factory=dict)
    novelty: dict[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return the mapping that is written to metrics.json."""
        nested: dict[str, Any] = dict(zip(_NESTED, (self.at_threshold, self.at_half), strict=True))
        nested |= {name: getattr(self, name) for name in _OPTIONAL if getattr(self, name)}
        return {"schema": SCHEMA} | {key: getattr(self, key) for key in _OWN} | self.overall | nested

    @classmethod
    def from_plain(cls, plain: Any) -> "EvaluationMetrics":
        """Return the metrics from the content of metrics.json, also of schema 1 and 0.1 (no schema, some other names).

        Raises:
            ValueError: It is not the content of a metrics.json, or a newer version wrote it.
        """
        if not isinstance(plain, dict):
            raise ValueError("it is not a mapping")
        schema = plain.get("schema", 0)
        if schema not in range(SCHEMA + 1):
            raise ValueError(f"its schema is {schema!r}, this version of bldml reads {SCHEMA}")
        if missing := [key for key in (*_OWN, *_NESTED) if key not in plain]:
            raise ValueError(f"{', '.join(missing)} missing")
        nested, optional = (
            [plain[key] for key in _NESTED],
            {name: plain.get(name, kind()) for name, kind in _OPTIONAL.items()},
        )
        kinds = dict.fromkeys(_NESTED, dict) | _OPTIONAL
        for name, value in (dict(zip(_NESTED, nested, strict=True)) | optional).items():
            if not isinstance(value, kinds[name]):
                raise ValueError(f"{name} must be a {'mapping' if kinds[name] is dict else 'list'}")
        if optional["bands"]:
            Bands.from_plain(optional["bands"])
        rate = optional["novelty"].get("rate", 0)
        if optional["novelty"] and not (isinstance(rate, float) and 0 < rate < 1):
            raise ValueError("novelty must have a rate in (0, 1)")
        overall = {key: plain[key] for key in plain if key not in (*_OWN, *_NESTED, *_OPTIONAL, "schema")}
        if schema < SCHEMA:
            overall.pop("calibration_intercept", None)  # had a value with probabilities of 0 and 1
        own = {key: plain[key] for key in _OWN}
        renamed, at_threshold, at_half = map(_renamed, (overall, *nested))
        return cls(**own, overall=renamed, at_threshold=at_threshold, at_half=at_half, **optional)


def _renamed(values: Values) -> Values:
    return {canonical(name): value for name, value in values.items()}


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    operating_point: OperatingPoint,
    named_units: Sequence[SamplingUnit | None] | None = None,
) -> EvaluationMetrics:
    """Compute the content of metrics.json, with intervals if the sampling units are given, as in `Scored`.

    The probabilities are calibrated: `to_probabilities(logits, operating_point.temperature)`.

    >>> metrics = evaluate([0, 1], [0.2, 0.4], OperatingPoint(threshold=0.3, temperature=1.0))
    >>> metrics.n, metrics.overall["auroc"], metrics.at_threshold["sensitivity"], metrics.at_half["sensitivity"]
    (2, 1.0, 1.0, 0.0)
    """
    scored = replace(Scored.checked(labels, probabilities, operating_point.threshold), named_units=named_units or ())
    half, shown = replace(scored, threshold=0.5), shown_in("evaluation")

    def at(scored: Scored) -> Values:
        return scored.counts | {metric.name: metric.value(scored) for metric in shown if metric.needs_threshold}

    def limits(scored: Scored, *, at_threshold: bool) -> Limits:
        chosen = (metric for metric in shown if metric.needs_threshold == at_threshold)
        return {metric.name: plain_limits(metric.estimate(scored), unit) for metric in chosen}

    intervals: dict[str, Any] = {}
    if named_units is not None:
        unit = unit_kind(named_units)
        nested = (limits(one, at_threshold=True) for one in (scored, half))
        intervals = limits(scored, at_threshold=False) | dict(zip(_NESTED, nested, strict=True))

    return EvaluationMetrics(
        n=int(scored.labels.size),
        n_positive=int(scored.labels.sum()),
        threshold=float(operating_point.threshold),
        temperature=float(operating_point.temperature),
        overall={metric.name: metric.value(scored) for metric in shown if not metric.needs_threshold}
        | {"loss_uncalibrated": loss_uncalibrated(scored.labels, scored.probabilities, operating_point)},
        at_threshold=at(scored),
        at_half=at(half),
        intervals=intervals,
    )


def loss_uncalibrated(labels: ArrayLike, probabilities: ArrayLike, operating_point: OperatingPoint) -> float | None:
    """Return the log loss that the probabilities would have without the temperature; None without photographs."""
    return log_loss(labels, to_probabilities(operating_point.uncalibrated(probabilities)))


@dataclass(frozen=True)
class Assessment:
    """All metrics of one evaluation, with intervals.

    Attributes:
        labels: 1 for the positive class, (n,), in the order of the table.
        probabilities: Calibrated, of the positive class, (n,).
        units: Sampling unit of each photograph, (n,): its group, else its burst, else itself.
        unit: What they are.
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
    units: Units
    unit: UnitKind
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
    def n_units(self) -> int:
        """Number of sampling units; 0 if none has two photographs."""
        return 0 if self.unit == "photograph" else np.unique(self.units).size

    def estimates(self, metrics: Iterable[Metric]) -> dict[str, Estimate]:
        """Return the estimates of some metrics by name; those with a threshold at the operating point."""
        return {m.name: (self.at_threshold if m.needs_threshold else self.overall)[m.name] for m in metrics}


def assess(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    named_units: Sequence[SamplingUnit | None],
    threshold: float,
) -> Assessment:
    """Compute all metrics of an evaluation with their 95 % intervals.

    Arguments are those of `Assessment` and `Scored`.
    """
    scored, half = (Scored(labels, probabilities, point, named_units) for point in (threshold, 0.5))
    at_threshold, at_half = (
        {name: metric.estimate(one) for name, metric in METRICS.items() if metric.needs_threshold}
        for one in (scored, half)
    )
    rates = at_threshold["sensitivity"], at_threshold["specificity"]
    return Assessment(
        labels=labels,
        probabilities=probabilities,
        units=scored.units,
        unit=unit_kind(named_units),
        threshold=threshold,
        overall={name: metric.estimate(scored) for name, metric in METRICS.items() if not metric.needs_threshold},
        at_threshold=at_threshold,
        at_half=at_half,
        counts=scored.counts,
        counts_at_half=half.counts,
        prevalences=tuple((prevalence, *predictive_values(*rates, prevalence)) for prevalence in PREVALENCES),
        warnings=tuple(_warnings(scored)),
    )


def _warnings(scored: Scored) -> Iterator[str]:
    n_units = np.unique(scored.units).size
    if n_units < min(FEW_UNITS, scored.units.size):
        found = f"There {'is' if n_units == 1 else 'are'} only {units_in_words(scored.units)}"
        yield f"{found}; intervals were tested with {FEW_UNITS} units or more, and are not reliable with fewer."
    if scored.labels.min() == scored.labels.max():
        yield "All photographs are of one class; metrics that compare the classes cannot be estimated."


@dataclass(frozen=True)
class Simulation:
    """The coverage that 95 % intervals had in simulations of one size.

    Args:
        size: What was simulated, in words.
        n: Number of simulated sets, in each case.
        coverage: Proportion of the sets whose interval contained the true value, in the worst case of that size, by
            name of the metric.
    """

    size: str
    n: int
    coverage: Mapping[str, float]


def simulation_near(assessment: Assessment) -> Simulation | None:
    """Return the simulation of benchmarks/coverage.py whose size is nearest; None if none is near.

    The size is the number of sampling units or, if these have less than two photographs on average, that of photographs
    by class; near is up to three times as many or as few.
    """
    n, n_units = assessment.n, np.unique(assessment.units).size
    is_clustered = n >= 2 * n_units
    here = (
        {"units": n_units}
        if is_clustered
        else {"positive": assessment.n_positive, "negative": n - assessment.n_positive}
    )
    document = json.loads((files("bldml.metrics") / "coverage.json").read_text(encoding="utf-8"))
    distances = {
        max(abs(math.log(max(n, 0.1) / setting[key])) for key, n in here.items()): setting
        for setting in document["settings"]
        if here.keys() <= setting.keys()
    }
    if min(distances) > math.log(NEAR):
        return None
    found = distances[min(distances)]
    size = (
        f"{found['units']} units of {found['size']} photographs each"
        if is_clustered
        else f"{found['positive']} positive and {found['negative']} negative photographs"
    )
    return Simulation(size, document["simulations"], found["coverage"])
