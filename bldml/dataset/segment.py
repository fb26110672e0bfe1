"""One file of squares of pixels, with what is known of their photographs: written once, then only read.

Rows of side × side × 3 bytes, one a photograph, then the index (an NPZ without pickles), then a trailer that says how
long the index is. A file that lost its end, or was never finished, is none.
"""

import hashlib
import io
import json
import os
import secrets
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bldml.dataset.metadata import Metadata
from bldml.dataset.perceptual import PRINT_BYTES, Print

SUFFIX = ".pixels"
UNFINISHED = ".building"
GIB = 2**30
SPARE = GIB
"""Bytes that are left free on the disk: a run has checkpoints to write."""

_TRAILER = struct.Struct("<8sQI")
_MAGIC = b"BLDMLPX1"
_DAY = 86400.0  # seconds; a process that builds writes more often
_ROWS_BETWEEN_LOOKS = 128  # at the free space


@dataclass(frozen=True)
class Segment:
    """The index of a file, row after row.

    Attributes:
        path: The file.
        digests: SHA-256 of the photographs' files.
        checksums: CRC-32 of the rows, uint32 (n,).
        metadata: What the photographs' files say of themselves.
        prints: See `perceptual`, (n, PRINT_BYTES).
    """

    path: Path
    digests: list[str]
    checksums: npt.NDArray[np.uint32]
    metadata: list[Metadata | None]
    prints: npt.NDArray[np.uint8]


class NoSpace(Exception):
    """There is no room for the squares; the message says how much was wanted where."""


def row_bytes(side: int) -> int:
    """Bytes of a square of this side."""
    return side * side * 3


def read_segment(path: Path, side: int) -> Segment | None:
    """Read the index of a finished file; None where it is damaged, cut or gone."""
    try:
        with path.open("rb") as file:
            end = file.seek(-_TRAILER.size, os.SEEK_END)
            magic, length, checksum = _TRAILER.unpack(file.read())
            if magic != _MAGIC or length > end:
                return None
            start = file.seek(end - length)
            index = file.read(length)
        if zlib.crc32(index) != checksum:
            return None
        with np.load(io.BytesIO(index), allow_pickle=False) as arrays:
            digests = [bytes(digest).hex() for digest in arrays["digests"]]
            checksums, prints, texts = arrays["checksums"], arrays["prints"], arrays["metadata"].tobytes()
        metadata = [None if entry is None else Metadata(**entry) for entry in json.loads(texts)]
    except (OSError, ValueError, KeyError, TypeError, struct.error, zipfile.BadZipFile):
        return None
    count = len(digests)
    if start != count * row_bytes(side) or not count == len(checksums) == len(metadata) == len(prints):
        return None
    return Segment(path, digests, checksums, metadata, prints)


def read_segments(folders: Iterable[Path], name: str, side: int) -> list[Segment]:
    """Read all finished files whose names begin so, newest first in each folder."""
    found = []
    for folder in folders:
        dated = []
        with suppress(OSError):
            for path in folder.glob(f"{name}-*{SUFFIX}"):
                with suppress(OSError):
                    dated.append((path.stat().st_mtime, path))
        found += [read_segment(path, side) for _, path in sorted(dated, reverse=True)]
    return [segment for segment in found if segment is not None]


def places(segments: Iterable[Segment]) -> dict[str, tuple[int, int]]:
    """Number of the file and of the row, by SHA-256 of the photograph."""
    known: dict[str, tuple[int, int]] = {}
    for number, segment in enumerate(segments):
        for row, digest in enumerate(segment.digests):
            known.setdefault(digest, (number, row))
    return known


class SegmentWriter:
    """Writes squares, from several threads, into a file that appears under its name when it is finished.

    Two processes that write the same squares at once each have a file of their own until then, and the last one's
    takes the place of the first, which says the same.

    Args:
        folder: Where; made where it is missing.
        name: Beginning of the file's name: side and version.
        side: Of the squares, in pixels.
        expected: How many there will be, as far as is known.

    Raises:
        NoSpace: They would not fit.
        OSError: The folder cannot be written to.
    """

    def __init__(self, folder: Path, name: str, side: int, expected: int) -> None:
        self.folder, self.name, self.side, self.expected = folder, name, side, expected
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        self._look_at_space(expected)
        self._path = folder / f".{secrets.token_hex(8)}{UNFINISHED}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}
        self._index: list[tuple[int, Metadata | None, Print]] = []

    def add(self, digest: str, square: Image.Image, metadata: Metadata | None, fingerprint: Print) -> None:
        """Write one square; nothing where there is one of this photograph already.

        Raises:
            NoSpace: The disk has become full.
            OSError: It cannot be written.
        """
        data = square.tobytes()
        with self._lock:
            if digest in self._rows:
                return
            row = self._rows[digest] = len(self._index)
            self._index.append((zlib.crc32(data), metadata, fingerprint))
        if row % _ROWS_BETWEEN_LOOKS == 0:
            self._look_at_space(1)
        write_at(self._file, data, row * len(data))

    def finish(self) -> Path | None:
        """Write the index and give the file its name; None, and no file, where nothing was added.

        Raises:
            OSError: It cannot be written.
        """
        if not self._rows:
            self.abandon()
            return None
        arrays: dict[str, Any] = {
            "digests": np.frombuffer(b"".join(bytes.fromhex(digest) for digest in self._rows), np.uint8).reshape(
                -1, 32
            ),
            "checksums": np.array([checksum for checksum, _, _ in self._index], np.uint32),
            "prints": np.stack([fingerprint for _, _, fingerprint in self._index]).reshape(-1, PRINT_BYTES),
        }
        metadata = [None if entry is None else asdict(entry) for _, entry, _ in self._index]
        arrays["metadata"] = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
        index = io.BytesIO()
        np.savez(index, **arrays)
        content, end = index.getbuffer(), len(self._index) * row_bytes(self.side)
        write_at(self._file, content, end)
        write_at(self._file, _TRAILER.pack(_MAGIC, len(content), zlib.crc32(content)), end + len(content))
        os.fsync(self._file)
        digest = hashlib.sha256("".join(sorted(self._rows)).encode()).hexdigest()
        path = self.folder / f"{self.name}-{digest[:16]}{SUFFIX}"
        self._close()
        _name(self._path, path, self.side)
        return path

    def empty(self) -> None:
        """Give the space back at once; the file itself stays until `abandon`, for threads that are still writing."""
        with suppress(OSError):
            os.ftruncate(self._file, 0)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._close()
        with suppress(OSError):
            self._path.unlink()

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):  # of writes that a file server put off; who reads a row checks it
                os.close(file)

    def _look_at_space(self, rows: int) -> None:
        state = os.statvfs(self.folder)
        free = state.f_bavail * state.f_frsize
        if free < rows * row_bytes(self.side) + SPARE:
            raise NoSpace(f"{shown_size(self.expected * row_bytes(self.side))} are needed, {shown_size(free)} are free")


def _name(written: Path, path: Path, side: int) -> None:
    """Give a file its name; one of the same photographs that another job has written stays, for it may be in use."""
    try:
        os.link(written, path)
    except FileExistsError:
        if read_segment(path, side) is None:
            written.replace(path)
    except OSError:  # a file system without links
        written.replace(path)


def write_at(file: int, data: bytes | memoryview, place: int) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written


def shown_size(size: int) -> str:
    """A size as a person would say it.

    >>> shown_size(300 * 2**20), shown_size(5 * GIB)
    ('300 MiB', '5.0 GiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def _remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed have left, when it is a day old."""
    for path in folder.glob(f".*{UNFINISHED}"):
        with suppress(OSError):  # another process was quicker, or it is another user's
            if time.time() - path.stat().st_mtime > _DAY:
                path.unlink()
