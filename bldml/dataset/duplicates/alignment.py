"""Align images by cosine coefficients: the orientation and the crop at which their details are most similar."""

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Coefficients = npt.NDArray[np.float32]  # cosine coefficients of small images, (n, SIDE, SIDE): rows first

SIDE = 22  # coefficients stored per axis: up to 21 half waves across the image
COMPARED = 18
"""Coefficients compared per axis. A crop stretches waves: the highest ones need coefficients that are not stored."""
STEP = 1 / 160  # smallest step of a crop, as a fraction of the side
DEEPEST = 10  # largest crop at one side, in steps: 6.25 %
POINTS = 44  # side of the small image, in pixels

_EMPHASIS = 1.6  # power of the frequency that coefficients are multiplied by
_FINEST = 17  # half waves across the image from which noise and recompression outweigh details
_GOOD = 0.985  # similarity above which no better crop is searched
_SEARCH = ((2, 0.6), (2, 0.75), (1, 0.85), (1, 0.9))  # step, and the similarity below which a pair is dropped


@cache
def cosines(count: int, points: int, start: float = 0.0, end: float = 1.0) -> Coefficients:
    """Sample the first cosines at the midpoints of equal parts of [start, end], (count, points); orthonormal on [0, 1].

    >>> bool(np.allclose(cosines(4, 9) @ cosines(4, 9).T, np.eye(4), atol=1e-6))
    True
    """
    positions = start + (end - start) * (np.arange(points) + 0.5) / points
    waves = np.cos(np.pi * np.outer(np.arange(count), positions)) * np.sqrt(2 / points)
    waves[0] /= np.sqrt(2)
    return np.asarray(waves, np.float32)


@cache
def crops() -> Coefficients:
    """Return matrices [i, j] that map the coefficients of an axis to those after cropping i and j steps at its ends."""
    steps = range(DEEPEST + 1)
    whole = cosines(COMPARED, POINTS)
    return np.array([[whole @ cosines(SIDE, POINTS, i * STEP, 1 - j * STEP).T for j in steps] for i in steps])


def crop(coefficients: Coefficients, cut: npt.NDArray[np.intp]) -> Coefficients:
    """Return the coefficients of cropped images, (n, COMPARED, COMPARED).

    `cut` holds the steps to crop, (n, 4) or (4,): top, bottom, left, right.
    """
    rows, columns = crops()[cut[..., 0], cut[..., 1]], crops()[cut[..., 2], cut[..., 3]]
    return np.asarray(rows @ coefficients @ columns.swapaxes(-1, -2))


@cache
def _emphasis() -> Coefficients:
    # In photographs the amplitude falls with the frequency. Without emphasis on details, any two leaves on white would
    # be similar because both are dark in the middle.
    frequency = np.hypot.outer(np.arange(COMPARED), np.arange(COMPARED))
    return np.asarray(frequency**_EMPHASIS * (frequency < _FINEST), np.float32)


def standard(coefficients: Coefficients) -> Coefficients:
    """Emphasise details and remove brightness and contrast (norm 1 or 0), (n, COMPARED, COMPARED)."""
    shape = coefficients[..., :COMPARED, :COMPARED] * _emphasis()
    norm = np.sqrt((shape**2).sum((-1, -2), keepdims=True))
    return np.asarray(shape / np.where(norm > 0, norm, 1), np.float32)


def _orientations(shapes: Coefficients) -> Coefficients:
    """Return all eight orientations, rotated and mirrored, (8, n, side, side)."""
    sign = np.resize(np.array([1, -1], np.float32), shapes.shape[-1])
    mirrored = [shapes, shapes * sign, shapes * sign[:, None], shapes * sign * sign[:, None]]
    return np.stack(mirrored + [shape.swapaxes(-1, -2) for shape in mirrored])


def oriented(images: Coefficients, orientation: int) -> Coefficients:
    """Return images, rows first, (n, side, side), in one of the orientations of `_orientations`."""
    turned = images[:, :, ::-1] if orientation & 1 else images
    turned = turned[:, ::-1] if orientation & 2 else turned
    return turned.swapaxes(-1, -2) if orientation & 4 else turned


class Alignment(NamedTuple):
    """How n images fit best to others, pair by pair."""

    similarity: npt.NDArray[np.float32]  # correlation in [-1, 1], (n,)
    orientation: npt.NDArray[np.intp]  # of the second image, number in `_orientations`, (n,)
    cut: npt.NDArray[np.intp]  # crop of the first image, see `crop`, (n, 4)


def better_alignment(first: Alignment, second: Alignment) -> Alignment:
    """Return of each pair the alignment with the higher similarity."""
    is_second = second.similarity > first.similarity
    return Alignment(
        np.where(is_second, second.similarity, first.similarity),
        np.where(is_second, second.orientation, first.orientation),
        np.where(is_second[:, None], second.cut, first.cut),
    )


def align(whole: Coefficients, part: Coefficients, cut: npt.NDArray[np.intp]) -> Alignment:
    """Align images with others that may be crops of them: all orientations of `part`, crops of `whole` from `cut` on.

    The first crop of each pair is in `cut`, (n, 4).
    """
    turned = _orientations(standard(part))
    scores = np.einsum("onij,nij->on", turned, standard(crop(whole, cut)))
    which = scores.argmax(0)
    best = scores[which, np.arange(len(which))]
    target = turned[which, np.arange(len(which))]
    for step, least in _SEARCH:
        unsure = np.flatnonzero((best < _GOOD) & (best > least))
        if not unsure.size:
            break
        best[unsure], cut = _improve(whole[unsure], target[unsure], cut, unsure, best[unsure], step)
    return Alignment(np.asarray(best, np.float32), which, cut)


def _improve(
    whole: Coefficients,
    target: Coefficients,
    cut: npt.NDArray[np.intp],
    rows: npt.NDArray[np.intp],
    best: npt.NDArray[np.float32],
    step: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """Move the crop by a step, first along the rows, then along the columns, wherever that increases the similarity."""
    cut = cut.copy()
    for axis in (0, 2):
        start = cut[rows]
        for change in product((-step, 0, step), repeat=2):
            if any(change):
                tried = start.copy()
                tried[:, axis : axis + 2] = np.clip(tried[:, axis : axis + 2] + change, 0, DEEPEST)
                score = (standard(crop(whole, tried)) * target).sum((-1, -2))
                better = score > best
                best = np.where(better, score, best)
                cut[rows[better]] = tried[better]
    return best, cut
