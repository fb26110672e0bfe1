"""The ledger of a run: every evaluation that was made of it, in `ledger.csv`.

A test set that is looked at again and again is no longer a test; the ledger lets a report say how often it was.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from bldml.errors import RunError
from bldml.io.csvfile import with_apostrophe, without_apostrophe
from bldml.run.folder import RunFolder


@dataclass(frozen=True)
class LedgerEntry:
    """One evaluation with labels.

    Attributes:
        time: When it was made, ISO 8601 in UTC.
        evaluation: Its name, that of the folder with its results.
        split: The split that was evaluated: val or test (an external set is a test).
        dataset_fingerprint: SHA-256 of the photographs' contents and classes (see `dataset.samples.dataset_digest`).
        n: Number of photographs.
        checkpoint: The checkpoint, below the run folder where it lies there.
    """

    time: str
    evaluation: str
    split: str
    dataset_fingerprint: str
    n: int
    checkpoint: str


_COLUMNS = tuple(field.name for field in fields(LedgerEntry))


def append_entry(run: RunFolder, entry: LedgerEntry) -> None:
    """Add an evaluation to the run's ledger, making it where it is missing.

    The line is appended in one write, so that of two processes that evaluate at once none loses the other's.

    Raises:
        RunError: It cannot be written.
    """
    header, line = _line(_COLUMNS), _line([with_apostrophe(str(cell)) for cell in astuple(entry)])
    try:
        descriptor = os.open(run.ledger, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            # A line that a full disk has cut short is ended first.
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            start = header if size == 0 else "\n" if cut else ""
            os.write(descriptor, (start + line).encode(errors="backslashreplace"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        message = f"Cannot write {run.ledger}: {error.strerror}. Check that you may write there."
        raise RunError(message, "ledger-not-writable", path=run.ledger, reason=error.strerror) from error


def read_ledger(run: RunFolder) -> list[LedgerEntry]:
    """The evaluations made of a run, oldest first; nothing where there is no ledger.

    A line that is no whole entry, such as one cut short, is left out.

    Raises:
        RunError: The ledger cannot be read.
    """
    try:
        lines = run.ledger.read_bytes().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            f"Cannot read {run.ledger}: {error.strerror}.", "ledger-unreadable", path=run.ledger, reason=error.strerror
        ) from error
    return [entry for line in lines if (entry := _to_entry(line))]


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _to_entry(line: str) -> LedgerEntry | None:
    try:
        cells = next(csv.reader([line], strict=True), [])
    except csv.Error:
        return None
    if len(cells) != len(_COLUMNS) or not cells[4].isdecimal():  # the header too
        return None
    time, evaluation, split, digest, n, checkpoint = (without_apostrophe(cell) for cell in cells)
    return LedgerEntry(time, evaluation, split, digest, int(n), checkpoint)
