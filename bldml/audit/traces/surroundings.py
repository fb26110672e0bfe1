"""What a photograph looks like outside its leaf: traces of processing, and marks such as dates, labels and rulers."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from bldml.audit.traces.leaf import Mask, Pixels, find_leaf, outside_of

CELLS = 16  # a side, as of the thumbnail
MARK_CELLS = 8  # a side; only the outermost are searched for marks
TILE = 32  # pixels a side, of the decoded image
MAX_TILES, MIN_TILES = 40, 4  # measured
_MARK_SIDE = 256  # pixels of the longer side; a larger image is shrunk to it
_LEVELS = 60  # grey levels that an edge, or a colour unlike the background's, differs by
_COLOURED, _WHITE = 100, 235  # grey levels: difference of two channels; the darkest channel
_BANDS = 10  # of spatial frequency
_KERNEL = np.ones((3, 3), dtype=np.uint8)

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[np.float16]

_band = np.minimum(_BANDS - 1, np.rint(np.hypot(*np.mgrid[:8, :8])).astype(int)).ravel()
_BY_BAND = np.argsort(_band, kind="stable")  # coefficients of a block in the order of their bands
_COUNTS = np.bincount(_band).astype(np.float32)
_STARTS = np.searchsorted(_band[_BY_BAND], np.arange(_BANDS))
PROCESSING = 2 * _BANDS - 1 + 2 + 4  # numbers
MARK_KINDS = 4
_FREE_BYTES = CELLS * CELLS // 8
OUTER = np.ones((MARK_CELLS, MARK_CELLS), dtype=bool)
OUTER[1:-1, 1:-1] = False


@dataclass(frozen=True, eq=False, slots=True)
class Surroundings:
    """Measured outside the leaf; in the whole image if no leaf was found. Packed, because an audit holds many."""

    has_leaf: bool = False  # whether a leaf was found
    packed: bytes = b""  # see `pack`; empty if nothing was measured

    @property
    def is_measured(self) -> bool:
        """Whether the other properties mean anything."""
        return bool(self.packed)

    @property
    def free(self) -> Mask:
        """Cells without leaf, (CELLS, CELLS)."""
        if not self.packed:
            return np.ones((CELLS, CELLS), dtype=bool)
        bits = np.frombuffer(self.packed, dtype=np.uint8, count=_FREE_BYTES)
        return np.unpackbits(bits).astype(bool).reshape(CELLS, CELLS)

    @property
    def processing(self) -> Stored:
        """Traces of processing, (PROCESSING,); NaN if unknown."""
        return self._numbers()[:PROCESSING]

    @property
    def marks(self) -> Stored:
        """Marks in the outer cells, (MARK_KINDS, cells); NaN if unknown."""
        return self._numbers()[PROCESSING:].reshape(MARK_KINDS, -1)

    def _numbers(self) -> Stored:
        if not self.packed:
            return np.full(PROCESSING + MARK_KINDS * int(OUTER.sum()), np.nan, dtype=np.float16)
        return np.frombuffer(self.packed, dtype=np.float16, offset=_FREE_BYTES)


def pack(free: Mask, processing: Floats, marks: Floats) -> bytes:
    """Return the content of `Surroundings.packed`."""
    numbers = np.concatenate([processing, marks.ravel()]).astype(np.float16)
    return np.packbits(free).tobytes() + numbers.tobytes()


def measure_surroundings(pixels: Pixels) -> Surroundings:
    """Measure what a photograph looks like outside its leaf, as it was decoded."""
    small = _shrunk(pixels)
    leaf = find_leaf(small)
    outside = outside_of(leaf)
    free = cv2.resize(outside, (CELLS, CELLS), interpolation=cv2.INTER_AREA) == 1
    return Surroundings(leaf is not None, pack(free, _processing(pixels, outside), _marks(small, outside)))


def _shrunk(pixels: Pixels) -> Pixels:
    longer = max(pixels.shape[:2])
    if longer <= _MARK_SIDE:
        return pixels
    height, width = (max(MARK_CELLS, round(side * _MARK_SIDE / longer)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _processing(pixels: Pixels, outside: Floats) -> Floats:
    """Return energy by frequency, coefficients that are nearly 0, edges of blocks, and colour noise.

    They are computed from tiles of the decoded pixels: each is the median over 8 × 8 blocks, or a mean over all.
    """
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    if not rows or not columns:
        return np.full(PROCESSING, np.nan, dtype=np.float32)
    usable = np.flatnonzero(cv2.resize(outside, (columns, rows), interpolation=cv2.INTER_AREA) == 1)
    if usable.size < MIN_TILES:
        return np.full(PROCESSING, np.nan, dtype=np.float32)
    if usable.size > MAX_TILES:
        usable = usable[np.linspace(0, usable.size - 1, MAX_TILES).astype(int)]
    grid = pixels[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    tiles = grid[usable // columns, usable % columns].reshape(-1, TILE, 3)
    luma, *chroma = (plane.astype(np.float32) for plane in cv2.split(cv2.cvtColor(tiles, cv2.COLOR_RGB2YCrCb)))
    blocks = luma.reshape(-1, 8, TILE // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    # No product of matrices: BLAS starts threads for these, which wait for each other longer than they compute.
    coefficients = np.abs(dctn(blocks, axes=(1, 2), norm="ortho").reshape(-1, 64)[:, _BY_BAND])
    energy = np.median(np.log(np.add.reduceat(coefficients**2, _STARTS, axis=1) / _COUNTS + 0.02), axis=0)
    nearly_zero = np.add.reduceat((coefficients < 0.75).mean(axis=0), _STARTS) / _COUNTS
    noise = [_colour_noise(plane) for plane in chroma]
    return np.concatenate([energy, nearly_zero[1:], _block_edges(luma), *noise], dtype=np.float32, casting="same_kind")


def _block_edges(luma: Floats) -> Floats:
    """Return the step between neighbouring blocks of 8 × 8, and the largest at another offset, over the mean step."""
    across = np.abs(luma[:, 1:] - luma[:, :-1]).mean(axis=0)
    down = np.abs(luma[1:] - luma[:-1]).mean(axis=1)
    across = np.append(across, across[23]).reshape(-1, 8).mean(axis=0)
    down = np.append(down, down[23]).reshape(-1, TILE)[:, : TILE - 8].reshape(-1, 3, 8).mean(axis=(0, 1))
    steps = across + down
    steps /= steps.mean() + np.float32(0.02)
    return np.array([steps[7], steps[:7].max()], dtype=np.float32)


def _colour_noise(plane: Floats) -> list[np.float32]:
    """Return the logarithm of the smallest detail of a colour channel, and how much smaller it is than the next."""
    half = plane[::2, ::2]
    fine = np.abs(half - plane[::2, 1::2] - plane[1::2, ::2] + plane[1::2, 1::2]).mean()
    coarse = np.abs(half[::2, ::2] - half[::2, 1::2] - half[1::2, ::2] + half[1::2, 1::2]).mean()
    return [np.log(fine + np.float32(0.02)), np.log((coarse + np.float32(0.02)) / (fine + np.float32(0.02)))]


def _marks(small: Pixels, outside: Floats) -> Floats:
    """Return the square root of four parts of each outer cell, (4, 28); NaN where less than half is free of leaf.

    The parts are edges, colours unlike the median outside the leaf, strong colours, and white.
    """
    height, width = small.shape[:2]
    inside = cv2.resize(outside, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    sample = small[::4, ::4][inside[::4, ::4] > 0]
    middle = np.median(sample, axis=0) if sample.size else np.zeros(3)
    low, high = _extremes(small)
    _, edges = _extremes(cv2.morphologyEx(small, cv2.MORPH_GRADIENT, _KERNEL))
    _, difference = _extremes(cv2.absdiff(small, np.array([*middle, 0.0])))
    kinds = (edges > _LEVELS, difference > _LEVELS, high - low > _COLOURED, low > _WHITE)
    found = cv2.merge([kind.view(np.uint8) * inside * np.uint8(255) for kind in kinds])
    size = (MARK_CELLS, MARK_CELLS)
    parts = cv2.resize(found, size, interpolation=cv2.INTER_AREA)[OUTER].astype(np.float32) / 255
    free = cv2.resize(outside, size, interpolation=cv2.INTER_AREA)[OUTER]
    return np.where(free >= 0.5, np.sqrt(parts / np.maximum(free, 0.5)[:, None]).T, np.nan).astype(np.float32)


def _extremes(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the darkest and the brightest channel of each pixel, (height, width)."""
    red, green, blue = cv2.split(pixels)
    return cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
