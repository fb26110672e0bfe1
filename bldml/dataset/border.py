"""The outer 6 % of a photograph, mostly background: its colours and its texture, which should not reveal the class."""

import numpy as np
import numpy.typing as npt
from PIL import Image

BORDER_VERSION = 1  # of the measurements; a new one makes stored ones invalid
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
    colours = _resized(photograph, _COLOUR_SIDE)[_mask(_COLOUR_SIDE)]
    grey = _resized(photograph, _TEXTURE_SIDE) @ _LUMINANCE
    steps = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    texture = float(steps[_mask(_TEXTURE_SIDE)].mean())
    return tuple(round(float(value), 2) for value in (*colours.mean(axis=0), *colours.std(axis=0), texture))


def _resized(photograph: Image.Image, side: int) -> npt.NDArray[np.float32]:
    return np.asarray(photograph.resize((side, side), Image.Resampling.BOX), dtype=np.float32)


def _mask(side: int) -> npt.NDArray[np.bool_]:
    width = side // _PART
    mask = np.ones((side, side), dtype=bool)
    mask[width:-width, width:-width] = False
    return mask
