"""All that an exported file computes: calibrated probability, distance from the training photographs, Grad-CAM map."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor, nn

from bldml.inference.exported import DISTANCE, MAP, PROBABILITY
from bldml.inference.gradcam import added_maps
from bldml.metrics.certainty.novelty import AnyNovelty, JointNovelty, Novelty
from bldml.training.backbones import steps_of
from bldml.training.checkpoint import Header
from bldml.training.module import LeafClassifier
from bldml.training.networks.ensemble import Members
from bldml.training.networks.row import Backbone
from bldml.training.trunk import inputs_of, outputs_of

INPUT = "image"


def output_names(has_distance: bool, has_map: bool = True) -> list[str]:
    """Return the names of what `ExportedGraph.forward` returns, in its order."""
    return [PROBABILITY, *([DISTANCE] if has_distance else []), *([MAP] if has_map else [])]


class Distance(nn.Module):
    """`Novelty.distances` in float32: from features (n, d) to distances (n,) in multiples of the limit."""

    def __init__(self, novelty: Novelty) -> None:
        super().__init__()
        for name in ("mean", "basis", "variances"):
            self.register_buffer(name, torch.from_numpy(getattr(novelty, name).copy()))
        self.mean: Tensor
        self.basis: Tensor
        self.variances: Tensor
        self.rest, self.limit = novelty.rest, novelty.limit

    def forward(self, features: Tensor) -> Tensor:
        """Return the distances."""
        centred = features - self.mean
        along = centred @ self.basis.T
        # Not as a difference of two sums of squares, which in float32 would cancel.
        beside = centred - along @ self.basis
        squared = (along**2 / self.variances).sum(1) + (beside**2).sum(1) / self.rest
        return torch.sqrt(squared) / self.limit


class JointDistance(nn.Module):
    """`JointNovelty.distances` in float32: the mean over the networks, in multiples of the limit."""

    def __init__(self, novelty: JointNovelty) -> None:
        super().__init__()
        self.parts = nn.ModuleList(map(Distance, novelty.parts))
        self.widths, self.limit = [part.width for part in novelty.parts], novelty.limit

    def forward(self, features: Tensor) -> Tensor:
        """Return the distances (n,) of features (n, d1 + d2 + …)."""
        pairs = zip(self.parts, torch.split(features, self.widths, 1), strict=True)
        return torch.stack([part(own) for part, own in pairs]).mean(0) / self.limit


class ActivationMap(nn.Module):
    """What `gradcam.grad_cam` adds up, without autograd, in float32: from activations (n, c, h, w) to (n, h, w).

    Between the layer of Grad-CAM and the logit, every backbone has the mean over the image and a few layers whose
    derivatives are written down here. So the mean gradient of a channel is that of the logit by its mean.

    Args:
        head: The layers after the mean, in their order, the last one with one output.
    """

    def __init__(self, head: Sequence[nn.Module]) -> None:
        super().__init__()
        self._head = list(head)  # not a ModuleList, because they are in the network already

    def forward(self, activations: Tensor) -> Tensor:
        """Return the maps."""
        values = activations.mean((2, 3))
        slopes: list[Tensor | None] = []  # None for a layer that passes a gradient on unchanged
        for layer in self._head:
            slopes.append(slope(layer, values))
            values = values if isinstance(layer, nn.Flatten) else layer(values)
        gradient = torch.ones_like(values)
        for layer, factor in zip(reversed(self._head), reversed(slopes), strict=True):
            if isinstance(layer, nn.Linear):
                gradient = gradient @ layer.weight
            elif factor is not None:
                gradient = gradient * factor
        return torch.einsum("nc,nchw->nhw", gradient, activations)


def scaled_map(raw: Tensor) -> Tensor:
    """Return maps (n, h, w) without their negative values, divided by the largest: in [0, 1]."""
    raw = torch.relu(raw)
    largest = raw.amax((1, 2), keepdim=True)
    return torch.where(largest > 0, raw / torch.where(largest > 0, largest, 1), 0)


def slope(layer: nn.Module, values: Tensor) -> Tensor | None:
    """Return the derivative of an elementwise layer at these inputs; None for one that changes nothing, or is linear.

    Raises:
        TypeError: It is another layer.

    >>> slope(nn.Hardswish(), torch.tensor([-4.0, 0.0, 3.5])).tolist()
    [0.0, 0.5, 1.0]
    """
    if isinstance(layer, nn.ReLU):
        return (values > 0).to(values.dtype)
    if isinstance(layer, nn.Hardswish):  # x · clip(x + 3, 0, 6) / 6
        inside = (2 * values + 3) / 6
        return torch.where(values <= -3, 0, torch.where(values >= 3, 1, inside))
    if isinstance(layer, nn.Linear | nn.Dropout | nn.Flatten | nn.Identity):
        return None
    raise TypeError(f"the derivative of {type(layer).__name__} is not known")


def heads_of(model: LeafClassifier) -> list[list[nn.Module]]:
    """Return the layers of each network between the mean over the image, behind the layer of Grad-CAM, and the logit.

    Raises:
        TypeError: Something else follows the layer of Grad-CAM.
    """
    if not model.row.members:
        return [_head_of(model.row, model.network, model.trunk.steps)]
    members, last = cast(Members, model.network.get_submodule("members")), cast(nn.Linear, model.last_layer)
    heads, start = [], 0
    for network, row, width in zip(members, model.row.members, members.widths, strict=True):
        # Its features are some of those that the last layer of the ensemble makes the logit from.
        own = nn.Linear(width, 1, bias=False)
        own.weight = nn.Parameter(last.weight[:, start : start + width].detach().clone())
        heads.append([*_head_of(row, network, steps_of(network, row)), own])
        start += width
    return heads


def _head_of(row: Backbone, network: nn.Module, steps: Sequence[nn.Module]) -> list[nn.Module]:
    if not row.gradcam or row.layout != "channels_first":
        raise TypeError(f"{row.model} has no layer for Grad-CAM")
    within = set(network.get_submodule(row.gradcam).modules())
    (*_, last) = (i for i, step in enumerate(steps) if step in within)
    pool, *head = steps[last + 1 :]
    # timm's own pooling is a mean in its first step, and perhaps flattens.
    if not (isinstance(pool, nn.AdaptiveAvgPool2d) or getattr(pool, "pool_type", "") == "avg"):
        raise TypeError(f"{row.gradcam} is followed by {type(pool).__name__}, not by a mean over the image")
    return head


def has_map(model: LeafClassifier) -> bool:
    """Return whether the exported file can contain Grad-CAM: whether `ActivationMap` knows what follows its layer.

    All of torchvision's backbones have it; of timm's those that end with a mean and a linear layer.
    """
    try:
        for head in heads_of(model):
            for layer in head:
                slope(layer, torch.zeros(1))
    except TypeError:
        return False
    return True


class ExportedGraph(nn.Module):
    """The classifier with everything that comes before and after its network, in float32.

    Args:
        model: The classifier with its weights. It is put into evaluation mode.
        header: Description of its checkpoint, for temperature and offset.
        novelty: The distribution of its training photographs; None if not recorded.
    """

    def __init__(self, model: LeafClassifier, header: Header, novelty: AnyNovelty | None) -> None:
        super().__init__()
        model.eval()
        # In lists, because they are in the network already.
        self.maps = nn.ModuleList(map(ActivationMap, heads_of(model)) if has_map(model) else ())
        layers = model.row.gradcam_layers() if self.maps else []
        self._last_layer, self._layers = [model.last_layer], [model.network.get_submodule(path) for path, _ in layers]
        self.distance: nn.Module | None = None
        if novelty is not None:
            self.distance = JointDistance(novelty) if isinstance(novelty, JointNovelty) else Distance(novelty)
        self.normalization = model.normalization
        self.network = model.network
        self.point = header.operating_point

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, one for each of `output_names`: float32 (n,), the map (n, rows, columns).

        Args:
            image: uint8 (n, s, s, 3), red, green and blue: the whole upright photograph, resized to a square.
        """
        with inputs_of(self._last_layer[0]) as features, ExitStack() as stack:
            activations = [stack.enter_context(outputs_of(layer)) for layer in self._layers]
            logit = self.network(self.normalization(image.permute(0, 3, 1, 2))).squeeze(1)
        probability = torch.sigmoid((logit - self.point.offset) / self.point.temperature)
        found = {PROBABILITY: probability}
        if self.maps:
            found[MAP] = scaled_map(added_maps([one(a[0]) for one, a in zip(self.maps, activations, strict=True)]))
        if self.distance is not None:
            found[DISTANCE] = self.distance(features[0])
        return tuple(found[name] for name in output_names(self.distance is not None, bool(self.maps)))
