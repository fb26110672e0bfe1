"""Pretrained weights: whether the file exists and is undamaged."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlparse

from bldml.doctor.checks import Finding, fail, first_line, ok, ok_or_warn, skip
from bldml.doctor.configuration import Settings
from bldml.errors import TrainingError

NAME = "weights"
PROBE_S = 5.0


def check_weights(settings: Settings | None) -> Iterable[Finding]:
    """Check the pretrained weights; nothing is downloaded or loaded into a model."""
    if settings is None:
        yield skip(NAME)
    elif settings.weights == "none":
        yield ok(NAME, "none: the fit starts from random weights")
    elif settings.weights == "imagenet":
        yield from _check_imagenet(settings.backbone)
    else:
        yield check_file(Path(settings.weights).expanduser())


def _check_imagenet(backbone: str) -> Iterable[Finding]:
    from bldml.training.backbones import BACKBONES
    from bldml.training.download import probe
    from bldml.training.weights import verify_weights, weights_file, weights_url

    name = next(name for name in BACKBONES if name == backbone)
    file = weights_file(name)
    prefetch = f"python -m bldml prefetch --backbone {backbone}     (with internet access, for example on a login node)"
    if file is None:
        yield fail(NAME, f"torchvision has no weights for {backbone}", "--model.weights FILE, or --model.weights none")
    elif not file.is_file():
        url = weights_url(name) or ""
        online = True
        try:
            probe(url, PROBE_S)
        except TrainingError:
            online = False
        host = urlparse(url).hostname
        found = f"{file} does not exist; {host} can{'' if online else 'not'} be reached from this machine"
        yield ok_or_warn(False, NAME, found, prefetch, otherwise="WARN" if online else "FAIL")
    else:
        good = verify_weights(file)
        found = f"{file}" if good else f"{file} is damaged: its SHA-256 does not match its name"
        yield ok_or_warn(good, NAME, found, f"rm {file}\n{prefetch}", otherwise="FAIL")


def check_file(file: Path) -> Finding:
    """Check that a file of weights exists and contains tensors."""
    import torch

    if not file.is_file():
        return fail(NAME, f"{file} does not exist", "--model.weights takes imagenet, none, or a file (.pth)")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    # Old files cannot be memory-mapped, and a damaged file can raise anything.
    except Exception:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            return fail(NAME, f"{file} cannot be loaded: {first_line(error)}", "the file is damaged; download it again")
    good = isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())
    found = f"{file}: {len(state)} tensors" if good else f"{file} is not a state dict (tensors by name)"
    return ok_or_warn(good, NAME, found, "save the model's state_dict() and use that file", otherwise="FAIL")
