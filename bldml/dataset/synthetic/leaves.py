"""Write folders of drawn beech leaves for the demo and the tests."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.errors import RunError, UsageError

JPEG_QUALITY = 90


def write_leaves(
    root: Path,
    images_per_class: int = 60,
    size: int = 256,
    seed: int = 0,
    class_names: tuple[str, str] = ("No_BLD", "BLD"),
    splits: dict[str, float] | None = None,
) -> int:
    """Write drawn leaves to `root/<class>/leaf_0001.jpg` or `root/<split>/<class>/leaf_0001.jpg`; return their number.

    Each leaf depends only on `seed`, `size`, its class and its number, not on how many leaves are drawn.

    Args:
        root: Output folder (new or empty).
        images_per_class: Number of photographs per class, over all splits.
        size: Longer side of a photograph in pixels, 16 to 8192.
        seed: Random seed, at least 0.
        class_names: Names of the healthy and of the diseased class.
        splits: Fraction of each split; the sum is 1. None: no split folders.

    Raises:
        RunError, UsageError: `root` is not an empty folder, or a number, name or fraction is not valid.
    """
    _check(images_per_class, size, seed, class_names, splits)
    root = Path(root)
    if root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None):
        message = f"{root} exists and is not an empty folder. Choose a new folder, or remove this one first."
        raise RunError(message, "demo-folder-not-empty", path=root)
    root.parent.mkdir(parents=True, exist_ok=True)
    # Written to a folder beside it and renamed at the end, so that `root` is never incomplete.
    unfinished = root.parent / f".{root.name}.{os.getpid()}.unfinished"
    unfinished.mkdir()
    try:
        for split, numbers in _numbers(images_per_class, splits):
            for label, class_name in enumerate(class_names):
                folder = unfinished / split / class_name
                folder.mkdir(parents=True)
                for number in numbers:
                    image = draw_leaf(bool(label), size, np.random.default_rng([seed, label, number]))
                    image.save(folder / f"leaf_{number:04d}.jpg", quality=JPEG_QUALITY)
        if root.exists():
            root.rmdir()
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(class_names) * images_per_class


def _check(
    images_per_class: int, size: int, seed: int, class_names: tuple[str, str], splits: dict[str, float] | None
) -> None:
    for name, value, least, most in (
        ("images_per_class", images_per_class, 1, 1_000_000),
        ("size", size, 16, 8192),
        ("seed", seed, 0, 2**64 - 1),
    ):
        if not least <= value <= most:
            message = f"--{name} must be from {least} to {most}, not {str(value)[:40]}."
            raise UsageError(message, "demo-option-out-of-range", key=name, found=value, expected=(least, most))
    for name in (*class_names, *(splits or ())):
        if name in ("", "..") or Path(name).name != name:
            message = f"{name!r} cannot be the name of a folder. Choose another."
            raise UsageError(message, "demo-name-refused", found=name)
    if class_names[0] == class_names[1]:
        message = f"Both classes have the name {class_names[0]!r}. Use two names."
        raise UsageError(message, "demo-classes-equal", found=class_names[0])
    if splits is not None and (abs(sum(splits.values()) - 1) > 1e-6 or min(splits.values(), default=0) < 0):
        message = f"The proportions of the splits must be at least 0 and sum to 1, not {splits}."
        raise UsageError(message, "demo-splits-wrong", found=splits)


def _numbers(count: int, splits: dict[str, float] | None) -> Iterator[tuple[str, range]]:
    """Divide the numbers 1 to `count` among the splits, each within one of its exact fraction.

    >>> list(_numbers(10, {"train": 0.6, "val": 0.2, "test": 0.2}))
    [('train', range(1, 7)), ('val', range(7, 9)), ('test', range(9, 11))]
    """
    first, total = 1, 0.0
    for split, fraction in (splits or {"": 1.0}).items():
        total += fraction
        end = 1 + round(total * count)
        yield split, range(first, end)
        first = end
