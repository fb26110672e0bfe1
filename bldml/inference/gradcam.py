"""Grad-CAM: the regions of one image that increase the logit of the positive class.

Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

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
    layers, activations = model.row.gradcam_layers(), list[Tensor]()

    def store(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # Layers before this one need no gradient, so the graph starts here, whether or not stages are frozen.
        activations.append(output.detach().requires_grad_())
        # Later layers may work in place and must not change the stored activations.
        return activations[-1].clone()

    training = [module for module in model.modules() if module.training]
    hooks = [model.network.get_submodule(path).register_forward_hook(store) for path, _ in layers]
    try:
        model.eval()
        with torch.inference_mode(False), torch.enable_grad():
            logit = model.evaluate(image.unsqueeze(0).to(model.device))
            gradients = torch.autograd.grad(logit.sum(), activations)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    pairs = zip(activations, gradients, layers, strict=True)
    parts = [(as_image(values.detach()[0], row), as_image(slope[0], row)) for values, slope, (_, row) in pairs]
    return float(logit.detach()), class_activation_map(parts)


def require_gradcam(row: Backbone, name: str) -> None:
    """Raise a RunError if a backbone has no layer whose activations are an image."""
    if not row.gradcam_layers():
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


def class_activation_map(parts: Sequence[tuple[Tensor, Tensor]]) -> Map:
    """Return the sum of the channels, each weighted by the sum of its gradient, with negative values set to 0.

    Each part has the activations of one layer and the gradient of the logit by them, both (channels, rows, columns) and
    finite. A network has one part, an ensemble one for each of its networks: their sums are added, before negative
    values are set to 0, as shares of the logit per area of the image, on the finest of their grids.

    Returns:
        float32 (rows, columns) in [0, 1].

    >>> activations = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> gradient = torch.tensor([[[1.0, 1.0]], [[-1.0, 0.0]]])
    >>> class_activation_map([(activations, gradient)]).tolist()
    [[0.0, 1.0]]
    """
    # On the CPU, because an Apple GPU has no 64-bit numbers. Summed and not averaged, because grids may differ in size.
    doubles = [(values.cpu().double(), slopes.cpu().double()) for values, slopes in parts]
    shares = [(slopes.sum(dim=(1, 2))[:, None, None] * values).sum(0, keepdim=True) for values, slopes in doubles]
    raw = torch.relu(added_maps(shares)[0])
    largest = float(raw.max())
    scaled = raw / largest if largest > 0 else torch.zeros_like(raw)
    result: Map = scaled.float().numpy()
    return result


def added_maps(maps: Sequence[Tensor]) -> Tensor:
    """Return the sum of maps (n, rows, columns) on the finest of their grids, by bilinear interpolation."""
    rows = max(one.shape[1] for one in maps), max(one.shape[2] for one in maps)
    finest = [one for one in maps if one.shape[1:] == rows]
    coarse = [interpolate(one.unsqueeze(1), rows, mode="bilinear").squeeze(1) for one in maps if one.shape[1:] != rows]
    return torch.stack([*finest, *coarse]).sum(0)
