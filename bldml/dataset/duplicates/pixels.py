"""Confirm near duplicates whose pixels are equal: the same photograph in another format, turned or mirrored."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bldml.dataset.duplicates.phash import NearDuplicate
from bldml.dataset.images import UnreadableImage, load_rgb

NEARLY_EQUAL = 0.995  # similarity below which pixels cannot be equal
MOST_PAIRS = 200  # compared at full size, which takes about a second for ten pairs of 12 megapixels


def pairs_of_equal_pixels(paths: Sequence[Path], candidates: Iterable[NearDuplicate]) -> list[tuple[int, int]]:
    """Return those of the first `MOST_PAIRS` candidates, as indexes of `paths`, whose pixels are all equal."""
    near = [(pair.a, pair.b) for pair in candidates if pair.similarity >= NEARLY_EQUAL]
    return [(a, b) for a, b in near[:MOST_PAIRS] if equal_pixels(paths[a], paths[b])]


def equal_pixels(one: Path, other: Path) -> bool:
    """Return whether two files have the same pixels in any of the eight orientations; False if one is unreadable."""
    try:
        first = load_rgb(one)
        second = load_rgb(other)
    except UnreadableImage:  # changed since it was examined
        return False
    if sorted(first.size) != sorted(second.size):
        return False
    ways = (None, *Image.Transpose)
    turned = (second if way is None else second.transpose(way) for way in ways)
    return any(first.size == image.size and np.array_equal(np.asarray(first), np.asarray(image)) for image in turned)
