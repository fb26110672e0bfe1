"""A classifier that `bldml export` wrote as an ONNX file, computed by onnxruntime."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bldml.dataset.files import show_path
from bldml.errors import CheckpointError, UsageError
from bldml.io.documents import load_json
from bldml.training.checkpoint import Header, header_of

KEY = "bldml"
"""Name of the entry in the file's metadata that holds its description, as JSON."""
PROBABILITY, DISTANCE, MAP = "probability", "distance", "map"
"""Names of the outputs: calibrated probability of the positive class; distance from the training photographs, in
multiples of its limit, if the checkpoint recorded them; the map of Grad-CAM; an older export may lack it."""
SEAL = "bldml_sha256"
"""Name of a further entry, with the SHA-256 of all bytes before it. It is the last of the file: a file of Protocol
Buffers followed by another one is both in one. Older exports have none."""
_SEAL_START = b"\x72\x50\x0a\x0c" + SEAL.encode() + b"\x12\x40"  # field 14, of 80 bytes: name of 12, text of 64
_LOOP = b"\x22\x04Loop"  # field 4 of a node: its kind
LEFT_OUT = {"seen": "", "settings": {"data": {}}}
"""Fields of a header that do not leave the checkpoint, with what stands for them: photographs and paths of the run."""


class ExportedModel:
    """The network of an exported file.

    Args:
        content: The file.
        path: Where it was read, for error messages.

    Attributes:
        header: Description of the checkpoint that it was exported from.
        description: All that the file says of itself: the header, the SHA-256 of the checkpoint, versions.
        has_distance: Whether the file computes distances from the training photographs.
        has_map: Whether the file computes the map of Grad-CAM.

    Raises:
        CheckpointError: The content is damaged, or bldml did not write it.
        UsageError: onnxruntime is not installed.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        require_onnx("onnxruntime")
        import onnxruntime

        self.path = path
        if content[-_SEAL_LENGTH:].startswith(_SEAL_START):
            self._check_seal(content)
        if _LOOP in content:
            message = (
                f"{show_path(path)} contains a loop, which may never end and which no export has. Export it again."
            )
            raise CheckpointError(message, "onnx-with-loop", path=path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is in the error
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disable_fallback=True
            )
            told: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime has no common class of its errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = f"{show_path(path)} cannot be used: it is damaged or no ONNX file ({reason})."
            raise CheckpointError(message, "onnx-damaged", path=path, reason=reason) from error
        if SEAL in told:  # a program that has written the file anew has put it elsewhere
            self._check_seal(content)
        if (text := told.get(KEY)) is None:
            message = f"{show_path(path)} is an ONNX file of another program: it does not describe its classes. "
            message += "Use a file that `bldml export` wrote."
            raise CheckpointError(message, "onnx-foreign", path=path)
        try:
            self.description: dict[str, Any] = load_json(text)
            self.header: Header = header_of({**self.description, **LEFT_OUT})
        except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
            message = f"The description in {show_path(path)} is invalid: {error}"
            raise CheckpointError(message, "onnx-header-wrong", path=path, reason=str(error)) from error
        names = [output.name for output in self._session.get_outputs()]
        self.has_distance, self.has_map = DISTANCE in names, MAP in names
        side = self.header.image_size
        inputs = [(one.name, one.type, one.shape[1:]) for one in self._session.get_inputs()]
        if inputs != [("image", "tensor(uint8)", [side, side, 3])] or PROBABILITY not in names:
            message = f"{show_path(path)} does not compute a {PROBABILITY} of images of {side} × {side} pixels. "
            message += "Export it again."
            raise CheckpointError(message, "onnx-computes-other", path=path, found=inputs)

    def _check_seal(self, content: bytes) -> None:
        if content != with_checksum(content[:-_SEAL_LENGTH]):
            message = f"{show_path(self.path)} was damaged or changed after its export: its checksum is wrong. "
            message += "Copy it again, or export it again."
            raise CheckpointError(message, "onnx-checksum-wrong", path=self.path)

    def evaluate(self, images: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return probabilities and distances, (n,) each, of images uint8 (n, 3, s, s); None for unknown distances."""
        outputs = [PROBABILITY, DISTANCE] if self.has_distance else [PROBABILITY]
        probabilities, *distances = self._run(outputs, images)
        return probabilities, distances[0] if distances else None

    def maps(self, images: Tensor) -> NDArray[np.float64]:
        """Return the maps of Grad-CAM, (n, rows, columns) in [0, 1], of images uint8 (n, 3, s, s); needs `has_map`."""
        return self._run([MAP], images)[0]

    def _run(self, outputs: list[str], images: Tensor) -> list[NDArray[np.float64]]:
        try:
            found = self._session.run(outputs, {"image": images.permute(0, 2, 3, 1).contiguous().numpy()})
            arrays = [np.asarray(one, dtype=np.float64) for one in found]
            for name, one in zip(outputs, arrays, strict=True):
                if one.ndim != (3 if name == MAP else 1) or len(one) != len(images):
                    raise ValueError(f"its {name} has the shape {one.shape} for {len(images)} images")
                if not (one.min() >= 0 and one.max() <= (np.finfo(np.float64).max if name == DISTANCE else 1)):
                    raise ValueError(f"its {name} is not finite, or outside its range")
        except Exception as error:  # onnxruntime has no common class of its errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = f"{show_path(self.path)} cannot be computed: {reason}."
            raise CheckpointError(message, "onnx-not-computed", path=self.path, reason=reason) from error
        return arrays


def with_checksum(content: bytes) -> bytes:
    """Return the content of an ONNX file with its SHA-256 as a further entry of its metadata, its last bytes."""
    return content + _SEAL_START + hashlib.sha256(content).hexdigest().encode()


_SEAL_LENGTH = len(with_checksum(b""))


def read_exported(path: Path) -> ExportedModel:
    """Read an exported ONNX file; errors as of `ExportedModel`, and a CheckpointError if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"Cannot read {show_path(path)}: {error.strerror}."
        raise CheckpointError(message, "onnx-unreadable", path=path, reason=error.strerror) from error
    return ExportedModel(content, path)


def require_onnx(*packages: str) -> None:
    """Raise a UsageError if a package of the extra `onnx` is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        message = f"This needs {' and '.join(missing)}: pip install 'bldml[onnx]'."
        raise UsageError(message, "onnx-not-installed", found=missing)
