"""The output folder of `explain`: format of the images, which are complete, tables and contact sheet."""

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from bldml.app.messages import say_warning
from bldml.dataset.files import list_folder, show_path
from bldml.dataset.images import load_rgb
from bldml.dataset.samples import Sample
from bldml.errors import RunError, UsageError
from bldml.inference.pictures import contact_sheet, thumbnail_side
from bldml.io.atomic import is_leftover, write_atomically
from bldml.io.documents import load_json, read_text
from bldml.io.locks import OUTPUT_LOCK
from bldml.io.screen import say
from bldml.io.text import counted, to_csv, with_apostrophe

PROGRESS = "progress.jsonl"
"""File with one line per finished photograph; its first line says with which checkpoint and format."""
SMALLEST_SIDE, JPEG_QUALITY = 32, 90


@dataclass(frozen=True)
class ImageFormat:
    """Format of the images, and their longer side in pixels; None for that of the photograph."""

    name: Literal["png", "jpeg"] = "png"
    size: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a size at which nothing can be seen."""
        if self.size is not None and self.size < SMALLEST_SIDE:
            message = f"--size must be at least {SMALLEST_SIDE} pixels, not {self.size}."
            raise UsageError(message, "image-size-unusable", found=self.size, expected=SMALLEST_SIDE)

    @property
    def suffix(self) -> str:
        """Suffix of the files."""
        return ".jpg" if self.name == "jpeg" else ".png"

    def encode(self, picture: Image.Image) -> bytes:
        """Return a picture as a file, reduced to the size."""
        if self.size is not None:
            picture.thumbnail((self.size, self.size))
        options = {"quality": JPEG_QUALITY, "optimize": True} if self.name == "jpeg" else {}
        return encoded(picture, format=self.name.upper(), **options)


@dataclass
class FinishedImages:
    """Which photographs are finished in an output folder, so that an interrupted command can be resumed.

    Attributes:
        folder: The output folder.
        settings: What all images have in common: SHA-256 of the checkpoint, format and size.
        records: By name of the photograph: digest of photograph and mask, size of the image in bytes, row of the table.
    """

    folder: Path
    settings: Mapping[str, Any]
    records: dict[str, dict[str, Any]]

    def keep(self, digests: Mapping[str, str]) -> None:
        """Keep what is complete for these photographs, given the digests of each and its mask; remove other images."""
        before, self.records = self.records, {}
        for name, record in before.items():
            image = self.folder / Path(record["row"]["overlay"]).name
            if record["digest"] == digests.get(name) and _size(image) == record["bytes"]:
                self.records[name] = record
            else:
                image.unlink(missing_ok=True)
        lines = [{"bldml_explain": self.settings}, *({"path": name, **r} for name, r in self.records.items())]
        write_atomically(self.folder / PROGRESS, "".join(f"{json.dumps(line)}\n" for line in lines))

    def add(self, name: str, digest: str, image: bytes, row: Mapping[str, Any]) -> None:
        """Write the image of a photograph, then that it is complete."""
        write_atomically(self.folder / row["overlay"], image)
        record = {"digest": digest, "bytes": len(image), "row": dict(row)}
        with (self.folder / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps({'path': name, **record})}\n")
        self.records[name] = record

    def numbers(self, samples: Sequence[Sample]) -> dict[str, int]:
        """Return a number for each photograph: finished ones keep theirs, others get the smallest free ones."""
        kept = {name: record["row"]["number"] for name, record in self.records.items()}
        taken = set(kept.values())
        free = (number for number in range(1, len(samples) + len(taken) + 1) if number not in taken)
        return {sample.name: kept.get(sample.name) or next(free) for sample in samples}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table, by number."""
        return sorted((record["row"] for record in self.records.values()), key=lambda row: row["number"])


def open_output(output: Path, photographs: Path, masks: Path | None, settings: Mapping[str, Any]) -> FinishedImages:
    """Return what an output folder already holds. Changes no file.

    Raises:
        RunError: The folder is inside a folder of photographs or masks, holds files of others, or images of another
            checkpoint, format or size.
    """
    if os.path.lexists(output) and not output.is_dir():
        raise RunError(f"{show_path(output)} is not a folder. Give another --output.", "output-no-folder", path=output)
    for folder in (photographs, masks):
        if folder is not None and folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            message = f"{show_path(output)} lies inside {show_path(folder)}. Give an --output outside."
            raise RunError(message, "output-inside-photographs", path=output, root=folder)
    names = [entry.name for entry in list_folder(output)] if output.is_dir() else []
    if all(name == OUTPUT_LOCK or is_leftover(name) for name in names):
        return FinishedImages(output, settings, {})
    lines = _lines(output / PROGRESS)
    before = lines[0].get("bldml_explain") if lines else None
    if not isinstance(before, dict):
        message = f"{show_path(output)} holds files already and is left as it is. Give another --output."
        raise RunError(message, "output-not-empty", path=output)
    for key, value in settings.items():
        if before.get(key) != value:
            message = f"{show_path(output)} holds images of another {key} and is left as it is. Give another --output."
            raise RunError(message, "output-of-other-images", path=output, key=key, found=before.get(key))
    records = {line.pop("path"): line for line in lines[1:] if {"path", "digest", "bytes", "row"} <= line.keys()}
    return FinishedImages(output, settings, records)


def announce(samples: Sequence[Sample], finished: int, output: Path, image_format: ImageFormat) -> None:
    """Print how many photographs will be explained, and about how much disk their images need.

    The size is estimated from up to three of the photographs, written in this format without a map.
    """
    if finished:
        say(f"{counted(finished, 'photograph was', 'photographs were')} explained before.\n")
    if not samples:
        return
    probes = samples[:: max(1, len(samples) // 3)][: 3 if len(samples) >= 30 else 1]
    sizes = [len(image_format.encode(load_rgb(sample.path, image_format.size))) for sample in probes]
    needed = sum(sizes) / len(sizes) * len(samples)
    say(f"Explaining {counted(len(samples), 'photograph')}: about {_megabytes(needed)} in {show_path(output)}.\n")
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.is_dir())
    if (free := shutil.disk_usage(folder).free) < needed:
        say_warning(f"Only {_megabytes(free)} are free there. --format jpeg and --size need less.")


def write_results(progress: FinishedImages, excluded: Sequence[tuple[str, str]], image_format: ImageFormat) -> None:
    """Write the table, the contact sheet of all images, and the list of excluded photographs."""
    rows, side = progress.rows, thumbnail_side(len(progress.records))
    thumbnails = []
    for row in rows:
        with Image.open(progress.folder / row["overlay"]) as file:
            picture = file.convert("RGB")
        picture.thumbnail((side, side), Image.Resampling.BILINEAR)
        thumbnails.append(picture)
    captions = [f"{row['number']}  {row['probability']:.3f}" for row in rows]
    sheet = ImageFormat(image_format.name).encode(contact_sheet(thumbnails, captions, side))
    write_atomically(progress.folder / f"contact_sheet{image_format.suffix}", sheet)
    columns = [*max(rows, key=lambda row: len(row))]  # of a photograph with a mask, if any has one
    table: list[list[Any]] = [columns, *([row.get(column) for column in columns] for row in rows)]
    write_atomically(progress.folder / "explanations.csv", _csv(table))
    path = progress.folder / "excluded.csv"
    if excluded:
        reasons = [(with_apostrophe(name), reason) for name, reason in excluded]
        write_atomically(path, _csv([("path", "reason"), *reasons]))
    else:
        path.unlink(missing_ok=True)  # of an earlier command


def encoded(picture: Image.Image, **options: Any) -> bytes:
    """Return a picture as a file of its pixels alone: load_rgb drops the photograph's metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    return to_csv(rows).encode(errors="backslashreplace")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON lines file; those that are damaged, as after a power failure, are left out."""
    found = []
    try:
        text = read_text(path)
    except (OSError, ValueError):
        return []
    for line in text.splitlines():
        try:
            value = load_json(line)
        except ValueError:
            continue
        found += [value] if isinstance(value, dict) else []
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _megabytes(size: float) -> str:
    """Return a size in megabytes, or gigabytes.

    >>> _megabytes(200), _megabytes(2.51e7), _megabytes(1.25e10)
    ('1 MB', '25 MB', '12.5 GB')
    """
    return f"{max(1, size / 1e6):.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
