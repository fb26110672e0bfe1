"""Decode every photograph once before training, so that damaged files are found before the first epoch."""

import stat
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

from bldml.dataset.border import measure_border
from bldml.dataset.cache.writer import ImageCache
from bldml.dataset.duplicates.phash import NO_PHASH, PHash, perceptual_hash
from bldml.dataset.formats.interruption import blame_machine
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.metadata import Metadata, read_metadata
from bldml.dataset.samples import Sample
from bldml.dataset.unchanged import load_unchanged
from bldml.io.safe_points import safe_point
from bldml.io.system import sha256_of


@dataclass(frozen=True, slots=True)
class Verified:
    """Result for one photograph, decoded now or when it was cached."""

    sample: Sample
    digest: str = ""  # SHA-256 of the file; empty if it could not be read
    reason: str = ""  # why the photograph cannot be used; empty if it can
    metadata: Metadata | None = None  # metadata of the file; None if it could not be read
    phash: PHash = field(default_factory=lambda: NO_PHASH, compare=False, repr=False)


def verify(
    samples: Iterable[Sample], target_size: int, workers: int, cache: ImageCache | None = None
) -> Generator[Verified]:
    """Decode photographs as training will, without keeping the pixels in memory; yield one result per photograph.

    Args:
        samples: Photographs to decode; the order of the results is theirs.
        target_size: Side in pixels that training needs; determines the scale at which a JPEG is decoded. Border and
            perceptual hash are measured at this scale in all splits, so that they are comparable.
        workers: Number of threads; PIL decodes without the interpreter lock.
        cache: Cache of decoded photographs; cached ones are only read for their SHA-256, the others are added.

    Raises:
        MachineError: The photographs are gone, or cannot be reached any more.
    """
    iterator = iter(samples)
    with ThreadPoolExecutor(workers) as pool:
        # In chunks, because a map over 100,000 photographs would queue them all at once.
        while chunk := list(islice(iterator, 32 * workers)):
            for result in pool.map(lambda sample: _verify_one(sample, target_size, cache), chunk):
                safe_point()
                yield result


def _verify_one(sample: Sample, target_size: int, cache: ImageCache | None) -> Verified:
    try:
        digest = ""
        with suppress(OSError):  # load_rgb says what is wrong
            if cache is not None and stat.S_ISREG(sample.path.stat().st_mode):  # a pipe would never end
                digest = sha256_of(sample.path)
                if (known := cache.find(digest)) is not None:
                    metadata, phash = known
                    return Verified(sample, digest, metadata=metadata, phash=phash)
        if digest:
            photograph = load_unchanged(sample.path, digest, target_size)
        else:
            photograph = load_rgb(sample.path, target_size)
            digest = sha256_of(sample.path)
        metadata, phash = read_metadata(sample.path), perceptual_hash(photograph)
        metadata = metadata and replace(metadata, border=measure_border(photograph))
        if cache is not None:
            cache.add(sample, digest, photograph, metadata, phash)
        return Verified(sample, digest, metadata=metadata, phash=phash)
    except UnreadableImage as error:
        blame_machine(sample.path, error.__cause__)
        return Verified(sample, reason=error.reason)
    except OSError as error:
        blame_machine(sample.path, error)
        return Verified(sample, reason=error.strerror or str(error))
