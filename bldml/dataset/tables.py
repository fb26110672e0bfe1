"""Read CSV tables as people, spreadsheets and programs write them, where only one reading is possible, and say so."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.dataset.images import HEIF_SUFFIXES, PHOTO_SUFFIXES
from bldml.errors import DatasetError
from bldml.io.documents import LARGEST_TABLE

# Names under which others write a column, in small letters with _ between words.
SYNONYMS = {
    "path": (
        *("paths", "file", "files", "filename", "filenames", "file_name", "filepath", "file_path", "image", "images"),
        *("image_path", "image_name", "image_file", "imagepath", "img", "img_path", "photo", "photograph", "picture"),
    ),
    "label": ("labels", "class", "classes", "class_name", "classname", "target", "category", "diagnosis", "y"),
    "split": ("splits", "set", "subset", "partition", "data_split", "phase"),
}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "learn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "hold-out", "held-out"), "test"),
}
"""What others call a split, in small letters."""
_DELIMITERS = {",": "", ";": "semicolons", "\t": "tabs", "|": "|"}


def remove_table(table: Path, columns: Sequence[str], is_own: Callable[[list[dict[str, str]]], bool]) -> bool:
    """Remove a table that an earlier run of a command has written, and nobody else.

    Args:
        table: The file.
        columns: Its columns as that command writes them.
        is_own: Whether that command writes such rows, which are cells by column.

    Returns:
        Whether no file is left there: it was missing or has been removed.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        if not lines or lines[0] != list(columns) or any(len(line) != len(columns) for line in lines):
            return False
        if not is_own([dict(zip(columns, line, strict=True)) for line in lines[1:]]):
            return False
        table.unlink()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeError, csv.Error):
        return False
    return True


def read_rows(
    table: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    noun: str = "manifest",
    notes: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, str], bool]]:
    """Read a CSV that was written by hand, by a spreadsheet or by bldml; messages call it `noun`.

    It may have commas, semicolons, tabs or | between cells, be in UTF-8 or UTF-16, and write its columns in capitals or
    by one of their `SYNONYMS`. What differs from a CSV with commas in UTF-8 is added to `notes`, in plain words.

    Yields number and cells by column of each row that is not empty, and whether there are more cells than columns.
    Bytes that are not UTF-8 are surrogate escapes. A DatasetError is raised if the file cannot be read, lacks a
    `needed` column, or has one or an `optional` one twice.
    """
    said: list[str] = []
    text = _decoded(table, noun, said)
    # Empty lines, and a hint for Excel on a line of its own.
    skipped = re.match(r"(?:[ \t]*(?:\r\n|\r|\n))*(?:sep=[,;\t|](?:\r\n|\r|\n))?", text, re.IGNORECASE)
    above = text[: skipped.end()] if skipped else ""
    text, first = text[len(above) :], len(above.splitlines()) + 1
    number = first
    try:
        delimiter, columns, has_header = _layout(text, table, needed, optional, noun, said)
        if notes is not None and said:
            notes.append(f"The {noun} {show_path(table)} was read {', '.join(said)}.")
        reader = _reader(text, delimiter)
        if has_header:
            next(reader, None)
        for number, cells in enumerate(reader, first + has_header):  # for the message below
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(columns) - len(cells))
                is_too_wide = any(cell.strip() for cell in cells[len(columns) :])
                yield number, dict(zip(columns, padded, strict=False)), is_too_wide
    except csv.Error as error:
        message = f"The {noun} {show_path(table)} is not a valid CSV file: {error} after row {number}. Correct it."
        raise DatasetError(message, "csv-damaged", path=table, row=number, reason=str(error)) from error


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    # newline="", because a cell may contain a line end; strict, because an unclosed quote must not consume the rest.
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _decoded(table: Path, noun: str, said: list[str]) -> str:
    try:
        with table.open("rb") as file:
            content = file.read(LARGEST_TABLE + 1)
    except OSError as error:
        message = f"The {noun} {show_path(table)} cannot be read: {error.strerror}."
        raise DatasetError(message, "table-unreadable", path=table, reason=error.strerror) from error
    if len(content) > LARGEST_TABLE:
        message = f"The {noun} {show_path(table)} has more than {LARGEST_TABLE / 2**20:.0f} MiB, the most that is read."
        raise DatasetError(message, "table-too-large", path=table, expected=LARGEST_TABLE)
    # Excel writes "Unicode text" so, PowerShell its redirected output.
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        said.append("as UTF-16")
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _layout(
    text: str, table: Path, needed: Sequence[str], optional: Sequence[str], noun: str, said: list[str]
) -> tuple[str, list[str], bool]:
    """Return what is between cells, the columns by our names, and whether row 1 names them."""
    first: list[list[str]] = []
    damage: csv.Error | None = None
    for delimiter, words in _DELIMITERS.items():
        try:
            cells = [cell.strip() for cell in next(_reader(text, delimiter), [])]
        except csv.Error as error:
            damage = damage or error
            continue
        first.append(cells)
        for columns, has_header in ((_renamed(cells, needed, optional), True), (_guessed(cells, needed), False)):
            if columns is None or any(column not in columns for column in needed):
                continue
            _check_twice(table, cells, columns, needed, optional, noun)
            said += [f"with {words} between cells"] if words else []
            changed = [f"{show_path(old)} as {new}" for old, new in zip(cells, columns, strict=True) if old != new]
            if not has_header:
                said.append(f"without a header, with the columns {', '.join(columns)}")
            elif changed:
                said.append(f"with the column {', '.join(changed)}")
            return delimiter, columns, has_header
    if damage:
        raise damage
    raise _no_column(table, first, needed, optional, noun)


def _renamed(cells: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """Return the cells of row 1 with our names of columns instead of others, where ours is missing.

    >>> _renamed(["Filename", "Set", "note", "label"], ["path", "label", "split"], [])
    ['path', 'split', 'note', 'label']
    """
    columns = list(cells)
    plain = ["_".join(cell.casefold().replace("-", " ").replace("_", " ").split()) for cell in cells]
    for column in (*needed, *optional):
        if column not in cells:
            same = [i for i, name in enumerate(plain) if name == column]
            others = [i for i, name in enumerate(plain) if name in SYNONYMS.get(column, ()) and column in needed]
            for i in same or others:
                columns[i] = column
    return columns


def _guessed(cells: Sequence[str], needed: Sequence[str]) -> list[str] | None:
    """Return the columns of a table without a header; None if its first row does not tell.

    >>> _guessed(["BLD", "a/1.jpg", "train"], ["path", "label", "split"])
    ['label', 'path', 'split']
    """
    suffixes = tuple(sorted(PHOTO_SUFFIXES | HEIF_SUFFIXES))
    found = {
        "path": [i for i, cell in enumerate(cells) if cell.casefold().endswith(suffixes)],
        "split": [i for i, cell in enumerate(cells) if cell.casefold() in SPLIT_NAMES],
    }
    known = [column for column in found if column in needed]
    if len(cells) != len(needed) or "path" not in known or any(len(found[column]) != 1 for column in known):
        return None
    places = {found[column][0]: column for column in known}
    rest = [column for column in needed if column not in known]
    others = [i for i in range(len(cells)) if i not in places]
    if len(rest) > 1 or not all(cells[i] for i in others):
        return None
    places |= dict(zip(others, rest, strict=True))
    return [places[i] for i in range(len(cells))]


def _check_twice(
    table: Path, cells: list[str], columns: list[str], needed: Sequence[str], optional: Sequence[str], noun: str
) -> None:
    twice = [column for column in (*needed, *optional) if columns.count(column) > 1]
    if twice:
        found = [cell for cell, column in zip(cells, columns, strict=True) if column in twice]
        named = "" if set(found) == set(twice) else f" ({show_path(', '.join(found))})"
        message = f"The {noun} {show_path(table)} has the column {', '.join(twice)} twice{named}. Remove or rename one."
        raise DatasetError(message, "column-twice", path=table, found=twice)


def _no_column(
    table: Path, first: list[list[str]], needed: Sequence[str], optional: Sequence[str], noun: str
) -> DatasetError:
    # Of the ways to divide row 1, that with most of the columns.
    columns = max(first, key=lambda cells: sum(c in _renamed(cells, needed, optional) for c in needed))
    missing = [column for column in needed if column not in _renamed(columns, needed, optional)]
    also = " (group is optional)" if "group" in optional else ""
    message = (
        f"The {noun} {show_path(table)} has no column {', '.join(missing)}. Found in row 1: "
        f"{show_path(', '.join(columns)) or 'nothing'}. Required columns: {', '.join(needed)}{also}."
    )
    return DatasetError(message, "column-missing", path=table, found=columns, expected=[*needed])
