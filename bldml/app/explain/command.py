"""The command `explain`: Grad-CAM of photographs."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bldml.app.explain.output import FinishedImages, ImageFormat, announce, open_output, write_results
from bldml.app.messages import say_warning
from bldml.dataset.files import show_path
from bldml.dataset.folders import read_unlabelled, require_folder
from bldml.dataset.formats.interruption import describe_interruption
from bldml.dataset.samples import Collection, Sample, no_photographs
from bldml.dataset.unchanged import load_unchanged
from bldml.dataset.verify import verify
from bldml.errors import DatasetError
from bldml.inference.classifier import Device, classifier_of
from bldml.inference.gradcam import require_gradcam
from bldml.inference.pictures import attention, overlay, read_mask
from bldml.io.atomic import make_folder
from bldml.io.locks import hold_output
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.system import processors, sha256_of
from bldml.io.text import counted, first_few, with_apostrophe
from bldml.training.backbones import row_of
from bldml.training.checkpoint import Checkpoint, read_checkpoint


def explain_folder(
    checkpoint_path: Path,
    photographs: Path,
    output: Path,
    image_format: ImageFormat,
    masks: Path | None = None,
    device: Device = "auto",
    *,
    exclude_unreadable: bool = False,
) -> None:
    """Explain a folder of photographs, or one photograph, in float32, and print what is done.

    Writes `<number>_<name>.png` for each photograph, `contact_sheet.png` and `explanations.csv`; see
    `bldml.commands.explain`. Images that an interrupted command has completed are kept.

    Raises:
        CheckpointError, DatasetError, RunError: The checkpoint, a photograph, a mask or the output folder cannot be
            used.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    require_gradcam(row_of(checkpoint.header.backbone), checkpoint.header.backbone)
    collection = read_unlabelled(photographs)
    found = collection.splits["predict"]
    if not found:
        raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
    settings = {"checkpoint": sha256_of(checkpoint.path), "format": image_format.name, "size": image_format.size}
    open_output(output, photographs, masks, settings)
    masks_of = {} if masks is None else find_masks(masks, found)
    digests, excluded = _read(found, checkpoint.header.image_size, exclude=exclude_unreadable)
    samples = [sample for sample in found if sample.name in digests]
    masks_of = {name: mask for name, mask in masks_of.items() if name in digests}
    for name, mask in masks_of.items():
        digests[name] += f" {sha256_of(mask)}"
    _print_ignored(collection)
    make_folder(output)
    with hold_output(output):
        progress = open_output(output, photographs, masks, settings)  # another process may have written there
        progress.keep(digests)
        left = [sample for sample in samples if sample.name not in progress.records]
        announce(left, len(samples) - len(left), output, image_format)
        if left:
            _explain(checkpoint, samples, left, masks_of, digests, progress, image_format, device)
        write_results(progress, excluded, image_format)
    if masks_of:
        have = "has" if len(masks_of) == 1 else "have"
        say(f"{len(masks_of)} of {counted(len(samples), 'photograph')} {have} a mask.\n")
    if unlike := [row for row in progress.rows if row.get("familiar") == "no"]:
        are = "is" if len(unlike) == 1 else "are"
        names = first_few([row["path"] for row in unlike], 10, ", ", " and ")
        say_warning(
            f"{counted(len(unlike), 'photograph')} {are} not like those that the classifier learned from: {names}."
        )
    if excluded:
        say_warning(f"{counted(len(excluded), 'photograph')} could not be read: see {show_path(output)}/excluded.csv.")
    say(
        f"Explained {counted(len(samples), 'photograph')}; positive class: {checkpoint.header.positive_class}.\n"
        f"Results: {show_path(output)}\n"
    )


def _read(samples: Sequence[Sample], image_size: int, *, exclude: bool) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the SHA-256 of each photograph by name, and those that cannot be read with reasons.

    Raises:
        DatasetError: Some cannot be read and are not to be excluded, or none can be read.
    """
    results = list(verify(samples, image_size, processors()))
    digests = {result.sample.name: result.digest for result in results if not result.reason}
    unreadable = [(result.sample, result.reason) for result in results if result.reason]
    if unreadable and not exclude:
        listed = [f"{show_path(sample.path)}: {reason}" for sample, reason in unreadable]
        message = f"{len(unreadable)} of {counted(len(samples), 'photograph')} cannot be read:\n  "
        message += first_few(listed, 20, "\n  ", "\n  … and ")
        if interruption := describe_interruption(sample.path for sample, _ in unreadable):
            message += f"\n{interruption}"
        message += "\n--unreadable exclude leaves them out."
        raise DatasetError(message, "photographs-unreadable", found=listed)
    if not digests:
        message = f"No photograph can be read ({len(samples)} found). The first: {unreadable[0][1]}."
        raise DatasetError(message, "photographs-all-unreadable", found=len(samples))
    return digests, [(sample.name, reason) for sample, reason in unreadable]


def _print_ignored(collection: Collection) -> None:
    for reason, count in sorted(collection.ignored.items()):
        say(f"Ignored: {count} × {reason}\n")
    if collection.heif:
        count = len(collection.heif)
        say(f"Ignored: {count} × HEIC photograph; install bldml[heif], or export them as JPEG\n")


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


def _explain(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    left: Sequence[Sample],
    masks: Mapping[str, Path],
    digests: Mapping[str, str],
    progress: FinishedImages,
    image_format: ImageFormat,
    device: Device,
) -> None:
    """Make the images of those photographs that are left."""
    classifier = classifier_of(checkpoint, device)
    numbers, digits = progress.numbers(samples), max(4, len(str(len(samples))))
    for sample in tqdm(left, desc="Explaining", unit="photo", leave=False, disable=None):
        mask = masks.get(sample.name)
        verdict, cam = classifier.verdict_with_map(sample.path)
        # After the map, so that it is of the same content. The photograph's size is compared with that of its mask.
        content, _, _ = digests[sample.name].partition(" ")
        photograph = load_unchanged(sample.path, content, None if mask else image_format.size)
        # A short name valid in every file system, shell and web page; the number makes it unique.
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", sample.path.stem)[:60].strip("_") or "photograph"
        number = numbers[sample.name]
        name = f"{number:0{digits}}_{stem}{image_format.suffix}"
        row: dict[str, Any] = {"number": number, "path": with_apostrophe(sample.name)}
        row |= {"probability": verdict.probability, "overlay": name}
        if verdict.band is not None:
            row["band"] = verdict.band
        if verdict.distance is not None:
            row |= {"distance": verdict.distance, "familiar": "yes" if verdict.is_familiar else "no"}
        if mask:
            row |= attention(cam, *read_mask(mask, sample.path, photograph.size))
        progress.add(sample.name, digests[sample.name], image_format.encode(overlay(photograph, cam)), row)
        safe_point(kept=1)
