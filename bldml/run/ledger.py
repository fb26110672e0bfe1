"""The ledger of a run: every evaluation with labels, in `ledger.csv`.

Repeated evaluation on a test set biases its results; from the ledger a report counts the evaluations of each set.
"""

import csv
import os
from dataclasses import astuple, dataclass, fields

from bldml.errors import RunError
from bldml.io.text import with_apostrophe, without_apostrophe
from bldml.run.files import to_csv
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


_COLUMNS = tuple(field.name for field in fields(LedgerEntry))


def append_entry(run: RunFolder, entry: LedgerEntry) -> None:
    """Append an evaluation to the ledger of the run, which is created if it is missing.

    The line is appended in one write, so that two processes that evaluate at once do not lose each other's line.

    Raises:
        RunError: The ledger cannot be written.
    """
    header, line = to_csv([_COLUMNS]), to_csv([[with_apostrophe(str(cell)) for cell in astuple(entry)]])
    try:
        descriptor = os.open(run.ledger, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            # A line that was cut short by a full disk is terminated first.
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
    """Return the evaluations of a run, oldest first; an empty list if there is no ledger.

    An incomplete line, such as one cut short, is skipped.

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


def _to_entry(line: str) -> LedgerEntry | None:
    try:
        cells = next(csv.reader([line], strict=True), [])
    except csv.Error:
        return None
    if len(cells) != len(_COLUMNS) or not cells[4].isdecimal():  # the header too
        return None
    time, evaluation, split, digest, n, checkpoint = (without_apostrophe(cell) for cell in cells)
    return LedgerEntry(time, evaluation, split, digest, int(n), checkpoint)
