"""Features of what lies outside the leaf, and where the classes differ most there."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bldml.audit.examine import Row
from bldml.audit.traces.surroundings import CELLS, MARK_CELLS, OUTER
from bldml.run.baselines import Features

MIN_FREE = 0.75  # of the photographs, in which a cell of the thumbnail must be free of leaf

Floats = NDArray[np.floating]


def processing(rows: Sequence[Row]) -> Features:
    """Return the traces of processing, (n, columns)."""
    return _filled(np.stack([row.file.surroundings.processing for row in rows]))


def background(rows: Sequence[Row]) -> Features:
    """Return the colours of the thumbnails' cells without leaf, less their median, (n, columns)."""
    pixels = _cells(rows)
    return _filled(pixels.reshape(len(rows), -1)[:, ~np.isnan(pixels).all(axis=0).ravel()])


def _cells(rows: Sequence[Row]) -> Floats:
    """Return the colours of cells less their median, (n, 256, 3); NaN for leaf, and for cells that it often covers."""
    pixels = np.stack([row.file.thumbnail for row in rows if row.file.thumbnail is not None]).astype(np.float32)
    pixels = pixels.reshape(len(rows), -1, 3)
    free = np.stack([row.file.surroundings.free.ravel() for row in rows])
    pixels[~free] = np.nan
    # Not np.nanmedian, which takes several times the memory.
    ordered, count = np.sort(pixels, axis=1), free.sum(axis=1)  # NaN comes last
    row = np.arange(len(rows))
    pixels -= ((ordered[row, (count - 1) // 2] + ordered[row, count // 2]) / 2)[:, None]
    pixels[:, free.mean(axis=0) < MIN_FREE] = np.nan
    return pixels


def marks(rows: Sequence[Row]) -> Features:
    """Return the marks in each outer cell, and the largest of each kind, (n, columns)."""
    found = _marks(rows)
    largest = np.where(np.isnan(found), 0, found).max(axis=2)
    return np.hstack([_filled(found.reshape(len(rows), -1)), largest])


def _marks(rows: Sequence[Row]) -> Floats:
    return np.stack([row.file.surroundings.marks for row in rows]).astype(np.float32)


def _filled(values: Floats) -> Features:
    """Return values in which the unknown (NaN) are the mean of their column; 0 where none is known."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(known, values, total / np.maximum(1, known.sum(axis=0))).astype(np.float32)


def strongest_place(name: str, rows: Sequence[Row], label: NDArray[np.int64]) -> str:
    """Return where in the image the classes differ most, for background and marks; empty for other sources."""
    if name not in ("background", "marks"):
        return ""
    values = _cells(rows).swapaxes(1, 2) if name == "background" else _marks(rows)  # (n, kinds, cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # cells that are never free
        step = np.abs(np.nanmean(values[label == 1], axis=0) - np.nanmean(values[label == 0], axis=0))
        strength = np.nan_to_num(step / (np.nanstd(values, axis=0) + 1e-3)).max(axis=0)
    side = CELLS if name == "background" else MARK_CELLS
    cells = np.arange(CELLS**2) if name == "background" else np.flatnonzero(OUTER)
    return place_words(int(cells[strength.argmax()]), side)


def place_words(cell: int, side: int) -> str:
    """Return in words where a cell of a square grid lies.

    >>> place_words(7, 8), place_words(60, 8), place_words(27, 8)
    ('top right', 'bottom', 'middle')
    """
    row, column = (3 * part // side for part in divmod(cell, side))
    words = (("top", "", "bottom")[row], ("left", "", "right")[column])
    return " ".join(filter(None, words)) or "middle"
