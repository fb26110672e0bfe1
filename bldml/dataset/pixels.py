"""Resize a photograph to a square: the image that a network sees and that is cached."""

import numpy as np
import numpy.typing as npt
from PIL import Image

ResizedImage = npt.NDArray[np.uint8]
"""Whole frame in RGB, resized to (side, side, 3)."""


def resize_to_square(image: Image.Image | ResizedImage, side: int) -> ResizedImage:
    """Resize the whole frame to a square, whatever its aspect ratio.

    Args:
        image: Upright RGB image.
        side: Side of the square in pixels; an image of this size is returned unchanged.

    Returns:
        The resized image; the array may be read-only.

    >>> resize_to_square(Image.new("RGB", (60, 40)), 32).shape
    (32, 32, 3)
    """
    if isinstance(image, np.ndarray):
        if image.shape == (side, side, 3):
            return image
        image = Image.fromarray(image)
    resized = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized)
