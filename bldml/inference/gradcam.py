"""Grad-CAM: the regions of one image that increase the logit of the positive class.

Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bldml.errors import RunError
from bldml.training.backbones import Backbone
from bldml.training.module import LeafClassifier

Map = NDArray[np.float32]


def grad_cam(model: LeafClassifier, image: Tensor) -> tuple[float, Map]:
    """Return the logit of one image and the map of the regions that increase it, at the layer of the backbone's row.

    Args:
        model: The classifier, on any device; it is the same afterwards.
        image: uint8 (3, s, s), as returned by `transforms.evaluation_image`.

    Raises:
        RunError: The backbone has no layer for it.

    Returns:
        The output before temperature scaling, and float32 (rows, columns) at the size of the layer, in [0, 1]: the
        maximum is 1, or all values are 0 if no region increases the logit of the positive class.
    """
    require_gradcam(model.row, model.backbone)
    activations: list[Tensor] = []

    def store(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # Layers before this one need no gradient, so the graph starts here, whether or not stages are frozen.
        activations.append(output.detach().requires_grad_())
        # Later layers may work in place and must not change the stored activations.
        return activations[0].clone()

    training = [module for module in model.modules() if module.training]
    hook = model.network.get_submodule(model.row.gradcam).register_forward_hook(store)
    try:
        model.eval()
        with torch.inference_mode(False), torch.enable_grad():
            logit = model.evaluate(image.unsqueeze(0).to(model.device))
            (gradient,) = torch.autograd.grad(logit.sum(), activations)
    finally:
        hook.remove()
        for module in training:
            module.training = True
    return float(logit.detach()), class_activation_map(
        as_image(activations[0].detach()[0], model.row), as_image(gradient[0], model.row)
    )


def require_gradcam(row: Backbone, name: str) -> None:
    """Raise a RunError if a backbone has no layer whose activations are an image."""
    if not row.gradcam:
        message = f"There is no Grad-CAM for the backbone {name}: it has no layer whose activations are an image."
        raise RunError(message, "gradcam-none", found=name)


def as_image(values: Tensor, row: Backbone) -> Tensor:
    """Return what the layer of Grad-CAM gives for one image as (channels, rows, columns)."""
    if row.layout == "channels_last":
        return values.permute(2, 0, 1)
    if row.layout == "tokens":
        tokens = values[row.prefix :]
        side = math.isqrt(len(tokens))
        return tokens.T.reshape(-1, side, side)
    return values


def class_activation_map(activations: Tensor, gradient: Tensor) -> Map:
    """Return the sum of the channels, each weighted by its mean gradient, with negative values set to 0.

    Activations and gradient of the logit are (channels, rows, columns), finite; the map is float32 (rows, columns) in
    [0, 1].

    >>> activations = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> gradient = torch.tensor([[[1.0, 1.0]], [[-1.0, 0.0]]])
    >>> class_activation_map(activations, gradient).tolist()
    [[0.0, 1.0]]
    """
    # On the CPU, because an Apple GPU has no 64-bit numbers.
    weights = gradient.cpu().double().mean(dim=(1, 2))
    raw = torch.relu((weights[:, None, None] * activations.cpu().double()).sum(0))
    largest = float(raw.max())
    scaled = raw / largest if largest > 0 else torch.zeros_like(raw)
    result: Map = scaled.float().numpy()
    return result
