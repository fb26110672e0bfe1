"""A trained classifier and photographs -> verdicts: what the commands and Python users share."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import IOBase
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bldml.dataset.files import show_path
from bldml.dataset.folders import read_unlabelled
from bldml.dataset.formats.interruption import blame_machine
from bldml.dataset.images import UnreadableImage, decoding_size, load_rgb, to_upright_srgb
from bldml.dataset.samples import Sample, no_photographs
from bldml.errors import CheckpointError, DatasetError, RunError, UsageError
from bldml.inference.exported import ExportedModel, read_exported
from bldml.inference.gradcam import Map, grad_cam
from bldml.inference.pictures import overlay
from bldml.io.frames import data_frame
from bldml.io.grammar import given_path
from bldml.io.system import processors
from bldml.metrics.certainty.novelty import AnyNovelty
from bldml.training.checkpoint import Checkpoint, Header, check_numbers, read_checkpoint
from bldml.training.module import LeafClassifier
from bldml.training.transforms import evaluation_image
from bldml.training.trunk import inputs_of

if TYPE_CHECKING:
    from pandas import DataFrame

Photograph = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""Path of a photograph, a PIL image, or an upright RGB image, uint8 (height, width, 3)."""
Device = Literal["auto", "cpu", "cuda"]

BATCH_SIZE = 16


@dataclass(frozen=True)
class Verdict:
    """What a classifier says of one photograph."""

    path: str  # of the photograph; empty for an image in memory
    label: str  # class on the probability's side of the threshold
    probability: float  # calibrated probability of the positive class, in [0, 1]
    threshold: float  # chosen on the validation split
    is_positive: bool  # whether the label is the positive class
    band: str | None = None  # positive, uncertain or negative; None if the checkpoint has no limits
    distance: float | None = None  # from the training photographs, in multiples of the limit; None if not recorded
    is_familiar: bool | None = None  # whether the distance is at most 1: like those that the classifier learned from


class Classifier:
    """A trained classifier.

    Args:
        header: What its checkpoint says of it.
        model: The classifier with its weights, on the device to compute on; or an exported file.
        novelty: The distribution of its training photographs; None if not recorded.

    Attributes:
        header: The same.
        model: The same.
        novelty: The same.
    """

    def __init__(
        self, header: Header, model: LeafClassifier | ExportedModel, novelty: AnyNovelty | None = None
    ) -> None:
        self.header, self.model, self.novelty = header, model, novelty
        if isinstance(model, LeafClassifier):
            model.eval()

    def __repr__(self) -> str:
        """Name backbone, classes and threshold."""
        header = self.header
        return (
            f"<bldml classifier: {header.positive_class} against {header.negative_class}, {header.backbone}, "
            f"{header.image_size} px, threshold {header.threshold:.3g}>"
        )

    @overload
    def predict(self, photographs: Photograph) -> Verdict: ...
    @overload
    def predict(self, photographs: list[Any] | tuple[Any, ...] | Iterator[Any]) -> list[Verdict]: ...
    def predict(self, photographs: Any) -> Any:
        """Return the verdict on one photograph, or a list of verdicts for a list, tuple or iterator of photographs.

        Raises:
            DatasetError: A photograph cannot be read, or is no image.
            UsageError: It is something else.
            CheckpointError: The model's output is not finite.
        """
        is_file = isinstance(photographs, IOBase)  # an iterator too, of its lines
        if is_file or not isinstance(photographs, list | tuple | Iterator):
            return self._verdicts([photographs], [self.image(photographs)])[0]
        verdicts, rest = list[Verdict](), iter(photographs)
        while some := list(islice(rest, BATCH_SIZE)):
            verdicts += self._verdicts(some, [self.image(one) for one in some])
        return verdicts

    def stream(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Verdict | UnreadableImage]]:
        """Yield each photograph with its verdict, or with the reason why it cannot be read, in the order given.

        Only some photographs are in memory at a time. Threads decode the next ones meanwhile.

        Raises:
            CheckpointError: The model's output is not finite.
            MachineError: The photographs are gone, or cannot be reached any more.
        """
        rest, workers = iter(samples), min(16, processors())
        with ThreadPoolExecutor(workers) as pool:
            ahead = [(one, pool.submit(self._read, one.path)) for one in islice(rest, 2 * BATCH_SIZE)]
            while ahead:
                now, ahead = ahead[:BATCH_SIZE], ahead[BATCH_SIZE:]
                images = [future.result() for _, future in now]
                ahead += [(one, pool.submit(self._read, one.path)) for one in islice(rest, BATCH_SIZE)]
                good = [(one.path, image) for (one, _), image in zip(now, images, strict=True) if _is_image(image)]
                verdicts = iter(self._verdicts(*zip(*good, strict=True)) if good else [])
                for (sample, _), image in zip(now, images, strict=True):
                    yield sample, image if isinstance(image, UnreadableImage) else next(verdicts)

    def predict_folder(
        self, folder: str | os.PathLike[str], unreadable: Literal["error", "exclude"] = "error"
    ) -> "DataFrame":
        """Return a table with one row for each photograph below a folder; `stream` needs less memory.

        Args:
            folder: Folder with photographs, including its subfolders, or one photograph.
            unreadable: Raise an error for a photograph that cannot be read, or leave it out.

        Returns:
            Columns as the fields of `Verdict`; the path is relative to the folder, with `/`.

        Raises:
            DatasetError: There are no photographs, or one cannot be read.
            UsageError: The folder is no path, or there is no such way to treat unreadable photographs.
        """
        if unreadable not in ("error", "exclude"):
            message = f"unreadable must be 'error' or 'exclude', not {unreadable!r}."
            raise UsageError(message, "unreadable-unknown", found=unreadable)
        collection = read_unlabelled(given_path(folder, "The folder of photographs"))
        samples = collection.splits["predict"]
        if not samples:
            raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
        rows = []
        for sample, verdict in self.stream(samples):
            if isinstance(verdict, Verdict):
                rows.append({**vars(verdict), "path": sample.name})
            elif unreadable == "error":
                raise unreadable_photograph(verdict)
        return data_frame(rows, list(Verdict.__annotations__))

    def explain(self, photograph: Photograph, size: int | None = None) -> Image.Image:
        """Return the upright photograph under its Grad-CAM map: RGB, without metadata.

        Args:
            photograph: The photograph.
            size: Longer side of the result in pixels; None for that of the photograph.

        Raises:
            DatasetError: The photograph cannot be read, or is no image.
            CheckpointError: The model's output is not finite.
            UsageError: The photograph is something else, or the size is no whole number of at least 1.
        """
        if size is not None and (not isinstance(size, Integral) or size < 1):
            message = f"The size must be a whole number of pixels, at least 1, or None, not {size!r}."
            raise UsageError(message, "picture-size-wrong", found=size)
        _, cam = self.verdict_with_map(photograph)
        picture = _load(photograph, size)
        if size is not None:
            picture.thumbnail((size, size))
        return overlay(picture, cam)

    def verdict_with_map(self, photograph: Photograph) -> tuple[Verdict, Map]:
        """Return the verdict on one photograph, and its Grad-CAM map (see `gradcam.grad_cam`).

        Raises:
            DatasetError: The photograph cannot be read, or is no image.
            CheckpointError: The model's output is not finite.
        """
        image = self.image(photograph)
        if isinstance(self.model, ExportedModel) and self.model.has_map:
            batch = image.unsqueeze(0)
            return self._verdicts([photograph], [image])[0], self.model.maps(batch)[0].astype(np.float32)
        with inputs_of(self.network.last_layer) as features:
            logit, cam = grad_cam(self.network, image)
        return self._judged([photograph], self._calibrated(np.array([logit])), self.distances(features[0]))[0], cam

    @property
    def network(self) -> LeafClassifier:
        """The classifier in torch; a UsageError if this is an exported file, which has no layers to look into."""
        if isinstance(self.model, ExportedModel):
            message = "This ONNX file gives verdicts only. Export it again, or load the checkpoint."
            raise UsageError(message, "onnx-without-layers")
        return self.model

    def image(self, photograph: Photograph) -> Tensor:
        """Return the input of the network, uint8 (3, size, size).

        Raises:
            DatasetError: The photograph cannot be read, or is no image.
        """
        size = self.header.image_size
        return evaluation_image(_load(photograph, decoding_size(self.header.decode, size)), size)

    def _read(self, path: Path) -> Tensor | UnreadableImage:
        size = self.header.image_size
        try:
            return evaluation_image(load_rgb(path, decoding_size(self.header.decode, size)), size)
        except UnreadableImage as error:
            blame_machine(path, error.__cause__)
            return error

    def _verdicts(self, photographs: Sequence[Any], images: Sequence[Tensor]) -> list[Verdict]:
        batch = torch.stack(list(images))
        if isinstance(self.model, ExportedModel):
            return self._judged(photographs, *self.model.evaluate(batch))
        with torch.inference_mode():
            logits, features = self.model.evaluate_with_features(batch.to(self.model.device))
        return self._judged(photographs, self._calibrated(logits.cpu().numpy()), self.distances(features))

    def distances(self, features: Tensor) -> NDArray[np.float64] | None:
        """Return the distances of features (n, d) from the training photographs, (n,); None if not recorded."""
        return None if self.novelty is None else self.novelty.distances(features.cpu().numpy())

    def _calibrated(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the probabilities; NaN for a logit that is not finite."""
        probabilities, finite = np.full(len(logits), np.nan), np.isfinite(logits)
        probabilities[finite] = self.header.operating_point.probabilities(logits[finite])
        return probabilities

    def _judged(
        self,
        photographs: Sequence[Any],
        probabilities: NDArray[np.float64],
        distances: NDArray[np.float64] | None = None,
    ) -> list[Verdict]:
        header = self.header
        names = ["" if isinstance(one, Image.Image | np.ndarray) else os.fspath(one) for one in photographs]
        for name, probability in zip(names, probabilities, strict=True):
            if not math.isfinite(probability):
                shown = show_path(name) if name else "an image"
                message = f"The model gives no finite output for {shown}: its training diverged."
                raise CheckpointError(message, "model-diverged", path=name)
        known: list[Any] = [None] * len(names) if distances is None else distances.tolist()
        verdicts = []
        for name, p, distance in zip(names, probabilities.tolist(), known, strict=True):
            band = header.bands.band(p) if header.bands else None
            is_familiar = None if distance is None else distance <= 1
            verdict = Verdict(
                name, header.label_of(p), p, header.threshold, p >= header.threshold, band, distance, is_familiar
            )
            verdicts.append(verdict)
        return verdicts


def load(path: str | os.PathLike[str], device: Device = "auto") -> Classifier:
    """Return the classifier of a checkpoint, of a run folder's best checkpoint, or of an exported ONNX file.

    Args:
        path: The checkpoint, run folder or ONNX file.
        device: Device to compute on; auto uses a GPU if there is one. An ONNX file is computed on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or not one of bldml.
        RunError: There is no CUDA device, and one was asked for.
        UsageError: An ONNX file needs onnxruntime, which is not installed; or the path is none, or the device unknown.
    """
    if device not in get_args(Device):
        message = f"The device must be auto, cpu or cuda, not {device!r}."
        raise UsageError(message, "device-unknown", found=device)
    path = given_path(path, "The checkpoint")
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        exported = read_exported(path)
        return Classifier(exported.header, exported)
    return classifier_of(read_checkpoint(path), device)


def classifier_of(checkpoint: Checkpoint, device: Device = "auto") -> Classifier:
    """Return the classifier of a checkpoint that was read; errors as of `load`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("There is no CUDA device here. Use the device cpu.", "cuda-missing")
    header = checkpoint.header
    model = LeafClassifier(backbone=header.backbone, weights="none", image_size=header.image_size)
    load_weights(model, checkpoint)
    model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    return Classifier(header, model, checkpoint.novelty)


def load_weights(model: LeafClassifier, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights into the model.

    Raises:
        CheckpointError: They are no finite numbers, or do not fit the backbone that it names.
    """
    model.normalize_by(checkpoint.header.mean, checkpoint.header.std)
    try:
        check_numbers(checkpoint.state_dict)
    except ValueError as error:
        message = f"The weights in {checkpoint.path} cannot be used: {error}. Its training diverged, or it was changed."
        raise CheckpointError(message, "weights-not-numbers", path=checkpoint.path, reason=str(error)) from error
    try:
        model.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        path, expected = checkpoint.path, checkpoint.header.backbone
        message = f"The weights in {path} do not fit {expected}, the backbone in its header."
        raise CheckpointError(
            message, "weights-of-other-backbone", path=path, expected=expected, reason=str(error)
        ) from error


def _load(photograph: Photograph, target_size: int | None) -> Image.Image:
    if isinstance(photograph, Image.Image):
        try:
            return to_upright_srgb(photograph)
        except UnreadableImage as error:
            message = f"The image cannot be used: {error.reason}."
            raise DatasetError(message, "image-unusable", reason=error.reason) from error
    if isinstance(photograph, np.ndarray):
        if photograph.dtype != np.uint8 or photograph.ndim != 3 or photograph.shape[2] != 3 or 0 in photograph.shape:
            found = f"{photograph.dtype} {photograph.shape}"
            message = f"An image in memory must be RGB, uint8 (height, width, 3), not {found}."
            raise DatasetError(message, "array-wrong", found=found, expected="uint8 (height, width, 3)")
        return Image.fromarray(photograph)
    if not isinstance(photograph, str | os.PathLike):
        message = f"A photograph is a path, a PIL image or an array, not {type(photograph).__name__}. Several are a "
        message += "list, for predict alone."
        raise UsageError(message, "photograph-of-other-type", found=type(photograph).__name__)
    try:
        return load_rgb(given_path(photograph, "The photograph"), target_size)
    except UnreadableImage as error:
        raise unreadable_photograph(error) from error


def unreadable_photograph(error: UnreadableImage) -> DatasetError:
    """Return the mistake of naming a photograph that cannot be read."""
    message = f"The photograph {show_path(error.path)} cannot be read: {error.reason}."
    return DatasetError(message, "photograph-unreadable", path=error.path, reason=error.reason)


def _is_image(value: object) -> bool:
    return isinstance(value, Tensor)
