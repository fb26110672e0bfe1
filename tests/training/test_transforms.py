"""One geometry: what evaluation sees, and how training varies it."""

import colorsys
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from bldml.dataset.images import resize_to_square
from bldml.errors import ConfigError
from bldml.training.transforms import (
    Augmentation,
    Normalization,
    evaluation_image,
    random_box,
    resized_side,
    training_image,
)
from tests.support import mistake

NEUTRAL = Augmentation(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False, rotation=0.0, brightness=0.0, contrast=0.0,
    saturation=0.0, hue=0.0,
)  # fmt: skip
SIZE = 48
normalize = Normalization()


@pytest.fixture
def photograph() -> Image.Image:
    """Noise on a slope, 3:2, no two corners alike."""
    generator = np.random.default_rng(3)
    slope = np.linspace(0, 120, 96)[None, :, None] + np.linspace(0, 80, 64)[:, None, None]
    pixels = slope + generator.uniform(0, 50, (64, 96, 3)) * (1.0, 0.6, 0.3)
    return Image.fromarray(pixels.astype(np.uint8))


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_steps(photograph: Image.Image, augmentation: Augmentation, seed: int) -> Tensor:
    """The same augmentation as torchvision has it, one step after another on the photograph itself."""
    a, generator = augmentation, seeded(seed)
    left, top, right, bottom = random_box(a, generator)
    width, height = photograph.size
    box = (left * width, top * height, right * width, bottom * height)
    pixels: Tensor = F.pil_to_tensor(photograph.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))
    mirror_x, mirror_y = generator.random(2) < 0.5
    angle, brightness, contrast, saturation, hue = generator.uniform(-1.0, 1.0, 5)
    is_gray = generator.random() < a.grayscale
    shift = generator.uniform(-a.translate, a.translate, 2) * SIZE
    scale = generator.uniform(*a.scale)
    pixels = F.horizontal_flip(pixels) if a.flip in (True, "horizontal") and mirror_x else pixels
    pixels = F.vertical_flip(pixels) if a.flip in (True, "vertical") and mirror_y else pixels
    pixels = F.affine(
        pixels, -angle * a.rotation, list(shift), scale, [0.0, 0.0], InterpolationMode.BILINEAR, fill=list(a.fill)
    )
    pixels = F.adjust_brightness(pixels, 1 + brightness * a.brightness)
    pixels = F.adjust_contrast(pixels, 1 + contrast * a.contrast)
    pixels = F.adjust_saturation(pixels, 1 + saturation * a.saturation)
    pixels = F.adjust_hue(pixels, hue * a.hue)
    return F.rgb_to_grayscale(pixels, 3) if is_gray else pixels


def test_evaluation_sees_the_whole_frame_squashed(photograph: Image.Image) -> None:
    image = evaluation_image(photograph, SIZE)
    assert image.shape == (3, SIZE, SIZE)
    assert image.dtype == torch.uint8
    pixels = np.asarray(photograph.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
    expected = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(normalize(image).numpy(), expected.transpose(2, 0, 1), atol=1e-5)


# What is one step here differs from torchvision's steps by less than can be seen, where those lose nothing between.
@pytest.mark.parametrize(
    ("setting", "mean", "most"),
    [
        ({}, 0, 0),
        ({"flip": True}, 0, 0),
        ({"flip": "horizontal"}, 0, 0),
        ({"flip": "vertical"}, 0, 0),
        ({"translate": 0.2, "crop_area": (0.9, 0.9)}, 1, 6),
        ({"scale": (0.8, 1.3), "crop_area": (0.9, 0.9)}, 1, 6),
        ({"rotation": 30.0, "translate": 0.1, "scale": (0.9, 1.1), "flip": True, "fill": (0, 0, 0)}, 1.2, 8),
        ({"grayscale": 0.5}, 0.6, 1.5),
        ({"grayscale": 0.5, "brightness": 0.2, "saturation": 0.4, "hue": 0.02}, 2.7, 8),
        ({"crop_area": (0.6, 1.0), "crop_aspect": (0.8, 1.2)}, 1, 6),
        ({"rotation": 30.0, "crop_area": (0.9, 0.9)}, 1, 6),
        ({"crop_area": (0.7, 0.9), "flip": True, "rotation": 20.0}, 1.2, 8),
        ({"brightness": 0.3}, 0.6, 1),
        ({"contrast": 0.3}, 1, 2),
        ({"saturation": 0.5}, 0.8, 2),
        ({"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}, 1.7, 4),
        ({"hue": 0.02}, 2.5, 8),
    ],
)
def test_training_is_what_separate_steps_give(setting: dict[str, Any], mean: float, most: float) -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 360), np.linspace(0, 1, 240))
    smooth = np.stack([70 + 90 * x, 100 + 50 * np.sin(5 * x + 3 * y), 60 + 70 * y], -1)
    photograph = Image.fromarray(smooth.astype(np.uint8))
    augmentation = replace(NEUTRAL, **setting)
    for seed in range(12):
        image = training_image(photograph, SIZE, augmentation, seeded(seed))
        expected = by_steps(photograph, augmentation, seed).int()
        difference = (image.int() - expected).abs().float()
        if augmentation.rotation or augmentation.translate or augmentation.scale != (1.0, 1.0):
            # A turned crop sees the photograph beyond its own edges, and the steps see nothing: the middle is the same.
            quarter = SIZE // 4
            difference = difference[:, quarter:-quarter, quarter:-quarter]
        assert difference.mean() <= mean, seed
        assert difference.max() <= most, seed


@pytest.mark.parametrize("colour", [(120, 60, 60), (60, 120, 60), (60, 60, 120), (120, 120, 60), (110, 130, 70)])
def test_hue_turns_the_colour_circle_and_leaves_grey_grey(colour: tuple[int, int, int]) -> None:
    def shown(colour: tuple[int, int, int], hue: float, seed: int) -> tuple[int, ...]:
        image = training_image(Image.new("RGB", (8, 8), colour), 8, replace(NEUTRAL, hue=hue), seeded(seed))
        return tuple(int(value) for value in image[:, 0, 0])

    before = colorsys.rgb_to_hsv(*colour)[0]
    for seed in range(6):
        generator = seeded(seed)
        random_box(NEUTRAL, generator)
        generator.random(2)
        draw = generator.uniform(-1.0, 1.0, 5)[-1]
        turned = colorsys.rgb_to_hsv(*shown(colour, 0.1, seed))[0]
        assert (turned - before - 0.1 * draw + 0.5) % 1 - 0.5 == pytest.approx(0, abs=0.012)
        assert shown((90, 90, 90), 0.5, seed) == (90, 90, 90)


def test_the_squashed_square_gives_what_the_photograph_gives(photograph: Image.Image) -> None:
    """So that a cache that holds it changes nothing."""
    for augmentation in (Augmentation(), Augmentation(crop_area=(0.1, 1.0)), NEUTRAL):
        square = resize_to_square(photograph, resized_side(SIZE, augmentation))
        for seed in range(5):
            once = training_image(photograph, SIZE, augmentation, seeded(seed))
            assert torch.equal(once, training_image(square, SIZE, augmentation, seeded(seed)))
    assert torch.equal(evaluation_image(resize_to_square(photograph, SIZE), SIZE), evaluation_image(photograph, SIZE))


def test_no_crop_is_enlarged() -> None:
    """Unless it is less than half as wide or high as the photograph."""
    for area, aspect in (((0.8, 1.0), (0.9, 1.1)), ((0.5, 0.6), (1.0, 1.3)), ((1.0, 1.0), (1.0, 1.0))):
        augmentation = replace(NEUTRAL, crop_area=area, crop_aspect=aspect)
        side, generator = resized_side(SIZE, augmentation), seeded(5)
        for left, top, right, bottom in (random_box(augmentation, generator) for _ in range(500)):
            assert min(right - left, bottom - top) * side >= SIZE * (1 - 1e-9)
    assert resized_side(SIZE, Augmentation(crop_area=(0.01, 1.0))) == 2 * SIZE
    # A centre crop of 3:2, which is narrower than any that is drawn.
    absolute = replace(NEUTRAL, crop_area=(0.8, 1.0), crop_aspect=(0.9, 1.1), crop_aspect_relative=False)
    left, _, right, _ = random_box(absolute, seeded(), 1.5)
    assert (right - left) * resized_side(SIZE, absolute) >= SIZE
    assert resized_side(SIZE, None) == resized_side(SIZE, NEUTRAL) == SIZE


@pytest.mark.parametrize("size", [(90, 60), (80, 60), (60, 60), (50, 100)])
def test_neutral_training_is_evaluation(size: tuple[int, int], photograph: Image.Image) -> None:
    resized = photograph.resize(size)
    for seed in range(5):
        assert torch.equal(training_image(resized, SIZE, NEUTRAL, seeded(seed)), evaluation_image(resized, SIZE))


def test_training_is_a_pure_function_of_the_seed(photograph: Image.Image) -> None:
    images = [training_image(photograph, SIZE, Augmentation(), seeded(seed)) for seed in (1, 1, 2, 3)]
    assert images[0].shape == (3, SIZE, SIZE)
    assert images[0].dtype == torch.uint8
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert not torch.equal(images[2], images[3])
    torch.manual_seed(0)
    np.random.seed(0)  # the global one has no part in it
    assert torch.equal(images[0], training_image(photograph, SIZE, Augmentation(), seeded(1)))


# These act on each pixel alone, so that mirroring before or after is the same.
@pytest.mark.parametrize("setting", [{"brightness": 0.5}, {"saturation": 0.8}, {"hue": 0.3}])
def test_one_setting_leaves_the_others_draws_alone(setting: dict[str, Any], photograph: Image.Image) -> None:
    plain = evaluation_image(photograph, SIZE)
    mirrors: dict[str, Callable[[Tensor], Tensor]] = {
        "none": lambda pixels: pixels,
        "x": F.horizontal_flip,
        "y": F.vertical_flip,
        "both": lambda pixels: F.vertical_flip(F.horizontal_flip(pixels)),
    }
    seen: set[str] = set()
    for seed in range(16):
        flipped = training_image(photograph, SIZE, replace(NEUTRAL, flip=True), seeded(seed))
        (which,) = [name for name, mirror in mirrors.items() if torch.equal(mirror(plain), flipped)]
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
        plain = training_image(photograph, SIZE, replace(cropped, brightness=0), seeded(seed)).numpy()
        brightness = float(training_image(grey, SIZE, cropped, seeded(seed))[0, 0, 0]) / 120
        bright = training_image(photograph, SIZE, cropped, seeded(seed)).numpy()
        np.testing.assert_allclose(bright, np.minimum(255, plain * brightness), atol=2)


def test_rotation_fills_with_the_mean_colour() -> None:
    """A corner that turned in from outside is grey in the network's eyes."""
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    corners: list[float] = []
    for seed in range(20):
        image = normalize(training_image(white, SIZE, replace(NEUTRAL, rotation=45.0), seeded(seed)))
        corners.append(float(image[:, 0, 0].abs().max()))
        assert float(image[0, SIZE // 2, SIZE // 2]) > 2
    assert min(corners) < 0.02


def test_a_turned_crop_sees_the_photograph_beyond_its_edges() -> None:
    """Nothing is filled in where there is a photograph."""
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    small = replace(NEUTRAL, crop_area=(0.25, 0.25), rotation=10.0)
    whole = 0
    for seed in range(20):
        left, top, right, bottom = random_box(small, seeded(seed))
        inside = min(left, top, 1 - right, 1 - bottom) > 0.12  # a half diagonal of 0.354 against a half side of 0.25
        whole += inside
        filled = bool((training_image(white, SIZE, small, seeded(seed)) != 255).any())
        assert not (inside and filled)
    assert whole


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
    lefts = {int(image[0, 0, 0]) for image in images}
    tops = {int(image[1, 0, 0]) for image in images}
    assert len(lefts) > 8
    assert len(tops) > 8


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
    with mistake("augmentation-out-of-range", key=name):
        Augmentation(**setting)


def test_the_ends_of_the_ranges_are_allowed(photograph: Image.Image) -> None:
    for relative, alone in itertools.product((True, False), repeat=2):
        widest = Augmentation(
            crop_area=(1e-6, 1.0 if relative else 1e-5),
            crop_aspect=(0.01, 100.0),
            crop_aspect_relative=relative,
            rotation=180.0,
            translate=0.99,
            scale=(0.01, 100.0),
            surroundings="fill" if alone else "photograph",
            fill=(0, 255, 0),
            brightness=1.0,
            contrast=1.0,
            saturation=1.0,
            hue=0.5,
            grayscale=1.0,
        )
        for seed in range(200):
            image = training_image(photograph, SIZE, widest, seeded(seed), aspect=1.5)
            assert image.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_alone_shows_nothing_around_it(seed: int) -> None:
    """As steps that cut the crop out first would; and the photograph around it where that is wanted."""
    smooth = np.tile(np.linspace(60, 200, 240)[None, :, None], (240, 1, 3)).astype(np.uint8)
    turned = replace(
        NEUTRAL, rotation=60.0, crop_area=(0.5, 0.5), scale=(0.7, 0.9), translate=0.1, surroundings="fill",
        fill=(0, 0, 0),
    )  # fmt: skip
    image = training_image(Image.fromarray(smooth), SIZE, turned, seeded(seed)).int()
    expected = by_steps(Image.fromarray(smooth), turned, seed).int()
    beyond = expected.sum(0) == 0
    assert 0.2 < beyond.float().mean() < 0.8
    assert ((image.sum(0) == 0) != beyond).float().mean() < 0.06  # along the edge
    assert (image - expected).abs().float().median() <= 2
    around = training_image(Image.fromarray(smooth), SIZE, replace(turned, surroundings="photograph"), seeded(seed))
    assert (around.sum(0) == 0).float().mean() < (image.sum(0) == 0).float().mean() - 0.1


@pytest.mark.parametrize("width", [150, 133, 100, 75, 56])
def test_crops_of_a_ratio_are_those_of_random_resized_crop(width: int) -> None:
    """Torchvision's own as the second implementation, on frames 100 pixels high (1,000 there, for its rounding)."""
    augmentation = replace(NEUTRAL, crop_area=(0.8, 1.0), crop_aspect=(0.9, 1.1), crop_aspect_relative=False)
    torch.manual_seed(4)
    generator, frame = seeded(5), torch.empty(3, 1000, 10 * width)
    theirs, ours = [], []
    for _ in range(2000):
        top, left, height, across = RandomResizedCrop.get_params(frame, (0.8, 1.0), (0.9, 1.1))
        theirs.append((left / (10 * width), top / 1000, across / (10 * width), height / 1000))
        x0, y0, x1, y1 = random_box(augmentation, generator, width / 100)
        ours.append((x0, y0, x1 - x0, y1 - y0))
    for one, other in zip(np.array(theirs).T, np.array(ours).T, strict=True):
        assert one.mean() == pytest.approx(other.mean(), abs=0.006)
        assert one.std() == pytest.approx(other.std(), abs=0.006)
    in_the_middle = np.mean([abs(x + w / 2 - 0.5) + abs(y + h / 2 - 0.5) < 1e-3 for x, y, w, h in ours])
    assert in_the_middle == pytest.approx(
        np.mean([abs(x + w / 2 - 0.5) + abs(y + h / 2 - 0.5) < 2e-3 for x, y, w, h in theirs]), abs=0.03
    )
    assert in_the_middle > {150: 0.999, 133: 0.85, 100: -1, 75: 0.8, 56: 0.999}[width]


def test_strength_is_a_factor_on_every_range() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    whole: dict[str, Any] = {"crop_area": (1.0, 1.0), "crop_aspect": (1.0, 1.0)}
    strong = Augmentation(
        **whole, rotation=30.0, translate=0.2, scale=(0.25, 4.0), brightness=0.4, contrast=0.4, saturation=0.8, hue=0.1,
        grayscale=0.5, strength=0.5,
    )  # fmt: skip
    plain = Augmentation(
        **whole, rotation=15.0, translate=0.1, scale=(0.5, 2.0), brightness=0.2, contrast=0.2, saturation=0.4, hue=0.05,
        grayscale=0.25,
    )  # fmt: skip
    for seed in range(8):
        images = [
            training_image(Image.fromarray(pixels), 32, one, np.random.default_rng(seed)) for one in (strong, plain)
        ]
        assert torch.equal(*images)
    assert Augmentation(crop_area=(0.8, 0.9), strength=2.0).drawn.crop_area == pytest.approx((0.6, 0.8))
    assert Augmentation(brightness=0.8, strength=2.0).drawn.brightness == 1.0
    assert resized_side(384, Augmentation(strength=3.0)) == resized_side(384, Augmentation()), "they share the cache"
    for strength in (-0.1, 5.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="strength must be"):
            Augmentation(strength=strength)
