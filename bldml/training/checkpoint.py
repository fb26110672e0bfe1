"""The header that a checkpoint holds beside its weights, and the safe reading of a checkpoint."""

import math
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import torch
from torch import Tensor

from bldml.errors import CheckpointError
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.registry import canonical
from bldml.training.backbones import BackboneName
from bldml.training.transforms import MEAN, STD

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

KEY = "bldml"
FORMAT = 1
# Fields of a header that the classifier cannot know by itself.
DESCRIBED = ("class_names", "positive_class", "fingerprints", "seen", "versions", "settings")

PACKAGES = (
    "bldml",
    "lightning",
    "torch",
    "torchvision",
    "torchmetrics",
    "jsonargparse",
    "pillow",
    "opencv-python-headless",
    "numpy",
    "tensorboard",
)


@dataclass(frozen=True)
class Header:
    """Description of a classifier in its checkpoint, in plain types that load with `weights_only=True`.

    Attributes:
        backbone: A key of `backbones.BACKBONES`.
        image_size: Side in pixels.
        mean: Mean of each channel, for the normalisation of inputs.
        std: Standard deviation of each channel, for the same.
        class_names: Both names, in alphabetical order.
        positive_class: The class whose probability the model predicts.
        threshold: Decision threshold on the calibrated probability; chosen on the validation split.
        temperature: Calibration temperature, by which logits are divided; chosen on the validation split.
        fingerprints: Dataset digest of each split: SHA-256 of its contents and classes.
        seen: First 16 hexadecimal digits of the SHA-256 of every training and validation photograph.
        versions: Versions of the software that wrote it.
        settings: Data settings and precision of the run, for evaluations without a configuration.
        format: Version of this description.
    """

    backbone: BackboneName
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    positive_class: str
    threshold: float
    temperature: float
    fingerprints: dict[str, str]
    seen: str
    versions: dict[str, str]
    settings: dict[str, Any]
    format: int = FORMAT

    @property
    def negative_class(self) -> str:
        """Name of the negative class."""
        return next(name for name in self.class_names if name != self.positive_class)

    @property
    def operating_point(self) -> OperatingPoint:
        """Threshold and temperature."""
        return OperatingPoint(self.threshold, self.temperature)

    def to_plain(self) -> dict[str, Any]:
        """Return the header as a dict of plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint.

    Attributes:
        path: The file.
        header: Its description.
        state_dict: Parameters and buffers of the module, on the CPU.
        epoch: Epoch, counted from 0, after which it was written.
    """

    path: Path
    header: Header
    state_dict: Mapping[str, Tensor]
    epoch: int


class _Photographs(Protocol):
    @property
    def positive_class(self) -> str | None: ...
    def class_counts(self) -> tuple[int, int]: ...


class DescribedData(Protocol):
    """The part of a data module (such as `LeafDataModule`) that the classifier uses."""

    image_size: int | None

    @property
    def photographs(self) -> _Photographs:
        """The photographs that were read."""

    def describe(self) -> dict[str, Any]:
        """Return the fields of a `Header` that describe the photographs."""


def describing_datamodule(trainer: "Trainer") -> DescribedData | None:
    """Return the trainer's data module if it can describe its photographs, otherwise None."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    return datamodule if hasattr(datamodule, "photographs") and hasattr(datamodule, "describe") else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Args:
        path: A `.ckpt` file that `bldml fit` wrote.

    Raises:
        CheckpointError: The file is missing, damaged, holds more than tensors and plain values, or was not written by
            bldml. There is no fallback to an unsafe load.
    """
    if (best := path / "checkpoints" / "best.ckpt").is_file():
        raise CheckpointError(
            f"{path} is a run folder. Its best checkpoint is {best}.", "checkpoint-is-folder", path=path, expected=best
        )
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path} (looked from {Path.cwd()}).", "checkpoint-missing", path=path
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises whatever its bytes happen to trigger
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"The checkpoint {path} is refused: it is damaged or contains more than tensors and plain values "
            f"({type(error).__name__}: {first_line})",
            "checkpoint-damaged",
            path=path,
            reason=first_line,
        ) from error
    if not isinstance(content, dict) or KEY not in content or "state_dict" not in content:
        message = f"{path} is not a bldml checkpoint (header missing)."
        raise CheckpointError(message, "checkpoint-foreign", path=path)
    state_dict = content["state_dict"]
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()
    ):
        raise CheckpointError(f"The checkpoint {path} contains no weights.", "checkpoint-without-weights", path=path)
    try:
        return Checkpoint(path, header_of(content[KEY]), state_dict, int(content.get("epoch", -1)))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        message = f"The header of the checkpoint {path} is invalid: {error}"
        raise CheckpointError(message, "checkpoint-header-wrong", path=path, reason=str(error)) from error


# Data settings that an evaluation takes from a checkpoint, with the allowed types.
_SETTINGS: dict[str, tuple[type, ...]] = {
    "root": (str, type(None)),
    "manifest": (str, type(None)),
    "fold": (int, type(None)),
    "class_aliases": (dict, type(None)),
    "val_fraction": (int, float),
    "test_fraction": (int, float),
    "unreadable": (str,),
    "batch_size": (int,),
}


def _are_settings(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    kinds = all(isinstance(data[key], kinds) for key, kinds in _SETTINGS.items() if key in data)
    if not kinds or not 1 <= data.get("batch_size", 1) < 2**20:
        return False
    aliases = data.get("class_aliases") or {}
    texts = (data.get("root"), data.get("manifest"), *aliases, *aliases.values())
    return all(text is None or (isinstance(text, str) and "\0" not in text) for text in texts)


def header_of(plain: Any) -> Header:
    """Return the checked header of a checkpoint.

    Raises:
        TypeError, ValueError, KeyError: A field is missing or has an invalid value.
    """
    if not isinstance(plain, dict):
        raise TypeError(f"the description is {type(plain).__name__}, not a table")
    if reason := plain.get("undescribed"):
        raise ValueError(f"{reason}, so its classes are not known")
    found = plain.get("format")
    if not isinstance(found, int) or found != FORMAT:
        raise ValueError(f"its format is {found!r}; this version of bldml reads {FORMAT}")
    missing = [f.name for f in fields(Header) if f.name not in plain]
    if missing:
        raise KeyError(f"{', '.join(missing)} missing")
    known: dict[str, Any] = {f.name: plain[f.name] for f in fields(Header)}
    header = Header(**known | {name: tuple(known[name]) for name in ("mean", "std", "class_names")})
    numbers = (header.threshold, header.temperature)
    checks = {
        "backbone": header.backbone in get_args(BackboneName),
        "image_size": isinstance(header.image_size, int) and 1 <= header.image_size <= 4096,
        "class_names": len(set(header.class_names)) == 2 and all(isinstance(n, str) for n in header.class_names),
        "positive_class": header.positive_class in header.class_names,
        # This version has one normalisation; another would silently give wrong probabilities.
        "mean or std": (header.mean, header.std) == (MEAN, STD),
        "threshold or temperature": all(isinstance(n, float) and math.isfinite(n) for n in numbers)
        and 0 <= header.threshold <= 1
        and header.temperature > 0,
        "settings": isinstance(header.settings, dict) and _are_settings(header.settings.get("data")),
        "fingerprints": isinstance(header.fingerprints, dict),
        "seen": isinstance(header.seen, str),
        "versions": isinstance(header.versions, dict),
    }
    wrong = [name for name, good in checks.items() if not good]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} invalid")
    return header


def rename_monitors(checkpoint: dict[str, Any]) -> None:
    """Rename the states of callbacks that monitored a metric under its name of version 0.1.

    A callback finds its state by a key that contains the metric's name, and would otherwise lose the best value.

    Args:
        checkpoint: As Lightning reads it; changed in place.
    """
    states = checkpoint.get("callbacks", {})
    for key in list(states):
        states[re.sub(r"(?<='monitor': ')\w+", lambda found: canonical(found[0]), key)] = states.pop(key)


def software_versions() -> dict[str, str]:
    """Return the versions of bldml, its dependencies and Python."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
