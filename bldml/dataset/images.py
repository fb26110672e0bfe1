"""Decode one photograph to upright sRGB, or raise the reason why it cannot be used; resize it to a square.

`load_rgb` is the only function that decodes photographs, so training, testing, prediction, explanations and thumbnails
see the same pixels. Nothing is repaired: a photograph that cannot be read completely is an error.
"""

import importlib
import io
import stat
import threading
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from bldml.dataset.formats.boxes import check_boxes
from bldml.dataset.formats.depth import check_colours, declared_bits, to_eight_bits
from bldml.dataset.formats.jpeg import decode_strictly
from bldml.dataset.formats.png import check_chunks
from bldml.dataset.formats.refusal import Refused
from bldml.dataset.formats.tiff import check_strips, parse_tiff
from bldml.errors import DatasetError
from bldml.io.platform import after_fork_in_child

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif"}
)
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})

PIXEL_LIMITS = {"JPEG": 250_000_000, "HEIF": 250_000_000, "AVIF": 250_000_000}
"""Maximum size of an image in pixels, by format; phones write up to 200 megapixels in these."""
PIXEL_LIMIT = 100_000_000  # of any other format

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_PARSERS: dict[tuple[bytes, ...], Callable[[BinaryIO], ImageFile.ImageFile]] = {
    (b"\xff\xd8\xff",): JpegImageFile,  # an MPO begins with its first frame as an ordinary JPEG
    (b"\x89PNG\r\n\x1a\n",): PngImageFile,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): parse_tiff,
    (b"BM",): BmpImageFile,
}  # by the first bytes of the file
_NOT_READ = {
    (b"\xff\x0a", b"\0\0\0\x0cJXL "): "JPEG XL",
    (b"\0\0\0\x0cjP  ",): "JPEG 2000",
    (b"GIF8",): "GIF",
    (b"8BPS",): "Photoshop",
    (b"%PDF",): "PDF",
    (b"II*\0\x10\0\0\0CR", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILMCCD-RAW", b"FOVb"): "RAW",
}
_CHECKS: dict[str, Callable[[Any, bytes], None]] = {
    "PNG": lambda _, data: check_chunks(data),
    "HEIF": lambda _, data: check_boxes(data),
    "AVIF": lambda _, data: check_boxes(data),
    "TIFF": check_strips,
}
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


Decode = Literal["full", "reduced"]
"""How an evaluation decodes a JPEG: at full size, or, as in version 0.1, at a reduced scale."""

ResizedImage = npt.NDArray[np.uint8]
"""Whole frame in RGB, resized to (side, side, 3): the image that a network sees and that is cached."""


class UnreadableImage(DatasetError):
    """A photograph that cannot be used, with the reason in plain words."""

    code = "photograph-unusable"

    def __init__(self, path: Path, reason: str) -> None:
        """Store path and reason, also in `args`, so that the error can be pickled in a loader worker."""
        super().__init__(f"The photograph {path} cannot be read: {reason}.", path=path, reason=reason)
        self.args = path, reason
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _StrictDecoding:
    """Context in which PIL refuses truncated or broken pixel data, whatever another library has configured.

    `ImageFile.LOAD_TRUNCATED_IMAGES` is global to the process and is read during decoding. It is switched off when the
    first thread enters, and restored when the last thread leaves.
    """

    def __init__(self) -> None:
        self._reset()
        # A loader worker must not inherit a lock that another thread holds.
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._threads_inside = 0
        self._wanted_outside = False

    def __enter__(self) -> None:
        with self._lock:
            self._wanted_outside |= ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._threads_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads_inside -= 1
            self._wanted_outside |= ImageFile.LOAD_TRUNCATED_IMAGES
            if self._threads_inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._wanted_outside
                self._wanted_outside = False


_strict_decoding = _StrictDecoding()


@cache
def heif_available() -> bool:
    """Return whether HEIC can be read (extra `heif`); the first call registers the reader with PIL."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def load_rgb(path: Path, target_size: int | None = None) -> Image.Image:
    """Decode a photograph: the whole first frame, upright, in sRGB, transparent parts on white.

    Args:
        path: A JPEG, MPO, PNG, TIFF, WebP, BMP or AVIF file, or HEIC if `heif_available()`. The format is determined
            by the content, not by the suffix.
        target_size: Side in pixels to which the caller will reduce the image, at least 1. A JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size if both sides stay at least `2 * target_size`. None: full size.

    Returns:
        Image of mode "RGB", 8 bits per channel, independent of the file, its metadata and its colour profile.

    Raises:
        UnreadableImage: The file is missing, not readable, not a regular file, of another format, damaged, truncated,
            too large (`PIXEL_LIMITS`) or has an unknown white level (float, true 32 bit).
        ValueError: `target_size` is below 1.
    """
    if target_size is not None and target_size < 1:
        raise ValueError(f"target_size is {target_size}; it must be at least 1 pixel")
    path = Path(path)
    silence_pil_warnings()
    try:
        # Checked before opening, because opening a pipe would wait for its writer forever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused("not a regular file")
        with path.open("rb") as file, _strict_decoding:
            return _decode(file, target_size)
    except Refused as refusal:
        raise UnreadableImage(path, str(refusal)) from None
    except Exception as error:  # damaged files make PIL raise almost any
        raise UnreadableImage(path, _plain_reason(error)) from error


def to_upright_srgb(image: Image.Image) -> Image.Image:
    """Return an image that another program opened as `load_rgb` would: upright, in sRGB, transparent parts on white.

    Damage of which a JPEG's decoder only warns is found by `load_rgb` alone.

    Raises:
        UnreadableImage: It is damaged, has no pixels, or has an unknown white level.
    """
    silence_pil_warnings()
    try:
        if 0 in image.size:
            raise Refused("no pixels")
        with _strict_decoding:
            image.load()
            rgb = _to_srgb(image, image.info.get("icc_profile"))
            transposition = _transposition(image)
    except Refused as refusal:
        raise UnreadableImage(Path(), str(refusal)) from None
    except Exception as error:  # a damaged file that was opened, but not read yet
        raise UnreadableImage(Path(), _plain_reason(error)) from error
    upright = rgb.copy() if transposition is None else rgb.transpose(transposition)
    upright.info = {}
    return upright


def decoding_size(decode: Decode, image_size: int) -> int | None:
    """Return the `target_size` of `load_rgb` for an evaluation.

    For 12 megapixels full size takes 4.5 times as long (`benchmarks/loading.py`). But other programs, such as a
    browser, can then compute the same image: no other decoder has libjpeg's reduced scales.
    """
    return None if decode == "full" else image_size


def _decode(file: BinaryIO, target_size: int | None) -> Image.Image:
    with parse_header(file) as image:
        data_start = file.tell()
        file_format = image.format or ""
        limit = PIXEL_LIMITS.get(file_format, PIXEL_LIMIT)
        if image.width * image.height > limit:
            raise Refused(
                f"too large: {image.width} x {image.height} = {image.width * image.height:,} pixels; "
                f"the limit for {file_format} is {limit:,}"
            )
        decoded: Image.Image = image
        if isinstance(image, JpegImageFile):
            full_size = image.size
            if target_size is not None:
                image.draft("RGB", (2 * target_size, 2 * target_size))  # "RGB" does not convert grey and CMYK
            file.seek(0)
            decoded = decode_strictly(image, file.read(), full_size)
        else:
            if check := _CHECKS.get(file_format):
                file.seek(0)
                check(image, file.read())
                file.seek(data_start)
            image.load()
        declared = declared_bits(image, file)
        if decoded.mode.startswith("I"):
            decoded = to_eight_bits(decoded, declared)
        check_colours(decoded, declared)
        upright = _to_srgb(decoded, image.info.get("icc_profile"))
        # After load(), because a PNG may have its EXIF after the pixels, and load() already rotates a TIFF.
        transposition = _transposition(image)
    # If another library has switched it on meanwhile, truncated data would have passed: decode again.
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        file.seek(0)
        with _strict_decoding:
            return _decode(file, target_size)
    if transposition is not None:
        upright = upright.transpose(transposition)
    upright.info = {}  # otherwise PIL would embed the old profile in a PNG of the converted pixels
    return upright


def parse_header(file: BinaryIO) -> ImageFile.ImageFile:
    """Read the header with the parser for the file's first bytes.

    `Image.open(formats=...)` tries the same parsers, but also applies `Image.MAX_IMAGE_PIXELS`, which warns above 89
    and fails above 179 megapixels. That limit is global to the process: it cannot be lifted for one thread. The parsers
    get no file name, because PIL would map the file into memory, and truncating a mapped file kills the process.
    """
    start = file.read(64)
    file.seek(0)
    for beginnings, name in _NOT_READ.items():
        if start.startswith(beginnings):
            raise Refused(f"the content is {name}, which is not read: export it as JPEG")
    for beginnings, parse in _PARSERS.items():
        if start.startswith(beginnings):
            return parse(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return WebPImageFile(file)
    if start[4:8] == b"ftyp":
        return _parse_boxes(file, start[8 : int.from_bytes(start[:4])])
    if not start:
        raise Refused("the file is empty")
    raise Refused("the content is not JPEG, PNG, TIFF, WebP, BMP, HEIC or AVIF")


def _parse_boxes(file: BinaryIO, brands: bytes) -> ImageFile.ImageFile:
    """Read the header of HEIC or AVIF: a main brand, four bytes that mean nothing here, and compatible brands."""
    known = {brands[at : at + 4] for at in range(0, len(brands), 4)}
    if known & _AVIF_BRANDS:
        if not features.check("avif"):
            raise Refused("an AVIF file, which this build of Pillow does not read: export it as JPEG")
        return AvifImageFile(file)
    if known & _HEIF_BRANDS:
        if not heif_available():
            raise Refused("a HEIC file: install bldml[heif], or export it as JPEG")
        factory, _ = Image.OPEN["HEIF"]
        return factory(file, "")
    if b"crx " in known:
        raise Refused("the content is RAW, which is not read: export it as JPEG")
    raise Refused("the content is not JPEG, PNG, TIFF, WebP, BMP, HEIC or AVIF, but perhaps a video")


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that makes a loaded image upright; None if the tag is 1, illegal, damaged or missing."""
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF may raise anything; the pixels are intact
        return None


_PIL_MODULES = r"(PIL|pillow_heif)\."


def silence_pil_warnings() -> None:
    """Ignore PIL's own warnings about odd metadata and large images.

    `warnings.catch_warnings` is not safe with threads before Python 3.14, so one filter for PIL's modules is put to the
    front, and again whenever other filters were put before it.
    """
    if not (warnings.filters and getattr(warnings.filters[0][3], "pattern", "") == _PIL_MODULES):
        warnings.filterwarnings("ignore", module=_PIL_MODULES)


def _plain_reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, PermissionError):
        return "no permission to read the file"
    if isinstance(error, MemoryError):
        return "not enough memory to decode the file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"cannot be decoded, probably damaged or truncated ({type(error).__name__}: {error})"


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an sRGB image, converted with the embedded profile, transparent parts on white; perhaps the same one."""
    if image.mode.startswith("I") or image.mode == "F":
        image = to_eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = image.getchannel("A")
    if image.mode != "CMYK":
        image = _converted(image, "L" if image.mode in ("1", "L", "LA") else "RGB")
    transform = _transform_to_srgb(profile, image.mode) if profile else None
    rgb = _converted(image, "RGB") if transform is None else _apply(image, transform)
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode; not a copy if it is in it already and belongs to no file."""
    return image if image.mode == mode and type(image) is Image.Image else image.convert(mode)


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from an ICC profile to sRGB; None if the profile is broken, of another mode, or sRGB."""
    probe = Image.new(mode, (0, 0))
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    elif mode == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        change = np.asarray(_apply(probe, transform), dtype=int) - np.asarray(probe.convert("RGB"), dtype=int)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    # Cameras write sRGB profiles under many names; they are recognised by their effect, up to rounding.
    return transform if np.abs(change).max() > 2 else None


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only with inPlace=True
    return converted


def resize_to_square(image: Image.Image | ResizedImage, side: int) -> ResizedImage:
    """Resize a whole upright RGB image to a square of `side` pixels, whatever its aspect ratio.

    An array of this size is returned unchanged; the result may be read-only.
    """
    if isinstance(image, np.ndarray):
        if image.shape == (side, side, 3):
            return image
        image = Image.fromarray(image)
    resized = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized)
