"""The table of backbones: one row of data per architecture. No other module knows an architecture by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torchvision
from jsonargparse.typing import restricted_string_type
from torch import Tensor, nn

from bldml.errors import ConfigError
from bldml.training.networks.ensemble import architectures_of, ensemble_row, is_ensemble, join_networks
from bldml.training.networks.row import Backbone, Parts, Unit
from bldml.training.networks.timm_rows import NAME_PATTERN, build_timm, check_side, is_timm, timm_row
from bldml.training.networks.tracing import traced_steps

BackboneName = Literal["efficientnet_v2_s", "resnet50", "mobilenet_v3_large", "inception_v3", "mobilenet_v2_x0_35"]
if TYPE_CHECKING:
    TimmName = str
    EnsembleName = str
else:
    TimmName = restricted_string_type(
        "TimmName", NAME_PATTERN, docstring="Name of an architecture of timm, such as timm:convnextv2_nano."
    )
    EnsembleName = restricted_string_type(
        "EnsembleName", r"^ensemble:[^\s]{1,9999}$", docstring="Name of an ensemble, such as ensemble:resnet50*3."
    )
__all__ = ["BACKBONES", "FUNCTIONS", "Backbone", "BackboneName", "EnsembleName", "TimmName", "Unit"]


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


COMPUTED_BYTES = 2**30  # of buffers that no checkpoint holds; more only beside large weights
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


def is_backbone(name: object) -> bool:
    """Return whether a checkpoint may name this backbone: one of the table, of timm, or an ensemble of such."""
    if is_ensemble(name):
        try:
            return all(is_backbone(one) and not is_ensemble(one) for one in architectures_of(str(name)))
        except ValueError:
            return False
    return is_timm(name) or (isinstance(name, str) and name in BACKBONES)


def is_in_table(name: object) -> bool:
    """Return whether everything about a backbone is known here, without timm and before weights are read."""
    return isinstance(name, str) and name in BACKBONES


def row_of(name: BackboneName | TimmName) -> Backbone:
    """Return the facts about a backbone; for one of timm, from timm's own metadata.

    Raises:
        ConfigError: There is no such backbone, timm is not installed, or the architecture cannot be used.
    """
    if is_ensemble(name):
        if not is_backbone(name):
            message = f"{name[:200]} is not the name of an ensemble, such as ensemble:resnet50*3,inception_v3."
            raise ConfigError(message, "ensemble-name-wrong", found=name)
        return ensemble_row([row_of(one) for one in architectures_of(name)])
    if is_timm(name):
        return timm_row(name)
    if name not in BACKBONES:
        message = f"There is no backbone {name!r}: model.backbone is {', '.join(BACKBONES)}, or timm:NAME."
        raise ConfigError(message, "no-such-backbone", found=name, expected=[*BACKBONES])
    return BACKBONES[name]


def build(name: BackboneName | TimmName, image_size: int | None = None) -> nn.Module:
    """Build a network of random weights that maps images (n, 3, h, w) to logits (n, 1), without internet access.

    The image size matters only to networks that are built for one, such as vision transformers.
    """
    if is_ensemble(name):
        names = architectures_of(name)
        return join_networks([row_of(one) for one in names], [build(one, image_size) for one in names])
    if is_timm(name):
        return build_timm(name, image_size)
    row = row_of(name)
    network: nn.Module = torchvision.models.get_model(row.model, weights=None, **row.options)
    old_head = network.get_submodule(row.head)
    assert isinstance(old_head, nn.Linear)
    network.set_submodule(row.head, nn.Linear(old_head.in_features, 1))
    return network


def steps_of(network: nn.Module, row: Backbone) -> list[nn.Module]:
    """Return the modules that one after the other compute what the network does."""
    if not row.steps:
        return traced_steps(network, row)
    return [FUNCTIONS[step] if step in FUNCTIONS else network.get_submodule(step) for step in row.steps]


def image_size_of(backbone: BackboneName | TimmName, image_size: int | None) -> int:
    """The image size asked for, or the backbone's own."""
    return row_of(backbone).image_size if image_size is None else image_size


def check_shapes(backbone: BackboneName | TimmName, image_size: int, state: Mapping[str, Tensor]) -> str:
    """Return the first difference between a classifier's state dict and the backbone's tensors; empty if none.

    Nothing is allocated, so that a small file cannot name a huge network: neither by its weights, which it would have
    to hold, nor by buffers that are computed and not stored, as for relative positions, which grow with the fourth
    power of the image size; see `too_large_tables`.
    """
    with torch.device("meta"):
        network = build(backbone, image_size)
    prefix = "network."
    wanted = {prefix + key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items() if key.startswith(prefix)}
    wrong = next((key for key in sorted(wanted.keys() | found.keys()) if wanted.get(key) != found.get(key)), None)
    if wrong is not None:
        return f"{wrong} has the shape {found.get(wrong)}, expected {wanted.get(wrong)}"
    computed = too_large_tables(network, len(architectures_of(backbone)) if is_ensemble(backbone) else 1)
    return computed and f"at {image_size} px it computes {computed} of tables that are not in the file"


def too_large_tables(network: nn.Module, members: int = 1) -> str:
    """Return the size of the buffers that a network computes and no checkpoint holds, if that is more than allowed.

    Allowed are 1 GiB for each member of an ensemble, or four times the size of the weights; then the result is empty.
    """
    stored = network.state_dict()
    size = sum(buffer.nbytes for key, buffer in network.named_buffers() if key not in stored)
    allowed = max(members * COMPUTED_BYTES, 4 * sum(value.nbytes for value in stored.values()))
    return f"{size / 2**30:.1f} GiB" if size > allowed else ""


def checked_image_size(backbone: BackboneName | TimmName, image_size: int | None, largest: int) -> int:
    """Return `image_size_of` a backbone if the backbone can use it; otherwise raise a ConfigError."""
    row, size = row_of(backbone), image_size_of(backbone, image_size)
    if not row.min_size <= size <= largest:
        message = f"model.image_size must be from {row.min_size} to {largest} px for {backbone} "
        message += f"(default {row.image_size}), not {size}."
        raise ConfigError(message, "image-size-wrong", found=size, expected=row.min_size)
    if size % row.patch:
        message = f"model.image_size must be a multiple of {row.patch} px for {backbone}, which divides an image into "
        message += f"patches of that size (default {row.image_size}), not {size}."
        raise ConfigError(message, "image-size-no-multiple", found=size, expected=row.patch)
    for one in architectures_of(backbone) if is_ensemble(backbone) else (backbone,):
        if is_timm(one):
            check_side(one, size)
            with torch.device("meta"):
                tables = too_large_tables(build(one, size))
            if tables:  # its checkpoint would be refused
                message = f"At {size} px, {one} computes {tables} of tables beside its weights. Choose a smaller "
                message += f"model.image_size (default {row.image_size}), or another backbone."
                raise ConfigError(message, "image-size-needs-tables", found=size)
    return size
