"""Details of a photograph, region by region: a shared frame, ruler or interface does not make two photographs alike.

A perceptual hash is dominated by what is strongest: the edge of a black border, a bar of a phone's interface. So the
details of each region are also stored with the same weight, divided by the local contrast. Two photographs are near
duplicates only if nearly all regions agree, also beside what many photographs share.

Squared paper, the label of a sheet or the bars of an interface lie in one place of many photographs and may outweigh
the leaf. They are known by comparing a photograph with others that resemble it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from bldml.dataset.duplicates.alignment import DEEPEST, STEP, Alignment, oriented

Grid = npt.NDArray[np.float32]  # details of n photographs, (n, DETAIL_SIDE, DETAIL_SIDE), in local standard deviations

_Indexes = npt.NDArray[np.intp]
_Packed = npt.NDArray[np.uint8]  # packed details of photographs, (n, DETAIL_BYTES); zeros if unknown
_OfRegions = npt.NDArray[np.bool_]  # (regions a side, regions a side)

DETAIL_SIDE = 32
DETAIL_BYTES = DETAIL_SIDE * DETAIL_SIDE // 2  # four bits each

_POINTS = 2 * DETAIL_SIDE  # side of the grey image that details are measured in, in pixels
_WIDTH = 2.5  # standard deviation of the local mean and contrast, in those pixels
_NOISE = 6.0  # grey levels added to the local contrast: plain ground has no details
_LARGEST = 1.6  # local standard deviations that the largest step stands for
_REGION, _SHIFT = 8, 4  # side of a region, and distance to the next, in cells of the grid
_PLAIN = 0.05  # mean square of the details of a region below which it shows nothing
_DISAGREEING = 0.1  # fraction of the details that may differ: a date stamp, a caption
_LEAST_INSIDE = 0.3  # fraction of the inner regions that must show something: the corner of a lens is no evidence
# Least correlation of regions that agree. Equal frames lie exactly on each other, where a copy agrees nearly perfectly.
# A cropped copy lies between the cells, so its regions agree less, but all of them about as well.
_AGREE_UNCROPPED, _AGREE_CROPPED = 0.88, 0.65
_SLIGHT, _BELOW_BEST = 3, 0.2  # after a crop of so many steps: by how much less than the best quarter of the regions
_FEWEST, _MOST = 2, 16  # other photographs that one is compared with
_LIKE_OTHERS = 0.8  # least correlation of a region with the same one of another photograph
_OF_OTHERS = 0.25  # fraction of the others that a shared region is like, and at least `_FEWEST`
_IN_PLACE = 0.8  # fraction of the shared regions that are as alike in both photographs without a crop
_DISAGREEING_BESIDE = 0.05  # fraction of the other details that may differ where most details are shared

# Padding: rows whose grey levels lie within so many of each other, if the photograph beside them differs by so many
# along half its edge. So a bar of an interface is no padding, and neither is the white paper around a leaf.
_EDGES = ((1.5, 6.0), (4.0, 12.0))
_ALONG = 0.5
_LEVEL = 4.0  # largest difference of a row's level from that of the outermost rows
_MIXED = 2  # outermost rows that may be a mixture with the frame around
_RINGING = 4  # rows beside the photograph that compression may have changed, at most
_LEAST_SIDE = 0.2  # fraction of a side that must remain
_NESTED = 3  # frames within each other


def without_padding(grey: Image.Image) -> Image.Image:
    """Return a grey image without bars and frames of constant grey levels around a rectangular photograph.

    A row more is left out at each bar, because it may be a mixture of both.

    >>> padded = Image.new("L", (80, 80), 0)
    >>> padded.paste(Image.radial_gradient("L").resize((80, 40)), (0, 20))
    >>> without_padding(padded).size
    (80, 38)
    """
    for _ in range(_NESTED):
        levels = np.asarray(grey, np.float32)
        top, bottom = _padding(levels), _padding(levels[::-1])
        left, right = _padding(levels.T), _padding(levels.T[::-1])
        box = (left, top, grey.width - right, grey.height - bottom)
        if not any((left, top, right, bottom)):
            break
        if box[2] - box[0] < _LEAST_SIDE * grey.width or box[3] - box[1] < _LEAST_SIDE * grey.height:
            break
        grey = grey.crop(box)
    return grey


def _padding(levels: npt.NDArray[np.float32]) -> int:
    """Return the number of first rows that are padding."""
    if len(levels) <= _MIXED or _spread(levels[_MIXED]) > _EDGES[-1][0]:
        return 0  # as in most photographs
    level = float(np.median(levels[min(_MIXED, len(levels) - 1)]))
    for evenness, edge in _EDGES:
        rows = next((i for i in range(_MIXED, len(levels)) if not _is_even(levels[i], level, evenness)), len(levels))
        if _MIXED < rows < len(levels):
            ringing = np.abs(np.median(levels[rows : rows + _RINGING], axis=1) - level) <= _LEVEL
            rows += len(ringing) if ringing.all() else int(ringing.argmin())
            inside = levels[min(rows + 1, len(levels) - 1)]
            if np.mean(np.abs(inside - level) > edge) >= _ALONG:
                return rows + 1  # the next row may be a mixture of both
    return 0


def _is_even(row: npt.NDArray[np.float32], level: float, evenness: float) -> bool:
    """Return whether 94 % of a row's grey levels lie within `evenness` of each other, and its mean near a level."""
    return bool(_spread(row) <= evenness and abs(row.mean() - level) <= _LEVEL)


def _spread(row: npt.NDArray[np.float32]) -> float:
    """Return the range of the grey levels of a row without the 3 % at both ends."""
    few = len(row) * 3 // 100
    ordered = np.sort(row)
    return float(ordered[len(row) - 1 - few] - ordered[few])


def measure_details(grey: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the packed details of a grey image of any size, (DETAIL_BYTES,)."""
    levels = np.asarray(grey.resize((_POINTS, _POINTS), Image.Resampling.BILINEAR), np.float32)
    blur = _blur()
    difference = levels - blur @ levels @ blur
    contrast = np.sqrt(np.maximum(blur @ difference**2 @ blur, 0))
    details = (difference / (contrast + _NOISE)).reshape(DETAIL_SIDE, 2, DETAIL_SIDE, 2).mean((1, 3))
    steps = np.floor(np.sign(details) * np.sqrt(np.abs(details) / _LARGEST) * 7.5).clip(-8, 7).astype(np.int8) + 8
    pairs = steps.astype(np.uint8).reshape(-1, 2)
    return np.asarray(pairs[:, 0] << 4 | pairs[:, 1], np.uint8)


def _unpack(packed: npt.NDArray[np.uint8]) -> Grid:
    """Return the details of n photographs; packed are (n, DETAIL_BYTES)."""
    return _steps()[np.stack([packed >> 4, packed & 15], -1)].reshape(-1, DETAIL_SIDE, DETAIL_SIDE)


@dataclass(frozen=True)
class _Compared:
    """How the details of n pairs agree, region by region; arrays are (n, regions a side, regions a side)."""

    weight: Grid  # how much a region shows; 0 for plain ground
    correlation: Grid
    differs: npt.NDArray[np.bool_]  # regions that show something and do not agree

    def agree(
        self, regions: npt.NDArray[np.bool_] | bool = True, disagreeing: float = _DISAGREEING
    ) -> npt.NDArray[np.bool_]:
        """Return whether the details agree in nearly all regions that show something, pair by pair, (n,).

        Args:
            regions: Which regions are asked, (regions a side, regions a side); True for all.
            disagreeing: Fraction of their details that may differ.
        """
        agree = (self.weight[:, 1:-1, 1:-1] > 0).mean((1, 2)) >= _LEAST_INSIDE
        weight = self.weight * regions
        for part in (slice(None), slice(1, -1)):
            differing = (weight * self.differs)[:, part, part].sum((1, 2))
            agree &= differing <= disagreeing * weight[:, part, part].sum((1, 2))
        return np.asarray(agree)


def _compare(first: Grid, second: Grid, steps: npt.NDArray[np.intp]) -> _Compared:
    """Compare the details of pairs of photographs, which have the same orientation and crop.

    `steps`, (n,), is the deepest crop at one side that this needed.
    """
    products, one, other = (_regions(values) for values in (first * second, first**2, second**2))
    shown = np.maximum(one, other) / _REGION**2
    weight = np.where(shown < _PLAIN, 0, np.minimum(shown, 10 * _PLAIN))
    correlation = products / np.sqrt(np.maximum(one * other, 1e-9))
    best = np.quantile(np.where(weight > 0, correlation, -1).reshape(len(first), -1), 0.75, axis=1)
    after_slight = np.clip(best - _BELOW_BEST, _AGREE_CROPPED, _AGREE_UNCROPPED)
    least = np.select([steps <= 1, steps <= _SLIGHT], [_AGREE_UNCROPPED, after_slight], _AGREE_CROPPED)
    return _Compared(weight, correlation, (weight > 0) & (correlation < least[:, None, None]))


def _regions(values: Grid) -> Grid:
    """Return the sums over overlapping square regions, (n, regions a side, regions a side)."""
    inside = _cells_of_regions()
    return np.asarray(inside @ values @ inside.T)


@cache
def _cells_of_regions() -> npt.NDArray[np.float32]:
    start, cells = np.arange(0, DETAIL_SIDE - _REGION + 1, _SHIFT)[:, None], np.arange(DETAIL_SIDE)
    return np.asarray((cells >= start) & (cells < start + _REGION), np.float32)


@cache
def _steps() -> npt.NDArray[np.float32]:
    middle = (np.arange(16, dtype=np.float32) - 7.5) / 7.5
    return np.asarray(np.sign(middle) * middle**2 * _LARGEST, np.float32)


@cache
def _blur() -> npt.NDArray[np.float32]:
    """Return a Gaussian blur with reflection at the ends as a symmetric matrix."""
    position = np.arange(_POINTS)
    waves = np.cos(np.pi * np.outer(position, position + 0.5) / _POINTS) * np.sqrt(2 / _POINTS)
    waves[0] /= np.sqrt(2)
    kept = np.exp(-((np.pi * position / _POINTS * _WIDTH) ** 2) / 2)
    return np.asarray(waves.T * kept @ waves, np.float32)


@cache
def _crops(deepest: int, step: float) -> npt.NDArray[np.float32]:
    """Return matrices [i, j] that crop i and j steps, up to `deepest`, at the ends of an axis of a grid.

    A step is a fraction of the side; values are interpolated linearly.
    """
    cuts, cells = np.arange(deepest + 1) * step, np.arange(DETAIL_SIDE)
    start, length = cuts[:, None, None], 1 - cuts[:, None, None] - cuts[None, :, None]
    position = (start + (cells + 0.5) / DETAIL_SIDE * length) * DETAIL_SIDE - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(position.clip(0, DETAIL_SIDE - 1)[..., None] - cells)), np.float32)


class Confirmation:
    """Confirms pairs of photographs, the first of one collection, the second of another, or of the same.

    Args:
        whole: Details of the first collection.
        part: Details of the second; the same array if it is the same.
        resembling: Which of them resemble each other as they are, (m, 2): index into `whole`, and into `part`.
    """

    def __init__(self, whole: _Packed, part: _Packed, resembling: _Indexes) -> None:
        self._collections = whole, part
        self._resembling = [resembling[np.argsort(resembling[:, side], kind="stable")] for side in (0, 1)]

    def agree(self, pairs: _Indexes, aligned: Alignment) -> npt.NDArray[np.bool_]:
        """Return whether the details of aligned pairs, (n, 2), agree; where one has none, they are not asked."""
        whole, part = self._collections
        one, other = whole[pairs[:, 0]], part[pairs[:, 1]]
        first, second = _unpack(one), _unpack(other)
        for orientation in range(8):
            turned = aligned.orientation == orientation
            second[turned] = oriented(second[turned], orientation)
        compared = _compare(_cropped(first, aligned.cut), second, aligned.cut.max(1))
        agree = compared.agree()
        for i in np.flatnonzero(agree & np.any(compared.differs, (1, 2))):
            shared = self._shared(pairs[i], int(aligned.orientation[i]))
            if shared.any():
                agree[i] = _agree_beside(shared, first[i : i + 1], second[i : i + 1], aligned.cut[i : i + 1])
        return np.asarray(agree | ~(one.any(1) & other.any(1)))

    def _shared(self, pair: _Indexes, orientation: int) -> _OfRegions:
        """Return which regions of either photograph of a pair are like those of others; places are of the first."""
        of_second = oriented(self._shared_by(1, pair)[None].astype(np.float32), orientation)[0] > 0
        return np.asarray(self._shared_by(0, pair) | of_second)

    def _shared_by(self, side: int, pair: _Indexes) -> _OfRegions:
        """Return which regions of one photograph of a pair, as it is, are like those of others."""
        mine, theirs = self._collections[side], self._collections[1 - side]
        known = self._resembling[side]
        start, end = np.searchsorted(known[:, side], (pair[side], pair[side] + 1))
        nearest, spread = known[start:end, 1 - side], np.linspace(0, len(theirs) - 1, _MOST).astype(np.intp)
        itself = pair if mine is theirs else pair[1 - side]
        others = next((kept for some in (nearest, spread) if len(kept := np.setdiff1d(some, itself)) >= _FEWEST), None)
        if others is None:
            return np.zeros((1, 1), np.bool_)
        grids = _unpack(theirs[others[:_MOST]])
        same = np.broadcast_to(_unpack(mine[pair[side]][None]), grids.shape)
        compared = _compare(same, grids, np.zeros(len(grids), np.intp))
        alike = (compared.weight > 0) & (compared.correlation >= _LIKE_OTHERS)
        return np.asarray(alike.sum(0) >= max(_FEWEST, _OF_OTHERS * len(grids)))


def _cropped(grids: Grid, cut: _Indexes) -> Grid:
    """Return grids after crops, (n, 4), as `alignment.crop` counts them."""
    matrices = _crops(DEEPEST, STEP)
    rows, columns = matrices[cut[:, 0], cut[:, 1]], matrices[cut[:, 2], cut[:, 3]]
    return np.asarray(rows @ grids @ columns.swapaxes(-1, -2), np.float32)


def _agree_beside(shared: _OfRegions, first: Grid, second: Grid, cut: _Indexes) -> bool:
    """Return whether one pair agrees beside what is shared, (1, side, side) each.

    A crop would move what is shared as well. So where that outweighs the rest and is in one place of both, they are
    compared without a crop.
    """
    compared = _compare(_cropped(first, cut), second, cut.max(1))
    is_mostly_shared = compared.weight[0][shared].sum() > compared.weight.sum() / 2
    if is_mostly_shared:
        as_they_are = _compare(first, second, np.zeros(1, np.intp))
        if (as_they_are.correlation[0][shared] >= _LIKE_OTHERS).mean() >= _IN_PLACE:
            compared = as_they_are
    return bool(compared.agree(~shared, _DISAGREEING_BESIDE if is_mostly_shared else _DISAGREEING)[0])
