"""The command `split`: write a manifest that assigns photographs to splits and folds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bldml.dataset.duplicates.bursts import burst_evidence, burst_groups
from bldml.dataset.duplicates.find import find_duplicates
from bldml.dataset.duplicates.phash import PHASH_BYTES, PHashes
from bldml.dataset.files import show_path, subfolders
from bldml.dataset.folders import read_folders
from bldml.dataset.manifest import to_manifest
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import SPLITS, Sample, no_photographs
from bldml.dataset.splitting.groups import burst_links, content_links, folder_groups, join_groups, table_groups
from bldml.dataset.splitting.messages import (
    describe_division,
    describe_folders,
    describe_kept,
    describe_left_out,
    describe_next,
    describe_together,
    describe_two_classes,
    some,
)
from bldml.dataset.splitting.previous import keep_assignments, read_previous, resolve_folds
from bldml.dataset.splitting.splits import SplitRequest, divide_samples
from bldml.dataset.verify import Verified, verify
from bldml.errors import DatasetError, UsageError
from bldml.io.atomic import write_atomically
from bldml.io.system import processors
from bldml.io.text import counted

PHASH_SIZE = 128  # pixels; a perceptual hash needs no more detail than an image of this size has


@dataclass(frozen=True)
class _Contents:
    """What was read from the files, in the order of the samples; the digest of an unreadable file is empty."""

    digests: list[str]
    phashes: PHashes
    metadata: list[Metadata | None]
    unreadable: list[tuple[str, str]]


def split_photographs(
    root: Path,
    output: Path,
    request: SplitRequest,
    *,
    group: str = "burst",
    gap_seconds: float = 10.0,
    class_aliases: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> str:
    """Assign the photographs in a folder to splits and write the manifest.

    Args:
        root: Data folder with class folders, or with split folders, whose assignment is ignored.
        output: Manifest to write; existing assignments in this file are kept.
        request: Requested splits and folds.
        group: `burst`, `folder`, `folder:N`, `none` or the path of a table of groups.
        gap_seconds: Maximum gap between photographs of one burst, in seconds; 0 turns burst detection off.
        class_aliases: Class name for a folder's name, where they differ.
        fresh: Ignore existing assignments.

    Returns:
        Text to print.

    Raises:
        DatasetError, RunError: The request cannot be met or the manifest cannot be written; no file was changed.
    """
    if not output.absolute().parent.is_dir():
        message = f"The folder {show_path(output.absolute().parent)} for --output does not exist. Create it first."
        raise UsageError(message, "output-folder-missing", path=output.absolute().parent)
    previous = read_previous(output, fresh)
    requested, request = request, request.with_folds(resolve_folds(previous, request.folds))
    found = read_folders(root, aliases=class_aliases)
    samples = sorted((s for split in found.splits.values() for s in split), key=lambda s: s.name)
    if not samples:
        raise DatasetError(no_photographs(found), "photographs-none", path=root)
    names = [sample.name for sample in samples]
    own, notes = _own_groups(group, names, root, gap_seconds)
    if request.folds != requested.folds:
        notes.append(f"The {request.folds} folds in {show_path(output)} are kept (--fresh starts over).")
    contents = _read(samples)
    if not any(contents.digests):
        message = f"None of the {counted(len(samples), 'photograph')} in {show_path(root)} can be read."
        raise DatasetError(message, "photographs-all-unreadable", path=root, found=len(samples))
    digests = {name: digest for name, digest in zip(names, contents.digests, strict=True) if digest}
    kept = keep_assignments(previous, samples, digests, output) if previous else None
    duplicates = find_duplicates(names, [s.class_name for s in samples], contents.digests, contents.phashes)
    links = content_links(duplicates)
    if group != "none" and gap_seconds > 0:
        bursts = burst_groups(names, contents.metadata, gap_seconds)
        links += burst_links(bursts)
        notes.append(burst_evidence(names, contents.metadata, bursts).sentence())
    groups, joins = join_groups(names, own, links)
    samples = [replace(sample, group=g) for sample, g in zip(samples, groups, strict=True)]
    division = divide_samples(root, samples, digests, request, kept, joins)
    write_atomically(output, to_manifest(division))
    lines = describe_left_out(found, contents.unreadable) + describe_two_classes(duplicates, names) + notes
    lines += describe_together(links, joins) + describe_kept(kept, len(samples)) + describe_division(division, request)
    return "\n".join(lines + describe_next(division, output, request, bool(contents.unreadable))) + "\n"


def _own_groups(group: str, names: Sequence[str], root: Path, gap_seconds: float) -> tuple[list[str], list[str]]:
    """Return the user's group of each photograph, and text about the groups."""
    if not gap_seconds >= 0:
        message = f"--gap_seconds must be at least 0, not {gap_seconds:g}; 0 turns burst detection off."
        raise UsageError(message, "gap-negative", found=gap_seconds, expected=0)
    off = "--group none" if group == "none" else "--gap_seconds 0" if gap_seconds == 0 else ""
    notes = [f"Burst detection is off ({off})."] if off else []

    kind, _, level = group.partition(":")
    if kind == "folder":
        if level and (not level.isdecimal() or int(level) < 1):
            message = f"--group {group} is invalid. Write the number of folder levels, such as folder:1."
            raise UsageError(message, "group-level-wrong", found=group)
        has_splits = bool({folder.name for folder in subfolders(root)} & set(SPLITS))
        depth = 2 if has_splits else 1
        groups = folder_groups(names, depth, int(level) if level else None)
        return groups, [*describe_folders(names, groups, depth), *notes]
    if group in ("burst", "none"):
        return [""] * len(names), notes
    if not Path(group).expanduser().is_file():
        message = f"--group must be burst, folder, none or an existing CSV file, not {show_path(group)!r}."
        raise UsageError(message, "group-unknown", found=group)
    groups, unknown = table_groups(Path(group).expanduser(), names)
    if not unknown:
        return groups, notes
    verb = "is" if len(unknown) == 1 else "are"
    count = counted(len(unknown), "photograph")
    return groups, [f"{count} in {show_path(group)} {verb} not in {show_path(root)}: {some(unknown)}.", *notes]


def _read(samples: Sequence[Sample]) -> _Contents:
    """Read every photograph once."""
    contents = _Contents([], np.zeros((len(samples), PHASH_BYTES), np.uint8), [], [])
    progress: Callable[..., Iterable[Any]] = tqdm
    results: Iterable[Verified] = progress(
        verify(samples, PHASH_SIZE, processors()),
        total=len(samples), desc="Reading photographs", unit="photo", leave=False, disable=None,
    )  # fmt: skip
    for i, result in enumerate(results):
        contents.digests.append(result.digest)
        contents.metadata.append(result.metadata)
        if result.reason:
            contents.unreadable.append((result.sample.name, result.reason))
        else:
            contents.phashes[i] = result.phash
    return contents
