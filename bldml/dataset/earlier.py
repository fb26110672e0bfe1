"""The division that an earlier `split` wrote: its photographs keep their places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.dataset.files import DatasetError, show_path
from bldml.dataset.manifest import read_rows
from bldml.dataset.samples import SPLITS, Sample

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
    """

    name: str
    split: str
    fold: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Kept:
    """An earlier division laid on the photographs that there are now.

    Attributes:
        places: Of each photograph, by name; new ones are missing.
        changed: Names of those whose content is another now.
        moved: How many were found by their content under another name.
        gone: How many of the earlier ones are there no more.
    """

    places: Mapping[str, Place]
    changed: tuple[str, ...] = ()
    moved: int = 0
    gone: int = 0


def read_earlier(manifest: Path) -> list[Place]:
    """Read what an earlier `split` wrote; nothing where there is no such file.

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
    places = []
    for number, cells, _ in read_rows(manifest, COLUMNS, (FOLD,)):
        row = {column: cell.strip() for column, cell in cells.items()}
        if row["split"] not in SPLITS:
            raise DatasetError(
                f"The manifest {show_path(manifest)}, which is there already, has the unknown split {row['split']!r} "
                f"in row {number} (known: {', '.join(SPLITS)}). Correct it, or start over with --fresh."
            )
        places.append(Place(row["path"], row["split"], row.get(FOLD, ""), row["sha256"].lower()))
    return places


def keep(places: Sequence[Place], samples: Sequence[Sample], digests: Mapping[str, str], manifest: Path) -> Kept:
    """Find the earlier place of each photograph: by its content, so that a new name changes nothing, else by its name.

    Args:
        places: The earlier division.
        samples: The photographs now.
        digests: SHA-256 of their contents, by name.
        manifest: The file of the earlier division, for the message.

    Raises:
        DatasetError: Not one of the earlier photographs is there: these are others.
    """
    by_name = {place.name: place for place in places}
    by_digest: dict[str, Place] = {}
    for place in places:
        if place.digest:
            by_digest.setdefault(place.digest, place)
    found: dict[str, Place] = {}
    changed: list[str] = []
    moved = 0
    for sample in samples:
        digest, own = digests.get(sample.name, ""), by_name.get(sample.name)
        same = by_digest.get(digest) if digest else None
        if own is not None and (same is None or own.digest == digest):
            found[sample.name] = own
            if digest and own.digest and own.digest != digest:
                changed.append(sample.name)
        elif same is not None:
            found[sample.name] = same
            moved += own is None
    if places and not found:
        raise DatasetError(
            f"Not one of the {len(places)} photographs in {show_path(manifest)} is here: it divides others, perhaps "
            "from another folder. Give another --output, or start over with --fresh."
        )
    used = {place.name for place in found.values()}
    return Kept(found, tuple(changed), moved, len(by_name.keys() - used))


def check_folds(kept: Kept, folds: int | None) -> None:
    """Check that as many folds are asked for as the earlier division has.

    Raises:
        DatasetError: It has others.
    """
    found = {place.fold for place in kept.places.values() if place.fold}
    if not found:
        return
    if folds is None or not found <= {str(k) for k in range(folds)}:
        raise DatasetError(
            f"The earlier division has the folds {', '.join(sorted(found, key=lambda f: (len(f), f)))}; asked for are "
            f"{folds or 'none'}. Ask for as many again, give another --output, or start over with --fresh."
        )
