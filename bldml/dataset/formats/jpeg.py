"""Decode a JPEG strictly: what libjpeg merely warns of is damage.

libjpeg fills in what is missing and continues, and PIL does not pass its warnings on. simplejpeg does. Both use
libjpeg-turbo with the same settings, so their pixels are equal; `tests/dataset/test_jpeg.py` compares them.

A JPEG has no checksum. Damage that happens to be valid code cannot be found: see `benchmarks/damage.py`.
"""

import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from bldml.dataset.formats.refusal import Refused

SMALL = 32
"""Pixels of the shorter side; below, two of libjpeg's scales can give the same size."""
MOST_SCANS = 500  # encoders write about 10; each costs as much time as a whole picture
LONG_RUN = 64
"""Zero bytes in coded data; they would be at least two blocks in which every coefficient has the same value."""

_DAMAGE = {
    "premature end of data segment": "damaged: picture data are missing or were overwritten",
    "bad Huffman code": "damaged: picture data were overwritten",
    "bad arithmetic code": "damaged: picture data were overwritten",
    "Unsupported marker type": "damaged: picture data were overwritten",
    "Bogus marker length": "damaged: picture data were overwritten",
    "instead of RST": "damaged: picture data are missing or were overwritten",
    "Inconsistent progression": "damaged: the scans of this progressive JPEG contradict each other",
    "Premature end of JPEG file": "truncated: the end of the file is missing",
}  # by a part of libjpeg's message
_LEFT_OVER = "damaged: more picture data than the picture needs; some were overwritten, or belong to another file"
_EXTRANEOUS = "extraneous bytes before marker"
_BEFORE_END = f"{_EXTRANEOUS} 0xd9"
_OTHER_KIND = "Unsupported JPEG process"  # also a frame in the middle of overwritten data
_ODD_SCAN = "Invalid SOS parameters"  # a wrong number that sequential decoding does not use

_SOS, _EOI, _DHT = 0xDA, 0xD9, 0xC4
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
_MARKER_IN_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # which ends coded data; not a restart marker


def decode_strictly(image: JpegImageFile, data: bytes, full_size: tuple[int, int]) -> Image.Image:
    """Return the pixels of a JPEG, without its metadata, equal to those that PIL decodes.

    Args:
        image: The header; `image.size` is the size to decode at, which `image.draft` may have reduced.
        data: The whole file. What follows the end of its first image is not examined.
        full_size: Width and height of the stored image.

    Raises:
        Refused: The data are damaged or incomplete.
        Exception: PIL may raise almost anything for other kinds of damage.
    """
    _check_scans(data)
    reduced = image.size != full_size
    if image.mode in ("L", "RGB") and not (reduced and min(full_size) < SMALL):
        pixels = _decode(data, "GRAY" if image.mode == "L" else "RGB", image.size if reduced else (0, 0))
        if pixels is not None:
            return Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)
    # What simplejpeg does not decode as PIL does: CMYK, tiny images, a header that libjpeg warns of. The data are
    # checked all the same, at the smallest scale and without those parts of the header.
    _decode(_without_application_data(data), "CMYK" if image.mode == "CMYK" else "RGB", (1, 1), is_check=True)
    image.load()
    return image


def check_stream(data: bytes, mode: str) -> None:
    """Check a JPEG inside another file; what simplejpeg cannot decode, such as 12 bits, is not checked.

    Raises:
        Refused: The data are damaged or incomplete.
    """
    _check_scans(data)
    _decode(_without_application_data(data), "CMYK" if mode == "CMYK" else "RGB", (1, 1), is_check=True)


def _decode(
    data: bytes, colours: str, size: tuple[int, int], *, is_check: bool = False
) -> npt.NDArray[np.uint8] | None:
    """Return an array (h, w, channels) of at least this size, (0, 0) for full size; None where PIL must judge.

    Raises:
        Refused: The data are damaged.
    """
    width, height = size
    decode = partial(simplejpeg.decode_jpeg, data, colours, min_width=width, min_height=height)
    pixels: npt.NDArray[np.uint8] | None = None
    try:
        pixels = decode()
    except ValueError as error:
        message = str(error)
    else:
        return pixels
    if reason := next((reason for part, reason in _DAMAGE.items() if part in message), None):
        raise Refused(reason)
    if _BEFORE_END in message:
        # Some cameras pad the data with zeros. Without them, a whole picture decodes without a warning.
        end = data.find(b"\xff\xd9", _start_of_data(data))
        if end > 0 and data[end - 1] == 0:
            return _decode(data[:end].rstrip(b"\0") + data[end:], colours, size, is_check=is_check)
        raise Refused(_LEFT_OVER)
    if _OTHER_KIND in message and is_check:
        raise Refused("damaged, or a kind of JPEG that is not read")
    if _EXTRANEOUS in message and is_check:  # at first it may be a part of the header, which PIL skips as well
        raise Refused(_LEFT_OVER)
    if _ODD_SCAN in message:
        pixels = decode(strict=False)
    return pixels


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and offset behind it of each segment of the first image; nothing behind odd lengths."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == _EOI or end < at + 4:
            return
        yield marker, data[at + 4 : end], end
        if marker == _SOS:
            found = _MARKER_IN_DATA.search(data, end)
            end = found.start() if found else len(data)
        at = end


def _start_of_data(data: bytes) -> int:
    return next((end for marker, _, end in _segments(data) if marker == _SOS), 2)


def _without_application_data(data: bytes) -> bytes:
    parts = [b"\xff\xd8"]
    for marker, content, end in _segments(data):
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content)
        if marker == _SOS:
            return b"".join((*parts, data[end:]))
    return data


def _check_scans(data: bytes) -> None:
    """Refuse what decodes without a warning: missing scans, and runs of zeros that no encoder writes.

    A file that is cut between two scans and ends with an end mark is only coarser, or lacks a colour.
    """
    frame, scans, tables = 0, 0, dict[int, int]()  # by class and number: the symbol whose code is all zeros
    missing: dict[int, dict[int, int]] = {}  # by component and coefficient: bits not received, 99 if none was
    for marker, content, end in _segments(data):
        if marker in _FRAMES and len(content) >= 6:
            frame = marker
            coefficients = range(64 if marker in _PROGRESSIVE else 1)
            missing = {component: dict.fromkeys(coefficients, 99) for component in content[6::3]}
        elif marker == _DHT:
            tables |= _first_symbols(content)
        elif marker == _SOS and content and len(content) >= 4 + 2 * content[0]:
            scans += 1
            if scans > MOST_SCANS:
                raise Refused(f"more than {MOST_SCANS} scans, which would take too long to decode")
            scan = content[1 : 1 + 2 * content[0]]
            first, last, bits = content[-3:] if frame in _PROGRESSIVE else (0, 0, 0)
            is_dc = frame in _PROGRESSIVE and first == 0
            if not (is_dc and bits >> 4):  # whose refinement has no codes
                used = [choice >> 4 if is_dc else 0x10 | choice & 15 for choice in scan[1::2]]
                _check_zeros(data, end, [tables.get(table, 0) for table in used])
            if frame not in _PROGRESSIVE and content[0] == len(missing):
                return
            for component in scan[::2]:
                missing.get(component, {}).update(dict.fromkeys(range(first, min(last, 63) + 1), bits & 15))
    if any(bits for component in missing.values() for bits in component.values()):
        raise Refused("truncated: the last scans of this JPEG are missing")


def _first_symbols(content: bytes) -> Iterator[tuple[int, int]]:
    while len(content) > 17:
        yield content[0], content[17]
        content = content[17 + sum(content[1:17]) :]


def _check_zeros(data: bytes, start: int, symbols: list[int]) -> None:
    """Refuse a long run of zeros in a scan, unless they are the codes of even areas in all its components."""
    if not any(symbol & 15 for symbol in symbols):
        return
    ends = [end for mark in (b"\xff\xd9", b"\xff\xda") if (end := data.find(mark, start)) >= 0]
    end = min(ends, default=len(data))
    run = data.find(bytes(LONG_RUN), start, end)
    if run >= 0 and data[run:end].strip(b"\0"):  # up to the end: truncated, or padded; the decoder knows
        raise Refused("damaged: picture data were overwritten with zeros")
