"""The outer 6 % of a photograph, mostly background: its colours and its texture, which should not reveal the class."""

import numpy as np
import numpy.typing as npt
from PIL import Image

BORDER_VERSION = 2  # of the measurements; a new one makes stored ones invalid
_COLOUR_SIDE, _TEXTURE_SIDE = 64, 256  # pixels of the resized image
_PART = 16  # the border is a sixteenth of the side wide
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def measure_border(photograph: Image.Image) -> tuple[float, ...]:
    """Measure the border of a photograph, in grey levels from 0 to 255, rounded to hundredths.

    Returns:
        Mean of R, G and B, their standard deviations, and the mean absolute difference of neighbouring pixels'
        luminance at 256 pixels, which depends on noise, sharpening and compression.

    >>> measure_border(Image.new("RGB", (90, 60), (200, 100, 50)))
    (200.0, 100.0, 50.0, 0.0, 0.0, 0.0, 0.0)
    """
    colours = np.concatenate([strip.reshape(-1, 3) for strip in _strips(photograph, _COLOUR_SIDE, 0)])
    strips = _strips(photograph, _TEXTURE_SIDE, 1)
    steps = sum(float(np.abs(np.diff(strip @ _LUMINANCE, axis=1)).sum(dtype=np.float64)) for strip in strips)
    texture = steps / (_TEXTURE_SIDE**2 - (_TEXTURE_SIDE - 2 * _TEXTURE_SIDE // _PART) ** 2)
    return tuple(round(float(value), 2) for value in (*colours.mean(axis=0), *colours.std(axis=0), texture))


def _strips(photograph: Image.Image, side: int, more: int) -> list[npt.NDArray[np.float32]]:
    """Return the border of the photograph resized to a square: top, bottom, left and right, each (rows, columns, 3).

    The middle is not computed, which would take most of the time. The left strip has some columns `more`.
    """
    width = side // _PART
    across, down = photograph.width / side, photograph.height / side

    def strip(left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.float32]:
        box = (left * across, top * down, min(right * across, photograph.width), min(bottom * down, photograph.height))
        resized = photograph.resize((right - left, bottom - top), Image.Resampling.BOX, box)
        return np.asarray(resized, dtype=np.float32)

    inner = side - width
    return [
        strip(0, 0, side, width),
        strip(0, inner, side, side),
        strip(0, width, width + more, inner),
        strip(inner, width, side, inner),
    ]
