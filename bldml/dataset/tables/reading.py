"""Read CSV tables as people, spreadsheets and programs write them, where only one reading is possible, and say so."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bldml.dataset.files import show_path
from bldml.dataset.tables.columns import (
    check_twice,
    guessed_columns,
    has_row_names,
    missing_column,
    renamed_columns,
    unquoted,
)
from bldml.dataset.tables.onehot import OneHot, find_one_hot
from bldml.errors import DatasetError
from bldml.io.documents import LARGEST_TABLE

_MOST_TITLES = 5  # lines above the names of the columns
_NO_TABLES = (
    (b"PK\x03\x04", "a workbook (xlsx or ods) or another archive"),
    (b"PK\x05\x06", "an archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook (xls)"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
)  # by the first bytes
_JSON, _MARKUP = re.compile(rb"\s*[\[{]\s*[\[{\"]"), re.compile(rb"\s*<[!?a-zA-Z]")
_HEAD = 4096  # bytes that show whether a file is text
_ENCODINGS = (
    *((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")),
)
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

    It may have commas, semicolons, tabs or | between cells, be in UTF-8 or UTF-16, write its columns in capitals or by
    one of their `SYNONYMS`, and have a column of 0 and 1 for each class instead of a label. What differs from a CSV
    with commas in UTF-8 is added to `notes`, in plain words.

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
        titles = _titles(text, needed, optional)
        text, first = text.split("\n", titles)[-1], first + titles
        said += [f"from row {first} on"] if titles else []
        layout = _layout(text, first, table, needed, optional, noun, said)
        if notes is not None and said:
            notes.append(f"The {noun} {show_path(table)} was read {', '.join(said)}.")
        reader, columns = _reader(text, layout.delimiter), layout.columns
        if layout.has_header:
            next(reader, None)
        for number, cells in enumerate(reader, first + layout.has_header):  # for the message below
            cells = [unquoted(cell) for cell in cells] if layout.is_quoted else cells
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(columns) - len(cells))
                row = dict(zip(columns, padded, strict=False))
                if layout.one_hot.places:
                    row["label"] = layout.one_hot.label(cells)
                yield number, row, any(cell.strip() for cell in cells[len(columns) :])
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
    # Excel writes "Unicode text" so, PowerShell its redirected output; some programs without the mark at the beginning.
    encoding = next((name for start, name in _ENCODINGS if content.startswith(start)), _without_mark(content))
    if encoding:
        said.append(f"as {encoding[:6]}")
        return content.decode(encoding, errors="replace").strip("\ufeff\0\x1a")
    what = next((what for start, what in _NO_TABLES if content.startswith(start)), "")
    what = what or ("JSON" if _JSON.match(content) else "a page or XML" if _MARKUP.match(content) else "")
    head = content[:_HEAD].rstrip(b"\0")
    if what or 10 * sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head):
        message = (
            f"The {noun} {show_path(table)} is not CSV: it is {what or 'not text'}. Save the table as CSV (UTF-8)."
        )
        raise DatasetError(message, "table-no-text", path=table, found=what)
    return content.decode("utf-8", errors="surrogateescape").strip("\ufeff\0\x1a")


def _without_mark(content: bytes) -> str:
    """Return the encoding of a text in UTF-16 without a mark: every second byte of its first line is 0."""
    head = content[:64]
    for name, zeros, others in (("UTF-16-LE", head[1::2], head[::2]), ("UTF-16-BE", head[::2], head[1::2])):
        if len(head) > 8 and not any(zeros) and all(others):
            return name
    return ""


def _titles(text: str, needed: Sequence[str], optional: Sequence[str]) -> int:
    """Return the number of lines above the names of the columns; 0 also if there are no such names.

    Instead of the label, there may be a column for each class, which are two at least.
    """
    by_classes: int | None = None
    for number, line in enumerate(text.split("\n", _MOST_TITLES + 1)[: _MOST_TITLES + 1]):
        for delimiter in _DELIMITERS:
            with suppress(csv.Error):
                cells = [unquoted(cell).strip() for cell in next(_reader(line.rstrip("\r"), delimiter), [])]
                columns = renamed_columns(cells, needed, optional)
                missing = [column for column in needed if column not in columns]
                if not missing:
                    return number
                if missing == ["label"] and len([*filter(None, cells)]) > len(needed):
                    by_classes = number if by_classes is None else by_classes
        if number == 0 and _is_first_row(line, needed):
            return 0
    return by_classes or 0


def _is_first_row(line: str, needed: Sequence[str]) -> bool:
    return any(guessed_columns(line.rstrip("\r").split(delimiter), needed) for delimiter in _DELIMITERS)


class _Layout(NamedTuple):
    """What is between cells, the columns by our names, whether row 1 names them, whether it has quotes, the classes."""

    delimiter: str
    columns: list[str]
    has_header: bool
    is_quoted: bool
    one_hot: OneHot = OneHot()


def _layout(
    text: str, first: int, table: Path, needed: Sequence[str], optional: Sequence[str], noun: str, said: list[str]
) -> _Layout:
    """Find the layout of a text whose first line has this number."""
    found: list[tuple[str, list[str]]] = []
    damage: csv.Error | None = None
    for delimiter, words in _DELIMITERS.items():
        try:
            reader = _reader(text, delimiter)
            raw = next(reader, [])
            cells = [unquoted(cell).strip() for cell in raw]
            row = next(reader, [])
        except csv.Error as error:
            damage = damage or error
            continue
        found.append((delimiter, cells))
        named = (renamed_columns(cells, needed, optional, row), True), (guessed_columns(cells, needed), False)
        for columns, has_header in named:
            if columns is None or any(column not in columns for column in needed):
                continue
            check_twice(table, cells, columns, needed, optional, noun)
            said += [f"with {words} between cells"] if words else []
            if has_header and has_row_names(columns, row):
                said.append("with a first column that has no name")
                cells, columns = ["", *cells], ["", *columns]
            said += _other_names(cells, columns)
            if not has_header:
                said[-1] = f"without a header, with the columns {', '.join(columns)}"
            is_quoted = any(unquoted(cell) != cell for cell in raw)
            said += ["with quotes around cells"] if is_quoted else []
            return _Layout(delimiter, columns, has_header, is_quoted)
    if damage:
        raise damage
    return _by_classes(text, first, table, found, needed, optional, noun, said)


def _by_classes(
    text: str,
    first: int,
    table: Path,
    found: Sequence[tuple[str, list[str]]],
    needed: Sequence[str],
    optional: Sequence[str],
    noun: str,
    said: list[str],
) -> _Layout:
    """Find the layout of a table that has a column for each class; an error if that is not all that it lacks."""

    # Of the ways to divide row 1, that with most of the columns.
    def known(way: tuple[str, list[str]]) -> tuple[int, int]:
        columns = renamed_columns(way[1], needed, optional)
        return sum(column in columns for column in needed), len(columns)

    delimiter, cells = max(found, key=known)
    raw, *below = [*_reader(text, delimiter)] or [[]]
    is_quoted = any(unquoted(cell) != cell for cell in raw)
    below = [[unquoted(cell) for cell in row] for row in below] if is_quoted else below
    columns = renamed_columns(cells, needed, optional, below[0] if below else ())
    missing = [column for column in needed if column not in columns]
    one_hot = OneHot()
    if "label" in missing and "path" in columns:
        one_hot = find_one_hot([*enumerate(below, first + 1)], columns, (*needed, *optional))
    if one_hot.places and not one_hot.problem:
        missing.remove("label")
    if missing:
        raise missing_column(table, cells, missing, needed, optional, noun, one_hot.problem)
    check_twice(table, cells, columns, needed, optional, noun)
    said += [f"with {_DELIMITERS[delimiter]} between cells"] if delimiter != "," else []
    said += _other_names(cells, columns)
    said += ["with quotes around cells"] if is_quoted else []
    said.append(f"with the label from the columns {show_path(', '.join(one_hot.names))}: the one that has 1")
    return _Layout(delimiter, columns, has_header=True, is_quoted=is_quoted, one_hot=one_hot)


def _other_names(cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    changed = [f"{show_path(old)} as {new}" for old, new in zip(cells, columns, strict=True) if old != new]
    return [f"with the column {', '.join(changed)}"] if changed else []
