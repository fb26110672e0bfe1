"""From a photograph to its explanation: probability, heat laid over the upright photograph, shares inside a mask."""

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

# Nine stops of matplotlib's plasma: its lightness only grows, so it can be read without colours too.
_STOPS = ("0d0887", "4c02a1", "7e03a8", "a92395", "cc4778", "e56b5d", "f89540", "fdc527", "f0f921")
_STRONGEST = 0.65
"""Opacity of the heat where the map is 1; where it is 0 the photograph shows as it is."""
_ASPECT_TOLERANCE = 0.02
_SHEET_SIDE = 4096
_THUMBNAILS = (32, 256)
_CAPTION = 16
_SMALLEST_WITH_CAPTION = 96


@dataclass(frozen=True)
class Attention:
    """How much of the map lies inside the leaf and inside the lesions, beside what chance would give.

    Attributes:
        in_leaf: Share of the map's sum inside the leaf, lesions included, in [0, 1]; None where the map is all 0.
        leaf_area: Share of the picture that is leaf: what an even map would give.
        in_lesion: Share of the map's sum inside lesions; None where the map is all 0.
        lesion_area: Share of the picture that is lesion.
    """

    in_leaf: float | None
    leaf_area: float
    in_lesion: float | None
    lesion_area: float

    @property
    def leaf_enrichment(self) -> float | None:
        """Share of attention per share of area; 1 is chance. None where it is not defined."""
        return _ratio(self.in_leaf, self.leaf_area)

    @property
    def lesion_enrichment(self) -> float | None:
        """The same for lesions, against the whole picture."""
        return _ratio(self.in_lesion, self.lesion_area)

    @property
    def lesion_enrichment_within_leaf(self) -> float | None:
        """The same for lesions against the leaf alone: leaves the background, which is easy to tell, out of it."""
        return _ratio(_ratio(self.in_lesion, self.in_leaf), _ratio(self.lesion_area, self.leaf_area))


def look(gradcam: GradCam, path: Path, temperature: float) -> tuple[float, Map]:
    """Calibrated probability of the positive class and Grad-CAM of one photograph, by the geometry of evaluations.

    Args:
        gradcam: Entered.
        path: The photograph.
        temperature: The checkpoint's, greater than 0.

    Returns:
        Probability in [0, 1], and the map float32 (rows, columns) in [0, 1].

    Raises:
        UnreadableImage: The photograph cannot be read.
        CheckpointError: The model gives no finite number.
    """
    size = gradcam.model.image_size
    # The scale at which a JPEG is decoded is that of test and predict too.
    seen = gradcam(evaluation_image(load_rgb(path, size), size))
    if not math.isfinite(seen.logit):
        raise CheckpointError(f"The model gives no finite output for {show_path(path)}: its training diverged.")
    return float(torch.sigmoid(torch.tensor(seen.logit, dtype=torch.float64) / temperature)), seen.map


def overlay(photograph: Image.Image, cam: Map) -> Image.Image:
    """Lay a map over the whole photograph.

    Args:
        photograph: Upright RGB.
        cam: float32 (rows, columns) in [0, 1], of the frame squashed to a square.

    Returns:
        RGB of the photograph's size, without metadata.
    """
    # 8 bits, so that a photograph of 200 megapixels needs no gigabytes; enough for what is looked at.
    small = Image.fromarray(np.round(cam * 255).astype(np.uint8))
    level = small.resize(photograph.size, Image.Resampling.BILINEAR)
    heat = level.copy()
    heat.putpalette(_palette())
    opacity = level.point([round(value * _STRONGEST) for value in range(256)])
    return Image.composite(heat.convert("RGB"), photograph, opacity)


def read_mask(path: Path, photograph: Path, size: tuple[int, int]) -> tuple[Mask, Mask]:
    """Read a mask: black background, leaf in green or white, lesion in red.

    Args:
        path: The mask, of the upright photograph; any size of the same proportions.
        photograph: For the message.
        size: Width and height of the upright photograph.

    Returns:
        Leaf (lesions included) and lesion, bool (height, width) of the mask's own size.

    Raises:
        DatasetError: The mask cannot be read or has other proportions.
    """
    try:
        image = load_rgb(path)
    except UnreadableImage as error:
        raise DatasetError(f"The mask {show_path(path)} cannot be read: {error.reason}.") from error
    if abs(image.width / image.height / (size[0] / size[1]) - 1) > _ASPECT_TOLERANCE:
        raise DatasetError(
            f"The mask {show_path(path)} has {image.width} × {image.height} pixels, its photograph "
            f"{show_path(photograph)} upright {size[0]} × {size[1]}. Give a mask of the upright photograph."
        )
    pixels = np.asarray(image).astype(np.int16)
    leaf = pixels.max(axis=2) >= 64
    lesion = leaf & (pixels[..., 0] - pixels[..., 1] >= 64)
    return leaf, lesion


def attention(cam: Map, leaf: Mask, lesion: Mask) -> Attention:
    """Share of the map inside a mask.

    Args:
        cam: (rows, columns) in [0, 1]; enlarged to the mask's size as for the overlay.
        leaf: bool (height, width), lesions included.
        lesion: bool (height, width).

    >>> left = np.array([[True, False]])
    >>> attention(np.ones((2, 2), dtype=np.float32), left, left & False)
    Attention(in_leaf=0.5, leaf_area=0.5, in_lesion=0.0, lesion_area=0.0)
    """
    height, width = leaf.shape
    full = np.asarray(Image.fromarray(cam).resize((width, height), Image.Resampling.BILINEAR))
    total = float(full.sum(dtype=np.float64))

    def share(mask: Mask) -> float | None:
        return float(full.sum(where=mask, dtype=np.float64)) / total if total > 0 else None

    return Attention(share(leaf), float(leaf.mean()), share(lesion), float(lesion.mean()))


def thumbnail_side(count: int) -> int:
    """Side of a contact sheet's thumbnails in pixels, so that any number of them fits one picture.

    >>> [thumbnail_side(count) for count in (1, 400, 10_000)]
    [256, 204, 40]
    """
    smallest, largest = _THUMBNAILS
    return max(smallest, min(largest, _SHEET_SIDE // math.ceil(math.sqrt(max(count, 1)))))


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """The picture, shrunk into a square of this side."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    return small


def contact_sheet(thumbnails: Sequence[Image.Image], captions: Sequence[str], side: int) -> Image.Image:
    """All pictures in one grid, from left to right and downwards, each with its caption below where there is room.

    Args:
        thumbnails: Each at most side × side pixels; at least one.
        captions: One each, a few ASCII letters.
        side: As from `thumbnail_side`.
    """
    below = _CAPTION if side >= _SMALLEST_WITH_CAPTION else 0
    columns = math.ceil(math.sqrt(len(thumbnails)))
    rows = math.ceil(len(thumbnails) / columns)
    gap = 4 if below else 1
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + below + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, (small, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        left, top = gap + i % columns * (side + gap), gap + i // columns * (side + below + gap)
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
        if below:
            draw.text((left + 2, top + side), caption, fill="black", font=font)
    return sheet


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _palette() -> list[int]:
    stops = np.array([[int(stop[k : k + 2], 16) for k in (0, 2, 4)] for stop in _STOPS], dtype=np.float64)
    places = np.linspace(0, 1, len(_STOPS))
    columns = [np.interp(np.linspace(0, 1, 256), places, stops[:, channel]) for channel in range(3)]
    flat: list[int] = np.round(np.stack(columns, axis=1)).astype(int).ravel().tolist()
    return flat
