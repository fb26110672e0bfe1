"""Orders that depend on seed and epoch alone, and how processes share them."""

import pytest
from torch.utils.data import DataLoader, Dataset

from bldml.training.data.sampling import EpochSampler, EvaluationSampler


def order(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert {pair[0] for pair in pairs} == {epoch}
    return [pair[1] for pair in pairs]


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    sampler = EpochSampler(50, seed=1)
    orders = [order(sampler, epoch) for epoch in range(4)]
    assert len(sampler) == 50
    for found in orders:
        assert sorted(found) == list(range(50))
    assert len({tuple(found) for found in orders}) == 4
    assert list(range(50)) not in orders


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    used = EpochSampler(50, seed=1)
    for epoch in range(3):
        order(used, epoch)
    # As after a requeue: a fresh sampler, set to the epoch at once.
    assert order(used, 3) == order(EpochSampler(50, seed=1), 3)
    assert order(used, 0) == order(EpochSampler(50, seed=1), 0)
    assert order(EpochSampler(50, seed=2), 3) != order(used, 3)
    # Seed and epoch are not added up.
    assert order(EpochSampler(50, seed=2), 1) != order(EpochSampler(50, seed=1), 2)


def test_an_order_under_way_is_not_changed_by_the_next_epoch() -> None:
    sampler = EpochSampler(10, seed=1)
    iterator = iter(sampler)
    first = next(iterator)
    sampler.set_epoch(1)
    assert [first, *iterator] == [(0, index) for index in order(EpochSampler(10, seed=1), 0)]


@pytest.mark.parametrize(("length", "world_size"), [(50, 2), (50, 3), (7, 4), (3, 8), (1, 3), (8, 1)])
def test_ranks_share_an_epoch(length: int, world_size: int) -> None:
    samplers = [EpochSampler(length, 1, rank, world_size) for rank in range(world_size)]
    shares = [order(sampler, 5) for sampler in samplers]
    assert {len(share) for share in shares} == {-(-length // world_size)} == {len(sampler) for sampler in samplers}
    # Dealt out in turn, ranks give the order of one process; only the last round is filled up, from the start.
    dealt = [index for round_ in zip(*shares, strict=True) for index in round_]
    whole = order(EpochSampler(length, 1), 5)
    assert dealt[:length] == whole
    assert dealt[length:] == [whole[place % length] for place in range(length, len(dealt))]
    assert len(dealt) - length < world_size


@pytest.mark.parametrize(("length", "world_size"), [(10, 1), (10, 2), (10, 3), (2, 4), (0, 2)])
def test_evaluation_sees_each_photograph_once(length: int, world_size: int) -> None:
    samplers = [EvaluationSampler(length, rank, world_size) for rank in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    assert sorted(pair for share in shares for pair in share) == [(0, index) for index in range(length)]
    assert all(share == sorted(share) for share in shares)


class Keys(Dataset[tuple[int, int]]):
    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


def test_workers_that_stay_alive_hear_of_the_epoch() -> None:
    """The reason for the pairs: a dataset copied into a worker would otherwise never learn the epoch."""
    sampler = EpochSampler(6, seed=1)
    loader = DataLoader(Keys(), batch_size=None, sampler=sampler, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        seen.append([(int(e), int(i)) for e, i in loader])
    assert seen[0] == [(0, index) for index in order(EpochSampler(6, seed=1), 0)]
    assert seen[1] == [(1, index) for index in order(EpochSampler(6, seed=1), 1)]
