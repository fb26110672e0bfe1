"""Read the metadata of a photograph: size, camera, time, encoding; and, from its pixels, the measured border.

Location and owner of the camera are never read, only whether the file contains a location.
"""

import io
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ExifTags, ImageCms, ImageFile, JpegImagePlugin

from bldml.dataset.files import escape_text
from bldml.dataset.images import parse_header, silence_pil_warnings

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_LONGEST = 80  # characters of a camera's or a profile's name
_MP_NUMBER_OF_IMAGES = 0xB001  # tag of the CIPA multi-picture format


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata of one photograph."""

    width: int  # of the upright photograph, in pixels
    height: int
    camera: str = ""  # maker and model; empty where unknown
    taken: str = ""  # local time of the camera as ISO 8601 to the second, from EXIF or else XMP; empty where unknown
    subsec: str = ""  # digits of the fraction of the second; empty where unknown
    format: str = ""  # such as JPEG, MPO (a JPEG with several images), PNG; empty where unknown
    mode: str = ""  # PIL's mode of the stored pixels, such as RGB, L, CMYK, I;16; RGB;16 for colours of 16 bits
    frames: int = 1  # number of images in the file
    orientation: int = 0  # EXIF orientation as stored, even if illegal; 0 if there is none
    has_gps: bool = False  # whether the file contains the location
    icc: str = ""  # name of the embedded colour profile; empty if there is none
    quantization: float = 0.0  # mean of a JPEG's first quantisation table, higher for lower quality; 0 for others
    border: tuple[float, ...] = ()  # see `dataset.border.measure_border`; empty if not measured


def read_metadata(path: Path) -> Metadata | None:
    """Read the header of a photograph; None if even the size is unknown. Damaged EXIF counts as no EXIF."""
    silence_pil_warnings()
    try:
        with path.open("rb") as file, parse_header(file) as image:
            return _metadata_of(image)
    except Exception:  # a damaged header makes PIL raise almost anything; load_rgb reports the reason
        return None


def _metadata_of(image: ImageFile.ImageFile) -> Metadata:
    width, height = image.size
    mode = _mode(image)  # first, because a PNG is loaded when its EXIF is read
    exif, has_gps = _exif(image)
    orientation = exif.get(ExifTags.Base.Orientation)
    if orientation in _SIDEWAYS:
        width, height = height, width
    profile = image.info.get("icc_profile")
    is_mpo = image.format == "JPEG" and "mp" in image.info
    return Metadata(
        width,
        height,
        _camera(exif),
        _taken(exif) or _taken_by_xmp(image),
        subsec=re.sub(r"[^0-9]", "", _text(exif.get(ExifTags.Base.SubsecTimeOriginal)))[:9],
        format="MPO" if is_mpo else image.format or "",
        mode=mode,
        frames=_frames(image),
        orientation=orientation if isinstance(orientation, int) else 0,
        has_gps=has_gps,
        icc=_profile_name(profile) if isinstance(profile, bytes) and profile else "",
        quantization=_quantization(image),
    )


def _exif(image: Any) -> tuple[dict[int, Any], bool]:
    """Return the EXIF tags, those of the exposure included, and whether there is a latitude."""
    try:
        exif = image.getexif()
        has_gps = bool(exif.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitude))
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}, has_gps
    except Exception:  # damaged EXIF may raise anything
        return {}, False


def _frames(image: ImageFile.ImageFile) -> int:
    try:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            table: Any = JpegImagePlugin._getmp(image) if "mp" in image.info else None
            return int(table[_MP_NUMBER_OF_IMAGES]) if table else 1
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged table; the first image exists all the same
        return 1


def _quantization(image: Any) -> float:
    table = (getattr(image, "quantization", None) or {}).get(0)
    return round(sum(table) / len(table), 2) if table else 0.0


@lru_cache(maxsize=64)  # a dataset has few profiles
def _profile_name(profile: bytes) -> str:
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except Exception:  # a damaged profile may raise anything
        return "damaged profile"
    return escape_text(re.sub(r"\s+", " ", name).strip()[:_LONGEST]) or "profile without a name"


def _camera(exif: dict[int, Any]) -> str:
    """Return maker and model, without the maker twice.

    >>> _camera({271: "Apple", 272: "iPhone 12"}), _camera({271: "NIKON", 272: "NIKON D90"})
    ('Apple iPhone 12', 'NIKON D90')
    """
    maker, model = (_text(exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    named = model if not maker or model.lower().startswith(maker.lower().split()[0]) else f"{maker} {model}"
    return escape_text(named.strip()[:_LONGEST])


def _taken(exif: dict[int, Any]) -> str:
    """Return the time of the exposure, or else of the file's creation; empty if there is none."""
    for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
        try:
            return datetime.strptime(_text(exif.get(tag))[:19], "%Y:%m:%d %H:%M:%S").isoformat()
        except ValueError:
            continue
    return ""


# As an attribute or an element. Searched, not parsed, so that no entity is expanded; the names are those in use.
_XMP_TIMES = [
    re.compile(name + r"""\s*(?:=\s*["']|>)\s*(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)""")
    for name in ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate")
]


def _taken_by_xmp(image: Any) -> str:
    """Return the time of the exposure or creation by the clock of its place: a time zone is dropped, not converted."""
    values = (image.info.get("xmp"), image.info.get("XML:com.adobe.xmp"), getattr(image, "tag_v2", {}).get(700))
    for value in values:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
        for pattern in _XMP_TIMES:
            if found := pattern.search(text):
                with suppress(ValueError):  # such as month 0
                    return datetime.fromisoformat(found[1]).isoformat()
    return ""


def _mode(image: Any) -> str:
    is_wide = image.mode.startswith("RGB") and any(";16" in str(tile[3]) for tile in image.tile)
    return f"{image.mode};16" if is_wide else str(image.mode)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return re.sub(r"\s+", " ", text.split("\0", 1)[0]).strip()
