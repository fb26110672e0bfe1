"""From an upright photograph to the tensor that a backbone sees: one geometry for training and for everything after."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

# ImageNet's, which all of torchvision's weights expect; Inception rescales from it inside (transform_input).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FILL = [round(255 * channel) for channel in MEAN]

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


def to_pixels(image: Image.Image, size: int, box: Box | None = None) -> Tensor:
    """Squash a photograph, or a box of it, to a square.

    Args:
        image: Upright RGB photograph.
        size: Side of the result in pixels.
        box: Left, top, right, bottom as shares of width and height, in [0, 1]; the whole frame if None.

    Returns:
        uint8 (3, size, size).
    """
    left, top, right, bottom = box or (0.0, 0.0, 1.0, 1.0)
    width, height = image.size
    pixels = (left * width, top * height, right * width, bottom * height)
    squashed: Tensor = F.pil_to_tensor(image.resize((size, size), Image.Resampling.BILINEAR, box=pixels))
    return squashed


def normalize(pixels: Tensor) -> Tensor:
    """Uint8 (3, s, s) to float32 of ImageNet's mean 0 and standard deviation 1."""
    normalized: Tensor = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), list(MEAN), list(STD))
    return normalized


def evaluation_image(image: Image.Image, size: int) -> Tensor:
    """What validation, test, predict, explain and export see: the whole frame, squashed. Float32 (3, size, size)."""
    return normalize(to_pixels(image, size))


def training_image(image: Image.Image, size: int, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """What training sees: a random crop, squashed, mirrored, turned and recoloured.

    Args:
        image: Upright RGB photograph.
        size: Side of the result in pixels.
        augmentation: How far pictures may vary.
        generator: Source of every draw.

    Returns:
        float32 (3, size, size).
    """
    a = augmentation
    pixels = to_pixels(image, size, random_box(a, generator))
    # All draws are made whatever the settings, so that changing one leaves the others' values alone.
    mirror_x, mirror_y = generator.random(2) < 0.5
    angle, brightness, contrast, saturation, hue = generator.uniform(-1.0, 1.0, 5)
    if a.flip and mirror_x:
        pixels = F.horizontal_flip(pixels)
    if a.flip and mirror_y:
        pixels = F.vertical_flip(pixels)
    if a.rotation:
        pixels = F.rotate(pixels, angle * a.rotation, InterpolationMode.BILINEAR, fill=FILL)
    if a.brightness:
        pixels = F.adjust_brightness(pixels, 1 + brightness * a.brightness)
    if a.contrast:
        pixels = F.adjust_contrast(pixels, 1 + contrast * a.contrast)
    if a.saturation:
        pixels = F.adjust_saturation(pixels, 1 + saturation * a.saturation)
    if a.hue:
        pixels = F.adjust_hue(pixels, hue * a.hue)
    return normalize(pixels)


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
