"""The definition of a metric, the data that it is computed from, and the rules for its interval.

`labels` and `probabilities` are as in `bldml.metrics.scores`; counts are photographs: tp, fp, fn, tn.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.checked import SamplingUnit, Units, checked_probabilities, units_of
from bldml.metrics.estimates import NO_VARIANCE, Estimate, undefined
from bldml.metrics.proportions import dirichlet_interval, proportion_by_unit
from bldml.metrics.resampling import jackknife

CELLS = ("tp", "fp", "fn", "tn")

RATES = ((("tp",), ("tp", "fn")), (("tn",), ("tn", "fp")))  # sensitivity and specificity

Value = float | None
Part = tuple[tuple[str, ...], tuple[str, ...]]  # cells of the numerator, cells of the denominator
Rule = Callable[["Metric", "Scored"], Estimate]
Better = Literal["higher", "lower", "neither"]
# metrics.json and metrics.csv of an evaluation; its section of the report; the table of all sets in the report; the
# terminal; the comparison of runs; the training history, from which --monitor chooses.
Output = Literal["evaluation", "report", "sets", "terminal", "comparison", "history"]
EVERYWHERE: tuple[Output, ...] = get_args(Output)


@dataclass(frozen=True)
class Scored:
    """Labels, probabilities and sampling units of photographs, from which a metric and its interval are computed.

    Args:
        labels: 1 for the positive class, (n,).
        probabilities: Of the positive class, in [0, 1], (n,).
        threshold: Lowest probability that is predicted positive; (n,) where that differs, as between folds.
        named_units: Sampling unit of each photograph, n names, None for a unit of its own; empty if all are.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    threshold: float | NDArray[np.float64] = 0.5
    named_units: Sequence[SamplingUnit | None] = ()

    @classmethod
    def checked(cls, labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> "Scored":
        """Return checked input; raise ValueError, which says what is wrong, if the arrays or the threshold are."""
        label, probability = checked_probabilities(labels, probabilities)
        if not math.isfinite(threshold):
            raise ValueError(f"The threshold must be a finite number, found {threshold}.")
        return cls(label, probability, threshold)

    @cached_property
    def units(self) -> Units:
        """Sampling unit of each photograph, (n,): its group, else its burst, else itself."""
        return units_of(self.named_units, self.labels.size)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """Index of the cell of each photograph in `CELLS`, (n,)."""
        predicted = self.probabilities >= self.threshold
        cells: NDArray[np.int64] = np.where(self.labels == 1, np.where(predicted, 0, 2), np.where(predicted, 1, 3))
        return cells

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of photographs in each cell: tp, fp, fn, tn."""
        return dict(zip(CELLS, np.bincount(self.cells, minlength=4).tolist(), strict=True))

    @cached_property
    def _proportions(self) -> dict[Part, Estimate]:
        return {}

    def proportion(self, part: Part) -> Estimate:
        """Return a proportion of photographs with its interval; computed once."""
        if part not in self._proportions:
            hits, among = (np.isin(self.cells, [CELLS.index(cell) for cell in cells]) for cells in part)
            self._proportions[part] = proportion_by_unit(hits[among], self.units[among])
        return self._proportions[part]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric, one row of the registry. It is computed in one of three ways: `part`, `of_counts`, `of_probabilities`.

    Args:
        name: Its name in files and on the command line.
        title: Its name on pages.
        short: Its short name, for table headers; if empty, the title up to its first bracket.
        definition: A formula or half a sentence, for the documentation.
        part: For a proportion of photographs: the cells of the numerator and those of the denominator, out of `tp`,
            `fp`, `fn`, `tn`. Function and range follow from it, and the interval if there is no rule.
        of_counts: Function of tp, fp, fn, tn; returns None if they do not define the metric.
        of_probabilities: Function of labels and probabilities; returns None if they do not define the metric.
        interval: Rule for its 95 % interval: `resampled` suits most metrics, or `no_interval` with the reason.
        better: Which values are better: higher, lower, neither, or the ideal value.
        range: Lowest and highest possible value.
        undefined: Reason that is printed if it is not defined.
        shown: Outputs in which it appears; by default all.
        aliases: Its former names.
    """

    name: str = ""
    title: str = ""
    short: str = ""
    definition: str = ""
    part: Part | None = None
    of_counts: Callable[[float, float, float, float], Value] | None = None
    of_probabilities: Callable[[NDArray[np.int64], NDArray[np.float64]], Value] | None = None
    interval: Rule | None = None
    better: Better | float | None = None
    range: tuple[float, float] | None = None
    undefined: str = "not defined by these counts"
    shown: tuple[Output, ...] = EVERYWHERE
    aliases: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its short name."""
        return self.short or self.title.partition(" (")[0]

    @property
    def needs_threshold(self) -> bool:
        """Whether its value depends on the threshold."""
        return self.of_probabilities is None

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest possible value."""
        return self.range or (0.0, 1.0)

    @property
    def worst(self) -> float:
        """The least favourable end of its range, for a metric of which higher or lower is better."""
        low, high = self.limits
        return high if self.better == "lower" else low

    def from_counts(self, tp: float, fp: float, fn: float, tn: float) -> Value:
        """Return its value for these counts; for a metric that needs a threshold."""
        if self.part is not None:
            of = dict(zip(CELLS, (tp, fp, fn, tn), strict=True))
            counted, among = (sum(of[cell] for cell in cells) for cells in self.part)
            return counted / among if among else None
        assert self.of_counts is not None
        return self.of_counts(tp, fp, fn, tn)

    def value(self, scored: Scored) -> Value:
        """Return its value as a float; None if it is not defined."""
        if self.of_probabilities is None:
            value = self.from_counts(**scored.counts)
        else:
            value = self.of_probabilities(scored.labels, scored.probabilities)
        return None if value is None else float(value)

    def estimate(self, scored: Scored) -> Estimate:
        """Return its value with the interval, or with the reason why it is missing."""
        if self.interval is not None:
            return self.interval(self, scored)
        assert self.part is not None
        return scored.proportion(self.part)

    def fraction(self, counts: dict[str, int]) -> str:
        """Return numerator and denominator of a proportion, such as 40/45; empty for any other metric."""
        return "/".join(str(sum(counts[cell] for cell in cells)) for cells in self.part or ())

    def lacking(self) -> Iterable[str]:
        """Yield half a sentence for each thing that the row lacks; nothing for a complete row."""
        for name in (self.name, *self.aliases):
            if not name.isidentifier() or name != name.lower():
                yield f"the name {name!r} must consist of lower-case letters, digits and underscores"
        one_way = sum(way is not None for way in (self.part, self.of_counts, self.of_probabilities)) == 1
        has_worst = self.better in ("higher", "lower") and math.isfinite(self.worst)
        checks = {
            "it has no title": self.title,
            "it has no definition": self.definition,
            "it needs exactly one of part, of_counts and of_probabilities": one_way,
            "it has no interval rule (such as resampled, or no_interval with the reason)": self.interval or self.part,
            "it has no direction: set better to higher, lower, neither or the ideal value": self.better is not None,
            "it has no range": self.range or self.part,
            "it cannot be shown in history: there an undefined value counts as the worst, and its range has none": (
                "history" not in self.shown or has_worst
            ),
        }
        yield from (sentence for sentence, is_met in checks.items() if not is_met)
        if one_way:
            yield from self._outside()

    def _outside(self) -> Iterable[str]:
        """Yield the first value outside the range, for a few samples; tests draw many more."""
        low, high = self.limits
        labels = np.array([1, 1, 1, 0, 0, 0])
        for probabilities in (labels * 0.8 + 0.1, 0.9 - labels * 0.8, np.array([0.9, 0.6, 0.2, 0.7, 0.3, 0.1])):
            value = self.value(Scored(labels, probabilities))
            if value is not None and not low <= value <= high:
                yield f"its value {value:g} is outside its range, {low:g} to {high:g}"
                return


# Rules for intervals.


def of_both(formula: Callable[[Estimate, Estimate], Estimate]) -> Rule:
    """Return a rule for a metric that is computed from the estimates of sensitivity and specificity."""
    return lambda _, scored: formula(*(scored.proportion(part) for part in RATES))


def resampled(metric: Metric, scored: Scored) -> Estimate:
    """Return a value with the interval of a jackknife of units; for a metric of counts, else with Jeffreys-Dirichlet's.

    The jackknife has no interval for a value at the end of the range, and too narrow a one with an empty cell.
    """
    value, interval = metric.value(scored), None
    if value is None:
        return undefined(metric.undefined)

    def statistic(index: NDArray[np.int64]) -> Value:
        if metric.of_probabilities is not None:
            return metric.of_probabilities(scored.labels[index], scored.probabilities[index])
        return metric.from_counts(*np.bincount(scored.cells[index], minlength=4).tolist())

    if not metric.needs_threshold or all(scored.counts.values()):
        interval = jackknife(statistic, scored.units, metric.limits)
    if interval is None and metric.needs_threshold:
        interval = dirichlet_interval(metric.from_counts, [*scored.counts.values()], scored.units)
    return Estimate(value, interval, "" if interval else NO_VARIANCE)


def no_interval(reason: str) -> Rule:
    """Return a rule for a metric without an interval, with the reason, as printed in footnotes."""

    def rule(metric: Metric, scored: Scored) -> Estimate:
        value = metric.value(scored)
        return undefined(metric.undefined) if value is None else Estimate(value, None, reason)

    return rule
