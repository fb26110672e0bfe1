"""What a comparison says in words: the verdict, and how the numbers came about."""

from collections.abc import Iterable

from bldml.io.text import counted
from bldml.metrics.estimates import Estimate
from bldml.report.compare import ALPHA, Comparison


def verdict(comparison: Comparison) -> str:
    """Say in a sentence which runs can be told apart by accuracy."""
    apart = [d for d in comparison.differences if d.accuracy_adjusted is not None and d.accuracy_adjusted < ALPHA]
    best = comparison.standings[0].run.name
    if not apart:
        return "By accuracy no two of them can be told apart; a higher figure alone does not make one better."
    equal = [
        d.second if d.first == best else d.first
        for d in comparison.differences
        if best in (d.first, d.second) and d not in apart
    ]
    told = f"By accuracy {len(apart)} of {counted(len(comparison.differences), 'pair')} can be told apart"
    if equal:
        return f"{told}; the most accurate run, {best}, cannot be told apart from {', '.join(equal)}."
    return f"{told}; the most accurate run, {best}, is better than every other one."


def notes(comparison: Comparison, estimates: Iterable[Estimate]) -> list[str]:
    """Say how the numbers were computed and what they do not say.

    Args:
        comparison: what is shown.
        estimates: everything in it that has an interval; their methods are named.
    """
    number = len(comparison.differences)
    pairs = "the one pair" if number == 1 else f"all {number} pairs"
    methods = dict.fromkeys(estimate.interval.method for estimate in estimates if estimate.interval is not None)
    if comparison.n_groups:
        units = (
            f"The photographs are of {counted(comparison.n_groups, 'group')} and those of one group are alike, so "
            "groups were resampled as a whole. McNemar's test takes photographs as independent: it is shown but does "
            "not decide."
        )
    else:
        units = (
            "By accuracy McNemar's exact test decides. The photographs have no groups (tree, site, burst) and were "
            "taken as independent; where several are of one leaf or tree, intervals are too narrow and p too small."
        )
    found = [
        f"Intervals are of 95 %: {'; '.join(methods) or 'none could be estimated'}.",
        units,
        f"Two families of tests were declared: {pairs} by accuracy and {pairs} by AUROC. Within "
        f"each, p values are adjusted by Holm's method; two runs are told apart where the adjusted p is below {ALPHA}.",
        "That two runs cannot be told apart does not mean that they are equally good.",
        "Each run is used at its own operating point, chosen on its validation photographs.",
        "A difference of two training runs need not be one of their architectures: other seeds give other runs.",
    ]
    if any(standing.run.costs.images_per_second is not None for standing in comparison.standings):
        found.append(
            "Photographs per second are those of this evaluation, reading and decoding included, on the machine that "
            "made it; only figures of one machine can be compared."
        )
    return found
