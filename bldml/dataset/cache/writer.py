"""Cached images, for the next epoch and the next run: upright, sRGB, resized to a square, 8 bits.

A photograph is known by the SHA-256 of its file, whatever it is called, so that a renamed or moved one is found again,
and a changed one is not. What a run had to decode itself it adds as one more shard.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import threading
import zlib
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from bldml.dataset.cache.format import (
    INDEX,
    ROWS,
    DamagedRow,
    RowIndex,
    Rows,
    cache_name,
    read_shard,
    read_shards,
    row_bytes,
    rows_in_use,
    write_at,
)
from bldml.dataset.cache.location import is_writable, make_cache_folder
from bldml.dataset.contents import DIGEST_BYTES, MetadataTable
from bldml.dataset.duplicates.phash import PHash
from bldml.dataset.files import show_path
from bldml.dataset.images import ResizedImage, resize_to_square
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import Sample
from bldml.dataset.unchanged import load_unchanged
from bldml.io.platform import BINARY
from bldml.io.safe_points import note_kept

GIB = 2**30
SPARE = GIB  # bytes that are left free on the disk: a run has checkpoints to write

_UNFINISHED = ".building"  # an index that is being written
_OLD = ".pixels"  # files of bldml 0.1
_DAY = 86400.0  # seconds; a process that builds a shard writes more often
_ROWS_BETWEEN_LOOKS = 128  # at the free space


class NoSpace(Exception):
    """There is no room for the images; the message says how much was wanted where."""


class ShardWriter:
    """Writes images, from several threads, into a shard that exists when it is finished.

    Two processes that write the same images at once each have a file of rows of their own; the first index stays.

    Args:
        folder: Folder of the shard; created if it is missing.
        name: Beginning of the files' names (see `cache_name`).
        side: Side of the images in pixels.
        expected: Expected number of images, at least 1.

    Raises:
        NoSpace, OSError: They would not fit, or the folder cannot be written to; `add` and `finish` too.
    """

    def __init__(self, folder: Path, name: str, side: int, expected: int) -> None:
        self.folder, self.name, self.side, self.expected = folder, name, side, expected
        make_cache_folder(folder)
        self._path = folder / f"{name}-{secrets.token_hex(8)}{ROWS}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
        # The clock of the file system dates the others too; this machine's may be wrong by years.
        _remove_unfinished(folder, os.fstat(self._file).st_mtime)
        try:
            self._look_at_space(expected)
        except (NoSpace, OSError):
            self.abandon()
            raise
        self._lock = threading.Lock()
        self._row_of: dict[bytes, int] = {}  # by SHA-256
        self._checksums = array("I")
        self._metadata = MetadataTable(expected)

    def add(self, digest: str, image: ResizedImage, metadata: Metadata | None, phash: PHash) -> None:
        """Write one image; nothing where there is one of this photograph already."""
        data, key = (image.tobytes(), phash.tobytes()), bytes.fromhex(digest)
        with self._lock:
            row = len(self._row_of)
            if self._row_of.setdefault(key, row) != row:
                return
            self._checksums.extend(map(zlib.crc32, data))
            if row == len(self._metadata):
                self._metadata.double()
            self._metadata[row] = metadata
        if row % _ROWS_BETWEEN_LOOKS == 0:
            self._look_at_space(1)
        write_at(self._file, b"".join(data), row * row_bytes(self.side))

    def finish(self) -> Path | None:
        """Write the index and return the file of rows.

        None, and no file, where nothing was added, or where another job has finished the same shard: it may be in use.
        """
        if not self._row_of:
            self.abandon()
            return None
        os.fsync(self._file)
        os.utime(self._path)  # it is still there, and from now on nobody takes it for one that was left behind
        digest = hashlib.sha256(b"".join(sorted(self._row_of))).hexdigest()
        unfinished = self._path.with_suffix(_UNFINISHED)
        try:
            self._write_index(unfinished)
            is_mine = _name(unfinished, self.folder / f"{self.name}-{digest[:16]}{INDEX}", self.side)
        finally:
            with suppress(OSError):
                unfinished.unlink()
        if not is_mine:
            self.abandon()
            return None
        self._close()
        return self._path

    def _write_index(self, path: Path) -> None:
        count = len(self._row_of)
        rows, kinds = self._metadata.parts()
        with path.open("xb") as file:
            np.savez(
                file,
                about=np.array(json.dumps({"rows": self._path.name, "kinds": kinds})),
                digests=np.frombuffer(b"".join(self._row_of), np.uint8).reshape(count, DIGEST_BYTES),
                checksums=np.array(self._checksums, np.uint32).reshape(count, 2),
                metadata=rows[:count],
            )
            file.flush()
            os.fsync(file.fileno())

    def empty(self) -> None:
        """Give the space back at once; the file itself stays until `abandon`, for threads that are still writing."""
        with suppress(OSError):
            os.ftruncate(self._file, 0)

    def abandon(self) -> None:
        """Leave nothing behind, unless the shard is finished."""
        if self._close():
            with suppress(OSError):
                self._path.unlink()

    def _close(self) -> bool:
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):  # of writes that a file server put off; who reads a row checks it
                os.close(file)
        return file >= 0

    def _look_at_space(self, rows: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < rows * row_bytes(self.side) + SPARE:
            raise NoSpace(f"{shown_size(self.expected * row_bytes(self.side))} are needed, {shown_size(free)} are free")


def _name(written: Path, index: Path, side: int) -> bool:
    """Give an index its name; False where an undamaged one of the same photographs has it."""
    try:
        os.link(written, index)
    except FileExistsError:
        if read_shard(index, side) is not None:
            return False
        written.replace(index)
    except OSError:  # a file system without links
        written.replace(index)
    return True


def _remove_unfinished(folder: Path, now: float) -> None:
    """Remove what processes that were killed have left, when it is a day older than `now`."""
    left = {*folder.glob(f"*px-*{ROWS}"), *folder.glob(f"*px-*{_UNFINISHED}")}  # before the indexes are read
    with suppress(OSError):  # an index that cannot be read now may name any of them
        for path in left - rows_in_use(folder):
            with suppress(OSError):  # another process was quicker, or it is another user's
                if now - path.stat().st_mtime > _DAY:
                    path.unlink()


class ImageCache:
    """What `verify` asks before it decodes a photograph, and adds the image to when it had to decode it.

    Args:
        folders: Folders of the cache. Images are looked for in all, and added to the first that can be written to.
        side: Side of the images in pixels.
        target_size: See `cache_name`; None for photographs decoded at full size.
        expected: Number of photographs.
        write: Whether to add missing images.

    Attributes:
        trouble: Why something that should be cached is not; empty as long as all is well.
        written: The file of rows that was added.
    """

    def __init__(
        self, folders: Sequence[Path], side: int, target_size: int | None, expected: int, *, write: bool
    ) -> None:
        self.folders, self.side, self.name = folders, side, cache_name(side, target_size)
        self.target_size = target_size
        self.expected, self.write = expected, write
        self.trouble = ""
        self.written: Path | None = None
        self._shards = read_shards(folders, self.name, side)
        self._index = RowIndex(self._shards)
        self._rows: dict[int, Rows] = {}
        self._writer: ShardWriter | None = None
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def find(self, digest: str) -> tuple[Metadata | None, PHash] | None:
        """Return metadata and perceptual hash of the photograph with this SHA-256; None if its image is not cached."""
        found = self._index.find(digest)
        if found is None:
            return None
        number, row = found
        shard = self._shards[number]
        with self._lock:
            if number not in self._rows:
                self._rows[number] = Rows(shard.rows, self.side)
        try:
            return shard.metadata[row], self._rows[number].phash(row, int(shard.checksums[row, 1]))
        except DamagedRow:
            return None

    def add(
        self, sample: Sample, digest: str, photograph: Image.Image, metadata: Metadata | None, phash: PHash
    ) -> None:
        """Cache a photograph's image, where there is room; it is decoded again if the cache is of another scale.

        Raises:
            UnreadableImage: It cannot be decoded again.
        """
        if not self.write or self.trouble:
            return
        if self.target_size is None:
            photograph = load_unchanged(sample.path, digest)
        image = resize_to_square(photograph, self.side)
        try:
            with self._lock:
                if self._writer is None and not self.trouble:
                    self._writer = self._begin()
            if self._writer is not None:
                self._writer.add(digest, image, metadata, phash)
                note_kept()
        except (OSError, NoSpace) as error:
            self.trouble = self.trouble or self._reason(error)
            if self._writer is not None:
                self._writer.empty()

    def _begin(self) -> ShardWriter:
        self._folder = next((folder for folder in self.folders if is_writable(folder)), None)
        if self._folder is None:
            raise NoSpace(f"{' and '.join(map(show_path, self.folders))} cannot be written to")
        return ShardWriter(self._folder, self.name, self.side, max(1, self.expected - len(self._index)))

    def close(self) -> None:
        """Finish the shard, also of an interrupted run; nothing is found or added after that."""
        self._shards, self._index, self._rows, self.write = [], RowIndex([]), {}, False
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if not self.trouble:
                self.written = writer.finish()
        except OSError as error:
            self.trouble = self._reason(error)
        finally:
            writer.abandon()

    def _reason(self, error: OSError | NoSpace) -> str:
        """Return why nothing can be cached, and in which folder; without one the error names those that were tried."""
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = "the disk or your quota is full" if is_full else getattr(error, "strerror", None) or str(error)
        return said if self._folder is None else f"{show_path(self._folder)}: {said}"


def describe_cache(written: Sequence[Path]) -> str:
    """Return which images were added and why (how many of each side), where they are, and how much lies there."""
    folder, sides = written[0].parent, [int(path.name.partition("px")[0]) for path in written]
    added = [f"{_size([path]) // row_bytes(side)} of {side} px" for path, side in zip(written, sides, strict=True)]
    old = _size(folder.glob(f"*px-*{_OLD}"))
    left = f" Files *{_OLD} there ({shown_size(old)}) are of bldml 0.1; delete them when no job of 0.1 runs."
    return (
        f"Decoded images are cached for the next epochs and runs: {' and '.join(added)}, which were not cached yet; "
        f"{shown_size(_size(written))} more in {show_path(folder)}, "
        f"{shown_size(_size(folder.glob(f'*px-*{ROWS}')))} in all. The folder can be deleted when no run uses it."
        f"{left if old else ''}"
    )


def _size(paths: Iterable[Path]) -> int:
    size = 0
    for path in paths:
        with suppress(OSError):  # removed meanwhile
            size += path.stat().st_size
    return size


def shown_size(size: int) -> str:
    """Return a size in bytes as a person would say it.

    >>> shown_size(300 * 2**20), shown_size(5 * GIB)
    ('300 MiB', '5.0 GiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"
