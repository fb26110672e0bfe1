"""Read photographs once and find those that must stay together: groups, bursts, duplicates, parts of one photograph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bldml.dataset.duplicates.bursts import burst_evidence, burst_groups
from bldml.dataset.duplicates.find import Duplicates, find_duplicates
from bldml.dataset.duplicates.names import Beginnings, find_sources
from bldml.dataset.duplicates.phash import NO_PHASH, PHASH_BYTES, PHashes, find_near_duplicates
from bldml.dataset.files import show_path
from bldml.dataset.formats.interruption import describe_interruption
from bldml.dataset.samples import Sample
from bldml.dataset.splitting.groups import Join, Link, find_links, join_groups
from bldml.dataset.verify import Verified, verify
from bldml.errors import DatasetError
from bldml.io.system import processors
from bldml.io.text import counted

PHASH_SIZE = 128  # pixels; a perceptual hash needs no more detail than an image of this size has


@dataclass(frozen=True)
class Together:
    """What reading all photographs showed about which of them must stay together.

    Attributes:
        samples: The photographs with the groups that must not be divided, in the given order.
        digests: SHA-256 of the files that can be read, by name.
        unreadable: What is known of the others.
        duplicates: Equal and near duplicates.
        links, joins: Why photographs stay together, and which groups were joined for that.
        beginnings: Numbered names that may be those of parts of one photograph; empty if there are none.
        notes: What the bursts follow from; empty if they were not looked for.
    """

    samples: tuple[Sample, ...]
    digests: dict[str, str]
    unreadable: tuple[Verified, ...]
    duplicates: Duplicates
    links: tuple[Link, ...]
    joins: tuple[Join, ...]
    beginnings: Beginnings | None
    notes: tuple[str, ...]


def find_together(root: Path, samples: Sequence[Sample], own: Sequence[str], gap_seconds: float) -> Together:
    """Read all photographs and join the user's groups wherever two photographs must not be separated.

    Args:
        root: Folder of the photographs; for messages.
        samples: The photographs.
        own: The user's group of each; empty for none.
        gap_seconds: Maximum gap (s) between photographs of one burst; 0 looks for no bursts.

    Raises:
        DatasetError: None of them can be read.
    """
    names = [sample.name for sample in samples]
    results, phashes = _read(samples)
    digests = {result.sample.name: result.digest for result in results if result.digest}
    if not digests:
        message = f"None of the {counted(len(samples), 'photograph')} in {show_path(root)} can be read."
        message = f"{message} {describe_interruption(sample.path for sample in samples)}".rstrip()
        raise DatasetError(message, "photographs-all-unreadable", path=root, found=len(samples))
    classes, sha256 = [sample.class_name for sample in samples], [result.digest for result in results]
    duplicates = find_duplicates(names, classes, sha256, find_near_duplicates(phashes))
    bursts, notes = list[str](), list[str]()
    if gap_seconds > 0:
        metadata = [result.metadata for result in results]
        bursts = burst_groups(names, metadata, gap_seconds)
        notes.append(burst_evidence(names, metadata, bursts).sentence())
    sources = find_sources(names)
    links = find_links(duplicates, sources.groups, bursts)
    groups, joins = join_groups(names, own, links)
    return Together(
        tuple(replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)),
        digests,
        tuple(result for result in results if result.reason),
        *(duplicates, tuple(links), tuple(joins), sources.beginnings, tuple(notes)),
    )


def _read(samples: Sequence[Sample]) -> tuple[list[Verified], PHashes]:
    """Return the results without their perceptual hashes, and these in one array, which takes a third of the memory."""
    results, phashes = [], np.zeros((len(samples), PHASH_BYTES), np.uint8)
    read = verify(samples, PHASH_SIZE, processors())
    progress = tqdm(read, total=len(samples), desc="Reading photographs", unit="photo", leave=False, disable=None)
    for i, result in enumerate(progress):
        phashes[i] = result.phash
        results.append(replace(result, phash=NO_PHASH))
    return results, phashes
