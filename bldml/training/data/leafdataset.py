"""Photographs as tensors with labels."""

import hashlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bldml.dataset.cache.format import DamagedRow
from bldml.dataset.cache.reader import CachedImages
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.pixels import ResizedImage
from bldml.dataset.samples import Sample
from bldml.errors import DatasetError
from bldml.training.transforms import Augmentation, evaluation_image, training_image

UNLABELLED = -1


class Item(TypedDict):
    """One sample: image uint8 (3, s, s), label (class index, -1 if unknown), name and group of the photograph."""

    image: Tensor
    label: int
    path: str
    group: str


class LeafDataset(Dataset[Item]):
    """Photographs as tensors; labels are indices of `class_names`.

    Args:
        samples: The photographs; for many of them a `Samples`, which forked processes do not copy.
        class_names: Names in the order of their labels.
        image_size: Side in pixels.
        augmentation: Training augmentation; None for evaluation.
        seed: Seed of the run, used for the augmentation.
        cached: Cached images of the photographs; a photograph without one is decoded each time.
        aspects: Aspect ratio (width to height) of each photograph, which its cached image does not contain.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: tuple[str, ...],
        image_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cached: CachedImages | None = None,
        aspects: NDArray[np.float64] | None = None,
    ) -> None:
        label_of = {name: label for label, name in enumerate(class_names)}
        self.labels = np.array([label_of.get(sample.class_name, UNLABELLED) for sample in samples], np.int64)
        self.samples = samples
        self.image_size, self.augmentation, self.seed, self.cached = image_size, augmentation, seed, cached
        self.aspects = np.ones(len(samples)) if aspects is None else aspects
        self._warned = False

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Return the photograph at (epoch, index)."""
        epoch, index = key
        sample, image = self.samples[index], self._photograph(index)
        if self.augmentation is None:
            pixels = evaluation_image(image, self.image_size)
        else:
            generator, aspect = self._generator(epoch, sample.name), float(self.aspects[index])
            pixels = training_image(image, self.image_size, self.augmentation, generator, aspect)
        return {"image": pixels, "label": int(self.labels[index]), "path": sample.name, "group": sample.group}

    def _photograph(self, index: int) -> Image.Image | ResizedImage:
        """Return the photograph, or its cached resized image."""
        if self.cached is None:
            return self._decoded(index)
        try:
            resized = self.cached.read(index)
            return self._decoded(index) if resized is None else resized
        except DamagedRow as damaged:
            if not self._warned:
                rank_zero_info(f"Warning: cached images are damaged in {damaged}; they are created again.")
            self._warned = True
            photograph = self._decoded(index)
            self.cached.repair(index, photograph)
            return photograph

    def _decoded(self, index: int) -> Image.Image:
        path = self.samples[index].path
        try:
            return load_rgb(path, self.image_size)
        except UnreadableImage as error:
            # All were decoded before training: this file has changed since, and must not be replaced by another.
            message = f"A photograph became unreadable during the run. {error}"
            raise DatasetError(message, "photograph-changed", path=path, reason=error.reason) from error

    def _generator(self, epoch: int, name: str) -> np.random.Generator:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return np.random.default_rng([self.seed, epoch, int.from_bytes(digest[:8], "big")])


class FlipLabels(Dataset[Item]):
    """A dataset whose positive class has the label 1, whatever the alphabetical order of its class names.

    Args:
        dataset: A dataset with labels 0 and 1 in the order of `class_names`.
        class_names: Two names in the order of the dataset's labels.
        positive_class: The name whose label becomes 1.
    """

    def __init__(self, dataset: LeafDataset, class_names: tuple[str, ...], positive_class: str) -> None:
        self.dataset = dataset
        self.flip = class_names.index(positive_class) == 0

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Return the photograph at (epoch, index)."""
        item = self.dataset[key]
        if self.flip and item["label"] != UNLABELLED:
            item["label"] = 1 - item["label"]
        return item
