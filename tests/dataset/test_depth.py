"""Photographs of 9 to 16 bits are as bright as they were, or are refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin

from bldml.dataset.images import UnreadableImage, load_rgb

Values = npt.NDArray[np.integer]
MAX_SAMPLE_VALUE, DNG_VERSION = 281, 50706


@pytest.fixture
def ramp() -> Values:
    """Values of 12 bits, from 0 to 4095."""
    return np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)


def write_png(path: Path, values: Values, significant: int | None) -> Path:
    """Write a PNG of 16 bits, grey or RGB, with the chunk sBIT."""
    channels = 1 if values.ndim == 2 else 3

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0 if channels == 1 else 2, 0, 0, 0)
    rows = values.astype(">u2").reshape(values.shape[0], -1)
    parts = [chunk(b"IHDR", header), chunk(b"gAMA", struct.pack(">I", 45455))]
    parts += [chunk(b"sBIT", bytes([significant] * channels))] if significant else []
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def write_tiff(path: Path, values: Values, highest: int | None) -> Path:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if highest is not None:
        tags[MAX_SAMPLE_VALUE] = highest
    Image.fromarray(values).save(path, tiffinfo=tags)
    return path


def grey(path: Path) -> npt.NDArray[np.int64]:
    return np.asarray(load_rgb(path), dtype=np.int64)[..., 0]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_are_declared(tmp_path: Path, ramp: Values, bits: int) -> None:
    values = (ramp.astype(np.float64) / 4095 * (2**bits - 1)).round().astype(np.uint16)
    expected = np.round(values / (2**bits - 1) * 255)
    for path in (
        write_png(tmp_path / "leaf.png", values, bits),
        write_tiff(tmp_path / "leaf.tif", values, 2**bits - 1),
    ):
        assert np.abs(grey(path) - expected).max() <= 1, path.name


def test_packed_bits_of_a_tiff(tmp_path: Path, ramp: Values) -> None:
    one, two = ramp.ravel()[::2].astype(np.uint32), ramp.ravel()[1::2].astype(np.uint32)
    packed = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], axis=1).astype(np.uint8).tobytes()
    tags = [(256, 64), (257, 64), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 64), (279, len(packed))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    offset = 8 + len(packed)
    (tmp_path / "leaf.tif").write_bytes(struct.pack("<2sHI", b"II", 42, offset) + packed + directory + bytes(4))
    assert np.abs(grey(tmp_path / "leaf.tif") - ramp / 4095 * 255).max() <= 1


def test_what_is_not_declared_stays_as_it_is(tmp_path: Path, ramp: Values) -> None:
    expected = np.round(ramp / 257.0)
    for path in (
        write_png(tmp_path / "plain.png", ramp, None),
        write_png(tmp_path / "sixteen.png", ramp, 16),
        write_tiff(tmp_path / "plain.tif", ramp, None),
        write_tiff(tmp_path / "measured.tif", ramp, 4000),  # the highest value found, not that of a number of bits
    ):
        assert np.abs(grey(path) - expected).max() <= 1, path.name


def test_12_bits_scaled_to_16_as_the_standard_says(tmp_path: Path, ramp: Values) -> None:
    scaled = (ramp << 4) | (ramp >> 8)
    assert np.abs(grey(write_png(tmp_path / "leaf.png", scaled, 12)) - ramp / 4095 * 255).max() <= 1
    dark = scaled // 17 // 16 * 16  # all of it below 4096
    assert np.abs(grey(write_png(tmp_path / "dark.png", dark, 12)) - dark / 257).max() <= 1


def test_colours_of_12_bits_in_16_are_refused(tmp_path: Path, ramp: Values) -> None:
    colours = np.stack([ramp, ramp, ramp], axis=-1)
    with pytest.raises(UnreadableImage, match="12 of 16 bits are used"):
        load_rgb(write_png(tmp_path / "leaf.png", colours, 12))
    assert load_rgb(write_png(tmp_path / "full.png", colours * 16, 12)).size == (64, 64)
    assert load_rgb(write_png(tmp_path / "plain.png", colours, None)).size == (64, 64)  # the audit doubts it


def test_a_raw_file_under_the_name_of_a_tiff(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[DNG_VERSION] = b"\1\4\0\0"
    tags.tagtype[DNG_VERSION] = 1
    Image.new("RGB", (64, 48)).save(tmp_path / "leaf.tif", tiffinfo=tags)
    with pytest.raises(UnreadableImage, match="RAW"):
        load_rgb(tmp_path / "leaf.tif")


def test_libtiff_writes_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "leaf.tif", compression="tiff_lzw")
    data = (tmp_path / "leaf.tif").read_bytes()
    (tmp_path / "leaf.tif").write_bytes(data[:4000] + bytes(1000) + data[5000:])
    with pytest.raises(UnreadableImage):
        load_rgb(tmp_path / "leaf.tif")
    assert capfd.readouterr() == ("", "")
