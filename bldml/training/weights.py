"""Pretrained weights: their files, the download, and loading them into a network."""

import sys
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn

from bldml.dataset.files import shell_word
from bldml.errors import ConfigError, TrainingError, UsageError
from bldml.io.screen import say
from bldml.training.backbones import BACKBONES, BackboneName, TimmName, row_of
from bldml.training.checkpoint import check_numbers, is_state_dict, load_plain
from bldml.training.download import ANSWER_S, digits, fetch, matches, probe
from bldml.training.networks.timm_rows import is_timm
from bldml.training.networks.timm_weights import as_in_timm, fetch_timm, hub_url, is_whole, timm_file


def load_pretrained(network: nn.Module, name: BackboneName | TimmName, weights: str) -> None:
    """Load pretrained weights into a network that `build(name)` made, except its head.

    The weights are `imagenet` (torchvision's, or timm's published ones; downloaded once), `none`, or a file with a
    state dict.

    Raises:
        TrainingError: The weights are not available or do not fit.
    """
    if weights == "none":
        return
    if weights != "imagenet":
        file = Path(weights).expanduser()
    else:
        file = _timm_file(name) if is_timm(name) else _imagenet_file(name)
    row, state = row_of(name), _file_state(file)
    if is_timm(name):
        state = _converted(network, state, weights, name)
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


def weights_url(name: BackboneName | TimmName) -> str | None:
    """Return the URL of torchvision's ImageNet weights of a backbone; None if there are none."""
    row = row_of(name)
    return None if row.weights is None else str(torchvision.models.get_model_weights(row.model)[row.weights].url)


def weights_file(name: BackboneName | TimmName, home: Path | None = None) -> Path | None:
    """Return the path of torchvision's ImageNet weights of a backbone after download; None if there are none.

    It is in torch's present cache, or in that of the TORCH_HOME `home`.
    """
    url = weights_url(name)
    hub = Path(torch.hub.get_dir()) if home is None else home / "hub"
    return None if url is None else hub / "checkpoints" / Path(urlparse(url).path).name


def fetch_weights(backbone: str = "all", to: Path | None = None) -> None:
    """Download the ImageNet weights of one backbone or all, and print their paths.

    The folder `to` becomes TORCH_HOME; None is torch's cache. The weights of a backbone of timm are in the cache of the
    Hugging Face hub, in `to` as HF_HOME.

    Raises:
        UsageError: There is no such backbone, or it has no ImageNet weights.
        TrainingError: Some weights could not be downloaded; all others were.
    """
    known = {str(name): name for name in BACKBONES}
    having = [name for name in BACKBONES if weights_url(name)]
    if backbone != "all" and backbone not in known and not is_timm(backbone):
        message = f"There is no backbone {backbone!r}. --backbone takes all, {', '.join(having)}, or timm:NAME."
        raise UsageError(message, "backbone-unknown", found=backbone, expected=having)
    home = None if to is None else to.expanduser().absolute()
    if is_timm(backbone):
        there = fetch_timm(backbone, home)
        say(f"{backbone}: {there} ({there.stat().st_size / 1e6:.1f} MB)\n")
        if home is not None:
            say(f"For the job script:\nexport HF_HOME={shell_word(home)}\n")
        return
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
        say(f"For the job script:\nexport TORCH_HOME={shell_word(home)}\n")
    if failures:
        message = "\n".join(["Some weights could not be fetched.", *failures])
        raise TrainingError(message, "weights-not-fetched", found=failures)


def _imagenet_file(name: BackboneName | TimmName) -> Path:
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


def _timm_file(name: TimmName) -> Path:
    """Return the path of timm's published weights in the hub's cache, downloaded if they are missing."""
    file = timm_file(name)
    remedy = (
        f"With internet access (on a login node), run\n  python -m bldml prefetch --backbone {name}\nwith the same "
        "HF_HOME as here (both machines must see it). Or give a file with --model.weights FILE, or train from random "
        "weights with --model.weights none."
    )
    if file is None:
        try:
            probe(hub_url(), ANSWER_S)
            return fetch_timm(name)
        except TrainingError as error:
            message = f"The weights of {name} are not on this machine, and {error}\n{remedy}"
            raise TrainingError(message, "timm-weights-not-at-hand", found=name, reason=str(error)) from error
    if not is_whole(file):
        message = f"The weights file {file} is damaged: it has not the SHA-256 that the hub named it by. Remove it.\n"
        raise TrainingError(message + remedy, "timm-weights-damaged", path=file)
    return file


def _converted(network: nn.Module, state: dict[str, Tensor], weights: str, name: TimmName) -> dict[str, Tensor]:
    """Return weights under the names and for the size of timm's network, without what it has no place for."""
    wanted = network.state_dict()
    if state.keys() == wanted.keys() and all(state[key].shape == wanted[key].shape for key in wanted):
        return state
    try:
        state = as_in_timm(network, state)
    except Exception as error:  # of the architecture's own code, on foreign tensors
        reason = f"{type(error).__name__}: {error}"
        message = f"The weights {weights} do not fit {name}: timm cannot convert them ({reason})."
        raise TrainingError(message, "weights-not-converted", path=weights, reason=reason) from error
    # A classifier for other classes, and the token of a training on masked images.
    return {key: value for key, value in state.items() if key in wanted or not key.startswith(("head.", "mask_token"))}


def _file_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        message = f"The weights file {file} does not exist. --model.weights takes imagenet, none, or a file (.pth)."
        raise TrainingError(message, "weights-missing", path=file)
    try:
        state = _load_safetensors(file) if file.suffix == ".safetensors" else load_plain(file)
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


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of this format, which holds nothing else; a ValueError says what is wrong."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError("to read this format, install bldml[timm]") from error
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"it is damaged ({error})") from error
