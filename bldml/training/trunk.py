"""The frozen part of a network: run without autograd, with BatchNorm folded into convolutions, its outputs cached.

Until more layers are unfrozen, the frozen part is a fixed function of an image. None of it needs a gradient, and for a
photograph without augmentation its output is the same in every epoch.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.ops import StochasticDepth

from bldml.training.lightning_internals import is_batchnorm, is_dropout, version_of

# Address and version of each tensor, and the precision: the key differs after any change, whoever made it.
Key = tuple[object, ...]


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the input of a layer, float32 (n, d), at each of its calls within this context."""
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().float()))
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def outputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the output of a layer, as `inputs_of` does its input."""
    found: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: found.append(output.detach().float()))
    try:
        yield found
    finally:
        hook.remove()


class Trunk:
    """A network divided into a frozen part and the rest, which together compute the network's output.

    It is not an nn.Module, so that each parameter has one name and a checkpoint holds nothing twice. Steps are those
    of `backbones.steps_of`; `compiled` uses torch.compile on both parts, `folded` folds BatchNorm into convolutions.
    """

    def __init__(self, steps: Sequence[nn.Module], *, compiled: bool = False, folded: bool = True) -> None:
        self.steps, self.folded = [*steps], folded
        self.compiled = compiled
        self.frozen = 0
        self._rest: Callable[[Tensor], Tensor] | None = None
        self._folded: Callable[[Tensor], Tensor] | None = None
        self._key: Key = ()

    def split(self) -> None:
        """Determine the frozen part: all steps before the first one that is trained or draws random numbers."""
        moving = (number for number, step in enumerate(self.steps) if not is_fixed(step))
        frozen = next(moving, len(self.steps))
        if frozen != self.frozen or self._rest is None:
            self.frozen, self._folded, self._key = frozen, None, ()
            rest = nn.Sequential(*self.steps[frozen:])
            # The training mode of the Sequential itself has no effect; its steps keep their own modes.
            self._rest = torch.compile(rest) if self.compiled else rest

    def key(self, device: torch.device) -> Key:
        """Return everything except the image that the frozen part's output depends on."""
        steps = self.steps[: self.frozen]
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        weights = [(weight.data_ptr(), version_of(weight)) for step in steps for weight in step.parameters()]
        # Buffers without versions: in each step, DDP of torch 2.10 writes the same statistics to every rank's buffers.
        buffers = [buffer.data_ptr() for step in steps for buffer in step.buffers()]
        return (self.frozen, device, dtype, *weights, *buffers)

    def exact(self, images: Tensor) -> Tensor:
        """Return the output of the unfolded frozen part, identical to the last bit to that of an evaluation."""
        with torch.no_grad():
            for step in self.steps[: self.frozen]:
                images = step(images)
            return images

    def features(self, images: Tensor) -> Tensor:
        """Return the output of the folded frozen part for images (n, 3, s, s); the images if nothing is frozen.

        Folded weights round differently in 16 bits. So this is for training only; published results come from `exact`.
        """
        with torch.no_grad():
            key = self.key(images.device)
            if self._folded is None or key != self._key:
                with torch.inference_mode(False):
                    self._folded, self._key = self._fold(images.device), key
            result: Tensor = self._folded(images)
            return result

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (n, 1) from the frozen part's output."""
        if self._rest is None:
            raise RuntimeError("split comes first")
        return self._rest(features)

    def _fold(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        if not self.folded:
            return nn.Sequential(*self.steps[: self.frozen])
        frozen = copy.deepcopy(nn.Sequential(*self.steps[: self.frozen])).eval().requires_grad_(False)
        weight = next(frozen.parameters(), None)
        if weight is None:
            return frozen
        # Autocast would cast the frozen weights again in every step.
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else weight.dtype
        folded: nn.Module = fuse(frozen.float(), inplace=True).to(dtype)
        return torch.compile(folded) if self.compiled else folded


class FeatureCache:
    """Cached outputs of the frozen part for validation batches; emptied when the frozen part changes.

    Whole batches are cached, so that a cached output is identical, bit for bit, to a new computation. Batches beyond
    the limit, in bytes, are computed each time.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._key: Key = ()
        self._batches: dict[tuple[str, ...], Tensor] = {}

    def get(self, names: Sequence[str], key: Key, compute: Callable[[], Tensor], device: torch.device) -> Tensor:
        """Return the features of these photographs, on the device; computed unless cached under this `Trunk.key`."""
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
        """Empty the cache."""
        self._batches.clear()
        self._key, self.used = (), 0


def is_fixed(step: nn.Module) -> bool:
    """Return whether a step is a fixed function of its input as long as its weights do not change."""
    moving = (layer.training and (is_batchnorm(layer) or _draws(layer)) for layer in step.modules())
    return not any(moving) and not any(parameter.requires_grad for parameter in step.parameters())


def _draws(layer: nn.Module) -> bool:
    """Return whether a layer draws random numbers in training mode: dropout and stochastic depth, unless of rate 0."""
    if is_dropout(layer) or isinstance(layer, StochasticDepth):
        return getattr(layer, "p", 1) != 0
    return bool(getattr(layer, "drop_prob", 0))  # timm's DropPath and DropBlock
