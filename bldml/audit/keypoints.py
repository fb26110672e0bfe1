"""Stored keypoints of photographs, by the content of the file: too many for memory, so each is read when needed."""

import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, overload

import PIL

from bldml.dataset.duplicates.keypoints import KEYPOINTS_VERSION, Keypoints
from bldml.dataset.files import show_path
from bldml.errors import DatasetError
from bldml.io.platform import replace_path

KEYPOINTS_NAME = "keypoints.bin"
_HEADER = json.dumps({"keypoints_by": [KEYPOINTS_VERSION, PIL.__version__, "checked"]}).encode() + b"\n"
_DIGEST = 64  # bytes of a SHA-256 in hexadecimal
_SIZES = 8  # bytes of length and checksum


class KeypointStore:
    """File of descriptions in the output folder of an audit; only the process that has locked the folder may open it.

    Of each: digest of the photograph's file, length, CRC-32 of digest and description, description. What follows an
    incomplete or damaged one is not read, and is made again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / KEYPOINTS_NAME
        self._found: dict[str, tuple[int, int]] = {}  # offset and length by digest
        self._file: IO[bytes] | None = None
        try:
            self._end = self._scan()
        except OSError as error:
            raise self._failed("read", error) from error

    def __contains__(self, digest: str) -> bool:
        return digest in self._found

    def __getitem__(self, digest: str) -> Keypoints:
        file, (offset, length) = self._opened(), self._found[digest]
        try:
            file.seek(offset)
            return Keypoints.from_bytes(file.read(length))
        except OSError as error:
            raise self._failed("read", error) from error

    def add(self, digest: str, description: bytes) -> None:
        """Store the description of a photograph."""
        if digest in self._found:
            return
        file = self._opened()
        try:
            file.seek(self._end)
            file.write(_entry(digest, description))
        except OSError as error:
            raise self._failed("write", error) from error
        self._found[digest] = (self._end + _DIGEST + _SIZES, len(description))
        self._end += _DIGEST + _SIZES + len(description)

    def close(self, used: Collection[str] | None = None) -> None:
        """Close the file; with digests, remove all other descriptions."""
        stale = used is not None and self._found.keys() - set(used)
        try:
            if stale:
                temporary = self.path.with_suffix(".tmp")
                with temporary.open("wb") as file:
                    file.write(_HEADER)
                    for digest in self._found.keys() - stale:
                        file.write(_entry(digest, self[digest].to_bytes()))
            if self._file is not None:
                self._file.close()
            if stale:
                replace_path(temporary, self.path)
        except OSError as error:
            raise self._failed("write", error) from error

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            try:
                if self._end == 0:
                    self.path.write_bytes(_HEADER)
                    self._end = len(_HEADER)
                self._file = self.path.open("r+b")
            except OSError as error:
                raise self._failed("write", error) from error
        return self._file

    def _scan(self) -> int:
        """Find all complete descriptions; return where the next one is written, 0 without a file of this version."""
        if not self.path.exists():
            return 0
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            if file.readline() != _HEADER:
                return 0
            end = file.tell()
            while len(start := file.read(_DIGEST + _SIZES)) == _DIGEST + _SIZES:
                length, checksum = (int.from_bytes(start[at : at + 4], "little") for at in (_DIGEST, _DIGEST + 4))
                after = file.tell() + length
                if after > size or zlib.crc32(file.read(length), zlib.crc32(start[:_DIGEST])) != checksum:
                    break
                self._found[start[:_DIGEST].decode("ascii", "replace")] = (after - length, length)
                end = file.seek(after)
        return end

    def _failed(self, what: str, error: OSError) -> DatasetError:
        message = (
            f"Cannot {what} {show_path(self.path)}: {error.strerror}. Free space there or choose another --output; "
        )
        message += "--look_alikes off does without this file."
        return DatasetError(message, "audit-output-not-writable", path=self.path, reason=error.strerror)


def _entry(digest: str, description: bytes) -> bytes:
    sizes = (len(description), zlib.crc32(description, zlib.crc32(digest.encode())))
    return digest.encode() + b"".join(size.to_bytes(4, "little") for size in sizes) + description


class StoredKeypoints(Sequence[Keypoints]):
    """Descriptions of photographs by index, each read when it is asked for."""

    def __init__(self, store: KeypointStore, digests: Sequence[str]) -> None:
        self._store, self._digests = store, digests

    def __len__(self) -> int:
        return len(self._digests)

    @overload
    def __getitem__(self, index: int) -> Keypoints: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredKeypoints": ...
    def __getitem__(self, index: int | slice) -> "Keypoints | StoredKeypoints":
        if isinstance(index, slice):
            return StoredKeypoints(self._store, self._digests[index])
        return self._store[self._digests[index]]

    def __iter__(self) -> Iterator[Keypoints]:
        return (self._store[digest] for digest in self._digests)
