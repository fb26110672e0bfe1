"""How certain predictions are and how like the training photographs: sentences of evidence alone, and a table."""

from collections.abc import Sequence

from bldml.io.text import counted, number, plain
from bldml.metrics.assessment import Assessment
from bldml.metrics.certainty.conformal import ONE_IN, error_in_one_of, estimate_bands, units_needed
from bldml.metrics.checked import Classes
from bldml.metrics.estimates import Estimate
from bldml.report.tables import (
    ESTIMATE_COLUMNS,
    Entry,
    Footnotes,
    Table,
    estimate_cells,
    estimate_entry,
    interval_text,
    precise_number,
)
from bldml.run.evidence import Evidence
from bldml.run.reader import Evaluation


def doubts(evidence: Evidence) -> str:
    """Say how many photographs the classifier knows nothing about, and between which limits it is uncertain."""
    return " ".join(filter(None, (familiarity(evidence), banding(evidence))))


def not_recorded(evidences: Sequence[Evidence]) -> list[tuple[str, str]]:
    """Return title and text of what no evaluation has, because the checkpoint does not; nothing if one has it."""
    if any(one.bands or one.flagged for one in evidences):
        return []
    text = (
        "Whether photographs are like those that the classifier learned from, and bands of certainty, are not recorded."
    )
    return [("Certainty of single predictions", text)] if evidences else []


def familiarity(evidence: Evidence) -> str:
    """Say how many photographs are unlike the training photographs; empty for these, which set what is like them."""
    found = evidence.flagged
    if evidence.role == "training":
        return ""
    if found is None:
        return "Whether they are like the photographs that the classifier learned from is not recorded."
    are = "is" if found.n == 1 else "are"
    text = f"{found.n:,} of {counted(evidence.n, 'photograph')} {are} not like those that the classifier learned from"
    if evidence.role == "validation":
        return f"{text}: the limit was chosen on them."
    expected = f"{found.expected:.2g} are expected of leaves like those of validation"
    return f"{text} (proportion {number(found.proportion.value)} {interval_text(found.proportion)}; {expected})."


def unfamiliar(evidence: Evidence) -> str:
    """Say that far more photographs than expected are unlike the training photographs; empty where it is not shown."""
    found = evidence.flagged
    if found is None or not found.is_far or evidence.role in ("training", "validation"):
        return ""
    return "Far more photographs than expected are not like those that the classifier learned from."


def banding(evidence: Evidence) -> str:
    """Say what the bands are, of validation also what they promise, or why there are none."""
    bands = evidence.bands
    if bands is None:
        return "Bands of certainty are not recorded."
    units = f"{bands.n_positive:,} positive and {counted(bands.n_negative, 'negative sampling unit')}"
    if bands.low is None or bands.high is None:
        return (
            f"There are no bands of certainty: an error of {bands.error:g} needs {units_needed(bands.error):,} "
            f"sampling units of each class in validation, which has {units}."
        )
    middle = "nothing is uncertain" if bands.low == bands.high else "uncertain between them"
    limits = (
        f"Bands: negative below {precise_number(bands.low)}, positive from {precise_number(bands.high)} on, {middle}."
    )
    if evidence.role != "validation":
        return limits
    tails = [precise_number(error_in_one_of(n, bands.error), 2) for n in (bands.n_positive, bands.n_negative)]
    return (
        f"{limits} On average, at most {bands.error:g} of new leaves of a class get the band of the other. The limits "
        f"come from {units}; with so many, about one fit in {ONE_IN} exceeds {tails[0]} of the positive and {tails[1]} "
        "of the negative leaves. Where the same photographs chose among several epochs, both are a little higher."
    )


def certainty_table(
    evaluation: Evaluation, assessment: Assessment, evidence: Evidence, classes: Classes
) -> Table | None:
    """Return proportions of photographs with intervals by sampling unit; None where neither is recorded."""
    negative, positive = map(plain, classes.names)
    found: list[tuple[str, str, Estimate, tuple[int, int], str]] = []
    bands = evaluation.bands
    if bands is not None:
        estimates = estimate_bands(bands, assessment.labels, assessment.probabilities, assessment.units)
        if estimates is not None:
            most = f"at most {bands.error:g}"
            shown = (
                ("uncertain", "Uncertain", estimates.uncertain, ""),
                ("error", "Errors among the others", estimates.error, ""),
                ("positive_as_negative", f"{positive} with the band negative", estimates.positive, most),
                ("negative_as_positive", f"{negative} with the band positive", estimates.negative, most),
            )
            found += [(*row[:3], counts, row[3]) for row, counts in zip(shown, estimates.counts, strict=True)]
    if evidence.flagged is not None:
        flagged = evidence.flagged
        counts = flagged.n, len(evaluation.rows)
        found.append(("unlike", "Unlike the training photographs", flagged.proportion, counts, f"{flagged.expected:g}"))
    if not found:
        return None
    notes = Footnotes()
    rows = tuple(
        (Entry(title), estimate_entry(estimate, notes, f"{hits}/{n}"), Entry(expected or "–"))
        for _, title, estimate, (hits, n), expected in found
    )
    raw = [[name, hits, n, *estimate_cells(estimate), expected] for name, _, estimate, (hits, n), expected in found]
    caption = (
        "Proportions of photographs that are uncertain or unlike the training photographs, with 95 % intervals by "
        "sampling unit. Expected: on average over validation sets, on leaves like the validation photographs."
    )
    names = ("proportion", "hits", "n", *ESTIMATE_COLUMNS, "expected")
    return Table("certainty", caption, ("Photographs", "Proportion", "Expected"), rows, (names, raw), notes.all)
