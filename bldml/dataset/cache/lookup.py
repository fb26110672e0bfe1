"""Files of squares of pixels found again: what they hold of which photograph, and where."""

import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bldml.dataset.cache.format import DamagedIndex, open_index
from bldml.dataset.contents import DIGEST_BYTES, Digests, MetadataTable
from bldml.dataset.duplicates.phash import PRINT_BYTES, Print

SUFFIX = ".pixels"


@dataclass(frozen=True)
class Segment:
    """The index of a file, row after row.

    Attributes:
        path: The file.
        digests: SHA-256 of the photographs' files.
        checksums: CRC-32 of the rows, uint32 (n,).
        metadata: What the photographs' files say of themselves.
        prints: Where in the file the prints begin (see `perceptual`, PRINT_BYTES each); see `StoredPrints`.
    """

    path: Path
    digests: Digests
    checksums: npt.NDArray[np.uint32]
    metadata: MetadataTable
    prints: int


class StoredPrints:
    """The prints in a file, read one by one.

    Args:
        segment: The file.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, segment: Segment) -> None:
        self._start = segment.prints
        self._file = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)

    def read(self, row: int) -> Print:
        """The print of a photograph.

        Raises:
            OSError: It cannot be read any more.
        """
        data = os.pread(self._file, PRINT_BYTES, self._start + row * PRINT_BYTES)
        if len(data) != PRINT_BYTES:
            raise OSError("the file was cut")
        return np.frombuffer(data, np.uint8)


def row_bytes(side: int) -> int:
    """Bytes of a square of this side."""
    return side * side * 3


def read_segment(path: Path, side: int, *, with_metadata: bool = True) -> Segment | None:
    """Read the index of a finished file; None where it is damaged, cut or gone.

    Args:
        path: The file.
        side: Of its squares, in pixels.
        with_metadata: Read that as well; else there is none.
    """
    try:
        with open_index(path) as index:
            digests, checksums = index.array("digests"), index.array("checksums")
            count = len(digests)
            if index.start != count * row_bytes(side) or len(checksums) != count:
                return None
            metadata = MetadataTable(count if with_metadata else 0)
            if with_metadata:
                for row, (_, entry) in enumerate(zip(range(count), index.metadata(), strict=True)):
                    metadata[row] = entry
            return Segment(path, Digests(digests), checksums, metadata, index.place_of_prints(count))
    except DamagedIndex:
        return None


def read_segments(folders: Iterable[Path], name: str, side: int, *, with_metadata: bool = True) -> list[Segment]:
    """Read all finished files whose names begin so, newest first in each folder; see `read_segment`."""
    found = []
    for folder in folders:
        dated = []
        with suppress(OSError):
            for path in folder.glob(f"{name}-*{SUFFIX}"):
                with suppress(OSError):
                    dated.append((path.stat().st_mtime, path))
        found += [read_segment(path, side, with_metadata=with_metadata) for _, path in sorted(dated, reverse=True)]
    return [segment for segment in found if segment is not None]


class Places:
    """Where the square of a photograph is, by its SHA-256; the first of several."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._ends = np.cumsum([len(segment.digests) for segment in segments])
        self._digests = np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *(s.digests.raw for s in segments)])
        beginnings = np.ascontiguousarray(self._digests[:, :8]).view(np.uint64).ravel()
        self._order = np.argsort(beginnings, kind="stable")
        self._sorted = beginnings[self._order]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._order)

    def find(self, digest: str) -> tuple[int, int] | None:
        """Number of the file and of its row; None where there is none."""
        whole = bytes.fromhex(digest)
        if len(whole) != DIGEST_BYTES:  # of a photograph that could not be read
            return None
        beginning = np.frombuffer(whole, np.uint64, 1)[0]
        for place in range(int(self._sorted.searchsorted(beginning)), len(self._order)):
            if self._sorted[place] != beginning:
                break
            row = int(self._order[place])
            if self._digests[row].tobytes() == whole:
                segment = int(self._ends.searchsorted(row, "right"))
                return segment, row - (int(self._ends[segment - 1]) if segment else 0)
        return None
