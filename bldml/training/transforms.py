"""From an upright photograph to the pixels that a backbone sees: one geometry for training and for everything after."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bldml.dataset.pixels import Square, squash

# ImageNet's, which all of torchvision's weights expect; Inception rescales from it inside (transform_input).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FILL = (round(255 * MEAN[0]), round(255 * MEAN[1]), round(255 * MEAN[2]))

_LUMA = np.array([0.299, 0.587, 0.114])

# Its threads would not survive the fork of a loader process, and one picture is too small for several.
cv2.setNumThreads(0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Augmentation:
    """How training pictures vary. Every draw is a pure function of seed, epoch and photograph.

    Args:
        crop_area: Smallest and largest share of the photograph's area that a random crop keeps, in (0, 1].
        crop_aspect: Smallest and largest factor on the photograph's own aspect ratio.
        flip: Mirror left-right and top-bottom, each with probability one half.
        rotation: Largest rotation to either side, degrees.
        brightness: Largest relative change, in [0, 1].
        contrast: Largest relative change, in [0, 1].
        saturation: Largest relative change, in [0, 1].
        hue: Largest change as a share of the colour circle, in [0, 0.5].
    """

    crop_area: tuple[float, float] = (0.8, 1.0)
    crop_aspect: tuple[float, float] = (0.9, 1.1)
    flip: bool = True
    rotation: float = 15.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02

    def __post_init__(self) -> None:
        """Check the ranges."""
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"augmentation.crop_area must hold 0 < smallest <= largest <= 1, not {self.crop_area}")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1] < math.inf:
            raise ValueError(f"augmentation.crop_aspect must hold 0 < smallest <= largest, not {self.crop_aspect}")
        for name, most in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5), ("rotation", 180)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"augmentation.{name} must lie in [0, {most}], not {getattr(self, name)}")


def normalize(pixels: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
    """Uint8 (…, 3, s, s) to float32 of ImageNet's mean 0 and standard deviation 1.

    Args:
        pixels: On any device.
        mean: ImageNet's, (3, 1, 1), where it lies on the device already.
        std: The same of the standard deviation.
    """
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1) if mean is None else mean
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1) if std is None else std
    return pixels.float().div_(255).sub_(mean).div_(std)


class Normalization(nn.Module):
    """`normalize` with its constants on the device, so that no step waits for a copy; in no checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 (n, 3, s, s) to float32."""
        return normalize(pixels, self.mean, self.std)


def evaluation_image(image: Image.Image | Square, size: int) -> Tensor:
    """What validation, test, predict, explain and export see: the whole frame, squashed to a square.

    Args:
        image: Upright RGB photograph; one that is such a square already stays what it is.
        size: Side of the result in pixels.

    Returns:
        uint8 (3, size, size), its channels last in memory.
    """
    return _tensor(np.array(squash(image, size)))


def squashed_side(size: int, augmentation: Augmentation | None) -> int:
    """Side of the square that a photograph is shrunk to before anything else, and that a cache keeps, in pixels.

    For training it is so much larger that the smallest crop need not be enlarged, but at most twice as large: a JPEG
    may have been decoded to no more than that.

    Args:
        size: Side of the picture that the backbone sees.
        augmentation: How training pictures vary; None for evaluation.

    >>> squashed_side(384, None), squashed_side(384, Augmentation())
    (384, 453)
    """
    if augmentation is None:
        return size
    narrow, wide = augmentation.crop_aspect
    smallest = math.sqrt(min(1.0, augmentation.crop_area[0] * min(narrow, 1 / wide)))
    return math.ceil(size * min(2.0, 1 / smallest))


def training_image(
    image: Image.Image | Square, size: int, augmentation: Augmentation, generator: np.random.Generator
) -> Tensor:
    """What training sees: a random crop, squashed, mirrored, turned and recoloured.

    The photograph is squashed first, then all geometry is one resampling and all colours are one matrix, so that what
    is done in each epoch costs little and acts on a small picture that a cache can hold. Where a turned crop looks
    over the photograph's edge it sees the mean colour.

    Args:
        image: Upright RGB photograph, or its square of `squashed_side`, which gives the same.
        size: Side of the result in pixels.
        augmentation: How far pictures may vary.
        generator: Source of every draw.

    Returns:
        uint8 (3, size, size), its channels last in memory.
    """
    a = augmentation
    square = squash(image, squashed_side(size, a))
    box = random_box(a, generator)
    # All draws are made whatever the settings, so that changing one leaves the others' values alone.
    mirror_x, mirror_y = (a.flip and bool(draw < 0.5) for draw in generator.random(2))
    angle, brightness, contrast, saturation, hue = (float(draw) for draw in generator.uniform(-1.0, 1.0, 5))
    view = _view(len(square), size, box, (mirror_x, mirror_y), math.radians(angle * a.rotation))
    # A quarter of the time that PIL takes.
    pixels = cv2.warpAffine(square, view, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=FILL)
    if a.brightness or a.contrast or a.saturation or a.hue:
        factors = (1 + brightness * a.brightness, 1 + contrast * a.contrast, 1 + saturation * a.saturation)
        mean = np.array(cv2.mean(pixels)[:3])
        pixels = cv2.transform(pixels, _colours(mean, *factors, hue * a.hue))
    return _tensor(pixels)


def _tensor(pixels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _view(side: int, size: int, box: Box, mirror: tuple[bool, bool], angle: float) -> NDArray[np.float64]:
    """From a pixel of the result to the place in the squashed picture that it shows: matrix (2, 3), pixels at integers.

    Backwards through what is done: turned back, mirrored back, then looked up in the crop.
    """
    left, top, right, bottom = box
    across = (right - left) * side / size * (-1 if mirror[0] else 1)
    down = (bottom - top) * side / size * (-1 if mirror[1] else 1)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, d, e = across * cos, -across * sin, down * sin, down * cos
    centre = (size - 1) / 2
    c = (left + right) / 2 * side - 0.5 - (a + b) * centre
    f = (top + bottom) / 2 * side - 0.5 - (d + e) * centre
    return np.array([[a, b, c], [d, e, f]])


def _colours(
    mean: NDArray[np.float64], brightness: float, contrast: float, saturation: float, hue: float
) -> NDArray[np.float64]:
    """Brightness, contrast about the mean grey, saturation and hue as one matrix (3, 4).

    The hue is turned about the axis of greys, so that a third of the circle makes red green, green blue and blue red. A
    colour is cut to [0, 255] once, at the end, and not after each step.
    """
    # Shares of red, green and blue in a third of the circle each. Greys stay what they are: the shares sum to 1.
    r, g, b = ((1 + 2 * math.cos(2 * math.pi * (hue + shift))) / 3 for shift in (0, 1 / 3, -1 / 3))
    turned = np.array([[r, g, b], [b, r, g], [g, b, r]])
    matrix = np.empty((3, 4))
    matrix[:, :3] = brightness * contrast * (saturation * turned + (1 - saturation) * _LUMA)
    matrix[:, 3] = (1 - contrast) * brightness * float(mean @ _LUMA)
    return matrix


def random_box(augmentation: Augmentation, generator: np.random.Generator) -> Box:
    """A random crop in the photograph's own relative coordinates.

    Unlike RandomResizedCrop, whose aspect is absolute and which therefore nearly always falls back to one centre crop
    on 3:2 and 4:3 photographs, every draw succeeds: area and aspect are drawn, then the sides are cut at the frame.

    Returns:
        Left, top, right, bottom in [0, 1].
    """
    area = generator.uniform(*augmentation.crop_area)
    narrow, wide = augmentation.crop_aspect
    aspect = math.exp(generator.uniform(math.log(narrow), math.log(wide)))
    width = min(1.0, math.sqrt(area * aspect))
    height = min(1.0, math.sqrt(area / aspect))
    left, top = generator.random(2) * (1.0 - width, 1.0 - height)
    # Rounding may put the far side a hair outside, which PIL refuses.
    return float(left), float(top), min(1.0, float(left) + width), min(1.0, float(top) + height)
