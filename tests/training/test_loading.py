"""Photographs as tensors: fields, labels, augmentation, one that goes bad during a run; the order of an epoch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bldml.dataset.samples import Sample
from bldml.errors import MachineError
from bldml.io.system import sha256_of
from bldml.training.data.loading import UNLABELLED, EpochSampler, EvaluationSampler, LeafDataset, leaf_loader
from bldml.training.transforms import Augmentation, evaluation_image

SIZE = 32


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    """Five photographs: BLD and No_BLD in turn, the last without a class."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(5):
        path = tmp_path / f"leaf_{number}.png"
        Image.fromarray(generator.integers(0, 255, (40, 60, 3), np.uint8)).save(path)
        class_name = ("BLD", "No_BLD", "BLD", "No_BLD", "")[number]
        found.append(Sample(path, f"{class_name}/{path.name}", class_name, f"tree {number // 2}"))
    return tuple(found)


def test_item(samples: tuple[Sample, ...]) -> None:
    dataset = LeafDataset(samples, "BLD", SIZE)
    assert len(dataset) == 5
    for index, sample in enumerate(samples):
        item = dataset[0, index]
        assert item.keys() == {"image", "label", "path", "group"}
        with Image.open(sample.path) as photograph:
            assert torch.equal(item["image"], evaluation_image(photograph.convert("RGB"), SIZE))
        assert (item["path"], item["group"]) == (sample.name, sample.group)
    assert [dataset[0, index]["label"] for index in range(5)] == [1, 0, 1, 0, UNLABELLED]


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_lies_in_memory_as_the_network_wants_it(
    samples: tuple[Sample, ...], augmentation: Augmentation | None, workers: int
) -> None:
    dataset = LeafDataset(samples, "BLD", SIZE, augmentation)
    (batch,) = leaf_loader(dataset, EvaluationSampler(5), 5, workers, 0)
    items = [dataset[0, index] for index in range(5)]
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch["image"], torch.stack([item["image"] for item in items]))
    assert batch["label"].tolist() == [item["label"] for item in items]
    assert (batch["path"], batch["group"]) == ([s.name for s in samples], [s.group for s in samples])


def test_evaluation_is_the_same_in_every_epoch(samples: tuple[Sample, ...]) -> None:
    dataset = LeafDataset(samples, "BLD", SIZE)
    assert torch.equal(dataset[0, 0]["image"], dataset[7, 0]["image"])


@pytest.mark.parametrize("positive", ["BLD", "No_BLD"])
def test_positive_is_one_whatever_the_alphabet(positive: str, samples: tuple[Sample, ...]) -> None:
    dataset = LeafDataset(samples, positive, SIZE)
    expected = [*(int(sample.class_name == positive) for sample in samples[:4]), UNLABELLED]
    assert [dataset[0, index]["label"] for index in range(5)] == expected


def test_augmentation_depends_on_seed_epoch_and_name(samples: tuple[Sample, ...]) -> None:
    dataset = LeafDataset(samples, "BLD", SIZE, Augmentation(), seed=1)
    image = dataset[2, 1]["image"]
    assert torch.equal(image, LeafDataset(samples, "BLD", SIZE, Augmentation(), seed=1)[2, 1]["image"])
    assert not torch.equal(image, dataset[3, 1]["image"])
    assert not torch.equal(image, LeafDataset(samples, "BLD", SIZE, Augmentation(), seed=2)[2, 1]["image"])
    renamed = (*samples[:1], Sample(samples[1].path, "other name", samples[1].class_name), *samples[2:])
    assert not torch.equal(image, LeafDataset(renamed, "BLD", SIZE, Augmentation(), seed=1)[2, 1]["image"])


def test_augmentation_does_not_depend_on_the_place(samples: tuple[Sample, ...]) -> None:
    """A photograph more or less in the folder leaves the others' pictures alone."""
    whole = LeafDataset(samples, "BLD", SIZE, Augmentation(), seed=1)
    fewer = LeafDataset((samples[3], samples[1]), "BLD", SIZE, Augmentation(), seed=1)
    for epoch in range(3):
        assert torch.equal(fewer[epoch, 0]["image"], whole[epoch, 3]["image"])
        assert torch.equal(fewer[epoch, 1]["image"], whole[epoch, 1]["image"])


def test_a_name_that_is_no_text(samples: tuple[Sample, ...]) -> None:
    """A file name in another encoding reaches Python as lone surrogates."""
    odd = Sample(samples[0].path, "BLD/\udcff.png", "BLD")
    assert LeafDataset((odd,), "BLD", SIZE, Augmentation())[0, 0]["image"].shape == (3, SIZE, SIZE)


# Said where one core was granted; it is what is asked for here.
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_no_difference(workers: int, samples: tuple[Sample, ...]) -> None:
    def batches(num_workers: int) -> list[dict[str, Any]]:
        sampler = EpochSampler(5, seed=1)
        dataset = LeafDataset(samples, "BLD", SIZE, Augmentation(), seed=1)
        loader = DataLoader(
            dataset, batch_size=2, sampler=sampler, num_workers=num_workers, persistent_workers=num_workers > 0
        )
        found = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            found += list(loader)
        return found

    alone, shared = batches(0), batches(workers)
    assert len(alone) == len(shared) == 6
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])
        assert (a["path"], a["group"]) == (b["path"], b["group"])
    assert alone[0]["image"].shape == (2, 3, SIZE, SIZE)
    assert alone[0]["label"].dtype == torch.int64
    assert not torch.equal(alone[0]["image"], alone[3]["image"])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["removed", "cut", "replaced", "another"])
def test_photograph_that_has_become_unreadable(damage: str, workers: int, samples: tuple[Sample, ...]) -> None:
    dataset = LeafDataset(samples, "BLD", SIZE, digests=[sha256_of(sample.path) for sample in samples])
    path = samples[1].path
    if damage == "removed":
        path.unlink()
    elif damage == "another":
        shutil.copy(samples[2].path, path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.write_text("no picture")
    loader = leaf_loader(dataset, EpochSampler(5, seed=1), 5, workers, 0)
    with pytest.raises(MachineError) as caught:
        list(loader)
    assert caught.value.code == "photograph-changed"
    assert caught.value.fields["path"] == path
    assert str(caught.value).startswith(f"A photograph is not what it was when it was checked. {path}: ")
    assert "Traceback" not in str(caught.value)


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
