"""Several trained networks as one, whose logit is the mean of their calibrated logits.

The last layer of each is linear, so the mean is one linear layer on the features of all of them side by side. What is
known of the last layer of a network (its features, Grad-CAM, an export) is so known of an ensemble too.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bldml.metrics.operating_point import OperatingPoint
from bldml.training.networks.row import Backbone
from bldml.training.transforms import MEAN, STD

PREFIX = "ensemble:"
MOST_MEMBERS = 64
_NETWORK, _HEAD = "network.", "head"


class Member(NamedTuple):
    """A trained network that becomes part of an ensemble.

    Args:
        row: Its architecture.
        state_dict: Parameters and buffers of its `LeafClassifier`.
        point: Temperature and offset that calibrate its logits.
    """

    row: Backbone
    state_dict: Mapping[str, Tensor]
    point: OperatingPoint


def is_ensemble(name: object) -> bool:
    """Return whether a name of a backbone is one of an ensemble, such as ensemble:resnet50*3."""
    return isinstance(name, str) and name.startswith(PREFIX)


def ensemble_name(backbones: Sequence[str]) -> str:
    """Return the name of the architecture of an ensemble of networks of these architectures, in their order.

    >>> ensemble_name(["resnet50", "resnet50", "inception_v3"])
    'ensemble:resnet50*2,inception_v3'
    """
    counted = [(name, len(list(equal))) for name, equal in groupby(backbones)]
    return PREFIX + ",".join(name if count == 1 else f"{name}*{count}" for name, count in counted)


def architectures_of(name: str) -> tuple[str, ...]:
    """Return the architectures of the networks in an ensemble.

    Raises:
        ValueError: It is not the name of an ensemble of 2 to `MOST_MEMBERS` networks.

    >>> architectures_of("ensemble:resnet50*2,inception_v3")
    ('resnet50', 'resnet50', 'inception_v3')
    """
    found: list[str] = []
    for part in name.removeprefix(PREFIX).split(","):
        backbone, _, number = part.partition("*")
        count = int(number) if number.isascii() and number.isdecimal() and len(number) < 4 else 0 if number else 1
        found += [backbone] * min(count, MOST_MEMBERS + 1)
        if not count or len(found) > MOST_MEMBERS:
            break
    if not 2 <= len(found) <= MOST_MEMBERS or ensemble_name(found) != name:
        raise ValueError(f"{name[:100]} is not the name of an ensemble")
    return tuple(found)


class Members(nn.ModuleList):
    """Networks without their last layers, side by side.

    Args:
        networks: They map normalised images to features.
        rows: Their architectures, which say by which mean and deviation each wants its images normalised.
        widths: Number of features of each.
    """

    def __init__(self, networks: Sequence[nn.Module], rows: Sequence[Backbone], widths: Sequence[int]) -> None:
        super().__init__(networks)
        self.widths = [*widths]
        self.rescaled = [None if (row.mean, row.std) == (MEAN, STD) else Rescaled(row.mean, row.std) for row in rows]

    def forward(self, images: Tensor) -> Tensor:
        """Return their features (n, d1 + d2 + …) of images (n, 3, s, s), which ImageNet's constants normalised."""
        pairs = zip(self, self.rescaled, strict=True)
        return torch.cat([network(rescaled(images) if rescaled else images) for network, rescaled in pairs], 1)


class Rescaled(NamedTuple):
    """Mean and standard deviation of each channel, by which images are to be normalised instead of ImageNet's."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (n, 3, h, w), normalised anew."""
        scale = [before / after for before, after in zip(STD, self.std, strict=True)]
        shift = [(before - after) / std for before, after, std in zip(MEAN, self.mean, self.std, strict=True)]
        factor, summand = (images.new_tensor(numbers).view(3, 1, 1) for numbers in (scale, shift))
        return images * factor + summand


def ensemble_row(rows: Sequence[Backbone]) -> Backbone:
    """Return the facts about an ensemble of networks of these architectures, which is evaluated and never trained."""
    return Backbone(
        model="",
        head=_HEAD,
        stages=(("members",),),
        gradcam="members" if all(row.gradcam for row in rows) else "",
        image_size=max(row.image_size for row in rows),
        steps=("members", _HEAD),
        patch=math.lcm(*(row.patch for row in rows)),
        min_size=max(row.min_size for row in rows),
        members=tuple(rows),
    )


def join_networks(rows: Sequence[Backbone], networks: Sequence[nn.Module]) -> nn.Module:
    """Return an ensemble of networks that map images (n, 3, s, s) to logits (n, 1); they lose their heads."""
    widths = []
    for row, network in zip(rows, networks, strict=True):
        head = network.get_submodule(row.head)
        assert isinstance(head, nn.Linear)
        widths.append(head.in_features)
        network.set_submodule(row.head, nn.Identity())
    return nn.Sequential(OrderedDict(members=Members(networks, rows, widths), head=nn.Linear(sum(widths), 1)))


def join_weights(members: Sequence[Member]) -> dict[str, Tensor]:
    """Return parameters and buffers of the `LeafClassifier` of an ensemble, whose own temperature is then 1.

    Weights and bias of each last layer are those for its calibrated logit, (logit - offset) / temperature, divided by
    the number of members; they are computed in float64 and rounded to float32 once.
    """
    state, weights, bias = {}, [], torch.zeros(1, dtype=torch.float64)
    for number, (row, state_dict, point) in enumerate(members):
        factor = 1 / (point.temperature * len(members))
        head = f"{_NETWORK}{row.head}."
        weights.append(state_dict[f"{head}weight"].double() * factor)
        bias += (state_dict[f"{head}bias"].double() - point.offset) * factor
        for name, value in state_dict.items():
            if name.startswith(_NETWORK) and not name.startswith(head):
                state[f"{_NETWORK}members.{number}.{name.removeprefix(_NETWORK)}"] = value
    state[f"{_NETWORK}{_HEAD}.weight"] = torch.cat(weights, 1).float()
    state[f"{_NETWORK}{_HEAD}.bias"] = bias.float()
    return {"pos_weight": torch.ones(()), **state}
