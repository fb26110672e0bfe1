"""One file of squares of pixels, with what is known of their photographs: written once, then only read.

Rows of side × side × 3 bytes, one a photograph, then what is known of them (`index`). A file that lost its end, or was
never finished, is none.
"""

import hashlib
import json
import os
import secrets
import tempfile
import threading
import time
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np

from bldml.dataset.cache.format import write_at, write_index
from bldml.dataset.cache.lookup import SUFFIX, read_segment, row_bytes
from bldml.dataset.contents import DIGEST_BYTES
from bldml.dataset.duplicates.phash import PRINT_BYTES, Print
from bldml.dataset.metadata import Metadata
from bldml.dataset.pixels import Square

UNFINISHED = ".building"
GIB = 2**30
SPARE = GIB
"""Bytes that are left free on the disk: a run has checkpoints to write."""

_DAY = 86400.0  # seconds; a process that builds writes more often
_ROWS_BETWEEN_LOOKS = 128  # at the free space


class NoSpace(Exception):
    """There is no room for the squares; the message says how much was wanted where."""


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
        # Of 100,000 photographs they would take 70 MB of memory.
        self._prints = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._metadata = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._path = folder / f".{secrets.token_hex(8)}{UNFINISHED}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._lock = threading.Lock()
        self._rows: dict[bytes, None] = {}  # SHA-256, in the order of the rows
        self._checksums = array("I")

    def add(self, digest: str, square: Square, metadata: Metadata | None, fingerprint: Print) -> None:
        """Write one square; nothing where there is one of this photograph already.

        Raises:
            NoSpace: The disk has become full.
            OSError: It cannot be written.
        """
        data, key = square.tobytes(), bytes.fromhex(digest)
        entry = json.dumps(None if metadata is None else asdict(metadata)).encode()
        with self._lock:
            if key in self._rows:
                return
            row = len(self._rows)
            self._rows[key] = None
            self._checksums.append(zlib.crc32(data))
            self._metadata.write((b", " if row else b"[") + entry)
        if row % _ROWS_BETWEEN_LOOKS == 0:
            self._look_at_space(1)
        write_at(self._file, data, row * len(data))
        write_at(self._prints.fileno(), fingerprint.tobytes(), row * PRINT_BYTES)

    def finish(self) -> Path | None:
        """Write the index and give the file its name; None, and no file, where nothing was added.

        Raises:
            OSError: It cannot be written.
        """
        if not self._rows:
            self.abandon()
            return None
        count = len(self._rows)
        self._metadata.write(b"]")
        arrays: dict[str, tuple[tuple[int, ...], str, Iterable[bytes | bytearray]]] = {
            "digests": ((count, DIGEST_BYTES), "|u1", self._rows),
            "checksums": ((count,), "<u4", [np.array(self._checksums, "<u4").tobytes()]),
            "prints": ((count, PRINT_BYTES), "|u1", _pieces(self._prints)),
            "metadata": ((self._metadata.tell(),), "|u1", _pieces(self._metadata)),
        }
        write_index(self._file, count * row_bytes(self.side), arrays)
        os.fsync(self._file)
        digest = hashlib.sha256("".join(key.hex() for key in sorted(self._rows)).encode()).hexdigest()
        path = self.folder / f"{self.name}-{digest[:16]}{SUFFIX}"
        self._close()
        _name(self._path, path, self.side)
        return path

    def empty(self) -> None:
        """Give the space back at once; the file itself stays until `abandon`, for threads that are still writing."""
        with suppress(OSError):
            for file in (self._file, self._prints.fileno(), self._metadata.fileno()):
                os.ftruncate(file, 0)

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
        for side in (self._prints, self._metadata):
            with suppress(OSError):
                side.close()

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


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(2**20):
        yield piece


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
