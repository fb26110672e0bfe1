"""Input of the formulas: checked arrays, or an error that says what was found; sampling units; the two classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.io.text import counted

FEW_UNITS = 8  # benchmarks/coverage.py simulates as many or more

Units = NDArray[np.int64]  # the sampling unit of each photograph, (n,), counted from 0
UnitKind = Literal["group", "burst", "group or burst", "photograph"]


class SamplingUnit(NamedTuple):
    """The group that was given for a photograph (tree, site) or, without one, the burst that it was found to be in.

    A group and a burst of one name are two units.
    """

    kind: Literal["group", "burst"]
    name: str


def sampling_unit(group: str, burst: str | None) -> SamplingUnit | None:
    """Return the unit of a photograph; None for one that is a unit of its own. Empty names are no units.

    >>> sampling_unit("tree 4", "a.jpg").name, sampling_unit("", "a.jpg").kind, sampling_unit("", None)
    ('tree 4', 'burst', None)
    """
    if group:
        return SamplingUnit("group", group)
    return SamplingUnit("burst", burst) if burst else None


@dataclass(frozen=True)
class Classes:
    """The names of the two classes: label 0, and label 1, which the classifier is to detect."""

    negative: str
    positive: str

    @property
    def names(self) -> tuple[str, str]:
        """Both names in the order of their labels."""
        return self.negative, self.positive

    def predicted(self, probability: float, threshold: float) -> str:
        """Return the name of the predicted class for a probability of the positive class.

        >>> Classes("No_BLD", "BLD").predicted(0.4, 0.4)
        'BLD'
        """
        return self.positive if probability >= threshold else self.negative


def checked_scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return scores as float64 (n,); raise ValueError if they are not finite or have another shape."""
    score = np.asarray(values, dtype=np.float64)
    if score.ndim != 1:
        raise ValueError(f"The {name} must have the shape (n,), found {score.shape}.")
    if not np.isfinite(score).all():
        raise ValueError(f"The {name} must be finite, {np.sum(~np.isfinite(score))} of {score.size} are not.")
    return score


def checked_pair(
    labels: ArrayLike, scores: ArrayLike, name: str = "scores"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and scores of the same shape (n,); raise ValueError if they are not, or a label is not 0 or 1."""
    label, score = np.asarray(labels), checked_scores(scores, name)
    if label.shape != score.shape:
        raise ValueError(f"Labels and {name} must have the same shape, found {label.shape} and {score.shape}.")
    if not np.isin(label, (0, 1)).all():
        raise ValueError(f"The labels must be 0 or 1, found {np.unique(label)[:5].tolist()}.")
    return label.astype(np.int64), score


def checked_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and probabilities as `checked_pair` does; raise ValueError also if one is outside [0, 1]."""
    label, probability = checked_pair(labels, probabilities, "probabilities")
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        raise ValueError(f"The probabilities must lie in [0, 1], found {probability.min()} to {probability.max()}.")
    return label, probability


def units_of(named: Sequence[SamplingUnit | None], n: int) -> Units:
    """Return the sampling unit of each of n photographs, (n,), counted from 0, from their names.

    A photograph without a name (None) is a unit of its own; without any name every photograph is.

    >>> b = SamplingUnit("burst", "b.jpg")
    >>> units_of([b, None, b, None], 4), units_of([], 2)
    (array([0, 1, 0, 2]), array([0, 1]))
    """
    names = named or [None] * n
    if len(names) != n:
        raise ValueError(f"Each photograph needs one unit: found {len(names)} units and {n} photographs.")
    seen: dict[SamplingUnit | int, int] = {}
    return np.array([seen.setdefault(name or number, len(seen)) for number, name in enumerate(names)], dtype=np.int64)


def unit_kind(named: Sequence[SamplingUnit | None]) -> UnitKind:
    """Return what the units are; photographs where no two have the same.

    >>> tree, burst = SamplingUnit("group", "1"), SamplingUnit("burst", "1")
    >>> unit_kind([tree, tree]), unit_kind([tree, burst, burst]), unit_kind([tree, burst, None])
    ('group', 'group or burst', 'photograph')
    """
    if not are_clustered(units_of(named, len(named))):
        return "photograph"
    kinds = {name.kind for name in named if name}
    return "group or burst" if len(kinds) == 2 else kinds.pop()


def checked_units(units: ArrayLike | None, n: int) -> Units:
    """Return units, (n,), counted from 0 without gaps; None for photographs that are units of their own.

    >>> checked_units([7, 3, 7], 3)
    array([1, 0, 1])
    """
    if units is None:
        return np.arange(n)
    unit = np.asarray(units)
    if unit.shape != (n,):
        raise ValueError(f"Each photograph needs one unit: found the shape {unit.shape} and {n} photographs.")
    index: Units = np.unique(unit, return_inverse=True)[1]
    return index


def are_clustered(units: Units) -> bool:
    """Return whether any unit has several photographs."""
    return np.unique(units).size < units.size


def units_in_words(units: Units) -> str:
    """Return how many units there are; they are photographs where none has several.

    >>> units_in_words(np.array([0, 0, 1])), units_in_words(np.array([0]))
    ('2 units', '1 photograph')
    """
    return counted(np.unique(units).size, "unit" if are_clustered(units) else "photograph")
