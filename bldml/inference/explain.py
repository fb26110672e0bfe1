"""Explanation of one photograph: probability, heat map over the upright photograph, attention inside a mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bldml.dataset.files import show_path
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.errors import CheckpointError, DatasetError
from bldml.inference.gradcam import GradCam, Map
from bldml.training.transforms import evaluation_image

Mask = NDArray[np.bool_]

# Nine stops of matplotlib's plasma, whose lightness increases monotonically, so it can be read without colour.
_STOPS = ("0d0887", "4c02a1", "7e03a8", "a92395", "cc4778", "e56b5d", "f89540", "fdc527", "f0f921")
_MAX_OPACITY = 0.65
"""Opacity of the heat map where its value is 1; where it is 0 the photograph is unchanged."""
_ASPECT_TOLERANCE = 0.02
# In pixels.
_SHEET_SIDE = 4096
_THUMBNAIL_SIDES = (32, 256)
_CAPTION_HEIGHT = 16
_MIN_SIDE_WITH_CAPTION = 96


@dataclass(frozen=True)
class Attention:
    """Fractions of the heat map inside the leaf and inside lesions, with the area fractions expected by chance.

    Attributes:
        in_leaf: Fraction of the map's sum inside the leaf, lesions included, in [0, 1]; None if the map is all 0.
        leaf_area: Fraction of the image area that is leaf: the value of `in_leaf` for a uniform map.
        in_lesion: Fraction of the map's sum inside lesions; None if the map is all 0.
        lesion_area: Fraction of the image area that is lesion.
    """

    in_leaf: float | None
    leaf_area: float
    in_lesion: float | None
    lesion_area: float

    @property
    def leaf_enrichment(self) -> float | None:
        """Attention fraction divided by area fraction of the leaf; 1 is chance. None if undefined."""
        return _ratio(self.in_leaf, self.leaf_area)

    @property
    def lesion_enrichment(self) -> float | None:
        """Attention fraction divided by area fraction of lesions, relative to the whole image."""
        return _ratio(self.in_lesion, self.lesion_area)

    @property
    def lesion_enrichment_within_leaf(self) -> float | None:
        """The same for lesions, relative to the leaf alone: the easily recognised background does not count."""
        return _ratio(_ratio(self.in_lesion, self.in_leaf), _ratio(self.lesion_area, self.leaf_area))


def predict_with_map(gradcam: GradCam, path: Path, temperature: float) -> tuple[float, Map]:
    """Return the calibrated probability of the positive class and the Grad-CAM map of one photograph.

    The photograph is resized as in evaluations.

    Args:
        gradcam: Inside its `with` block.
        path: The photograph.
        temperature: Calibration temperature of the checkpoint, greater than 0.

    Returns:
        Probability in [0, 1], and the map float32 (rows, columns) in [0, 1].

    Raises:
        UnreadableImage: The photograph cannot be read.
        CheckpointError: The model's output is not finite.
    """
    size = gradcam.model.image_size
    # A JPEG is decoded at the same scale as in test and predict.
    result = gradcam(evaluation_image(load_rgb(path, size), size))
    if not math.isfinite(result.logit):
        message = f"The model gives no finite output for {show_path(path)}: its training diverged."
        raise CheckpointError(message, "model-diverged", path=path)
    return float(torch.sigmoid(torch.tensor(result.logit, dtype=torch.float64) / temperature)), result.map


def overlay(photograph: Image.Image, cam: Map) -> Image.Image:
    """Draw a heat map over the whole photograph.

    Args:
        photograph: Upright RGB image.
        cam: float32 (rows, columns) in [0, 1], of the photograph resized to a square.

    Returns:
        RGB image of the photograph's size, without metadata.
    """
    # 8 bits are enough for display, and a photograph of 200 megapixels then needs no gigabytes.
    small = Image.fromarray(np.round(cam * 255).astype(np.uint8))
    level = small.resize(photograph.size, Image.Resampling.BILINEAR)
    heat = level.copy()
    heat.putpalette(_palette())
    opacity = level.point([round(value * _MAX_OPACITY) for value in range(256)])
    return Image.composite(heat.convert("RGB"), photograph, opacity)


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
    lesion = leaf & (pixels[..., 0] - pixels[..., 1] >= 64)
    return leaf, lesion


def attention(cam: Map, leaf: Mask, lesion: Mask) -> Attention:
    """Return how much of the map is inside a mask.

    Args:
        cam: (rows, columns) in [0, 1]; enlarged to the size of the mask in the same way as for the overlay.
        leaf: bool (height, width), lesions included.
        lesion: bool (height, width).

    >>> left = np.array([[True, False]])
    >>> attention(np.ones((2, 2), dtype=np.float32), left, left & False)
    Attention(in_leaf=0.5, leaf_area=0.5, in_lesion=0.0, lesion_area=0.0)
    """
    height, width = leaf.shape
    full = np.asarray(Image.fromarray(cam).resize((width, height), Image.Resampling.BILINEAR))
    total = float(full.sum(dtype=np.float64))

    def fraction(mask: Mask) -> float | None:
        return float(full.sum(where=mask, dtype=np.float64)) / total if total > 0 else None

    return Attention(fraction(leaf), float(leaf.mean()), fraction(lesion), float(lesion.mean()))


def thumbnail_side(count: int) -> int:
    """Return the side of the thumbnails in pixels, chosen so that all of them fit on one contact sheet.

    >>> [thumbnail_side(count) for count in (1, 400, 10_000)]
    [256, 204, 40]
    """
    smallest, largest = _THUMBNAIL_SIDES
    return max(smallest, min(largest, _SHEET_SIDE // math.ceil(math.sqrt(max(count, 1)))))


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Return a copy of the picture that fits into a square of this side, aspect ratio kept."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    return small


def contact_sheet(thumbnails: Sequence[Image.Image], captions: Sequence[str], side: int) -> Image.Image:
    """Return all thumbnails in one grid, row by row, with captions below if the thumbnails are large enough.

    Args:
        thumbnails: At least one, each at most side × side pixels.
        captions: One caption per thumbnail, a few ASCII letters.
        side: Side in pixels, as returned by `thumbnail_side`.
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


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _palette() -> list[int]:
    stops = np.array([[int(stop[k : k + 2], 16) for k in (0, 2, 4)] for stop in _STOPS], dtype=np.float64)
    positions = np.linspace(0, 1, len(_STOPS))
    columns = [np.interp(np.linspace(0, 1, 256), positions, stops[:, channel]) for channel in range(3)]
    flat: list[int] = np.round(np.stack(columns, axis=1)).astype(int).ravel().tolist()
    return flat
