"""What a survey has done: one file of lines for each process that shares the work, so that any of them can resume."""

import errno
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from bldml.dataset.files import list_folder, show_path
from bldml.dataset.samples import Sample
from bldml.errors import RunError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import load_json
from bldml.io.locks import Lock, Taken

Stamp = tuple[int, int]  # size and time of change of a file, by which a changed photograph is noticed
HEAD = "bldml_survey"
CHECK = "crc32"  # of the rest of a line, by which a damaged one is done again
BANDS = ("", "positive", "uncertain", "negative")
_FILES = "progress*.jsonl"


class Record(NamedTuple):
    """What is known of one photograph."""

    stamp: Stamp
    probability: float | None = None  # calibrated, of the positive class; None if the photograph cannot be read
    band: str = ""  # positive, uncertain or negative; empty if the checkpoint has no bands
    reason: str = ""  # why it cannot be read
    familiar: bool | None = None  # whether it is like the training photographs; None if that is not known


class WorkShard(NamedTuple):
    """One of several equal parts of the work."""

    number: int = 1  # counted from 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "WorkShard":
        """Return the shard of a text such as 3/16; the whole work for None.

        Raises:
            UsageError: It has another form.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            message = f"--shard must be a part such as 3/16, from 1/16 to 16/16, not {text}."
            raise UsageError(message, "shard-wrong", found=text)
        return shard

    def has(self, name: str) -> bool:
        """Return whether a photograph belongs to it; files that are added move no other photograph."""
        return zlib.crc32(name.encode("utf-8", "surrogateescape")) % self.of == self.number - 1

    @property
    def file(self) -> str:
        """Name of its progress file."""
        return "progress.jsonl" if self.of == 1 else f"progress-{self.number}-of-{self.of}.jsonl"


@dataclass
class SurveyProgress:
    """The progress files of one output folder.

    Attributes:
        folder: The output folder.
        settings: What all records have in common: digests of checkpoint and folder of photographs.
    """

    folder: Path
    settings: Mapping[str, Any]
    _file: FileIO | None = field(default=None, repr=False)

    def read(self) -> dict[str, Record]:
        """Return the records of all processes by name of the photograph.

        Raises:
            RunError: A file is of another survey.
        """
        records: dict[str, Record] = {}
        for path in sorted(self.folder.glob(_FILES)):
            self._check(path)
            for line in _lines(path):
                record = _record(line)
                # Of two records of a photograph that changed, as after a survey with other shards, the later counts.
                if record and record.stamp[1] >= records.get(line["path"], record).stamp[1]:
                    records[line["path"]] = record
        return records

    def begin(self, shard: WorkShard, locks: ExitStack) -> None:
        """Begin to write the file of a shard, of which only complete lines are kept.

        Args:
            shard: The part of the work.
            locks: Holds the locks of this shard and, for the whole work, those of all shards that began.

        Raises:
            RunError: Another process does this part, or the folder cannot be written to.
        """
        make_folder(self.folder)
        begun = {path.name for path in self.folder.glob(_FILES)} if shard.of == 1 else set()
        for name in sorted(begun | {shard.file}):
            try:
                locks.enter_context(Lock(self.folder / f".{name}.lock"))
            except Taken as error:
                message = f"Another process writes {show_path(self.folder / name)}. Wait until it has ended."
                raise RunError(message, "survey-in-use", path=self.folder / name) from error
        path = self.folder / shard.file
        lines = [{HEAD: self.settings}, *(line for line in _lines(path) if _record(line) is not None)]
        write_atomically(path, "".join(map(_text, lines)))
        # Without a buffer, so that a killed process loses no finished photograph.
        self._file = locks.enter_context(path.open("ab", buffering=0))

    def add(self, name: str, record: Record) -> None:
        """Write one record.

        Raises:
            RunError: The disk is full, or fails; complete lines stay.
        """
        assert self._file is not None
        fields = zip(Record.__annotations__, record, strict=True)
        line = {"path": name} | {key: value for key, value in fields if value not in (None, "")}
        data = _text(line).encode()
        try:
            if self._file.write(data) < len(data):  # a full disk may take a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            message = f"Cannot write {show_path(self.folder)}: {error.strerror}. What is done is kept: make room, and "
            message += "type the same command again."
            raise RunError(message, "survey-not-writable", path=self.folder, reason=error.strerror) from error

    def _check(self, path: Path) -> None:
        head = next(_lines(path), {}).get(HEAD)
        found = head if isinstance(head, dict) else {}
        for key, value in self.settings.items():
            if found.get(key) != value:
                message = f"{show_path(self.folder)} holds a survey with another {key} and is left as it is. "
                message += "Give another --output."
                raise RunError(message, "output-of-other-survey", path=self.folder, key=key, found=found.get(key))


def open_progress(output: Path, photographs: Path, settings: Mapping[str, Any]) -> SurveyProgress:
    """Return the progress in an output folder. Changes no file.

    Raises:
        RunError: The folder is inside the photographs, or holds files of something else or of another survey.
    """
    if output.is_symlink() or output.exists():
        if not output.is_dir():
            message = f"{show_path(output)} is not a folder. Give another --output."
            raise RunError(message, "survey-output-no-folder", path=output)
        own = any(output.glob(_FILES))
        if not own and any(not entry.name.startswith(".") for entry in list_folder(output)):
            message = f"{show_path(output)} holds files already and is left as it is. Give another --output."
            raise RunError(message, "survey-output-not-empty", path=output)
    if photographs.is_dir() and output.resolve().is_relative_to(photographs.resolve()):
        message = f"{show_path(output)} lies inside {show_path(photographs)}. Give an --output outside."
        raise RunError(message, "survey-output-inside-photographs", path=output, root=photographs)
    progress = SurveyProgress(output, settings)
    progress.read()
    return progress


def stamp_of(path: Path) -> Stamp:
    """Return size and time of change of a file; (0, 0) if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def undone(samples: Sequence[Sample], records: Mapping[str, Record], shard: WorkShard) -> Iterator[int]:
    """Yield the index of each photograph of a shard that has no record, or has changed since."""
    for index, sample in enumerate(samples):
        if shard.has(sample.name):
            record = records.get(sample.name)
            if record is None or record.stamp != stamp_of(sample.path):
                yield index


def _text(line: Mapping[str, Any]) -> str:
    return f"{json.dumps({**line, CHECK: _check_of(line)})}\n"


def _check_of(line: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(line).encode()):08x}"


def _record(line: Mapping[str, Any]) -> Record | None:
    """Return the record of a line; None if it has none."""
    stamp, probability = line.get("stamp"), line.get("probability")
    if (
        not isinstance(line.get("path"), str)
        or not isinstance(stamp, list)
        or [type(one) for one in stamp] != [int] * 2
    ):
        return None
    familiar, band, reason = line.get("familiar"), line.get("band", ""), str(line.get("reason", ""))
    if not (familiar is None or isinstance(familiar, bool)) or band not in BANDS:
        return None
    if not reason and not (isinstance(probability, float) and 0 <= probability <= 1):
        return None
    return Record((stamp[0], stamp[1]), None if reason else probability, band, reason, familiar)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of JSON lines; those that are damaged, as after a kill, are left out."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    value = load_json(line)
                except ValueError:
                    continue
                check = value.pop(CHECK, None) if isinstance(value, dict) else None
                if isinstance(value, dict) and check in (None, _check_of(value)):  # older versions wrote none
                    yield value
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"Cannot read {show_path(path)}: {error.strerror}."
        raise RunError(message, "survey-unreadable", path=path, reason=error.strerror) from error
