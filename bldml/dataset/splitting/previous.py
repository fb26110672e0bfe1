"""Read the manifest of a previous `split` and keep its split assignments."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.dataset.files import shell_word, show_path
from bldml.dataset.samples import SPLITS, Sample, class_name
from bldml.dataset.tables.reading import read_rows
from bldml.errors import DatasetError
from bldml.io.text import counted, without_apostrophe

COLUMNS = ("path", "label", "split", "group", "sha256")


@dataclass(frozen=True)
class Assignment:
    """The split assignment of a photograph in the previous manifest."""

    name: str  # path in the manifest
    split: str  # assigned split
    fold: str = ""  # number of the assigned fold as text; empty for none
    digest: str = ""  # SHA-256 of the file at that time; empty if it could not be read
    label: str = ""  # class at that time; empty if unknown


@dataclass(frozen=True)
class KeptAssignments:
    """Previous assignments matched to the photographs that exist now."""

    assignments: Mapping[str, Assignment]  # by the photograph's present name; new photographs are not in it
    changed: tuple[str, ...] = ()  # names of photographs whose content has changed
    renamed: int = 0  # number of photographs recognised by their content under a new name while the old name is missing
    missing: int = 0  # number of previous photographs that no longer exist
    copies: int = 0  # number of new photographs with the content of a previous one that still exists
    relabelled: tuple[tuple[str, str, str], ...] = ()  # name, previous and present label where it has changed


def read_previous(manifest: Path, fresh: bool = False) -> list[Assignment]:
    """Read the assignments of a previous manifest; empty if there is none.

    If `fresh`, only check that `split` wrote the file, so that it may be replaced, and return no assignments. A file
    that `split` did not write, or that is damaged, is a DatasetError.
    """
    try:
        with manifest.open("rb") as file:
            first = file.readline().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"The file {show_path(manifest)} cannot be read: {error.strerror}. Choose another --output."
        if manifest.is_dir():
            message = f"--output is a file of split, and {show_path(manifest)} is a folder. "
            message += f"Type --output {shell_word(manifest / 'splits.csv')}."
        raise DatasetError(message, "previous-unreadable", path=manifest, reason=error.strerror) from error
    columns = [column.strip().strip('"') for column in first.split(",")]
    if [column for column in columns if column != "fold"] != list(COLUMNS):
        message = (
            f"{show_path(manifest)} exists and was not written by bldml split (its first line is not "
            f"{','.join(COLUMNS)}). It was not changed. Choose another --output."
        )
        raise DatasetError(message, "previous-foreign", path=manifest, expected=[*COLUMNS])
    if fresh:
        return []
    assignments = []
    existing, remedy = f"The existing manifest {show_path(manifest)}", "Correct the row, or start over with --fresh."
    for number, cells, _ in read_rows(manifest, COLUMNS, ("fold",)):
        row = {column: cell.strip() for column, cell in cells.items()}
        split, fold = row["split"], row.get("fold", "")
        if split not in SPLITS:
            message = f"{existing} has the unknown split {split!r} in row {number} (use {', '.join(SPLITS)}). {remedy}"
            raise DatasetError(message, "previous-split-unknown", path=manifest, row=number, found=split)
        if fold and not (fold.isascii() and fold.isdecimal()):
            message = f"{existing} has the fold {fold!r} in row {number}; it must be a number. {remedy}"
            raise DatasetError(message, "previous-fold-no-number", path=manifest, row=number, found=fold)
        label = class_name(without_apostrophe(row["label"]))
        assignments.append(Assignment(row["path"], split, fold, row["sha256"].lower(), label))
    return assignments


def keep_assignments(
    previous: Sequence[Assignment], samples: Sequence[Sample], digests: Mapping[str, str], manifest: Path
) -> KeptAssignments:
    """Find the previous assignment of each photograph: by its content, so that it may be renamed, otherwise by name.

    `digests` holds the SHA-256 of the photographs' files, by name. A manifest of which no photograph exists, or most
    photographs of the same name have other content, belongs to other photographs, which is a DatasetError.
    """
    by_name = {assignment.name: assignment for assignment in previous}
    present = {sample.name for sample in samples}
    by_digest: dict[str, list[Assignment]] = defaultdict(list)
    for assignment in previous:
        if assignment.digest:
            by_digest[assignment.digest].append(assignment)
    # Assignments whose names are missing: a photograph of another name with this content is a renamed one.
    missing = {digest: [a for a in same if a.name not in present] for digest, same in by_digest.items()}
    kept: dict[str, Assignment] = {}
    changed: list[str] = []
    renamed, copies, comparable = 0, 0, 0
    for sample in samples:
        digest, own = digests.get(sample.name, ""), by_name.get(sample.name)
        same = by_digest.get(digest, [])
        if own is None:
            if missing.get(digest):
                kept[sample.name] = missing[digest].pop(0)
                renamed += 1
            else:
                copies += bool(same)
            continue
        comparable += bool(digest and own.digest)
        is_swapped = bool(same) and own.digest != digest
        kept[sample.name] = same[0] if is_swapped else own
        if not same and digest and own.digest:
            changed.append(sample.name)
    _check_same(len(previous), len(kept), changed, comparable, manifest)
    used = {assignment.name for assignment in kept.values()}
    labels = [(s.name, kept[s.name].label, s.class_name) for s in samples if s.name in kept]
    relabelled = tuple((name, then, now) for name, then, now in labels if then and then != now)
    return KeptAssignments(kept, tuple(changed), renamed, len(by_name.keys() - used), copies, relabelled)


def _check_same(count: int, kept: int, changed: Sequence[str], comparable: int, manifest: Path) -> None:
    """Check that the previous manifest, of `count` photographs, is of the present ones."""
    way_out = "Choose another --output, or start over with --fresh."
    if count and not kept:
        raise DatasetError(
            f"{show_path(manifest)} lists {counted(count, 'photograph')}; none is in this data folder. The manifest "
            f"belongs to other photographs. {way_out}",
            "previous-of-other-data",
            path=manifest,
        )
    # Cameras restart their numbering, so another data set may have the same names.
    if 2 * len(changed) > comparable:
        have = "has" if len(changed) == 1 else "have"
        names = ", ".join(map(show_path, changed[:3])) + (", …" if len(changed) > 3 else "")
        message = (
            f"{len(changed)} of {counted(comparable, 'photograph')} with a name in {show_path(manifest)} {have} other "
            f"content ({names}). The manifest may belong to another dataset with the same names. {way_out}"
        )
        raise DatasetError(message, "previous-changed", path=manifest, found=changed)
