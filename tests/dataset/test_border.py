"""The border of a photograph: its colours and its texture, and nothing of what is inside."""

import numpy as np
import pytest
from PIL import Image

from bldml.dataset.border import measure_border
from bldml.dataset.contents import BORDER_NUMBERS, MetadataTable
from bldml.dataset.metadata import Metadata


def picture(seed: int, side: int = 512) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_what_is_inside_does_not_count() -> None:
    one = picture(0)
    other = one.copy()
    other.paste(picture(1, 440), (36, 36))
    assert measure_border(other) == measure_border(one)
    other.paste(picture(1, 440), (20, 36))
    assert measure_border(other) != measure_border(one)


def test_colours_against_a_plain_loop() -> None:
    pixels = np.asarray(picture(2).resize((64, 64), Image.Resampling.BOX), dtype=float)
    outer = [pixels[y, x] for y in range(64) for x in range(64) if min(x, y, 63 - x, 63 - y) < 4]
    mean, spread = np.mean(outer, axis=0), np.std(outer, axis=0)
    assert measure_border(picture(2))[:6] == pytest.approx([*mean, *spread], abs=0.006)


@pytest.mark.parametrize("size", [(512, 512), (600, 371), (371, 600), (90, 40)])
def test_the_border_is_that_of_the_whole_resized_photograph(size: tuple[int, int]) -> None:
    """Only the border is computed, to within the grey level by which Pillow rounds differently."""
    photograph = picture(6).resize(size, Image.Resampling.BICUBIC)
    grey = np.asarray(photograph.resize((256, 256), Image.Resampling.BOX), dtype=float) @ [0.299, 0.587, 0.114]
    steps = [
        abs(grey[y, x + 1] - grey[y, x]) if x < 255 else 0
        for y in range(256)
        for x in range(256)
        if min(x, y, 255 - x, 255 - y) < 16
    ]
    assert measure_border(photograph)[6] == pytest.approx(np.mean(steps), abs=0.02)


def test_texture_tells_noise_and_sharpening() -> None:
    quiet = picture(3).resize((64, 64), Image.Resampling.BOX).resize((512, 512), Image.Resampling.BICUBIC)
    noisy = Image.blend(quiet, picture(4), 0.5)
    assert measure_border(noisy)[6] > 2 * measure_border(quiet)[6] > 0


def test_it_is_kept_in_the_table() -> None:
    table = MetadataTable(3)
    measured = measure_border(picture(5))
    assert len(measured) == BORDER_NUMBERS
    table[0], table[1] = Metadata(8, 8, border=measured), Metadata(8, 8)
    assert table[0] == Metadata(8, 8, border=measured)
    assert table[1] == Metadata(8, 8)
    assert table[2] is None
