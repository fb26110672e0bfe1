"""What follows an evaluation: where it came from, its line in the ledger, pictures of its errors, its run's report.

Pictures and report are a help. Where they cannot be made, that is said and nothing else fails.
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
"""Longer side of a picture in pixels, at most."""
QUALITY = 85


def describe_evaluation(
    datamodule: LeafDataModule, checkpoint: Checkpoint, split: str, *, external: bool = False
) -> Provenance:
    """What an evaluation was made of, and what its photographs are to the run.

    Args:
        datamodule: The photographs, read.
        checkpoint: The classifier.
        split: `train`, `val`, `test` or `predict`.
        external: Whether the command named other photographs than those that the run was divided from.
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
    """How many photographs are the run's own: by its table, or, without one, by what the checkpoint has seen."""
    run = RunFolder.of_checkpoint(checkpoint.path)
    with suppress(RunError):  # a run of an older version, or one whose table is gone
        if run is not None and (known := count_known(digests, read_photograph_table(run.photographs))) is not None:
            return known
    seen = seen_by(checkpoint)
    return {"seen": sum(digest[:DIGEST_DIGITS] in seen for digest in digests)} if seen else None


def enter_in_ledger(
    run: RunFolder | None, checkpoint: Checkpoint, name: str, split: str, fingerprint: str | None, n: int
) -> None:
    """Note in the run's ledger that an evaluation was made; nothing for a checkpoint outside a run.

    Args:
        run: The checkpoint's run.
        checkpoint: What was evaluated.
        name: Name of the evaluation.
        split: `val` or `test`.
        fingerprint: Of the photographs.
        n: Number of photographs.
    """
    if run is None:
        return
    path = checkpoint.path.absolute()
    place = path.relative_to(run.path.absolute()) if path.is_relative_to(run.path.absolute()) else path
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        append_entry(run, LedgerEntry(now, name, split, fingerprint or "", n, escape_path(place)))
    except RunError as error:
        say_warning(f"This evaluation is not in the ledger of its run. {error}")


def picture(
    model: LeafClassifier,
    checkpoint: Checkpoint,
    evaluated: Mapping[Path, Iterable[Sample]],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make the pictures of evaluations; what goes wrong is said as a warning.

    Args:
        model: With the checkpoint's weights; on the CPU afterwards.
        checkpoint: The classifier.
        evaluated: The photographs of each evaluation's folder.
        device: Where to compute.
        check: Called between photographs; may raise to stop.
    """
    for folder, samples in evaluated.items():
        try:
            with GradCam(model.to(device)) as gradcam:
                left_out = make_pictures(gradcam, checkpoint, folder, samples, check)
            if left_out:
                say_warning(f"There is no picture of {counted(len(left_out), 'photograph')}, first {left_out[0]}.")
        except Exception as error:  # whatever it is, the evaluation itself is done
            say_warning(f"No pictures were stored of the photographs in {show_path(folder)}: {_reason(error)}")
        finally:
            model.cpu()


def report_run(run: RunFolder) -> None:
    """Write the report of a run; what goes wrong is said as a warning."""
    try:
        # Matplotlib and Jinja2 are wanted here alone.
        from bldml.report.page import write_report

        sys.stdout.write(f"Report: {show_path(write_report(run))}\n")
    except Exception as error:
        again = f"python -m bldml report {shell_word(run.path)}"
        say_warning(f"The report could not be written: {_reason(error)}\nTo try again: {again}")


def make_pictures(
    gradcam: GradCam,
    checkpoint: Checkpoint,
    folder: Path,
    samples: Iterable[Sample],
    check: Callable[[], None] = lambda: None,
) -> list[str]:
    """Make small pictures of the photographs that a report shows, in `explanations/`, in the place of earlier ones.

    Args:
        gradcam: Entered, with the checkpoint's weights.
        checkpoint: The classifier.
        folder: `evaluations/<name>`, with its predictions.
        samples: Where the photographs are.
        check: Called between photographs; may raise to stop.

    Returns:
        The photographs that cannot be read any more, with the reason.

    Raises:
        RunError: The predictions cannot be read, or the pictures not be written; earlier pictures stay.
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
        shutil.rmtree(hidden, ignore_errors=True)  # after the rename it is not there
    return list(left_out.values())


def remove_pictures(folder: Path) -> None:
    """Remove the pictures of an earlier evaluation; they vanish in one step.

    Args:
        folder: `evaluations/<name>`.

    Raises:
        RunError: `explanations/` holds something else, or cannot be removed.
    """
    place = folder / gallery.FOLDER
    if not place.exists():
        return
    if not (place / gallery.TABLE).is_file():
        message = f"{show_path(place)} was not made by an evaluation and is left as it is. Move it away."
        raise RunError(message, "gallery-foreign", path=place)
    old = folder / f".bldml-{secrets.token_hex(8)}.tmp"
    try:
        place.rename(old)
    except OSError as error:
        message = f"Cannot remove {show_path(place)}: {error.strerror}."
        raise RunError(message, "gallery-not-removable", path=place, reason=error.strerror) from error
    shutil.rmtree(old, ignore_errors=True)


def _draw(gradcam: GradCam, path: Path, temperature: float, folder: Path, number: str) -> None:
    _, cam = predict_with_map(gradcam, path, temperature)
    photograph = load_rgb(path, LONGEST)
    photograph.thumbnail((LONGEST, LONGEST))
    (folder / f"{number}.jpg").write_bytes(_jpeg(photograph))
    (folder / f"{number}_seen.jpg").write_bytes(_jpeg(overlay(photograph, cam)))


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Pixels alone: load_rgb has left the photograph's metadata behind.
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    if isinstance(error, RunError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
