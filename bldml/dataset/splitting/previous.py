"""The division that an earlier `split` wrote: its photographs keep their places."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.dataset.manifest import read_rows
from bldml.dataset.samples import SPLITS, Sample, class_name
from bldml.errors import DatasetError
from bldml.io.csvfile import without_apostrophe
from bldml.io.text import counted

COLUMNS = ("path", "label", "split", "group", "sha256")
FOLD = "fold"


@dataclass(frozen=True)
class Place:
    """Where a photograph was put.

    Attributes:
        name: Its path in the manifest.
        split: Its split.
        fold: Number of its fold as text; empty for none.
        digest: SHA-256 of its content then; empty where it could not be read.
        label: Its class then; empty where that is not known.
    """

    name: str
    split: str
    fold: str = ""
    digest: str = ""
    label: str = ""


@dataclass(frozen=True)
class Kept:
    """An earlier division laid on the photographs that there are now.

    Attributes:
        places: Of each photograph, by name; new ones are missing.
        changed: Names of those whose content is another now.
        moved: How many were found by their content under another name, while the old name is gone.
        gone: How many of the earlier ones are there no more.
        copies: How many of the new ones have the content of an old one that is still there.
        relabelled: Name, label then and label now of those whose label is another.
    """

    places: Mapping[str, Place]
    changed: tuple[str, ...] = ()
    moved: int = 0
    gone: int = 0
    copies: int = 0
    relabelled: tuple[tuple[str, str, str], ...] = ()


def read_earlier(manifest: Path, fresh: bool = False) -> list[Place]:
    """Read what an earlier `split` wrote; nothing where there is no such file.

    Args:
        manifest: The file.
        fresh: Only make sure that it is such a file, so that it may be replaced.

    Raises:
        DatasetError: There is a file, but `split` did not write it, or it has been damaged since.
    """
    try:
        with manifest.open("rb") as file:
            first = file.readline().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatasetError(f"The file {show_path(manifest)} cannot be read: {error.strerror}.") from error
    columns = [column.strip().strip('"') for column in first.split(",")]
    if [column for column in columns if column != FOLD] != list(COLUMNS):
        raise DatasetError(
            f"{show_path(manifest)} is there already and is no manifest that bldml split wrote: its first line is not "
            f"{','.join(COLUMNS)}. It stays as it is: give another --output."
        )
    if fresh:
        return []
    places = []
    for number, cells, _ in read_rows(manifest, COLUMNS, (FOLD,)):
        row = {column: cell.strip() for column, cell in cells.items()}
        if row["split"] not in SPLITS:
            raise DatasetError(
                f"The manifest {show_path(manifest)}, which is there already, has the unknown split {row['split']!r} "
                f"in row {number} (known: {', '.join(SPLITS)}). Correct it, or start over with --fresh."
            )
        fold = row.get(FOLD, "")
        if fold and not (fold.isascii() and fold.isdecimal()):
            raise DatasetError(
                f"The manifest {show_path(manifest)}, which is there already, has the fold {fold!r} in row {number}, "
                "which is no number. Correct it, or start over with --fresh."
            )
        label = class_name(without_apostrophe(row["label"]))
        places.append(Place(row["path"], row["split"], fold, row["sha256"].lower(), label))
    return places


def keep(places: Sequence[Place], samples: Sequence[Sample], digests: Mapping[str, str], manifest: Path) -> Kept:
    """Find the earlier place of each photograph: by its content, so that a new name changes nothing, else by its name.

    Args:
        places: The earlier division.
        samples: The photographs now.
        digests: SHA-256 of their contents, by name.
        manifest: The file of the earlier division, for the message.

    Raises:
        DatasetError: Not one of the earlier photographs is there, or most are others under the same names.
    """
    by_name = {place.name: place for place in places}
    here = {sample.name for sample in samples}
    by_digest: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        if place.digest:
            by_digest[place.digest].append(place)
    # Whose names are gone: a photograph of another name with this content is one of them.
    missing = {digest: [p for p in same if p.name not in here] for digest, same in by_digest.items()}
    found: dict[str, Place] = {}
    changed: list[str] = []
    moved, copies, comparable = 0, 0, 0
    for sample in samples:
        digest, own = digests.get(sample.name, ""), by_name.get(sample.name)
        same = by_digest.get(digest, []) if digest else []
        if own is None:
            if missing.get(digest):
                found[sample.name] = missing[digest].pop(0)
                moved += 1
            else:
                copies += bool(same)
            continue
        comparable += bool(digest and own.digest)
        is_other = bool(same) and own.digest != digest
        found[sample.name] = same[0] if is_other else own
        if not same and digest and own.digest:
            changed.append(sample.name)
    _check_same(places, found, changed, comparable, manifest)
    used = {place.name for place in found.values()}
    labels = [(s.name, found[s.name].label, s.class_name) for s in samples if s.name in found]
    relabelled = tuple((name, then, now) for name, then, now in labels if then and then != now)
    return Kept(found, tuple(changed), moved, len(by_name.keys() - used), copies, relabelled)


def _check_same(
    places: Sequence[Place], found: Mapping[str, Place], changed: Sequence[str], comparable: int, manifest: Path
) -> None:
    """Check that these are the photographs that were divided, and not others."""
    way_out = "Give another --output, or start over with --fresh."
    if places and not found:
        raise DatasetError(
            f"Of {counted(len(places), 'photograph')} in {show_path(manifest)} not one is here: it divides others, "
            f"perhaps from another folder. {way_out}"
        )
    # Cameras number anew, so another data set may well have the same names.
    if 2 * len(changed) > comparable:
        are = "is another" if len(changed) == 1 else "are others"
        names = ", ".join(map(show_path, changed[:3])) + (", …" if len(changed) > 3 else "")
        raise DatasetError(
            f"{len(changed)} of the {counted(comparable, 'photograph')} that {show_path(manifest)} has by name {are} "
            f"now (another content: {names}). Perhaps it divides another data set with the same names. {way_out}"
        )


def agreed_folds(places: Sequence[Place], folds: int | None) -> int | None:
    """The number of folds: that of the earlier division, where it has folds.

    Args:
        places: The earlier division.
        folds: The number asked for; None for whatever there is.

    Raises:
        DatasetError: Another number is asked for.

    >>> agreed_folds([Place("a", "train", "2"), Place("b", "test")], None), agreed_folds([Place("a", "train")], 5)
    (3, 5)
    """
    found = max((int(place.fold) + 1 for place in places if place.fold), default=None)
    if found is None or folds in (None, found):
        return found or folds
    raise DatasetError(
        f"The earlier division has {found} folds; asked for are {folds}. Leave --folds out, give another --output, or "
        "start over with --fresh."
    )
