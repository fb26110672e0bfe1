"""The same photograph is found again, another one is not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bldml.dataset.duplicates.alignment import COMPARED, SIDE, crop
from bldml.dataset.duplicates.phash import (
    NEAR_SIMILARITY,
    NO_PHASH,
    PHASH_BYTES,
    PHashes,
    find_near_duplicates,
    find_near_duplicates_between,
    perceptual_hash,
)
from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf

Edit = Callable[[Image.Image], Image.Image]


def leaf(number: int, size: int = 192) -> Image.Image:
    return draw_leaf(bool(number % 2), size, np.random.default_rng([7, number]))


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def turned(way: Image.Transpose) -> Edit:
    return lambda image: image.transpose(way)


def cropped(left: float, top: float, right: float, bottom: float) -> Edit:
    def edit(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
        return image.crop(tuple(map(round, box)))  # type: ignore[arg-type]

    return edit


EDITS: dict[str, Edit] = {
    "half": half,
    "quality 60": recompressed,
    **{way.name: turned(way) for way in Image.Transpose},
    "5 % each side": cropped(0.05, 0.05, 0.05, 0.05),
    "5 % in all": cropped(0.025, 0.025, 0.025, 0.025),
    "left": cropped(0.05, 0, 0, 0),
    "bottom": cropped(0, 0, 0, 0.05),
    "corner": cropped(0, 0.05, 0.05, 0),
    "uneven": cropped(0.01, 0.04, 0.03, 0.0),
    "half, quality 60": lambda image: recompressed(half(image)),
    "5 % each side, turned": lambda image: cropped(0.05, 0.05, 0.05, 0.05)(image).transpose(Image.Transpose.ROTATE_90),
    "5 % each side, half": lambda image: half(cropped(0.05, 0.05, 0.05, 0.05)(image)),
    "left, quality 60": lambda image: recompressed(cropped(0.05, 0, 0, 0)(image)),
    "mirrored, quality 60": lambda image: recompressed(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "squashed": lambda image: image.resize((128, 128)),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
}


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    return [leaf(number) for number in range(60)]


@pytest.fixture(scope="module")
def phashes(drawn: list[Image.Image]) -> PHashes:
    return np.stack([perceptual_hash(image) for image in drawn])


def fraction_found(phashes: PHashes, edited: PHashes) -> float:
    """Fraction of pairs (photograph, its edit) that are found; any other pair is a mistake."""
    found = find_near_duplicates(np.concatenate([phashes, edited]))
    assert all(pair.b - pair.a == len(phashes) for pair in found)
    assert all(NEAR_SIMILARITY <= pair.similarity <= 1 for pair in found)
    return len(found) / len(phashes)


@pytest.mark.parametrize("name", EDITS)
def test_edited_leaves_are_found(drawn: list[Image.Image], phashes: PHashes, name: str) -> None:
    edited = np.stack([perceptual_hash(EDITS[name](image)) for image in drawn])
    assert fraction_found(phashes, edited) >= 0.98


def test_no_pair_among_many_drawn_leaves() -> None:
    many = np.stack([perceptual_hash(leaf(number, 96)) for number in range(1000, 1400)])
    assert find_near_duplicates(many) == []


@pytest.mark.slow
def test_coffee_leaves(coffee: Path) -> None:
    images = [load_rgb(path, 96) for path in sorted(coffee.rglob("*.jpg"))]
    phashes = np.stack([perceptual_hash(image) for image in images])
    assert find_near_duplicates(phashes) == []
    images, phashes = images[::4], phashes[::4]
    names = ["half", "quality 60", "ROTATE_90", "FLIP_TOP_BOTTOM", "5 % each side", "left", "5 % each side, turned"]
    for name in names:
        edited = np.stack([perceptual_hash(EDITS[name](image)) for image in images])
        assert fraction_found(phashes, edited) >= 0.98, name


def test_hash_is_small_and_hardly_changed_by_reduced_decoding(tmp_path: Path) -> None:
    leaf(3, 800).save(tmp_path / "leaf.jpg", quality=95)
    whole, reduced = load_rgb(tmp_path / "leaf.jpg"), load_rgb(tmp_path / "leaf.jpg", 64)
    assert reduced.width < whole.width
    one, other = perceptual_hash(whole), perceptual_hash(reduced)
    assert one.shape == (PHASH_BYTES,)
    assert one.dtype == np.uint8
    assert PHASH_BYTES <= 1024
    assert find_near_duplicates(np.stack([one, other]))[0].similarity > 0.99


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (2, 2)])
def test_any_size_has_a_hash(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    assert perceptual_hash(Image.fromarray(noise)).shape == (PHASH_BYTES,)


def test_pictures_of_one_colour_match_nothing() -> None:
    flat = perceptual_hash(Image.new("RGB", (90, 60), "white"))
    assert (flat == NO_PHASH).all()
    assert find_near_duplicates(np.stack([flat, flat, perceptual_hash(leaf(0))])) == []
    assert find_near_duplicates(np.empty((0, PHASH_BYTES), np.uint8)) == []
    assert find_near_duplicates_between(np.stack([flat]), np.stack([flat])) == []


def test_equal_hashes_are_listed_once_each(phashes: PHashes) -> None:
    burst = np.concatenate([np.repeat(phashes[:1], 1000, axis=0), phashes[1:3]])
    found = find_near_duplicates(burst)
    assert [(pair.a, pair.b, pair.similarity) for pair in found] == [(0, i, 1.0) for i in range(1, 1000)]


def test_a_burst_of_similar_pictures_hangs_together_with_few_pairs() -> None:
    image = leaf(1)
    generator = np.random.default_rng(0)
    burst = []
    for _ in range(120):
        left, top, right, bottom = generator.uniform(0, 0.02, 4)
        burst.append(perceptual_hash(cropped(left, top, right, bottom)(image)))
    found = find_near_duplicates(np.stack(burst))
    groups = list(range(120))
    for pair in found:
        low, high = sorted((groups[pair.a], groups[pair.b]))
        groups = [low if group == high else group for group in groups]
    assert set(groups) == {0}
    assert len(found) < 120 * 16


def test_order_does_not_matter(drawn: list[Image.Image], phashes: PHashes) -> None:
    edited = np.stack([perceptual_hash(EDITS["corner"](image)) for image in drawn[:20]])
    both = np.concatenate([phashes, edited])
    order = np.random.default_rng(1).permutation(len(both))
    found = {tuple(sorted((order[pair.a], order[pair.b]))) for pair in find_near_duplicates(both[order])}
    assert found == {(pair.a, pair.b) for pair in find_near_duplicates(both)}


def test_between_two_collections_each_copy_is_found(drawn: list[Image.Image], phashes: PHashes) -> None:
    edits = ("half", "corner", "ROTATE_180")
    new = np.stack([perceptual_hash(EDITS[name](drawn[4])) for name in edits] + [perceptual_hash(leaf(900))])
    for pair in find_near_duplicates_between(phashes, new):
        assert pair.a == 4
        assert pair.b < 3
    assert {pair.b for pair in find_near_duplicates_between(phashes, new)} == {0, 1, 2}
    whole_in_known = find_near_duplicates_between(new, phashes)
    assert {(pair.a, pair.b) for pair in whole_in_known} == {(0, 4), (1, 4), (2, 4)}
    twice = np.concatenate([phashes[:1], phashes[:1]])
    assert {pair.b for pair in find_near_duplicates_between(phashes, twice)} == {0, 1}


def test_a_crop_of_coefficients_is_the_hash_of_the_crop() -> None:
    ramp = np.zeros((1, SIDE, SIDE), np.float32)
    ramp[0, 0, 3] = 1  # three half waves from left to right
    none = crop(ramp, np.array([0, 0, 0, 0]))
    assert np.allclose(none, ramp[:, :COMPARED, :COMPARED], atol=1e-5)
    some = crop(ramp, np.array([0, 0, 8, 8]))[0]
    assert np.abs(some[1:]).max() < 1e-5
    assert COMPARED < SIDE
    # Less of the wave is left: 2.7 half waves, symmetrical as before, so odd cosines only.
    assert np.abs(some[0, ::2]).max() < 1e-5
    assert 0.5 < abs(some[0, 3]) < 1


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_padded_copy_is_found_and_other_padded_leaves_are_not(drawn: list[Image.Image], colour: int) -> None:
    """Only those whose ground differs from the padding; a leaf on white paper in a white frame has no edge to find."""
    images = [image for image in drawn[:40] if image.width != image.height]
    padded = []
    for image in images:
        frame = Image.new("RGB", (max(image.size), max(image.size)), (colour, colour, colour))
        frame.paste(image, ((frame.width - image.width) // 2, (frame.height - image.height) // 2))
        padded.append(perceptual_hash(recompressed(frame)))
    plain = np.stack([perceptual_hash(image) for image in images])
    assert fraction_found(plain, np.stack(padded)) >= 0.9
