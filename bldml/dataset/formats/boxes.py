"""Whether a HEIC or AVIF file is whole: the boxes of ISO 14496-12 and the items of ISO 23008-12.

libheif shows tiles that are missing as even green. HEIC has no checksum, but HEVC forbids three zero bytes in a row, so
zeroed parts can be found. Other bytes in their place cannot: see `benchmarks/damage.py`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bldml.dataset.formats.refusal import Refused

_TOP_LEVEL = frozenset((b"ftyp", b"meta", b"mdat", b"idat", b"moov", b"moof", b"free", b"skip", b"uuid", b"mpvd"))
_FORBIDDEN = re.compile(rb"\0\0[\0-\2]")  # in HEVC, by its emulation prevention
_LONG_RUN = 64  # equal bytes; coded data have no such run
_TRUNCATED = "truncated: the end of the file is missing"
_ZEROS = "damaged: picture data were overwritten with zeros"
_SHIFTED = "damaged: picture data are missing, inserted or overwritten"


class _Extent(NamedTuple):
    item: int
    start: int  # offset in the file
    end: int


def check_boxes(data: bytes) -> None:
    """Check that every box and every part of an image lies in the file, and that coded data are not zeroed.

    Raises:
        Refused: The file is cut short, or picture data are damaged.
    """
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind not in _TOP_LEVEL:  # phones append data of their own, some without a box
            continue
        if end > len(data):
            raise Refused(_TRUNCATED)
        if kind == b"meta":
            _check_items(data, start + 4, end)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of the boxes between two offsets; the last may end behind the file."""
    while start + 8 <= end:
        size, kind, head = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        elif size == 0:  # to the end
            size = end - start
        if size < head:
            return
        yield kind, start + head, start + size
        start += size


def _check_items(data: bytes, start: int, end: int) -> None:
    boxes = {kind: (first, last) for kind, first, last in _boxes(data, start, end)}
    kinds = dict(_kinds(data, *boxes[b"iinf"])) if b"iinf" in boxes else {}
    configuration = data.find(b"hvcC", start, end)
    length_size = (data[configuration + 25] & 3) + 1 if 0 <= configuration < len(data) - 25 else 0
    for item, first, last in _extents(data, *boxes[b"iloc"]) if b"iloc" in boxes else ():
        if last > len(data):
            raise Refused(_TRUNCATED)
        if kinds.get(item) == b"hvc1" and length_size:
            _check_hevc(data, first, last, length_size)
        elif kinds.get(item) == b"av01":
            _check_runs(data, first, last)


def _kinds(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and kind of each item of the box iinf."""
    for kind, first, last in _boxes(data, start + (6 if data[start] == 0 else 8), end):
        width = 2 if data[first] < 3 else 4  # bytes of an item's number, from version 3 on 4
        if kind == b"infe" and data[first] >= 2 and last <= end:
            number = first + 4 + width
            yield int.from_bytes(data[first + 4 : number]), data[number + 2 : number + 6]


def _extents(data: bytes, start: int, end: int) -> Iterator[_Extent]:
    """Yield the parts of each item that lie in the file, from the box iloc."""
    version, at = data[start], start + 4

    def read(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at])

    sizes = read(2)
    offset_size, length_size, base_size, index_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15
    wide = 2 if version < 2 else 4
    for _ in range(read(wide)):
        item = read(wide)
        is_in_file = version == 0 or read(2) & 15 == 0
        is_in_file &= read(2) == 0
        base = read(base_size)
        for _ in range(read(2)):
            if at >= end:
                return
            read(index_size if version else 0)
            first = base + read(offset_size)
            length = read(length_size)
            if is_in_file:
                yield _Extent(item, first, first + length if length else len(data))


def _check_hevc(data: bytes, start: int, end: int, length_size: int) -> None:
    """Walk over the units of coded data, each with its length before it."""
    while start < end:
        unit = start + length_size
        start = unit + int.from_bytes(data[start:unit])
        if start > end:
            raise Refused(_ZEROS if not data[unit:end].strip(b"\0") else _SHIFTED)
        if _FORBIDDEN.search(data, unit, start):
            raise Refused(_ZEROS if data.find(bytes(8), unit, start) >= 0 else _SHIFTED)
        _check_runs(data, unit, start)


def _check_runs(data: bytes, start: int, end: int) -> None:
    """Refuse long runs of zeros, and of ones, which erased memory has."""
    for byte, reason in ((b"\0", _ZEROS), (b"\xff", _SHIFTED)):
        if data.find(byte * _LONG_RUN, start, end) >= 0:
            raise Refused(reason)
