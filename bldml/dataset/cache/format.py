"""Files of cached images: shards, which photograph is in which, and reading.

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
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, features

from bldml.dataset.border import BORDER_VERSION
from bldml.dataset.contents import DIGEST_BYTES, Digests, MetadataTable
from bldml.dataset.duplicates.phash import PHASH_BYTES, PHASH_VERSION, PHash
from bldml.dataset.files import show_path
from bldml.dataset.images import ResizedImage, resize_to_square
from bldml.dataset.metadata import Metadata
from bldml.io.platform import BINARY, read_at, write_some_at

CACHE_VERSION = 1
"""Rises when `images.load_rgb` or `images.resize_to_square` would make other pixels of the same photograph."""
ROWS, INDEX = ".rgb", ".npz"


class DamagedRow(Exception):
    """A row of the cache is not what was written, or cannot be read any more; the message is its file."""


def cache_name(side: int, target_size: int | None) -> str:
    """Return the beginning of the names of all files whose images are what this program would make.

    `side` is that of the images in pixels, `target_size` that of `load_rgb`, which decides the scale of decoding.
    """
    libraries = [PIL.__version__, *(str(features.version(name)) for name in ("libjpeg_turbo", "littlecms2"))]
    known = [field.name for field in fields(Metadata)]
    version = repr((CACHE_VERSION, PHASH_VERSION, BORDER_VERSION, target_size, libraries, known))
    return f"{side}px-{hashlib.sha256(version.encode()).hexdigest()[:8]}"


def pixel_bytes(side: int) -> int:
    """Bytes of an image of this side."""
    return side * side * 3


def row_bytes(side: int) -> int:
    """Bytes of a row: an image of this side, and a perceptual hash."""
    return pixel_bytes(side) + PHASH_BYTES


class Shard(NamedTuple):
    """The index of a shard, row after row."""

    rows: Path  # the file of rows
    digests: Digests  # SHA-256 of the photographs' files
    checksums: npt.NDArray[np.uint32]  # CRC-32 of each row's image and of its perceptual hash, uint32 (n, 2)
    metadata: MetadataTable  # metadata of the photographs; empty if not read


def read_shard(index: Path, side: int, *, with_metadata: bool = True) -> Shard | None:
    """Read the index of a shard with images of this side; None if it is damaged, or its rows are not all there."""
    try:
        with index.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            rows, kinds = _parse_about(index, arrays)
            digests, checksums = arrays["digests"], arrays["checksums"]
            metadata = MetadataTable.of(arrays["metadata"], kinds) if with_metadata else MetadataTable(0)
        count = len(digests)
        expected = ((count, DIGEST_BYTES), np.uint8, (count, 2), np.uint32, count * row_bytes(side))
        if (digests.shape, digests.dtype, checksums.shape, checksums.dtype, rows.stat().st_size) != expected:
            return None
        if with_metadata and len(metadata) != count:
            return None
        return Shard(rows, Digests(digests), checksums, metadata)
    except Exception:  # a damaged archive makes zipfile and NumPy raise nearly everything
        return None


def _parse_about(index: Path, arrays: Any) -> tuple[Path, list[dict[str, object] | None]]:
    content = json.loads(arrays["about"].item())
    return index.with_name(content["rows"]), content["kinds"]  # with_name takes no path


def rows_in_use(folder: Path) -> set[Path]:
    """Return the files of rows that the undamaged indexes of a folder name; OSError if one cannot be read now."""
    found = set()
    for index in folder.glob(f"*px-*{INDEX}"):
        try:
            with index.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found.add(_parse_about(index, arrays)[0])
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
        digests = np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *(shard.digests.raw for shard in shards)])
        keys = digests.view(f"S{DIGEST_BYTES}").ravel()
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, digest: str) -> tuple[int, int] | None:
        """Return the number of the shard and of its row; None where there is none."""
        key = bytes.fromhex(digest).rstrip(b"\0")  # as NumPy holds it
        position = int(self._keys.searchsorted(np.bytes_(key)))
        if not digest or position == len(self) or self._keys[position] != key:  # "": a file that could not be read
            return None
        row = int(self._order[position])
        shard = int(self._ends.searchsorted(row, "right"))
        return shard, row - (int(self._ends[shard - 1]) if shard else 0)


class Rows:
    """A file of rows, opened now: what is removed during a run can still be read.

    A file that cannot be opened is one whose rows are all damaged. A copy in a process that is not forked opens the
    same file, because no other file ever gets its name.
    """

    def __init__(self, path: Path, side: int) -> None:
        self.path, self.side = path, side
        try:
            self._file = os.open(path, os.O_RDONLY | BINARY)
        except OSError:
            self._file = -1
        else:
            weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[type["Rows"], tuple[Path, int]]:
        """Without the open file, for a process that is not forked."""
        return Rows, (self.path, self.side)

    def image(self, row: int, checksum: int) -> ResizedImage:
        """Return the image of a row, or raise DamagedRow."""
        data = self._read(row * row_bytes(self.side), pixel_bytes(self.side), checksum)
        return data.reshape(self.side, self.side, 3)

    def phash(self, row: int, checksum: int) -> PHash:
        """Return the perceptual hash of a row, or raise DamagedRow."""
        return self._read(row * row_bytes(self.side) + pixel_bytes(self.side), PHASH_BYTES, checksum)

    def _read(self, offset: int, length: int, checksum: int) -> npt.NDArray[np.uint8]:
        try:
            data = read_at(self._file, length, offset)
        except OSError:  # a file server has forgotten it
            data = b""
        if len(data) != length or zlib.crc32(data) != checksum:
            raise DamagedRow(show_path(self.path))
        return np.frombuffer(data, np.uint8)


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of the data at an offset in bytes."""
    view = memoryview(data)
    while view:
        written = write_some_at(file, view, offset)
        view, offset = view[written:], offset + written


class CachedImages:
    """The cached images of the photographs with these SHA-256, read by the photographs' numbers.

    Holds arrays and no objects of its own for each photograph: processes that are forked from this one would copy them.
    """

    def __init__(self, folders: Sequence[Path], side: int, target_size: int | None, digests: Sequence[str]) -> None:
        self.side = side
        shards = read_shards(folders, cache_name(side, target_size), side, with_metadata=False)
        index = RowIndex(shards)
        self._shard, self._row = np.full(len(digests), -1, np.int16), np.zeros(len(digests), np.int64)
        self._checksum = np.zeros(len(digests), np.uint32)
        for number, digest in enumerate(digests):
            if (found := index.find(digest)) is not None:
                shard, row = found
                self._shard[number], self._row[number] = found
                self._checksum[number] = shards[shard].checksums[row, 0]
        self._files = {int(shard): Rows(shards[shard].rows, side) for shard in np.unique(self._shard) if shard >= 0}

    def __len__(self) -> int:
        """Return how many of the photographs have a cached image."""
        return int((self._shard >= 0).sum())

    def read(self, number: int) -> ResizedImage | None:
        """Return the image of a photograph, None where none is cached, or raise DamagedRow."""
        rows = self._files.get(int(self._shard[number]))
        return None if rows is None else rows.image(int(self._row[number]), int(self._checksum[number]))

    def repair(self, number: int, photograph: Image.Image) -> None:
        """Write a damaged image again, where that is possible and the photograph is still the same."""
        data = resize_to_square(photograph, self.side).tobytes()
        if zlib.crc32(data) != self._checksum[number]:
            return
        with suppress(OSError):
            file = os.open(self._files[int(self._shard[number])].path, os.O_WRONLY | BINARY)
            try:
                write_at(file, data, int(self._row[number]) * row_bytes(self.side))
            finally:
                os.close(file)
