"""Which planted shortcuts an audit finds, how severe it calls them, and how often it finds one where there is none.

Labels are random, so that nothing tells them but what is planted in one class. Photographs are drawn leaves of 384 px,
and coffee leaves where a folder is given. Sets without a plant have other random labels of the same photographs.

    python benchmarks/shortcuts.py --coffee ../shared/data/coffee/images
"""

import argparse
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from bldml.audit.checks.shortcuts import find_shortcuts, report_shortcuts
from bldml.audit.examine import FileRecord, Row, examine_file
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.metrics.proportions import proportion

RESULT = Path(__file__).parent / "results" / "shortcuts.json"
QUALITY = 92
SIZES = (60, 120, 240, 400, 600)  # of sets without a plant

Generator = np.random.Generator
Source = Path | int  # a file, or the number of a drawn leaf
Written = tuple[bytes, str]  # content and suffix of a file
Plant = Callable[[Image.Image, Generator], Written]


def jpeg(image: Image.Image, _: Generator | None = None, **options: Any) -> Written:
    """Encode as JPEG, as the class without the plant always is."""
    file = io.BytesIO()
    image.save(file, format="JPEG", **{"quality": QUALITY} | options)
    return file.getvalue(), ".jpg"


def edited(edit: Callable[[Image.Image, Generator], Image.Image]) -> Plant:
    """Return the plant that edits the pixels and encodes as the other class."""
    return lambda image, generator: jpeg(edit(image, generator))


def again(image: Image.Image, **options: Any) -> Image.Image:
    """Encode and decode."""
    file = io.BytesIO()
    image.save(file, **options)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Resize by a factor."""
    width, height = (max(8, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def enlarged(image: Image.Image, _: Generator) -> Image.Image:
    """Shrink to 70 % and enlarge again."""
    return scaled(image, 0.7).resize(image.size, Image.Resampling.BICUBIC)


def zoom(image: Image.Image, _: Generator) -> Image.Image:
    """Crop 10 % of each side, at the same size."""
    width, height = image.size
    box = (width // 10, height // 10, width - width // 10, height - height // 10)
    return image.crop(box).resize(image.size, Image.Resampling.BICUBIC)


def with_noise(image: Image.Image, generator: Generator, sigma: float = 5) -> Image.Image:
    """Add noise of a standard deviation in grey levels."""
    pixels = np.asarray(image, dtype=np.float32)
    return Image.fromarray(np.uint8(np.clip(pixels + generator.normal(0, sigma, pixels.shape), 0, 255)))


def _radius(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows, columns = np.mgrid[-1 : 1 : 1j * image.height, -1 : 1 : 1j * image.width]
    return np.asarray((rows**2 + columns**2)[..., None])


def vignette(image: Image.Image, _: Generator) -> Image.Image:
    """Darken the corners by 25 %."""
    return Image.fromarray(np.uint8(np.asarray(image) * (1 - 0.125 * _radius(image))))


def flash(image: Image.Image, _: Generator) -> Image.Image:
    """Brighten the middle by 20 %."""
    return Image.fromarray(np.uint8(np.minimum(255, np.asarray(image) * (1 + 0.2 * np.exp(-2 * _radius(image))))))


def white_balance(image: Image.Image, _: Generator) -> Image.Image:
    """Warmer light: red 6 % brighter, blue 6 % darker."""
    return Image.fromarray(np.uint8(np.clip(np.asarray(image) * np.array([1.06, 1, 0.94]), 0, 255)))


def write(image: Image.Image, text: str, corner: tuple[float, float], colour: Any, height: float) -> Image.Image:
    """Write a text at a place (parts of width and height), with letters of a height in parts of the shorter side."""
    image = image.copy()
    size = max(9, round(height * min(image.size)))
    at = (round(corner[0] * image.width), round(corner[1] * image.height))
    ImageDraw.Draw(image).text(at, text, colour, font_size=size)
    return image


def date_stamp(image: Image.Image, generator: Generator) -> Image.Image:
    """An orange date in the bottom right corner, another one on each photograph."""
    day, month, minute = (int(generator.integers(10, stop)) for stop in (29, 13, 60))
    return write(image, f"'24 {month} {day} 12:{minute}", (0.68, 0.92), (255, 150, 40), 0.045)


def ruler(image: Image.Image, generator: Generator) -> Image.Image:
    """A ruler with ticks along the lower edge, a little shifted on each photograph."""
    image, shift = image.copy(), generator.uniform(0, 0.05)
    draw, (width, height) = ImageDraw.Draw(image), image.size
    top = round(height * (0.93 - shift / 2))
    draw.rectangle((width * shift, top, width * (0.7 + shift), top + height * 0.06), (225, 222, 205))
    for number in range(40):
        at = width * (shift + 0.0175 * number)
        draw.line((at, top, at, top + height * (0.035 if number % 5 == 0 else 0.02)), (20, 20, 20))
    return image


def label(image: Image.Image, generator: Generator) -> Image.Image:
    """A white label with a number in the top right corner."""
    image, (x, y) = image.copy(), generator.uniform(0, 0.03, 2)
    width, height = image.size
    ImageDraw.Draw(image).rectangle(
        (width * (0.84 - x), height * (0.02 + y), width * (0.97 - x), height * (0.1 + y)), (245, 245, 245)
    )
    return write(image, f"B{generator.integers(10, 99)}", (0.86 - x, 0.03 + y), (10, 10, 10), 0.05)


def watermark(image: Image.Image, generator: Generator) -> Image.Image:
    """A half transparent white text in the bottom left corner."""
    over = write(image, "leaf archive", (0.03, 0.91), (255, 255, 255), 0.05)
    return Image.blend(image, over, 0.5)


def border(image: Image.Image, _: Generator) -> Image.Image:
    """A black border of 2 %."""
    image, part = image.copy(), round(0.02 * min(image.size))
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=(0, 0, 0), width=part)
    return image


def denoised(image: Image.Image, _: Generator) -> Image.Image:
    """A bilateral filter."""
    return Image.fromarray(cv2.bilateralFilter(np.asarray(image), 5, 18, 2))


def with_software(image: Image.Image, _: Generator) -> Written:
    """The name of a program in the EXIF."""
    exif = Image.Exif()
    exif[0x0131] = "Adobe Photoshop 24.1 (Windows)"
    return jpeg(image, exif=exif)


def screenshot(image: Image.Image, _: Generator) -> Written:
    """Shown at 80 % on a screen, stored as PNG, then as JPEG of another program."""
    return jpeg(again(scaled(image, 0.8), format="PNG"), quality=85)


def from_heic(image: Image.Image, _: Generator) -> Written:
    """Stored as HEIC, then converted to JPEG with other tables; as AVIF where HEIC cannot be written."""
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        middle = again(image, format="HEIF", quality=60)
    except ImportError:
        middle = again(image, format="AVIF", quality=60)
    return jpeg(middle, quality=90, subsampling=0)


def as_png(image: Image.Image, _: Generator) -> Written:
    """Stored as PNG: a mix of formats."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue(), ".png"


PLANTS: dict[str, Plant] = {
    "JPEG quality 80 instead of 92": partial(jpeg, quality=80),
    "chroma 4:4:4 instead of 4:2:0": partial(jpeg, subsampling=0),
    "progressive JPEG": partial(jpeg, progressive=True),
    "optimised Huffman tables": partial(jpeg, optimize=True),
    "EXIF Software": with_software,
    "PNG instead of JPEG": as_png,
    "double JPEG, 75 then 92": edited(lambda image, _: again(image, format="JPEG", quality=75)),
    "screenshot, then JPEG": screenshot,
    "HEIC, then JPEG": from_heic,
    "resized to 90 %": edited(lambda image, _: scaled(image, 0.9)),
    "resized to 70 % and back": edited(enlarged),
    "zoom: 10 % of each side cropped, enlarged": edited(zoom),
    "noise, sigma 5": edited(with_noise),
    "blur, sigma 1": edited(lambda image, _: image.filter(ImageFilter.GaussianBlur(1))),
    "sharpening": edited(lambda image, _: image.filter(ImageFilter.UnsharpMask(1.5, 80, 0))),
    "noise reduction": edited(denoised),
    "contrast + 8 %": edited(lambda image, _: ImageEnhance.Contrast(image).enhance(1.08)),
    "white balance, 6 %": edited(white_balance),
    "vignette, 25 %": edited(vignette),
    "flash, 20 %": edited(flash),
    "date stamp": edited(date_stamp),
    "ruler along the lower edge": edited(ruler),
    "label in the top right corner": edited(label),
    "watermark, half transparent": edited(watermark),
    "black border, 2 %": edited(border),
}


def is_diseased(source: Source) -> bool:
    """Return the true class of a photograph; every second drawn leaf is diseased."""
    return source % 2 == 1 if isinstance(source, int) else source.parent.name != "healthy"


def write_one(task: tuple[Path, Source, str | None, int]) -> FileRecord:
    """Write one photograph, with a plant or without, and examine it."""
    folder, source, plant, seed = task
    generator = np.random.default_rng(seed)
    image = (
        draw_leaf(is_diseased(source), 384, np.random.default_rng([1, source]))
        if isinstance(source, int)
        else Image.open(source).convert("RGB")
    )
    content, suffix = PLANTS[plant](image, generator) if plant else jpeg(image)
    path = folder / f"{seed}{suffix}"
    path.write_bytes(content)
    record = examine_file(path)
    path.unlink()
    return record


def rows_of(records: Sequence[FileRecord], labels: Sequence[bool]) -> list[Row]:
    """Return the rows of an audit."""
    rows = []
    for number, (record, is_positive) in enumerate(zip(records, labels, strict=True)):
        name = "positive" if is_positive else "negative"
        rows.append(Row(Sample(Path(), f"{name}/{number}.jpg", name), "train", record))
    return rows


def judged(records: Sequence[FileRecord], labels: Sequence[bool]) -> dict[str, Any]:
    """Return the severest finding on shortcuts, and all of them."""
    rows = rows_of(records, labels)
    shortcuts = find_shortcuts(rows, range(len(rows)), "positive")
    found = report_shortcuts(shortcuts, "positive")
    severities = [finding.severity for finding in found]
    severest = next((one for one in ("error", "warning", "info") if one in severities), "none")
    auroc = {one.source.name: round(one.estimate.value, 2) for one in shortcuts if one.estimate.value is not None}
    named = {finding.name.removeprefix("shortcut_"): finding.severity for finding in found}
    return {"severity": severest, "found": named, "auroc": auroc}


def set_of(records: Sequence[FileRecord], planted: Sequence[FileRecord], labels: Sequence[bool]) -> list[FileRecord]:
    """Return the records of a set: planted ones for the positive class."""
    waiting = iter(planted)
    return [next(waiting) if label else record for record, label in zip(records, labels, strict=True)]


def measure(
    sources: Sequence[Source],
    plants: Sequence[str],
    count: int,
    labelings: int,
    workers: int,
    sizes: Sequence[int] = SIZES,
) -> dict[str, Any]:
    """Measure plants, sets without a plant and true classes on photographs of one kind."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(workers) as pool:

        def examined(chosen: Sequence[int], plant: str | None) -> list[FileRecord]:
            tasks = [(Path(folder), sources[index], plant, int(index)) for index in chosen]
            return list(pool.map(write_one, tasks, chunksize=8))

        plain = examined(range(len(sources)), None)
        some = [int(index) for index in np.random.default_rng(1).permutation(len(sources))[:count]]
        labels = [bool(label) for label in np.random.default_rng(2).permutation(count) % 2]
        found: dict[str, Any] = {"plants": {}}
        for plant in plants:
            planted = examined([index for index, label in zip(some, labels, strict=True) if label], plant)
            found["plants"][plant] = judged(set_of([plain[index] for index in some], planted, labels), labels)
            sys.stdout.write(f"{plant}: {found['plants'][plant]['severity']} {found['plants'][plant]['found']}\n")
            sys.stdout.flush()
    found["without a plant"] = clean_sets(plain, labelings, sizes)
    found["true classes"] = judged(plain, [is_diseased(source) for source in sources])
    return found


def clean_sets(records: Sequence[FileRecord], labelings: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Return how many random labelings of the same photographs have a warning or an error, by size of the set."""
    result: dict[str, Any] = {}
    for size in sorted({min(size, len(records)) for size in sizes}):
        warned = 0
        sources: Counter[str] = Counter()
        for seed in range(labelings // len(sizes)):
            generator = np.random.default_rng([size, seed])
            chosen = generator.permutation(len(records))[:size]
            labels = [bool(label) for label in generator.random(size) < generator.uniform(0.25, 0.5)]
            found = judged([records[index] for index in chosen], labels)
            warned += found["severity"] in ("warning", "error")
            sources.update(name for name, severity in found["found"].items() if severity != "info")
        count = labelings // len(sizes)
        result[str(size)] = {"labelings": count, "with a warning": warned, "of": dict(sources)}
        if interval := proportion(warned, count).interval:
            result[str(size)]["95 % interval"] = [round(interval.low, 4), round(interval.high, 4)]
        sys.stdout.write(f"{size}: {result[str(size)]}\n")
        sys.stdout.flush()
    return result


def main() -> None:
    """Plant, audit and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coffee", type=Path, help="folder with a folder of photographs for each class")
    parser.add_argument("--photographs", type=int, default=120, help="of a set with a plant")
    parser.add_argument("--labelings", type=int, default=100, help="of sets without a plant")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of sets without a plant")
    parser.add_argument("--plants", nargs="*", default=[""], help="only those whose names contain one of these")
    parser.add_argument("--no-drawn", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    kinds: dict[str, list[Source]] = {} if arguments.no_drawn else {"drawn leaves": list(range(max(SIZES)))}
    if arguments.coffee:
        paths = sorted(arguments.coffee.rglob("*.jpg"))
        kinds["coffee leaves"] = [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]
    plants = [plant for plant in PLANTS if any(word in plant for word in arguments.plants)]
    result: dict[str, Any] = {"photographs": arguments.photographs}
    for kind, sources in kinds.items():
        result[kind] = measure(
            sources, plants, arguments.photographs, arguments.labelings, arguments.workers, arguments.sizes
        )
        sys.stdout.write(f"{kind}: {result[kind]['without a plant']}\n{kind}: {result[kind]['true classes']}\n")
    from bldml.training.recording import git_commit  # it imports torch, which the processes above do without

    result["commit"] = git_commit()
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
