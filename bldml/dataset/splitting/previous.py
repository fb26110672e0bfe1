"""Read the manifest of a previous `split` and keep its split assignments."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.dataset.manifest import read_rows
from bldml.dataset.samples import SPLITS, Sample, class_name
from bldml.errors import DatasetError
from bldml.io.text import counted, without_apostrophe

COLUMNS = ("path", "label", "split", "group", "sha256")
FOLD = "fold"


@dataclass(frozen=True)
class Assignment:
    """The split assignment of a photograph in the previous manifest.

    Attributes:
        name: Path in the manifest.
        split: Assigned split.
        fold: Number of the assigned fold as text; empty for none.
        digest: SHA-256 of the file at that time; empty if it could not be read.
        label: Class at that time; empty if unknown.
    """

    name: str
    split: str
    fold: str = ""
    digest: str = ""
    label: str = ""


@dataclass(frozen=True)
class KeptAssignments:
    """Previous assignments matched to the photographs that exist now.

    Attributes:
        assignments: Previous assignment by the photograph's present name; new photographs are not in it.
        changed: Names of photographs whose content has changed.
        renamed: Number of photographs recognised by their content under a new name while the old name is missing.
        missing: Number of previous photographs that no longer exist.
        copies: Number of new photographs with the content of a previous one that still exists.
        relabelled: Name, previous label and present label of photographs whose label has changed.
    """

    assignments: Mapping[str, Assignment]
    changed: tuple[str, ...] = ()
    renamed: int = 0
    missing: int = 0
    copies: int = 0
    relabelled: tuple[tuple[str, str, str], ...] = ()


def read_previous(manifest: Path, fresh: bool = False) -> list[Assignment]:
    """Read the assignments of a previous manifest; empty if there is none.

    Args:
        manifest: Path of the manifest.
        fresh: Only check that `split` wrote the file, so that it may be replaced; return no assignments.

    Raises:
        DatasetError: There is a file, but `split` did not write it, or it is damaged.
    """
    try:
        with manifest.open("rb") as file:
            first = file.readline().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"The file {show_path(manifest)} cannot be read: {error.strerror}."
        raise DatasetError(message, "previous-unreadable", path=manifest, reason=error.strerror) from error
    columns = [column.strip().strip('"') for column in first.split(",")]
    if [column for column in columns if column != FOLD] != list(COLUMNS):
        raise DatasetError(
            f"{show_path(manifest)} exists and was not written by bldml split (its first line is not "
            f"{','.join(COLUMNS)}). It was not changed. Choose another --output.",
            "previous-foreign",
            path=manifest,
            expected=[*COLUMNS],
        )
    if fresh:
        return []
    assignments = []
    for number, cells, _ in read_rows(manifest, COLUMNS, (FOLD,)):
        row = {column: cell.strip() for column, cell in cells.items()}
        if row["split"] not in SPLITS:
            raise DatasetError(
                f"The existing manifest {show_path(manifest)} has the unknown split {row['split']!r} in row {number} "
                f"(use {', '.join(SPLITS)}). Correct the row, or start over with --fresh.",
                "previous-split-unknown",
                path=manifest,
                row=number,
                found=row["split"],
            )
        fold = row.get(FOLD, "")
        if fold and not (fold.isascii() and fold.isdecimal()):
            raise DatasetError(
                f"The existing manifest {show_path(manifest)} has the fold {fold!r} in row {number}; it must be a "
                "number. Correct the row, or start over with --fresh.",
                "previous-fold-no-number",
                path=manifest,
                row=number,
                found=fold,
            )
        label = class_name(without_apostrophe(row["label"]))
        assignments.append(Assignment(row["path"], row["split"], fold, row["sha256"].lower(), label))
    return assignments


def keep_assignments(
    previous: Sequence[Assignment], samples: Sequence[Sample], digests: Mapping[str, str], manifest: Path
) -> KeptAssignments:
    """Find the previous assignment of each photograph: by its content, so that it may be renamed, otherwise by name.

    Args:
        previous: Assignments in the previous manifest.
        samples: Photographs that exist now.
        digests: SHA-256 of their files, by name.
        manifest: Path of the previous manifest, for messages.

    Raises:
        DatasetError: None of the previous photographs exists, or most have other content under the same names.
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
        same = by_digest.get(digest, []) if digest else []
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
    _check_same(previous, kept, changed, comparable, manifest)
    used = {assignment.name for assignment in kept.values()}
    labels = [(s.name, kept[s.name].label, s.class_name) for s in samples if s.name in kept]
    relabelled = tuple((name, then, now) for name, then, now in labels if then and then != now)
    return KeptAssignments(kept, tuple(changed), renamed, len(by_name.keys() - used), copies, relabelled)


def _check_same(
    previous: Sequence[Assignment],
    kept: Mapping[str, Assignment],
    changed: Sequence[str],
    comparable: int,
    manifest: Path,
) -> None:
    """Check that the previous manifest is of these photographs."""
    way_out = "Choose another --output, or start over with --fresh."
    if previous and not kept:
        raise DatasetError(
            f"{show_path(manifest)} lists {counted(len(previous), 'photograph')}; none is in this data folder. The "
            f"manifest belongs to other photographs. {way_out}",
            "previous-of-other-data",
            path=manifest,
        )
    # Cameras restart their numbering, so another data set may have the same names.
    if 2 * len(changed) > comparable:
        have = "has" if len(changed) == 1 else "have"
        names = ", ".join(map(show_path, changed[:3])) + (", …" if len(changed) > 3 else "")
        raise DatasetError(
            f"{len(changed)} of {counted(comparable, 'photograph')} with a name in {show_path(manifest)} {have} other "
            f"content ({names}). The manifest may belong to another dataset with the same names. {way_out}",
            "previous-changed",
            path=manifest,
            found=changed,
        )


def resolve_folds(previous: Sequence[Assignment], folds: int | None) -> int | None:
    """Return the number of folds: that of the previous manifest if it has folds, otherwise the requested number.

    Args:
        previous: Assignments in the previous manifest.
        folds: Requested number; None to use that of the previous manifest.

    Raises:
        DatasetError: The requested number differs from that of the previous manifest.

    >>> (
    ...     resolve_folds([Assignment("a", "train", "2"), Assignment("b", "test")], None),
    ...     resolve_folds([Assignment("a", "train")], 5),
    ... )
    (3, 5)
    """
    found = max((int(assignment.fold) + 1 for assignment in previous if assignment.fold), default=None)

    if found is None or folds in (None, found):
        return found or folds
    raise DatasetError(
        f"The existing manifest has {found} folds, --folds is {folds}. Omit --folds, choose another --output, or start "
        "over with --fresh.",
        "folds-differ",
        found=folds,
        expected=found,
    )
