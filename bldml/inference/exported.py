"""A classifier that `bldml export` wrote as an ONNX file, computed by onnxruntime."""

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

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is in the error
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common class of its errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = f"{show_path(path)} cannot be used: it is damaged or no ONNX file ({reason})."
            raise CheckpointError(message, "onnx-damaged", path=path, reason=reason) from error
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
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

    def evaluate(self, images: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return probabilities and distances, (n,) each, of images uint8 (n, 3, s, s); None for unknown distances."""
        outputs = [PROBABILITY, DISTANCE] if self.has_distance else [PROBABILITY]
        probabilities, *distances = self._run(outputs, images)
        return probabilities, distances[0] if distances else None

    def maps(self, images: Tensor) -> NDArray[np.float64]:
        """Return the maps of Grad-CAM, (n, rows, columns) in [0, 1], of images uint8 (n, 3, s, s); needs `has_map`."""
        return self._run([MAP], images)[0]

    def _run(self, outputs: list[str], images: Tensor) -> list[NDArray[np.float64]]:
        found = self._session.run(outputs, {"image": images.permute(0, 2, 3, 1).contiguous().numpy()})
        return [np.asarray(one, dtype=np.float64) for one in found]


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
