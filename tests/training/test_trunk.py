"""The frozen part of each backbone: the same function as the network's, folded, kept and never stale."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bldml.training.backbones import BACKBONES, BackboneName, build, steps_of
from bldml.training.module import Batch, LeafClassifier
from bldml.training.trunk import FeatureCache, Trunk
from tests import three_layers

NAMES = [name for name in BACKBONES if name != three_layers.NAME]  # whose stages halve a layer
SIZES = {"inception_v3": 107}


def settled(name: BackboneName, **arguments: Any) -> LeafClassifier:
    """A classifier whose BatchNorm layers have statistics of their own, as pretrained ones have."""
    torch.manual_seed(3)
    module = LeafClassifier(name, "none", SIZES.get(name, 64), **arguments)
    for norm in module.network.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_mean = torch.randn_like(norm.weight) * 0.1
            norm.running_var = torch.rand_like(norm.weight) + 0.5
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
    return module.unfreeze(0)


def pictures(name: str, n: int = 2) -> Tensor:
    size = SIZES.get(name, 64)
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_are_the_network(name: BackboneName) -> None:
    network = build(name).eval()
    trunk = Trunk(steps_of(network, BACKBONES[name]))
    images = pictures(name)
    with torch.no_grad():
        # Not bit for bit: convolutions round otherwise in another memory format.
        expected = network(images)
        found = nn.Sequential(*trunk.steps).eval()(images)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_part_and_rest_are_the_network_at_each_depth(name: BackboneName) -> None:
    module, images = settled(name), pictures(name)
    frozen = []
    for depth in range(len(module.row.stages) + 1):
        module.unfreeze(depth).eval()
        with torch.no_grad():
            expected = module.network(images)
            found = module.trunk.logits(module.trunk.features(images))
        # Folding rounds otherwise.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max() + 1))
        frozen.append(module.trunk.frozen)
    assert frozen == sorted(frozen, reverse=True)
    assert len(set(frozen)) == len(frozen), "each unfreezing makes the frozen part smaller"


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_network(name: BackboneName) -> None:
    module, images = settled(name), pictures(name)
    module.unfreeze(1)
    for part in module.network.modules():
        if isinstance(part, nn.Dropout) or type(part).__name__ == "StochasticDepth":
            part.eval()
    gradients = []
    for logits in (module.network, lambda x: module.trunk.logits(module.trunk.features(x))):
        module.zero_grad()
        logits(images).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_no_batchnorm_is_left_and_nothing_is_stored_twice() -> None:
    module = settled("mobilenet_v3_large")
    before = set(module.state_dict())
    module.trunk.features(pictures("mobilenet_v3_large"))
    folded = module.trunk._folded
    assert isinstance(folded, nn.Module)
    assert not any(isinstance(part, _BatchNorm) for part in folded.modules())
    assert set(module.state_dict()) == before


def test_changed_weights_are_seen() -> None:
    module, images = settled("mobilenet_v2_x0_35"), pictures("mobilenet_v2_x0_35")
    first = module.trunk.features(images)
    assert torch.equal(module.trunk.features(images), first)
    other = settled("mobilenet_v2_x0_35")
    with torch.no_grad():
        other.network.get_submodule("features.0.0").weight.mul_(2)  # type: ignore[operator]
    module.load_state_dict(other.state_dict())
    assert torch.equal(module.trunk.features(images), other.trunk.features(images))
    assert not torch.equal(module.trunk.features(images), first)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.trunk.features(images).dtype == torch.bfloat16
    assert module.trunk.features(images).dtype == torch.float32


def test_statistics_that_are_written_again_fold_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As DDP of torch 2.10 does before each step, with the same values."""
    module, images = settled("mobilenet_v2_x0_35"), pictures("mobilenet_v2_x0_35")
    folds: list[torch.device] = []
    fold = Trunk._fold

    def counted(trunk: Trunk, device: torch.device) -> Any:
        folds.append(device)
        return fold(trunk, device)

    monkeypatch.setattr(Trunk, "_fold", counted)
    for _ in range(3):
        for buffer in module.network.buffers():
            buffer.copy_(buffer.clone())
        module.trunk.features(images)
    assert len(folds) == 1


def test_validation_sees_what_an_evaluation_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in 16 bits too: the threshold is chosen on validation and belongs to the published probabilities."""
    module = settled("mobilenet_v2_x0_35").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch: Batch = {"image": images, "label": torch.zeros(2), "path": ["a", "b"], "group": ["", ""]}
    with torch.no_grad():
        expected = module.evaluate(images)
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(2):  # computed, then cached
                assert torch.equal(module._validated(batch), expected)
            assert not torch.equal(module(images), expected)
    assert module.feature_cache.used > 0


def test_nothing_is_kept_where_nothing_is_frozen() -> None:
    module = settled("mobilenet_v2_x0_35").unfreeze()
    assert module.trunk.frozen == 0
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    module._validated({"image": images, "label": torch.zeros(2), "path": ["a", "b"], "group": ["", ""]})
    assert module.feature_cache.used == 0


def test_dropout_before_the_head_is_not_frozen() -> None:
    module, images = settled("mobilenet_v3_large").unfreeze(0), pictures("mobilenet_v3_large")
    features = module.trunk.features(images)
    assert torch.equal(module.trunk.features(images), features)
    assert not torch.equal(module.trunk.logits(features), module.trunk.logits(features))


def test_features_are_cached_until_the_key_changes_and_within_the_limit() -> None:
    calls: list[int] = []

    def compute() -> Tensor:
        calls.append(1)
        return torch.full((2, 10), float(len(calls)))

    cache, device = FeatureCache(limit=2 * 10 * 4), torch.device("cpu")
    first = cache.get(["a", "b"], ("key",), compute, device)
    assert torch.equal(cache.get(["a", "b"], ("key",), compute, device), first)
    assert len(calls) == 1
    # The limit holds one batch: the second is computed each time.
    for _ in range(2):
        cache.get(["c", "d"], ("key",), compute, device)
    assert len(calls) == 3
    assert cache.used == 80
    assert not torch.equal(cache.get(["a", "b"], ("other key",), compute, device), first)
    assert len(calls) == 4
    # The same photographs in another order are another batch.
    cache.get(["b", "a"], ("other key",), compute, device)
    assert len(calls) == 5


@pytest.mark.slow
def test_compiled_it_computes_the_same() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 1),
    )
    network[:5].requires_grad_(False).eval()
    images = torch.randn(4, 3, 16, 16)
    found = []
    for compiled in (False, True):
        trunk = Trunk([*network], compiled=compiled)
        trunk.split()
        assert trunk.frozen == 5
        network.zero_grad()
        logits = trunk.logits(trunk.features(images))
        logits.sum().backward()  # type: ignore[no-untyped-call]
        gradient = network.get_submodule("5").weight.grad
        assert isinstance(gradient, Tensor)
        found.append((logits.detach(), gradient.clone()))
    torch.testing.assert_close(found[1], found[0])
    assert set(network.state_dict()) == set(nn.Sequential(*network).state_dict())
