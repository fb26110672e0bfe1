"""Rows of the table of backbones for the architectures of timm, made from timm's own metadata."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from torch import nn

from bldml.errors import ConfigError
from bldml.training.networks.row import Backbone, Layout, Parts
from bldml.training.networks.tracing import shapes_of, traced_steps

PREFIX = "timm:"
# An architecture and, after a dot, the tag of its pretrained weights. No path, and no name of a hub.
NAME_PATTERN = r"^timm:[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?$"
INSTALL = "pip install 'bldml[timm]'"


def is_timm(name: object) -> bool:
    """Return whether a name of a backbone has the form of one of timm, such as timm:convnextv2_nano."""
    return isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) is not None


def timm_library() -> Any:
    """Return the package timm; a ConfigError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        message = f"A backbone that begins with timm: needs the package timm, which cannot be imported ({error}). "
        message += f"Install it: {INSTALL}"
        raise ConfigError(message, "timm-not-installed", reason=str(error)) from error
    return timm


def pretrained_of(name: str) -> Any:
    """Return timm's description of an architecture and its weights: the `PretrainedCfg`.

    Raises:
        ConfigError: The installed timm has no such architecture, or no such weights for it.
    """
    timm, plain = timm_library(), name.removeprefix(PREFIX)
    architecture, _, tag = plain.partition(".")
    known = timm.is_model(architecture)
    tags = {one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")} if known else set()
    if not known or (tag and tag not in tags):
        if known:
            near = [f"{PREFIX}{architecture}.{one}" for one in sorted(tags)]
        else:
            near = [PREFIX + one for one in get_close_matches(architecture, timm.list_models(), 3)]
        has = f"It has {', '.join(near)}." if near else "timm.list_models() in Python lists what it has."
        message = f"timm {timm.__version__}, which is installed here, has no {plain}. {has}"
        raise ConfigError(message, "timm-backbone-unknown", found=name, expected=near)
    return timm.get_pretrained_cfg(plain)


def build_timm(name: str, image_size: int | None = None) -> nn.Module:
    """Build an architecture of timm with one logit and random weights; a ConfigError if that is not possible."""
    settings, timm = pretrained_of(name), timm_library()
    size = {"img_size": image_size} if settings.fixed_input_size and image_size is not None else {}
    try:
        network: nn.Module = timm.create_model(name.removeprefix(PREFIX), pretrained=False, num_classes=1, **size)
    except Exception as error:  # of the architecture's own code
        raise refused(name, f"timm cannot build it with one logit: {error}") from error
    return network


def refused(name: str, reason: str) -> ConfigError:
    """Return the error for an architecture that bldml cannot use."""
    message = f"{name} cannot be the backbone: {reason}. Choose another architecture."
    return ConfigError(message, "timm-backbone-refused", found=name, reason=reason)


@cache
def timm_row(name: str) -> Backbone:
    """Return the row of an architecture; nothing is computed and no weights are allocated.

    Raises:
        ConfigError: timm is not installed or has no such architecture, or it does not end with one linear layer.
    """
    settings = pretrained_of(name)
    with torch.device("meta"):
        network = build_timm(name)
    classifier: Any = network.get_classifier()  # type: ignore[operator]  # every model of timm has it
    head = next((path for path, module in network.named_modules() if module is classifier), "")
    if not (head and isinstance(classifier, nn.Linear)):
        raise refused(name, "it does not end with one linear layer")
    if not (len(settings.mean) == len(settings.std) == 3 and min(settings.std) > 0):
        raise refused(name, "it does not take images of three channels")
    try:
        stages, blocks = _parts(network, head, coarse=True), _parts(network, head, coarse=False)
        patches = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
        patch = int(patches[0]) if settings.fixed_input_size else 1
        farthest = max((int(info["reduction"]) for info in getattr(network, "feature_info", [])), default=32)
        row = Backbone(
            model=name.removeprefix(PREFIX),
            head=head,
            stages=stages,
            gradcam="",
            image_size=int(settings.input_size[-1]),
            steps=(),
            mean=tuple(map(float, settings.mean)),
            std=tuple(map(float, settings.std)),
            min_size=2 * max(patch, farthest),
            blocks=() if blocks == stages else blocks,
            patch=patch,
        )
        return _with_gradcam(network, replace(row, min_size=_smallest(network.eval(), row)))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise refused(name, f"timm's description of it cannot be used ({error})") from error


def _smallest(network: nn.Module, row: Backbone) -> int:
    """Return the smallest side of an image, from that of the row on, that all layers take; at most the default."""
    if row.patch > 1:  # built for one size, which `check_side` tries
        return row.min_size
    for size in range(row.min_size, row.image_size, 32):
        with suppress(Exception):  # of the architecture's own code
            shapes_of([network], size)
            return size
    return row.image_size


def check_side(name: str, image_size: int) -> None:
    """Check that an architecture takes images of this side, without computing; a ConfigError if not."""
    with torch.device("meta"):
        network = build_timm(name, image_size).eval()
    try:
        shapes_of([network], image_size)
    except Exception as error:  # of the architecture's own code
        message = f"{name} does not take images of {image_size} px ({error}). Its own size is "
        message += f"{timm_row(name).image_size} px."
        raise ConfigError(message, "timm-size-refused", found=image_size, reason=str(error)) from error


def _parts(network: Any, head: str, *, coarse: bool) -> Parts:
    """Return the groups of timm's `group_matcher`, from the head downwards, as paths of modules and parameters.

    What belongs to no group, such as a norm after the last block, is in the group nearest the head.
    """
    from timm.models import group_parameters

    group_of: dict[str, int] = group_parameters(network, network.group_matcher(coarse=coarse), reverse=True)
    names = [name for name, _ in network.named_parameters() if not name.startswith(f"{head}.")]
    matched = network.group_matcher(coarse=coarse)
    numbers = sorted({group_of[name] for name in names})
    # timm numbers what no pattern matches last, with the classifier.
    if len(numbers) > 1 and numbers[-1] == max(group_of.values()) and _is_unmatched(network, matched, numbers[-1]):
        group_of = {name: min(number, numbers[-2]) for name, number in group_of.items()}
        numbers.pop()
    group_of |= {name: -1 for name in group_of if name.startswith(f"{head}.")}
    return tuple(tuple(reversed([*_paths(network, group_of, number)])) for number in reversed(numbers))


def _is_unmatched(network: Any, matcher: Any, last: int) -> bool:
    from timm.models import group_parameters

    groups: dict[Any, list[str]] = group_parameters(network, matcher, reverse=False)
    classifier = network.get_classifier()
    own = {name for name, p in network.named_parameters() if any(p is one for one in classifier.parameters())}
    return bool(own & set(groups[last]))


def _paths(module: nn.Module, group_of: dict[str, int], number: int, prefix: str = "") -> Iterator[str]:
    """Yield the largest modules, and the parameters of the network itself, that are wholly in one group."""
    for name, _ in module.named_parameters(recurse=False):
        if group_of[prefix + name] == number:
            yield prefix + name
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        groups = {group_of[f"{path}.{below}"] for below, _ in child.named_parameters()}
        if groups == {number}:
            yield path
        elif number in groups:
            yield from _paths(child, group_of, number, f"{path}.")


def _with_gradcam(network: nn.Module, row: Backbone) -> Backbone:
    """Return the row with the last layer whose activations are an image, if there is one."""
    size = max(row.image_size, row.min_size)
    steps = traced_steps(network.eval(), row)
    shapes = shapes_of(steps, size)
    name_of = {id(module): path for path, module in network.named_modules() if path}
    found: tuple[str, Layout] = ("", "channels_first")
    for step, shape in zip(steps, shapes, strict=True):
        layout = _layout(shape)
        if layout is not None and id(step) in name_of:
            found = name_of[id(step)], layout
        elif len(shape) == 3:  # tokens: what came before is not the last of the image
            found = "", "channels_first"
    if found[0]:
        return replace(row, gradcam=found[0], layout=found[1])
    return _with_tokens(network, row)


def _layout(shape: tuple[int, ...]) -> Layout | None:
    """Return how the output of a step is an image; None if it is none, or one of a single pixel."""
    if len(shape) != 4:
        return None
    if shape[2] == shape[3] > 1:
        return "channels_first"
    return "channels_last" if shape[1] == shape[2] > 1 else None


def _with_tokens(network: Any, row: Backbone) -> Backbone:
    """Return the row with the first norm of a vision transformer's last block.

    Behind it, only the class token may reach the logit, so that no gradient would reach the tokens of the image.
    """
    blocks, prefix = getattr(network, "blocks", None), getattr(network, "num_prefix_tokens", None)
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if not (isinstance(blocks, nn.Sequential | nn.ModuleList) and isinstance(prefix, int) and grid):
        return row
    path, found = f"blocks.{len(blocks) - 1}.norm1", []
    if path not in dict(network.named_modules()):
        return row
    hook = network.get_submodule(path).register_forward_hook(lambda _, inputs, output: found.append(output.shape))
    try:
        shapes_of([network], row.image_size)
    finally:
        hook.remove()
    if not found or len(found[0]) != 3 or grid[0] != grid[1] or found[0][1] != prefix + grid[0] * grid[1]:
        return row
    return replace(row, gradcam=path, layout="tokens", prefix=prefix)
