"""Decoded pixels, kept for the next epoch and the next run: upright, sRGB, squashed to a square, 8 bits.

A photograph is known by the SHA-256 of its file, whatever it is called, so that a renamed, moved or otherwise divided
one is found again, and a changed one is not. What a run had to decode itself it adds as one more file (`segment`).
"""

import errno
import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import PIL
from PIL import Image, features

from bldml.dataset.cache.lookup import SUFFIX, Places, StoredPrints, read_segments
from bldml.dataset.cache.shard import NoSpace, SegmentWriter, shown_size
from bldml.dataset.duplicates.phash import PRINT_VERSION, Print
from bldml.dataset.files import show_path
from bldml.dataset.metadata import Metadata
from bldml.dataset.pixels import squash

CACHE_VERSION = 1
"""Rises when `images.load_rgb` or `pixels.squash` would make other pixels of the same photograph."""
VARIABLE = "BLDML_CACHE"
FOLDER = ".bldml_cache"


def cache_name(side: int, target_size: int) -> str:
    """Beginning of the names of all files whose squares are what this program would make.

    Args:
        side: Of the squares, in pixels.
        target_size: What `load_rgb` is told; decides at which scale a JPEG is decoded.
    """
    libraries = [PIL.__version__, *(str(features.version(name)) for name in ("libjpeg_turbo", "littlecms2"))]
    known = [field.name for field in fields(Metadata)]
    version = repr((CACHE_VERSION, PRINT_VERSION, target_size, libraries, known))
    return f"{side}px-{hashlib.sha256(version.encode()).hexdigest()[:8]}"


def find_folders(given: Path | None, data: Path) -> list[Path]:
    """The folders that squares may lie in, best first.

    What was given, else what the environment says (BLDML_CACHE), and nothing else then. Otherwise beside the data
    folder, where there is room for photographs, and in the working directory, for data that are not ours to write
    beside. Never in the home folder, which is small on clusters, nor in a temporary one, which may be memory.

    Args:
        given: The configuration's.
        data: The data folder.
    """
    if given is not None:
        return [given.expanduser()]
    if os.environ.get(VARIABLE):
        return [Path(os.environ[VARIABLE]).expanduser()]
    return [Path(os.path.realpath(data)).parent / FOLDER, Path.cwd() / FOLDER]


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder can be made."""
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), None)
    return there is not None and os.path.isdir(there) and os.access(there, os.R_OK | os.W_OK | os.X_OK)  # noqa: PTH112


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a photograph without decoding it."""

    metadata: Metadata | None
    print: Print


class Keeper:
    """What `verify` asks before it decodes a photograph, and hands its pixels to when it had to.

    Args:
        folders: Of the cache; see `find_folders`. Squares are found in all, and kept in the first that can be written
            to.
        side: Of the squares, in pixels.
        target_size: See `cache_name`.
        expected: How many photographs there are.
        write: Whether to keep what is not there; else only look.

    Attributes:
        trouble: Why something that should be kept is not; empty as long as all is well.
        written: The file that was added.
    """

    def __init__(self, folders: Sequence[Path], side: int, target_size: int, expected: int, *, write: bool) -> None:
        self.folders, self.side, self.name = folders, side, cache_name(side, target_size)
        self.expected, self.write = expected, write
        self.trouble = ""
        self.written: Path | None = None
        self._segments = read_segments(folders, self.name, side)
        self._places = Places(self._segments)
        self._prints: dict[int, StoredPrints] = {}
        self._writer: SegmentWriter | None = None
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def find(self, digest: str) -> Known | None:
        """What is known of the photograph whose file has this SHA-256; None where its square is not there."""
        place = self._places.find(digest)
        if place is None:
            return None
        number, row = place
        try:
            with self._lock:
                if number not in self._prints:
                    self._prints[number] = StoredPrints(self._segments[number])
            return Known(self._segments[number].metadata[row], self._prints[number].read(row))
        except OSError:  # removed or cut meanwhile
            return None

    def keep(self, digest: str, photograph: Image.Image, metadata: Metadata | None, fingerprint: Print) -> None:
        """Keep a photograph's square, where there is room."""
        if not self.write or self.trouble:
            return
        square = squash(photograph, self.side)
        try:
            with self._lock:
                if self._writer is None and not self.trouble:
                    self._writer = self._begin()
            if self._writer is not None:
                self._writer.add(digest, square, metadata, fingerprint)
        except (OSError, NoSpace) as error:
            self.trouble = self.trouble or _plain(error, self._folder)
            if self._writer is not None:
                self._writer.empty()

    def _begin(self) -> SegmentWriter:
        folder = next((folder for folder in self.folders if is_writable(folder)), None)
        if folder is None:
            raise NoSpace(f"{' and '.join(show_path(folder) for folder in self.folders)} cannot be written to")
        self._folder = folder
        return SegmentWriter(folder, self.name, self.side, max(1, self.expected - len(self._places)))

    def close(self) -> None:
        """Give what was written its name; what was written until a run was stopped need not be decoded again.

        Nothing is found or kept after that.
        """
        self._segments, self._places, self.write = [], Places([]), False
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if not self.trouble:
                self.written = writer.finish()
        except OSError as error:
            self.trouble = _plain(error, self._folder)
        finally:
            writer.abandon()


def describe_cache(written: Sequence[Path]) -> str:
    """Where squares were kept, and how much lies there."""
    folder = written[0].parent
    sizes = {}
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError):  # removed meanwhile
            sizes[path] = path.stat().st_size
    new, whole = sum(sizes.get(path, 0) for path in written), sum(sizes.values())
    return (
        f"Decoded pixels are kept for the next epochs and runs: {shown_size(new)} more in {show_path(folder)}, "
        f"{shown_size(whole)} in all. It can be deleted when no run uses it."
    )


def _plain(error: OSError | NoSpace, folder: Path | None) -> str:
    """Why nothing can be kept, and in which folder; an error without one names those that were tried itself."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    said = "the disk or your quota is full" if is_full else getattr(error, "strerror", None) or str(error)
    return said if folder is None else f"{show_path(folder)}: {said}"
