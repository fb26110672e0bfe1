"""Squares of pixels, read from the cache.

Rows are read, not mapped: the system keeps one copy of them for all processes either way, but a mapped file that
another machine cuts short kills whoever looks at it.
"""

import os
import weakref
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from bldml.dataset.cache.format import write_at
from bldml.dataset.cache.lookup import Places, read_segments, row_bytes
from bldml.dataset.cache.writer import cache_name
from bldml.dataset.files import show_path
from bldml.dataset.pixels import Square, squash


class DamagedSquare(Exception):
    """A row of the cache is not what was written; the message is its file."""


class Squares:
    """The squares of some photographs, read from the cache by their number.

    Holds arrays and no objects of its own for each photograph: processes that are forked from this one would copy them.

    Args:
        folders: Of the cache.
        side: Of the squares, in pixels.
        target_size: See `cache_name`.
        digests: SHA-256 of the photographs' files.
    """

    def __init__(self, folders: Sequence[Path], side: int, target_size: int, digests: Sequence[str]) -> None:
        self.side = side
        segments = read_segments(folders, cache_name(side, target_size), side, with_metadata=False)
        known = Places(segments)
        self._segment, self._row = np.full(len(digests), -1, np.int16), np.zeros(len(digests), np.int64)
        self._checksum = np.zeros(len(digests), np.uint32)
        for number, digest in enumerate(digests):
            if (place := known.find(digest)) is not None:
                segment, row = place
                self._segment[number], self._row[number] = place
                self._checksum[number] = segments[segment].checksums[row]
        self._paths = [segment.path for segment in segments]
        self._open()

    def __len__(self) -> int:
        """How many of the photographs have a square."""
        return int((self._segment >= 0).sum())

    def read(self, number: int) -> Square | None:
        """The square of a photograph; None where there is none.

        Raises:
            DamagedSquare: It is not what was written, or cannot be read any more.
        """
        segment = int(self._segment[number])
        if segment < 0:
            return None
        length = row_bytes(self.side)
        try:
            data = os.pread(self._files[segment], length, int(self._row[number]) * length)
        except OSError:  # a file server has forgotten it
            data = b""
        if len(data) != length or zlib.crc32(data) != self._checksum[number]:
            raise DamagedSquare(show_path(self._paths[segment]))
        return np.frombuffer(data, np.uint8).reshape(self.side, self.side, 3)

    def mend(self, number: int, photograph: Image.Image) -> None:
        """Write a damaged square anew, where that is possible and the photograph is still the same."""
        data = squash(photograph, self.side).tobytes()
        if zlib.crc32(data) != self._checksum[number]:
            return
        with suppress(OSError):
            segment = int(self._segment[number])
            file = os.open(self._paths[segment], os.O_WRONLY)
            try:
                if _identity(file) == self._identities[segment]:  # by now another file may have its name
                    write_at(file, data, int(self._row[number]) * len(data))
            finally:
                os.close(file)

    def __getstate__(self) -> dict[str, object]:
        """Without the open files, for a process that is not forked."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_files", "_closing")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        """Open the files now: what is removed or replaced during a run can still be read."""
        before = self.__dict__.get("_identities")  # in the process that this one was copied from
        self._files: list[int] = []
        self._identities: list[tuple[int, int] | None] = []
        for number, path in enumerate(self._paths):
            file = -1
            if (self._segment == number).any():
                with suppress(OSError):
                    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            if file >= 0 and before and before[number] != _identity(file):  # another file has its name by now
                os.close(file)
                file = -1
            self._files.append(file)
            self._identities.append(_identity(file) if file >= 0 else None)
        self._closing = weakref.finalize(self, _close, [file for file in self._files if file >= 0])


def _identity(file: int) -> tuple[int, int]:
    state = os.fstat(file)
    return state.st_dev, state.st_ino


def _close(files: list[int]) -> None:
    for file in files:
        with suppress(OSError):
            os.close(file)
