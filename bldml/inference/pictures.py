"""Pictures of explanations: the map over its photograph, attention inside a mask, contact sheets; writes no file."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bldml.dataset.files import show_path
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.errors import DatasetError
from bldml.figures.style import HEAT
from bldml.inference.gradcam import Map

Mask = NDArray[np.bool_]

_MAX_OPACITY = 0.65
"""Opacity of the heat map where its value is 1; where it is 0 the photograph is unchanged."""
_ASPECT_TOLERANCE = 0.02
# In pixels.
_SHEET_SIDE = 4096
_THUMBNAIL_SIDES = (32, 256)
_CAPTION_HEIGHT = 16
_MIN_SIDE_WITH_CAPTION = 96


def overlay(photograph: Image.Image, cam: Map) -> Image.Image:
    """Return the upright photograph under its map, (rows, columns) in [0, 1]: RGB, of its size, without metadata."""
    # 8 bits are enough for display, and a photograph of 200 megapixels then needs no gigabytes.
    small = Image.fromarray(np.round(cam * 255).astype(np.uint8))
    level = small.resize(photograph.size, Image.Resampling.BILINEAR)
    heat = level.copy()
    heat.putpalette(_palette())
    opacity = level.point([round(value * _MAX_OPACITY) for value in range(256)])
    return Image.composite(heat.convert("RGB"), photograph, opacity)


def _palette() -> list[int]:
    stops = np.array([[int(stop[k : k + 2], 16) for k in (0, 2, 4)] for stop in HEAT], dtype=np.float64)
    positions = np.linspace(0, 1, len(HEAT))
    columns = [np.interp(np.linspace(0, 1, 256), positions, stops[:, channel]) for channel in range(3)]
    flat: list[int] = np.round(np.stack(columns, axis=1)).astype(int).ravel().tolist()
    return flat


def read_mask(path: Path, photograph: Path, size: tuple[int, int]) -> tuple[Mask, Mask]:
    """Read a mask: black background, leaf in green or white, lesions in red.

    Args:
        path: Mask of the upright photograph; any size with the same aspect ratio.
        photograph: Path of the photograph, for the error message.
        size: Width and height of the upright photograph.

    Returns:
        Leaf (lesions included) and lesions, bool (height, width) at the size of the mask.

    Raises:
        DatasetError: The mask cannot be read, or its aspect ratio differs from the photograph's.
    """
    try:
        image = load_rgb(path)
    except UnreadableImage as error:
        message = f"The mask {show_path(path)} cannot be read: {error.reason}."
        raise DatasetError(message, "mask-unreadable", path=path, reason=error.reason) from error
    if abs(image.width / image.height / (size[0] / size[1]) - 1) > _ASPECT_TOLERANCE:
        raise DatasetError(
            f"The mask {show_path(path)} has {image.width} × {image.height} pixels, its photograph "
            f"{show_path(photograph)} upright {size[0]} × {size[1]}. Give a mask of the upright photograph.",
            "mask-size-differs",
            path=path,
            found=image.size,
            expected=size,
        )
    pixels = np.asarray(image).astype(np.int16)
    leaf = pixels.max(axis=2) >= 64
    return leaf, leaf & (pixels[..., 0] - pixels[..., 1] >= 64)


def attention(cam: Map, leaf: Mask, lesion: Mask) -> dict[str, float | None]:
    """Return how much of the map is inside a mask, beside what is expected by chance; None if undefined.

    `attention_in_…` is a fraction of the map's sum, `…_area` a fraction of the image, which a uniform map would have.
    An enrichment is their ratio (1 is chance); that within the leaf leaves out the easily recognised background.

    The map, (rows, columns) in [0, 1], is enlarged to the size of the masks, (height, width), as for the overlay; the
    leaf includes its lesions.

    >>> left = np.array([[True, False]])
    >>> [round(value, 2) for value in attention(np.ones((2, 2), np.float32), left, left).values()]
    [0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 1.0]
    """
    height, width = leaf.shape
    full = np.asarray(Image.fromarray(cam).resize((width, height), Image.Resampling.BILINEAR))
    total = float(full.sum(dtype=np.float64))

    def ratio(a: float | None, b: float | None) -> float | None:
        return a / b if a is not None and b else None

    in_leaf, in_lesion = (ratio(float(full.sum(where=mask, dtype=np.float64)), total) for mask in (leaf, lesion))
    leaf_area, lesion_area = float(leaf.mean()), float(lesion.mean())
    return {
        "attention_in_leaf": in_leaf,
        "leaf_area": leaf_area,
        "leaf_enrichment": ratio(in_leaf, leaf_area),
        "attention_in_lesion": in_lesion,
        "lesion_area": lesion_area,
        "lesion_enrichment": ratio(in_lesion, lesion_area),
        "lesion_enrichment_within_leaf": ratio(ratio(in_lesion, in_leaf), ratio(lesion_area, leaf_area)),
    }


def thumbnail_side(count: int) -> int:
    """Return the side of the thumbnails in pixels, chosen so that all of them fit on one contact sheet.

    >>> [thumbnail_side(count) for count in (1, 400, 10_000)]
    [256, 204, 40]
    """
    smallest, largest = _THUMBNAIL_SIDES
    return max(smallest, min(largest, _SHEET_SIDE // math.ceil(math.sqrt(max(count, 1)))))


def contact_sheet(thumbnails: Sequence[Image.Image], captions: Sequence[str], side: int) -> Image.Image:
    """Return all thumbnails in one grid, row by row, with captions below if the thumbnails are large enough.

    There is at least one, of at most side × side pixels (see `thumbnail_side`); a caption is a few ASCII letters.
    """
    caption_height = _CAPTION_HEIGHT if side >= _MIN_SIDE_WITH_CAPTION else 0
    columns = math.ceil(math.sqrt(len(thumbnails)))
    rows = math.ceil(len(thumbnails) / columns)
    gap = 4 if caption_height else 1
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + caption_height + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, (small, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        left, top = gap + i % columns * (side + gap), gap + i // columns * (side + caption_height + gap)
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
        if caption_height:
            draw.text((left + 2, top + side), caption, fill="black", font=font)
    return sheet
