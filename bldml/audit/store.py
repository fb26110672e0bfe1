"""Stored file records: one line per file, appended at once, so that an interrupted audit can be resumed.

Incomplete lines are ignored. A record is looked up by path, size and modification time of the file; if the file was
moved or its time changed, by its content.
"""

import base64
import json
import sys
import zlib
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL

from bldml.audit.examine import THUMBNAIL, VERSION, FileRecord
from bldml.audit.traces.encoder import shared_encoder
from bldml.audit.traces.surroundings import Surroundings
from bldml.dataset.border import BORDER_VERSION
from bldml.dataset.duplicates.phash import PHASH_BYTES, PHASH_VERSION
from bldml.dataset.files import show_path
from bldml.dataset.metadata import Metadata
from bldml.errors import DatasetError
from bldml.io.atomic import write_atomically
from bldml.io.locks import Lock, Taken
from bldml.io.system import hash_of_path, sha256_of

NAME = "examined.jsonl"
_HEADER = json.dumps({"examined_by": [VERSION, PHASH_VERSION, BORDER_VERSION, PIL.__version__]})
_METADATA = {field.name for field in fields(Metadata)}
_SHARED = ("camera", "format", "mode", "icc")  # texts that many photographs have in common: one object in memory

Key = tuple[str, int, int]  # hash of the real path, size in bytes, modification time in ns


class Store:
    """File of records in an output folder, which must exist; one process at a time writes it.

    Raises:
        DatasetError: Another audit is writing there, or the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        # The operating system releases the lock when the process ends.
        try:
            self._lock = Lock(folder / ".lock")
        except Taken as error:
            message = f"Another audit is writing to {show_path(folder)}. "
            message += "Wait until it ends, or choose another --output."
            raise DatasetError(message, "audit-running", path=folder) from error
        except OSError as error:
            message = f"Cannot write to {show_path(folder)}: {error.strerror}. Choose another --output."
            raise DatasetError(message, "audit-output-not-writable", path=folder, reason=error.strerror) from error
        self._by_key: dict[Key, FileRecord] = {}
        self._by_digest: dict[str, FileRecord] = {}
        self._sizes: set[int] = set()
        self._intact = self._read()
        self._used: dict[Key, FileRecord] = {}
        self._file: IO[bytes] | None = None

    def find(self, path: Path) -> FileRecord | None:
        """Return the record of a file, if its content has not changed since, even if it was moved; else None."""
        try:
            key = key_of(path)
            record = self._by_key.get(key)
            if record is None and key[1] in self._sizes:
                record = self._by_digest.get(sha256_of(path))
                if record is not None:
                    self._append(key, record)
        except OSError:
            return None
        if record is not None:
            self._used[key] = record
        return record

    def add(self, path: Path, record: FileRecord) -> None:
        """Store a record. Unreadable files are not stored: the cause may be the disk or the permissions."""
        if record.reason or not record.digest:
            return
        with suppress(OSError):
            key = key_of(path)
            if key[1] == record.size:
                self._used[key] = record
                self._append(key, record)

    def close(self, *, complete: bool) -> None:
        """Close the file; after a complete audit, remove records of files that are gone or have changed."""
        if self._file is not None:
            self._file.close()
        if complete and (not self._intact or self._by_key.keys() - self._used.keys()):
            lines = (_line(key, record) for key, record in self._used.items())
            write_atomically(self.path, b"".join((_HEADER.encode() + b"\n", *lines)))
        self._lock.close()

    def _append(self, key: Key, record: FileRecord) -> None:
        try:
            if self._file is None:
                if not self._by_key:
                    write_atomically(self.path, _HEADER + "\n")
                self._file = self.path.open("ab")
                if not self._intact:
                    self._file.write(b"\n")  # the last line may be incomplete
            self._file.write(_line(key, record))
            self._file.flush()
        except OSError as error:
            message = f"Cannot write {show_path(self.path)}: {error.strerror}. Run the same command again to resume."
            raise DatasetError(message, "audit-output-not-writable", path=self.path, reason=error.strerror) from error

    def _read(self) -> bool:
        """Read the file; return whether all its lines are complete."""
        complete = True
        try:
            with self.path.open("rb") as file:
                if file.readline().rstrip(b"\n") != _HEADER.encode():
                    return True  # of another version: written again from the start
                for line in file:
                    parsed = _parse(line)
                    complete &= parsed is not None
                    if parsed is not None:
                        key, record = parsed
                        self._by_key[key] = self._by_digest[record.digest] = record
                        self._sizes.add(record.size)
        except FileNotFoundError:
            return True
        except OSError as error:
            message = f"Cannot read {show_path(self.path)}: {error.strerror}. Choose another --output."
            raise DatasetError(message, "audit-output-unreadable", path=self.path, reason=error.strerror) from error
        return complete


def key_of(path: Path) -> Key:
    """Return hash of the path, size and modification time of a file; raises OSError if it does not exist."""
    status = path.stat()
    return hash_of_path(path), status.st_size, status.st_mtime_ns


def _line(key: Key, record: FileRecord) -> bytes:
    assert record.thumbnail is not None
    outside = record.surroundings
    pictures = base64.b64encode(record.phash.tobytes() + record.thumbnail.tobytes()).decode()
    content = {
        "key": key,
        "digest": record.digest,
        "metadata": None if record.metadata is None else asdict(record.metadata),
        "pictures": pictures,
        "light": [record.sharpness, record.brightness],
        "encoder": record.encoder,
        "surroundings": [outside.has_leaf, base64.b64encode(outside.packed).decode()] if outside.packed else [],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b"\t%08x\n" % zlib.crc32(text)


def _parse(line: bytes) -> tuple[Key, FileRecord] | None:
    """Return key and record of a line; None if it is incomplete."""
    text, _, checksum = line.rstrip(b"\n").partition(b"\t")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    content: dict[str, Any] = json.loads(text)
    metadata = content["metadata"]
    if metadata is not None and set(metadata) != _METADATA:
        return None  # written before a field was added
    for name in _SHARED if metadata is not None else ():
        metadata[name] = sys.intern(metadata[name])
    pictures = np.frombuffer(base64.b64decode(content["pictures"]), dtype=np.uint8)
    path_hash, size, modified = content["key"]
    outside = content["surroundings"]
    record = FileRecord(
        content["digest"],
        size,
        metadata=None if metadata is None else Metadata(**metadata | {"border": tuple(metadata["border"])}),
        phash=pictures[:PHASH_BYTES],
        thumbnail=pictures[PHASH_BYTES:].reshape(THUMBNAIL, THUMBNAIL, 3),
        sharpness=content["light"][0],
        brightness=content["light"][1],
        encoder=shared_encoder(*content["encoder"]),
        surroundings=Surroundings(outside[0], base64.b64decode(outside[1])) if outside else Surroundings(),
    )
    return (path_hash, size, modified), record
