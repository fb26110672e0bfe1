"""Describe a photograph by local keypoints, and compare two: does one show a part of the other, turned or zoomed?

Keypoints are SIFT (Lowe 2004) with Hellinger distances (RootSIFT, Arandjelović and Zisserman 2012). Each pair of
matched keypoints suggests a turn, a scale and a shift of its own, so all suggestions are tried and none is drawn at
random. The best one, refined, lays one photograph over the other, and all that both show must agree: a ruler or a
background that many photographs share lies over itself, but the leaves on it do not.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.floating]
Grey = npt.NDArray[np.uint8]  # (h, w)
Indexes = npt.NDArray[np.intp]

KEYPOINTS_VERSION = 1
"""Increases when the same photograph would get different keypoints: stored ones are then made again."""
SIDE_DESCRIBED = 384  # pixels of the longer side in which keypoints are searched
MOST_KEYPOINTS = 160
_GREY = 96  # pixels of the longer side of the small grey image
_UNIT = 512  # a descriptor's length after quantisation; its values rarely exceed half of it
_FAINTEST = 0.01  # least contrast of a keypoint
_CELLS = 8  # per axis; where many keypoints share a cell, the weaker ones give way to those of other cells
_CROWDING = 0.85  # factor on the rank of a keypoint for each stronger one in its cell

_RATIO = 0.92  # largest ratio of the distances to the nearest and the second nearest descriptor
_ROUGH = 0.06  # largest error of a keypoint under one match's own map, in longer sides
_FINE = 0.02  # the same under the refined map
_TURN = np.radians(30)  # largest difference between the turns of two matches that agree
_STRETCH = np.log(1.6)  # the same for the logarithms of their scales
_SCALES = (0.2, 5.0)  # of one photograph in the other
_SKEW = 1.8  # largest ratio of the two scales of an affine map
_STEEPEST = 0.5  # largest perspective, per longer side
_FEWEST = 4  # keypoints that agree
_CELL = 8  # pixels a side, in which two small grey images are correlated
_STEPS = slice(_CELL // 2, None, _CELL // 2)
_BLUR = 0.6  # pixels, before that
_CONTRAST = 3.0  # standard deviation in grey levels; a cell below it in both images says nothing
_CORRELATED = 0.5
_RIM = 0.14  # width of the rim of a photograph, in longer sides
_ENOUGH = 12  # cells off the rim, or keypoints that show perspective
_WINDOW = (7, 7)  # cells
# Of the small grey image, the centres of whose pixels are whole numbers.
_TO_PIXELS = np.array([(_GREY, 0, -0.5), (0, _GREY, -0.5), (0, 0, 1)])


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Description of one photograph for the search of look-alikes, about 30 kB."""

    descriptors: npt.NDArray[np.uint8]  # (m, 128), m at most MOST_KEYPOINTS; length about _UNIT
    frames: npt.NDArray[np.float16]  # (m, 4): x, y and diameter in longer sides, direction in radians
    grey: Grey  # longer side _GREY

    @property
    def unit(self) -> npt.NDArray[np.float32]:
        """Descriptors of length 1, (m, 128)."""
        values = self.descriptors.astype(np.float32)
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), np.float32)

    @property
    def off_rim(self) -> npt.NDArray[np.bool_]:
        """Which keypoints are near no side of the photograph, (m,)."""
        place = self.frames[:, :2].astype(np.float64)
        sides = np.array(self.grey.shape[::-1]) / _GREY
        return np.asarray((np.minimum(place, sides - place) > _RIM).all(1))

    def to_bytes(self) -> bytes:
        """Return the description as bytes, as `from_bytes` reads it."""
        sizes = np.array([len(self.frames), *self.grey.shape], "<u2")
        return b"".join(part.tobytes() for part in (sizes, self.descriptors, self.frames.astype("<f2"), self.grey))

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self:
        """Return the description that `to_bytes` made."""
        count, height, width = (int(size) for size in np.frombuffer(stored, "<u2", 3))
        descriptors = np.frombuffer(stored, np.uint8, count * 128, 6)
        frames = np.frombuffer(stored, "<f2", count * 4, 6 + count * 128)
        grey = np.frombuffer(stored, np.uint8, height * width, 6 + count * 136)
        return cls(descriptors.reshape(-1, 128), frames.reshape(-1, 4), grey.reshape(height, width))

    def only(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """Return the description with some of the keypoints."""
        return type(self)(self.descriptors[chosen], self.frames[chosen], self.grey)

    def mirrored(self) -> Self:
        """Return the description of the mirrored photograph, nearly as if it had been made from its pixels."""
        frames = self.frames.copy()
        frames[:, 0] = self.grey.shape[1] / _GREY - frames[:, 0]
        frames[:, 3] = np.pi - frames[:, 3]
        return type(self)(self.descriptors[:, _MIRROR], frames, np.ascontiguousarray(self.grey[:, ::-1]))


def _mirror_order() -> Indexes:
    """Return the order of a descriptor's 4 x 4 x 8 values after mirroring: rows and directions are reversed."""
    order = np.arange(128).reshape(4, 4, 8)[::-1]
    return np.ascontiguousarray(order[:, :, (-np.arange(8)) % 8]).ravel()


_MIRROR = _mirror_order()


@dataclass(frozen=True)
class Overlay:
    """How one photograph lies over another."""

    inliers: int  # keypoints that agree with one affine map
    proportion: float  # of the keypoints in the area that both show, those that agree, 0 to 1
    agreement: float  # of the textured cells in the area that both show, the proportion that is correlated, 0 to 1
    weakest: float  # the same in the window of cells where it is least
    cells: int  # number of these cells


def describe_keypoints(image: Image.Image) -> Keypoints:
    """Describe an upright RGB image of any size."""
    import cv2

    cv2.setNumThreads(0)  # the audit has a process for each CPU
    grey = image.convert("L")
    grey.thumbnail((SIDE_DESCRIBED, SIDE_DESCRIBED), Image.Resampling.BOX)
    longer = max(grey.size)
    width, height = (max(1, round(side * _GREY / longer)) for side in grey.size)
    small = grey.resize((width, height), Image.Resampling.BOX)
    found, values = cv2.SIFT.create(contrastThreshold=_FAINTEST).detectAndCompute(np.asarray(grey), None)
    if values is None:
        return Keypoints(np.zeros((0, 128), np.uint8), np.zeros((0, 4), np.float16), np.asarray(small))
    frames = np.array([(*key.pt, key.size, np.radians(key.angle)) for key in found], np.float32)
    frames[:, :3] /= longer
    chosen = _strongest(frames, np.array([key.response for key in found], np.float32))
    values = values[chosen]
    root = np.sqrt(values / np.maximum(values.sum(1, keepdims=True), 1e-6))
    return Keypoints(
        np.minimum(np.rint(root * _UNIT), 255).astype(np.uint8), frames[chosen].astype(np.float16), np.asarray(small)
    )


def _strongest(frames: Floats, response: Floats) -> Indexes:
    """Return the strongest keypoints, not all of one corner."""
    order = np.argsort(-response, kind="stable")
    cell = (np.minimum(frames[order, :2] * _CELLS, _CELLS - 1)).astype(np.intp) @ np.array([1, _CELLS])
    by_cell = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[by_cell], cell[by_cell])
    rank = np.empty(len(order), np.intp)
    rank[by_cell] = np.arange(len(order)) - starts
    value = response[order] * np.float32(_CROWDING) ** rank
    return order[np.argsort(-value, kind="stable")[:MOST_KEYPOINTS]]


def products(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a @ b.T by OpenCV, which has less to prepare than NumPy for matrices so small."""
    import cv2

    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)), np.float32)
    return np.asarray(cv2.gemm(a, b, 1, np.zeros(0, np.float32), 0, flags=cv2.GEMM_2_T), np.float32)


def lay_over(a: Keypoints, b: Keypoints) -> Overlay | None:
    """Lay photograph a over b; None if their keypoints suggest no way to do so."""
    one, other = _matches(a, b)
    found = (
        _align(a.frames[one].astype(np.float64), b.frames[other].astype(np.float64)) if len(one) >= _FEWEST else None
    )
    if found is None:
        return None
    plane, inliers = found
    back = np.linalg.inv(plane)
    possible = min(_number_inside(a, plane, b), _number_inside(b, back, a))
    agreement, weakest, cells = _agreement(a.grey, b.grey, plane)
    return Overlay(inliers, min(1.0, inliers / max(possible, 1)), agreement, weakest, cells)


def _matches(a: Keypoints, b: Keypoints) -> tuple[Indexes, Indexes]:
    """Return the keypoints of a and b that are each other's nearest, clearly nearer than the next."""
    if min(len(a.frames), len(b.frames)) < _FEWEST:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    cosine = products(a.unit, b.unit)
    nearest, back = cosine.argmax(1), cosine.argmax(0)
    rows = np.arange(len(nearest))
    second = np.partition(cosine, -2, axis=1)[:, -2]
    # Squared distances are twice 1 - cosine.
    clear = 1 - cosine[rows, nearest] < _RATIO**2 * (1 - second)
    rows = rows[clear & (back[nearest] == rows)]
    return rows, nearest[rows]


def _align(a: Floats, b: Floats) -> tuple[Floats, int] | None:
    """Return the map of the plane, (3, 3), that most matched frames, (m, 4), agree with, and how many do."""
    turn, stretch = b[:, 3] - a[:, 3], np.log(b[:, 2] / a[:, 2])
    zoom = np.exp(stretch + 1j * turn)  # points as complex numbers
    from_a, to_b = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    # Row i: how far the map of match i puts all points of a from where they are in b.
    error = np.abs(zoom[:, None] * (from_a - from_a[:, None]) + to_b[:, None] - to_b)
    turned = np.abs((turn[:, None] - turn + np.pi) % (2 * np.pi) - np.pi)
    agree = (error < _ROUGH) & (turned < _TURN) & (np.abs(stretch[:, None] - stretch) < _STRETCH)
    inside = agree[agree.sum(1).argmax()]
    points = np.column_stack([a[:, :2], np.ones(len(a))])
    for tolerance in (_ROUGH, (_ROUGH + _FINE) / 2, _FINE, _FINE):
        if inside.sum() < _FEWEST:
            return None
        affine = np.linalg.lstsq(points[inside], b[inside, :2], rcond=1e-4)[0].T
        distance = np.linalg.norm(points @ affine.T - b[:, :2], axis=1)
        inside = distance < tolerance
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    if inside.sum() < _FEWEST or np.linalg.det(affine[:, :2]) <= 0 or large > _SKEW * small:
        return None
    if small < _SCALES[0] or large > _SCALES[1]:
        return None
    return _perspective(affine, points[distance < _ROUGH], b[distance < _ROUGH]), int(inside.sum())


def _perspective(affine: Floats, a: Floats, b: Floats) -> Floats:
    """Return the map of the plane, (3, 3), with perspective if there are enough points to see it."""
    import cv2

    if len(a) >= _ENOUGH:
        plane, _ = cv2.findHomography(a[:, :2], b[:, :2], cv2.RANSAC, _FINE)
        if plane is not None and np.abs(plane[2, :2]).max() < _STEEPEST:
            return np.asarray(plane)
    return np.vstack([affine, (0, 0, 1)])


def _apply(plane: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return where a map of the plane puts points."""
    u, v, w = (row[0] * x + row[1] * y + row[2] for row in plane)
    return u / w, v / w


def _number_inside(a: Keypoints, plane: Floats, b: Keypoints) -> int:
    """Return how many keypoints of a are put inside the frame of b."""
    x, y = _apply(plane, *a.frames[:, :2].T.astype(np.float64))
    height, width = (side / _GREY for side in b.grey.shape)
    return int(((x > 0) & (x < width) & (y > 0) & (y < height)).sum())


def _agreement(a: Grey, b: Grey, plane: Floats) -> tuple[float, float, int]:
    """Return the proportion of cells that are correlated after a is laid over b, the least in a window, their number.

    Cells near the frame of one of them are left out if there are enough others: captions and rulers are there.
    """
    import cv2

    scale = float(np.sqrt(max(np.linalg.det(plane[:2, :2]), 1e-6)))
    if scale < 1:  # the one that is larger in the other is the coarser one: lay it over the finer one
        a, b, plane, scale = b, a, np.linalg.inv(plane), 1 / scale
    pixels = _TO_PIXELS @ plane @ np.linalg.inv(_TO_PIXELS)
    size = (b.shape[1], b.shape[0])
    laid = cv2.GaussianBlur(cv2.warpPerspective(a.astype(np.float32), pixels, size), (0, 0), _BLUR)
    below = cv2.GaussianBlur(b.astype(np.float32), (0, 0), _BLUR * scale)
    weight = (cv2.warpPerspective(np.ones(a.shape, np.float32), pixels, size) > 0.99).astype(np.float32)

    def mean(values: npt.NDArray[Any]) -> Floats:
        total = cv2.boxFilter(values * weight, -1, (_CELL, _CELL), borderType=cv2.BORDER_CONSTANT)
        return np.asarray(total[_STEPS, _STEPS] / np.maximum(covered, 1e-3))

    covered: Floats = np.ones(1, np.float32)
    covered = mean(np.ones(b.shape, np.float32))
    mean_a, mean_b = mean(laid), mean(below)
    var_a = np.maximum(mean(laid * laid) - mean_a**2, 0.01)
    var_b = np.maximum(mean(below * below) - mean_b**2, 0.01)
    correlated = mean(laid * below) - mean_a * mean_b > _CORRELATED * np.sqrt(var_a * var_b)
    tells = (np.maximum(var_a, var_b) > _CONTRAST**2) & (covered > 0.7)
    central = tells & _central(a, b, np.linalg.inv(pixels))
    if central.sum() >= _ENOUGH:
        tells = central
    count = int(tells.sum())
    proportion = float(correlated[tells].mean()) if count else 0.0
    in_window = cv2.boxFilter(tells.astype(np.float32), -1, _WINDOW, normalize=False, borderType=cv2.BORDER_CONSTANT)
    good = cv2.boxFilter(
        (tells & correlated).astype(np.float32), -1, _WINDOW, normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    full = in_window > _WINDOW[0] * _WINDOW[1] / 2
    return proportion, float((good[full] / in_window[full]).min(initial=proportion)), count


def _central(a: Grey, b: Grey, back: Floats) -> npt.NDArray[np.bool_]:
    """Return which cells of image b are near no side of it, nor of image a, which `back` maps them into."""
    y, x = np.mgrid[: b.shape[0], : b.shape[1]][:, _STEPS, _STEPS]
    x_a, y_a = _apply(back, x, y)
    ends = ((x, b.shape[1]), (y, b.shape[0]), (x_a, a.shape[1]), (y_a, a.shape[0]))
    inner = np.all([np.minimum(at, side - at) > _RIM * _GREY for at, side in ends], axis=0)
    return np.asarray(inner)
