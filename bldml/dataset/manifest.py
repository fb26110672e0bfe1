"""Samples from a CSV manifest `path,label,split[,group]`, and the manifest of any division."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bldml.dataset.files import DatasetError, escape_path, escape_text, show_path, unescape_path
from bldml.dataset.samples import SPLITS, Collection, Sample, class_name

COLUMNS = ("path", "label", "split")
MOST_ROWS_SHOWN = 20
FORMULA_STARTS = ("=", "+", "-", "@")


def read_manifest(manifest: Path, root: Path | None, aliases: Mapping[str, str] | None = None) -> Collection:
    """Read a manifest.

    Args:
        manifest: CSV in UTF-8 with the columns path, label, split and perhaps group; others are left aside.
        root: Folder that relative paths start from; the manifest's own folder if None.
        aliases: Class name for a label, where they differ.

    Raises:
        DatasetError: A column is missing, or rows name a missing file, an unknown split, no label or a file twice.
            Row numbers are a spreadsheet's: the header is row 1, empty rows count.
    """
    root = manifest.parent if root is None else root
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    rows_of: dict[str, int] = {}
    for number, cells, is_too_wide in _rows(manifest):
        row = {column: cell.strip() for column, cell in cells.items()}
        text, label, split = (row[column] for column in COLUMNS)
        path = _find(root, cells["path"])
        if is_too_wide:
            problems.append(f"row {number}: more cells than row 1; a cell with a comma in it needs quotes")
        elif path is None:
            problems.append(f"row {number}: no file {show_path(text) or '(empty path)'}")
        elif not label:
            problems.append(f"row {number}: no label")
        elif split not in SPLITS:
            problems.append(f"row {number}: unknown split {split!r} (known: {', '.join(SPLITS)})")
        elif (real := os.path.realpath(path)) in rows_of:
            problems.append(f"row {number}: the same file as row {rows_of[real]} ({show_path(text)})")
        else:
            rows_of[real] = number
            name = escape_path(path.relative_to(root) if path.is_relative_to(root) else path)
            group = escape_text(_without_apostrophe(row.get("group", "")))
            sample = Sample(path, name, class_name(_without_apostrophe(label), aliases), group)
            splits.setdefault(split, []).append(sample)
    if problems:
        shown = problems[:MOST_ROWS_SHOWN]
        more = f"\n  … and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        raise DatasetError(
            f"The manifest {show_path(manifest)} cannot be used (paths start from {show_path(root)}):\n  "
            + "\n  ".join(shown)
            + more
        )
    return Collection(root, {s: tuple(splits[s]) for s in SPLITS if s in splits})


def to_manifest(collection: Collection) -> str:
    """The text of a manifest that divides the photographs as this collection does; paths start from its root.

    Labels and groups that a spreadsheet would run as a formula get an apostrophe in front (OWASP, "CSV injection"),
    which `read_manifest` takes off.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, "group"))
    for split, samples in collection.splits.items():
        writer.writerows((s.name, _with_apostrophe(s.class_name), split, _with_apostrophe(s.group)) for s in samples)
    return text.getvalue()


def _rows(manifest: Path) -> Iterator[tuple[int, dict[str, str], bool]]:
    """Number, cells by column, and whether there are more cells than columns, of each row that is not empty."""
    try:
        text = manifest.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"The manifest {show_path(manifest)} cannot be read: {error.strerror}.") from error
    # newline="", because a cell may hold a line end; strict, because a quote never closed must not swallow the rest.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        columns = [column.strip() for column in next(reader, [])]
        _check_columns(manifest, columns)
        for number, cells in enumerate(reader, start=2):  # for the message below
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(columns) - len(cells))
                is_too_wide = any(cell.strip() for cell in cells[len(columns) :])
                yield number, dict(zip(columns, padded, strict=False)), is_too_wide
    except csv.Error as error:
        raise DatasetError(
            f"The manifest {show_path(manifest)} is no CSV that can be read: {error}, after row {number}."
        ) from error


def _check_columns(manifest: Path, columns: list[str]) -> None:
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise DatasetError(
            f"The manifest {show_path(manifest)} has no column {', '.join(missing)} in row 1. Found: "
            f"{show_path(', '.join(columns)) or 'nothing'}. Needed, in UTF-8 and with commas between: "
            f"{', '.join(COLUMNS)}, and group if there is one."
        )
    twice = [column for column in (*COLUMNS, "group") if columns.count(column) > 1]
    if twice:
        raise DatasetError(f"The manifest {show_path(manifest)} has the column {', '.join(twice)} twice in row 1.")


def _find(root: Path, cell: str) -> Path | None:
    """The file that a cell names: what `escape_path` wrote, or a hand-written name that only looks like it."""
    text = cell.strip()
    paths = (root / name for name in (unescape_path(text), text, cell))
    # Path.is_file raises for a name that is too long.
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113


def _with_apostrophe(text: str) -> str:
    """Guard a formula; a text that looks guarded gets one more, so that reading takes off just one."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULA_STARTS) else text


def _without_apostrophe(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA_STARTS) else text
