"""Look-alikes: how many of altered photographs are found, pairs among photographs without relatives, time for many.

    python benchmarks/lookalikes.py [--coffee PHOTOGRAPHS] --output benchmarks/results/lookalikes.json

Each alteration is planted into the whole set, and only the altered photographs are searched in it. Tiles are searched
without the photograph that they are of. Photographs for the time of many are drawn from the keypoints of all.
"""

import argparse
import io
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from bldml.dataset.duplicates.keypoints import Keypoints, describe_keypoints
from bldml.dataset.duplicates.lookalikes import find_lookalikes
from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]
NOTHING = Keypoints(np.zeros((0, 128), np.uint8), np.zeros((0, 4), np.float16), np.zeros((96, 96), np.uint8))


def crop(image: Image.Image, side: float, generator: np.random.Generator) -> Image.Image:
    """Cut out a part with this fraction of the sides, anywhere."""
    width, height = image.size
    w, h = int(width * side), int(height * side)
    x, y = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
    return image.crop((x, y, x + w, y + h))


def turn(image: Image.Image, degrees: float, generator: np.random.Generator) -> Image.Image:
    """Turn to either side: half with black or white corners, half without corners, so zoomed."""
    degrees *= float(generator.choice([-1, 1]))
    width, height = image.size
    if generator.random() < 0.5:
        fill = (0, 0, 0) if generator.random() < 0.5 else (255, 255, 255)
        return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=fill)
    sin, cos = np.sin(np.radians(abs(degrees))), np.cos(np.radians(degrees))
    part = min(width / (width * cos + height * sin), height / (width * sin + height * cos)) / 2
    box = (width * (0.5 - part), height * (0.5 - part), width * (0.5 + part), height * (0.5 + part))
    left, top, right, bottom = map(int, box)
    return image.rotate(degrees, Image.Resampling.BICUBIC).crop((left, top, right, bottom))


def caption(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Cover the lowest 12 % by a bar with text."""
    pixels, (width, height) = np.array(image), image.size
    bar, back = int(height * 0.12), int(generator.choice([0, 255]))
    pixels[height - bar :] = back
    text = f"Plot {generator.integers(99)} leaf {generator.integers(999)} 2024-0{generator.integers(1, 9)}"
    at, font = (width // 50, height - bar // 3), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(pixels, text, at, font, width / 500, (255 - back,) * 3, max(1, width // 300), cv2.LINE_AA)
    return Image.fromarray(pixels)


def jitter(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and colour by up to 30 %."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(generator.uniform(0.75, 1.3))
    return image


def other_angle(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Move each corner by up to 8 % of the sides, in other light."""
    width, height = image.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = (corners + generator.uniform(-0.08, 0.08, (4, 2)) * (width, height)).astype(np.float32)
    plane = cv2.getPerspectiveTransform(corners, moved)
    pixels = cv2.warpPerspective(np.asarray(image), plane, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return jitter(Image.fromarray(pixels), generator)


def frame(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """As a frame of a video: a little turned and moved, 360 pixels, blurred, JPEG of quality 35."""
    image = crop(image.rotate(generator.uniform(-3, 3), Image.Resampling.BICUBIC), 0.93, generator)
    image.thumbnail((360, 360), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(1.0)).save(file, "JPEG", quality=35)
    return Image.open(file).convert("RGB")


def mirror(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Mirrored, 80 % of the sides, in other light."""
    return jitter(crop(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.8, generator), generator)


EDITS: dict[str, Edit] = {
    "turned 10": lambda image, generator: turn(image, 10, generator),
    "turned 25": lambda image, generator: turn(image, 25, generator),
    "turned 45": lambda image, generator: turn(image, 45, generator),
    "80 % of the sides": lambda image, generator: crop(image, 0.8, generator),
    "50 % of the area": lambda image, generator: crop(image, 0.5**0.5, generator),
    "50 % of the sides": lambda image, generator: crop(image, 0.5, generator),
    "caption": caption,
    "mirrored, cropped, other light": mirror,
    "other angle": other_angle,
    "video frame": frame,
}


def tiles(image: Image.Image, overlap: float, generator: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Cut two neighbouring tiles of a photograph, which share this fraction of their side."""
    width, height = image.size
    side = 1 / (2 - overlap)
    w, h = int(width * side), int(height * side)
    if generator.random() < 0.5:
        y = int(generator.integers(height - h + 1))
        return image.crop((0, y, w, y + h)), image.crop((width - w, y, width, y + h))
    x = int(generator.integers(width - w + 1))
    return image.crop((x, 0, x + w, h)), image.crop((x, height - h, x + w, height))


def measured(load: Callable[[int], Image.Image], count: int, step: int) -> tuple[dict[str, object], list[Keypoints]]:
    """Recall of alterations of each `step`-th photograph, and pairs among all without them."""
    generator = np.random.default_rng(0)
    start = time.process_time()
    described = [describe_keypoints(load(number)) for number in range(count)]
    seconds = time.process_time() - start
    start = time.process_time()
    clean = find_lookalikes(described)
    search = time.process_time() - start
    results: dict[str, object] = {
        "photographs": count,
        "pairs_without_plants": len(clean),
        "cpu_ms_a_photograph_to_load_and_describe": round(1000 * seconds / count, 1),
        "cpu_ms_a_photograph_to_search": round(1000 * search / count, 1),
    }
    numbers = range(0, count, step)
    recall, others = {}, {}
    for name, edit in EDITS.items():
        copies = [describe_keypoints(edit(load(number), generator)) for number in numbers]
        wanted = {(number, count + place) for place, number in enumerate(numbers)}
        found = {(p.a, p.b) for p in find_lookalikes([*described, *copies], range(count, count + len(copies)))}
        recall[name], others[name] = len(found & wanted) / len(wanted), len(found - wanted)
    without = [NOTHING if number in numbers else one for number, one in enumerate(described)]
    for overlap in (0.5, 0.25):
        name = f"tiles, {100 * overlap:.0f} % overlap"
        parts = [describe_keypoints(tile) for number in numbers for tile in tiles(load(number), overlap, generator)]
        wanted = {(count + place, count + place + 1) for place in range(0, len(parts), 2)}
        found = {(p.a, p.b) for p in find_lookalikes([*without, *parts], range(count, count + len(parts)))}
        recall[name], others[name] = len(found & wanted) / len(wanted), len(found - wanted)
    return results | {"planted_of_each": len(numbers), "found": recall, "other_pairs": others}, described


def close_up(image: Image.Image) -> Image.Image:
    """The central 60 % of the sides."""
    width, height = image.size
    return image.crop((int(0.2 * width), int(0.2 * height), int(0.8 * width), int(0.8 * height)))


def many(described: Sequence[Keypoints], count: int) -> dict[str, object]:
    """Time and memory of the search among photographs whose keypoints are drawn from those of others."""
    generator = np.random.default_rng(1)
    descriptors = np.concatenate([one.descriptors for one in described])
    frames = np.concatenate([one.frames for one in described])
    mixed = []
    for number in range(count):
        rows = generator.integers(len(descriptors), size=160)
        noisy = descriptors[rows].astype(np.int16) + generator.integers(-12, 13, (160, 128))
        grey = described[number % len(described)].grey
        mixed.append(Keypoints(np.clip(noisy, 0, 255).astype(np.uint8), frames[rows], grey))
    start, cpu = time.perf_counter(), time.process_time()
    pairs = find_lookalikes(mixed)
    return {
        "photographs": count,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "pairs": len(pairs),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--coffee", type=Path, help="folder of real photographs")
    parser.add_argument("--drawn", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=5, help="each how many-th photograph is altered")
    parser.add_argument("--many", type=int, nargs="*", default=[2_000, 5_000])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hardware", default="AMD EPYC, 2 cores, other work at the same time")
    options = parser.parse_args()
    results: dict[str, object] = {"hardware": options.hardware}
    described: list[Keypoints] = []

    def write() -> None:
        options.output.write_text(json.dumps(results, indent=1) + "\n")

    if options.coffee:
        paths = sorted(options.coffee.rglob("*.jpg"))
        results["coffee"], described = measured(lambda number: load_rgb(paths[number], 256), len(paths), options.every)
        close = [describe_keypoints(close_up(load_rgb(path, 256))) for path in paths]
        results["coffee, close-ups"] = {"photographs": len(close), "pairs": len(find_lookalikes(close))}
        write()
    results["drawn, 320 px"], drawn = measured(
        lambda number: draw_leaf(bool(number % 2), 320, np.random.default_rng([5, number])),
        options.drawn,
        2 * options.every,
    )
    write()
    results["search"] = [many([*described, *drawn], count) for count in options.many]
    write()


if __name__ == "__main__":
    main()
