"""Turned, cropped and captioned photographs are proposed as look-alikes; different leaves on one background are not."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from threadpoolctl import threadpool_info, threadpool_limits

from bldml.dataset.duplicates.keypoints import MOST_KEYPOINTS, Keypoints, describe_keypoints, lay_over
from bldml.dataset.duplicates.lookalikes import LookAlike, find_lookalikes, is_alike
from bldml.dataset.synthetic.drawing import draw_leaf

Edit = Callable[[Image.Image], Image.Image]
LEAVES = 24


def leaf(number: int, size: int = 288) -> Image.Image:
    return draw_leaf(bool(number % 2), size, np.random.default_rng([11, number]))


@cache
def described() -> tuple[Keypoints, ...]:
    return tuple(describe_keypoints(leaf(number)) for number in range(LEAVES))


def cropped(left: float, top: float, right: float, bottom: float) -> Edit:
    def edit(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))

    return edit


def turned(degrees: float) -> Edit:
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)


def captioned(image: Image.Image) -> Image.Image:
    width, height = image.size
    image = image.copy()
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, round(0.88 * height), width, height), fill="white")
    draw.text((5, 0.9 * height), "Plot 7, leaf 123, 2024-06-01", fill="black")
    return image


def from_another_angle(image: Image.Image) -> Image.Image:
    width, height = image.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + np.array([(0.07, 0.02), (-0.04, 0.06), (0.05, -0.05), (-0.03, 0.04)], np.float32) * width
    plane = cv2.getPerspectiveTransform(corners, moved)
    pixels = cv2.warpPerspective(np.asarray(image), plane, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(0.8)


EDITS: dict[str, Edit] = {
    **{f"turned {degrees}": turned(degrees) for degrees in (10, -25, 45)},
    "80 % of the sides": cropped(0.15, 0.05, 0.95, 0.85),
    "half of the sides": cropped(0.25, 0.2, 0.75, 0.7),
    "caption": captioned,
    "other angle": from_another_angle,
    "frame": lambda image: turned(2)(image).reduce(2).filter(ImageFilter.GaussianBlur(0.7)),
    "mirrored": lambda image: ImageEnhance.Color(cropped(0, 0.1, 0.9, 1)(image)).enhance(0.7).transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_nearly_all_altered_copies_are_found_and_no_other_pair(name: str) -> None:
    copies = [describe_keypoints(EDITS[name](leaf(number))) for number in range(0, LEAVES, 3)]
    found = find_lookalikes([*described(), *copies], range(LEAVES, LEAVES + len(copies)))
    wanted = {(number * 3, LEAVES + number) for number in range(len(copies))}
    assert {(pair.a, pair.b) for pair in found} <= wanted
    assert len(found) >= len(wanted) - 1
    assert {pair.mirrored for pair in found} == {name == "mirrored"}
    assert all(0 < pair.strength <= 1 and pair.points >= 8 for pair in found)


def test_overlapping_tiles_of_one_photograph_are_found_without_it() -> None:
    tiles = [
        describe_keypoints(cropped(*box)(leaf(number)))
        for number in range(100, 110)
        for box in ((0, 0, 0.6, 0.8), (0.3, 0.1, 0.9, 0.9))
    ]
    found = [(pair.a, pair.b) for pair in find_lookalikes([*described(), *tiles])]
    wanted = {(LEAVES + 2 * number, LEAVES + 2 * number + 1) for number in range(10)}
    assert set(found) <= wanted
    assert len(found) >= 9


def on_background(number: int, background: np.ndarray) -> Image.Image:
    """Lay a drawn leaf, without what is around it, on a background at some position."""
    generator = np.random.default_rng([12, number])
    image = np.asarray(leaf(number, 200).resize((200, 200)))
    ellipse = np.zeros((200, 200), np.float32)
    cv2.ellipse(ellipse, (100, 100), (95, 60), float(generator.uniform(0, 180)), 0, 360, 1.0, -1)
    x, y = generator.integers(30, background.shape[1] - 230), generator.integers(10, background.shape[0] - 260)
    scene = background.astype(np.float32)
    part = scene[y : y + 200, x : x + 200]
    part += ellipse[..., None] * (image - part)
    return Image.fromarray(np.uint8(np.clip(scene + generator.normal(0, 3, scene.shape), 0, 255)))


@cache
def ruler_on_grid() -> np.ndarray:
    paper = np.full((480, 640, 3), 230, np.uint8)
    paper[::20], paper[:, ::20] = 150, 150
    paper[-50:] = 250
    for x in range(0, 640, 6):
        cv2.line(paper, (x, 430), (x, 455 if x % 60 == 0 else 442), (0, 0, 0), 1)
    for x in range(0, 640, 60):
        cv2.putText(paper, str(x // 60), (x + 3, 474), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return paper


@cache
def table_top() -> np.ndarray:
    generator = np.random.default_rng(13)
    grain = cv2.GaussianBlur(generator.normal(0, 300, (480, 640)).astype(np.float32), (0, 0), sigmaX=20, sigmaY=2)
    specks = cv2.GaussianBlur(generator.normal(0, 60, (480, 640)).astype(np.float32), (0, 0), 1.5)
    wood = 150 + (grain + specks)[..., None] * np.array((1, 0.9, 0.7))
    return np.asarray(np.clip(wood, 0, 255), np.uint8)


@cache
def on_one(background: Callable[[], np.ndarray]) -> tuple[Keypoints, ...]:
    return tuple(describe_keypoints(on_background(number, background())) for number in range(LEAVES))


@pytest.mark.parametrize("background", [ruler_on_grid, table_top])
def test_leaves_on_one_background_are_not_look_alikes(background: Callable[[], np.ndarray]) -> None:
    assert find_lookalikes(on_one(background)) == []


def test_a_relative_on_the_common_background_is_found() -> None:
    again = describe_keypoints(turned(10)(on_background(0, table_top())))
    assert [(pair.a, pair.b) for pair in find_lookalikes([*on_one(table_top), again])] == [(0, LEAVES)]


def test_what_decides_is_that_the_leaves_on_one_background_differ() -> None:
    first, *others = on_one(table_top)
    for other in others[:4]:
        laid = lay_over(first, other)
        assert laid is not None
        assert laid.inliers >= 20
        assert laid.proportion > 0.3
        assert laid.weakest < 0.5


def test_mirroring_a_description_is_mirroring_the_photograph() -> None:
    image = leaf(3)
    laid = lay_over(
        describe_keypoints(image).mirrored(), describe_keypoints(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    assert laid is not None
    assert laid.proportion > 0.6
    assert is_alike(laid)
    not_mirrored = lay_over(
        describe_keypoints(image), describe_keypoints(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    assert not_mirrored is None or not is_alike(not_mirrored)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (300, 200)])
def test_a_blank_photograph_looks_like_nothing(size: tuple[int, int]) -> None:
    blank = describe_keypoints(Image.new("RGB", size, "white"))
    assert blank.descriptors.shape == (0, 128)
    assert lay_over(blank, described()[0]) is None
    assert find_lookalikes([blank, blank]) == []
    assert find_lookalikes([blank, *described(), blank]) == []
    assert find_lookalikes([]) == []


def test_a_description_is_small_and_comes_back_from_its_bytes() -> None:
    for one in (*described()[:3], describe_keypoints(Image.new("RGB", (30, 20)))):
        assert len(one.descriptors) <= MOST_KEYPOINTS
        stored = one.to_bytes()
        assert len(stored) <= 30_000
        back = Keypoints.from_bytes(stored)
        assert np.array_equal(back.descriptors, one.descriptors)
        assert np.array_equal(back.frames, one.frames)
        assert np.array_equal(back.grey, one.grey)


def test_the_same_photographs_give_the_same_pairs() -> None:
    copies = [describe_keypoints(turned(20)(leaf(number))) for number in range(4)]
    first, again = (find_lookalikes([*described(), *copies]) for _ in range(2))
    assert first == again
    assert all(isinstance(pair, LookAlike) and pair.a < pair.b for pair in first)


def test_the_search_uses_one_thread() -> None:
    """Those of OpenCV's BLAS wait for each other: beside other work, the search took four times as long."""
    threads: set[int] = set()

    def look() -> None:
        threads.update(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")

    find_lookalikes(described()[:6])  # loads what it needs
    with threadpool_limits(2, user_api="blas"):
        find_lookalikes(described()[:6], progress=look)
        assert threads == {1}
        assert {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"} == {2}
