"""The header that a checkpoint holds beside its weights, and the safe reading of a checkpoint."""

import errno
import math
import platform
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

import numpy as np
import torch
from torch import Tensor

from bldml.dataset.images import Decode
from bldml.errors import CheckpointError
from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.certainty.novelty import Novelty
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.registry import canonical
from bldml.training.backbones import BACKBONES, BackboneName
from bldml.training.transforms import MEAN, STD

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

KEY = "bldml"
NOVELTY = "bldml_novelty"
FORMAT = 1
LARGEST_SIDE, LARGEST_BATCH = 4096, 2**20 - 1
# Fields of a header that the classifier cannot know by itself.
DESCRIBED = ("class_names", "positive_class", "fingerprints", "seen", "versions", "settings")

PACKAGES = (
    *("bldml", "lightning", "torch", "torchvision", "torchmetrics", "jsonargparse", "pillow"),
    *("simplejpeg", "opencv-python-headless", "numpy", "tensorboard"),
)
# Data settings that an evaluation takes from the checkpoint unless the command line sets them, with the allowed types.
DATA_SETTINGS: dict[str, tuple[type, ...]] = {
    "fold": (int, type(None)),
    "class_aliases": (dict, type(None)),
    "val_fraction": (int, float),
    "test_fraction": (int, float),
    "unreadable": (str,),
    "batch_size": (int,),
}


@dataclass(frozen=True)
class Header:
    """Description of a classifier in its checkpoint, in plain types that load with `weights_only=True`."""

    backbone: BackboneName
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
    settings: dict[str, Any]  # data settings and precision of the run, for evaluations without a configuration
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
    novelty: Novelty | None = None  # added to the best checkpoint after a fit; None if not recorded


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
        novelty = novelty_of(content[NOVELTY], header, state_dict) if NOVELTY in content else None
        return Checkpoint(path, header, state_dict, int(content.get("epoch", -1)), novelty)
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        message = f"The header of the checkpoint {path} is invalid: {error}"
        raise CheckpointError(message, "checkpoint-header-wrong", path=path, reason=str(error)) from error


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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"it is damaged or contains more than tensors and plain values ({type(error).__name__}: {reason})"
        raise ValueError(message) from error


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
        if not tensor.isfinite().all():
            raise ValueError(f"{name} contains numbers that are not finite")


def _best_of(folder: Path) -> Path:
    """Return the best checkpoint of a run folder; CheckpointError if there is none."""
    best = folder / "checkpoints" / "best.ckpt"
    if not best.is_file():
        state = "a run without a best checkpoint yet" if best.parent.is_dir() else "no run folder"
        message = f"{folder} is {state}: there is no {best}."
        raise CheckpointError(message, "checkpoint-folder-without-best", path=folder, expected=best)
    return best


def is_state_dict(value: Any) -> TypeGuard[dict[str, Tensor]]:
    """Return whether a value consists of names with tensors."""
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _are_settings(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    if not all(isinstance(data[key], types) for key, types in DATA_SETTINGS.items() if key in data):
        return False
    aliases = data.get("class_aliases") or {}
    texts = (data.get("root"), data.get("manifest"), *aliases, *aliases.values())
    are_texts = all(text is None or (isinstance(text, str) and "\0" not in text) for text in texts)
    return are_texts and 1 <= data.get("batch_size", 1) <= LARGEST_BATCH


def header_of(plain: Any) -> Header:
    """Return the header, or raise a TypeError, ValueError or KeyError if a field is missing or invalid."""
    if not isinstance(plain, dict):
        raise TypeError(f"the description is {type(plain).__name__}, not a table")
    if reason := plain.get("undescribed"):
        raise ValueError(f"{reason}, so its classes are not known")
    found = plain.get("format")
    if not isinstance(found, int) or found != FORMAT:
        raise ValueError(f"its format is {found!r}; this version of bldml reads {FORMAT}")
    names = [field.name for field in fields(Header)]
    plain = {"offset": 0.0, "decode": "reduced", "bands": None} | plain
    if missing := [name for name in names if name not in plain]:
        raise KeyError(f"{', '.join(missing)} missing")
    known: dict[str, Any] = {name: plain[name] for name in names}
    known["bands"] = None if known["bands"] is None else Bands.from_plain(known["bands"])
    header = Header(**known | {name: tuple(known[name]) for name in ("mean", "std", "class_names")})
    numbers = (header.threshold, header.temperature, header.offset)
    checks = {
        "backbone": header.backbone in get_args(BackboneName),
        "image_size": isinstance(header.image_size, int) and 1 <= header.image_size <= LARGEST_SIDE,
        "class_names": len(set(header.class_names)) == 2 and all(isinstance(n, str) for n in header.class_names),
        "positive_class": header.positive_class in header.class_names,
        # This version has one normalisation; another would silently give wrong probabilities.
        "mean or std": (header.mean, header.std) == (MEAN, STD),
        "threshold, temperature or offset": all(isinstance(n, float) and math.isfinite(n) for n in numbers)
        and 0 <= header.threshold <= 1
        and header.temperature > 0,
        "decode": header.decode in get_args(Decode),
        "settings": isinstance(header.settings, dict) and _are_settings(header.settings.get("data")),
        "fingerprints": isinstance(header.fingerprints, dict),
        "seen": isinstance(header.seen, str),
        "versions": isinstance(header.versions, dict),
    }
    if wrong := [name for name, good in checks.items() if not good]:
        raise ValueError(f"{', '.join(wrong)} invalid")
    return header


def plain_novelty(novelty: Novelty) -> dict[str, Any]:
    """Return the fields in types that load with `weights_only=True`: tensors and numbers."""
    values = {field.name: getattr(novelty, field.name) for field in fields(Novelty)}
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}


def novelty_of(plain: Any, header: Header, state_dict: Mapping[str, Tensor]) -> Novelty:
    """Return what `plain_novelty` made, or raise a TypeError, ValueError or KeyError if it does not fit the network."""
    values: dict[str, Any] = {field.name: plain[field.name] for field in fields(Novelty)}
    values = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}
    novelty = Novelty(**values)
    arrays, d = (novelty.mean, novelty.basis, novelty.variances), len(novelty.mean)
    weight = state_dict.get(f"network.{BACKBONES[header.backbone].head}.weight")
    numbers = (novelty.rest, novelty.limit, novelty.rate)
    good = (
        all(isinstance(one, np.ndarray) and one.dtype == np.float32 and np.isfinite(one).all() for one in arrays)
        and novelty.basis.shape == (len(novelty.variances), d)
        and (weight is None or weight.shape[-1] == d)
        and all(isinstance(number, float) and 0 < number < math.inf for number in numbers)
        and (novelty.variances > 0).all()
    )
    if not good:
        raise ValueError("the distribution of the training photographs invalid")
    return novelty


def rename_monitors(checkpoint: dict[str, Any]) -> None:
    """Rename, in a checkpoint as Lightning reads it, the states of callbacks that monitored a metric of version 0.1.

    A callback finds its state by a key that contains the metric's name, and would otherwise lose the best value.
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
