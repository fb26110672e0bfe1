"""The command `explain`: Grad-CAM overlays, a contact sheet and a table for a folder of photographs."""

import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from tqdm import tqdm

from bldml.app.evaluation import load_weights
from bldml.dataset.files import list_folder, show_path
from bldml.dataset.folders import read_unlabelled, require_folder
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.samples import Sample, no_photographs
from bldml.dataset.verify import verify
from bldml.errors import DatasetError, RunError
from bldml.inference.explain import (
    Attention,
    attention,
    contact_sheet,
    overlay,
    predict_with_map,
    read_mask,
    thumbnail,
    thumbnail_side,
)
from bldml.inference.gradcam import GradCam
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.system import processors
from bldml.io.text import counted, with_apostrophe
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.module import LeafClassifier

Device = Literal["auto", "cpu", "cuda"]

TABLE, SHEET = "explanations.csv", "contact_sheet.png"
COLUMNS = ("number", "path", "probability", "overlay")
MASK_COLUMNS = (
    "attention_in_leaf", "leaf_area", "leaf_enrichment",
    "attention_in_lesion", "lesion_area", "lesion_enrichment", "lesion_enrichment_within_leaf",
)  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """Explanation of one photograph.

    Attributes:
        name: Name of the photograph in the table.
        path: The photograph.
        probability: Calibrated probability of the positive class, in [0, 1].
        overlay: The PNG file that was written.
        attention: Attention inside its mask; None without a mask.
    """

    name: str
    path: Path
    probability: float
    overlay: Path
    attention: Attention | None = None


def explain_photographs(
    checkpoint: Checkpoint,
    items: Iterable[tuple[str, Path]],
    folder: Path,
    *,
    masks: Mapping[str, Path] | None = None,
    longest: int | None = None,
    device: Device = "auto",
) -> list[Explanation]:
    """Write `<number>_<name>.png` for each photograph, `contact_sheet.png` and `explanations.csv`.

    Args:
        checkpoint: The classifier.
        items: Name (for the table) and path of each photograph.
        folder: Output folder, created if missing. Files of the same names are replaced, others stay.
        masks: Path of the mask by name of the photograph; not every photograph needs one.
        longest: Longer side of the overlays in pixels, at least 1; None for the size of the photograph.
        device: Device to compute on; auto uses a GPU if there is one. Always in float32.

    Raises:
        DatasetError: A photograph or mask cannot be used.
        CheckpointError: The weights cannot be used.
        RunError: The folder contains the photographs themselves, or cannot be written.
    """
    photographs = list(items)
    for _, path in photographs:
        if os.path.realpath(path.parent) == os.path.realpath(folder) or path.resolve().parent == folder.resolve():
            message = f"{show_path(folder)} holds the photographs themselves. Give another --output."
            raise RunError(message, "output-holds-photographs", path=folder)
    make_folder(folder)
    side = thumbnail_side(len(photographs))
    explanations, thumbnails = [], []
    with GradCam(_load(checkpoint, device)) as gradcam:
        digits = max(4, len(str(len(photographs))))
        for i, (name, path) in enumerate(tqdm(photographs, desc="Explaining", unit="photo", leave=False, disable=None)):
            try:
                probability, cam = predict_with_map(gradcam, path, checkpoint.header.temperature)
                photograph = load_rgb(path)
            except UnreadableImage as error:
                message = f"The photograph {show_path(path)} cannot be read: {error.reason}."
                raise DatasetError(message, "photograph-unreadable", path=path, reason=error.reason) from error
            inside = None
            if masks and name in masks:
                inside = attention(cam, *read_mask(masks[name], path, photograph.size))
            if longest is not None:
                photograph.thumbnail((longest, longest))
            picture = overlay(photograph, cam)
            output = folder / f"{i + 1:0{digits}}_{_safe_stem(path.stem)}.png"
            write_atomically(output, _png(picture))
            thumbnails.append(thumbnail(picture, side))
            explanations.append(Explanation(name, path, probability, output, inside))
    if thumbnails:
        captions = [f"{i}  {e.probability:.3f}" for i, e in enumerate(explanations, 1)]
        write_atomically(folder / SHEET, _png(contact_sheet(thumbnails, captions, side)))
    write_atomically(folder / TABLE, _table(explanations, with_masks=masks is not None))
    return explanations


def explain_folder(
    checkpoint_path: Path, photographs: Path, output: Path, masks: Path | None = None, device: Device = "auto"
) -> None:
    """Explain a folder of photographs, or one photograph, and print where the results are.

    Args:
        checkpoint_path: A checkpoint written by fit.
        photographs: Folder, including its subfolders, or one file.
        output: Output folder (new or empty).
        masks: Folder of masks named `<photograph>_mask.png` or `<photograph>.png`.
        device: Device to compute on.

    Raises:
        CheckpointError, DatasetError, RunError: The checkpoint, a photograph, a mask or the output folder cannot be
            used; nothing was written.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    collection = read_unlabelled(photographs)
    samples = collection.splits["predict"]
    if not samples:
        raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
    _check_output(output, photographs, masks)
    mask_of = None if masks is None else find_masks(masks, samples)
    unreadable = [
        f"{show_path(result.sample.path)}: {result.reason}"
        for result in verify(samples, checkpoint.header.image_size, processors())
        if result.reason
    ]
    if unreadable:
        raise DatasetError(
            f"{len(unreadable)} of {counted(len(samples), 'photograph')} cannot be read:\n  " + "\n  ".join(unreadable),
            "photographs-unreadable",
            found=unreadable,
        )
    for reason, count in sorted(collection.ignored.items()):
        sys.stdout.write(f"Ignored: {count} × {reason}\n")
    if collection.heif:
        sys.stdout.write(
            f"Ignored: {len(collection.heif)} × HEIC photograph; install bldml[heif], or export them as JPEG\n"
        )
    items = [(sample.name, sample.path) for sample in samples]
    explanations = explain_photographs(checkpoint, items, output, masks=mask_of, device=device)
    if mask_of is not None:
        have = "has" if len(mask_of) == 1 else "have"
        sys.stdout.write(f"{len(mask_of)} of {counted(len(samples), 'photograph')} {have} a mask.\n")
    sys.stdout.write(
        f"Explained {counted(len(explanations), 'photograph')}; positive class: {checkpoint.header.positive_class}.\n"
    )
    sys.stdout.write(f"Results: {show_path(output)}\n")


def find_masks(folder: Path, samples: Iterable[Sample]) -> dict[str, Path]:
    """Return the path of the mask of each photograph that has one, by name of the photograph.

    A mask is in the folder itself or in a subfolder named as the photograph's, and is called `<stem>_mask.png` or
    `<stem>.png`.

    Raises:
        DatasetError: The folder does not exist or contains no mask, or two photographs would use the same mask.
    """
    require_folder(folder)
    masks: dict[str, Path] = {}
    owners: dict[Path, Sample] = {}
    for sample in samples:
        # The name is relative to the data folder; the stem is that of the path, which may contain any bytes.
        subfolder = Path(sample.name).parent
        candidates = [
            folder / part / f"{sample.path.stem}{end}.png" for part in (subfolder, "") for end in ("_mask", "")
        ]
        mask = next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113  # names too long
        if mask is None:
            continue
        if mask in owners:
            raise DatasetError(
                f"{show_path(owners[mask].path)} and {show_path(sample.path)} would share the mask {show_path(mask)}. "
                "Lay the masks into the same subfolders as the photographs.",
                "mask-ambiguous",
                path=mask,
                found=[owners[mask].path, sample.path],
            )
        masks[sample.name], owners[mask] = mask, sample
    if not masks:
        raise DatasetError(
            f"No photograph has a mask in {show_path(folder)}. A mask is named <photograph>_mask.png or "
            "<photograph>.png: black background, green leaf, red lesion.",
            "masks-none",
            path=folder,
        )
    return masks


def _check_output(output: Path, photographs: Path, masks: Path | None) -> None:
    """Refuse a folder that is not empty, or that is inside a folder of photographs or masks."""
    if os.path.lexists(output) and not output.is_dir():
        raise RunError(f"{show_path(output)} is not a folder. Give another --output.", "output-no-folder", path=output)
    if output.is_dir() and list_folder(output):
        message = f"{show_path(output)} holds files already and is left as it is. Give another --output."
        raise RunError(message, "output-not-empty", path=output)
    for folder in (photographs, masks):
        if folder is not None and folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            message = f"{show_path(output)} lies inside {show_path(folder)}. Give an --output outside."
            raise RunError(message, "output-inside-photographs", path=output, root=folder)


def _load(checkpoint: Checkpoint, device: Device) -> LeafClassifier:
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("There is no CUDA device here. Give --device cpu.", "cuda-missing")
    header = checkpoint.header
    model = LeafClassifier(backbone=header.backbone, weights="none", image_size=header.image_size)
    load_weights(model, checkpoint)
    return model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _safe_stem(stem: str) -> str:
    """Return a short name valid in every file system, shell and web page; the number before it makes it unique."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:60].strip("_") or "photograph"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")  # pixels alone, no EXIF
    return buffer.getvalue()


def _table(explanations: Iterable[Explanation], *, with_masks: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(MASK_COLUMNS if with_masks else ())])
    for number, e in enumerate(explanations, 1):
        name = with_apostrophe(e.name)
        cells: list[object] = [number, name, repr(e.probability), e.overlay.name]
        if with_masks:
            a = e.attention
            values = [] if a is None else [
                a.in_leaf, a.leaf_area, a.leaf_enrichment,
                a.in_lesion, a.lesion_area, a.lesion_enrichment, a.lesion_enrichment_within_leaf,
            ]  # fmt: skip
            cells += ["" if value is None else repr(value) for value in values or [None] * len(MASK_COLUMNS)]
        writer.writerow(cells)
    return text.getvalue().encode(errors="backslashreplace")
