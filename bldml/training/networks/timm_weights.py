"""Published weights of timm's architectures: found in the cache of the Hugging Face hub, or downloaded into it."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bldml.errors import TrainingError
from bldml.io.system import sha256_of
from bldml.training.networks.timm_rows import pretrained_of

WEIGHTS_FILE = "model.safetensors"


def timm_file(name: str, home: Path | None = None) -> Path | None:
    """Return the path of the weights of an architecture of timm in the cache, which HF_HOME sets; None if not there.

    Raises:
        ConfigError: timm is not installed or has no such architecture.
        TrainingError: No weights are published for it.
    """
    from huggingface_hub import try_to_load_from_cache

    repository, file = published(name)
    found = try_to_load_from_cache(repository, file, cache_dir=_cache(home))
    return Path(found) if isinstance(found, str) else None


def published(name: str) -> tuple[str, str]:
    """Return the repository of the Hugging Face hub that has the weights, and the file in it; errors as `timm_file`."""
    settings = pretrained_of(name)
    if not settings.hf_hub_id:
        message = f"timm names no weights on the Hugging Face hub for {name}: give a file, --model.weights FILE, or "
        message += "--model.weights none."
        raise TrainingError(message, "timm-weights-not-published", found=name)
    return str(settings.hf_hub_id), str(settings.hf_hub_filename or WEIGHTS_FILE)


def fetch_timm(name: str, home: Path | None = None) -> Path:
    """Download the weights into the cache unless they are there, and return their path; errors as `timm_file`.

    Raises:
        TrainingError: They cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    repository, file = published(name)
    try:
        return Path(hf_hub_download(repository, file, cache_dir=_cache(home)))
    except Exception as error:  # of the hub's client: network, names, access, disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{file} of {repository} cannot be downloaded from the Hugging Face hub: {reason}"
        raise TrainingError(message, "timm-download-failed", path=f"{repository}/{file}", reason=reason) from error


def hub_url() -> str:
    """Return the address of the Hugging Face hub, which HF_ENDPOINT sets."""
    from huggingface_hub.constants import ENDPOINT

    return str(ENDPOINT)


def is_whole(file: Path) -> bool:
    """Return whether a file of the cache has the SHA-256 that the hub names it by; True if it has another name."""
    digest = Path(os.path.realpath(file)).name  # a file of a snapshot is a link to its content
    return re.fullmatch(r"[0-9a-f]{64}", digest) is None or sha256_of(file) == digest


def as_in_timm(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights under the names, and for the image size, of the installed timm's network.

    The function is timm's own; an architecture without one keeps its weights as they are.
    """
    convert: Any = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    converted: dict[str, Tensor] = convert(dict(state), network)
    return converted


def _cache(home: Path | None) -> str | None:
    """Return the folder of the hub's cache below an HF_HOME; None for the present one."""
    return None if home is None else str(home / "hub")
