"""The header that a checkpoint holds beside its weights, and the safe reading of a checkpoint."""

import errno
import math
import platform
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

import torch
from torch import Tensor

from bldml.dataset.images import Decode
from bldml.errors import CheckpointError
from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.certainty.novelty import AnyNovelty
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.registry import canonical
from bldml.training.backbones import BackboneName, TimmName, check_shapes, is_backbone, is_in_table, row_of
from bldml.training.networks.distribution import novelty_of
from bldml.training.networks.timm_rows import is_timm
from bldml.training.transforms import MEAN, STD

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

KEY = "bldml"
NOVELTY = "bldml_novelty"
FORMAT = 1
LARGEST_SIDE, LARGEST_BATCH = 4096, 2**20 - 1
_LONGEST_TEXT = 4096  # characters of a name or path
_TEMPERATURES = 0.01, 100.0  # wider than any fit makes, but not so that every probability is 0.5, or 0 and 1
_LARGEST_OFFSET = 710.0  # logarithm of the largest weight of positives
# Fields of a header that the classifier cannot know by itself.
DESCRIBED = ("class_names", "positive_class", "fingerprints", "seen", "versions", "settings")

PACKAGES = (
    *("bldml", "lightning", "torch", "torchvision", "torchmetrics", "jsonargparse", "pillow"),
    *("simplejpeg", "opencv-python-headless", "numpy", "tensorboard", "timm"),
)
Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and "\0" not in value


def _is_fraction(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_text, value.values()))


# Data settings that an evaluation takes from the checkpoint unless the command line sets them, with what the command
# line would accept.
DATA_SETTINGS: dict[str, Check] = {
    "fold": lambda value: value is None or (type(value) is int and 0 <= value < 2**31),
    "class_aliases": lambda value: value is None or _are_texts(value),
    "val_fraction": _is_fraction,
    "test_fraction": _is_fraction,
    "unreadable": lambda value: value in ("error", "exclude") if isinstance(value, str) else False,
    "batch_size": lambda value: type(value) is int and 1 <= value <= LARGEST_BATCH,
}
_SOURCES = ("root", "manifest")


@dataclass(frozen=True)
class Header:
    """Description of a classifier in its checkpoint, in plain types that load with `weights_only=True`."""

    backbone: BackboneName | TimmName
    image_size: int  # side in pixels
    mean: tuple[float, ...]  # of each channel, for the normalisation of inputs
    std: tuple[float, ...]
    class_names: tuple[str, ...]  # both, in alphabetical order
    positive_class: str  # whose probability the model predicts
    threshold: float  # on the calibrated probability; chosen on the validation split, like the temperature
    temperature: float  # divides the logits
    fingerprints: dict[str, str]  # dataset digest of each split: SHA-256 of its contents and classes
    seen: str  # first 16 hexadecimal digits of the SHA-256 of every training and validation photograph
    versions: dict[str, str]  # of the software that wrote it
    settings: dict[str, Any]  # those of the data, for evaluations without a configuration
    format: int = FORMAT  # version of this description
    offset: float = 0.0  # subtracted from the logits first; version 0.1 wrote none
    decode: Decode = "reduced"  # how evaluations decode a JPEG; version 0.1 wrote none
    bands: Bands | None = None  # added to the best checkpoint after a fit; None if not recorded

    @property
    def negative_class(self) -> str:
        """Name of the negative class."""
        return next(name for name in self.class_names if name != self.positive_class)

    def label_of(self, probability: float) -> str:
        """Return the class on the probability's side of the threshold."""
        return self.positive_class if probability >= self.threshold else self.negative_class

    @property
    def operating_point(self) -> OperatingPoint:
        """Threshold, temperature and offset."""
        return OperatingPoint(self.threshold, self.temperature, self.offset)


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint."""

    path: Path
    header: Header
    state_dict: Mapping[str, Tensor]  # parameters and buffers of the module, on the CPU
    epoch: int  # counted from 0, after which it was written
    novelty: AnyNovelty | None = None  # added to the best checkpoint after a fit; None if not recorded


class DamagedCheckpoint(CheckpointError):
    """A checkpoint does not contain the bytes that were written."""


def describing_datamodule(trainer: "Trainer | None") -> Any:
    """Return the trainer's data module if it can describe its photographs, like LeafDataModule; otherwise None."""
    datamodule = getattr(trainer, "datamodule", None)
    return datamodule if hasattr(datamodule, "photographs") and hasattr(datamodule, "describe") else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that a fit wrote, without running code from it; of a run folder, its best checkpoint.

    Raises:
        DamagedCheckpoint: The file is damaged.
        CheckpointError: The file is missing, holds more than tensors and plain values, or was not written by
            bldml. There is no fallback to an unsafe load.
    """
    if path.is_dir():
        path = _best_of(path)
    if not path.is_file():
        message = f"There is no checkpoint {path} (looked from {Path.cwd()})."
        raise CheckpointError(message, "checkpoint-missing", path=path)
    if path.suffix.lower() == ".onnx":
        message = f"{path} is an ONNX file. Commands need the checkpoint that it was exported from; in Python, "
        message += "bldml.load reads it."
        raise CheckpointError(message, "checkpoint-exported", path=path)
    try:
        content = load_plain(path)
    except OSError as error:  # not a sign of damage: another try may succeed
        message = f"The checkpoint {path} cannot be read: {error.strerror}."
        raise CheckpointError(message, "checkpoint-unreadable", path=path, reason=error.strerror) from error
    except ValueError as error:
        message = f"The checkpoint {path} is refused: {error}."
        raise DamagedCheckpoint(message, "checkpoint-damaged", path=path, reason=str(error)) from error
    if not isinstance(content, dict) or KEY not in content or "state_dict" not in content:
        message = f"{path} is not a bldml checkpoint (header missing)."
        raise CheckpointError(message, "checkpoint-foreign", path=path)
    if not is_state_dict(state_dict := content["state_dict"]):
        raise CheckpointError(f"The checkpoint {path} contains no weights.", "checkpoint-without-weights", path=path)
    try:
        header = header_of(content[KEY])
        novelty = _novelty_of(content[NOVELTY], header, state_dict) if NOVELTY in content else None
        if type(epoch := content.get("epoch", -1)) is not int or not -1 <= epoch < 2**31:
            raise ValueError("epoch invalid")
    # A RuntimeError is torch's for a tensor that is no array.
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError, RuntimeError) as error:
        message = f"The header of the checkpoint {path} is invalid: {error}"
        raise CheckpointError(message, "checkpoint-header-wrong", path=path, reason=str(error)) from error
    if not is_in_table(header.backbone):
        _check_architecture(path, header, state_dict, novelty)
    return Checkpoint(path, header, state_dict, epoch, novelty)


def _check_architecture(
    path: Path, header: Header, state_dict: Mapping[str, Tensor], novelty: AnyNovelty | None
) -> None:
    """Check that the weights are those of the architecture in the header, before anything of it is allocated.

    Raises:
        ConfigError: The extra timm is not installed, or its version has no such architecture.
        CheckpointError: The weights differ from the architecture.
    """
    wrong = check_shapes(header.backbone, header.image_size, state_dict)
    weight = state_dict.get(f"network.{row_of(header.backbone).head}.weight")
    if not wrong and novelty is not None and weight is not None and weight.shape[-1:] != (novelty.width,):
        wrong = "the distribution of its training photographs has another number of features"
    if wrong:
        versions = header.versions.get("timm", "not recorded"), software_versions()["timm"]
        message = f"The weights in {path} do not fit {header.backbone}, the backbone in its header: {wrong}. "
        message += f"It was written with timm {versions[0]}; installed is {versions[1]}."
        raise CheckpointError(message, "weights-of-other-architecture", path=path, found=wrong, expected=versions[0])


def load_plain(path: Path) -> Any:
    """Return what `torch.save` wrote, on the CPU: tensors and plain values. No code from the file is run.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, would need more memory than its size, or contains anything else; the message is the
            reason.
    """
    try:
        if zipfile.is_zipfile(path):  # files of PyTorch before 1.6 are no archives and have no checksums
            _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises whatever its bytes happen to trigger
        # A position that a damaged file asks for is an invalid argument.
        if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        message = f"it is damaged or contains more than tensors and plain values ({_reason(error)})"
        raise ValueError(message) from error


def _reason(error: Exception) -> str:
    """Return what an error of `torch.load` found, without its advice to load the file all the same."""
    _, _, own = str(error).rpartition("WeightsUnpickler error:")
    lines = [line.strip() for line in own.splitlines() if line.strip() and "weights_only" not in line]
    name = "TorchScript" if "TorchScript" in own else type(error).__name__
    return f"{name}: {lines[0].partition('. Please use')[0].rstrip('.')}" if lines else name


def _check_archive(path: Path) -> None:
    """Verify the checksums, which torch ignores, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Written by torch, entries are neither compressed nor in the same place, so that the sum is below the size.
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > path.stat().st_size:
                raise ValueError(f"it says that it contains {unpacked:,} bytes, more than its size")
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"it is damaged ({error})") from error
    if broken is not None:
        raise ValueError(f"it is damaged: the checksum of {broken} is wrong")


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Check that every tensor holds finite real numbers, as those of a network do; a ValueError says which does not.

    Only counters, such as that of BatchNorm, are whole numbers.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() and not (
            name.endswith("num_batches_tracked") and tensor.dtype == torch.int64
        ):
            raise ValueError(f"{name} has the type {str(tensor.dtype).removeprefix('torch.')}, which is no weight's")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested:
            raise ValueError(f"{name} is not a plain array of numbers")
        # One number that stands for a million times a million of them would be written out.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} says that it has {tensor.numel():,} numbers, more than are stored")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} contains numbers that are not finite")


def _best_of(folder: Path) -> Path:
    """Return the best checkpoint of a run folder; CheckpointError if there is none."""
    best = folder / "checkpoints" / "best.ckpt"
    if not best.is_file():
        state = "a run without a best checkpoint yet" if best.parent.is_dir() else "no run folder"
        message = f"{folder} is {state}: there is no {best}."
        if (folder / "parity.json").is_file():
            message = f"{folder} is an export. Commands need the checkpoint that it was exported from; in Python, "
            message += "bldml.load reads the model.onnx of an export."
        raise CheckpointError(message, "checkpoint-folder-without-best", path=folder, expected=best)
    return best


def is_state_dict(value: Any) -> TypeGuard[dict[str, Tensor]]:
    """Return whether a value consists of names with tensors."""
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _own_settings(settings: Any) -> dict[str, Any]:
    """Return the settings that evaluations use, without any other; a ValueError names those that no fit would write."""
    data = settings.get("data") if isinstance(settings, dict) else None
    if not isinstance(data, dict):
        raise ValueError("settings invalid")
    checks = DATA_SETTINGS | dict.fromkeys(_SOURCES, lambda value: value is None or _is_text(value))
    if wrong := [f"settings.data.{key}" for key, check in checks.items() if key in data and not check(data[key])]:
        raise ValueError(f"{', '.join(wrong)} invalid")
    return {"data": {key: data[key] for key in checks if key in data}}


def _is_normalization(backbone: Any, mean: tuple[Any, ...], std: tuple[Any, ...]) -> bool:
    """Return whether these are a backbone's own; of one of timm, whether they can be: its next version may differ."""
    if not all(isinstance(number, float) for number in (*mean, *std)):
        return False
    if not is_timm(backbone):
        # Another normalisation would silently give wrong probabilities.
        own = (row_of(backbone).mean, row_of(backbone).std) if is_in_table(backbone) else (MEAN, STD)
        return (mean, std) == own or not is_backbone(backbone)
    return len(mean) == len(std) == 3 and all(0 <= one <= 1 for one in mean) and all(0.01 <= one <= 1 for one in std)


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a header in their types, or raise a ValueError that names the wrong ones."""
    names, numbers = content["class_names"], ("threshold", "temperature", "offset")
    sequences = {key: content[key] for key in ("class_names", "mean", "std")}
    if wrong := [key for key, value in sequences.items() if not isinstance(value, list | tuple)]:
        raise ValueError(f"{', '.join(wrong)} invalid: not a list")
    checks = {
        "backbone": is_backbone(content["backbone"]),
        "image_size": type(content["image_size"]) is int and 1 <= content["image_size"] <= LARGEST_SIDE,
        "class_names": all(map(_is_text, names)) and len(set(names)) == len(names) == 2,
        "positive_class": _is_text(content["positive_class"]) and content["positive_class"] in map(str, names),
        "mean or std": _is_normalization(content["backbone"], tuple(content["mean"]), tuple(content["std"])),
        "threshold, temperature or offset": all(type(content[key]) is float for key in numbers)
        and all(math.isfinite(content[key]) for key in numbers)
        and 0 <= content["threshold"] <= 1
        and _TEMPERATURES[0] <= content["temperature"] <= _TEMPERATURES[1]
        and abs(content["offset"]) <= _LARGEST_OFFSET,
        "decode": isinstance(content["decode"], str) and content["decode"] in get_args(Decode),
        "fingerprints": _are_texts(content["fingerprints"]),
        "seen": isinstance(content["seen"], str) and re.fullmatch(r"[0-9a-f]*", content["seen"]) is not None,
        "versions": _are_texts(content["versions"]),
    }
    if wrong := [name for name, good in checks.items() if not good]:
        raise ValueError(f"{', '.join(wrong)} invalid")
    settings = _own_settings(content["settings"])
    return content | {key: tuple(value) for key, value in sequences.items()} | {"settings": settings}


def header_of(plain: Any) -> Header:
    """Return the header, or raise a TypeError, ValueError or KeyError if a field is missing or invalid.

    What it has beside its fields is not looked at.
    """
    if not isinstance(plain, dict):
        raise TypeError(f"the description is {type(plain).__name__}, not a table")
    if isinstance(reason := plain.get("undescribed"), str):
        raise ValueError(f"{reason[:_LONGEST_TEXT]}, so its classes are not known")
    found = plain.get("format")
    if type(found) is not int or found != FORMAT:
        shown = repr(found) if type(found) in (int, float, str, type(None)) else type(found).__name__
        raise ValueError(f"its format is {shown[:100]}; this version of bldml reads {FORMAT}")
    names = [field.name for field in fields(Header)]
    plain = {"offset": 0.0, "decode": "reduced", "bands": None} | plain
    if missing := [name for name in names if name not in plain]:
        raise KeyError(f"{', '.join(missing)} missing")
    known = _checked({name: plain[name] for name in names})
    known["bands"] = None if known["bands"] is None else Bands.from_plain(known["bands"])
    return Header(**known)


def _novelty_of(plain: Any, header: Header, state_dict: Mapping[str, Tensor]) -> AnyNovelty:
    """Return what `plain_novelty` made, or raise a TypeError, ValueError or KeyError if it does not fit the network."""
    # For one of timm and an ensemble, `read_checkpoint` asks the architecture for the head.
    head = row_of(header.backbone).head if is_in_table(header.backbone) else None
    weight = state_dict.get(f"network.{head}.weight")
    return novelty_of(plain, None if weight is None else tuple(weight.shape[-1:]))


def rename_monitors(checkpoint: dict[str, Any]) -> None:
    """Rename, in a checkpoint as Lightning reads it, the states of callbacks that monitored a metric of version 0.1.

    A callback finds its state by a key that contains the metric's name, and would otherwise lose the best value.
    """
    states = checkpoint.get("callbacks", {})
    for key in list(states):
        states[re.sub(r"(?<='monitor': ')\w+", lambda found: canonical(found[0]), key)] = states.pop(key)


def software_versions() -> dict[str, str]:
    """Return the versions of bldml, its dependencies and Python."""
    return {"python": platform.python_version(), **{package: _version_of(package) for package in PACKAGES}}


@cache  # a fit asks for all of them at each checkpoint that it writes
def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
