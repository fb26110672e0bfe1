"""Crops of a photograph, and the map from a pixel of a training picture to the place that it shows."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bldml.dataset.pixels import ResizedImage

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in [0, 1], as shares of the frame."""

Range = tuple[float, float]


def crop_in_proportion(area: Range, aspect: Range, generator: np.random.Generator) -> Box:
    """A random crop in the proportions of the frame, whatever those are. Every draw succeeds.

    Args:
        area: Smallest and largest share of the frame's area.
        aspect: Smallest and largest factor on the frame's own aspect ratio.
        generator: Source of every draw.
    """
    share, factor = generator.uniform(*area), _ratio(aspect, generator)
    width, height = min(1.0, math.sqrt(share * factor)), min(1.0, math.sqrt(share / factor))
    return _placed(width, height, *generator.random(2))


def crop_of_ratio(area: Range, ratio: Range, frame: float, generator: np.random.Generator) -> Box:
    """The random crop that torchvision's RandomResizedCrop takes, but for its rounding to whole pixels.

    The first of ten draws that fits into the frame; else, in the middle, the largest crop of a ratio that is allowed.

    Args:
        area: Smallest and largest share of the frame's area.
        ratio: Smallest and largest ratio of the crop's width to its height.
        frame: Ratio of the frame's width to its height.
        generator: Source of every draw.
    """
    draws = [(generator.uniform(*area), _ratio(ratio, generator)) for _ in range(10)]
    x, y = generator.random(2)
    for share, drawn in draws:
        width, height = math.sqrt(share * drawn / frame), math.sqrt(share * frame / drawn)
        if width <= 1 and height <= 1:
            return _placed(width, height, x, y)
    narrow, wide = ratio
    return _placed(min(1.0, wide / frame), min(1.0, frame / narrow), 0.5, 0.5)


def _ratio(limits: Range, generator: np.random.Generator) -> float:
    low, high = limits
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def _placed(width: float, height: float, x: float, y: float) -> Box:
    """A crop at these shares of the way from left to right and from top to bottom."""
    left, top = float(x) * (1.0 - width), float(y) * (1.0 - height)
    # Rounding may put the far side a hair outside, which PIL refuses.
    return left, top, min(1.0, left + width), min(1.0, top + height)


def cut(square: ResizedImage, box: Box) -> tuple[ResizedImage, Box]:
    """A crop of whole pixels by itself, so that nothing is seen around it.

    Returns:
        Its pixels (height, width, 3), and the box that is all of them.
    """
    side = len(square)
    left, top, right, bottom = (round(edge * side) for edge in box)
    left, top = min(left, side - 1), min(top, side - 1)
    return square[top : max(bottom, top + 1), left : max(right, left + 1)], (0.0, 0.0, 1.0, 1.0)


def view_of(
    shape: tuple[int, ...],
    size: int,
    box: Box,
    mirror: tuple[bool, bool],
    angle: float,
    scale: float,
    shift: Sequence[float] | NDArray[np.float64],
) -> NDArray[np.float64]:
    """From a pixel of the result to the place in the picture that it shows: matrix (2, 3), pixels at integers.

    Backwards through what is done: shifted back, turned and scaled back, mirrored back, then looked up in the crop.

    Args:
        shape: Height and width of the picture in pixels.
        size: Side of the result in pixels.
        box: The crop.
        mirror: Left-right, top-bottom.
        angle: Of the rotation about the crop's centre, radians.
        scale: Factor by which the crop is enlarged about its centre.
        shift: To the right and down, in pixels of the result.
    """
    height, width = shape
    left, top, right, bottom = box
    across = (right - left) * width / size * (-1 if mirror[0] else 1)
    down = (bottom - top) * height / size * (-1 if mirror[1] else 1)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, d, e = across * cos, -across * sin, down * sin, down * cos
    centre = (size - 1) / 2
    c = (left + right) / 2 * width - 0.5 - (a + b) * centre - (a * shift[0] + b * shift[1])
    f = (top + bottom) / 2 * height - 0.5 - (d + e) * centre - (d * shift[0] + e * shift[1])
    return np.array([[a, b, c], [d, e, f]])
