"""Steps after an evaluation: its origin, its line in the ledger, images of its errors, the report of its run.

Images and report are optional results. If they cannot be made, a warning is printed and nothing else fails.
"""

import io
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from bldml.app.leaks import seen_by
from bldml.app.messages import say_warning
from bldml.dataset.files import escape_path, shell_word, show_path
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.samples import Sample
from bldml.errors import RunError
from bldml.inference.explain import overlay, predict_with_map
from bldml.inference.gradcam import GradCam
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import counted
from bldml.run import gallery
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.run.photographs import read_photograph_table
from bldml.run.predictions import Prediction, read_predictions
from bldml.run.provenance import DIGEST_DIGITS, ROLES, Provenance, count_known, role_of
from bldml.training.checkpoint import Checkpoint, software_versions
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.module import LeafClassifier

LONGEST = 320
"""Maximum of an image's longer side, in pixels."""
QUALITY = 85


def describe_evaluation(
    datamodule: LeafDataModule, checkpoint: Checkpoint, split: str, *, external: bool = False
) -> Provenance:
    """Return the origin of an evaluation and its role: what its photographs are to the run.

    Args:
        datamodule: Data module that has read the photographs.
        checkpoint: The classifier.
        split: `train`, `val`, `test` or `predict`.
        external: Whether the command names photographs other than those of the run's data set.
    """
    data = datamodule.photographs
    collection, digests, header = data.collection, data.contents_of(split).digests, checkpoint.header
    digest = data.dataset_digests.get(split, "")
    if split in ROLES and header.fingerprints.get(split) == digest:
        known: dict[str, int] | None = dict.fromkeys(ROLES, 0) | {split: len(digests)}
    else:
        known = _count_known(digests, checkpoint)
    return Provenance(
        role=role_of(split, digest, header.fingerprints, len(digests), known, own=not external),
        known=known,
        split=split,
        dataset_fingerprint=digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(sys.argv),
        checkpoint=str(checkpoint.path.absolute()),
        epoch=checkpoint.epoch,
        root=str(collection.root.absolute()),
        manifest=None if datamodule.manifest is None else str(Path(datamodule.manifest).absolute()),
        fold=datamodule.fold,
        ignored=dict(collection.ignored),
        excluded=len(data.excluded),
        versions=software_versions(),
    )


def _count_known(digests: Iterable[str], checkpoint: Checkpoint) -> dict[str, int] | None:
    """Count the photographs that belong to the run: by its table or, without one, by the digests in the checkpoint."""
    run = RunFolder.of_checkpoint(checkpoint.path)
    with suppress(RunError):  # a run of an older version, or one without its table
        if run is not None and (known := count_known(digests, read_photograph_table(run.photographs))) is not None:
            return known
    seen = seen_by(checkpoint)
    return {"seen": sum(digest[:DIGEST_DIGITS] in seen for digest in digests)} if seen else None


def enter_in_ledger(
    run: RunFolder | None, checkpoint: Checkpoint, name: str, split: str, digest: str | None, n: int
) -> None:
    """Add an evaluation to the run's ledger; do nothing for a checkpoint outside a run.

    Args:
        run: The checkpoint's run.
        checkpoint: The evaluated checkpoint.
        name: Name of the evaluation.
        split: `val` or `test`.
        digest: Dataset digest of the photographs.
        n: Number of photographs.
    """
    if run is None:
        return
    path = checkpoint.path.absolute()
    shown = path.relative_to(run.path.absolute()) if path.is_relative_to(run.path.absolute()) else path
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        append_entry(run, LedgerEntry(now, name, split, digest or "", n, escape_path(shown)))
    except RunError as error:
        say_warning(f"This evaluation was not added to the ledger of its run. {error}")


def draw_images(
    model: LeafClassifier,
    checkpoint: Checkpoint,
    evaluated: Mapping[Path, Iterable[Sample]],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make the images of evaluations; errors become warnings.

    Args:
        model: Model with the checkpoint's weights; it is on the CPU afterwards.
        checkpoint: The classifier.
        evaluated: Evaluation folders and their photographs.
        device: Device of the computation.
        check: Called between photographs; may raise an exception to interrupt.
    """
    for folder, samples in evaluated.items():
        try:
            with GradCam(model.to(device)) as gradcam:
                left_out = make_pictures(gradcam, checkpoint, folder, samples, check)
            if left_out:
                say_warning(f"No images were stored of {counted(len(left_out), 'photograph')}, first {left_out[0]}.")
        except Exception as error:  # whatever the error, the evaluation itself is complete
            say_warning(f"No images were stored for {show_path(folder)}: {_reason(error)}")
        finally:
            model.cpu()


def report_run(run: RunFolder) -> None:
    """Write the report of a run; errors become warnings."""
    try:
        # Here because only the report needs Matplotlib and Jinja2.
        from bldml.report.page import write_report

        sys.stdout.write(f"Report: {show_path(write_report(run))}\n")
    except Exception as error:
        command = f"python -m bldml report {shell_word(run.path)}"
        say_warning(f"The report could not be written: {_reason(error)}\nTo try again: {command}")


def make_pictures(
    gradcam: GradCam,
    checkpoint: Checkpoint,
    folder: Path,
    samples: Iterable[Sample],
    check: Callable[[], None] = lambda: None,
) -> list[str]:
    """Make small images of the photographs that a report shows, in `explanations/`; they replace previous ones.

    Args:
        gradcam: Active Grad-CAM context with the checkpoint's weights.
        checkpoint: The classifier.
        folder: `evaluations/<name>`, with its predictions.
        samples: The photographs.
        check: Called between photographs; may raise an exception to interrupt.

    Returns:
        The photographs that can no longer be read, with the reason.

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
                number = f"{len(names) + 1:03}"
                try:
                    _draw(gradcam, paths[row.path], header.temperature, hidden, number)
                except UnreadableImage as error:
                    left_out[row.path] = f"{show_path(row.path)}: {error.reason}"
                    continue
                names[row.path] = (f"{number}.jpg", f"{number}_seen.jpg")
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
    """Remove the images of a previous evaluation in one step.

    Args:
        folder: `evaluations/<name>`.

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


def _draw(gradcam: GradCam, path: Path, temperature: float, folder: Path, number: str) -> None:
    _, cam = predict_with_map(gradcam, path, temperature)
    photograph = load_rgb(path, LONGEST)
    photograph.thumbnail((LONGEST, LONGEST))
    (folder / f"{number}.jpg").write_bytes(_jpeg(photograph))
    (folder / f"{number}_seen.jpg").write_bytes(_jpeg(overlay(photograph, cam)))


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Only pixels: load_rgb drops the photograph's metadata.
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    if isinstance(error, RunError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
