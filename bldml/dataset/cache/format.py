"""Files of cached images: shards, how they are read, and which photograph is in which.

A shard is two files. `<name>-<token>.rgb` holds a row for each photograph: the resized image, then the perceptual hash.
`<name>-<digest>.npz`, the index, names that file and says which photograph each row belongs to. The index is written
last and in one step, so a shard exists exactly when its index does.

Rows are read, not memory-mapped: the system shares one copy of them between processes either way, but a mapped file
that another machine truncates kills every process that looks at it.
"""

import hashlib
import json
import os
import weakref
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from bldml.dataset.contents import DIGEST_BYTES, Digests, MetadataTable
from bldml.dataset.duplicates.phash import PHASH_BYTES, PHASH_VERSION, PHash
from bldml.dataset.files import show_path
from bldml.dataset.images import ResizedImage
from bldml.dataset.metadata import Metadata

CACHE_VERSION = 1
"""Rises when `images.load_rgb` or `pixels.resize_to_square` would make other pixels of the same photograph."""
ROWS, INDEX = ".rgb", ".npz"


class DamagedRow(Exception):
    """A row of the cache is not what was written, or cannot be read any more; the message is its file."""


def cache_name(side: int, target_size: int) -> str:
    """Return the beginning of the names of all files whose images are what this program would make.

    Args:
        side: Of the images, in pixels.
        target_size: The `target_size` of `load_rgb`; decides at which scale a JPEG is decoded.
    """
    libraries = [PIL.__version__, *(str(features.version(name)) for name in ("libjpeg_turbo", "littlecms2"))]
    known = [field.name for field in fields(Metadata)]
    version = repr((CACHE_VERSION, PHASH_VERSION, target_size, libraries, known))
    return f"{side}px-{hashlib.sha256(version.encode()).hexdigest()[:8]}"


def pixel_bytes(side: int) -> int:
    """Bytes of an image of this side."""
    return side * side * 3


def row_bytes(side: int) -> int:
    """Bytes of a row: an image of this side, and a perceptual hash."""
    return pixel_bytes(side) + PHASH_BYTES


@dataclass(frozen=True)
class Shard:
    """The index of a shard, row after row.

    Attributes:
        index: The index file.
        rows: The file of rows.
        digests: SHA-256 of the photographs' files.
        checksums: CRC-32 of each row's image and of its perceptual hash, uint32 (n, 2).
        metadata: What the photographs' files say of themselves.
    """

    index: Path
    rows: Path
    digests: Digests
    checksums: npt.NDArray[np.uint32]
    metadata: MetadataTable


def read_shard(index: Path, side: int, *, with_metadata: bool = True) -> Shard | None:
    """Read the index of a shard; None where it is damaged, or its rows are not all there.

    Args:
        index: The index file.
        side: Of the images, in pixels.
        with_metadata: Read the metadata as well; else the table is empty.
    """
    try:
        with index.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            rows, kinds = _rows_file(index, arrays["about"])
            digests, checksums = arrays["digests"], arrays["checksums"]
            metadata = MetadataTable.of(arrays["metadata"], kinds) if with_metadata else MetadataTable(0)
        count = len(digests)
        expected = ((count, DIGEST_BYTES), np.uint8, (count, 2), np.uint32, count * row_bytes(side))
        if (digests.shape, digests.dtype, checksums.shape, checksums.dtype, rows.stat().st_size) != expected:
            return None
        if with_metadata and len(metadata) != count:
            return None
        return Shard(index, rows, Digests(digests), checksums, metadata)
    except Exception:  # a damaged archive makes zipfile and NumPy raise nearly everything
        return None


def _rows_file(index: Path, about: npt.NDArray[np.str_]) -> tuple[Path, list[dict[str, object] | None]]:
    content = json.loads(about.item())
    return index.with_name(content["rows"]), content["kinds"]  # with_name takes no path


def rows_in_use(folder: Path) -> set[Path]:
    """Return the files of rows that the indexes of a folder name, as far as those are sound.

    Raises:
        OSError: An index cannot be read.
    """
    found = set()
    for index in folder.glob(f"*px-*{INDEX}"):
        try:
            with index.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found.add(_rows_file(index, arrays["about"])[0])
        except OSError:
            raise
        except Exception:  # see `read_shard`
            continue
    return found


def read_shards(folders: Iterable[Path], name: str, side: int, *, with_metadata: bool = True) -> list[Shard]:
    """Read all shards whose names begin so, newest first in each folder; see `read_shard`."""
    found = []
    for folder in folders:
        dated = []
        with suppress(OSError):
            for path in folder.glob(f"{name}-*{INDEX}"):
                with suppress(OSError):
                    dated.append((path.stat().st_mtime, path))
        found += [read_shard(path, side, with_metadata=with_metadata) for _, path in sorted(dated, reverse=True)]
    return [shard for shard in found if shard is not None]


class RowIndex:
    """In which shard and row the image of a photograph is, by its SHA-256; the first of several."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._ends = np.cumsum([len(shard.digests) for shard in shards])
        self._digests = np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *(s.digests.raw for s in shards)])
        beginnings = np.ascontiguousarray(self._digests[:, :8]).view(np.uint64).ravel()
        self._order = np.argsort(beginnings, kind="stable")
        self._sorted = beginnings[self._order]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._order)

    def find(self, digest: str) -> tuple[int, int] | None:
        """Return the number of the shard and of its row; None where there is none."""
        whole = bytes.fromhex(digest)
        if len(whole) != DIGEST_BYTES:  # of a photograph that could not be read
            return None
        beginning = np.frombuffer(whole, np.uint64, 1)[0]
        for position in range(int(self._sorted.searchsorted(beginning)), len(self._order)):
            if self._sorted[position] != beginning:
                break
            row = int(self._order[position])
            if self._digests[row].tobytes() == whole:
                shard = int(self._ends.searchsorted(row, "right"))
                return shard, row - (int(self._ends[shard - 1]) if shard else 0)
        return None


class Rows:
    """A file of rows, opened now: what is removed during a run can still be read.

    A file that cannot be opened is one whose rows are all damaged. A copy in a process that is not forked opens the
    same file, because no other file ever gets its name.

    Args:
        path: The file.
        side: Of the images, in pixels.
    """

    def __init__(self, path: Path, side: int) -> None:
        self.path, self.side = path, side
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            self._file = -1
        else:
            weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[type["Rows"], tuple[Path, int]]:
        """Without the open file, for a process that is not forked."""
        return Rows, (self.path, self.side)

    def image(self, row: int, checksum: int) -> ResizedImage:
        """Return the image of a row.

        Raises:
            DamagedRow: It is not what was written.
        """
        data = self._read(row * row_bytes(self.side), pixel_bytes(self.side), checksum)
        return np.frombuffer(data, np.uint8).reshape(self.side, self.side, 3)

    def phash(self, row: int, checksum: int) -> PHash:
        """Return the perceptual hash of a row.

        Raises:
            DamagedRow: It is not what was written.
        """
        offset = row * row_bytes(self.side) + pixel_bytes(self.side)
        return np.frombuffer(self._read(offset, PHASH_BYTES, checksum), np.uint8)

    def _read(self, offset: int, length: int, checksum: int) -> bytes:
        try:
            data = os.pread(self._file, length, offset)
        except OSError:  # a file server has forgotten it
            data = b""
        if len(data) != length or zlib.crc32(data) != checksum:
            raise DamagedRow(show_path(self.path))
        return data


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of the data at an offset in bytes."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
