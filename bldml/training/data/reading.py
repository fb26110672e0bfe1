"""Read every photograph once before training or an evaluation: check it, collect its data, cache its image."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from bldml.dataset.cache.writer import ImageCache, describe_cache
from bldml.dataset.contents import Contents
from bldml.dataset.files import show_path
from bldml.dataset.samples import Collection, Sample
from bldml.dataset.verify import Verified, verify
from bldml.errors import DatasetError
from bldml.io.system import processors


@dataclass(frozen=True)
class Storage:
    """Settings of the image cache.

    Attributes:
        folders: Folders of the cache, best first; empty without a cache.
        sides: Side of the cached images in pixels, by split, if it differs from the image size.
        write: Whether to add missing images.
    """

    folders: Sequence[Path]
    sides: Mapping[str, int]
    write: bool


@dataclass(frozen=True)
class Reading:
    """Result of reading.

    Attributes:
        collection: Without the photographs that cannot be used.
        contents: Data of their files, split after split.
        excluded: Name and reason of each photograph that cannot be used.
    """

    collection: Collection
    contents: Contents
    excluded: list[tuple[str, str]]


def read_photographs(
    collection: Collection, image_size: int, workers: int, storage: Storage, check: Callable[[], None], *, exclude: bool
) -> Reading:
    """Read all photographs, and decode those that are not cached.

    Args:
        collection: The photographs.
        image_size: Side of the input image in pixels.
        workers: Number of threads.
        storage: Settings of the image cache.
        check: Called after each photograph; may raise an exception to interrupt. Images cached by then stay.
        exclude: Exclude photographs that cannot be decoded, instead of raising an error.

    Raises:
        DatasetError: Photographs cannot be decoded; the message lists all of them.
    """
    bad: list[tuple[str, str]] = []
    total = sum(len(samples) for samples in collection.splits.values())
    contents, good = Contents(total), 0
    for result in _progress(_results(collection.splits, image_size, workers, storage, check), total):
        if result.reason:
            bad.append((result.sample.name, result.reason))
        else:
            contents.take_down(good, result.digest, result.metadata, result.phash)
            good += 1
    if bad and not exclude:
        raise DatasetError(
            f"{len(bad)} of {total} photographs in {show_path(collection.root)} cannot be read:\n"
            + "\n".join(f"  {show_path(name)}: {reason}" for name, reason in bad)
            + "\nReplace or remove them, or exclude them with --data.unreadable exclude.",
            "photographs-unreadable",
            path=collection.root,
            found=bad,
        )
    return Reading(collection.without(name for name, _ in bad), contents[:good], bad)


def _results(
    splits: Mapping[str, Sequence[Sample]], image_size: int, workers: int, storage: Storage, check: Callable[[], None]
) -> Iterator[Verified]:
    """Yield one result per photograph; splits whose images have the same size share a shard."""
    sides = [storage.sides.get(split, image_size) for split in splits]
    caches: dict[int, ImageCache] = {}
    try:
        for number, (side, samples) in enumerate(zip(sides, splits.values(), strict=True)):
            if storage.folders and side not in caches:
                expected = sum(len(s) for s, its_side in zip(splits.values(), sides, strict=True) if its_side == side)
                caches[side] = ImageCache(storage.folders, side, image_size, expected, write=storage.write)
            results = verify(samples, image_size, workers, caches.get(side))
            try:
                for result in results:
                    check()
                    yield result
            finally:
                results.close()  # ends the threads that write
            if side in caches and side not in sides[number + 1 :]:
                caches[side].close()  # now, because it holds data of each photograph
    finally:
        for cache in caches.values():
            cache.close()
    _report(caches.values())


def _report(caches: Iterable[ImageCache]) -> None:
    for cache in caches:
        if cache.trouble:
            rank_zero_info(
                f"Warning: decoded images are not cached, so every epoch decodes the photographs again: "
                f"{cache.trouble}. --data.cache_dir FOLDER sets another folder; --data.cache off hides this warning."
            )
            break
    written = [cache.written for cache in caches if cache.written is not None]
    if written:
        rank_zero_info(describe_cache(written))


def _progress(results: Iterator[Verified], total: int) -> Iterable[Verified]:
    progress: Callable[..., Any] = tqdm
    shown: Iterable[Verified] = progress(
        results, total=total, desc="Checking photographs", unit="photo", leave=False, disable=None
    )
    return shown


def granted_cpus() -> int:
    """CPUs that this process may use (a job's share, not the machine's), at most 16."""
    return min(16, processors())
