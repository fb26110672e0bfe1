"""Input of the formulas: checked arrays, or an error that says what was found; the two classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


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


def checked_groups(groups: Sequence[str], n: int) -> tuple[NDArray[np.int64], str]:
    """Return the index of each photograph's group, (n,), in the order of their names, and how many groups there are.

    >>> checked_groups(["b", "a", "b"], 3)
    (array([1, 0, 1]), '2 groups')
    """
    if len(groups) != n:
        raise ValueError(f"Each photograph needs one group: found {len(groups)} groups and {n} photographs.")
    names, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    return index, f"{names.size} group{'' if names.size == 1 else 's'}"
