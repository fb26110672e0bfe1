"""Input of the formulas: checked arrays, or an error that says what was found; the two classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Classes:
    """The two classes of a classifier.

    Args:
        negative: Name of the class with label 0.
        positive: Name of the class with label 1, which the classifier is to detect.
    """

    negative: str
    positive: str

    @property
    def names(self) -> tuple[str, str]:
        """Both names in the order of their labels: negative, positive."""
        return self.negative, self.positive

    def predicted(self, probability: float, threshold: float) -> str:
        """Return the name of the predicted class.

        Args:
            probability: Probability of the positive class, in [0, 1].
            threshold: Operating threshold, in [0, 1].

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
    values: ArrayLike, labels: ArrayLike, name: str, *, in_unit_range: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return scores and labels of the same shape (n,), labels 0 or 1; raise ValueError if they are not."""
    score, label = checked_scores(values, name), np.asarray(labels)
    if label.shape != score.shape:
        raise ValueError(f"Labels and {name} must have the same shape, found {label.shape} and {score.shape}.")
    if in_unit_range and score.size and (score.min() < 0 or score.max() > 1):
        raise ValueError(f"The {name} must lie in [0, 1], found {score.min()} to {score.max()}.")
    if not np.isin(label, (0, 1)).all():
        raise ValueError(f"The labels must be 0 or 1, found {np.unique(label)[:5].tolist()}.")
    return score, label.astype(np.int64)
