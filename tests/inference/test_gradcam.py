"""Grad-CAM on all five backbones, and against a second implementation."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bldml.inference.gradcam import grad_cam
from bldml.training.backbones import BACKBONES, BackboneName
from bldml.training.module import LeafClassifier

NAMES = get_args(BackboneName)


def classifier(name: BackboneName, seed: int = 0) -> LeafClassifier:
    torch.manual_seed(seed)
    return LeafClassifier(name, "none", max(64, BACKBONES[name].min_size))


def picture(model: LeafClassifier, seed: int = 1) -> Tensor:
    return torch.randn(3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(seed))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_each_backbone(name: BackboneName) -> None:
    model = classifier(name)
    image = picture(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    logit, cam = grad_cam(model, image)
    assert grad_cam(model, image)[1].tolist() == cam.tolist()
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    assert cam.dtype == np.float32
    assert cam.ndim == 2
    assert cam.min() >= 0
    assert cam.max() == 1 or not cam.any()
    model.eval()
    with torch.no_grad():
        assert logit == float(model(image[None]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_same_as_a_second_implementation(name: BackboneName, sign: float) -> None:
    """numpy, on gradients of a whole backward pass; with the head's sign turned, so that not both maps are empty."""
    model = classifier(name)
    head = model.network.get_submodule(model.row.head)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.mul_(sign)
    image = picture(model)
    _, cam = grad_cam(model, image)

    model.requires_grad_(True).eval()
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        output.retain_grad()
        kept.append(output)
        return output.clone()

    model.network.get_submodule(model.row.gradcam).register_forward_hook(keep)
    model(image[None]).sum().backward()
    assert kept[0].grad is not None
    a, g = kept[0].detach().double().numpy()[0], kept[0].grad.double().numpy()[0]
    raw = np.einsum("k,kij->ij", g.reshape(len(g), -1).mean(axis=1), a)
    expected = np.maximum(raw, 0) / max(raw.max(), 1e-300)
    assert cam == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("quarter", range(4))
def test_planted_evidence_is_found(quarter: int) -> None:
    """Only one quarter has anything in the only channel that the head looks at."""
    model = classifier("mobilenet_v2_x0_35")
    layer = model.network.get_submodule(model.row.gradcam)
    row, column = divmod(quarter, 2)

    class Planted(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            planted = torch.zeros(len(features), 1280, 2, 2)
            planted[:, 5, row, column] = 2.0
            planted[:, 6] = 9.0  # strong everywhere, but nothing to the head
            return planted

    model.network.set_submodule(model.row.gradcam, Planted().train(layer.training))
    with torch.no_grad():
        head = model.network.get_submodule(model.row.head)
        assert isinstance(head, nn.Linear)
        head.weight.zero_()
        head.weight[0, 5] = 1.0
    _, cam = grad_cam(model, picture(model))
    expected = np.zeros((2, 2))
    expected[row, column] = 1
    assert cam.tolist() == expected.tolist()


def test_nothing_for_the_class_is_an_empty_map() -> None:
    model = classifier("mobilenet_v2_x0_35")
    head = model.network.get_submodule(model.row.head)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.fill_(-1.0)
    _, cam = grad_cam(model, picture(model))
    assert not cam.any()


def test_hook_goes_after_an_error_and_also_without_gradients_outside() -> None:
    model = classifier("mobilenet_v2_x0_35")
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError):
        grad_cam(model, torch.zeros(4, 64, 64))
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == modes
    with torch.no_grad():
        assert np.isfinite(grad_cam(model, picture(model))[1]).all()
