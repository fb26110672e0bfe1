"""The first screen of a report: what is known to be wrong, and one table of the sets that count."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bldml.io.text import Cell, counted, number, plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.estimates import Estimate
from bldml.metrics.proportions import predictive_values
from bldml.metrics.registry import METRICS
from bldml.report import certainty, claims, run_claims
from bldml.report.evaluation_tables import role_label
from bldml.report.tables import ESTIMATE_COLUMNS, Entry, Table, count, estimate_cells, interval_text, precise_number
from bldml.run.baselines import Baselines, baselines_of
from bldml.run.card import stated_prevalence
from bldml.run.evidence import Evidence, RunEvidence, evidence_of
from bldml.run.reader import Evaluation, RunData

SETS_SHOWN = 4  # columns of the table; the table of all sets has the others
LEAVES = 1000  # of which the expected numbers are given
RARE, LEAVES_IF_RARE = 0.01, 100_000  # of so many below this prevalence
RATES = ("sensitivity", "specificity", "auroc")


class Part(NamedTuple):
    """One labelled evaluation with all that a report says about it."""

    evaluation: Evaluation
    assessment: Assessment
    evidence: Evidence
    baselines: Baselines | None
    prevalences: tuple[tuple[float, Estimate], ...]  # with the PPV: the one that the card states, or several

    @property
    def is_stated(self) -> bool:
        """Whether the card states the prevalence."""
        return len(self.prevalences) == 1

    @property
    def title(self) -> str:
        """Its name, with its role unless both are one word."""
        role = self.evaluation.role
        return plain(self.evaluation.name) + (
            "" if role == self.evaluation.name else f" ({role_label(self.evaluation)})"
        )


def read_parts(data: RunData) -> list[Part]:
    """Assess every labelled evaluation of a run, in the order of `RunData.evaluations`."""
    stated = stated_prevalence(data.config)
    parts = []
    for one in data.evaluations:
        found = one.assess(data.classes)
        rates = found.at_threshold["sensitivity"], found.at_threshold["specificity"]
        prevalences = (
            tuple((prevalence, ppv) for prevalence, ppv, _ in found.prevalences)
            if stated is None
            else ((stated, predictive_values(*rates, stated)[0]),)
        )
        parts.append(Part(one, found, evidence_of(data, one), baselines_of(data, one), prevalences))
    return parts


def headline_parts(data: RunData, parts: Sequence[Part]) -> list[Part]:
    """Return the test split and the sets that are none of the run's; without any, the strongest evidence that there is.

    The same photographs under two names are one set.
    """
    first = {same[0].name for same in data.sets}
    of_run = ("training", "validation")
    shown = [one for one in parts if one.evaluation.name in first and one.evaluation.role not in of_run]
    return shown or list(parts[:1])


def warnings(data: RunData, run: RunEvidence, shown: Sequence[Part], point: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is known to be wrong with the metrics of the sets that are shown, the gravest first.

    Each is a sentence, with the names of the sets that it is about, and more about it or nothing.
    """
    found: list[tuple[str, str, str]] = []
    for one in shown:
        text = claims.caution(one.evidence)
        found.append((one.title, text, claims.caution_with_rest(data, one.evaluation).removeprefix(text).strip()))
    found += [("", text, "") for text in run_claims.changed_files(run)]
    found.append(("", run_claims.leaks(run) if run.leaks else "", ""))
    shared = run_claims.shared_groups(run)
    found.append(("", shared and f"{shared}.", run_claims.groups(run)))
    found += [
        (one.title, f"{claims.NOT_SHOWN}.", claims.without_leaf(one.baselines))
        for one in shown
        if one.baselines and one.baselines.best and not one.baselines.is_exceeded
    ]
    for one in shown:
        auroc = one.assessment.overall["auroc"]
        verdict = claims.chance(auroc)
        found.append((one.title, verdict and f"{verdict}.", claims.at_chance(auroc)))
        strange = certainty.unfamiliar(one.evidence)
        found.append((one.title, strange, certainty.familiarity(one.evidence) if strange else ""))
    found += [(one.title, text, "") for one in shown for text in one.assessment.warnings]
    found += [("", text, "") for text in point]
    by_text: dict[str, list[tuple[str, str]]] = {}
    for title, text, more in found:
        if text:
            by_text.setdefault(text, []).append((title, more))
    return [_warning(text, of_sets) for text, of_sets in by_text.items()]


def _warning(text: str, of_sets: Sequence[tuple[str, str]]) -> tuple[str, str]:
    titles = ", ".join(title for title, _ in of_sets if title)
    several = len(of_sets) > 1
    more = " ".join(f"{title}: {more}" if several else more for title, more in of_sets if more)
    return f"{titles}: {text}" if titles else text, more


def headline_table(shown: Sequence[Part], positive: str) -> Table:
    """Return the metrics that a reader asks for first, one column per set.

    Args:
        shown: The sets; the table of the page has the first `SETS_SHOWN`, the CSV file all.
        positive: The positive class as text.
    """
    columns = [list(_entries(one, positive)) for one in shown[:SETS_SHOWN]]
    rows = tuple((title, *(column[index][1] for column in columns)) for index, (title, _) in enumerate(columns[0]))
    raw: list[list[Cell]] = [
        [one.evaluation.name, name, *estimate_cells(value)] for one in shown for name, value in _estimates(one)
    ]
    caption = "Metrics at the operating point, with 95 % intervals in brackets."
    origin = (
        "The prevalence is stated in the card"
        if shown[0].is_stated
        else "The prevalence in the field is not stated (card.prevalence), so several are shown"
    )
    note = (
        f"expected numbers, by sensitivity and specificity. {origin}. PPV: proportion of leaves predicted {positive} "
        f"that are {positive}"
    )
    header = ("Set", *(one.title for one in shown[:SETS_SHOWN]))
    return Table("headline", caption, header, rows, (("set", "metric", *ESTIMATE_COLUMNS), raw), (("a", note),))


def _estimates(part: Part) -> Iterator[tuple[str, Estimate]]:
    assessment = part.assessment
    yield from assessment.estimates([METRICS[name] for name in RATES]).items()
    if part.baselines and part.baselines.best:
        yield f"auroc_{part.baselines.best.name}", part.baselines.sources[part.baselines.best]
    yield from ((f"ppv_at_{prevalence:g}", ppv) for prevalence, ppv in part.prevalences)


def _entries(part: Part, positive: str) -> Iterator[tuple[Entry, Entry]]:
    """Yield title and cell of each row."""
    assessment = part.assessment
    units = claims.units(part.evidence)
    n = f"{count(assessment.n_positive)} {positive}{units}"
    yield Entry("Photographs"), Entry(count(assessment.n), n)
    for name, estimate in assessment.estimates([METRICS[name] for name in RATES]).items():
        fraction = METRICS[name].fraction(assessment.counts) if METRICS[name].needs_threshold else ""
        yield Entry(METRICS[name].label), _estimate(estimate, fraction)
    yield Entry("AUROC without the leaf"), _baseline(part.baselines)
    for prevalence, ppv in part.prevalences:
        leaves = LEAVES if prevalence >= RARE else LEAVES_IF_RARE
        title = Entry(f"Of {count(leaves)} leaves, {count(round(leaves * prevalence))} {positive}", mark="a")
        yield title, _frequencies(assessment, prevalence, ppv)


def _estimate(estimate: Estimate, fraction: str = "") -> Entry:
    if estimate.value is None:
        return Entry("not estimable", estimate.note)
    return Entry(precise_number(estimate.value), f"{fraction} {interval_text(estimate)}".strip())


def _baseline(found: Baselines | None) -> Entry:
    if found is None:
        return Entry("not recorded")
    if found.best is None:
        return Entry("not tested", found.advantage.note)
    return _estimate(found.sources[found.best], f"{found.best.title}")


def _frequencies(assessment: Assessment, prevalence: float, ppv: Estimate) -> Entry:
    rates = [assessment.at_threshold[name].value for name in ("sensitivity", "specificity")]
    if rates[0] is None or rates[1] is None:
        return Entry("not estimable", ppv.note)
    leaves = LEAVES if prevalence >= RARE else LEAVES_IF_RARE
    found, missed, alarms = expected_numbers(rates[0], rates[1], prevalence, leaves)
    text = f"{count(found)} found, {count(missed)} missed, {counted(alarms, 'false alarm')}"
    value = f"PPV {number(ppv.value)} {interval_text(ppv)}".rstrip() if ppv.value is not None else ""
    return Entry(text, value or ppv.note)


def expected_numbers(
    sensitivity: float, specificity: float, prevalence: float, leaves: int = LEAVES
) -> tuple[int, int, int]:
    """Return how many of so many leaves are found, missed, and false alarms, rounded; all rates are in [0, 1].

    >>> expected_numbers(0.9, 0.98, 0.05)
    (45, 5, 19)
    """
    positives = round(leaves * prevalence)
    found = round(sensitivity * positives)
    return found, positives - found, round((1 - specificity) * (leaves - positives))
