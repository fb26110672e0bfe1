"""Grad-CAM: heat maps of the image regions that increase the logit of the positive class.

Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV.
"""

from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bldml.training.module import LeafClassifier

Map = NDArray[np.float32]


class GradCamResult(NamedTuple):
    """Logit and heat map of one image.

    Attributes:
        logit: The model's output, before temperature scaling.
        map: float32 (rows, columns) at the size of the layer, in [0, 1]; the maximum is 1, or all values are 0 if no
            region increases the logit of the positive class.
    """

    logit: float
    map: Map


class GradCam:
    """Context manager that computes Grad-CAM at the layer named in the backbone's row.

    Inside it, the model has a hook and is in evaluation mode. On exit the hook is removed and the mode of every module
    is restored.

    Args:
        model: The classifier, on any device.
    """

    def __init__(self, model: LeafClassifier) -> None:
        self.model = model
        self._activations: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._training: list[nn.Module] = []

    def __enter__(self) -> "GradCam":
        self._training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        layer = self.model.network.get_submodule(self.model.row.gradcam)
        self._hook = layer.register_forward_hook(self._store)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
        for module in self._training:
            module.training = True
        self._hook, self._activations, self._training = None, None, []

    def __call__(self, image: Tensor) -> GradCamResult:
        """Compute logit and heat map of one image.

        Args:
            image: uint8 (3, s, s), as returned by `transforms.evaluation_image`.

        Raises:
            RuntimeError: Called outside the `with` block.
        """
        if self._hook is None:
            raise RuntimeError("GradCam can be called only inside its with block")
        with torch.inference_mode(False), torch.enable_grad():
            logit = self.model(image.unsqueeze(0).to(self.model.device))
            activations = self._activations
            if activations is None:
                raise RuntimeError(f"the layer {self.model.row.gradcam} took no part in the forward pass")
            (gradient,) = torch.autograd.grad(logit.sum(), activations)
            self._activations = None
            return GradCamResult(float(logit.detach()), class_activation_map(activations.detach()[0], gradient[0]))

    def _store(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # Layers before this one need no gradient, so the graph starts here, whether or not stages are frozen.
        self._activations = output.detach().requires_grad_()
        # Later layers may work in place and must not change the stored activations.
        return self._activations.clone()


def class_activation_map(activations: Tensor, gradient: Tensor) -> Map:
    """Return the sum of the channels, each weighted by its mean gradient, with negative values set to 0.

    Args:
        activations: (channels, rows, columns), finite.
        gradient: Gradient of the positive logit with respect to the activations, same shape.

    Returns:
        float32 (rows, columns) in [0, 1].

    >>> activations = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> gradient = torch.tensor([[[1.0, 1.0]], [[-1.0, 0.0]]])
    >>> class_activation_map(activations, gradient).tolist()
    [[0.0, 1.0]]
    """
    weights = gradient.double().mean(dim=(1, 2))
    raw = torch.relu((weights[:, None, None] * activations.double()).sum(0))
    largest = float(raw.max())
    scaled = raw / largest if largest > 0 else torch.zeros_like(raw)
    result: Map = scaled.float().cpu().numpy()
    return result
