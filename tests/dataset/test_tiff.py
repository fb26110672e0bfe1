"""TIFF compressed as zlib or JPEG: damage is found, files of all layouts are read as before."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf

COMPRESSIONS = ["tiff_adobe_deflate", "tiff_deflate", "jpeg"]


@pytest.fixture(scope="module")
def leaf() -> Image.Image:
    return draw_leaf(True, 320, np.random.default_rng(4))


def strips(path: Path) -> list[tuple[int, int]]:
    with Image.open(path) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        return list(zip(tags[273], tags[279], strict=True))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("damage", ["zeros", "ones", "random"])
def test_overwritten_strips(compression: str, damage: str, leaf: Image.Image, tmp_path: Path) -> None:
    """libtiff opened some of these with other pixels: of JPEG nearly all, of zlib those near the end of a strip."""
    path = tmp_path / "leaf.tif"
    leaf.save(path, compression=compression)
    whole, noise = path.read_bytes(), np.random.default_rng(0)
    load_rgb(path)
    reasons = []
    for offset, length in strips(path):
        at = offset + length - min(400, length // 2)
        new = {"zeros": bytes(200), "ones": b"\xff" * 200, "random": noise.bytes(200)}[damage]
        path.write_bytes(whole[:at] + new + whole[at + 200 :])
        with pytest.raises(UnreadableImage) as error:
            load_rgb(path)
        reasons.append(error.value.reason)
    assert all("damaged" in reason for reason in reasons)


def test_wrong_checksum(leaf: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "leaf.tif"
    leaf.save(path, compression="tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    offset, length = strips(path)[0]
    data[offset + length - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="wrong checksum"):
        load_rgb(path)


def test_a_strip_without_a_checksum(leaf: Image.Image, tmp_path: Path) -> None:
    """There is nothing to compare then, and the pixels are all there."""
    path, small = tmp_path / "leaf.tif", leaf.resize((80, 60))
    small.save(path, compression="tiff_adobe_deflate")
    data = path.read_bytes()
    ((_, length),) = strips(path)
    entry, shorter = (struct.pack("<HHII", 279, 4, 1, size) for size in (length, length - 4))
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, shorter))
    assert strips(path)[0][1] == length - 4
    assert load_rgb(path).tobytes() == small.tobytes()


@pytest.mark.parametrize("compression", [*COMPRESSIONS, "tiff_lzw", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA"])
def test_whole_files(compression: str, mode: str, leaf: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "leaf.tif"
    leaf.convert(mode).save(path, compression=compression)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"), int)
    assert np.abs(np.asarray(load_rgb(path), int) - expected).max() <= 1
