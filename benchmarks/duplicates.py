"""Near duplicates: how many of edited copies are found, how alike different leaves are, time and memory for many.

    python benchmarks/duplicates.py [--coffee PHOTOGRAPHS] [--prints 50000] --output benchmarks/results/duplicates.json

Copies are made of drawn leaves, and of real photographs where a folder of them is given. Prints for the time are
mixtures of two drawn leaves each, so that they crowd as leaves do.
"""

import argparse
import io
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bldml.dataset.duplicates.phash import NEAR, PRINT_BYTES, Prints, near_pairs, perceptual_hash
from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf

Box = tuple[float, float, float, float]


def recompress(image: Image.Image) -> Image.Image:
    """As JPEG of quality 60."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def halve(image: Image.Image) -> Image.Image:
    """To half the size."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Crop by shares of the sides."""
    width, height = image.size
    return image.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )


def edits(image: Image.Image, generator: np.random.Generator) -> dict[str, Image.Image]:
    """Copies of a photograph as people make them, and combinations of two."""
    way = Image.Transpose
    made = {
        "half": halve(image),
        "quality 60": recompress(image),
        "turned 90": image.transpose(way.ROTATE_90),
        "turned 180": image.transpose(way.ROTATE_180),
        "turned 270": image.transpose(way.ROTATE_270),
        "mirrored": image.transpose(way.FLIP_LEFT_RIGHT),
        "5 % each side": cut(image, 0.05, 0.05, 0.05, 0.05),
        "5 % in all": cut(image, 0.025, 0.025, 0.025, 0.025),
        "5 % left": cut(image, 0.05, 0, 0, 0),
        "5 % top": cut(image, 0, 0.05, 0, 0),
        "5 % corner": cut(image, 0.05, 0.05, 0, 0),
        "up to 5 % each side": cut(image, *generator.uniform(0, 0.05, 4)),
    }
    cropped = made["5 % each side"]
    return made | {
        "half, quality 60": recompress(made["half"]),
        "turned 90, quality 60": recompress(made["turned 90"]),
        "turned 90, mirrored": made["mirrored"].transpose(way.ROTATE_90),
        "5 % each side, half": halve(cropped),
        "5 % each side, quality 60": recompress(cropped),
        "5 % each side, turned 90": cropped.transpose(way.ROTATE_90),
        "5 % each side, mirrored": cropped.transpose(way.FLIP_LEFT_RIGHT),
    }


def found(images: Iterator[Image.Image]) -> dict[str, object]:
    """Share of each kind of copy that is found, and pairs of different photographs."""
    generator = np.random.default_rng(0)
    prints: list[Prints] = []
    copies: list[dict[str, Prints]] = []
    for image in images:
        prints.append(perceptual_hash(image))
        copies.append({name: perceptual_hash(copy) for name, copy in edits(image, generator).items()})
    n = len(prints)
    shares, false = {}, 0
    for name in copies[0]:
        pairs = near_pairs(np.stack([*prints, *(copy[name] for copy in copies)]))
        shares[name] = sum(pair.b - pair.a == n for pair in pairs) / n
        false += sum((pair.b - pair.a) % n != 0 for pair in pairs)
    alike = near_pairs(np.stack(prints), 0.8)
    return {
        "photographs": n,
        "found": shares,
        "least": min(shares.values()),
        "false_pairs_among_photographs": sum(pair.similarity >= NEAR for pair in alike),
        "false_pairs_with_copies": false,
        "most_alike_of_different": round(max((pair.similarity for pair in alike), default=0.0), 3),
    }


def mixtures(count: int, of: int = 400) -> Prints:
    """Prints of that many pictures, each laid over by another."""
    leaves = [np.asarray(draw(number, 96).resize((96, 96)), np.float32) for number in range(of)]
    generator = np.random.default_rng(1)
    prints = np.empty((count, PRINT_BYTES), np.uint8)
    for row in range(count):
        one, other = generator.integers(of, size=2)
        share = generator.uniform(0.2, 0.8)
        prints[row] = perceptual_hash(Image.fromarray(np.uint8(share * leaves[one] + (1 - share) * leaves[other])))
    return prints


def draw(number: int, size: int) -> Image.Image:
    """A drawn leaf."""
    return draw_leaf(bool(number % 2), size, np.random.default_rng([5, number]))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--coffee", type=Path, help="folder of real photographs")
    parser.add_argument("--prints", type=int, default=50_000)
    parser.add_argument("--leaves", type=int, default=2_000, help="drawn leaves among which no pair may be found")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hardware", default="AMD EPYC, 2 cores")
    options = parser.parse_args()
    results: dict[str, object] = {"hardware": options.hardware, "threshold": NEAR, "bytes_a_print": PRINT_BYTES}
    results["drawn, 256 px"] = found(draw(number, 256) for number in range(200))
    if options.coffee:
        results["coffee"] = found(load_rgb(path, 224) for path in sorted(options.coffee.rglob("*.jpg")))
    leaves = np.stack([perceptual_hash(draw(number, 96)) for number in range(10_000, 10_000 + options.leaves)])
    results["drawn, 96 px"] = {"photographs": options.leaves, "false_pairs": len(near_pairs(leaves))}
    times = []
    for count in (options.prints // 10, options.prints):
        prints = mixtures(count)
        start, cpu = time.perf_counter(), time.process_time()
        pairs = near_pairs(prints)
        times.append(
            {
                "prints": count,
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "pairs": len(pairs),
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    results["search"] = times
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
