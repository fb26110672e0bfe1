"""Distance of a photograph's features from those of the training photographs, and its limit.

Lee et al. (2018), A Simple Unified Framework for Detecting Out-of-Distribution Samples, with one mean for both classes;
covariance by Ledoit and Wolf (2004), of which the largest principal components are kept (Tipping and Bishop 1999).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bldml.metrics.certainty.conformal import conformal_limit, units_needed
from bldml.metrics.checked import Units
from bldml.metrics.estimates import Estimate
from bldml.metrics.proportions import proportion_by_unit

COMPONENTS = 256
MOST = 8192  # training photographs that are used, evenly spaced
RATE = 0.02  # of leaves like the validation photographs that are flagged
FAR = 2.0  # a proportion that is shown to be more than so many times the expected one is worth a warning
_ROWS = 4096  # of photographs at a time

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Novelty:
    """Normal distribution of the training photographs' features, and the limit of the distance from it.

    Args:
        mean: float32 (d,).
        basis: Principal components, orthonormal rows, float32 (k, d).
        variances: Along them, greater than 0, float32 (k,).
        rest: Variance along every other direction, greater than 0.
        limit: Mahalanobis distance beyond which a photograph counts as unlike the training photographs.
        rate: Expected proportion of leaves like the validation photographs beyond the limit.
        n_train: Number of training photographs.
        n_val: Number of sampling units of the validation photographs.
    """

    mean: Floats
    basis: Floats
    variances: Floats
    rest: float
    limit: float = np.inf
    rate: float = RATE
    n_train: int = 0
    n_val: int = 0

    @property
    def width(self) -> int:
        """Number of features, d."""
        return int(self.mean.size)

    def distances(self, features: Floats) -> NDArray[np.float64]:
        """Return the distance of each photograph in multiples of the limit, (n,), from features (n, d).

        More than 1 is unlike the training photographs. The Mahalanobis distance itself if no limit is set.
        """
        parts = [self._mahalanobis(features[start : start + _ROWS]) for start in range(0, len(features), _ROWS)]
        distance: NDArray[np.float64] = np.concatenate(parts) if parts else np.zeros(0)
        return distance / self.limit if np.isfinite(self.limit) else distance

    def _mahalanobis(self, features: Floats) -> NDArray[np.float64]:
        centred = features.astype(np.float64) - self.mean
        along = centred @ self.basis.astype(np.float64).T
        beside = np.maximum(np.sum(centred**2, axis=1) - np.sum(along**2, axis=1), 0)
        distance: NDArray[np.float64] = np.sqrt(np.sum(along**2 / self.variances, axis=1) + beside / self.rest)
        return distance


@dataclass(frozen=True)
class JointNovelty:
    """Distances of several networks as one: the mean of those in multiples of their limits.

    Args:
        parts: What each network has recorded, in the order in which their features stand side by side.
        limit: Mean beyond which a photograph counts as unlike the training photographs.
        rate: Expected proportion of leaves like those that the limit was chosen on beyond it, judged by as many
            networks as these were.
        n_train: Number of photographs that any of the networks learned from.
        n_val: Number of sampling units of the photographs that the limit was chosen on.
    """

    parts: tuple[Novelty, ...]
    limit: float
    rate: float
    n_train: int
    n_val: int

    @property
    def width(self) -> int:
        """Number of features of all networks together."""
        return sum(part.width for part in self.parts)

    def distances(self, features: Floats) -> NDArray[np.float64]:
        """Return the distance of each photograph in multiples of the limit, (n,), from features (n, d1 + d2 + …)."""
        ends = np.cumsum([part.width for part in self.parts])[:-1]
        pairs = zip(self.parts, np.split(features, ends, axis=1), strict=True)
        mean: NDArray[np.float64] = np.mean([part.distances(own) for part, own in pairs], axis=0)
        return mean / self.limit


AnyNovelty = Novelty | JointNovelty


def join_novelties(
    parts: Sequence[Novelty], distances: NDArray[np.float64], units: Units, n_train: int
) -> JointNovelty | None:
    """Return the distances of several networks as one, with a limit by photographs that were judged unseen.

    The limit is chosen as that of `fit_novelty`. Where fewer networks have judged these photographs than there are,
    their means vary more than those of all networks, so that rather fewer than `rate` of new leaves are flagged.

    Args:
        parts: What each network has recorded.
        distances: Mean distance of each photograph by the networks that did not learn from it, (m,).
        units: Sampling units of these photographs, (m,).
        n_train: Number of photographs that any of the networks learned from.

    Returns:
        None without photographs, or if the limit is not above 0.
    """
    if not len(distances) or not np.isfinite(distances).all():
        return None
    limit, rate, n_units = _limit_of(distances, units)
    return JointNovelty(tuple(parts), limit, rate, n_train, n_units) if limit > 0 else None


def _limit_of(distances: NDArray[np.float64], units: Units) -> tuple[float, float, int]:
    """Return the limit, the proportion of new leaves that is expected beyond it, and the number of units."""
    n_units = int(np.unique(units).size)
    rate = RATE if n_units >= units_needed(RATE) else 1 / (n_units + 1)
    limit = conformal_limit(distances, units, rate)
    assert limit is not None
    return float(limit), rate, n_units


def fit_novelty(train: Floats, validation: Floats, units: Units) -> Novelty | None:
    """Fit the distribution on training photographs, and the limit on validation photographs.

    The limit is the lowest validation distance beyond which `RATE` of new leaves are expected, or the largest one where
    the validation photographs are of fewer units than that needs; see `conformal_limit`. Training photographs would
    give a limit that is too low: the network has learned their features.

    Args:
        train: Features of the training photographs, (n, d).
        validation: Those of the validation photographs, (m, d).
        units: Sampling units of these, (m,).

    Returns:
        None without two different training photographs, without validation photographs, or if a feature is not finite.
    """
    from scipy.linalg import eigh  # take time to load
    from sklearn.covariance import ledoit_wolf_shrinkage

    if len(train) < 2 or not len(validation) or not (np.isfinite(train).all() and np.isfinite(validation).all()):
        return None
    train = train[np.unique(np.linspace(0, len(train) - 1, MOST).astype(int))]
    n, d = train.shape
    mean = train.mean(axis=0, dtype=np.float64)
    centred = train - mean
    trace = float(np.sum(centred**2)) / n
    if trace <= 0:
        return None
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    k = min(COMPONENTS, d - 1, n - 1)
    # The smaller of the two matrices with the same eigenvalues.
    matrix, is_small = (centred @ centred.T, True) if n < d else (centred.T @ centred, False)
    values, vectors = eigh(matrix / n, subset_by_index=(len(matrix) - k, len(matrix) - 1))
    values = np.maximum(values, 0)
    basis = (vectors.T @ centred) / np.sqrt(n * np.maximum(values, 1e-12 * trace))[:, None] if is_small else vectors.T
    floor = shrinkage * trace / d
    rest = (1 - shrinkage) * max(trace - float(values.sum()), 0) / (d - k) + floor
    variances = (1 - shrinkage) * values + floor
    found = Novelty(mean.astype(np.float32), basis.astype(np.float32), variances.astype(np.float32), rest)
    limit, rate, n_units = _limit_of(found.distances(validation), units)
    if not limit > 0:
        return None
    return Novelty(found.mean, found.basis, found.variances, rest, limit, rate, n, n_units)


@dataclass(frozen=True)
class Flagged:
    """Photographs of a set that are unlike the training photographs.

    Args:
        n: Their number.
        proportion: Their proportion of the set, with its interval by sampling unit.
        expected: Their expected proportion of leaves like the validation photographs.
    """

    n: int
    proportion: Estimate
    expected: float

    @property
    def is_far(self) -> bool:
        """Whether the proportion is shown to be more than `FAR` times the expected one."""
        interval = self.proportion.interval
        return interval is not None and interval.low > FAR * self.expected


def count_flagged(distances: ArrayLike, units: Units, expected: float) -> Flagged:
    """Count the photographs with a distance of more than 1, the limit; both arrays are (n,)."""
    hits = np.asarray(distances) > 1
    return Flagged(int(hits.sum()), proportion_by_unit(hits, units), expected)
