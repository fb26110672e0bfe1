"""Examination of one photograph: its metadata, what its pixels look like, its perceptual hash."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bldml.audit.traces.encoder import NO_ENCODER, Encoder, read_encoder
from bldml.audit.traces.surroundings import Surroundings, measure_surroundings
from bldml.dataset.border import measure_border
from bldml.dataset.duplicates.keypoints import describe_keypoints
from bldml.dataset.duplicates.phash import NO_PHASH, PHash, perceptual_hash
from bldml.dataset.formats.interruption import blame_machine
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.metadata import Metadata, read_metadata
from bldml.dataset.samples import Sample
from bldml.io.system import sha256_of
from bldml.run.photographs import PhotographRow, described

VERSION = 5  # of the measurements; a new one makes stored records invalid
TARGET = 256  # pixels; a JPEG is decoded at the smallest scale that keeps at least twice this size
THUMBNAIL = 16  # pixels a side
SHARPNESS_SIDE = 256  # pixels of the longer side; a larger photograph is shrunk to it
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Thumbnail = npt.NDArray[np.uint8]  # (16, 16, 3)


@dataclass(frozen=True, eq=False, slots=True)
class FileRecord:
    """Properties of one file; they depend on its content alone."""

    digest: str  # SHA-256 of the content; empty if the file cannot be read
    size: int  # bytes
    reason: str = ""  # why the photograph cannot be used; empty if it can
    metadata: Metadata | None = None  # None if not even the size in pixels can be read
    phash: PHash = field(default_factory=lambda: NO_PHASH)
    thumbnail: Thumbnail | None = None  # the aspect ratio is not kept
    sharpness: float = 0.0  # variance of the Laplacian of the grey image at 256 pixels, from grey levels 0 to 255
    brightness: float = 0.0  # mean grey level, 0 to 255
    encoder: Encoder = NO_ENCODER
    surroundings: Surroundings = field(default_factory=Surroundings)
    keypoints: bytes = b""  # for the search of look-alikes, if asked for; stored in a file of its own


@dataclass(frozen=True, eq=False)
class Row:
    """One photograph of the set, examined."""

    sample: Sample
    split: str
    file: FileRecord

    @property
    def name(self) -> str:
        """Name of the sample."""
        return self.sample.name

    @property
    def metadata(self) -> Metadata:
        """Metadata of the file; width and height are 0 if they cannot be read."""
        return self.file.metadata or Metadata(0, 0)

    @cached_property
    def photograph(self) -> PhotographRow:
        """What a run records of the photograph."""
        sample = self.sample
        return PhotographRow(sample.name, self.split, sample.class_name, sample.group, **described(self.metadata))


def examine_file(path: Path, outside: bool = True, *, keypoints: bool = False) -> FileRecord:
    """Read one file completely, as training would, and measure it; a damaged file raises nothing.

    What lies outside the leaf is measured only if `outside`, and keypoints only if `keypoints`. MachineError if its
    folder is gone, or cannot be reached any more.
    """
    size = 0
    try:
        size = path.stat().st_size
        picture = load_rgb(path, TARGET)
        digest = sha256_of(path)
    except UnreadableImage as error:
        blame_machine(path, error.__cause__)
        return FileRecord("", size, error.reason, read_metadata(path))
    except OSError as error:
        blame_machine(path, error)
        return FileRecord("", size, error.strerror or str(error))
    sharpness, brightness = _sharpness_and_brightness(picture)
    metadata = read_metadata(path)
    return FileRecord(
        digest,
        size,
        metadata=metadata and replace(metadata, border=measure_border(picture)),
        phash=perceptual_hash(picture),
        thumbnail=np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)),
        sharpness=sharpness,
        brightness=brightness,
        encoder=read_encoder(path),
        surroundings=measure_surroundings(np.asarray(picture)) if outside else Surroundings(),
        keypoints=describe_keypoints(picture).to_bytes() if keypoints else b"",
    )


def _sharpness_and_brightness(picture: Image.Image) -> tuple[float, float]:
    """Return variance of the Laplacian and mean of the grey image, reduced to a fixed size.

    >>> _sharpness_and_brightness(Image.new("RGB", (90, 60), "white"))
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
