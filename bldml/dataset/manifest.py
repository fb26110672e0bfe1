"""Samples from a CSV manifest `path,label,split[,group]`, and the manifest of any division."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bldml.dataset.files import DatasetError, escape_path, show_path, unescape_path
from bldml.dataset.samples import SPLITS, Collection, Sample

COLUMNS = ("path", "label", "split")
MOST_ROWS_SHOWN = 20


def read_manifest(manifest: Path, root: Path | None, aliases: Mapping[str, str] | None = None) -> Collection:
    """Read a manifest.

    Args:
        manifest: CSV in UTF-8 with the columns path, label, split and perhaps group; others are left aside.
        root: Folder that relative paths start from; the manifest's own folder if None.
        aliases: Class name for a label, where they differ.

    Raises:
        DatasetError: A column is missing, or rows name a missing file, an unknown split, no label or a file twice.
            Row numbers count the header as row 1.
    """
    root = manifest.parent if root is None else root
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    rows_of: dict[str, int] = {}
    for number, row in _rows(manifest):
        text, label, split = (row[column].strip() for column in COLUMNS)
        path = _find(root, text)
        if not text or path is None:
            problems.append(f"row {number}: no file {text or '(empty path)'}")
        elif not label:
            problems.append(f"row {number}: no label")
        elif split not in SPLITS:
            problems.append(f"row {number}: unknown split {split!r} (known: {', '.join(SPLITS)})")
        elif (real := os.path.realpath(path)) in rows_of:
            problems.append(f"row {number}: the same file as row {rows_of[real]} ({text})")
        else:
            rows_of[real] = number
            name = escape_path(os.path.relpath(path, root) if path.is_relative_to(root) else path)
            sample = Sample(path, name, (aliases or {}).get(label, label), (row.get("group") or "").strip())
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
    """The text of a manifest that divides the photographs as this collection does; paths start from its root."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, "group"))
    for split, samples in collection.splits.items():
        writer.writerows((s.name, s.class_name, split, s.group) for s in samples)
    return text.getvalue()


def _rows(manifest: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = manifest.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"The manifest {show_path(manifest)} cannot be read: {error.strerror}.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    columns = reader.fieldnames or ()
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise DatasetError(
            f"The manifest {show_path(manifest)} has no column {', '.join(missing)} in row 1. Found: "
            f"{', '.join(columns) or 'nothing'}. Needed: {', '.join(COLUMNS)}, and group if there is one."
        )
    for number, row in enumerate(reader, start=2):
        if any(value for key, value in row.items() if key is not None):
            yield number, row


def _find(root: Path, text: str) -> Path | None:
    """The file that a cell names: what `escape_path` wrote, or a hand-written name that only looks like it."""
    return next((root / name for name in (unescape_path(text), text) if (root / name).is_file()), None)
