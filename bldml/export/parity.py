"""Whether an exported file gives the probabilities and verdicts of its checkpoint, on photographs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bldml.dataset.files import show_path, unescape_path
from bldml.dataset.folders import read_unlabelled
from bldml.dataset.images import Decode, UnreadableImage, decoding_size, load_rgb
from bldml.dataset.samples import no_photographs
from bldml.errors import CheckpointError, DatasetError
from bldml.export.storage import Weights
from bldml.inference.classifier import Classifier, unreadable_photograph
from bldml.inference.exported import ExportedModel
from bldml.io.safe_points import safe_point
from bldml.io.system import processors
from bldml.io.text import counted, first_few
from bldml.run.files import read_table
from bldml.run.folder import RunFolder
from bldml.training.checkpoint import Checkpoint
from bldml.training.transforms import evaluation_image

BATCH_SIZE = 16
TOLERANCE = 1e-4
"""Largest allowed difference of a probability; what remains is the order of additions in float32."""
WIDER_TOLERANCE = 0.02
"""The same where numbers really differ: weights stored in float16, or JPEGs decoded at another scale."""
INT8_TOLERANCE = 0.05
"""The same for weights stored in int8."""
DISTANCE_TOLERANCE, INT8_DISTANCE_TOLERANCE = 0.01, 0.1
"""Largest allowed difference of a distance from the training photographs, in multiples of its limit. That single
photographs cross the limit is stated, not refused: the limit is itself the distance of one of them."""


_CLOSEST = "The closest export is that with --weights fp32."


@dataclass(frozen=True)
class Compared:
    """Photographs on which an export is compared with its checkpoint.

    Attributes:
        source: What they are, in words that contain no path.
        paths: Their paths; at least one.
    """

    source: str
    paths: Sequence[Path]


@dataclass(frozen=True)
class Parity:
    """How far the probabilities of an exported file are from those of its checkpoint.

    Attributes:
        photographs: What was compared.
        n: Number of photographs.
        largest: Largest difference of a probability, in [0, 1].
        mean: Mean difference.
        changed: Photographs on the other side of the threshold.
        nearest: Smallest distance of a probability of the checkpoint from the threshold.
        tolerance: Largest allowed difference.
        largest_distance: Largest difference of a distance from the training photographs; None without distances.
        distance_tolerance: Largest allowed difference of it.
        bands_changed: Number of photographs with another band.
        familiarity_changed: Number of photographs that only one of both calls unlike the training photographs.
    """

    photographs: str
    n: int
    largest: float
    mean: float
    changed: tuple[Path, ...]
    nearest: float
    tolerance: float
    largest_distance: float | None = None
    distance_tolerance: float = DISTANCE_TOLERANCE
    bands_changed: int = 0
    familiarity_changed: int = 0

    @property
    def sentence(self) -> str:
        """What was found, for a page and a model card; only of an export that was accepted."""
        sentences = [
            f"Compared with its checkpoint on {counted(self.n, 'photograph')} ({self.photographs}), the probabilities "
            f"of this export differ by at most {self.largest:.1e}, and no verdict differs."
        ]
        if self.bands_changed:
            sentences.append(f"The band of {counted(self.bands_changed, 'photograph')} differs.")
        if self.familiarity_changed:
            number = counted(self.familiarity_changed, "photograph")
            sentences.append(f"Whether it is unlike the training photographs differs for {number}.")
        return " ".join(sentences)

    def numbers(self) -> dict[str, Any]:
        """Return it for parity.json."""
        return {
            "photographs": self.photographs,
            "n": self.n,
            "largest_difference": self.largest,
            "mean_difference": self.mean,
            "tolerance": self.tolerance,
            "verdicts_changed": len(self.changed),
            "nearest_to_threshold": self.nearest,
            "largest_difference_of_distance": self.largest_distance,
            "tolerance_of_distance": self.distance_tolerance,
            "bands_changed": self.bands_changed,
            "familiarity_changed": self.familiarity_changed,
        }


def validation_photographs(checkpoint: Checkpoint) -> Compared:
    """Return the validation photographs of a checkpoint's run.

    Raises:
        DatasetError: They are not known, because the checkpoint lies in no run folder, or not there any more.
    """
    way_out = "Give photographs with --photographs FOLDER."
    run = RunFolder.of_checkpoint(checkpoint.path)
    rows = () if run is None else read_table(run.splits, ("path", "split"))
    data = checkpoint.header.settings["data"]
    root = data.get("root") or (str(Path(data["manifest"]).parent) if data.get("manifest") else None)
    names = [row["path"] for row in rows if row["split"] == "val"]
    if not names or root is None:
        message = f"The validation photographs of {show_path(checkpoint.path)} are not known: it lies in no run folder "
        message += f"with a splits.csv. {way_out}"
        raise DatasetError(message, "parity-photographs-unknown", path=checkpoint.path)
    paths = [Path(root) / unescape_path(name) for name in names]
    if missing := [path for path in paths if not path.is_file()]:
        message = f"{counted(len(missing), 'validation photograph')} of {len(paths)} cannot be found: "
        message += f"{first_few([show_path(path) for path in missing], 3)}. Restore them. Or: {way_out}"
        raise DatasetError(message, "parity-photographs-missing", path=root, found=len(missing))
    return Compared("the run's validation split", paths)


def photographs_below(folder: Path) -> Compared:
    """Return the photographs below a folder; DatasetError if there are none."""
    collection = read_unlabelled(folder)
    paths = [sample.path for sample in collection.splits["predict"]]
    if not paths:
        raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
    return Compared("a folder that was given with --photographs", paths)


def compare_with_checkpoint(
    classifier: Classifier, exported: ExportedModel, compared: Compared, decode: Decode, weights: Weights
) -> Parity:
    """Compare the probabilities of both, each computed in float32 on the CPU.

    Args:
        classifier: That of the checkpoint, on the CPU.
        exported: The exported file.
        compared: The photographs.
        decode: How the export will decode JPEGs; the checkpoint decodes as its header says.
        weights: How the export stores its weights, which decides about the largest allowed differences.

    Raises:
        DatasetError: A photograph cannot be read.
        CheckpointError: The checkpoint's output is not finite.
    """
    header, columns = classifier.header, list[tuple[NDArray[np.float64], ...]]()
    for paths, own, other in _batches(compared.paths, header.image_size, (header.decode, decode)):
        with torch.inference_mode():
            on_device, features = classifier.network.evaluate_with_features(own)
        logits, distances = on_device.numpy(), classifier.distances(features)
        if not np.isfinite(logits).all():
            message = "The model gives no finite output for a photograph: its training diverged."
            raise CheckpointError(message, "model-diverged", path=paths[int(np.argmin(np.isfinite(logits)))])
        expected, (found, others) = header.operating_point.probabilities(logits), exported.evaluate(other)
        has_both = distances is not None and others is not None
        columns.append((expected, found, *((distances, others) if has_both else ())))
    expected, found, *both = (np.concatenate(column) for column in zip(*columns, strict=True))
    changed = np.flatnonzero((expected >= header.threshold) != (found >= header.threshold))
    bands = [[header.bands.band(p) if header.bands else None for p in some.tolist()] for some in (expected, found)]
    return Parity(
        compared.source,
        len(found),
        largest=float(np.abs(expected - found).max()),
        mean=float(np.abs(expected - found).mean()),
        changed=tuple(compared.paths[int(number)] for number in changed),
        nearest=float(np.abs(expected - header.threshold).min()),
        tolerance=_tolerance(weights, is_decoded_alike=decode == header.decode),
        largest_distance=float(np.abs(both[0] - both[1]).max()) if both else None,
        distance_tolerance=INT8_DISTANCE_TOLERANCE if weights == "int8" else DISTANCE_TOLERANCE,
        bands_changed=sum(one != other for one, other in zip(*bands, strict=True)),
        familiarity_changed=int(np.sum((both[0] > 1) != (both[1] > 1))) if both else 0,
    )


def _tolerance(weights: Weights, *, is_decoded_alike: bool) -> float:
    if weights == "int8":
        return INT8_TOLERANCE
    return TOLERANCE if weights == "fp32" and is_decoded_alike else WIDER_TOLERANCE


def check_parity(parity: Parity) -> None:
    """Raise a CheckpointError if a verdict changed, or a probability differs by more than is allowed."""
    if parity.changed:
        names = first_few([show_path(path) for path in parity.changed], 5)
        message = f"The export is refused: it changes the verdict on {len(parity.changed)} of "
        message += f"{counted(parity.n, 'photograph')} ({names}). The largest difference is {parity.largest:.2g}; the "
        message += f"nearest probability is {parity.nearest:.2g} from the threshold. {_CLOSEST}"
        raise CheckpointError(message, "parity-verdicts-changed", found=len(parity.changed), largest=parity.largest)
    if not parity.largest <= parity.tolerance:
        message = f"The export is refused: no verdict changes on {counted(parity.n, 'photograph')}, but a probability "
        message += f"differs by {parity.largest:.2g} from the checkpoint's; {parity.tolerance:g} is allowed. {_CLOSEST}"
        raise CheckpointError(message, "parity-too-far", found=parity.largest, expected=parity.tolerance)
    if parity.largest_distance is not None and not parity.largest_distance <= parity.distance_tolerance:
        found, expected = parity.largest_distance, parity.distance_tolerance
        message = (
            f"The export is refused: no verdict changes on {counted(parity.n, 'photograph')}, but a distance from "
        )
        message += f"the training photographs differs by {found:.2g} of its limit; {expected:g} is allowed. {_CLOSEST}"
        raise CheckpointError(message, "parity-distance-too-far", found=found, expected=expected)


def _batches(
    paths: Sequence[Path], size: int, decodes: tuple[Decode, Decode]
) -> Iterator[tuple[list[Path], Tensor, Tensor]]:
    """Yield photographs with their images for checkpoint and export; threads decode the next ones meanwhile."""

    def read(path: Path) -> list[Tensor]:
        sizes = dict.fromkeys(decoding_size(decode, size) for decode in decodes)
        images = {target: evaluation_image(load_rgb(path, target), size) for target in sizes}
        return [images[decoding_size(decode, size)] for decode in decodes]

    with ThreadPoolExecutor(workers := min(16, processors())) as pool:
        rest = iter(paths)
        ahead = [(path, pool.submit(read, path)) for path in islice(rest, BATCH_SIZE + workers)]
        with tqdm(total=len(paths), desc="Comparing", unit="photo", leave=False, disable=None) as bar:
            while ahead:
                now, ahead = ahead[:BATCH_SIZE], ahead[BATCH_SIZE:]
                ahead += [(path, pool.submit(read, path)) for path in islice(rest, len(now))]
                try:
                    images = [future.result() for _, future in now]
                except UnreadableImage as error:
                    raise unreadable_photograph(error) from error
                own, other = (torch.stack(list(some)) for some in zip(*images, strict=True))
                yield [path for path, _ in now], own, other
                bar.update(len(now))
                safe_point()
