"""The table of backbones: one row of data per architecture. No other module knows an architecture by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
import torchvision
from torch import Tensor, nn

# The units in which a network is unfrozen: stages of similar depth, or the blocks of the BLD-ML scripts.
Unit = Literal["stages", "blocks"]
BackboneName = Literal["efficientnet_v2_s", "resnet50", "mobilenet_v3_large", "inception_v3", "mobilenet_v2_x0_35"]
Parts = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Backbone:
    """The facts about an architecture that bldml needs; a path is the dotted name of a module."""

    model: str  # name of the torchvision builder
    head: str  # path of the layer that is replaced by a layer with one logit
    # Paths of the modules of each stage, beginning with the stage nearest the head. Head and stages together hold every
    # parameter exactly once (except `classifier` in a row of `with_whole_classifier`).
    stages: Parts
    gradcam: str  # path of the layer whose activations Grad-CAM uses
    image_size: int  # side in pixels that the network was designed for
    # Paths in forward order, from images to logits, and keys of `FUNCTIONS` for operations that are not modules.
    steps: tuple[str, ...]
    min_size: int = 64  # smallest side in pixels at which the last feature map has two rows and all layers work
    weights: str | None = None  # name of torchvision's ImageNet weights; None if torchvision has none
    options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the builder
    dropped: tuple[str, ...] = ()  # prefixes of pretrained parameters that bldml does not use
    # The stages in smaller parts, in the order in which the scripts behind the BLD-ML paper unfreeze; empty if equal.
    blocks: Parts = ()
    classifier: tuple[str, ...] = ()  # layers of the first stage before the last layer of the pretrained classifier

    def parts(self, unit: Unit) -> Parts:
        """Return the parts of the backbone in this unit, beginning with the part nearest the head."""
        return self.blocks if unit == "blocks" and self.blocks else self.stages

    def with_whole_classifier(self) -> "Backbone":
        """Return this backbone with the whole pretrained classifier outside its stages, to be trained as the head."""

        def without(parts: Parts) -> Parts:
            return tuple(tuple(path for path in part if path not in self.classifier) for part in parts)

        return replace(self, stages=without(self.stages), blocks=without(self.blocks))


def _each(*paths: str) -> Parts:
    return tuple((path,) for path in paths)


def _features(*numbers: int) -> tuple[str, ...]:
    return tuple(f"features.{number}" for number in numbers)


class HalfRange(nn.Module):
    """Rescale from ImageNet's mean and standard deviation to one half each, like Inception's `transform_input`."""

    def forward(self, images: Tensor) -> Tensor:
        """Images float (n, 3, h, w)."""
        channels = ((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))
        scaled = [images[:, i : i + 1] * (std / 0.5) + (mean - 0.5) / 0.5 for i, (std, mean) in enumerate(channels)]
        return torch.cat(scaled, 1).contiguous(memory_format=torch.channels_last)


FUNCTIONS: dict[str, nn.Module] = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1), "half_range": HalfRange()}

BACKBONES: dict[BackboneName, Backbone] = {
    "efficientnet_v2_s": Backbone(
        model="efficientnet_v2_s",
        head="classifier.1",
        stages=tuple(_features(block) for block in (7, 6, 5, 4, 3, 2, 1, 0)),
        gradcam="features.7",
        image_size=384,
        steps=(*_features(*range(8)), "avgpool", "flatten", "classifier.0", "classifier.1"),
        weights="IMAGENET1K_V1",
    ),
    "resnet50": Backbone(
        model="resnet50",
        head="fc",
        stages=(("layer4",), ("layer3",), ("layer2",), ("layer1",), ("conv1", "bn1")),
        gradcam="layer4",
        image_size=224,
        steps=(
            *("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"),
            *("layer4.0", "layer4.1", "layer4.2", "avgpool", "flatten", "fc"),
        ),
        weights="IMAGENET1K_V2",
        blocks=(
            *_each("layer4.2", "layer4.1", "layer4.0"),
            *_each(*(f"layer3.{block}" for block in range(5, -1, -1))),
            *_each(
                *(f"layer{layer}.{block}" for layer, blocks in ((2, 4), (1, 3)) for block in reversed(range(blocks)))
            ),
            ("conv1", "bn1"),
        ),
    ),
    "mobilenet_v3_large": Backbone(
        model="mobilenet_v3_large",
        head="classifier.3",
        stages=(
            ("classifier.0", "features.16"),
            _features(15, 14, 13),
            _features(12, 11),
            _features(10, 9, 8, 7),
            _features(6, 5, 4),
            _features(3, 2),
            _features(1, 0),
        ),
        gradcam="features.16",
        image_size=224,
        steps=(*_features(*range(17)), "avgpool", "flatten", *(f"classifier.{i}" for i in range(4))),
        weights="IMAGENET1K_V2",
        blocks=(("classifier.0", "features.16"), *_each(*_features(*range(15, -1, -1)))),
        classifier=("classifier.0",),
    ),
    "inception_v3": Backbone(
        model="inception_v3",
        head="fc",
        stages=(
            ("Mixed_7c",),
            ("Mixed_7b",),
            ("Mixed_7a",),
            ("Mixed_6e", "Mixed_6d", "Mixed_6c", "Mixed_6b", "Mixed_6a"),
            ("Mixed_5d", "Mixed_5c", "Mixed_5b"),
            ("Conv2d_4a_3x3", "Conv2d_3b_1x1", "Conv2d_2b_3x3", "Conv2d_2a_3x3", "Conv2d_1a_3x3"),
        ),
        gradcam="Mixed_7c",
        image_size=299,
        steps=(
            "half_range",
            *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            *("maxpool2", "Mixed_5b", "Mixed_5c", "Mixed_5d"),
            *(f"Mixed_6{letter}" for letter in "abcde"),
            *("Mixed_7a", "Mixed_7b", "Mixed_7c", "avgpool", "dropout", "flatten", "fc"),
        ),
        min_size=107,
        weights="IMAGENET1K_V1",
        # Without weights torchvision's defaults for both differ from those with weights; the auxiliary head is of no
        # use with one logit and fails on a batch of one.
        options={"transform_input": True, "aux_logits": False, "init_weights": True},
        dropped=("AuxLogits.",),
        blocks=(
            *_each("Mixed_7c", "Mixed_7b", "Mixed_7a", *(f"Mixed_6{letter}" for letter in "edcba")),
            *_each("Mixed_5d", "Mixed_5c", "Mixed_5b"),
            *_each("Conv2d_4a_3x3", "Conv2d_3b_1x1", "Conv2d_2b_3x3", "Conv2d_2a_3x3", "Conv2d_1a_3x3"),
        ),
    ),
    "mobilenet_v2_x0_35": Backbone(
        model="mobilenet_v2",
        head="classifier.1",
        stages=(
            _features(18),
            _features(17),
            _features(16, 15, 14),
            _features(13, 12, 11, 10, 9, 8, 7),
            _features(6, 5, 4, 3, 2, 1, 0),
        ),
        gradcam="features.18",
        image_size=224,
        steps=(*_features(*range(19)), "pool", "flatten", "classifier.0", "classifier.1"),
        options={"width_mult": 0.35},
        blocks=_each(*_features(*range(18, -1, -1))),
    ),
}
assert set(BACKBONES) == set(get_args(BackboneName))


def build(name: BackboneName) -> nn.Module:
    """Build a network of random weights that maps images (n, 3, h, w) to logits (n, 1), without internet access."""
    row = BACKBONES[name]
    network: nn.Module = torchvision.models.get_model(row.model, weights=None, **row.options)
    old_head = network.get_submodule(row.head)
    assert isinstance(old_head, nn.Linear)
    network.set_submodule(row.head, nn.Linear(old_head.in_features, 1))
    return network


def image_size_of(backbone: BackboneName, image_size: int | None) -> int:
    """The image size asked for, or the backbone's own."""
    return BACKBONES[backbone].image_size if image_size is None else image_size
