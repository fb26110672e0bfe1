"""Samplers and loaders: the order of photographs depends only on seed and epoch."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from bldml.training.lightning_internals import send_mistakes_whole
from bldml.training.resume.signals import blocked, ignore_in_worker


class EpochSampler(Sampler[tuple[int, int]]):
    """Training order: a permutation that is a pure function of seed and epoch.

    Yields pairs (epoch, index), so that the augmentation in a worker process can depend on the epoch. Lightning calls
    `set_epoch` at the start of each epoch. `start` skips that many samples, once.

    Args:
        length: Number of photographs.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes; the order is padded from its start so that all have equally many samples.
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
    """Evaluation order: as listed, each photograph once, distributed over the processes without padding.

    Args:
        length: Number of photographs.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, length, world_size)

    def __len__(self) -> int:
        """Return the number of samples of this process."""
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield pairs (0, index)."""
        yield from ((0, index) for index in self.indices)


class LeafLoader(DataLoader[Any]):
    """A loader whose worker processes ignore interrupting signals, and that can resume within an epoch.

    Lightning saves and loads its state: the number of batches trained on, which is less than the number loaded.
    """

    trained_on = 0

    def __iter__(self) -> Any:
        """Start the worker processes with signals blocked from the beginning."""
        # Garbage collection in the workers would touch, and so copy, the memory that they share with this process.
        gc.freeze()
        try:
            with blocked():
                return super().__iter__()
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
    ignore_in_worker(worker_id)
    send_mistakes_whole()


def leaf_loader(
    dataset: Dataset[Any], sampler: Sampler[tuple[int, int]], batch_size: int, num_workers: int, seed: int
) -> LeafLoader:
    """Return the loader of a dataset.

    Args:
        dataset: Dataset whose keys are pairs (epoch, index).
        sampler: Sampler that yields these pairs.
        batch_size: Photographs in a batch.
        num_workers: Processes that load photographs.
        seed: Seed of the run.
    """
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
