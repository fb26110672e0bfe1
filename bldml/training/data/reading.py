"""PreparedData, and the reading that makes it: every photograph is checked once, before training or an evaluation."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from bldml.dataset.cache.turns import take_turn
from bldml.dataset.cache.writer import ImageCache, describe_cache
from bldml.dataset.contents import Contents
from bldml.dataset.duplicates.bursts import burst_groups
from bldml.dataset.files import show_path
from bldml.dataset.formats.interruption import describe_interruption
from bldml.dataset.samples import Collection, Sample, dataset_digest
from bldml.dataset.verify import Verified, verify
from bldml.errors import DatasetError
from bldml.io.locks import Lock
from bldml.io.system import processors
from bldml.metrics.checked import sampling_unit, units_of
from bldml.metrics.operating_point import ThresholdCriterion, assurance_of
from bldml.metrics.proportions import Assurance
from bldml.run.provenance import DIGEST_DIGITS

Geometry = tuple[int, int | None]
"""Side of a cached image in pixels, and the `target_size` of `load_rgb` with which its photograph is decoded."""


@dataclass(frozen=True)
class PreparedData:
    """Photographs that were found, read and checked."""

    collection: Collection  # without the photographs that cannot be read
    contents: Contents  # data of their files, split after split
    class_names: tuple[str, ...]  # both, in alphabetical order; in an evaluation those of the classifier
    positive_class: str | None  # None for photographs without labels
    excluded: tuple[tuple[str, str], ...] = ()  # name and reason of each photograph that cannot be read
    unlisted: tuple[Path, ...] = ()  # photographs below the root that the manifest does not list
    cache_folders: tuple[Path, ...] = ()  # of cached images, best first; empty without a cache

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the photographs of a split."""
        return self.collection.splits[split]

    def contents_of(self, split: str) -> Contents:
        """Return the data of a split's files, in the order of its samples."""
        lengths = {name: len(samples) for name, samples in self.collection.splits.items()}
        start = sum(lengths[name] for name in list(lengths)[: list(lengths).index(split)])
        return self.contents[start : start + lengths[split]]

    def with_digests(self, split: str) -> Iterator[tuple[Sample, str]]:
        """Return the photographs of a split, each with the SHA-256 of its file."""
        return zip(self.samples(split), self.contents_of(split).digests, strict=True)

    @cached_property
    def dataset_digests(self) -> dict[str, str]:
        """Dataset digest of each split: SHA-256 of its contents and classes."""
        return {k: dataset_digest(v, self.contents_of(k).digests) for k, v in self.collection.splits.items()}

    @cached_property
    def bursts(self) -> dict[str, str]:
        """Name of the first photograph of the burst of each, by its name; empty outside a burst."""
        names = [sample.name for sample in self.collection.samples()]
        bursts = burst_groups(names, self.contents.metadata)
        sizes = Counter(bursts)
        return {name: burst if sizes[burst] > 1 else "" for name, burst in zip(names, bursts, strict=True)}

    def class_counts(self) -> tuple[int, int]:
        """Return the numbers of negative and positive training photographs."""
        positive = sum(sample.class_name == self.positive_class for sample in self.samples("train"))
        return len(self.samples("train")) - positive, positive

    def best_assurance(self, criterion: ThresholdCriterion) -> Assurance | None:
        """Return what a criterion assures if no validation photograph is missed; None for one without a minimum."""
        if criterion.minimum is None:
            return None
        is_positive = criterion.minimum[0] == "sensitivity"
        of_class = [s for s in self.samples("val") if (s.class_name == self.positive_class) == is_positive]
        units = units_of([sampling_unit(s.group, self.bursts[s.name]) for s in of_class], len(of_class))
        return assurance_of(criterion, np.ones(len(of_class)), units)

    def seen_digests(self) -> str:
        """Return the first digits of the SHA-256 of all training and validation photographs, in one string."""
        digests = (digest for split in ("train", "val") for digest in self.contents_of(split).digests)
        return "".join(sorted(digest[:DIGEST_DIGITS] for digest in digests))


def read_photographs(
    found: PreparedData,
    image_size: int,
    geometries: Mapping[str, Geometry],
    check: Callable[[], None],
    *,
    exclude: bool,
    write: bool,
) -> PreparedData:
    """Read all photographs found, and decode those that are not cached.

    Args:
        found: The photographs, not read yet.
        image_size: Side of the input image in pixels.
        geometries: Geometry of the cached images, by split.
        check: Called after each photograph; may raise an exception to interrupt. Images cached by then stay.
        exclude: Exclude photographs that cannot be decoded, instead of raising an error.
        write: Add missing images to the cache.

    Raises:
        DatasetError: Photographs cannot be decoded; the message lists all of them.
    """
    collection, bad, paths = found.collection, [], []
    total = sum(len(samples) for samples in collection.splits.values())
    contents, good = Contents(total), 0
    results = _results(found, image_size, geometries, check, write=write)
    for result in tqdm(results, total=total, desc="Checking photographs", unit="photo", leave=False, disable=None):
        if result.reason:
            bad.append((result.sample.name, result.reason))
            paths.append(result.sample.path)
        else:
            contents.take_down(good, result.digest, result.metadata, result.phash)
            good += 1
    if bad and not exclude:
        raise DatasetError(
            f"{len(bad)} of {total} photographs in {show_path(collection.root)} cannot be read:\n"
            + "\n".join(f"  {show_path(name)}: {reason}" for name, reason in bad)
            + "".join(f"\n{sentence}" for sentence in (describe_interruption(paths),) if sentence)
            + "\nReplace or remove them, or exclude them with --data.unreadable exclude.",
            "photographs-unreadable",
            path=collection.root,
            found=bad,
        )
    without = collection.without(name for name, _ in bad)
    return replace(found, collection=without, contents=contents[:good], excluded=(*found.excluded, *bad))


def _results(
    found: PreparedData,
    image_size: int,
    geometries: Mapping[str, Geometry],
    check: Callable[[], None],
    *,
    write: bool,
) -> Iterator[Verified]:
    """Yield one result per photograph; splits whose images have the same geometry share a shard."""
    splits = found.collection.splits
    waiting: Counter[Geometry] = Counter()  # photographs by geometry
    for split, samples in splits.items():
        waiting[geometries[split]] += len(samples)
    caches: dict[Geometry, ImageCache] = {}
    turns: dict[Geometry, Lock | None] = {}
    with ExitStack() as stack:
        for split, samples in splits.items():
            kind = geometries[split]
            if found.cache_folders and kind not in caches:
                # Images that only an evaluation needs are not added, so nobody need wait for them.
                alike = [splits[other] for other in splits if geometries[other] == kind]
                turns[kind] = _take_turn(found, kind, alike, check) if write else None
                stack.enter_context(turns[kind] or ExitStack())
                caches[kind] = ImageCache(found.cache_folders, *kind, waiting[kind], write=write)
                stack.callback(caches[kind].close)
            turn, cache = turns.get(kind), caches.get(kind)
            # Closing it ends the threads that write.
            with closing(verify(samples, image_size, granted_cpus(), cache)) as results:
                for result in results:
                    check()
                    if turn and cache and cache.trouble:
                        turn.close()  # others would wait for nothing
                    yield result
            waiting[kind] -= len(samples)
            if cache and not waiting[kind]:
                cache.close()  # now, because it holds data of each photograph
                if turn:
                    turn.close()
    if trouble := next((cache.trouble for cache in caches.values() if cache.trouble), None):
        rank_zero_info(
            "Warning: decoded images are not cached, so every epoch decodes the photographs again: "
            f"{trouble}. --data.cache_dir FOLDER sets another folder; --data.cache off hides this warning."
        )
    if written := [cache.written for cache in caches.values() if cache.written is not None]:
        rank_zero_info(describe_cache(written))


def _take_turn(
    found: PreparedData, kind: Geometry, splits: Sequence[Sequence[Sample]], check: Callable[[], None]
) -> Lock | None:
    return take_turn(found.cache_folders, *kind, found.collection.root, splits, check, rank_zero_info)


def granted_cpus() -> int:
    """Return the number of CPUs that this process may use (a job's, not the machine's), at most 16."""
    return min(16, processors())
