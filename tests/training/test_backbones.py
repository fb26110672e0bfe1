"""Every backbone: its stages and its forward pass."""

from functools import partial
from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from bldml.training.backbones import BACKBONES, BackboneName, Unit, build

NAMES = get_args(BackboneName)


@pytest.mark.parametrize("unit", get_args(Unit))
@pytest.mark.parametrize("name", NAMES)
def test_head_and_parts_hold_every_parameter_once(name: BackboneName, unit: Unit) -> None:
    network, row = build(name), BACKBONES[name]
    paths = [row.head, *(path for part in row.parts(unit) for path in part)]
    held = [id(p) for path in paths for p in network.get_submodule(path).parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in network.parameters()}
    # Stages are named by their first module, so that name must be there and be unique.
    assert len({stage[0] for stage in row.stages} | {"head"}) == len(row.stages) + 1


@pytest.mark.parametrize("unit", get_args(Unit))
@pytest.mark.parametrize("name", NAMES)
def test_parts_run_from_the_head_to_the_image(name: BackboneName, unit: Unit) -> None:
    """The first part's modules are called after all others, and so on down to the last."""
    network, row = build(name).eval(), BACKBONES[name]
    parts = row.parts(unit)
    called: dict[str, int] = {}

    def note(path: str, *_: object) -> None:
        called.setdefault(path, len(called))

    for part in parts:
        for path in part:
            network.get_submodule(path).register_forward_hook(partial(note, path))
    with torch.no_grad():
        network(torch.zeros(1, 3, row.min_size, row.min_size))
    assert len(called) == sum(len(part) for part in parts)
    times = [[called[path] for path in part] for part in parts]
    assert all(min(nearer) > max(farther) for nearer, farther in pairwise(times))


@pytest.mark.parametrize("name", NAMES)
def test_forward_at_the_smallest_size(name: BackboneName) -> None:
    network, row = build(name), BACKBONES[name]
    maps: list[Tensor] = []
    network.get_submodule(row.gradcam).register_forward_hook(lambda _m, _i, output: maps.append(output))
    images = torch.rand(2, 3, row.min_size, row.min_size)
    with torch.no_grad():
        network.eval()
        both, alone = network(images), network(images[:1])
        network.train()
        trained = network(images)
    assert both.shape == trained.shape == (2, 1)
    assert alone.shape == (1, 1)
    assert torch.isfinite(both).all()
    torch.testing.assert_close(both[:1], alone, rtol=1e-3, atol=1e-3)
    n, channels, height, width = maps[0].shape
    assert (n, height) == (2, width)
    assert channels >= 32
    # Two rows and columns, so that BatchNorm has something to average even over a single photograph.
    assert height == 2


def test_building_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = build("mobilenet_v2_x0_35").state_dict()
    torch.manual_seed(5)
    second = build("mobilenet_v2_x0_35").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
