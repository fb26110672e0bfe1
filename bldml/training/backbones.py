"""The only place that knows an architecture by name: a backbone is a row of data."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn

from bldml.training.errors import TrainingError

BackboneName = Literal["efficientnet_v2_s", "resnet50", "mobilenet_v3_large", "inception_v3", "mobilenet_v2_x0_35"]
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Backbone:
    """What must be known of an architecture.

    Attributes:
        model: Name of the torchvision builder.
        head: Dotted path of the layer that is replaced by one logit.
        stages: Dotted paths of the modules of each stage, the stage nearest the head first. Head and stages together
            hold every parameter exactly once.
        gradcam: Layer whose activations Grad-CAM looks at.
        image_size: Side in pixels that the network was designed for.
        min_size: Smallest side in pixels: the last feature map still has two rows, or what the layers need.
        weights: Name of torchvision's ImageNet weights; None where torchvision has none.
        options: Arguments of the builder.
        dropped: Prefixes of pretrained parameters that this project does not use.
    """

    model: str
    head: str
    stages: tuple[tuple[str, ...], ...]
    gradcam: str
    image_size: int
    min_size: int = 64
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def _features(*blocks: int) -> tuple[str, ...]:
    return tuple(f"features.{block}" for block in blocks)


BACKBONES: dict[BackboneName, Backbone] = {
    "efficientnet_v2_s": Backbone(
        model="efficientnet_v2_s",
        head="classifier.1",
        stages=tuple(_features(block) for block in (7, 6, 5, 4, 3, 2, 1, 0)),
        gradcam="features.7",
        image_size=384,
        weights="IMAGENET1K_V1",
    ),
    "resnet50": Backbone(
        model="resnet50",
        head="fc",
        stages=(("layer4",), ("layer3",), ("layer2",), ("layer1",), ("conv1", "bn1")),
        gradcam="layer4",
        image_size=224,
        weights="IMAGENET1K_V2",
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
        weights="IMAGENET1K_V2",
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
        min_size=107,
        weights="IMAGENET1K_V1",
        # Without weights torchvision's defaults for both differ from those with weights; the auxiliary head is of no
        # use with one logit and fails on a batch of one.
        options={"transform_input": True, "aux_logits": False, "init_weights": True},
        dropped=("AuxLogits.",),
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
        options={"width_mult": 0.35},
    ),
}
assert set(BACKBONES) == set(get_args(BackboneName))


def build(name: BackboneName) -> nn.Module:
    """Build a network of random weights that maps images (n, 3, h, w) to logits (n, 1). Never touches the network.

    Args:
        name: A key of `BACKBONES`.
    """
    row = BACKBONES[name]
    network: nn.Module = torchvision.models.get_model(row.model, weights=None, **row.options)
    old_head = network.get_submodule(row.head)
    assert isinstance(old_head, nn.Linear)
    network.set_submodule(row.head, nn.Linear(old_head.in_features, 1))
    return network


def load_pretrained(network: nn.Module, name: BackboneName, weights: str) -> None:
    """Lay pretrained weights on a network, its head excepted.

    Args:
        network: What `build(name)` made.
        name: Which backbone it is.
        weights: `imagenet` (torchvision's, from its cache or downloaded once), `none`, or a file with a state dict.

    Raises:
        TrainingError: The weights cannot be had or do not fit.
    """
    if weights == "none":
        return
    state = _imagenet_state(name) if weights == "imagenet" else _file_state(Path(weights).expanduser())
    row = BACKBONES[name]
    left_out = (f"{row.head}.", *row.dropped)
    state = {key: value for key, value in state.items() if not key.startswith(left_out)}
    expected = {key: value for key, value in network.state_dict().items() if not key.startswith(left_out)}
    # Files made before PyTorch 0.4.1 or converted from elsewhere lack this counter, which nothing here reads.
    for key in expected.keys() - state.keys():
        if key.endswith("num_batches_tracked"):
            state[key] = expected[key]
    names = expected.keys() | state.keys()
    wrong = sorted(key for key in names if _shape(expected.get(key)) != _shape(state.get(key)))
    if wrong:
        raise TrainingError(
            f"The weights {weights} do not fit {name}: {len(wrong)} of {len(names)} tensors differ in name or "
            f"shape, first {wrong[0]!r} (expected {_shape(expected.get(wrong[0]))}, found "
            f"{_shape(state.get(wrong[0]))}). Give the file of this very architecture."
        )
    network.load_state_dict(state, strict=False)


def weights_file(name: BackboneName) -> Path | None:
    """Where torchvision's ImageNet weights of a backbone lie once they are fetched; None where it has none."""
    row = BACKBONES[name]
    if row.weights is None:
        return None
    url = torchvision.models.get_model_weights(row.model)[row.weights].url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _imagenet_state(name: BackboneName) -> dict[str, Tensor]:
    row = BACKBONES[name]
    file = weights_file(name)
    if row.weights is None or file is None:
        raise TrainingError(f"Torchvision has no ImageNet weights for {name}: give a file, --model.weights FILE.")
    if file.exists():
        return _file_state(file)
    enum = torchvision.models.get_model_weights(row.model)[row.weights]
    try:
        with _connect_timeout(CONNECT_TIMEOUT_S):
            state: dict[str, Tensor] = enum.get_state_dict(progress=True, check_hash=True, weights_only=True)
    # HTTPException: a proxy that answers with something else than HTTP.
    except (OSError, RuntimeError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TrainingError(
            f"The ImageNet weights of {name} are not on this machine and cannot be downloaded ({reason}).\n"
            f"Where there is internet (a login node), download {enum.url}\nand put it, unchanged, at {file}\n"
            "(TORCH_HOME moves that folder); or give a file with --model.weights FILE; or train from random weights "
            "with --model.weights none."
        ) from error
    return state


def _file_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise TrainingError(
            f"The weights file {file} does not exist. --model.weights takes imagenet, none, or a file (.pth)."
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to trigger
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"The weights file {file} cannot be loaded: {first_line} It is damaged or holds more than tensors; "
            "remove it and fetch it again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise TrainingError(f"The weights file {file} is not a state dict (names with tensors).")
    return state


def _shape(value: Tensor | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value.shape)


@contextmanager
def _connect_timeout(seconds: float) -> Iterator[None]:
    """Let a connection that nobody answers fail soon: a compute node drops packets instead of refusing them."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
