"""Sensitivity and specificity of parts of an evaluation: by original class, group, camera and day.

The original class is the class before `class_aliases`. It counts where several were merged into one class. Groups,
cameras and days count where there are enough: two or more with `LEAST` photographs of a class; the others are pooled.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from bldml.metrics.checked import UnitKind, sampling_unit, unit_kind, units_of
from bldml.metrics.estimates import Estimate, plain_limits
from bldml.metrics.proportions import proportion_by_unit
from bldml.run.photographs import PhotographRow
from bldml.run.predictions import Prediction
from bldml.run.provenance import ROLES
from bldml.run.reader import Evaluation, RunData

By = Literal["original class", "group", "camera", "day"]
LEAST = 10  # photographs of a class in a group, camera or day that is shown alone
MOST = 100  # groups, cameras or days that are shown alone, those with the most photographs
OTHERS, NOT_KNOWN = "(others)", "(not known)"
_VALUE_OF: dict[By, Callable[[Prediction, PhotographRow | None], str]] = {
    "original class": lambda _, row: row.original_class if row else "",
    "group": lambda prediction, _: prediction.group,
    "camera": lambda _, row: row.camera if row else "",
    "day": lambda _, row: row.taken[:10] if row else "",
}

Pair = tuple[Prediction, PhotographRow | None]


@dataclass(frozen=True)
class Subgroup:
    """Part of an evaluation.

    Attributes:
        by: What the photographs have in common.
        value: The original class, group, camera or day; `OTHERS` or `NOT_KNOWN`.
        n: Number of photographs.
        n_positive: Of the positive class.
        n_detected: Positives that were predicted positive.
        n_cleared: Negatives that were predicted negative.
        sensitivity, specificity: With intervals; not estimable without a photograph of the class.
        unit: What their sampling units are. Within a group these are bursts or photographs.
    """

    by: By
    value: str
    n: int
    n_positive: int
    n_detected: int
    n_cleared: int
    sensitivity: Estimate
    specificity: Estimate
    unit: UnitKind

    @property
    def lowest(self) -> float:
        """The lower one of sensitivity and specificity, by which subgroups of one kind are ordered."""
        return min(one.value for one in (self.sensitivity, self.specificity) if one.value is not None)

    def to_plain(self) -> dict[str, Any]:
        """Return the mapping that is written to metrics.json."""
        rates = {"sensitivity": self.sensitivity, "specificity": self.specificity}
        return {"by": self.by, "value": self.value, "n": self.n, "n_positive": self.n_positive} | {
            name: {"value": one.value, **plain_limits(one, self.unit)} for name, one in rates.items()
        }


def find_subgroups(
    predictions: Iterable[Prediction], photographs: Mapping[str, PhotographRow], positive: str
) -> list[Subgroup]:
    """Return the subgroups of labelled predictions, of each kind the one with the lowest rate first, pooled ones last.

    Args:
        predictions: Those of an evaluation.
        photographs: Their rows of photographs.csv by path, as far as they are recorded.
        positive: Name of the positive class.
    """
    pairs = [(one, photographs.get(one.path)) for one in predictions]
    found = []
    for by in get_args(By):
        parts = _merged(pairs) if by == "original class" else _enough(by, pairs)
        some = [_subgroup(by, value, part, positive) for value, part in parts]
        found += sorted(some, key=lambda one: (one.value in (OTHERS, NOT_KNOWN), one.lowest, one.value))
    return found


def subgroups_of(data: RunData, evaluation: Evaluation) -> list[Subgroup]:
    """Return the subgroups of a labelled evaluation of a run."""
    return find_subgroups(evaluation.rows, photographs_by_path(data, evaluation), data.classes.positive)


def photographs_by_path(data: RunData, evaluation: Evaluation) -> dict[str, PhotographRow]:
    """Return the rows of photographs.csv by their paths in the evaluation, as far as they are recorded.

    Those of the evaluation's own table or, in its absence and for a split of the run, of the run's.
    """
    if evaluation.photographs:
        return {row.path: row for row in evaluation.photographs}
    if evaluation.role not in ROLES.values():  # photographs of others may have the same names
        return {}
    return {row.path: row for row in data.photographs}


def original_classes(data: RunData, evaluation: Evaluation) -> dict[str, str]:
    """Return the original class by path, of the photographs whose class several were merged into."""
    photographs = photographs_by_path(data, evaluation)
    pairs = [(row, photographs.get(row.path)) for row in evaluation.rows]
    return {prediction.path: value for value, part in _merged(pairs) for prediction, _ in part}


def _merged(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield each original class of the classes that several were merged into, with its photographs."""
    parts: dict[tuple[str, str], list[Pair]] = {}
    for prediction, row in pairs:
        if row and row.original_class:
            parts.setdefault((prediction.true_class, row.original_class), []).append((prediction, row))
    of_class = Counter(true_class for true_class, _ in parts)
    for (true_class, original), part in parts.items():
        if of_class[true_class] > 1:
            yield original, part


def _enough(by: By, pairs: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield each value with enough photographs, then the others together; nothing if fewer than two have enough."""
    parts: dict[str, list[Pair]] = {}
    for pair in pairs:
        parts.setdefault(_VALUE_OF[by](*pair), []).append(pair)
    ranked = sorted(parts.items(), key=lambda item: (-len(item[1]), item[0]))
    large = {
        value: part
        for value, part in ranked
        if max(Counter(prediction.true_class for prediction, _ in part).values()) >= LEAST
    }
    shown = [value for value in large if value][:MOST]
    if len(shown) < 2:
        return
    unknown = large.get("", [])
    yield from ((value, large[value]) for value in shown)
    if unknown:
        yield NOT_KNOWN, unknown
    pooled = {*shown, ""} if unknown else {*shown}
    if rest := [pair for value, part in ranked if value not in pooled for pair in part]:
        yield OTHERS, rest


def _subgroup(by: By, value: str, pairs: Sequence[Pair], positive: str) -> Subgroup:
    rows = [prediction for prediction, _ in pairs]
    # The photographs of one group are a sample of this group alone.
    is_one_group = by == "group" and value not in (OTHERS, NOT_KNOWN)
    named = [sampling_unit("", row.burst) if is_one_group else row.unit for row in rows]
    units = units_of(named, len(rows))
    is_positive = np.array([row.true_class == positive for row in rows], dtype=np.bool_)
    is_right = np.array([not row.is_error for row in rows], dtype=np.bool_)
    sensitivity, specificity = (proportion_by_unit(is_right[one], units[one]) for one in (is_positive, ~is_positive))
    return Subgroup(
        by=by,
        value=value,
        n=len(rows),
        n_positive=int(is_positive.sum()),
        n_detected=int((is_right & is_positive).sum()),
        n_cleared=int((is_right & ~is_positive).sum()),
        sensitivity=sensitivity,
        specificity=specificity,
        unit=unit_kind(named),
    )
