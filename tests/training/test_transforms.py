"""One geometry: what evaluation sees, and how training varies it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bldml.training.transforms import Augmentation, evaluation_image, normalize, random_box, to_pixels, training_image

NEUTRAL = Augmentation((1.0, 1.0), (1.0, 1.0), False, 0.0, 0.0, 0.0, 0.0, 0.0)
SIZE = 48


@pytest.fixture
def photograph() -> Image.Image:
    """Noise on a slope, 3:2, no two corners alike."""
    generator = np.random.default_rng(3)
    slope = np.linspace(0, 120, 96)[None, :, None] + np.linspace(0, 80, 64)[:, None, None]
    pixels = slope + generator.uniform(0, 50, (64, 96, 3)) * (1.0, 0.6, 0.3)
    return Image.fromarray(pixels.astype(np.uint8))


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_evaluation_sees_the_whole_frame_squashed_and_normalised(photograph: Image.Image) -> None:
    image = evaluation_image(photograph, SIZE)
    assert image.shape == (3, SIZE, SIZE)
    assert image.dtype == torch.float32
    pixels = np.asarray(photograph.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float64) / 255
    expected = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_a_box_is_cut_out_before_squashing(photograph: Image.Image) -> None:
    """Up to the outermost rows and columns, which see their neighbours outside the box."""
    cut = to_pixels(photograph.crop((24, 16, 72, 48)), SIZE)
    boxed = to_pixels(photograph, SIZE, (0.25, 0.25, 0.75, 0.75))
    assert (boxed.int() - cut.int())[:, 2:-2, 2:-2].abs().max() <= 1


@pytest.mark.parametrize("size", [(90, 60), (80, 60), (60, 60), (50, 100)])
def test_neutral_training_is_evaluation(size: tuple[int, int], photograph: Image.Image) -> None:
    resized = photograph.resize(size)
    for seed in range(5):
        assert torch.equal(training_image(resized, SIZE, NEUTRAL, seeded(seed)), evaluation_image(resized, SIZE))


def test_training_is_a_pure_function_of_the_seed(photograph: Image.Image) -> None:
    images = [training_image(photograph, SIZE, Augmentation(), seeded(seed)) for seed in (1, 1, 2, 3)]
    assert images[0].shape == (3, SIZE, SIZE)
    assert images[0].dtype == torch.float32
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert not torch.equal(images[2], images[3])
    torch.manual_seed(0)
    np.random.seed(0)  # the global one has no part in it
    assert torch.equal(images[0], training_image(photograph, SIZE, Augmentation(), seeded(1)))


def test_every_setting_changes_something(photograph: Image.Image) -> None:
    settings: dict[str, Any] = {
        "crop_area": (0.5, 0.6), "crop_aspect": (0.5, 0.6), "flip": True, "rotation": 30.0, "brightness": 0.5,
        "contrast": 0.5, "saturation": 0.5, "hue": 0.2,
    }  # fmt: skip
    for name, value in settings.items():
        changed = replace(NEUTRAL, **{name: value})
        images = [training_image(photograph, SIZE, changed, seeded(seed)) for seed in range(8)]
        assert any(not torch.equal(image, evaluation_image(photograph, SIZE)) for image in images), name


# These act on each pixel alone, so that mirroring before or after is the same.
@pytest.mark.parametrize("setting", [{"brightness": 0.5}, {"saturation": 0.8}, {"hue": 0.3}])
def test_one_setting_leaves_the_others_draws_alone(setting: dict[str, Any], photograph: Image.Image) -> None:
    plain = to_pixels(photograph, SIZE)
    mirrors: dict[str, Callable[[Tensor], Tensor]] = {
        "none": lambda pixels: pixels,
        "x": F.horizontal_flip,
        "y": F.vertical_flip,
        "both": lambda pixels: F.vertical_flip(F.horizontal_flip(pixels)),
    }
    seen: set[str] = set()
    for seed in range(16):
        flipped = training_image(photograph, SIZE, replace(NEUTRAL, flip=True), seeded(seed))
        (which,) = [name for name, mirror in mirrors.items() if torch.equal(normalize(mirror(plain)), flipped)]
        seen.add(which)
        alone = training_image(photograph, SIZE, replace(NEUTRAL, **setting), seeded(seed))
        both = training_image(photograph, SIZE, replace(NEUTRAL, flip=True, **setting), seeded(seed))
        assert torch.equal(both, mirrors[which](alone))
    assert seen == set(mirrors)


def test_the_crop_does_not_depend_on_colours_nor_colours_on_the_crop(photograph: Image.Image) -> None:
    grey = Image.new("RGB", (90, 60), (120, 120, 120))
    cropped = Augmentation(
        (0.3, 0.9), (0.5, 2.0), flip=False, rotation=0, brightness=0.5, contrast=0, saturation=0, hue=0
    )
    for seed in range(8):
        # A plain picture shows the brightness alone.
        whole = replace(cropped, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=True)
        assert torch.equal(
            training_image(grey, SIZE, cropped, seeded(seed)), training_image(grey, SIZE, whole, seeded(seed))
        )
        box = random_box(cropped, seeded(seed))
        without_colours = training_image(photograph, SIZE, replace(cropped, brightness=0), seeded(seed))
        assert torch.equal(without_colours, normalize(to_pixels(photograph, SIZE, box)))


def test_rotation_fills_with_the_mean_colour() -> None:
    """A corner that turned in from outside is grey in the network's eyes."""
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    corners: list[float] = []
    for seed in range(20):
        image = training_image(white, SIZE, replace(NEUTRAL, rotation=45.0), seeded(seed))
        corners.append(float(image[:, 0, 0].abs().max()))
        assert float(image[0, SIZE // 2, SIZE // 2]) > 2
    assert min(corners) < 0.02


@pytest.mark.parametrize("area", [(0.8, 1.0), (0.2, 0.4), (1.0, 1.0)])
@pytest.mark.parametrize("aspect", [(0.9, 1.1), (0.5, 2.0), (1.0, 1.0)])
def test_random_box_keeps_its_bounds(area: tuple[float, float], aspect: tuple[float, float]) -> None:
    augmentation = replace(NEUTRAL, crop_area=area, crop_aspect=aspect)
    generator = seeded(11)
    boxes = np.array([random_box(augmentation, generator) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    width, height = right - left, bottom - top
    assert width.min() > 0
    assert height.min() > 0
    slack = 1e-12
    cut = (width >= 1 - slack) | (height >= 1 - slack)
    free = ~cut
    assert np.all(width * height <= area[1] + slack)
    assert np.all((width * height)[free] >= area[0] - slack)
    assert np.all((width / height)[free] >= aspect[0] - slack)
    assert np.all((width / height)[free] <= aspect[1] + slack)
    # A side that was cut: the other one is still what some allowed area and aspect give.
    shortest = math.sqrt(area[0] / max(aspect[1], 1 / aspect[0]))
    assert min(width.min(), height.min()) >= shortest - slack
    if area != (1.0, 1.0):
        # Drawn, not fixed: each side of the frame comes near, and sizes spread over the range.
        assert left.min() < 0.02
        assert right.max() > 0.98
        assert np.ptp((width * height)[free]) > 0.8 * (area[1] - area[0])
        if aspect == (0.9, 1.1):
            assert np.ptp(width / height) > 0.15
    elif aspect == (1.0, 1.0):
        assert np.array_equal(boxes, np.tile([0.0, 0.0, 1.0, 1.0], (2000, 1)))


def test_aspect_is_as_often_narrow_as_wide() -> None:
    augmentation = replace(NEUTRAL, crop_area=(0.2, 0.3), crop_aspect=(0.5, 2.0))
    generator = seeded(2)
    boxes = np.array([random_box(augmentation, generator) for _ in range(4000)])
    wide = (boxes[:, 2] - boxes[:, 0]) > (boxes[:, 3] - boxes[:, 1])
    assert abs(wide.mean() - 0.5) < 0.04


@pytest.mark.parametrize("size", [(600, 400), (400, 300), (300, 400), (1000, 200)])
def test_crops_vary_whatever_the_photographs_shape(size: tuple[int, int]) -> None:
    """RandomResizedCrop gives one fixed centre crop here."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    ramps = Image.fromarray(np.stack([x, y, y], -1).astype(np.uint8))
    augmentation = Augmentation(flip=False, rotation=0, brightness=0, contrast=0, saturation=0, hue=0)
    images = [training_image(ramps, SIZE, augmentation, seeded(seed)) for seed in range(30)]
    lefts = {round(float(image[0, 0, 0]), 3) for image in images}
    tops = {round(float(image[1, 0, 0]), 3) for image in images}
    assert len(lefts) > 8
    assert len(tops) > 8


def test_normalize_gives_mean_zero_and_unit_deviation() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406])
    pixels = (mean * 255).round().to(torch.uint8)[:, None, None].expand(3, 4, 4)
    assert normalize(pixels).abs().max() < 0.01
    assert float(normalize(torch.full((3, 1, 1), 255, dtype=torch.uint8))[0]) == pytest.approx((1 - 0.485) / 0.229)


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_area": (0.0, 1.0)}, {"crop_area": (0.9, 0.8)}, {"crop_area": (0.5, 1.5)}, {"crop_area": (-1.0, 1.0)},
        {"crop_area": (math.nan, 1.0)},
        {"crop_aspect": (0.0, 1.0)}, {"crop_aspect": (2.0, 1.0)}, {"crop_aspect": (1.0, math.inf)},
        {"crop_aspect": (1.0, math.nan)},
        {"rotation": -1.0}, {"rotation": 181.0}, {"rotation": math.nan},
        {"brightness": -0.1}, {"brightness": 1.1}, {"contrast": 2.0}, {"saturation": -1.0},
        {"hue": 0.51}, {"hue": math.nan},
    ],
)  # fmt: skip
def test_ranges(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"augmentation.{name} must"):
        Augmentation(**setting)


def test_the_ends_of_the_ranges_are_allowed(photograph: Image.Image) -> None:
    widest = Augmentation((0.001, 1.0), (0.01, 100.0), True, 180.0, 1.0, 1.0, 1.0, 0.5)
    for seed in range(20):
        assert torch.isfinite(training_image(photograph, SIZE, widest, seeded(seed))).all()
