"""Read samples from a CSV manifest `path,label,split[,group,fold,sha256]`, and write one."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from bldml.dataset.contents import Texts
from bldml.dataset.files import (
    escape_path,
    escape_text,
    is_folder,
    search_folders,
    shell_word,
    show_path,
    subfolders,
)
from bldml.dataset.samples import SPLITS, Collection, Sample, Samples, class_name
from bldml.dataset.tables.paths import PathFinder, exact_file, is_utf8
from bldml.dataset.tables.reading import read_rows
from bldml.dataset.tables.values import CellValues, unknown_split
from bldml.errors import DatasetError
from bldml.io.text import counted, first_few, to_csv, with_apostrophe, without_apostrophe

COLUMNS = ("path", "label", "split")
OPTIONAL = ("group", "fold", "sha256")
UNASSIGNED = "unassigned"  # instead of a split
MOST_ROWS_SHOWN = 20
TOO_MANY_CELLS = ("too-many-cells", "more cells than row 1; put quotes around a cell that contains a comma")


def read_manifest(
    manifest: Path, root: Path | None, aliases: Mapping[str, str] | None = None, fold: int | None = None
) -> Collection:
    """Read a manifest.

    Args:
        manifest: CSV with the columns path, label, split and optionally group, fold and sha256; other columns are
            ignored. What is written otherwise is read where only one reading is possible, and in the collection's
            notes; see `tables`, `paths` and `values`.
        root: Folder that relative paths start from; the manifest's own folder if None.
        aliases: Class name for a label, where they differ.
        fold: Fold to use as val; see `with_fold`. None uses the column split unchanged.

    Raises:
        DatasetError: A column is missing, or there are no rows; or no cell is a split; or rows contain a missing file,
            an unknown split, no label, or a file twice (row numbers are those of a spreadsheet: the header is row 1,
            empty rows count); or no file at all exists, which is one error; or the fold does not exist.
    """
    collection = _read(manifest, manifest.parent if root is None else root, aliases, COLUMNS, OPTIONAL)
    return collection if fold is None else with_fold(collection, fold, manifest)


def read_labels(manifest: Path, root: Path, aliases: Mapping[str, str] | None = None) -> Collection:
    """Read a manifest that needs no split: all photographs are in a split that is named `unassigned`.

    The columns split, fold and sha256 are not read; everything else is as in `read_manifest`.
    """
    return _read(manifest, root, aliases, COLUMNS[:2], OPTIONAL[:1])


def _read(
    manifest: Path, root: Path, aliases: Mapping[str, str] | None, needed: Sequence[str], optional: Sequence[str]
) -> Collection:
    splits: dict[str, Samples] = {}
    problems, rows_of = list[tuple[int, str, str]](), dict[str, int]()  # row, kind, text; rows by file
    missing, notes, twice = list[str](), list[str](), list[tuple[int, int, str]]()  # twice: row, row before, path
    names, digests, folds = Texts(), Texts(), Texts()
    column = partial(_column, manifest, needed, optional)
    finder, values = PathFinder(root, lambda: column("path")), CellValues(column)
    number = 0
    for number, cells, is_too_wide in read_rows(manifest, needed, optional, notes=notes):
        row = {name: cells.get(name, "").strip() for name in (*needed, *optional)}
        text, digest = row["path"], row.get("sha256", "").lower()
        path, split = finder.find(cells["path"]), values.split(row["split"], number) if "split" in row else UNASSIGNED
        # Where the file's name has bytes that are not UTF-8, so may the label.
        as_bytes = path is not None and not is_utf8(str(path))
        label, group = values.label(row["label"], as_bytes), values.group(row["group"], as_bytes)
        if is_too_wide:
            problems.append((number, *TOO_MANY_CELLS))
        elif path is None:
            missing.append(text)
            problems.append(
                (number, "file-missing", _no_file(text, finder if len(missing) <= MOST_ROWS_SHOWN else None))
            )
        elif problem := _wrong_cell(label, split, row.get("split", ""), digest):
            problems.append((number, *problem))
        elif (real := os.path.realpath(path)) in rows_of:
            twice.append((number, rows_of[real], text))
        else:
            rows_of[real] = number
            sample = _sample(path, root, without_apostrophe(label), group, aliases)
            splits.setdefault(split, Samples(root)).append(sample)
            names.append(sample.name)
            digests.append(digest)
            folds.append(re.sub(r"^(\d+)[.,]0$", r"\1", row.get("fold", "")))
    if not rows_of:
        _raise_one_error(manifest, root, number, problems, missing, finder, values)
    problems += [*_repeated(twice, manifest, needed, optional, notes), *values.problems()]
    if problems:
        raise _wrong_rows(sorted(problems), manifest, root)
    rows_of.clear()  # first, to avoid fragmenting the memory
    ordered = {split: splits[split] for split in (*SPLITS, UNASSIGNED) if split in splits}
    notes += [f"The manifest {show_path(manifest)}: {note}" for note in (*finder.notes(), *values.notes())]
    return Collection(root, ordered, {}, (), _given(names, digests), _given(names, folds), tuple(notes))


def _sample(path: Path, root: Path, label: str, group: str, aliases: Mapping[str, str] | None) -> Sample:
    name = escape_path(path.relative_to(root) if path.is_relative_to(root) else path)
    return Sample(path, name, class_name(label, aliases), escape_text(without_apostrophe(group)), class_name(label))


def _raise_one_error(
    manifest: Path,
    root: Path,
    number: int,
    problems: Sequence[tuple[int, str, str]],
    missing: Sequence[str],
    finder: PathFinder,
    values: CellValues,
) -> None:
    """Raise one error for a table of which no row can be read for one reason; `number` is that of its last row."""
    if number == 0:
        message = f"The manifest {show_path(manifest)} has no rows below the names of its columns."
        raise DatasetError(message, "manifest-empty", path=manifest)
    if len(missing) > 1 and len(missing) == len(problems):
        raise _no_file_found(missing, manifest, root, finder.hint(missing[0]))
    if len(problems) > 1 and all(kind == "split-unknown" for _, kind, _ in problems):
        raise _no_split_known(manifest, values.unknown_splits)


def _repeated(
    twice: Sequence[tuple[int, int, str]],
    manifest: Path,
    needed: Sequence[str],
    optional: Sequence[str],
    notes: list[str],
) -> list[tuple[int, str, str]]:
    """Return row, kind and text of rows that say of a file something else than the row before.

    If no row does, the repeated ones are mentioned in `notes`.
    """
    wanted = {number for row, before, _ in twice for number in (row, before)}
    said = {}
    for number, cells, _ in read_rows(manifest, needed, optional) if wanted else ():
        if number in wanted:
            said[number] = {column: cells.get(column, "").strip() for column in (*needed[1:], *optional)}
    problems = []
    for row, before, path in twice:
        differ = [column for column, text in said[row].items() if text != said[before][column]]
        if differ:
            there = ", ".join(f"{column} {show_path(said[before][column]) or 'empty'}" for column in differ)
            problems.append((row, "file-twice", f"same file as row {before} ({show_path(path)}), which has {there}"))
    if twice and not problems:
        left_out = counted(len(twice), "row was", "rows were")
        notes.append(f"The manifest {show_path(manifest)}: {left_out} left out, the same as another row.")
    return problems


def _column(manifest: Path, needed: Sequence[str], optional: Sequence[str], column: str) -> Iterator[str]:
    return (cells[column] for _, cells, _ in read_rows(manifest, needed, optional))


def _no_file(text: str, finder: PathFinder | None) -> str:
    return f"file {show_path(text) or '(empty path)'} does not exist{finder.hint(text) if finder else ''}"


def _wrong_cell(label: str, split: str, split_cell: str, digest: str) -> tuple[str, str] | None:
    """Return kind and text of the first problem of a row whose file exists."""
    if not label:
        return "label-empty", "empty label"
    if not split:
        return "split-unknown", unknown_split(split_cell)
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        return "sha256-wrong", "sha256 is not 64 hexadecimal digits"
    return None


def _wrong_rows(problems: Sequence[tuple[int, str, str]], manifest: Path, root: Path) -> DatasetError:
    rows = [f"row {number}: {text}" for number, _, text in problems]
    return DatasetError(
        f"The manifest {show_path(manifest)} has {counted(len(problems), 'error')} (paths are relative to "
        f"{show_path(root)}):\n  {list_rows(rows)}\nCorrect these rows.",
        "manifest-rows-wrong",
        path=manifest,
        root=root,
        found=[(number, kind) for number, kind, _ in problems],
    )


def _no_split_known(manifest: Path, found: Mapping[str, int]) -> DatasetError:
    """One message instead of one for each row: the column has other names of splits, or something else, or nothing."""
    if not any(found):
        message = (
            f"The column split of the manifest {show_path(manifest)} is empty. To make the splits: "
            f"python -m bldml split PHOTOGRAPHS --manifest {shell_word(manifest)}."
        )
        return DatasetError(message, "manifest-splits-empty", path=manifest)
    cells = first_few(
        [f"{show_path(text) or 'nothing'} in {counted(n, 'row')}" for text, n in found.items()], 5, ", ", ", and "
    )
    folds = all(re.fullmatch(r"(?:fold[ _-]?)?\d+", text, re.IGNORECASE) for text in found)
    message = (
        f"The column split of the manifest {show_path(manifest)} has {cells}. Which of them is which split is not "
        "guessed: write train, val and test."
    )
    message += " If they are the folds of a cross-validation, the column's name is fold." if folds else ""
    return DatasetError(message, "manifest-splits-unknown", path=manifest, found=dict(found))


def _no_file_found(missing: Sequence[str], manifest: Path, root: Path, hint: str) -> DatasetError:
    """One message instead of one for each row: the folder is wrong, not the rows."""
    likely = next((folder for folder in _likely_roots(manifest, root) if _holds(folder, missing)), None)
    start = f"The paths start from {show_path(root)}"
    no_folder = "" if is_folder(root) else ", which is not a folder"
    message = (
        f"None of the {len(missing):,} files of the manifest {show_path(manifest)} exists. The first is "
        f"{show_path(missing[0]) or '(empty path)'}{'' if likely else hint}. {start}{no_folder}. "
        + (f"Did you mean {show_path(likely)}?" if likely else "Set the folder from which they start.")
    )
    return DatasetError(message, "manifest-root-wrong", path=manifest, root=root, found=len(missing), likely=likely)


def _likely_roots(manifest: Path, root: Path) -> Iterator[Path]:
    """Yield folders that somebody may have meant, the nearest first."""
    with suppress(OSError, DatasetError):
        names = {folder.name: folder for folder in subfolders(root.parent)}
        yield from (names[name] for name in get_close_matches(root.name, names, 5, 0.6))
    with suppress(OSError, DatasetError):
        yield from subfolders(root)
    yield from (manifest.parent, *list(root.parents)[:4], *list(manifest.resolve().parents)[:4])
    with suppress(OSError, DatasetError):
        yield from subfolders(manifest.parent)


def _holds(folder: Path, names: Sequence[str]) -> bool:
    """Return whether a folder holds the first and other files of a manifest, spread over it."""
    return all(exact_file(folder, name) for name in names[:: max(1, len(names) // 10)])


def list_rows(rows: Sequence[str]) -> str:
    """Return the first of many rows for a message, one a line, and how many more there are."""
    return first_few(rows, MOST_ROWS_SHOWN, "\n  ", "\n  … and ")


def _given(names: Texts, texts: Texts) -> dict[str, str]:
    return {name: text for name, text in zip(names, texts, strict=True) if text}


def with_fold(collection: Collection, fold: int, manifest: Path) -> Collection:
    """Return the collection with one fold as val and all other non-test photographs as train.

    A fold that does not exist, or a non-test photograph without a fold, is a DatasetError.
    """
    rest = [sample for split in ("train", "val") for sample in collection.splits.get(split, ())]
    known = sorted({collection.folds[s.name] for s in rest if s.name in collection.folds}, key=lambda f: (len(f), f))
    if str(fold) not in known:
        found = f"Found: {', '.join(known[:MOST_ROWS_SHOWN])}." if known else "No non-test photograph has a fold."
        message = (
            f"The manifest {show_path(manifest)} has no fold {fold}. {found} To write the column fold: "
            "python -m bldml split … --folds 5. For the splits.csv of a run, set --data.fold null."
        )
        raise DatasetError(message, "fold-unknown", path=manifest, found=fold, known=known)
    without = [s.name for s in rest if s.name not in collection.folds]
    if without:
        have = "has" if len(without) == 1 else "have"
        message = (
            f"{counted(len(without), 'non-test photograph')} in the manifest {show_path(manifest)} {have} no fold: "
            f"{', '.join(without[:5])}{', …' if len(without) > 5 else ''}. Fill the column fold."
        )
        raise DatasetError(message, "fold-incomplete", path=manifest, found=without)
    rest.sort(key=lambda sample: sample.name)  # so that the order does not depend on the column split
    splits: dict[str, Sequence[Sample]] = {
        "train": Samples(collection.root, (s for s in rest if collection.folds[s.name] != str(fold))),
        "val": Samples(collection.root, (s for s in rest if collection.folds[s.name] == str(fold))),
    }
    if "test" in collection.splits:
        splits["test"] = collection.splits["test"]
    return replace(collection, splits=splits, folds={})


def check_unchanged(collection: Collection, digests: Iterable[str]) -> None:
    """Raise DatasetError if photographs have changed since the manifest's column sha256 was written.

    `digests` are those of the present files, split after split.
    """
    changed = [
        sample.name
        for sample, digest in zip(collection.samples(), digests, strict=True)
        if (asked := collection.digests.get(sample.name)) and digest != asked
    ]
    if changed:
        count = sum(map(len, collection.splits.values()))
        have = "has" if len(changed) == 1 else "have"
        raise DatasetError(
            f"{len(changed)} of {count} photographs {have} changed since the manifest was written (SHA-256 differs "
            f"from the column sha256):\n  {list_rows([*map(show_path, changed)])}\nRestore the files. If the new ones "
            "are correct, run python -m bldml split again with the same --output: it keeps the split assignments.",
            "photographs-changed-since-split",
            found=changed,
        )


def unlisted(collection: Collection) -> list[Path]:
    """Return photographs below a manifest's root that are not in it, such as photographs added later."""
    (found,) = search_folders(collection.root, [collection.root])
    listed = {os.path.realpath(sample.path) for sample in collection.samples()}
    return [path for path in found.photographs if os.path.realpath(path) not in listed]


def to_manifest(collection: Collection) -> str:
    """Return a collection's manifest as text; paths start from the collection's root."""
    extra = {"fold": collection.folds, "sha256": collection.digests}
    extra = {column: cells for column, cells in extra.items() if cells}
    rows = (
        (s.name, s.class_name, split, s.group, *(column.get(s.name, "") for column in extra.values()))
        for split, samples in collection.splits.items()
        for s in samples
    )
    return manifest_text((*COLUMNS, "group", *extra), rows)


def manifest_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a manifest whose first column is the path.

    A path is written as it is, see `files.escape_path`. Other cells that a spreadsheet would run as a formula get a
    leading apostrophe (OWASP, "CSV injection"), which `read_manifest` removes from labels and groups.

    >>> manifest_text(("path", "label"), [("-1.jpg", "=1")])
    "path,label\n-1.jpg,'=1\n"
    """
    return to_csv([header, *([path, *map(with_apostrophe, others)] for path, *others in rows)])
