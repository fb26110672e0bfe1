"""Damaged files: how many are refused, and how many open with other pixels.

    python benchmarks/damage.py [--photographs FOLDER] [--tries 200] --output benchmarks/results/damage.json

A cluster of 512 or 4096 bytes is overwritten, lost, repeated or exchanged at a random position of the picture data, the
file is cut, or one bit is changed. `load_rgb` must refuse the file, or return the pixels of the whole one.
"""

import argparse
import io
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from bldml.dataset.images import UnreadableImage, heif_available, load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf

SIDE = 640  # pixels of the longer side
JPEG: dict[str, dict[str, Any]] = {
    "baseline 4:2:0": {},
    "baseline 4:4:4": {"subsampling": 0},
    "own tables": {"optimize": True},
    "restart markers": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "PNG": {"format": "PNG"},
    "TIFF, not compressed": {"format": "TIFF"},
    "TIFF, LZW": {"format": "TIFF", "compression": "tiff_lzw"},
    "TIFF, deflate": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "TIFF, JPEG": {"format": "TIFF", "compression": "jpeg", "quality": 90},
    "WebP": {"format": "WEBP", "quality": 90},
    "BMP": {"format": "BMP"},
    "AVIF": {"format": "AVIF", "quality": 80},
}
HEIC: dict[str, dict[str, Any]] = {
    "HEIC, one tile": {"format": "HEIF", "quality": 80},
    "HEIC, tiles of 256": {"format": "HEIF", "quality": 80, "tile_size": 256},
}


def swap(data: bytes, at: int, other: int, length: int) -> bytes:
    """Exchange two clusters that do not overlap."""
    one, two = sorted((at, other))
    two = max(two, one + length)
    return (
        data[:one]
        + data[two : two + length]
        + data[one + length : two]
        + data[one : one + length]
        + data[two + length :]
    )


Damage = Callable[[bytes, int, int, int, bytes], bytes]
"""Data, offset of the damage, another offset, length, random bytes -> damaged data."""

DAMAGE: dict[str, Damage] = {
    "zeros": lambda data, at, _, n, noise: data[:at] + bytes(n) + data[at + n :],
    "ones": lambda data, at, _, n, noise: data[:at] + b"\xff" * n + data[at + n :],
    "random bytes": lambda data, at, _, n, noise: data[:at] + noise[:n] + data[at + n :],
    "lost": lambda data, at, _, n, noise: data[:at] + data[at + n :],
    "repeated": lambda data, at, _, n, noise: data[: at + n] + data[at:],
    "exchanged": lambda data, at, other, n, noise: swap(data, at, other, n),
    "cut": lambda data, at, _, n, noise: data[:at],
    "zeros to the end": lambda data, at, _, n, noise: data[:at] + bytes(len(data) - at),
    "zeros, last 2 bytes whole": lambda data, at, _, n, noise: data[:at] + bytes(len(data) - at - 2) + data[-2:],
    "one bit": lambda data, at, _, n, noise: data[:at] + bytes((data[at] ^ 1 << noise[0] % 8,)) + data[at + 1 :],
}


def encode(image: Image.Image, *, format: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """One photograph as a file."""
    file = io.BytesIO()
    image.convert(mode).save(file, format, **({"quality": 90} if format == "JPEG" else {}) | options)
    return file.getvalue()


def first_offset(data: bytes, file_format: str) -> int:
    """Offset behind the header, from which on the data are damaged."""
    mark = {"JPEG": b"\xff\xda", "PNG": b"IDAT", "HEIF": b"mdat", "AVIF": b"mdat"}.get(file_format)
    return data.index(mark) + 16 if mark else 200


def outcomes(image: Image.Image, options: dict[str, Any], damage: str, tries: int, path: Path) -> Counter[str]:
    """Count the outcomes of one damage of one encoding; the positions differ from photograph to photograph."""
    whole = encode(image, **options)
    path.write_bytes(whole)
    pixels = load_rgb(path).tobytes()
    rng = np.random.default_rng(zlib.crc32(whole + damage.encode()))
    start, counts = first_offset(whole, options.get("format", "JPEG")), Counter[str]()
    for _ in range(tries):
        length = int(rng.choice((512, 4096)))
        last = max(start + 1, len(whole) - length - 2)
        at, other = (int(offset) for offset in rng.integers(start, last, size=2))
        path.write_bytes(DAMAGE[damage](whole, at, other, length, rng.bytes(4096)))
        try:
            counts["opens, same pixels" if load_rgb(path).tobytes() == pixels else "opens, other pixels"] += 1
        except UnreadableImage:
            counts["refused"] += 1
    return counts


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--photographs", type=Path, help="folder of JPEGs; drawn leaves without it")
    parser.add_argument("--tries", type=int, default=200, help="damaged files of each kind")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    ImageFile.MAXBLOCK = 1 << 24  # PIL needs it to write a progressive JPEG of fine detail
    paths = sorted(options.photographs.rglob("*.jpg"))[::50][:10] if options.photographs else []
    images = [load_rgb(path) for path in paths] or [draw_leaf(True, SIDE, np.random.default_rng(n)) for n in range(10)]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    kinds = JPEG | OTHERS | (HEIC if heif_available() else {})
    results: dict[str, dict[str, dict[str, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, encoding in kinds.items():
            results[kind] = {}
            for damage in DAMAGE:
                counts: Counter[str] = Counter()
                for image in images:
                    counts += outcomes(image, encoding, damage, options.tries // len(images), Path(folder, "leaf"))
                results[kind][damage] = dict(sorted(counts.items()))
                print(f"{kind:22} {damage:26} {results[kind][damage]}", flush=True)
    photographs = f"{len(images)} {'photographs' if paths else 'drawn leaves'} of {SIDE} pixels"
    document = {"photographs": photographs, "tries": options.tries, "files": results}
    options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
