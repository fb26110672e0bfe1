"""Pretrained weights: their files, the download, and loading them into a network."""

import shlex
import sys
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn

from bldml.errors import ConfigError, TrainingError, UsageError
from bldml.io.screen import say
from bldml.training.backbones import BACKBONES, BackboneName
from bldml.training.checkpoint import check_numbers, is_state_dict, load_plain
from bldml.training.download import digits, fetch, matches


def load_pretrained(network: nn.Module, name: BackboneName, weights: str) -> None:
    """Load pretrained weights into a network that `build(name)` made, except its head.

    The weights are `imagenet` (torchvision's, downloaded once), `none`, or a file with a state dict.

    Raises:
        TrainingError: The weights are not available or do not fit.
    """
    if weights == "none":
        return
    file = _imagenet_file(name) if weights == "imagenet" else Path(weights).expanduser()
    row, state = BACKBONES[name], _file_state(file)
    left_out = (f"{row.head}.", *row.dropped)
    state = {key: value for key, value in state.items() if not key.startswith(left_out)}
    expected = {key: value for key, value in network.state_dict().items() if not key.startswith(left_out)}
    # Files made before PyTorch 0.4.1 or converted from other programs lack this counter, which bldml does not use.
    for key in expected.keys() - state.keys():
        if key.endswith("num_batches_tracked"):
            state[key] = expected[key]
    wanted, found = ({key: tuple(value.shape) for key, value in tensors.items()} for tensors in (expected, state))
    names = wanted.keys() | found.keys()
    wrong = sorted(key for key in names if wanted.get(key) != found.get(key))
    if wrong:
        first = wrong[0]
        message = f"The weights {weights} do not fit {name}: {len(wrong)} of {len(names)} tensors differ in name or "
        message += f"shape, first {first!r} (expected {wanted.get(first)}, found {found.get(first)}). "
        message += "Give a file of the same architecture."
        raise TrainingError(message, "weights-do-not-fit", path=weights, found=wrong, expected=name)
    network.load_state_dict(state, strict=False)


def weights_url(name: BackboneName) -> str | None:
    """Return the URL of torchvision's ImageNet weights of a backbone; None if there are none."""
    row = BACKBONES[name]
    return None if row.weights is None else str(torchvision.models.get_model_weights(row.model)[row.weights].url)


def weights_file(name: BackboneName, home: Path | None = None) -> Path | None:
    """Return the path of torchvision's ImageNet weights of a backbone after download; None if there are none.

    It is in torch's present cache, or in that of the TORCH_HOME `home`.
    """
    url = weights_url(name)
    hub = Path(torch.hub.get_dir()) if home is None else home / "hub"
    return None if url is None else hub / "checkpoints" / Path(urlparse(url).path).name


def fetch_weights(backbone: str = "all", to: Path | None = None) -> None:
    """Download the ImageNet weights of one backbone or all, and print their paths.

    The folder `to` becomes TORCH_HOME; None is torch's cache.

    Raises:
        UsageError: There is no such backbone, or it has no ImageNet weights.
        TrainingError: Some weights could not be downloaded; all others were.
    """
    known = {str(name): name for name in BACKBONES}
    having = [name for name in BACKBONES if weights_url(name)]
    if backbone != "all" and backbone not in known:
        message = f"There is no backbone {backbone!r}. --backbone takes all, {', '.join(having)}."
        raise UsageError(message, "backbone-unknown", found=backbone, expected=having)
    home = None if to is None else to.expanduser().absolute()
    names, failures = having if backbone == "all" else [known[backbone]], []
    for name in names:
        file, url = weights_file(name, home), weights_url(name)
        if file is None or url is None:
            message = f"Torchvision has no ImageNet weights for {name}; it has for {', '.join(having)}."
            raise UsageError(message, "weights-not-published", found=name, expected=having)
        try:
            state = "downloaded" if fetch(url, file) else "already there"
        except TrainingError as error:
            failures.append(f"{name}: {error}")
        else:
            say(f"{name}: {file} ({file.stat().st_size / 1e6:.1f} MB), {state}\n")
            sys.stdout.flush()
    if home is not None and len(failures) < len(names):
        say(f"For the job script:\nexport TORCH_HOME={shlex.quote(str(home))}\n")
    if failures:
        message = "\n".join(["Some weights could not be fetched.", *failures])
        raise TrainingError(message, "weights-not-fetched", found=failures)


def _imagenet_file(name: BackboneName) -> Path:
    """Return the path of torchvision's file, downloaded if it is missing."""
    file, url = weights_file(name), weights_url(name)
    if file is None or url is None:
        message = f"Torchvision has no ImageNet weights for {name}: give a file, --model.weights FILE."
        raise ConfigError(message, "weights-not-published", found=name)
    remedy = (
        f"With internet access (on a login node), run\n  python -m bldml prefetch --backbone {name}\nwith the "
        "same TORCH_HOME as here (the folder of the cache; both machines must see it). Or give a file with "
        "--model.weights FILE, or train from random weights with --model.weights none."
    )
    if not file.is_file():
        try:
            fetch(url, file)
        except TrainingError as error:
            message = f"The ImageNet weights of {name} are not on this machine: there is no {file}, and {error}"
            raise TrainingError(f"{message}\n{remedy}", "weights-not-at-hand", path=file, reason=str(error)) from error
        return file
    try:
        good = matches(file)
    except OSError as error:
        message = f"The weights file {file} cannot be read: {error.strerror}.\n{remedy}"
        raise TrainingError(message, "weights-unreadable", path=file, reason=error.strerror) from error
    if not good:
        expected = digits(file.name)
        message = f"The weights file {file} is damaged: its SHA-256 does not begin with {expected}, as its name says."
        raise TrainingError(f"{message}\n{remedy}", "weights-damaged", path=file, expected=expected)
    return file


def _file_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        message = f"The weights file {file} does not exist. --model.weights takes imagenet, none, or a file (.pth)."
        raise TrainingError(message, "weights-missing", path=file)
    try:
        state = load_plain(file)
        if not is_state_dict(state):
            message = f"The weights file {file} is not a state dict (names with tensors)."
            raise TrainingError(message, "weights-no-state-dict", path=file)
        check_numbers(state)
    except OSError as error:
        message = f"The weights file {file} cannot be read: {error.strerror}."
        raise TrainingError(message, "weights-file-unreadable", path=file, reason=error.strerror) from error
    except ValueError as error:
        message = f"The weights file {file} cannot be used: {error}. Fetch it again, or give another file."
        raise TrainingError(message, "weights-not-loadable", path=file, reason=str(error)) from error
    return state
