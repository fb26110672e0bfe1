"""The frozen part of a network: without autograd, its BatchNorm folded into its convolutions, its outputs kept.

Between two thaws the frozen part is a fixed function of a picture. Nothing of it needs a gradient, and for a photograph
without augmentation its output is the same in every epoch.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from bldml.training.backbones import FUNCTIONS

# Identity, place and version of each tensor, and the precision: by it a change is seen, whoever made it.
Key = tuple[object, ...]


class Trunk:
    """A network as a frozen part and the rest, which together compute what the network does.

    No module of its own, so that the network's parameters have one name and a checkpoint holds nothing twice.

    Args:
        network: The network.
        steps: Its steps from images to logits (see `backbones.Backbone.steps`).
        compiled: Let torch.compile make both parts faster.
    """

    def __init__(self, network: nn.Module, steps: Sequence[str], *, compiled: bool = False) -> None:
        self.steps = [FUNCTIONS[step] if step in FUNCTIONS else network.get_submodule(step) for step in steps]
        self.compiled = compiled
        self.frozen = 0
        self._rest: Callable[[Tensor], Tensor] | None = None
        self._folded: Callable[[Tensor], Tensor] | None = None
        self._key: Key = ()

    def split(self) -> None:
        """Find what is frozen now: everything before the first step that is trained or that draws random numbers."""
        moving = (number for number, step in enumerate(self.steps) if not is_fixed(step))
        frozen = next(moving, len(self.steps))
        if frozen != self.frozen or self._rest is None:
            self.frozen, self._folded, self._key = frozen, None, ()
            rest = nn.Sequential(*self.steps[frozen:])
            # Sequential itself is in training mode or not without meaning; its steps keep their own modes.
            self._rest = torch.compile(rest) if self.compiled else rest

    def key(self, device: torch.device) -> Key:
        """What the frozen part's output depends on beside the picture."""
        steps = self.steps[: self.frozen]
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        weights = [(weight.data_ptr(), weight._version) for step in steps for weight in step.parameters()]
        # Without versions: DDP of torch 2.10 writes the same statistics to every rank's buffers in each step.
        buffers = [buffer.data_ptr() for step in steps for buffer in step.buffers()]
        return (self.frozen, device, dtype, *weights, *buffers)

    def exact(self, images: Tensor) -> Tensor:
        """Output of the frozen part as it is, which an evaluation of the checkpoint will see, to the last bit."""
        with torch.no_grad():
            for step in self.steps[: self.frozen]:
                images = step(images)
            return images

    def features(self, images: Tensor) -> Tensor:
        """Output of the folded frozen part for images (n, 3, s, s); the images where nothing is frozen.

        Folded weights round otherwise in 16 bits. So it is for training; what is published is computed by `exact`.
        """
        with torch.no_grad():
            key = self.key(images.device)
            if self._folded is None or key != self._key:
                with torch.inference_mode(False):
                    self._folded, self._key = self._fold(images.device), key
            result: Tensor = self._folded(images)
            return result

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, 1) from the frozen part's output."""
        if self._rest is None:
            raise RuntimeError("split comes first")
        return self._rest(features)

    def _fold(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        frozen = copy.deepcopy(nn.Sequential(*self.steps[: self.frozen])).eval().requires_grad_(False)
        weight = next(frozen.parameters(), None)
        if weight is None:
            return frozen
        # Autocast would cast frozen weights anew in every step.
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else weight.dtype
        folded: nn.Module = fuse(frozen.float(), inplace=True).to(dtype)
        return torch.compile(folded) if self.compiled else folded


class KeptFeatures:
    """Outputs of the frozen part for the batches of a validation, until the frozen part changes.

    A batch is kept as a whole, so that what is read back is, bit for bit, what would be computed again.

    Args:
        limit: Bytes to keep at most; later batches are computed each time.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._key: Key = ()
        self._batches: dict[tuple[str, ...], Tensor] = {}

    def get(self, names: Sequence[str], key: Key, compute: Callable[[], Tensor], device: torch.device) -> Tensor:
        """The features of a batch.

        Args:
            names: Of its photographs, in order.
            key: `Trunk.key` of now.
            compute: What computes them.
            device: Where they are wanted.
        """
        if key != self._key:
            self.clear()
            self._key = key
        batch = tuple(names)
        if batch in self._batches:
            return self._batches[batch].to(device, non_blocking=True)
        features = compute()
        size = features.numel() * features.element_size()
        if self.used + size <= self.limit:
            self._batches[batch] = features.to("cpu", copy=True)
            self.used += size
        return features

    def clear(self) -> None:
        """Forget all."""
        self._batches.clear()
        self._key, self.used = (), 0


def is_fixed(step: nn.Module) -> bool:
    """Whether a step gives the same for the same input as long as nobody changes its weights."""
    if any(parameter.requires_grad for parameter in step.parameters()):
        return False
    moving = (_BatchNorm, _DropoutNd, StochasticDepth)
    return not any(isinstance(module, moving) and module.training for module in step.modules())
