"""One photograph examined: what its file says, what its pixels look like, what it is recognised by."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bldml.dataset.duplicates.phash import NO_PRINT, Print, perceptual_hash
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.metadata import Metadata, read_metadata

VERSION = 1  # of what is measured here: another one makes earlier examinations worthless
TARGET = 256  # pixels; a JPEG is decoded at the smallest scale that keeps twice as much
THUMBNAIL = 16  # pixels a side
BORDER_SIDE, BORDER = 64, 4  # the photograph squashed to so many pixels a side; width of its border
SHARPNESS_SIDE = 256  # pixels of the longer side; a larger photograph is shrunk to it
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Thumbnail = npt.NDArray[np.uint8]  # (16, 16, 3)


@dataclass(frozen=True, eq=False)
class Examined:
    """What one file holds; a function of its content alone.

    Attributes:
        digest: SHA-256 of the content; empty where it cannot be had.
        size: Bytes.
        reason: Why the photograph cannot be used; empty if it can.
        metadata: What the file says of itself; None where even the size in pixels cannot be had.
        print: Fingerprint that copies share; zeros where there is none.
        thumbnail: The squashed photograph, (16, 16, 3).
        border: Mean and standard deviation of red, green and blue in the outer 6 % of the frame, 0 to 255, (6,).
        sharpness: Variance of the Laplacian of the grey picture at 256 pixels, 0 to 255 grey levels.
        brightness: Mean grey level, 0 to 255.
    """

    digest: str
    size: int
    reason: str = ""
    metadata: Metadata | None = None
    print: Print = field(default_factory=lambda: NO_PRINT)
    thumbnail: Thumbnail | None = None
    border: tuple[float, ...] = ()
    sharpness: float = 0.0
    brightness: float = 0.0


def examine_file(path: Path) -> Examined:
    """Read one file whole, as training would, and measure it; never raises for what is wrong with the file."""
    digest, size = "", 0
    try:
        size = path.stat().st_size
        picture = load_rgb(path, TARGET)
        digest = digest_of(path)
    except UnreadableImage as error:
        return Examined(digest, size, reason=error.reason, metadata=read_metadata(path))
    except OSError as error:
        return Examined(digest, size, reason=error.strerror or str(error))
    sharpness, brightness = _light(picture)
    return Examined(
        digest,
        size,
        metadata=read_metadata(path),
        print=perceptual_hash(picture),
        thumbnail=np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)),
        border=_border(picture),
        sharpness=sharpness,
        brightness=brightness,
    )


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _border(picture: Image.Image) -> tuple[float, ...]:
    """Colours of the frame's edge, without where in it they lie.

    >>> _border(Image.new("RGB", (90, 60), (200, 100, 50)))
    (200.0, 100.0, 50.0, 0.0, 0.0, 0.0)
    """
    pixels = np.asarray(picture.resize((BORDER_SIDE, BORDER_SIDE), Image.Resampling.BOX), dtype=np.float32)
    inside = np.zeros((BORDER_SIDE, BORDER_SIDE), dtype=bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    edge = pixels[~inside]
    return tuple(round(float(value), 3) for value in (*edge.mean(axis=0), *edge.std(axis=0)))


def _light(picture: Image.Image) -> tuple[float, float]:
    """Variance of the Laplacian and mean, of the grey picture shrunk to a fixed size.

    >>> _light(Image.new("RGB", (90, 60), "white"))
    (0.0, 255.0)
    """
    longer = max(picture.size)
    if longer > SHARPNESS_SIDE:
        width, height = (max(3, round(side * SHARPNESS_SIDE / longer)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    grey = np.asarray(picture, dtype=np.float32) @ _LUMINANCE
    brightness = round(float(grey.mean()), 2)
    if min(grey.shape) < 3:
        return 0.0, brightness
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - np.float32(4) * grey[1:-1, 1:-1]
    return round(float(laplacian.var()), 3), brightness
