"""Photographs a second on one core, from the file to the pixels that a network takes: decoding, and what is kept.

    python benchmarks/loading.py --photographs FOLDER --output benchmarks/results/loading.json

Ways: the whole JPEG decoded, decoded at a reduced scale, or its cached image read; for evaluation (squashed) and for
training (augmented). Beside them the augmentation that stood here before, one step of torchvision after another on
tensors, and the plain way: PIL's full decoding and torchvision's augmentation on the full picture. All in one process
with one thread, in turn, on the same photographs: each has 2 megapixels, and 12 for the second half of the table.
Times are those of the processor, so that other work on the machine does not count, nor does waiting for a disk.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from bldml.dataset.cache.format import CachedImages
from bldml.dataset.cache.writer import ImageCache
from bldml.dataset.images import ResizedImage, load_rgb
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.dataset.verify import verify
from bldml.training.transforms import (
    FILL,
    MEAN,
    STD,
    Augmentation,
    Normalization,
    evaluation_image,
    random_box,
    resized_side,
    training_image,
)

AUGMENTATION = Augmentation()
MEGAPIXELS = (2, 12)
PLAIN = transforms.Compose(
    [
        transforms.RandomResizedCrop(384, scale=(0.8, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.RandomRotation(15),
        transforms.ColorJitter(0.2, 0.2, 0.2, 0.02),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)

normalize = Normalization()
Way = Callable[[int], Any]


def by_steps(image: Image.Image, size: int, generator: np.random.Generator) -> torch.Tensor:
    """The augmentation as separate steps on tensors, the crop cut from the decoded photograph."""
    left, top, right, bottom = random_box(AUGMENTATION, generator)
    width, height = image.size
    box = (left * width, top * height, right * width, bottom * height)
    pixels = F.pil_to_tensor(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    mirror_x, mirror_y = generator.random(2) < 0.5
    angle, brightness, contrast, saturation, hue = generator.uniform(-1.0, 1.0, 5)
    pixels = F.horizontal_flip(pixels) if mirror_x else pixels
    pixels = F.vertical_flip(pixels) if mirror_y else pixels
    pixels = F.rotate(pixels, angle * 15, InterpolationMode.BILINEAR, fill=list(FILL))
    pixels = F.adjust_brightness(pixels, 1 + brightness * 0.2)
    pixels = F.adjust_contrast(pixels, 1 + contrast * 0.2)
    pixels = F.adjust_saturation(pixels, 1 + saturation * 0.2)
    result: torch.Tensor = normalize(F.adjust_hue(pixels, hue * 0.02))
    return result


def write_photographs(folder: Path, megapixels: int, source: Path | None, count: int) -> list[Sample]:
    """JPEGs of one size, of quality 92: photographs enlarged, or drawn leaves."""
    folder.mkdir()
    found = [] if source is None else sorted(source.rglob("*.jp*g"))
    chosen = found[:: max(1, len(found) // count)][:count]
    samples = []
    for number in range(len(chosen) or count):
        picture = (
            load_rgb(chosen[number]) if chosen else draw_leaf(bool(number % 2), 1024, np.random.default_rng(number))
        )
        factor = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * factor), round(picture.height * factor))
        path = folder / f"{number:03d}.jpg"
        picture.resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
        samples.append(Sample(path, path.name))
    return samples


def keep(samples: list[Sample], size: int, side: int, folder: Path) -> CachedImages:
    """The photographs' images, cached and opened."""
    cache = ImageCache([folder], side, size, len(samples), write=True)
    digests = [result.digest for result in verify(samples, size, 1, cache)]
    cache.close()
    if cache.trouble:
        raise SystemExit(cache.trouble)
    return CachedImages([folder], side, size, digests)


def ways(samples: list[Sample], size: int, folder: Path) -> dict[str, Way]:
    """What is compared: each takes the number of a photograph."""
    whole = keep(samples, size, size, folder)
    larger = keep(samples, size, resized_side(size, AUGMENTATION), folder)

    def kept(images: CachedImages, number: int) -> ResizedImage:
        square = images.read(number)
        assert square is not None
        return square

    def plain(number: int) -> Any:
        PLAIN.transforms[0].size = (size, size)
        with Image.open(samples[number].path) as image:
            return PLAIN(image.convert("RGB"))

    def train(image: Image.Image | ResizedImage, number: int) -> torch.Tensor:
        return training_image(image, size, AUGMENTATION, np.random.default_rng(number))

    return {
        "decoded at full size": lambda n: load_rgb(samples[n].path),
        "decoded at reduced scale": lambda n: load_rgb(samples[n].path, size),
        "evaluation, full size": lambda n: evaluation_image(load_rgb(samples[n].path), size),
        "evaluation, reduced scale": lambda n: evaluation_image(load_rgb(samples[n].path, size), size),
        "evaluation, kept": lambda n: evaluation_image(kept(whole, n), size),
        "training, plain": plain,
        "training, reduced scale, separate steps": lambda n: by_steps(
            load_rgb(samples[n].path, size), size, np.random.default_rng(n)
        ),
        "training, full size": lambda n: train(load_rgb(samples[n].path), n),
        "training, reduced scale": lambda n: train(load_rgb(samples[n].path, size), n),
        "training, kept": lambda n: train(kept(larger, n), n),
    }


def rates(compared: dict[str, Way], count: int, rounds: int) -> dict[str, float]:
    """Photographs a second of processor time: the median of the rounds, in which the ways take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(rounds):
        for name, way in compared.items():
            start = time.process_time()
            for number in range(count):
                way(number)
            seconds[name].append(time.process_time() - start)
    return {name: round(count / float(np.median(found)), 1) for name, found in seconds.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="a folder of JPEGs; drawn leaves if it is not given")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384, 448])
    parser.add_argument("--hardware", default=f"{platform.machine()}, {os.cpu_count()} cores")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for megapixels in MEGAPIXELS:
        name = f"{megapixels} megapixels"
        with tempfile.TemporaryDirectory() as folder:
            samples = write_photographs(Path(folder) / "leaves", megapixels, options.photographs, options.count)
            table[name] = {}
            for size in options.sizes:
                compared = ways(samples, size, Path(folder) / "pixels")
                table[name][f"{size} px"] = rates(compared, len(samples), options.rounds)
                sys.stderr.write(f"{name}, {size} px: {table[name][f'{size} px']}\n")
    result = {
        "photographs_per_second_of_one_core": table,
        "photographs": options.count,
        "rounds": options.rounds,
        "source": "drawn leaves" if options.photographs is None else "photographs of leaves, enlarged; JPEG quality 92",
        "hardware": options.hardware,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
