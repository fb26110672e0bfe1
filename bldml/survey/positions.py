"""When and where a photograph was taken. Only a survey reads positions, and it writes them only as its user asks."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import ExifTags

from bldml.dataset.images import parse_header, silence_pil_warnings
from bldml.dataset.metadata import read_metadata

Policy = Literal["rounded", "exact", "none"]
DECIMALS = {"rounded": 2, "exact": 7}
"""Decimals of degrees that are written: 0.01 degrees are 1.1 km from north to south."""


class Position(NamedTuple):
    """A position in degrees, WGS 84."""

    longitude: float  # in [-180, 180], east is positive
    latitude: float  # in [-90, 90], north is positive

    def written(self, policy: Policy) -> "Position | None":
        """Return what may be written of it.

        >>> Position(10.123456789, -0.001).written("rounded"), Position(10.1, 50.2).written("none")
        (Position(longitude=10.12, latitude=0.0), None)
        """
        if policy == "none":
            return None
        # + 0.0, because a rounded -0.001 is -0.0
        return Position(*(round(degrees, DECIMALS[policy]) + 0.0 for degrees in self))


class Origin(NamedTuple):
    """When and where a photograph was taken."""

    date: str = ""  # ISO 8601, with the offset from UTC if the camera wrote it; empty where unknown
    position: Position | None = None
    problem: str = ""  # why a position in the file cannot be used; empty if it can, or there is none


def read_origins(paths: Iterable[Path], workers: int) -> Iterator[Origin]:
    """Yield the origin of each photograph in order; `workers` threads read the headers of the files."""
    rest = iter(paths)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(rest, 256)):
            yield from pool.map(read_origin, chunk)


def read_origin(path: Path) -> Origin:
    """Read time and position of a photograph; what is missing, damaged or ambiguous is left out, never guessed."""
    metadata = read_metadata(path)
    taken = metadata.taken if metadata else ""
    silence_pil_warnings()
    try:
        with path.open("rb") as file, parse_header(file) as image:
            exif: Any = image.getexif()
            exposure, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # a damaged file or EXIF may raise anything
        return Origin(taken)
    # The offset belongs to the time of the exposure, not to that of the file.
    has_own_time = bool(exposure.get(ExifTags.Base.DateTimeOriginal))
    offset = _text(exposure.get(ExifTags.Base.OffsetTimeOriginal)) if has_own_time else ""
    date = taken + offset if taken and re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d|Z", offset) else taken
    try:
        return Origin(date, position_of(gps))
    except ValueError as error:
        return Origin(date, None, str(error))


def position_of(gps: Mapping[int, Any]) -> Position | None:
    """Return the position in the tags of an EXIF GPS directory; None if there is none.

    Raises:
        ValueError: There is one that cannot be used; the message is the reason, the same for all such photographs.

    >>> position_of({1: "S", 2: (2.0, 30.0, 0.0), 3: "E", 4: (10.0, 30.6, 0.0)})
    Position(longitude=10.51, latitude=-2.5)
    """
    G = ExifTags.GPS
    angles = [gps.get(tag) for tag in (G.GPSLatitude, G.GPSLongitude)]
    if not any(angle is not None and angle != () for angle in angles):
        return None
    datum = _text(gps.get(G.GPSMapDatum)).upper()
    if datum and re.sub(r"[^A-Z0-9]", "", datum) not in ("WGS84", "WGS1984", "UNKNOWN", "NONE"):
        raise ValueError("its map datum is not WGS 84")
    latitude = _degrees(angles[0], _text(gps.get(G.GPSLatitudeRef)), "NS", 90)
    longitude = _degrees(angles[1], _text(gps.get(G.GPSLongitudeRef)), "EW", 180)
    if latitude == longitude == 0:
        raise ValueError("0, 0, which cameras write without a fix")
    return Position(longitude, latitude)


def _degrees(angle: Any, letter: str, letters: str, largest: int) -> float:
    """Return a signed angle from degrees, minutes and seconds, of which the last may be missing or have decimals."""
    parts = list(angle) if isinstance(angle, tuple | list) else [angle]
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError, ZeroDivisionError):
        numbers = [math.nan]
    if not 1 <= len(numbers) <= 3 or not all(map(math.isfinite, numbers)):
        raise ValueError("numbers that are none, such as 0/0")
    if letter.upper() not in (*letters,):
        raise ValueError("the letter of the hemisphere is missing")
    degrees, minutes, seconds = (*numbers, 0.0, 0.0)[:3]
    value = degrees + minutes / 60 + seconds / 3600
    if min(numbers) < 0 or max(minutes, seconds) > 60 or value > largest:
        raise ValueError("impossible degrees, minutes or seconds")
    return -value if letter.upper() == letters[1] else value


def _text(value: Any) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return text.split("\0", 1)[0].strip()
