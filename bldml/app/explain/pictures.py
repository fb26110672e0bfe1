"""Images of the errors and other photographs of an evaluation, for its report."""

import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from bldml.app.explain.output import encoded
from bldml.app.messages import describe_failure, say_warning
from bldml.dataset.files import show_path
from bldml.dataset.samples import Sample
from bldml.dataset.unchanged import load_unchanged
from bldml.errors import DatasetError, RunError
from bldml.inference.classifier import Classifier
from bldml.inference.pictures import overlay
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import counted
from bldml.run import gallery
from bldml.run.predictions import Prediction, read_predictions
from bldml.training.checkpoint import Checkpoint
from bldml.training.module import LeafClassifier

REPORT_SIDE, REPORT_QUALITY = 320, 85
"""Longer side in pixels, and JPEG quality, of the images for a report."""


def draw_images(
    model: LeafClassifier,
    checkpoint: Checkpoint,
    evaluated: Mapping[Path, Iterable[tuple[Sample, str]]],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make the images of evaluations, by folder, on a device; errors become warnings.

    The photographs come with the SHA-256 of their files when they were evaluated.

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
    samples: Iterable[tuple[Sample, str]],
    check: Callable[[], None] = lambda: None,
) -> list[str]:
    """Make small images of the photographs that a report shows, in `explanations/`; they replace previous ones.

    Returns the photographs that can no longer be read, with the reason; see `draw_images`.

    Raises:
        RunError: The predictions cannot be read, or the images cannot be written; previous images stay.
    """
    classifier = Classifier(checkpoint.header, model)
    chosen = gallery.choose_photographs(read_predictions(folder / "predictions.csv"), checkpoint.header.threshold)
    wanted = {row.path for _, row in chosen}
    known = {sample.name: (sample.path, digest) for sample, digest in samples if sample.name in wanted}
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
                    path, digest = known[row.path]
                    _, cam = classifier.verdict_with_map(path)
                    photograph = load_unchanged(path, digest, REPORT_SIDE)  # after the map, which is then of it too
                except DatasetError as error:
                    left_out[row.path] = f"{show_path(row.path)}: {error.fields['reason']}"
                    continue
                photograph.thumbnail((REPORT_SIDE, REPORT_SIDE))
                for name, picture in zip(files, (photograph, overlay(photograph, cam)), strict=True):
                    jpeg = encoded(picture, format="JPEG", quality=REPORT_QUALITY, optimize=True)
                    (hidden / name).write_bytes(jpeg)
                names[row.path] = files
            if row.path in names:
                rows.append((kind, row, *names[row.path]))
        write_atomically(hidden / gallery.TABLE, gallery.gallery_text(rows, hidden))
        remove_pictures(folder)
        hidden.rename(folder / gallery.FOLDER)
    except OSError as error:
        message = f"Cannot write in {show_path(folder)}: {error.strerror}."
        raise RunError(message, "gallery-not-writable", path=folder, reason=error.strerror) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)  # does not exist after the rename
    return list(left_out.values())


def has_pictures(folder: Path) -> bool:
    """Return whether the folder of an evaluation has images, which are complete if there are any."""
    return (folder / gallery.FOLDER / gallery.TABLE).is_file()


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
