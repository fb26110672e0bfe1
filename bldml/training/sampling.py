"""Who is in which batch: orders that depend on the seed and the epoch alone."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Training order: a permutation that is a pure function of seed and epoch.

    Yields pairs (epoch, index), so that an augmentation in a worker process can depend on the epoch. Lightning calls
    `set_epoch` at the start of each epoch.

    Args:
        length: Number of photographs.
        seed: Seed of the run.
        rank: This process among those that train together.
        world_size: How many train together; the last round is filled from the start so that all have equally many.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of samples that this process sees in an epoch."""
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Pairs (epoch, index)."""
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        whole = np.resize(order, len(self) * self.world_size)
        yield from ((epoch, int(index)) for index in whole[self.rank :: self.world_size])


class EvaluationSampler(Sampler[tuple[int, int]]):
    """Evaluation order: as listed, each photograph once, shared out among the processes without padding.

    Args:
        length: Number of photographs.
        rank: This process among those that evaluate together.
        world_size: How many evaluate together.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, length, world_size)

    def __len__(self) -> int:
        """Number of samples that this process sees."""
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Pairs (0, index)."""
        yield from ((0, index) for index in self.indices)
