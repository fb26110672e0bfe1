"""The table of photographs of a run or an external set, `photographs.csv`, and differences between two sets."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from bldml.errors import RunError
from bldml.io.text import first_few, with_apostrophe, without_apostrophe
from bldml.run.files import to_csv

MAX_CAMERAS = 5  # listed in a sentence


@dataclass(frozen=True)
class PhotographRow:
    """One row of `photographs.csv`.

    Args:
        path: As in predictions.csv.
        split: `train`, `val`, `test`.
        true_class: Class name of its label.
        group: Group (tree, site, burst); empty if unknown.
        width, height: Pixels, upright; 0 where unknown.
        camera: Maker and model; empty where unknown.
        taken: Local time, ISO 8601; empty where unknown.
        sha256: Of the file's content, hexadecimal; empty where unknown.
    """

    path: str
    split: str
    true_class: str
    group: str
    width: int
    height: int
    camera: str
    taken: str
    sha256: str = ""


@dataclass(frozen=True)
class Description:
    """Description of a set of photographs by its table.

    Args:
        n, n_positive, n_dated: Numbers of photographs: all, of the positive class, with a date.
        megapixels: Median size; None if unknown.
        cameras: Names with counts, most frequent first; unknown cameras under the empty name.
        first, last: Days, ISO 8601; empty if no date is known.
    """

    n: int
    n_positive: int
    megapixels: float | None
    cameras: tuple[tuple[str, int], ...]
    first: str
    last: str
    n_dated: int

    @property
    def some_dated(self) -> str:
        """A space and, in brackets, how many photographs have a date; empty if all have one."""
        return "" if self.n_dated == self.n else f" ({_dated(self)})"


_COLUMNS = tuple(field.name for field in fields(PhotographRow))


def photographs_text(rows: Iterable[PhotographRow]) -> str:
    """Return the table as CSV; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    lines: list[Sequence[object]] = [_COLUMNS]
    for row in rows:
        names, size = map(with_apostrophe, (row.true_class, row.group)), (row.width or "", row.height or "")
        lines.append((row.path, row.split, *names, *size, with_apostrophe(row.camera), row.taken, row.sha256))
    return to_csv(lines)


def read_photograph_table(path: Path) -> list[PhotographRow]:
    """Read a table that `photographs_text` wrote.

    Raises:
        RunError: The file is missing, or not such a table; the message names the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}.", "photograph-table-unreadable", path=path, reason=error.strerror
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(
            f"{path} is not CSV in UTF-8: {error}.", "photograph-table-damaged", path=path, reason=str(error)
        ) from error
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        message = f"{path} is not a table of photographs: column {', '.join(missing)} missing in row 1."
        raise RunError(message, "photograph-table-foreign", path=path, expected=missing)
    found = []
    for number, cells in enumerate(rows, 2):
        row = dict(zip(header, cells, strict=False))
        try:
            width, height = (int(row[side] or 0) for side in ("width", "height"))
            texts = {key: without_apostrophe(row[key]) for key in ("true_class", "group", "camera")}
            texts |= {key: row[key] for key in ("path", "split", "taken", "sha256")}
            found.append(PhotographRow(width=width, height=height, **texts))
        except (KeyError, ValueError) as error:
            message = f"{path}, row {number}, cannot be read. Correct the row or remove the file."
            raise RunError(message, "photograph-row-wrong", path=path, row=number) from error
    return found


def describe(rows: Sequence[PhotographRow], positive_class: str) -> Description:
    """Describe a set by its photographs.

    >>> row = PhotographRow("a.jpg", "test", "BLD", "", 4000, 3000, "", "2024-06-01T12:00:00")
    >>> describe([row], "BLD").megapixels, describe([row], "BLD").first
    (12.0, '2024-06-01')
    """
    sizes = [row.width * row.height / 1e6 for row in rows if row.width and row.height]
    days = sorted(row.taken[:10] for row in rows if row.taken)
    return Description(
        n=len(rows),
        n_positive=sum(row.true_class == positive_class for row in rows),
        megapixels=median(sizes) if sizes else None,
        cameras=tuple(Counter(row.camera for row in rows).most_common()),
        first=days[0] if days else "",
        last=days[-1] if days else "",
        n_dated=len(days),
    )


def differences(training: Sequence[PhotographRow], other: Sequence[PhotographRow], positive_class: str) -> list[str]:
    """Return sentences on how another set differs from the training photographs."""
    if not training or not other:
        return []
    here, there = describe(other, positive_class), describe(training, positive_class)
    return [
        f"{_percent(here.n_positive, here.n)} of these photographs are {positive_class}; in training "
        f"{_percent(there.n_positive, there.n)}.",
        _sizes(here, there),
        _cameras(here, there),
        _dates(here, there),
    ]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % ({part} of {whole})"


def _sizes(here: Description, there: Description) -> str:
    if here.megapixels is None or there.megapixels is None:
        return "Their sizes are not known."
    return f"Their median size is {here.megapixels:.1f} megapixels; in training {there.megapixels:.1f}."


def _cameras(here: Description, there: Description) -> str:
    known = {name for name, _ in there.cameras if name}
    new = [(name, count) for name, count in here.cameras if name and name not in known]
    unknown = dict(here.cameras).get("", 0)
    if unknown == here.n:
        return "Their files do not record the camera."
    if not known:
        return "The files of the training photographs do not record the camera."
    taken_by = (
        f"{_percent(sum(count for _, count in new), here.n)} were taken with cameras that took no training photograph: "
        f"{first_few([f'{name} ({count})' for name, count in new], MAX_CAMERAS, ', ', ' and ')}."
        if new
        else "All known cameras also took training photographs."
    )
    return taken_by + (f" The camera is not known for {_percent(unknown, here.n)}." if unknown else "")


def _dates(here: Description, there: Description) -> str:
    if not here.first or not there.first:
        is_partial = any(0 < one.n_dated < one.n for one in (here, there))
        dated = f" ({_dated(here)}; training photographs: {_dated(there)})" if is_partial else ""
        return f"Whether they were taken at another time is not known: the files do not record the date{dated}."
    relation = "do not overlap" if here.first > there.last or here.last < there.first else "overlap"
    return (
        f"They were taken from {here.first} to {here.last}{here.some_dated}; the training photographs from "
        f"{there.first} to {there.last}{there.some_dated}: the periods {relation}."
    )


def _dated(description: Description) -> str:
    return f"{description.n_dated:,} of {description.n:,} dated"
