"""From samples to batches: photographs as tensors, the order of an epoch, the loader.

The order depends only on seed and epoch, an augmentation only on seed, epoch and photograph.
"""

import gc
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from bldml.dataset.cache.format import CachedImages, DamagedRow
from bldml.dataset.files import show_path
from bldml.dataset.formats.interruption import blame_machine
from bldml.dataset.images import Decode, ResizedImage, UnreadableImage, decoding_size, load_rgb
from bldml.dataset.samples import Sample
from bldml.dataset.unchanged import load_unchanged
from bldml.errors import ConfigError, MachineError
from bldml.io.system import free_memory
from bldml.io.text import counted
from bldml.training.data.workers import explain_loss, fewer_workers
from bldml.training.lightning_internals import send_mistakes_whole, watch_workers
from bldml.training.resume.signals import blocked, ignore_in_worker
from bldml.training.transforms import Augmentation, evaluation_image, training_image

UNLABELLED = -1


class Item(TypedDict):
    """One sample: image uint8 (3, s, s), label (1 positive, 0 negative, -1 unknown), name and group."""

    image: Tensor
    label: int
    path: str
    group: str


class LeafDataset(Dataset[Item]):
    """Photographs as tensors; the keys are pairs (epoch, index).

    Args:
        samples: The photographs; for many of them a `Samples`, which forked processes do not copy.
        positive_class: The class with the label 1; None if no photograph has a class.
        image_size: Side in pixels.
        augmentation: Training augmentation; None for evaluation.
        seed: Seed of the run, used for the augmentation.
        cached: Cached images of the photographs; a photograph without one is decoded each time.
        aspects: Aspect ratio (width to height) of each photograph, which its cached image does not contain.
        decode: How an evaluation decodes a JPEG; training decodes at a reduced scale.
        digests: SHA-256 of each photograph's file when it was checked, which it must still have if it is decoded; None
            to decode whatever is there.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        positive_class: str | None,
        image_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cached: CachedImages | None = None,
        aspects: NDArray[np.float64] | None = None,
        decode: Decode = "full",
        digests: Sequence[str] | None = None,
    ) -> None:
        classes = (sample.class_name for sample in samples)
        labels = (int(name == positive_class) if name else UNLABELLED for name in classes)
        self.labels = np.fromiter(labels, np.int64, len(samples))
        self.samples, self.digests = samples, digests
        self.image_size, self.augmentation, self.seed, self.cached = image_size, augmentation, seed, cached
        self.aspects = np.ones(len(samples)) if aspects is None else aspects
        self.target_size = image_size if augmentation else decoding_size(decode, image_size)
        self._warned = False

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        """Return the photograph at (epoch, index); Lightning's own sampler, as for overfit_batches, knows no epoch."""
        epoch, index = (0, key) if isinstance(key, int) else key
        sample, image = self.samples[index], self._photograph(index)
        if self.augmentation is None:
            pixels = evaluation_image(image, self.image_size)
        else:
            name = hashlib.sha256(sample.name.encode("utf-8", "surrogateescape")).digest()
            generator = np.random.default_rng([self.seed, epoch, int.from_bytes(name[:8], "big")])
            aspect = float(self.aspects[index])
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
            if self.digests is None:
                return load_rgb(path, self.target_size)
            return load_unchanged(path, self.digests[index], self.target_size)
        except UnreadableImage as error:
            blame_machine(path, error.__cause__)
            # All were decoded before training: this file has changed since, and no other may take its place.
            message = (
                f"A photograph is not what it was when it was checked. {show_path(path)}: {error.reason}. Restore it."
            )
            raise MachineError(message, "photograph-changed", path=path, reason=error.reason) from error


class EpochSampler(Sampler[tuple[int, int]]):
    """Training order: a permutation that is a pure function of seed and epoch.

    Yields pairs (epoch, index), so that a worker process that stays alive learns the epoch. Lightning calls `set_epoch`
    at the start of each epoch. `start` skips that many samples, once. The order is padded from its start so that all
    ranks have equally many samples.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0."""
        if epoch != self.epoch:
            self.start = 0  # the skipped samples were of another epoch
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of samples of this process in an epoch."""
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield pairs (epoch, index)."""
        epoch, start, self.start = self.epoch, self.start, 0
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        whole = np.resize(order, len(self) * self.world_size)
        yield from ((epoch, int(index)) for index in whole[self.rank :: self.world_size][start:])


class EvaluationSampler(Sampler[tuple[int, int]]):
    """Evaluation order: as listed, each of `length` photographs once, distributed over the ranks without padding.

    `start` skips that many photographs, which an interrupted evaluation has done.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1, start: int = 0) -> None:
        self.indices = range(start + rank, length, world_size)

    def __len__(self) -> int:
        """Return the number of samples of this process."""
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield pairs (0, index)."""
        return ((0, index) for index in self.indices)


@watch_workers(explain_loss)
class LeafLoader(DataLoader[Any]):
    """A loader whose worker processes ignore interrupting signals, and that can resume within an epoch.

    Lightning saves and loads its state: the number of batches trained on, which is less than the number loaded.
    """

    trained_on = 0

    def __iter__(self) -> Any:
        """Start the worker processes with signals blocked from the beginning; MachineError if that is not possible."""
        # Garbage collection in the workers would touch, and so copy, the memory that they share with this process.
        gc.freeze()
        try:
            with blocked():
                return super().__iter__()
        except OSError as error:
            message = f"Loader processes cannot be started: {error.strerror}. {fewer_workers(self.num_workers)}"
            raise MachineError(message, "loaders-not-startable", reason=error.strerror) from error
        finally:
            gc.unfreeze()

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches trained on."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "trained_on": self.trained_on}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches trained on."""
        assert isinstance(self.sampler, EpochSampler)
        assert self.batch_size is not None
        self.trained_on = state["trained_on"]
        # Before the first iterator is created: https://github.com/Lightning-AI/pytorch-lightning/issues/21938
        self.sampler.set_epoch(state["epoch"])
        self.sampler.start = state["trained_on"] * self.batch_size


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples; its images are (n, 3, s, s) with the channels last in memory, as the network needs them.

    torch's own collation would put the channels first, which costs more than a copy, and then convert them back.
    """
    pixels: Tensor = default_collate([item["image"].permute(1, 2, 0) for item in items])
    others = [{key: value for key, value in item.items() if key != "image"} for item in items]
    return {"image": pixels.permute(0, 3, 1, 2), **default_collate(others)}


def _start_worker(worker_id: int) -> None:
    ignore_in_worker()
    send_mistakes_whole()


def check_batches(count: int, side: int, num_workers: int) -> None:
    """Refuse batches that cannot be in memory: of `count` images of this side, in this process and in each worker.

    Pixels alone are counted, so what passes may still need too much. With BLDML_MEMORY_CHECK=off in the environment
    nothing is refused.

    Raises:
        ConfigError: They need more than there is.
    """
    needed, free = count * side * side * 3 * (1 + num_workers), free_memory()
    if free is None or needed <= free or os.environ.get("BLDML_MEMORY_CHECK") == "off":
        return
    workers = counted(num_workers, "loader process", "loader processes")
    message = (
        f"Batches of {counted(count, 'image')} of {side} px need {needed / 1e9:.1f} GB"
        f"{f' in this process and in {workers}' if num_workers else ''}; {free / 1e9:.1f} GB of memory are free. Set a "
        "smaller --data.batch_size or --data.num_workers, or train with a smaller --model.image_size. With "
        "BLDML_MEMORY_CHECK=off in the environment this is not checked."
    )
    raise ConfigError(message, "batch-exceeds-memory", found=needed, expected=free)


def leaf_loader(
    dataset: Dataset[Any], sampler: Sampler[tuple[int, int]], batch_size: int, num_workers: int, seed: int
) -> LeafLoader:
    """Return the loader of a dataset whose keys are the pairs that the sampler yields."""
    return LeafLoader(
        dataset,
        # By keyword: for prediction Lightning creates the loader again and would pass a second value.
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        # A generator of its own: so the global one does not depend on the number of workers.
        generator=torch.Generator().manual_seed(seed),
        persistent_workers=num_workers > 0,
    )
