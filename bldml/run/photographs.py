"""The table of photographs of a run or an external set, `photographs.csv`, and differences between two sets."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from bldml.errors import RunError
from bldml.io.documents import read_text
from bldml.io.text import first_few, to_csv, with_apostrophe, without_apostrophe

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
        original_class: Class name before aliases; empty where unknown.
        burst: Name of the first photograph of its burst; empty if it is not in one, or where unknown.
        format, mode, frames, orientation, has_gps, icc, quantization, border: As in `dataset.metadata.Metadata`.
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
    original_class: str = ""
    burst: str = ""
    format: str = ""
    mode: str = ""
    frames: int = 1
    orientation: int = 0
    has_gps: bool = False
    icc: str = ""
    quantization: float = 0.0
    border: tuple[float, ...] = ()


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
_REQUIRED = _COLUMNS[: _COLUMNS.index("original_class")]  # 0.1 wrote no others
_GUARDED = ("true_class", "group", "camera", "original_class", "icc")  # with an apostrophe where a spreadsheet needs it
_PARSERS: dict[str, Callable[[str], object]] = {
    "width": lambda cell: int(cell or 0),
    "height": lambda cell: int(cell or 0),
    "frames": int,
    "orientation": int,
    "has_gps": lambda cell: bool(int(cell)),
    "quantization": float,
    "border": lambda cell: tuple(map(float, cell.split())),
}


def described(metadata: object | None) -> dict[str, Any]:
    """Return what a row takes over from the metadata of a file, as keyword arguments; sizes of 0 without any."""
    names = ("width", "height", "camera", "taken", *_COLUMNS[_COLUMNS.index("format") :])
    if metadata is None:
        return {"width": 0, "height": 0, "camera": "", "taken": ""}
    return {name: getattr(metadata, name) for name in names}


def photographs_text(rows: Iterable[PhotographRow]) -> str:
    """Return the table as CSV; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return to_csv([_COLUMNS, *([_cell(name, getattr(row, name)) for name in _COLUMNS] for row in rows)])


def _cell(name: str, value: Any) -> object:
    if name in _GUARDED:
        return with_apostrophe(value)
    if name in ("width", "height"):
        return value or ""
    if name == "border":
        return " ".join(f"{number:g}" for number in value)
    return int(value) if name == "has_gps" else value


def read_photograph_table(path: Path) -> list[PhotographRow]:
    """Read a table that `photographs_text` wrote.

    Raises:
        RunError: The file is missing, or not such a table; the message names the row.
    """
    try:
        header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True)) or [[]]
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}.", "photograph-table-unreadable", path=path, reason=error.strerror
        ) from error
    except (ValueError, csv.Error) as error:
        raise RunError(
            f"{path} is not CSV in UTF-8: {error}.", "photograph-table-damaged", path=path, reason=str(error)
        ) from error
    missing = [column for column in _REQUIRED if column not in header]
    if missing:
        message = f"{path} is not a table of photographs: column {', '.join(missing)} missing in row 1."
        raise RunError(message, "photograph-table-foreign", path=path, expected=missing)
    found = []
    for number, cells in enumerate(rows, 2):
        row = dict(zip(header, cells, strict=False))
        try:
            cells_of: dict[str, Any] = {name: row[name] for name in _COLUMNS if name in header}
            cells_of |= {name: without_apostrophe(cells_of[name]) for name in _GUARDED if name in cells_of}
            cells_of |= {name: parse(cells_of[name]) for name, parse in _PARSERS.items() if name in cells_of}
            found.append(PhotographRow(**cells_of))
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
