"""Grey values of more than 8 bits: which value is white."""

from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from bldml.dataset.formats.refusal import Refused

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF 6.0
_IDAT, _SBIT = b"IDAT", b"sBIT"


def to_eight_bits(image: Image.Image, declared: int = 16) -> Image.Image:
    """Scale grey values to "L", or to "LA" if one value means transparent.

    White is 65535, unless the file declares fewer bits and its values fit into them.

    Args:
        image: Of a mode that begins with "I"; "F" is refused.
        declared: Number of bits that the file declares (`declared_bits`).

    Raises:
        Refused: The white level is unknown.
    """
    if image.mode == "F":
        raise Refused("floating-point values, whose white level is unknown: export the image with 8 or 16 bits")
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Refused(f"values from {low} to {high}; the white level is only known for 0 to 65535 (16 bits)")
    white = 2**declared - 1 if _fits(values, declared) else 65535
    grey = Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, alpha))
    return grey


def _fits(values: npt.NDArray[np.generic], bits: int) -> bool:
    """Return whether values are of so many bits, and not such values scaled to 16 bits in a dark photograph."""
    unused = np.asarray(values, dtype=np.uint32) & (2 ** (16 - bits) - 1)
    return bits < 16 and int(values.max()) < 2**bits and bool(unused.any())


def declared_bits(image: Image.Image, file: BinaryIO) -> int:
    """Return the number of bits of a sample that the file declares, 9 to 16; 16 where it declares none of these.

    A PNG declares them in the chunk sBIT, whose values should be scaled to 16 bits, but often are not. A TIFF declares
    them as the depth or as the highest value; another highest value than one of a number of bits may be a measured one.
    """
    bits = 16
    if isinstance(image, TiffImageFile):
        depth, highest = (_first(image.tag_v2.get(tag)) for tag in (_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE))
        bits = depth if 8 < depth < 16 else (highest + 1).bit_length() - 1 if highest & (highest + 1) == 0 else 16
    elif isinstance(image, PngImageFile):
        bits = _significant_bits(file)
    return bits if 8 < bits < 16 else 16


def _first(value: object) -> int:
    number = value[0] if isinstance(value, tuple) and value else value
    return number if isinstance(number, int) and number > 0 else 0


def _significant_bits(file: BinaryIO) -> int:
    before = file.tell()
    file.seek(8)
    bits = 16
    while len(head := file.read(8)) == 8 and head[4:] != _IDAT:
        if head[4:] == _SBIT:
            bits = (file.read(1) or b"\x10")[0]
            break
        file.seek(int.from_bytes(head[:4]) + 4, 1)
    file.seek(before)
    return bits


def check_colours(image: Image.Image, declared: int) -> None:
    """Refuse colours of 16 bits of which the file uses fewer: PIL keeps the upper 8 bits alone.

    Raises:
        Refused: No value reaches those bits.
    """
    if declared < 16 and image.mode in ("RGB", "RGBA"):
        colours = image.getextrema()[:3]
        if max(int(high) for _, high in colours) < 2 ** (declared - 8):  # type: ignore[misc]
            raise Refused(f"{declared} of 16 bits are used, so it would be far too dark: export it with 8 bits")
