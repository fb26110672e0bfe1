"""What a photograph's file says of itself: size, camera, time. Never where it was taken, nor whose camera it was."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags

from bldml.dataset.files import escape_text
from bldml.dataset.images import parse_header, silence_pil_warnings

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_LONGEST = 80  # characters of a camera's name


@dataclass(frozen=True)
class Metadata:
    """Of one photograph.

    Attributes:
        width: Pixels, of the upright photograph.
        height: Pixels, of the upright photograph.
        camera: Maker and model; empty where unknown.
        taken: Camera's local time as ISO 8601 to the second; empty where unknown.
    """

    width: int
    height: int
    camera: str = ""
    taken: str = ""


def read_metadata(path: Path) -> Metadata | None:
    """Read the header of a photograph; None where even the size cannot be had. Damaged EXIF counts as none."""
    silence_pil_warnings()
    try:
        with path.open("rb") as file, parse_header(file) as image:
            width, height = image.size
            exif = _exif(image)
    except Exception:  # a damaged header makes PIL raise nearly everything; load_rgb says why
        return None
    if exif.get(ExifTags.Base.Orientation) in _SIDEWAYS:
        width, height = height, width
    return Metadata(width, height, _camera(exif), _taken(exif))


def _exif(image: Any) -> dict[int, Any]:
    try:
        exif = image.getexif()
        # The time of the exposure lies in a table of its own.
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # damaged EXIF raises anything
        return {}


def _camera(exif: dict[int, Any]) -> str:
    """Maker and model, the maker once.

    >>> _camera({271: "Apple", 272: "iPhone 12"}), _camera({271: "NIKON", 272: "NIKON D90"})
    ('Apple iPhone 12', 'NIKON D90')
    """
    maker, model = (_text(exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    named = model if not maker or model.lower().startswith(maker.lower().split()[0]) else f"{maker} {model}"
    return escape_text(named.strip()[:_LONGEST])


def _taken(exif: dict[int, Any]) -> str:
    """Time of the exposure; of the file's making where that is missing.

    >>> _taken({36867: "2024:06:01 12:30:00"}), _taken({36867: "0000:00:00 00:00:00"})
    ('2024-06-01T12:30:00', '')
    """
    for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
        try:
            return datetime.strptime(_text(exif.get(tag))[:19], "%Y:%m:%d %H:%M:%S").isoformat()
        except ValueError:
            continue
    return ""


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return re.sub(r"\s+", " ", text.split("\0", 1)[0]).strip()
