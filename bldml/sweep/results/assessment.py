"""The figures of an experiment: estimates, spread and comparisons of its configurations."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from bldml.io.safe_points import safe_point
from bldml.metrics.estimates import Estimate, undefined
from bldml.metrics.metric import Metric
from bldml.metrics.paired import holm
from bldml.metrics.registry import METRICS, canonical, shown_in
from bldml.metrics.replicates.pooled import estimate_pooled
from bldml.metrics.replicates.rivals import Best, best_of, compare_pooled, corrected_t
from bldml.metrics.replicates.spread import Decomposition, Spread, decompose, spread_of
from bldml.sweep.results.gathering import Contender, Experiment
from bldml.sweep.results.opened import OpenedTest
from bldml.sweep.results.search import SearchFindings, assess_search

ALPHA = 0.05  # two-sided significance level of the family


@dataclass(frozen=True)
class Figures:
    """What one metric says of one configuration.

    Attributes:
        estimate: Pooled, with its interval by sampling unit.
        folds: Spread over the folds, each with the mean over its seeds; None without folds.
        seeds: Spread over seeds of the pooled value.
        parts: What training and photographs contribute; None with one seed, or where it cannot be computed.
    """

    estimate: Estimate
    folds: Spread | None
    seeds: Spread | None
    parts: Decomposition | None


@dataclass(frozen=True)
class Pair:
    """Two configurations compared by the metric of the experiment, first minus second.

    Attributes:
        first: Name of the first.
        second: Name of the second.
        difference: Of the pooled predictions of their common seeds, with its interval by sampling unit.
        p: Two-sided p value of it; None where it cannot be tested.
        over_runs: Mean difference over the runs of the same seed and fold, with the corrected interval.
        p_over_runs: Its p value.
        adjusted, adjusted_over_runs: The p values, adjusted by Holm's method over all pairs.
    """

    first: str
    second: str
    difference: Estimate
    p: float | None
    over_runs: Estimate
    p_over_runs: float | None
    adjusted: float | None = None
    adjusted_over_runs: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the configurations differ significantly."""
        return self.adjusted is not None and self.adjusted < ALPHA

    @property
    def reversed(self) -> "Pair":
        """The same pair, second minus first."""
        turned = [_reversed(one) for one in (self.difference, self.over_runs)]
        return replace(self, first=self.second, second=self.first, difference=turned[0], over_runs=turned[1])


def _reversed(difference: Estimate) -> Estimate:
    interval, value = difference.interval, difference.value
    turned = None if interval is None else replace(interval, low=-interval.high, high=-interval.low)
    return replace(difference, value=None if value is None else -value, interval=turned)


@dataclass(frozen=True)
class Findings:
    """The figures of an experiment.

    Attributes:
        experiment: What they are computed from.
        metric: That by which configurations are compared.
        shown: Metrics of the first table: those of a comparison, and this one.
        figures: By name of the configuration and of the metric, of every configuration with a result.
        pairs: All pairs of the compared configurations; empty without common seeds, and in a search.
        best: The best of the compared configurations by the metric; None if there is none.
        opened: The opened test set, which nothing else here is of.
        search: What the search found; None without a search.
    """

    experiment: Experiment
    metric: Metric
    shown: tuple[Metric, ...]
    figures: Mapping[str, Mapping[str, Figures]]
    pairs: tuple[Pair, ...]
    best: Best | None
    opened: OpenedTest
    search: SearchFindings | None = None

    @property
    def displayed(self) -> list[Contender]:
        """What has a column or a line of its own: all configurations; the best trials of a search, in their order."""
        found = {one.candidate.name: one for one in self.experiment.configurations}
        return [found[name] for name in self.search.shown] if self.search else list(found.values())

    def of(self, configuration: Contender, metric: Metric) -> Figures | None:
        """Return what a metric says of a configuration; None without a complete seed."""
        return self.figures.get(configuration.candidate.name, {}).get(metric.name)

    @property
    def values(self) -> dict[str, float | None]:
        """The metric of each compared configuration over their common seeds, by its name."""
        seeds = self.experiment.common_seeds
        return {
            one.candidate.name: one.result.of_seeds(seeds).value(self.metric)
            for one in self.experiment.compared
            if one.result and seeds
        }

    @property
    def best_configuration(self) -> Contender | None:
        """The best of the compared configurations by the metric."""
        return self.experiment.compared[self.best.which] if self.best else None


def assess_experiment(experiment: Experiment, opened: OpenedTest | None = None) -> Findings:
    """Return estimates, spread and comparisons of an experiment; `opened`, its test set, is in none of them."""
    metric = METRICS[canonical(experiment.plan.metric)]
    metrics = shown_in("evaluation")
    search = assess_search(experiment)
    configurations = list(experiment.configurations)
    few: set[str] = set()
    if search:
        few = {one.candidate.name for one in configurations} - {*search.shown}
        configurations += [search.procedure] if search.procedure else []
    figures = {
        one.candidate.name: {
            each.name: _figures(one, each, experiment) for each in ([metric] if one.candidate.name in few else metrics)
        }
        for one in configurations
        if one.result
    }
    shown = tuple(dict.fromkeys((metric, *shown_in("comparison"))))
    compared = experiment.compared if experiment.common_seeds else []
    rivals = [] if search else compared  # hundreds of pairs of trials are no hypotheses
    pairs = _adjusted([_pair(metric, experiment, *two) for two in combinations(rivals, 2)])
    pooled = [one.result.of_seeds(experiment.common_seeds) for one in compared if one.result]
    best = best_of(metric, pooled) if pooled else None
    return Findings(experiment, metric, shown, figures, tuple(pairs), best, opened or OpenedTest(), search)


def _figures(one: Contender, metric: Metric, experiment: Experiment) -> Figures:
    safe_point()
    assert one.result is not None
    pooled, folds = one.result.pooled, None
    if experiment.plan.folds:
        by_run = pooled.fold_values(metric)
        folds = spread_of(by_run.mean(axis=0))
    values = [math.nan if value is None else value for value in pooled.values(metric)]
    return Figures(estimate_pooled(metric, pooled), folds, spread_of(values), decompose(metric, pooled))


def _pair(metric: Metric, experiment: Experiment, first: Contender, second: Contender) -> Pair:
    safe_point()
    assert first.result is not None
    assert second.result is not None
    one, two = (each.result.of_seeds(experiment.common_seeds) for each in (first, second) if each.result)
    over_runs: tuple[Estimate, float | None] = undefined("no folds"), None
    if experiment.plan.folds:
        ratio = _test_over_train((first, second))
        over_runs = undefined("the numbers of training photographs are not recorded"), None
        if ratio:
            over_runs = corrected_t(one.fold_values(metric) - two.fold_values(metric), ratio)
    return Pair(first.name, second.name, *compare_pooled(metric, one, two), *over_runs)


def _test_over_train(configurations: Sequence[Contender]) -> float | None:
    """Return the mean number of test photographs for each training photograph; None where it is not recorded."""
    ratios = []
    for run in (run for one in configurations for run in one.runs):
        if run.data and run.evaluation:
            train = Counter(row["split"] for row in run.data.splits)["train"]
            if not train:
                return None
            ratios.append(len(run.evaluation.rows) / train)
    return float(np.mean(ratios)) if ratios else None


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with adjusted p values, those without a test left out of the family."""
    first = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    second = iter(holm([pair.p_over_runs for pair in pairs if pair.p_over_runs is not None]))
    return [
        replace(
            pair,
            adjusted=None if pair.p is None else next(first),
            adjusted_over_runs=None if pair.p_over_runs is None else next(second),
        )
        for pair in pairs
    ]
