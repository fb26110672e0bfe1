"""Photographs as tensors with labels."""

import hashlib
from typing import TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from bldml.dataset.files import DatasetError
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.samples import Sample
from bldml.training.transforms import Augmentation, evaluation_image, training_image

UNLABELLED = -1


class Item(TypedDict):
    """One sample: image float32 (3, s, s), label (class index, -1 if unknown), name and group of the photograph."""

    image: Tensor
    label: int
    path: str
    group: str


class LeafDataset(Dataset[Item]):
    """Photographs as tensors; labels are positions in `class_names`.

    Args:
        samples: The photographs.
        class_names: Names in the order of their labels.
        image_size: Side in pixels.
        augmentation: How training pictures vary; None for evaluation.
        seed: Seed of the run, for the augmentation.
    """

    def __init__(
        self,
        samples: tuple[Sample, ...],
        class_names: tuple[str, ...],
        image_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.samples, self.image_size = samples, image_size
        self.label_of = {name: label for label, name in enumerate(class_names)}
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The photograph at (epoch, index)."""
        epoch, index = key
        sample = self.samples[index]
        try:
            photograph = load_rgb(sample.path, self.image_size)
        except UnreadableImage as error:
            # All were decoded before training: this one has changed since, and nothing may take its place.
            raise DatasetError(f"A photograph has become unreadable during the run. {error}") from error
        if self.augmentation is None:
            image = evaluation_image(photograph, self.image_size)
        else:
            image = training_image(photograph, self.image_size, self.augmentation, self._generator(epoch, sample.name))
        return {
            "image": image,
            "label": self.label_of.get(sample.class_name, UNLABELLED),
            "path": sample.name,
            "group": sample.group,
        }

    def _generator(self, epoch: int, name: str) -> np.random.Generator:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return np.random.default_rng([self.seed, epoch, int.from_bytes(digest[:8], "big")])


class FlipLabels(Dataset[Item]):
    """A dataset whose positive class is 1, whichever place its folder has in the alphabet.

    Args:
        dataset: A dataset with labels 0 and 1 in the order of `class_names`.
        class_names: Two names in the order of the dataset's labels.
        positive_class: The name whose label becomes 1.
    """

    def __init__(self, dataset: LeafDataset, class_names: tuple[str, ...], positive_class: str) -> None:
        self.dataset = dataset
        self.flip = class_names.index(positive_class) == 0

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The photograph at (epoch, index)."""
        item = self.dataset[key]
        if self.flip and item["label"] != UNLABELLED:
            item["label"] = 1 - item["label"]
        return item
