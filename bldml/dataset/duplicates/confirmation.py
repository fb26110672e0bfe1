"""Confirm that two photographs show the same: their details agree, also beside what many photographs share.

Squared paper, the label of a sheet or the bars of an interface lie in one place of many photographs and may outweigh
the leaf. They are known by comparing a photograph with others that resemble it.
"""

import numpy as np
import numpy.typing as npt

from bldml.dataset.duplicates.alignment import DEEPEST, STEP, Alignment, oriented
from bldml.dataset.duplicates.details import DISAGREEING, Grid, compare_details, detail_crops, unpack_details

Indexes = npt.NDArray[np.intp]
Packed = npt.NDArray[np.uint8]  # packed details of photographs, (n, DETAIL_BYTES); zeros if unknown
OfRegions = npt.NDArray[np.bool_]  # (regions a side, regions a side)

_FEWEST, _MOST = 2, 16  # other photographs that one is compared with
_LIKE_OTHERS = 0.8  # least correlation of a region with the same one of another photograph
_OF_OTHERS = 0.25  # fraction of the others that a shared region is like, and at least `_FEWEST`
_IN_PLACE = 0.8  # fraction of the shared regions that are as alike in both photographs without a crop
_DISAGREEING_BESIDE = 0.05  # fraction of the other details that may differ where most details are shared


class Confirmation:
    """Confirms pairs of photographs, the first of one collection, the second of another, or of the same.

    Args:
        whole: Details of the first collection.
        part: Details of the second; the same array if it is the same.
        resembling: Which of them resemble each other as they are, (m, 2): index into `whole`, and into `part`.
    """

    def __init__(self, whole: Packed, part: Packed, resembling: Indexes) -> None:
        self._collections = whole, part
        self._resembling = [resembling[np.argsort(resembling[:, side], kind="stable")] for side in (0, 1)]

    def agree(self, pairs: Indexes, aligned: Alignment) -> npt.NDArray[np.bool_]:
        """Return whether the details of aligned pairs, (n, 2), agree; where one has none, they are not asked."""
        whole, part = self._collections
        one, other = whole[pairs[:, 0]], part[pairs[:, 1]]
        first, second = unpack_details(one), unpack_details(other)
        for orientation in range(8):
            turned = aligned.orientation == orientation
            second[turned] = oriented(second[turned], orientation)
        compared = compare_details(_cropped(first, aligned.cut), second, aligned.cut.max(1))
        agree = compared.agree()
        for i in np.flatnonzero(agree & np.any(compared.differs, (1, 2))):
            shared = self._shared(pairs[i], int(aligned.orientation[i]))
            if shared.any():
                agree[i] = _agree_beside(shared, first[i : i + 1], second[i : i + 1], aligned.cut[i : i + 1])
        return np.asarray(agree | ~(one.any(1) & other.any(1)))

    def _shared(self, pair: Indexes, orientation: int) -> OfRegions:
        """Return which regions of either photograph of a pair are like those of others; places are of the first."""
        of_second = oriented(self._shared_by(1, pair)[None].astype(np.float32), orientation)[0] > 0
        return np.asarray(self._shared_by(0, pair) | of_second)

    def _shared_by(self, side: int, pair: Indexes) -> OfRegions:
        """Return which regions of one photograph of a pair, as it is, are like those of others."""
        mine, theirs = self._collections[side], self._collections[1 - side]
        known = self._resembling[side]
        start, end = np.searchsorted(known[:, side], (pair[side], pair[side] + 1))
        nearest, spread = known[start:end, 1 - side], np.linspace(0, len(theirs) - 1, _MOST).astype(np.intp)
        itself = pair if mine is theirs else pair[1 - side]
        others = next((kept for some in (nearest, spread) if len(kept := np.setdiff1d(some, itself)) >= _FEWEST), None)
        if others is None:
            return np.zeros((1, 1), np.bool_)
        grids = unpack_details(theirs[others[:_MOST]])
        same = np.broadcast_to(unpack_details(mine[pair[side]][None]), grids.shape)
        compared = compare_details(same, grids, np.zeros(len(grids), np.intp))
        alike = (compared.weight > 0) & (compared.correlation >= _LIKE_OTHERS)
        return np.asarray(alike.sum(0) >= max(_FEWEST, _OF_OTHERS * len(grids)))


def _cropped(grids: Grid, cut: Indexes) -> Grid:
    """Return grids after crops, (n, 4), as `alignment.crop` counts them."""
    matrices = detail_crops(DEEPEST, STEP)
    rows, columns = matrices[cut[:, 0], cut[:, 1]], matrices[cut[:, 2], cut[:, 3]]
    return np.asarray(rows @ grids @ columns.swapaxes(-1, -2), np.float32)


def _agree_beside(shared: OfRegions, first: Grid, second: Grid, cut: Indexes) -> bool:
    """Return whether one pair agrees beside what is shared, (1, side, side) each.

    A crop would move what is shared as well. So where that outweighs the rest and is in one place of both, they are
    compared without a crop.
    """
    compared = compare_details(_cropped(first, cut), second, cut.max(1))
    is_mostly_shared = compared.weight[0][shared].sum() > compared.weight.sum() / 2
    if is_mostly_shared:
        as_they_are = compare_details(first, second, np.zeros(1, np.intp))
        if (as_they_are.correlation[0][shared] >= _LIKE_OTHERS).mean() >= _IN_PLACE:
            compared = as_they_are
    return bool(compared.agree(~shared, _DISAGREEING_BESIDE if is_mostly_shared else DISAGREEING)[0])
