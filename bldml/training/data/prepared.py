"""PreparedData: photographs that were read and checked, for training, evaluations and the doctor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bldml.dataset.contents import Contents
from bldml.dataset.samples import Collection, Sample, dataset_digest
from bldml.run.provenance import DIGEST_DIGITS


@dataclass(frozen=True)
class PreparedData:
    """Photographs that were found, read and checked.

    Attributes:
        collection: Without the photographs that cannot be read.
        contents: Data of their files, split after split.
        class_names: Both classes in alphabetical order; in an evaluation those of the classifier.
        positive_class: The positive class; None for photographs without labels.
        excluded: Name and reason of each photograph that cannot be read.
        unlisted: Photographs below the root that the manifest does not list.
        cache_folders: Folders of cached images, best first; empty without a cache.
    """

    collection: Collection
    contents: Contents
    class_names: tuple[str, ...]
    positive_class: str | None
    excluded: tuple[tuple[str, str], ...] = ()
    unlisted: tuple[Path, ...] = ()
    cache_folders: tuple[Path, ...] = ()

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the photographs of a split."""
        return self.collection.splits[split]

    def contents_of(self, split: str) -> Contents:
        """Return the data of a split's files, in the order of its samples."""
        lengths = {name: len(samples) for name, samples in self.collection.splits.items()}
        start = sum(lengths[name] for name in list(lengths)[: list(lengths).index(split)])
        return self.contents[start : start + lengths[split]]

    @cached_property
    def dataset_digests(self) -> dict[str, str]:
        """Dataset digest of each split: SHA-256 of its contents and classes."""
        return {k: dataset_digest(v, self.contents_of(k).digests) for k, v in self.collection.splits.items()}

    def class_counts(self) -> tuple[int, int]:
        """Return the numbers of negative and positive training photographs."""
        positive = sum(sample.class_name == self.positive_class for sample in self.samples("train"))
        return len(self.samples("train")) - positive, positive

    def seen_digests(self) -> str:
        """Return the first digits of the SHA-256 of all training and validation photographs, in one string."""
        digests = (digest for split in ("train", "val") for digest in self.contents_of(split).digests)
        return "".join(sorted(digest[:DIGEST_DIGITS] for digest in digests))
