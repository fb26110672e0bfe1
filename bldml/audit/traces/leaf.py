"""Where the leaf is: a rough mask by colour, a heuristic. What is measured outside it should not reveal the class."""

import cv2
import numpy as np
import numpy.typing as npt

MASK_SIDE = 64  # pixels; the aspect ratio is not kept
_RING = np.ones((MASK_SIDE, MASK_SIDE), dtype=bool)
_RING[4:-4, 4:-4] = False
_KERNEL = np.ones((3, 3), dtype=np.uint8)
# Grey levels per unit of L*, a* and b*, for Otsu's threshold; lightness counts half, because a shadow is not a leaf.
_WEIGHTS = np.diag([1, 2, 2]).astype(np.float32)
_MIN_SEPARATION = 0.6  # variance between the two sides of the threshold, as a fraction of all
_MIN_AREA, _MAX_AREA = 0.04, 0.85  # of the image
_MAX_RING = 0.5  # of the outer sixteenth that the leaf may cover
_GREEN = -10.0  # a* of CIELAB; a border greener than this may be leaf itself

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Mask = npt.NDArray[np.bool_]


def find_leaf(pixels: Pixels) -> Mask | None:
    """Return the mask of a leaf on a background of another colour, (64, 64); None if none was found.

    The distance of each pixel's colour from the median colour of the border is divided by Otsu's threshold; the largest
    connected part on the far side is the leaf. None: the two sides are not well separated, the leaf would be very small
    or cover most of the border, or the border is green, so that the leaf may fill the image.
    """
    small = cv2.resize(pixels, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(np.float32(1 / 255) * small, cv2.COLOR_RGB2LAB)
    middle = np.median(lab[_RING], axis=0)
    difference = (lab - middle) @ _WEIGHTS
    distance = np.minimum(np.sqrt(np.einsum("ijk,ijk->ij", difference, difference)), 255).astype(np.uint8)
    _, far = cv2.threshold(distance, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    part = float(far.mean())
    if middle[1] < _GREEN or not 0 < part < 1:
        return None
    between = part * (1 - part) * (distance[far == 1].mean() - distance[far == 0].mean()) ** 2
    if between < _MIN_SEPARATION * distance.var():
        return None
    far = cv2.morphologyEx(cv2.morphologyEx(far, cv2.MORPH_OPEN, _KERNEL), cv2.MORPH_CLOSE, _KERNEL)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(far)
    if count < 2:
        return None
    mask = parts == 1 + np.argmax(statistics[1:, cv2.CC_STAT_AREA])
    if not _MIN_AREA <= mask.mean() <= _MAX_AREA or mask[_RING].mean() > _MAX_RING:
        return None
    return np.asarray(mask)


def outside_of(mask: Mask | None) -> npt.NDArray[np.float32]:
    """Return 1 away from the leaf and its edge, else 0, (64, 64); 1 everywhere, if no leaf was found.

    Holes of the mask belong to the leaf.
    """
    if mask is None:
        return np.ones((MASK_SIDE, MASK_SIDE), dtype=np.float32)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = cv2.drawContours(np.zeros_like(mask, dtype=np.uint8), outlines, -1, 1, cv2.FILLED)
    grown = cv2.dilate(filled, _KERNEL, iterations=2)
    return np.equal(grown, 0).astype(np.float32)
