"""Squares of pixels: what is shown to a network, and kept so that a photograph is decoded once."""

import numpy as np
import numpy.typing as npt
from PIL import Image

Square = npt.NDArray[np.uint8]
"""RGB of a whole frame, (side, side, 3)."""


def squash(image: Image.Image | Square, side: int) -> Square:
    """Make a square of the whole frame, whatever its proportions.

    Args:
        image: Upright RGB.
        side: Of the square, in pixels; a picture that is such a square already stays what it is.

    Returns:
        Perhaps not to be written to.

    >>> squash(Image.new("RGB", (60, 40)), 32).shape
    (32, 32, 3)
    """
    if isinstance(image, np.ndarray):
        if image.shape == (side, side, 3):
            return image
        image = Image.fromarray(image)
    whole = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(whole)
