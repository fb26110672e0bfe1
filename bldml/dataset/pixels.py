"""Squares of pixels: what is shown to a network, and kept so that a photograph is decoded once."""

from PIL import Image


def squash(image: Image.Image, side: int) -> Image.Image:
    """Make a square of the whole frame, whatever its proportions.

    Args:
        image: Upright RGB.
        side: Of the square, in pixels; a picture that is such a square already is returned as it is.

    >>> squash(Image.new("RGB", (60, 40)), 32).size
    (32, 32)
    """
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
