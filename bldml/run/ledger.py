"""The ledger of a run: every evaluation with labels, in `ledger.csv`; and what all runs of a log folder record.

Repeated evaluation on a test set biases its results; from the ledgers a report counts the evaluations of each set.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from bldml.errors import RunError
from bldml.io.documents import mapping_or_nothing
from bldml.io.platform import BINARY, NO_FOLLOW, read_at
from bldml.io.text import to_csv, with_apostrophe, without_apostrophe
from bldml.run.folder import RunFolder


@dataclass(frozen=True)
class LedgerEntry:
    """One evaluation with labels.

    Attributes:
        time: Time of the evaluation, ISO 8601 in UTC.
        evaluation: Its name, which is also that of its folder.
        split: The split that was evaluated: val or test (test for an external set).
        dataset_fingerprint: SHA-256 of the photographs' contents and classes (see `dataset.samples.dataset_digest`).
        n: Number of photographs.
        checkpoint: Path of the checkpoint, relative to the run folder if it is inside.
    """

    time: str
    evaluation: str
    split: str
    dataset_fingerprint: str
    n: int
    checkpoint: str


@dataclass(frozen=True)
class RecordedRun:
    """What a run of a log folder records about the sets that it used.

    Attributes:
        name: Name of its folder.
        digests: Dataset digest of each of its splits; empty if not recorded.
        entries: Its ledger, oldest first; None if it has none.
        unreadable: Number of lines of its ledger that are not whole, as a crash or a full disk leaves them.
    """

    name: str
    digests: Mapping[str, str]
    entries: tuple[LedgerEntry, ...] | None
    unreadable: int = 0

    def looks(self, digest: str) -> int:
        """Return how often it evaluated the photographs with this dataset digest, under any name."""
        return sum(entry.dataset_fingerprint == digest for entry in self.entries or ())


_COLUMNS = tuple(field.name for field in fields(LedgerEntry))


def append_entry(run: RunFolder, entry: LedgerEntry) -> None:
    """Append an evaluation to the ledger of the run, which is created if it is missing.

    The line is appended in one write, so that two processes that evaluate at once do not lose each other's line.

    Raises:
        RunError: The ledger cannot be written.
    """
    header, line = to_csv([_COLUMNS]), to_csv([[with_apostrophe(str(cell)) for cell in astuple(entry)]])
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_FOLLOW | BINARY
        descriptor = os.open(run.ledger, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            length = min(size, len(header) + 4 * len(line))
            tail = read_at(descriptor, length, size - length)
            _, ended, cut = tail.rpartition(b"\n")
            whole = (line if ended else header + line).encode(errors="backslashreplace")
            # A line that a kill or a full disk has cut short is completed if it is this one, else terminated.
            rest = whole[len(cut) :] if whole.startswith(cut) else b"\n" + line.encode(errors="backslashreplace")
            os.write(descriptor, rest)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        message = f"Cannot write {run.ledger}: {error.strerror}. Check that you may write there."
        raise RunError(message, "ledger-not-writable", path=run.ledger, reason=error.strerror) from error


def read_ledger(run: RunFolder) -> list[LedgerEntry]:
    """Return the evaluations of a run, oldest first; an empty list if there is no ledger.

    A line that is not whole, such as one cut short, is no entry; `RecordedRun` counts them.

    Raises:
        RunError: The ledger cannot be read.
    """
    return _read(run)[0]


def _read(run: RunFolder) -> tuple[list[LedgerEntry], int]:
    """Return the entries, and the number of lines that are none."""
    try:
        lines = run.ledger.read_bytes().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise RunError(
            f"Cannot read {run.ledger}: {error.strerror}.", "ledger-unreadable", path=run.ledger, reason=error.strerror
        ) from error
    lines = [line for line in lines if line.strip() and line.rstrip("\r") != ",".join(_COLUMNS)]
    entries = [entry for line in lines if (entry := _to_entry(line))]
    return entries, len(lines) - len(entries)


def read_log_folder(run: RunFolder) -> list[RecordedRun]:
    """Return what a run and the runs beside it record, the run itself first.

    Damage of another run is not this run's: what cannot be read of it counts as not recorded.

    Raises:
        RunError: The ledger of the run itself cannot be read.
    """
    own, others = run.path.resolve(), set[Path]()
    with suppress(OSError):
        others = {path.resolve() for path in own.parent.iterdir()} - {own}
    found = [_record(RunFolder(own), is_own=True)]
    for path in sorted(others):
        with suppress(OSError, RunError):
            other = RunFolder(path)
            if other.ledger.is_file() or other.environment.is_file():
                found.append(_record(other, is_own=False))
    return found


def looks_at(digest: str, runs: Sequence[RecordedRun]) -> dict[str, int]:
    """Return how often each run evaluated the photographs with this dataset digest, by name; only runs that did."""
    return {run.name: n for run in runs if digest and (n := run.looks(digest))}


def _record(run: RunFolder, *, is_own: bool) -> RecordedRun:
    digests = mapping_or_nothing(run.environment).get("dataset_fingerprint") if run.environment.is_file() else None
    splits = digests.items() if isinstance(digests, dict) else ()
    texts = {str(split): digest for split, digest in splits if isinstance(digest, str)}
    if not run.ledger.is_file():
        return RecordedRun(run.path.name, texts, None)
    entries, unreadable = _read(run)
    # A file without any entry may be something else of that name.
    return RecordedRun(run.path.name, texts, tuple(entries), unreadable if entries or is_own else 0)


def _to_entry(line: str) -> LedgerEntry | None:
    try:
        cells = next(csv.reader([line], strict=True), [])
    except csv.Error:
        return None
    if len(cells) != len(_COLUMNS) or not (cells[4].isdecimal() and cells[4].isascii() and len(cells[4]) < 19):
        return None
    time, evaluation, split, digest, n, checkpoint = (without_apostrophe(cell) for cell in cells)
    return LedgerEntry(time, evaluation, split, digest, int(n), checkpoint)
