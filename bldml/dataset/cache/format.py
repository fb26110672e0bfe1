"""The index of a file of squares: an NPZ without pickles, then a trailer that says how long it is.

It is written and read in pieces, so that it never lies in memory as a whole.
"""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bldml.dataset.duplicates.phash import PRINT_BYTES
from bldml.dataset.metadata import Metadata

_TRAILER = struct.Struct("<8sQI")
_MAGIC = b"BLDMLPX1"
_LOCAL = struct.Struct("<26xHH")  # of a ZIP's local header: lengths of the name and of what follows it
_PIECE = 2**20  # bytes


class DamagedIndex(Exception):
    """This is no index, or not all of it."""


class _Part(io.RawIOBase):
    """A part of a file, as a file to read."""

    def __init__(self, file: int, start: int, length: int) -> None:
        self._file, self._start, self._length, self._place = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._length - self._place))
        data = os.pread(self._file, wanted, self._start + self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


class _Tail(io.RawIOBase):
    """What is written to a file from a place on, one piece after the other."""

    def __init__(self, file: int, start: int) -> None:
        self._file, self._start, self.length, self.checksum = file, start, 0, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        write_at(self._file, view, self._start + self.length)
        self.length, self.checksum = self.length + len(view), zlib.crc32(view, self.checksum)
        return len(view)


class Index:
    """An index that is being read.

    Args:
        file: The open file.
        start: Where the index begins, in bytes.
        length: How long it is.
    """

    def __init__(self, file: int, start: int, length: int) -> None:
        self.start = start
        self._file, self._part = file, io.BufferedReader(_Part(file, start, length))
        self._zip = zipfile.ZipFile(self._part)

    def array(self, name: str) -> npt.NDArray[Any]:
        """One array, all of it."""
        with self._zip.open(f"{name}.npy") as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))

    def metadata(self) -> Iterator[Metadata | None]:
        """What the photographs' files say of themselves, row after row."""
        text = self.array("metadata").tobytes().decode()
        decoder, place = json.JSONDecoder(), 1
        while text[place : place + 1] not in ("]", ""):
            entry, place = decoder.raw_decode(text, place)
            yield None if entry is None else Metadata(**entry)
            place += 2 if text.startswith(", ", place) else 0

    def place_of_prints(self, count: int) -> int:
        """Where in the file the first of so many prints begins; the others follow."""
        info = self._zip.getinfo("prints.npy")
        with self._zip.open(info) as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise DamagedIndex
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
        if shape != (count, PRINT_BYTES) or is_fortran or dtype != np.uint8 or info.compress_type:
            raise DamagedIndex
        place = self.start + info.header_offset
        name, extra = _LOCAL.unpack(os.pread(self._file, _LOCAL.size, place))
        return int(place + _LOCAL.size + name + extra + info.file_size - count * PRINT_BYTES)


@contextmanager
def open_index(path: Path) -> Iterator[Index]:
    """Open the index of a file.

    Raises:
        DamagedIndex: There is none, or what was asked of it is not there.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(-_TRAILER.size, os.SEEK_END)
            magic, length, checksum = _TRAILER.unpack(file.read())
            if magic != _MAGIC or length > end:
                raise DamagedIndex
            file.seek(end - length)
            found = 0
            for start in range(0, length, _PIECE):
                found = zlib.crc32(file.read(min(_PIECE, length - start)), found)
            if found != checksum:
                raise DamagedIndex
            yield Index(file.fileno(), end - length, length)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, struct.error, zipfile.BadZipFile) as error:
        raise DamagedIndex from error


def write_index(
    file: int, start: int, arrays: Mapping[str, tuple[tuple[int, ...], str, Iterable[bytes | bytearray]]]
) -> None:
    """Write an index and its trailer.

    Args:
        file: Open for writing.
        start: Where the index begins, in bytes.
        arrays: Shape, NumPy's name of the type, and the bytes in pieces, by name.

    Raises:
        OSError: It cannot be written.
    """
    tail = _Tail(file, start)
    with zipfile.ZipFile(tail, "w") as archive:
        for name, (shape, descr, pieces) in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"shape": shape, "descr": descr, "fortran_order": False}
                np.lib.format.write_array_header_1_0(member, header)
                for piece in pieces:
                    member.write(piece)
    write_at(file, _TRAILER.pack(_MAGIC, tail.length, tail.checksum), start + tail.length)


def write_at(file: int, data: bytes | memoryview, place: int) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written
