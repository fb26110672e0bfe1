"""Grad-CAM: where in the picture the evidence for the positive class lies.

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


class Seen(NamedTuple):
    """What the model makes of one picture.

    Attributes:
        logit: The model's output, before temperature.
        map: float32 (rows, columns) of the layer's own size, in [0, 1]; all 0 where nothing speaks for the positive
            class, else the largest is 1.
    """

    logit: float
    map: Map


class GradCam:
    """Grad-CAM at the layer that the backbone's row names; the model has its own forward again on leaving.

    The model is in evaluation mode inside, and every module has its own mode again afterwards.

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
        self._hook = layer.register_forward_hook(self._keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
        for module in self._training:
            module.training = True
        self._hook, self._activations, self._training = None, None, []

    def __call__(self, image: Tensor) -> Seen:
        """Look at one picture.

        Args:
            image: uint8 (3, s, s), as `transforms.evaluation_image` makes it.

        Raises:
            RuntimeError: Outside the `with` block.
        """
        if self._hook is None:
            raise RuntimeError("GradCam looks at pictures inside its with block only")
        with torch.inference_mode(False), torch.enable_grad():
            logit = self.model(image.unsqueeze(0).to(self.model.device))
            activations = self._activations
            if activations is None:
                raise RuntimeError(f"the layer {self.model.row.gradcam} took no part in the forward pass")
            (gradient,) = torch.autograd.grad(logit.sum(), activations)
            self._activations = None
            return Seen(float(logit.detach()), weigh(activations.detach()[0], gradient[0]))

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # Nothing before this layer is needed, so the graph starts here, frozen stages or not.
        self._activations = output.detach().requires_grad_()
        # What follows may work in place, and must leave what is kept alone.
        return self._activations.clone()


def weigh(activations: Tensor, gradient: Tensor) -> Map:
    """Sum the channels, each weighted by its mean gradient; what speaks against the class is cut off.

    Args:
        activations: (channels, rows, columns), finite.
        gradient: Of the positive logit by the activations, same shape.

    Returns:
        float32 (rows, columns) in [0, 1].

    >>> activations = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> gradient = torch.tensor([[[1.0, 1.0]], [[-1.0, 0.0]]])
    >>> weigh(activations, gradient).tolist()
    [[0.0, 1.0]]
    """
    weights = gradient.double().mean(dim=(1, 2))
    raw = torch.relu((weights[:, None, None] * activations.double()).sum(0))
    largest = float(raw.max())
    scaled = raw / largest if largest > 0 else torch.zeros_like(raw)
    result: Map = scaled.float().cpu().numpy()
    return result
