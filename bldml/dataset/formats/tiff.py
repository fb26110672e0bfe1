"""TIFF without the messages of libtiff, and not the preview of a RAW file."""

import ctypes
from contextlib import suppress
from functools import cache
from typing import BinaryIO

from PIL import _imaging
from PIL.TiffImagePlugin import TiffImageFile

from bldml.dataset.formats.refusal import Refused

_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706


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
