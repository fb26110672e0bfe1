"""What was examined before: one line a file, appended at once, so that a killed audit goes on where it was.

A line counts only if it is whole. It is found again by place, size and time of the file, or, where a file was moved
or copied with another time, by its content.
"""

import base64
import errno
import fcntl
import hashlib
import json
import os
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL

from bldml.audit.examine import THUMBNAIL, VERSION, Examined, digest_of
from bldml.dataset.duplicates.phash import PRINT_BYTES, PRINT_VERSION
from bldml.dataset.files import show_path
from bldml.dataset.metadata import Metadata
from bldml.errors import DatasetError
from bldml.io.atomic import write_atomically

NAME = "examined.jsonl"
_HEADER = json.dumps({"examined_by": [VERSION, PRINT_VERSION, PIL.__version__]})
_METADATA = {field.name for field in fields(Metadata)}

Key = tuple[str, int, int]  # hash of the real path, bytes, time of the last change in ns


class Store:
    """The file of examinations in an output folder; one process writes it at a time.

    Args:
        folder: The output folder, which exists.

    Raises:
        DatasetError: Another audit writes there, or the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = _lock(folder)
        self._by_key: dict[Key, Examined] = {}
        self._by_digest: dict[str, Examined] = {}
        self._sizes: set[int] = set()
        self._whole = self._read()
        self._used: dict[Key, Examined] = {}
        self._file: IO[bytes] | None = None

    def find(self, path: Path) -> Examined | None:
        """What is known of a file, if it is as it was when examined, wherever it lies now."""
        try:
            key = key_of(path)
            found = self._by_key.get(key)
            if found is None and key[1] in self._sizes:
                found = self._by_digest.get(digest_of(path))
                if found is not None:
                    self._append(key, found)
        except OSError:
            return None
        if found is not None:
            self._used[key] = found
        return found

    def add(self, path: Path, found: Examined) -> None:
        """Keep what was found. What cannot be read is not kept: the fault may be the disk's or the rights'."""
        if found.reason or not found.digest:
            return
        try:
            key = key_of(path)
        except OSError:
            return
        if key[1] == found.size:
            self._used[key] = found
            self._append(key, found)

    def close(self, *, complete: bool) -> None:
        """End writing; after a complete audit, lines of files that are gone or changed are left out."""
        if self._file is not None:
            self._file.close()
        if complete and (not self._whole or self._by_key.keys() - self._used.keys()):
            lines = (_line(key, found) for key, found in self._used.items())
            write_atomically(self.path, b"".join((_HEADER.encode() + b"\n", *lines)))
        self._lock.close()

    def _append(self, key: Key, found: Examined) -> None:
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(_line(key, found))
            self._file.flush()
        except OSError as error:
            raise DatasetError(f"Cannot write {show_path(self.path)}: {error.strerror}.") from error

    def _open(self) -> IO[bytes]:
        if not self._by_key:
            write_atomically(self.path, _HEADER + "\n")
        file = self.path.open("ab")
        if not self._whole:
            file.write(b"\n")  # a kill may have left half a line
        return file

    def _read(self) -> bool:
        """Take up what is there; whether all of it was whole."""
        whole = True
        try:
            with self.path.open("rb") as file:
                if file.readline().rstrip(b"\n") != _HEADER.encode():
                    return True  # of another version: written anew
                for line in file:
                    parsed = _parse(line)
                    whole &= parsed is not None
                    if parsed is not None:
                        key, found = parsed
                        self._by_key[key] = self._by_digest[found.digest] = found
                        self._sizes.add(found.size)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise DatasetError(f"Cannot read {show_path(self.path)}: {error.strerror}.") from error
        return whole


def key_of(path: Path) -> Key:
    """Place, size and time of a file. The place is hashed: the folder of an audit is passed on, paths are not.

    Raises:
        OSError: There is no such file.
    """
    status = path.stat()
    place = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    return place, status.st_size, status.st_mtime_ns


def _line(key: Key, found: Examined) -> bytes:
    assert found.thumbnail is not None
    pictures = base64.b64encode(found.print.tobytes() + found.thumbnail.tobytes()).decode()
    content = {
        "key": key,
        "digest": found.digest,
        "metadata": None if found.metadata is None else asdict(found.metadata),
        "pictures": pictures,
        "border": found.border,
        "light": [found.sharpness, found.brightness],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b"\t%08x\n" % zlib.crc32(text)


def _parse(line: bytes) -> tuple[Key, Examined] | None:
    """The line's examination; None for a line that is not whole."""
    text, _, checksum = line.rstrip(b"\n").partition(b"\t")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    content: dict[str, Any] = json.loads(text)
    metadata = content["metadata"]
    if metadata is not None and set(metadata) != _METADATA:
        return None  # from before a field was added
    pictures = np.frombuffer(base64.b64decode(content["pictures"]), dtype=np.uint8)
    place, size, changed = content["key"]
    found = Examined(
        content["digest"],
        size,
        metadata=None if metadata is None else Metadata(**metadata),
        print=pictures[:PRINT_BYTES],
        thumbnail=pictures[PRINT_BYTES:].reshape(THUMBNAIL, THUMBNAIL, 3),
        border=tuple(content["border"]),
        sharpness=content["light"][0],
        brightness=content["light"][1],
    )
    return (place, size, changed), found


def _lock(folder: Path) -> IO[bytes]:
    """Hold the folder for this process; the system lets go when the process ends, however it ends."""
    try:
        file = (folder / ".lock").open("ab")
    except OSError as error:
        raise DatasetError(f"Cannot write in {show_path(folder)}: {error.strerror}. Give another --output.") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):  # else the file system knows no locks
            file.close()
            raise DatasetError(
                f"Another audit writes to {show_path(folder)}. Wait until it has ended, or give another --output."
            ) from error
    return file
