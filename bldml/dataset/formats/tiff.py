"""TIFF without the messages of libtiff, not the preview of a RAW file, and whole where its compression can tell.

libtiff stops when it has all pixels of a strip, so it does not compare the checksum behind them; and what libjpeg warns
of, it ignores.
"""

import ctypes
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import BinaryIO

from PIL import _imaging
from PIL.TiffImagePlugin import TiffImageFile

from bldml.dataset.formats.jpeg import check_stream
from bldml.dataset.formats.refusal import Refused

_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706
_COMPRESSION, _FILL_ORDER, _JPEG_TABLES = 259, 266, 347
_PLACES = ((273, 279), (324, 325))  # tags of offsets and lengths: of strips, of tiles
_DEFLATE, _JPEG = (8, 32946), 7
_START, _END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
_CHUNK = 2**20  # bytes decompressed at once
_MOST_BYTES = 16  # of a pixel, after decompression


def parse_tiff(file: BinaryIO) -> TiffImageFile:
    """Read the header of a TIFF.

    Raises:
        Refused: It is a RAW file, whose first image is a preview.
        Exception: PIL may raise almost anything for damaged tags.
    """
    silence_libtiff()
    image = TiffImageFile(file)
    tags = image.tag_v2
    if _DNG_VERSION in tags or (_SUB_IFDS in tags and tags.get(_NEW_SUBFILE_TYPE, 0) == 1):
        raise Refused("the content is RAW, which is not read: export it as JPEG")
    return image


def check_strips(image: TiffImageFile, data: bytes) -> None:
    """Check the strips or tiles of the first image, compressed as zlib or JPEG; others are not checked.

    Args:
        image: The header, before its pixels are loaded.
        data: The whole file.

    Raises:
        Refused: One of them is damaged.
    """
    tags = image.tag_v2
    compression = tags.get(_COMPRESSION)
    if compression == _JPEG:
        tables = bytes(tags.get(_JPEG_TABLES) or b"").removesuffix(_END)
        for strip in _strips(image, data):
            if not strip.startswith(_START):
                raise Refused("damaged: picture data were overwritten")
            # An end mark of our own, because what matters is whether the pixels are there.
            check_stream((tables + strip[2:] if tables else strip) + _END, image.mode)
    elif compression in _DEFLATE and tags.get(_FILL_ORDER, 1) == 1:
        left = image.width * image.height * _MOST_BYTES
        for strip in _strips(image, data):
            left = _check_sum(strip, left)


def _strips(image: TiffImageFile, data: bytes) -> Iterator[bytes]:
    """Yield the strips or tiles; sparse ones, which have no bytes, are left out."""
    for offsets, lengths in _PLACES:
        for offset, length in zip(*(_numbers(image.tag_v2.get(tag)) for tag in (offsets, lengths)), strict=False):
            if offset >= len(data):
                raise Refused("truncated: picture data are missing")
            if offset and length:
                yield data[offset : offset + length]


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [number for number in values if isinstance(number, int)]


def _check_sum(strip: bytes, left: int) -> int:
    """Compare the checksum of a strip, if it has one; return how many bytes may still be decompressed."""
    decompressor, rest = zlib.decompressobj(), strip
    try:
        while rest and left > 0 and not decompressor.eof:
            left -= len(decompressor.decompress(rest, _CHUNK))
            rest = decompressor.unconsumed_tail
    except zlib.error:
        raise Refused("damaged: picture data were overwritten (wrong checksum)") from None
    return left


@cache
def silence_libtiff() -> None:
    """Stop libtiff from writing to the terminal; PIL raises its errors, and `load_rgb` names the file.

    Its handlers belong to the whole process. Where libtiff is a part of PIL's own library, as on Windows, they cannot
    be reached, and the messages stay.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)  # loaded already; looks up what it depends on as well
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
            set_handler(None)
