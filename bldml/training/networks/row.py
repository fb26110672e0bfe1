"""What a row of the table of backbones says, and the parts of a network that it names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from bldml.io.arguments import check_choices
from bldml.training.transforms import MEAN, STD

# The units in which a network is unfrozen: stages of similar depth, or the blocks of the BLD-ML scripts.
Unit = Literal["stages", "blocks"]
Parts = tuple[tuple[str, ...], ...]
# How a layer arranges its activations: (n, c, h, w), (n, h, w, c), or tokens (n, prefix + h·w, c).
Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Backbone:
    """The facts about an architecture that bldml needs; a path is the dotted name of a module."""

    model: str  # name of torchvision's builder, or of timm's
    head: str  # path of the layer that is replaced by a layer with one logit
    # Paths of the modules, or of single parameters, of each stage, beginning with the stage nearest the head. Head and
    # stages together hold every parameter exactly once (except `classifier` in a row of `with_whole_classifier`).
    stages: Parts
    gradcam: str  # path of the layer whose activations Grad-CAM uses; empty if there is none
    image_size: int  # side in pixels that the network was designed for
    # Paths in forward order, from images to logits, and keys of `FUNCTIONS` for operations that are not modules; empty
    # if they are found by tracing the network.
    steps: tuple[str, ...]
    mean: tuple[float, ...] = MEAN  # of each channel, that the weights expect of normalised images
    std: tuple[float, ...] = STD
    patch: int = 1  # the side of an image must be a multiple of this many pixels
    layout: Layout = "channels_first"  # of the activations that Grad-CAM uses
    prefix: int = 0  # tokens before those of the image, in the layout `tokens`
    min_size: int = 64  # smallest side in pixels at which the last feature map has two rows and all layers work
    weights: str | None = None  # name of torchvision's ImageNet weights; None if torchvision has none
    options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the builder
    dropped: tuple[str, ...] = ()  # prefixes of pretrained parameters that bldml does not use
    # The stages in smaller parts, in the order in which the scripts behind the BLD-ML paper unfreeze; empty if equal.
    blocks: Parts = ()
    classifier: tuple[str, ...] = ()  # layers of the first stage before the last layer of the pretrained classifier
    members: tuple["Backbone", ...] = ()  # of an ensemble: the rows of its networks, each at `members.<number>`

    def parts(self, unit: Unit) -> Parts:
        """Return the parts of the backbone in this unit, beginning with the part nearest the head."""
        check_choices("unfreezing", Backbone.parts, {"unit": unit})
        return self.blocks if unit == "blocks" and self.blocks else self.stages

    def gradcam_layers(self) -> list[tuple[str, "Backbone"]]:
        """Return the paths of the layers of Grad-CAM, one for each network, with its row; empty if there are none."""
        if not self.members:
            return [(self.gradcam, self)] if self.gradcam else []
        layers = [(f"members.{number}.{row.gradcam}", row) for number, row in enumerate(self.members)]
        return layers if all(row.gradcam for row in self.members) else []

    def with_whole_classifier(self) -> "Backbone":
        """Return this backbone with the whole pretrained classifier outside its stages, to be trained as the head."""

        def without(parts: Parts) -> Parts:
            return tuple(tuple(path for path in part if path not in self.classifier) for part in parts)

        return replace(self, stages=without(self.stages), blocks=without(self.blocks))


def parameters_of(network: nn.Module, part: tuple[str, ...]) -> Iterator[nn.Parameter]:
    """Yield the parameters of the modules, and the parameters, that these paths name."""
    named = dict(network.named_parameters(recurse=False))
    for path in part:
        if path in named:
            yield named[path]
        else:
            yield from network.get_submodule(path).parameters()


def set_part(network: nn.Module, part: tuple[str, ...], *, trains: bool, training: bool) -> None:
    """Set whether the parameters of a part are trained, and the mode of its modules."""
    for parameter in parameters_of(network, part):
        parameter.requires_grad_(trains)
    for path in part:
        if path not in dict(network.named_parameters(recurse=False)):
            network.get_submodule(path).train(training)
