"""Grad-CAM of photographs: the command `explain`, and the images of an evaluation's errors for its report."""

import csv
import io
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from tqdm import tqdm

from bldml.app.messages import describe_failure, say_warning
from bldml.dataset.files import list_folder, show_path
from bldml.dataset.folders import read_unlabelled, require_folder
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.samples import Sample, no_photographs
from bldml.dataset.verify import verify
from bldml.errors import DatasetError, RunError
from bldml.inference import (
    attention,
    contact_sheet,
    load_weights,
    overlay,
    predict_with_map,
    read_mask,
    thumbnail_side,
)
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.system import processors
from bldml.io.text import counted, with_apostrophe
from bldml.run import gallery
from bldml.run.predictions import Prediction, read_predictions
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.module import LeafClassifier

Device = Literal["auto", "cpu", "cuda"]

REPORT_SIDE, REPORT_QUALITY = 320, 85
"""Longer side in pixels, and JPEG quality, of the images for a report."""


def explain_folder(
    checkpoint_path: Path, photographs: Path, output: Path, masks: Path | None = None, device: Device = "auto"
) -> None:
    """Explain a folder of photographs, or one photograph, in float32, and print what was done.

    Writes `<number>_<name>.png` for each photograph, `contact_sheet.png` and `explanations.csv`; see
    `bldml.commands.explain`.

    Raises:
        CheckpointError, DatasetError, RunError: The checkpoint, a photograph, a mask or the output folder cannot be
            used.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    collection = read_unlabelled(photographs)
    samples = collection.splits["predict"]
    if not samples:
        raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
    _check_output(output, photographs, masks)
    mask_of = {} if masks is None else find_masks(masks, samples)
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
        count = len(collection.heif)
        sys.stdout.write(f"Ignored: {count} × HEIC photograph; install bldml[heif], or export them as JPEG\n")
    _explain(checkpoint, samples, mask_of, output, device)
    if mask_of:
        have = "has" if len(mask_of) == 1 else "have"
        sys.stdout.write(f"{len(mask_of)} of {counted(len(samples), 'photograph')} {have} a mask.\n")
    sys.stdout.write(
        f"Explained {counted(len(samples), 'photograph')}; positive class: {checkpoint.header.positive_class}.\n"
        f"Results: {show_path(output)}\n"
    )


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
        places = (folder / Path(sample.name).parent, folder)
        candidates = [place / f"{sample.path.stem}{end}.png" for place in places for end in ("_mask", "")]
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


def _explain(
    checkpoint: Checkpoint, samples: Sequence[Sample], masks: Mapping[str, Path], output: Path, device: Device
) -> None:
    model = _load(checkpoint, device)
    make_folder(output)
    side, digits = thumbnail_side(len(samples)), max(4, len(str(len(samples))))
    rows, thumbnails = [], []
    for number, sample in enumerate(tqdm(samples, desc="Explaining", unit="photo", leave=False, disable=None), 1):
        try:
            probability, cam = predict_with_map(model, sample.path, checkpoint.header)
            photograph = load_rgb(sample.path)
        except UnreadableImage as error:
            message = f"The photograph {show_path(sample.path)} cannot be read: {error.reason}."
            raise DatasetError(message, "photograph-unreadable", path=sample.path, reason=error.reason) from error
        # A short name valid in every file system, shell and web page; the number makes it unique.
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", sample.path.stem)[:60].strip("_") or "photograph"
        name = f"{number:0{digits}}_{stem}.png"
        row: dict[str, Any] = {"number": number, "path": with_apostrophe(sample.name)}
        row |= {"probability": probability, "overlay": name}
        if mask := masks.get(sample.name):
            row |= attention(cam, *read_mask(mask, sample.path, photograph.size))
        rows.append(row)
        picture = overlay(photograph, cam)
        write_atomically(output / name, _encoded(picture, format="PNG"))
        picture.thumbnail((side, side), Image.Resampling.BILINEAR)
        thumbnails.append(picture)
    captions = [f"{row['number']}  {row['probability']:.3f}" for row in rows]
    write_atomically(output / "contact_sheet.png", _encoded(contact_sheet(thumbnails, captions, side), format="PNG"))
    text = io.StringIO()
    table = csv.DictWriter(text, max(rows, key=len), lineterminator="\n")  # of a photograph with a mask, if any has one
    table.writeheader()
    table.writerows(rows)
    write_atomically(output / "explanations.csv", text.getvalue().encode(errors="backslashreplace"))


def _load(checkpoint: Checkpoint, device: Device) -> LeafClassifier:
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("There is no CUDA device here. Give --device cpu.", "cuda-missing")
    header = checkpoint.header
    model = LeafClassifier(backbone=header.backbone, weights="none", image_size=header.image_size)
    load_weights(model, checkpoint)
    return model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _encoded(picture: Image.Image, **options: Any) -> bytes:
    """Return a picture as a file of its pixels alone: load_rgb drops the photograph's metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def draw_images(
    model: LeafClassifier,
    checkpoint: Checkpoint,
    evaluated: Mapping[Path, Iterable[Sample]],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make the images of evaluations, by folder, on a device; errors become warnings.

    The model must have the checkpoint's weights and is on the CPU afterwards. `check` is called between photographs and
    may raise an exception to interrupt.
    """
    for folder, samples in evaluated.items():
        try:
            left_out = make_pictures(model.to(device), checkpoint, folder, samples, check)
            if left_out:
                say_warning(f"No images were stored of {counted(len(left_out), 'photograph')}, first {left_out[0]}.")
        except Exception as error:  # whatever the error, the evaluation itself is complete
            say_warning(f"No images were stored for {show_path(folder)}: {describe_failure(error)}")
        finally:
            model.cpu()


def make_pictures(
    model: LeafClassifier,
    checkpoint: Checkpoint,
    folder: Path,
    samples: Iterable[Sample],
    check: Callable[[], None] = lambda: None,
) -> list[str]:
    """Make small images of the photographs that a report shows, in `explanations/`; they replace previous ones.

    Returns the photographs that can no longer be read, with the reason; see `draw_images`.

    Raises:
        RunError: The predictions cannot be read, or the images cannot be written; previous images stay.
    """
    header = checkpoint.header
    chosen = gallery.choose_photographs(read_predictions(folder / "predictions.csv"), header.threshold)
    paths = {sample.name: sample.path for sample in samples}
    names: dict[str, tuple[str, str]] = {}
    left_out: dict[str, str] = {}
    hidden = folder / f".bldml-{secrets.token_hex(8)}.tmp"
    make_folder(hidden)
    try:
        rows: list[tuple[gallery.GalleryKind, Prediction, str, str]] = []
        for kind, row in tqdm(chosen, desc="Pictures", unit="photo", leave=False, disable=None):
            check()
            if row.path not in names and row.path not in left_out:
                files = f"{len(names) + 1:03}.jpg", f"{len(names) + 1:03}_seen.jpg"
                try:
                    _, cam = predict_with_map(model, paths[row.path], header)
                    photograph = load_rgb(paths[row.path], REPORT_SIDE)
                except UnreadableImage as error:
                    left_out[row.path] = f"{show_path(row.path)}: {error.reason}"
                    continue
                photograph.thumbnail((REPORT_SIDE, REPORT_SIDE))
                for name, picture in zip(files, (photograph, overlay(photograph, cam)), strict=True):
                    jpeg = _encoded(picture, format="JPEG", quality=REPORT_QUALITY, optimize=True)
                    (hidden / name).write_bytes(jpeg)
                names[row.path] = files
            if row.path in names:
                rows.append((kind, row, *names[row.path]))
        write_atomically(hidden / gallery.TABLE, gallery.gallery_text(rows))
        remove_pictures(folder)
        hidden.rename(folder / gallery.FOLDER)
    except OSError as error:
        message = f"Cannot write in {show_path(folder)}: {error.strerror}."
        raise RunError(message, "gallery-not-writable", path=folder, reason=error.strerror) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)  # does not exist after the rename
    return list(left_out.values())


def remove_pictures(folder: Path) -> None:
    """Remove the images of a previous evaluation, of the folder `evaluations/<name>`, in one step.

    Raises:
        RunError: `explanations/` contains something else, or cannot be removed.
    """
    images = folder / gallery.FOLDER
    if not images.exists():
        return
    if not (images / gallery.TABLE).is_file():
        message = f"{show_path(images)} was not made by an evaluation and is not changed. Move it away."
        raise RunError(message, "gallery-foreign", path=images)
    old = folder / f".bldml-{secrets.token_hex(8)}.tmp"
    try:
        images.rename(old)
    except OSError as error:
        message = f"Cannot remove {show_path(images)}: {error.strerror}."
        raise RunError(message, "gallery-not-removable", path=images, reason=error.strerror) from error
    shutil.rmtree(old, ignore_errors=True)
