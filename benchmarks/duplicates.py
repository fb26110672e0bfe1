"""Near duplicates: how many of edited copies are found, how alike different leaves are, time and memory for many.

    python benchmarks/duplicates.py [--coffee PHOTOGRAPHS] [--phashes 50000] --output benchmarks/results/duplicates.json

Copies are made of drawn leaves, and of real photographs where a folder of them is given. The search is timed on
perceptual hashes of mixtures of two drawn leaves, which are as crowded as those of leaves.
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

from bldml.dataset.duplicates.phash import NEAR_SIMILARITY, PHASH_BYTES, PHashes, find_near_duplicates, perceptual_hash
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
    phashes: list[PHashes] = []
    copies: list[dict[str, PHashes]] = []
    for image in images:
        phashes.append(perceptual_hash(image))
        copies.append({name: perceptual_hash(copy) for name, copy in edits(image, generator).items()})
    n = len(phashes)
    shares, false = {}, 0
    for name in copies[0]:
        pairs = find_near_duplicates(np.stack([*phashes, *(copy[name] for copy in copies)]))
        shares[name] = sum(pair.b - pair.a == n for pair in pairs) / n
        false += sum((pair.b - pair.a) % n != 0 for pair in pairs)
    alike = find_near_duplicates(np.stack(phashes), 0.8)
    return {
        "photographs": n,
        "found": shares,
        "least": min(shares.values()),
        "false_pairs_among_photographs": sum(pair.similarity >= NEAR_SIMILARITY for pair in alike),
        "false_pairs_with_copies": false,
        "most_alike_of_different": round(max((pair.similarity for pair in alike), default=0.0), 3),
    }


def mixtures(count: int, of: int = 400) -> PHashes:
    """Perceptual hashes of that many pictures, each laid over by another."""
    leaves = [np.asarray(draw(number, 96).resize((96, 96)), np.float32) for number in range(of)]
    generator = np.random.default_rng(1)
    phashes = np.empty((count, PHASH_BYTES), np.uint8)
    for row in range(count):
        one, other = generator.integers(of, size=2)
        share = generator.uniform(0.2, 0.8)
        phashes[row] = perceptual_hash(Image.fromarray(np.uint8(share * leaves[one] + (1 - share) * leaves[other])))
    return phashes


def draw(number: int, size: int) -> Image.Image:
    """A drawn leaf."""
    return draw_leaf(bool(number % 2), size, np.random.default_rng([5, number]))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--coffee", type=Path, help="folder of real photographs")
    parser.add_argument("--phashes", type=int, default=50_000)
    parser.add_argument("--leaves", type=int, default=2_000, help="drawn leaves among which no pair may be found")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hardware", default="AMD EPYC, 2 cores")
    options = parser.parse_args()
    results: dict[str, object] = {
        "hardware": options.hardware,
        "threshold": NEAR_SIMILARITY,
        "bytes_a_phash": PHASH_BYTES,
    }
    results["drawn, 256 px"] = found(draw(number, 256) for number in range(200))
    if options.coffee:
        results["coffee"] = found(load_rgb(path, 224) for path in sorted(options.coffee.rglob("*.jpg")))
    leaves = np.stack([perceptual_hash(draw(number, 96)) for number in range(10_000, 10_000 + options.leaves)])
    results["drawn, 96 px"] = {"photographs": options.leaves, "false_pairs": len(find_near_duplicates(leaves))}
    times = []
    for count in (options.phashes // 10, options.phashes):
        phashes = mixtures(count)
        start, cpu = time.perf_counter(), time.process_time()
        pairs = find_near_duplicates(phashes)
        times.append(
            {
                "phashes": count,
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "pairs": len(pairs),
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    results["search"] = times
    from bldml.training.recording import git_commit  # it imports torch, whose memory is not that of the search

    results["commit"] = git_commit()
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
