"""Whether configurations are better than the baseline, a logistic regression on features of the frozen backbone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bldml.metrics.estimates import Estimate
from bldml.sweep.experiment import FEATURES
from bldml.sweep.plan import Candidate
from bldml.sweep.results.assessment import Findings, Pair
from bldml.sweep.results.gathering import Contender

Finding = Literal["better", "worse", "different", "not significant", "not tested"]


@dataclass(frozen=True)
class Against:
    """A configuration against a baseline: one of the pairs, with the configuration first.

    Attributes:
        configuration, baseline: Their names, as a page shows them.
        difference: The metric of the configuration minus that of the baseline, with its interval.
        p: The p value, adjusted over all pairs; None if the pair was not tested.
        finding: What the test found; "different" where no higher or lower value of the metric is better.
    """

    configuration: str
    baseline: str
    difference: Estimate
    p: float | None
    finding: Finding


def baselines(findings: Findings) -> list[Contender]:
    """Return the configurations whose head is a logistic regression on features of the frozen backbone."""
    found = findings.experiment.configurations
    return [one for one in found if _setting(findings, one.candidate, "model.head") == "logistic"]


def against_baseline(findings: Findings) -> list[Against]:
    """Return each other configuration against the baseline of its features, or against all if it has none."""
    known, found = baselines(findings), []
    for one in findings.experiment.compared:
        if one in known:
            continue
        own = [each for each in known if all(_is_same(findings, one, each, key) for key in FEATURES)]
        found += [_against(findings, pair) for each in own or known for pair in _pairs(findings, one, each)]
    return found


def _setting(findings: Findings, candidate: Candidate, key: str) -> object:
    return candidate.options.get(key, findings.experiment.plan.settings.get(key))


def _is_same(findings: Findings, one: Contender, other: Contender, key: str) -> bool:
    return _setting(findings, one.candidate, key) == _setting(findings, other.candidate, key)


def _pairs(findings: Findings, one: Contender, baseline: Contender) -> Iterator[Pair]:
    """Yield the pair of the two, with the baseline second, if it was compared."""
    for pair in findings.pairs:
        if (pair.first, pair.second) == (one.name, baseline.name):
            yield pair
        elif (pair.first, pair.second) == (baseline.name, one.name):
            yield pair.reversed


def _against(findings: Findings, pair: Pair) -> Against:
    value, better = pair.difference.value, findings.metric.better
    finding: Finding = "not significant"
    if pair.adjusted is None or value is None:
        finding = "not tested"
    elif pair.is_significant and better not in ("higher", "lower"):
        finding = "different"
    elif pair.is_significant:
        finding = "better" if (value > 0) == (better == "higher") else "worse"
    return Against(pair.first, pair.second, pair.difference, pair.adjusted, finding)
