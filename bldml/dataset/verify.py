"""Decode every photograph once before training, so that a damaged file is found now and not in the night."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.metadata import Metadata, read_metadata
from bldml.dataset.samples import Sample


@dataclass(frozen=True)
class Verified:
    """One photograph, decoded.

    Attributes:
        sample: Which.
        digest: SHA-256 of the file's content; empty where it could not be read.
        reason: Why it cannot be used; empty if it can.
        metadata: What the file says of itself; None where it could not be read.
    """

    sample: Sample
    digest: str = ""
    reason: str = ""
    metadata: Metadata | None = None


def verify(samples: Iterable[Sample], target_size: int, workers: int) -> Iterator[Verified]:
    """Decode photographs as training will, in order, without keeping the pixels.

    Args:
        samples: What to decode.
        target_size: Side in pixels that training asks for; decides the scale at which a JPEG is decoded.
        workers: Number of threads; PIL decodes outside the interpreter lock.

    Yields:
        One result a sample, in the order given.
    """
    iterator = iter(samples)
    with ThreadPoolExecutor(workers) as pool:
        # In portions: a map over 100,000 photographs would queue them all at once.
        while portion := list(islice(iterator, 32 * workers)):
            yield from pool.map(lambda sample: _verify_one(sample, target_size), portion)


def _verify_one(sample: Sample, target_size: int) -> Verified:
    try:
        load_rgb(sample.path, target_size)
        digest = hashlib.sha256(sample.path.read_bytes()).hexdigest()
        return Verified(sample, digest, metadata=read_metadata(sample.path))
    except UnreadableImage as error:
        return Verified(sample, reason=error.reason)
    except OSError as error:
        return Verified(sample, reason=error.strerror or str(error))
