"""From an upright photograph to the input of a backbone: one geometry for training and evaluation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bldml.dataset.images import ResizedImage, resize_to_square
from bldml.errors import ConfigError
from bldml.io.arguments import check_choices

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in [0, 1], as fractions of the frame."""

# Mean and standard deviation of ImageNet, which all of torchvision's weights expect (others: a row of
# `backbones`); Inception rescales from them
# internally (transform_input).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FILL = (round(255 * MEAN[0]), round(255 * MEAN[1]), round(255 * MEAN[2]))

_LUMA = np.array([0.299, 0.587, 0.114])

# OpenCV's threads would not survive the fork of a loader process, and one image is too small for several.
cv2.setNumThreads(0)

# Aspect ratio of the widest phone photographs; crops of wider ones may be enlarged a little.
_WIDEST = 16 / 9


@dataclass(frozen=True)
class Augmentation:
    """Training augmentation. Every random draw is a pure function of seed, epoch and photograph.

    Args:
        crop_area: Smallest and largest fraction of the photograph's area in a random crop, in (0, 1].
        crop_aspect: Smallest and largest factor on the photograph's aspect ratio; without `crop_aspect_relative`, the
            aspect ratio (width to height) of the crop itself.
        crop_aspect_relative: Whether `crop_aspect` is relative to the photograph's aspect ratio (true), or absolute as
            in torchvision's RandomResizedCrop (false). With these ranges an absolute crop does not fit into a 3:2
            photograph and becomes one centre crop.
        flip: Mirror with probability one half: left-right and top-bottom, independently (true), one of them
            (horizontal is left-right, vertical is top-bottom), or neither (false).
        rotation: Largest rotation to either side, in degrees.
        translate: Largest shift along each side, as a fraction of the side, in [0, 1).
        scale: Smallest and largest factor by which the crop is enlarged about its centre.
        surroundings: What appears beyond the edge of a crop that was rotated, shifted or made smaller: the photograph
            around the crop and then the fill, or only the fill.
        fill: Fill colour (red, green, blue, 0 to 255); default is ImageNet's mean.
        brightness: Largest relative change, in [0, 1].
        contrast: Largest relative change, in [0, 1].
        saturation: Largest relative change, in [0, 1].
        hue: Largest change as a fraction of the colour circle, in [0, 0.5].
        grayscale: Probability of conversion to grey, in [0, 1].
        strength: Factor on all of these but flips and fill, from 0 (no change) over 1 (as they are) to stronger; one
            number that a search can vary. Brightness, contrast, saturation, hue, rotation and grayscale end at their
            limits.
    """

    crop_area: tuple[float, float] = (0.8, 1.0)
    crop_aspect: tuple[float, float] = (0.9, 1.1)
    crop_aspect_relative: bool = True
    flip: bool | Literal["horizontal", "vertical"] = True
    rotation: float = 15.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    surroundings: Literal["photograph", "fill"] = "photograph"
    fill: tuple[int, int, int] = FILL
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    grayscale: float = 0.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if missing := [field.name for field in fields(self) if getattr(self, field.name) is None]:
            raise _out_of_range(missing[0], "have a value", "null")
        check_choices("augmentation", Augmentation, {"flip": self.flip, "surroundings": self.surroundings})
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise _out_of_range("crop_area", "hold 0 < smallest <= largest <= 1", self.crop_area)
        for name in ("crop_aspect", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise _out_of_range(name, "hold 0 < smallest <= largest", getattr(self, name))
        most = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5, "rotation": 180, "grayscale": 1}
        for name, largest in most.items():
            if not 0 <= getattr(self, name) <= largest:
                raise _out_of_range(name, f"lie in [0, {largest}]", getattr(self, name))
        if not 0 <= self.translate < 1:
            raise _out_of_range("translate", "lie in [0, 1)", self.translate)
        if not all(0 <= value <= 255 for value in self.fill):
            raise _out_of_range("fill", "hold three numbers from 0 to 255", self.fill)
        if not 0 <= self.strength < math.inf:
            raise _out_of_range("strength", "be at least 0", self.strength)
        if self.crop_area[0] <= 1 - 1 / max(self.strength, 1):
            limit = f"be below {1 / (1 - self.crop_area[0]):g} with crop_area {self.crop_area}"
            raise _out_of_range("strength", limit, self.strength)
        _ = self.drawn

    @property  # not cached: what holds itself cannot be copied into a configuration
    def drawn(self) -> "Augmentation":
        """The ranges that are drawn from: these, by their strength; its own strength is 1.

        >>> drawn = Augmentation(strength=0.5).drawn
        >>> [round(area, 3) for area in drawn.crop_area], drawn.rotation, drawn.strength
        ([0.9, 1.0], 7.5, 1.0)
        """
        if self.strength == 1:
            return self
        by = self.strength
        area, aspect, scale = self.crop_area, self.crop_aspect, self.scale
        most = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5, "rotation": 180.0, "grayscale": 1.0}
        return replace(
            self,
            strength=1.0,
            crop_area=(1 - (1 - area[0]) * by, 1 - (1 - area[1]) * by),
            crop_aspect=(aspect[0] ** by, aspect[1] ** by),
            scale=(scale[0] ** by, scale[1] ** by),
            translate=self.translate * by,
            **{name: min(largest, getattr(self, name) * by) for name, largest in most.items()},
        )


def _out_of_range(name: str, expected: str, found: object) -> ConfigError:
    message = f"augmentation.{name} must {expected}, not {found}."
    return ConfigError(message, "augmentation-out-of-range", key=name, found=found, expected=expected)


class Normalization(nn.Module):
    """Normalise by mean and standard deviation of each channel; constants on the device, not in the state dict."""

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Return uint8 (…, 3, s, s) as normalised float32."""
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)


def evaluation_image(image: Image.Image | ResizedImage, size: int) -> Tensor:
    """Return the input of every evaluation, uint8 (3, size, size): the whole upright frame, resized to a square.

    The channels are last in memory. An image of that size already is not changed.
    """
    return _tensor(np.array(resize_to_square(image, size)))


def resized_side(size: int, augmentation: Augmentation | None) -> int:
    """Return the side, in pixels, of the resized image that is made first from a photograph and is cached.

    For training it is larger, so that the smallest crop need not be enlarged, but at most twice as large, because a
    JPEG may have been decoded at no more than that. Without augmentation it is the size of the input image. It does not
    depend on the strength of the augmentation, so that runs with different ones share the cached images.

    >>> resized_side(384, None), resized_side(384, Augmentation())
    (384, 453)
    """
    if augmentation is None:
        return size
    narrow, wide = augmentation.crop_aspect
    least = augmentation.crop_area[0] * min(narrow, 1 / wide)
    if augmentation.crop_aspect_relative:
        smallest = math.sqrt(min(1.0, least))
    else:  # or the centre crop of a photograph that is wider, or higher, than any allowed crop
        smallest = min(1.0, math.sqrt(least / _WIDEST), wide / _WIDEST, 1 / (narrow * _WIDEST))
    return math.ceil(size * min(2.0, 1 / smallest))


def training_image(
    image: Image.Image | ResizedImage,
    size: int,
    augmentation: Augmentation,
    generator: np.random.Generator,
    aspect: float = 1.0,
) -> Tensor:
    """Return the input of training, uint8 (3, size, size) with the channels last in memory.

    It is a random crop, resized, mirrored, rotated, with changed colours. The photograph is resized first. Then all
    geometry is one resampling and all colours are one matrix, so that the work in each epoch is cheap and starts from
    a small image that can be cached. Beyond the photograph's edge, a rotated crop shows the fill.

    Args:
        image: Upright RGB photograph, or its resized image of side `resized_side`; both give the same result.
        size: Side of the result in pixels.
        augmentation: Ranges of the augmentation.
        generator: Source of every draw.
        aspect: Aspect ratio (width to height) of the photograph; used without `crop_aspect_relative`.
    """
    resized, a = resize_to_square(image, resized_side(size, augmentation)), augmentation.drawn
    box = random_box(a, generator, aspect)
    # All draws are made whatever the settings, so that changing one setting does not change the others' values.
    mirror_x, mirror_y = (bool(draw < 0.5) for draw in generator.random(2))
    mirror = (mirror_x and a.flip in (True, "horizontal"), mirror_y and a.flip in (True, "vertical"))
    angle, brightness, contrast, saturation, hue = (float(draw) for draw in generator.uniform(-1.0, 1.0, 5))
    is_gray = bool(generator.random() < a.grayscale)
    shift = generator.uniform(-a.translate, a.translate, 2) * size
    scale = float(generator.uniform(*a.scale))
    if a.surroundings == "fill":
        resized, box = _cut(resized, box)
    view = _view(resized.shape[:2], size, box, mirror, math.radians(angle * a.rotation), scale, shift)
    # OpenCV needs a quarter of the time of PIL.
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(resized, view, (size, size), flags=flags, borderValue=a.fill)
    if a.brightness or a.contrast or a.saturation or a.hue or is_gray:
        factors = (1 + brightness * a.brightness, 1 + contrast * a.contrast, 1 + saturation * a.saturation)
        matrix = _colours(np.array(cv2.mean(pixels)[:3]), *factors, hue * a.hue)
        pixels = cv2.transform(pixels, np.tile(_LUMA @ matrix, (3, 1)) if is_gray else matrix)
    return _tensor(pixels)


def _tensor(pixels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _colours(
    mean: NDArray[np.float64], brightness: float, contrast: float, saturation: float, hue: float
) -> NDArray[np.float64]:
    """Return brightness, contrast about the mean grey, saturation and hue as one matrix (3, 4).

    The hue is rotated about the axis of greys, so that a third of the circle makes red green, green blue and blue red.
    A colour is clipped to [0, 255] once, at the end, and not after each step.
    """
    # Weights of red, green and blue, a third of the circle apart. They sum to 1, so greys do not change.
    r, g, b = ((1 + 2 * math.cos(2 * math.pi * (hue + shift))) / 3 for shift in (0, 1 / 3, -1 / 3))
    turned = np.array([[r, g, b], [b, r, g], [g, b, r]])
    matrix = np.empty((3, 4))
    matrix[:, :3] = brightness * contrast * (saturation * turned + (1 - saturation) * _LUMA)
    matrix[:, 3] = (1 - contrast) * brightness * float(mean @ _LUMA)
    return matrix


def random_box(augmentation: Augmentation, generator: np.random.Generator, aspect: float = 1.0) -> Box:
    """Return a random crop of a photograph with this aspect ratio (width to height).

    With `crop_aspect_relative` every draw succeeds, whatever the aspect ratio. Without, this is torchvision's
    RandomResizedCrop without its rounding to whole pixels: the first of ten draws that fits into the frame; if none
    fits, the largest centre crop of an allowed ratio.
    """
    area, (narrow, wide) = augmentation.crop_area, augmentation.crop_aspect

    def draw() -> tuple[float, float]:
        return generator.uniform(*area), math.exp(generator.uniform(math.log(narrow), math.log(wide)))

    if augmentation.crop_aspect_relative:
        fraction, ratio = draw()
        width, height = min(1.0, math.sqrt(fraction * ratio)), min(1.0, math.sqrt(fraction / ratio))
        return _placed(width, height, *generator.random(2))
    draws = [draw() for _ in range(10)]
    x, y = generator.random(2)
    for fraction, ratio in draws:
        width, height = math.sqrt(fraction * ratio / aspect), math.sqrt(fraction * aspect / ratio)
        if width <= 1 and height <= 1:
            return _placed(width, height, x, y)
    return _placed(min(1.0, wide / aspect), min(1.0, aspect / narrow), 0.5, 0.5)


def _placed(width: float, height: float, x: float, y: float) -> Box:
    """Return a crop of this size; x and y in [0, 1] are its position between left and right, top and bottom."""
    left, top = float(x) * (1.0 - width), float(y) * (1.0 - height)
    # Rounding may put the far side slightly outside, which PIL refuses.
    return left, top, min(1.0, left + width), min(1.0, top + height)


def _cut(resized: ResizedImage, box: Box) -> tuple[ResizedImage, Box]:
    """Return a crop of whole pixels, so that nothing around it can appear, and the box of all of it."""
    side = len(resized)
    left, top, right, bottom = (round(edge * side) for edge in box)
    left, top = min(left, side - 1), min(top, side - 1)
    return resized[top : max(bottom, top + 1), left : max(right, left + 1)], (0.0, 0.0, 1.0, 1.0)


def _view(
    shape: tuple[int, ...],
    size: int,
    box: Box,
    mirror: tuple[bool, bool],
    angle: float,
    scale: float,
    shift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from a pixel of the result to its location in the image; pixel centres are integers.

    It inverts the operations in reverse order: shift (in pixels of the result), rotation (in radians) and scale about
    the crop's centre, mirror (left-right, top-bottom), then position in the crop.
    """
    height, width = shape
    left, top, right, bottom = box
    across = (right - left) * width / size * (-1 if mirror[0] else 1)
    down = (bottom - top) * height / size * (-1 if mirror[1] else 1)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, d, e = across * cos, -across * sin, down * sin, down * cos
    centre = (size - 1) / 2
    c = (left + right) / 2 * width - 0.5 - (a + b) * centre - (a * shift[0] + b * shift[1])
    f = (top + bottom) / 2 * height - 0.5 - (d + e) * centre - (d * shift[0] + e * shift[1])
    return np.array([[a, b, c], [d, e, f]])
