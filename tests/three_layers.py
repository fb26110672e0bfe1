"""A network of three convolutions as a further row of BACKBONES: a fit of it takes half as long as of a real one.

Importing this adds the row, which must come before whatever imports the names of the backbones: `conftest.py` does it
first of all. A process of its own has it by `python -m tests.three_layers fit …` instead of `python -m bldml fit …`.
"""

from collections import OrderedDict
from typing import Any, Literal

from torch import nn
from torchvision.models._api import register_model

from bldml.training import backbones

NAME: Any = "three_layers"  # which no Literal of the package knows


def convolution(before: int, after: int) -> nn.Module:
    layer = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


def network(weights: None = None) -> nn.Module:
    """With BatchNorm and dropout, which draw and remember as those of a real network do."""
    layers: dict[str, nn.Module] = OrderedDict(first=convolution(3, 8), second=convolution(8, 16))
    layers |= {"third": convolution(16, 32), "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1)}
    return nn.Sequential(OrderedDict(layers | {"dropout": nn.Dropout(0.2), "head": nn.Linear(32, 1000)}))


register_model(NAME)(network)  # by which `build` finds it
ROWS: dict[Any, backbones.Backbone] = backbones.BACKBONES
ROWS[NAME] = backbones.Backbone(
    model=NAME,
    head="head",
    # The BatchNorm of a layer thaws before its convolution: a fit thaws four stages unless it is told otherwise.
    stages=tuple((f"{layer}.{part}",) for layer in ("third", "second", "first") for part in (1, 0)),
    gradcam="third",
    image_size=64,
    min_size=16,
    steps=("first", "second", "third", "pool", "flatten", "dropout", "head"),
)
backbones.BackboneName = Literal[tuple(ROWS)]

if __name__ == "__main__":
    from bldml.__main__ import run

    run()
