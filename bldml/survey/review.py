"""The command `review`: what a person confirmed on the sheet of a survey, as a manifest for the next training."""

import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bldml.dataset.files import escape_path, escape_text, shell_word, show_path, unescape_path
from bldml.dataset.folders import require_folder
from bldml.dataset.manifest import list_rows, manifest_text
from bldml.dataset.metadata import read_metadata
from bldml.dataset.tables.paths import PathFinder, from_windows
from bldml.dataset.tables.reading import read_rows, remove_table
from bldml.errors import DatasetError, RunError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.locks import SHORTLY_S, hold_output
from bldml.io.screen import say
from bldml.io.system import sha256_of
from bldml.io.text import counted, without_apostrophe
from bldml.run.files import read_json
from bldml.run.folder import RunFolder
from bldml.run.reader import RunData, read_run

COLUMNS = ("path", "label", "split", "group", "source")
SOURCE = "survey, "  # and the name of the table of the review
VERDICTS = ("confirm", "reject", "not a leaf")


@dataclass(frozen=True)
class Reviewed:
    """One photograph with the class that a person saw."""

    path: Path  # absolute
    name: str  # below the folder of the survey
    label: str
    unit: str
    verdict: str

    def is_held_out(self, fraction: float) -> bool:
        """Return whether it is for testing: a function of its unit, else of its name, so that units stay together."""
        key = self.unit or self.name
        return zlib.crc32(f"review {key}".encode("utf-8", "surrogateescape")) / 2**32 < fraction


def review_survey(confirmed: Path, run_folder: Path, photographs: Path, output: Path, test: float) -> None:
    """Write manifest.csv for the next training, and test.csv with reviewed photographs that are kept out of it.

    See `bldml.commands.review`.

    Raises:
        UsageError: The fraction is not in [0, 1).
        DatasetError: The table has errors, or nothing is left of it.
        RunError: The run does not record its photographs, or they are not where they were.
    """
    if not 0 <= test < 1:
        message = f"--test must be a fraction from 0 to below 1, not {test}."
        raise UsageError(message, "review-fraction-wrong", found=test)
    require_folder(photographs)
    data = read_run(RunFolder(run_folder))
    root = photographs_root(data)
    found, left_out = read_reviewed(confirmed, photographs, data.classes.names, of_predictions=True)
    own = list(_own_rows(data, root))
    found, known = _without_known(found, [Path(row[0]) for row in own], root, data)
    if not found:
        message = f"{show_path(confirmed)} has no photograph that is new to the run: {len(left_out)} are not a leaf, "
        message += f"and {known} are photographs of {show_path(run_folder)} already."
        raise DatasetError(message, "review-empty", path=confirmed, found=len(left_out))
    source = f"{SOURCE}{confirmed.name}"
    kept = {split: [one for one in found if one.is_held_out(test) == (split == "test")] for split in ("train", "test")}
    rows = {
        split: [[escape_path(one.path), one.label, split, one.unit, source] for one in of_split]
        for split, of_split in kept.items()
    }
    make_folder(output)
    written = {"manifest.csv": manifest_text(COLUMNS, [*own, *rows["train"]])}
    if rows["test"]:
        written["test.csv"] = manifest_text(COLUMNS, rows["test"])
    with hold_output(output, wait=SHORTLY_S):
        for name, text in written.items():
            write_atomically(output / name, text)
        if "test.csv" not in written:
            _remove_earlier(output / "test.csv")
    _say(data, root, output, kept, len(left_out), known)


def _remove_earlier(table: Path) -> None:
    """Remove the table of an earlier review; one of somebody else stays, and that is said."""
    if not remove_table(table, COLUMNS, lambda rows: all(row["source"].startswith(SOURCE) for row in rows)):
        say(f"{show_path(table)} is not of this review: no photograph was kept out for testing.\n")


def _say(data: RunData, root: Path, output: Path, kept: dict[str, list[Reviewed]], left_out: int, known: int) -> None:
    counts = Counter(one.label for one in kept["train"])
    wrong = sum(one.verdict == "reject" for ones in kept.values() for one in ones)
    total = sum(map(len, kept.values()))
    shown = ", ".join(f"{counts[name]} {name}" for name in data.classes.names)
    fold = " --data.fold null" if data.setting("data", "fold") else ""
    lines = [
        f"{counted(total, 'reviewed photograph')}, {wrong} of them predicted wrongly; left out: {left_out} as not "
        f"a leaf, {known} because the run has them already.",
        f"Added to the training: {len(kept['train'])} ({shown}). Kept out for testing: {len(kept['test'])}.",
        "Train with them:",
        f"  python -m bldml fit --config {shell_word(data.run.config)} --run_name NEW --data.root {shell_word(root)} "
        f"--data.manifest {shell_word(output / 'manifest.csv')}{fold}",
    ]
    if kept["test"]:
        options = f"{shell_word(root)} --manifest {shell_word(output / 'test.csv')} --name survey"
        lines += [
            "Test the old and the new run on what was kept out, then compare them on both sets:",
            f"  python -m bldml test {shell_word(data.run.path)} {options}",
        ]
    say("".join(f"{line}\n" for line in lines))


def photographs_root(data: RunData) -> Path:
    """Return the folder of the run's photographs, as it recorded it.

    Raises:
        RunError: It is not recorded, or not there.
    """
    own = [one for role in ("validation", "test") for one in data.evaluations if one.role == role]
    folders = [read_json(one.folder / "provenance.json").get("root") for one in own]
    root = next((Path(text) for text in folders if isinstance(text, str) and text), None)
    if root is None or not root.is_dir():
        where = "records no folder of its photographs" if root is None else f"had its photographs in {show_path(root)}"
        message = f"The run {data.name} {where}, which is not there. Review on the machine that it was trained on."
        raise RunError(message, "review-photographs-gone", path=data.run.path, found=root)
    return root


def _own_rows(data: RunData, root: Path) -> Iterator[list[str]]:
    for row in data.splits:
        if row["split"] in ("train", "val", "test"):
            label, group = (without_apostrophe(row.get(key) or "") for key in ("label", "group"))
            yield [row["path"], label, row["split"], group, f"run {data.name}"]


def _without_known(found: list[Reviewed], own: list[Path], root: Path, data: RunData) -> tuple[list[Reviewed], int]:
    """Return what is no photograph of the run, by path or content, and how many were."""
    paths = {os.path.realpath(root / unescape_path(os.fspath(path))) for path in own}
    digests = {row.sha256 for row in data.photographs} - {""}
    new = [one for one in found if os.path.realpath(one.path) not in paths and sha256_of(one.path) not in digests]
    return new, len(found) - len(new)


def read_reviewed(
    confirmed: Path, photographs: Path, classes: tuple[str, str], *, of_predictions: bool = False
) -> tuple[list[Reviewed], list[str]]:
    """Return the reviewed photographs, and the names of those that are left out because they show no leaf.

    A path that is written otherwise than its file is read where only one file can be meant, and that is printed.

    Args:
        confirmed: The table, as a page or a spreadsheet saved it.
        photographs: Folder that its paths start from.
        classes: The classes that a label may have.
        of_predictions: Whether predictions were confirmed or rejected, and not labels.

    Raises:
        DatasetError: The table has errors; all of them are listed.
    """
    found: list[Reviewed] = []
    rows_of: dict[str, int] = {}
    problems: list[tuple[int, str, str]] = []
    left_out: list[str] = []
    needed, optional, notes = ("path", "verdict", "label"), ("predicted", "unit"), list[str]()
    rows = list(read_rows(confirmed, needed, optional, noun="table of the review", notes=notes))
    if not rows:
        raise DatasetError(f"{show_path(confirmed)} has no rows below its first one.", "review-no-rows", path=confirmed)
    finder = PathFinder(photographs, lambda: (cells["path"] for _, cells, _ in rows))
    for number, cells, is_too_wide in rows:
        row: dict[str, Any] = {key: without_apostrophe(from_windows(cell.strip())) for key, cell in cells.items()}
        verdict, path = row["verdict"].lower(), finder.find(cells["path"])
        if is_too_wide:
            problems.append((number, "too-many-cells", "more cells than row 1"))
        elif verdict not in VERDICTS:
            problems.append((number, "verdict-unknown", f"unknown verdict {verdict!r} (use {', '.join(VERDICTS)})"))
        elif path is None:
            shown = show_path(cells["path"].strip()) or "(empty path)"
            problems.append((number, "file-missing", f"file {shown} does not exist{finder.hint(cells['path'])}"))
        elif rows_of.setdefault(os.path.realpath(path), number) != number:
            problems.append((number, "file-twice", f"same file as row {rows_of[os.path.realpath(path)]}"))
        elif problem := _wrong_verdict(path, row, classes, of_predictions=of_predictions):
            problems.append((number, *problem))
        else:
            name = escape_path(path.relative_to(photographs) if path.is_relative_to(photographs) else path)
            if verdict == VERDICTS[2]:
                left_out.append(name)
            else:
                unit = escape_text(row.get("unit", ""))
                found.append(Reviewed(path.absolute(), name, row["label"], unit, verdict))
    if problems:
        lines = [f"row {number}: {text}" for number, _, text in problems]
        raise DatasetError(
            f"The table of the review {show_path(confirmed)} has {counted(len(problems), 'error')} (paths are relative "
            f"to {show_path(photographs)}):\n  {list_rows(lines)}\nCorrect these rows.",
            "review-rows-wrong",
            path=confirmed,
            found=[(number, kind) for number, kind, _ in problems],
        )
    notes += [f"The table of the review {show_path(confirmed)}: {note}" for note in finder.notes()]
    say("".join(f"{note}\n" for note in notes))
    return found, left_out


def _wrong_verdict(
    path: Path, row: dict[str, Any], classes: tuple[str, str], *, of_predictions: bool
) -> tuple[str, str] | None:
    """Return kind and text of the first problem of a row whose file exists and whose verdict is known."""
    verdict, label, predicted = row["verdict"].lower(), row["label"], row.get("predicted", "")
    if verdict == VERDICTS[2]:
        return None
    if label not in classes:
        return "class-unknown", f"unknown class {label!r} (use {' or '.join(classes)})"
    if of_predictions and predicted and (verdict == "confirm") != (label == predicted):
        return "verdict-contradicted", f"{verdict} of the prediction {predicted}, but the label {label}"
    if read_metadata(path) is None:
        return "not-photograph", f"file {show_path(path.name)} is no photograph that can be read"
    return None
