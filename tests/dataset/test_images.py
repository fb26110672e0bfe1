"""`load_rgb` on real files of every kind that phones, cameras and scanners leave behind."""

import contextlib
import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile, features

from bldml.dataset import images
from bldml.dataset.images import (
    HEIF_SUFFIXES,
    PHOTO_SUFFIXES,
    PIXEL_LIMIT,
    PIXEL_LIMITS,
    UnreadableImage,
    heif_available,
    load_rgb,
)

Pixels = npt.NDArray[np.uint8]
LOSSY = 3.0
"""Largest mean difference, in grey levels, that JPEG, WebP and HEIC may make on `plain`."""

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
needs_heif = pytest.mark.skipif(not heif_available(), reason="pillow-heif (extra heif) is not installed")


@pytest.fixture
def plain() -> Image.Image:
    """A smooth picture of 48 x 32 pixels in which no two corners are alike."""
    rows, columns = np.mgrid[0:32, 0:48]
    red, green, blue = 40 + 4 * columns, 30 + 6 * rows, 200 - 2 * columns - 2 * rows
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


@pytest.fixture
def photograph(tmp_path: Path, plain: Image.Image) -> Path:
    """`plain` as a JPEG."""
    plain.save(tmp_path / "leaf.jpg", quality=95)
    return tmp_path / "leaf.jpg"


def difference(image: Image.Image, expected: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures in grey levels; infinite for another mode or size."""
    if (image.mode, image.size) != ("RGB", expected.size):
        return float("inf")
    return float(np.abs(np.asarray(image, dtype=float) - np.asarray(expected, dtype=float)).mean())


def refusal(path: Path) -> str:
    """The reason why a file is refused."""
    with pytest.raises(UnreadableImage) as caught:
        load_rgb(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


def write_png(path: Path, pixels: npt.NDArray[np.generic], colour_type: int, **chunks: bytes) -> None:
    """Write what PIL cannot: any bit depth, and chunks before (`tRNS`) or behind (`eXIf`) the pixels."""
    depth = 8 * pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(pixels.shape[0], -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(b"tRNS", chunks["tRNS"])] if "tRNS" in chunks else []
    parts += [chunk(b"IDAT", zlib.compress(raw))]
    parts += [chunk(b"eXIf", chunks["eXIf"])] if "eXIf" in chunks else []
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))


# --- formats and modes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("leaf.jpg", {"quality": 95}, LOSSY),
        ("leaf.JPEG", {"quality": 95, "progressive": True}, LOSSY),
        ("leaf.mpo", {"quality": 95}, LOSSY),
        ("leaf.png", {}, 0),
        ("leaf.webp", {"lossless": True}, 0),
        ("leaf.webp", {"quality": 95}, LOSSY),
        ("leaf.bmp", {}, 0),
        ("leaf.tif", {}, 0),
        ("leaf.tiff", {"compression": "tiff_lzw"}, 0),
        ("leaf.tif", {"compression": "tiff_adobe_deflate"}, 0),
        ("leaf.tif", {"compression": "jpeg", "quality": 95}, LOSSY),
        ("leaf.tif", {"big_tiff": True}, 0),
        pytest.param("leaf.avif", {"quality": 95}, LOSSY, marks=needs_avif),
    ],
)
def test_every_format_gives_the_same_picture(
    tmp_path: Path, plain: Image.Image, name: str, options: dict[str, Any], tolerance: float
) -> None:
    path = tmp_path / name
    plain.save(path, **options)
    assert path.suffix.lower() in PHOTO_SUFFIXES
    assert difference(load_rgb(path), plain) <= tolerance


def test_mpo_gives_its_first_frame(tmp_path: Path, plain: Image.Image) -> None:
    path = tmp_path / "leaf.jpg"
    second = Image.new("RGB", (16, 16), "red")
    plain.save(path, "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert difference(load_rgb(path), plain) <= LOSSY


@pytest.mark.parametrize("name", ["leaf.png", "leaf.webp", "leaf.tif"])
def test_animations_and_pages_give_their_first_frame(tmp_path: Path, plain: Image.Image, name: str) -> None:
    path = tmp_path / name
    options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
    plain.save(path, save_all=True, append_images=[Image.new("RGB", plain.size, "red")], **options)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert difference(load_rgb(path), plain) == 0


def test_content_decides_not_the_suffix(tmp_path: Path, plain: Image.Image) -> None:
    plain.save(tmp_path / "leaf.jpg", "PNG")
    assert difference(load_rgb(tmp_path / "leaf.jpg"), plain) == 0


@pytest.mark.parametrize("name", ["leaf.jpg", "leaf.tif"])
def test_cmyk_without_a_profile(tmp_path: Path, plain: Image.Image, name: str) -> None:
    options: dict[str, Any] = {"quality": 95} if name.endswith("jpg") else {}
    plain.convert("CMYK").save(tmp_path / name, **options)
    assert difference(load_rgb(tmp_path / name), plain) <= LOSSY


def test_grey_of_16_bits_keeps_its_brightness(tmp_path: Path, plain: Image.Image) -> None:
    grey = np.asarray(plain.convert("L"))
    wide = grey.astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "leaf.png")
    Image.fromarray(wide).save(tmp_path / "leaf.tif")
    Image.fromarray(wide.astype(">u2")).save(tmp_path / "big_endian.tif")
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "wide.tif")
    for name, mode in [
        ("leaf.png", "I;16"),
        ("leaf.tif", "I;16"),
        ("big_endian.tif", "I;16B"),
        ("wide.tif", "I"),
    ]:
        with Image.open(tmp_path / name) as image:
            assert image.mode == mode
        assert difference(load_rgb(tmp_path / name), plain.convert("L").convert("RGB")) == 0, name


def test_grey_of_16_bits_ends_at_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 128, 129, 65535]], dtype=np.uint16)).save(tmp_path / "leaf.png")
    assert np.asarray(load_rgb(tmp_path / "leaf.png"))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_rgb_of_16_bits(tmp_path: Path, plain: Image.Image) -> None:
    write_png(tmp_path / "leaf.png", np.asarray(plain).astype(np.uint16) * 257, colour_type=2)
    assert difference(load_rgb(tmp_path / "leaf.png"), plain) == 0


@pytest.mark.parametrize("value", [-1, 65536])
def test_true_32_bit_values_are_refused(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(tmp_path / "leaf.tif")
    assert str(value) in refusal(tmp_path / "leaf.tif")


def test_float_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)).save(tmp_path / "leaf.tif")
    assert "floating-point" in refusal(tmp_path / "leaf.tif")


def test_grey_and_1_bit(tmp_path: Path, plain: Image.Image) -> None:
    for mode in ("L", "1"):
        expected = plain.convert(mode)
        expected.save(tmp_path / "leaf.png")
        assert difference(load_rgb(tmp_path / "leaf.png"), expected.convert("RGB")) == 0
    plain.convert("L").save(tmp_path / "leaf.jpg", quality=95)
    assert difference(load_rgb(tmp_path / "leaf.jpg"), plain.convert("L").convert("RGB")) <= LOSSY


def test_palette(tmp_path: Path, plain: Image.Image) -> None:
    expected = plain.quantize(64)
    expected.save(tmp_path / "leaf.png")
    assert difference(load_rgb(tmp_path / "leaf.png"), expected.convert("RGB")) == 0


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_tiff_in_other_colour_spaces(tmp_path: Path, plain: Image.Image, mode: str) -> None:
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(plain, srgb, lab, outputMode="LAB")
        assert image is not None
    else:
        image = plain.convert(mode)
    image.save(tmp_path / "leaf.tif")
    with Image.open(tmp_path / "leaf.tif") as written:
        assert written.mode in (mode, "RGB")  # PIL before 13 lets libtiff convert YCbCr
    assert difference(load_rgb(tmp_path / "leaf.tif"), plain) <= LOSSY


# --- transparency ---------------------------------------------------------------------------------


def on_white(image: Image.Image, alpha: Pixels) -> Image.Image:
    """What a picture with this opacity looks like on white paper: the formula, without PIL."""
    opacity = alpha[:, :, None] / 255
    return Image.fromarray(np.rint(np.asarray(image) * opacity + 255 * (1 - opacity)).astype(np.uint8))


@pytest.mark.parametrize("name", ["leaf.png", "leaf.webp", "leaf.tif"])
def test_alpha_is_laid_on_white(tmp_path: Path, plain: Image.Image, name: str) -> None:
    alpha = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    image = plain.copy()
    image.putalpha(Image.fromarray(alpha))
    options: dict[str, Any] = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    image.save(tmp_path / name, **options)
    loaded = np.asarray(load_rgb(tmp_path / name), dtype=int)
    assert np.abs(loaded - np.asarray(on_white(plain, alpha), dtype=int)).max() <= 1


def test_grey_with_alpha_is_laid_on_white(tmp_path: Path, plain: Image.Image) -> None:
    alpha = np.full((32, 48), 102, dtype=np.uint8)
    grey = plain.convert("L")
    Image.merge("LA", (grey, Image.fromarray(alpha))).save(tmp_path / "leaf.png")
    loaded = np.asarray(load_rgb(tmp_path / "leaf.png"), dtype=int)
    assert np.abs(loaded - np.asarray(on_white(grey.convert("RGB"), alpha), dtype=int)).max() <= 1


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "one.png", transparency=1)
    assert np.asarray(load_rgb(tmp_path / "one.png")).tolist() == [[[200, 0, 0], [255] * 3, [0, 0, 200]]]
    image.save(tmp_path / "each.png", transparency=bytes([255, 0, 51]))
    assert np.asarray(load_rgb(tmp_path / "each.png")).tolist() == [[[200, 0, 0], [255] * 3, [204, 204, 244]]]


def test_transparent_colour_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8)).save(
        tmp_path / "rgb.png", transparency=(1, 2, 3)
    )
    assert np.asarray(load_rgb(tmp_path / "rgb.png")).tolist() == [[[255] * 3, [9] * 3]]
    Image.fromarray(np.array([[7, 9]], dtype=np.uint8)).save(tmp_path / "grey.png", transparency=7)
    assert np.asarray(load_rgb(tmp_path / "grey.png")).tolist() == [[[255] * 3, [9] * 3]]
    wide = np.array([[7 * 257, 9 * 257]], dtype=np.uint16)
    write_png(tmp_path / "wide.png", wide, colour_type=0, tRNS=struct.pack(">H", 7 * 257))
    assert np.asarray(load_rgb(tmp_path / "wide.png")).tolist() == [[[255] * 3, [9] * 3]]


# --- orientation ----------------------------------------------------------------------------------

# From the upright picture to what the camera stores: the EXIF standard's "row 0 is ..., column 0 is ...".
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}


def orientation_tag(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("leaf.jpg", {"quality": 95}),
        ("leaf.png", {}),
        ("leaf.webp", {"lossless": True}),
        ("leaf.tif", {}),
        ("leaf.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_orientation(tmp_path: Path, plain: Image.Image, name: str, options: dict[str, Any], value: int) -> None:
    path = tmp_path / name
    stored = Image.fromarray(np.ascontiguousarray(STORED[value](np.asarray(plain))))
    stored.save(path, exif=orientation_tag(value), **options)
    assert difference(load_rgb(path), plain) <= (LOSSY if name.endswith("jpg") else 0)


def test_orientation_of_the_first_mpo_frame(tmp_path: Path, plain: Image.Image) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](np.asarray(plain))))
    path = tmp_path / "leaf.mpo"
    stored.save(path, save_all=True, append_images=[plain], exif=orientation_tag(6).tobytes(), quality=95)
    assert difference(load_rgb(path), plain) <= LOSSY


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path, plain: Image.Image) -> None:
    stored = np.ascontiguousarray(STORED[6](np.asarray(plain)))
    exif = orientation_tag(6).tobytes().removeprefix(b"Exif\0\0")
    write_png(tmp_path / "leaf.png", stored, colour_type=2, eXIf=exif)
    assert difference(load_rgb(tmp_path / "leaf.png"), plain) == 0


@pytest.mark.parametrize("value", [0, 9, 255])
@pytest.mark.parametrize("name", ["leaf.jpg", "leaf.tif", "leaf.png"])
def test_illegal_orientation_is_none(tmp_path: Path, plain: Image.Image, name: str, value: int) -> None:
    plain.save(tmp_path / name, exif=orientation_tag(value), quality=95)
    assert difference(load_rgb(tmp_path / name), plain) <= LOSSY


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"no TIFF at all",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\x05\0\x12\x01",  # five entries promised, half a one there
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0\0\0\0\0",  # a text where a number belongs
    ],
)
@pytest.mark.parametrize("name", ["leaf.jpg", "leaf.png", "leaf.webp"])
def test_damaged_exif_is_none_and_silent(tmp_path: Path, plain: Image.Image, name: str, exif: bytes) -> None:
    plain.save(tmp_path / name, exif=b"Exif\0\0" + exif, quality=95)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert difference(load_rgb(tmp_path / name), plain) <= LOSSY
    assert caught == []


# --- colour profiles ------------------------------------------------------------------------------


def icc_profile(space: bytes, tags: dict[bytes, bytes], device: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """A minimal ICC profile of version 2 (ICC.1:2001-04, sections 6.1 to 6.3)."""
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": description, b"wtpt": xyz(0.9642, 1.0, 0.8249), b"cprt": b"text\0\0\0\0-\0", **tags}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, device, space, pcs)
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", *(round(65536 * value) for value in (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * value))


def srgb_curve() -> bytes:
    signal = np.linspace(0, 1, 1024)
    light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    table: bytes = np.rint(65535 * light).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + table


def matrix_profile(red: bytes, green: bytes, blue: bytes, curve: bytes) -> bytes:
    curves = {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return icc_profile(b"RGB ", {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue, **curves})


ADOBE_RGB = matrix_profile(
    xyz(0.60974, 0.31111, 0.01947), xyz(0.20528, 0.62567, 0.06087), xyz(0.14919, 0.06322, 0.74457), gamma(2.2)
)
DISPLAY_P3 = matrix_profile(
    xyz(0.51512, 0.24120, -0.00105),
    xyz(0.29198, 0.69225, 0.04189),
    xyz(0.15710, 0.06657, 0.78407),
    srgb_curve(),
)
SRGB_BY_ANOTHER_NAME = matrix_profile(
    xyz(0.43607, 0.22249, 0.01392),
    xyz(0.38515, 0.71687, 0.09708),
    xyz(0.14307, 0.06061, 0.71410),
    srgb_curve(),
)
LINEAR_GREY = icc_profile(b"GRAY", {b"kTRC": gamma(1.0)})


def ink_profile() -> bytes:
    """A CMYK profile in which full cyan is the neutral grey L* = 50 (sRGB 119), and black ink is black."""
    # The 16 corners of the ink cube; cyan varies slowest, black fastest.
    lightness = [0 if corner & 1 else 50 if corner & 8 else 100 for corner in range(16)]
    grid = b"".join(bytes([round(255 * value / 100), 128, 128]) for value in lightness)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    return icc_profile(b"CMYK", {b"A2B0": table}, device=b"prtr", pcs=b"Lab ")


@pytest.mark.parametrize(
    ("profile", "stored", "expected"),
    [  # the sRGB primaries, and a neutral, as published conversions give them in each space
        (DISPLAY_P3, (234, 51, 35), (255, 0, 0)),
        (DISPLAY_P3, (117, 251, 76), (0, 255, 0)),
        (DISPLAY_P3, (128, 128, 128), (128, 128, 128)),
        (ADOBE_RGB, (219, 0, 0), (255, 0, 0)),
        (ADOBE_RGB, (144, 255, 60), (0, 255, 0)),
        (ADOBE_RGB, (127, 127, 127), (128, 128, 128)),
    ],
)
@pytest.mark.parametrize("name", ["leaf.png", "leaf.jpg", "leaf.tif", "leaf.webp"])
def test_embedded_profile_leads_to_srgb(
    tmp_path: Path, name: str, profile: bytes, stored: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {"quality": 100}
    Image.new("RGB", (16, 16), stored).save(tmp_path / name, icc_profile=profile, **options)
    loaded = load_rgb(tmp_path / name)
    assert np.abs(np.asarray(loaded, dtype=int) - np.array(expected)).max() <= 4
    assert "icc_profile" not in loaded.info


@pytest.mark.parametrize(
    "profile", [SRGB_BY_ANOTHER_NAME, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_srgb_under_any_name_changes_no_pixel(tmp_path: Path, profile: bytes) -> None:
    every_level = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(every_level).save(tmp_path / "leaf.png", icc_profile=profile)
    assert np.array_equal(np.asarray(load_rgb(tmp_path / "leaf.png")), every_level)


def test_profile_and_transparency(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (219, 0, 0, 102))
    image.save(tmp_path / "leaf.png", icc_profile=ADOBE_RGB)
    assert np.abs(np.asarray(load_rgb(tmp_path / "leaf.png"), dtype=int) - (255, 153, 153)).max() <= 2


def test_profile_of_a_palette(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (219, 0, 0)).quantize(2).save(tmp_path / "leaf.png", icc_profile=ADOBE_RGB)
    assert np.abs(np.asarray(load_rgb(tmp_path / "leaf.png"), dtype=int) - (255, 0, 0)).max() <= 2


def test_profile_of_grey(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 55).save(tmp_path / "leaf.png", icc_profile=LINEAR_GREY)
    assert np.abs(np.asarray(load_rgb(tmp_path / "leaf.png"), dtype=int) - 128).max() <= 1
    Image.new("LA", (4, 4), (55, 0)).save(tmp_path / "alpha.png", icc_profile=LINEAR_GREY)
    assert np.asarray(load_rgb(tmp_path / "alpha.png")).min() == 255
    Image.fromarray(np.full((4, 4), 55 * 257, np.uint16)).save(tmp_path / "wide.png", icc_profile=LINEAR_GREY)
    assert np.abs(np.asarray(load_rgb(tmp_path / "wide.png"), dtype=int) - 128).max() <= 1


@pytest.mark.parametrize("name", ["leaf.jpg", "leaf.tif"])
def test_profile_of_cmyk(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"quality": 100} if name.endswith("jpg") else {}
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / name, icc_profile=ink_profile(), **options)
    assert np.abs(np.asarray(load_rgb(tmp_path / name), dtype=int) - 119).max() <= 3


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", ADOBE_RGB[:200], bytes(2000), LINEAR_GREY, ink_profile()],
    ids=["empty", "text", "cut", "zeros", "grey", "cmyk"],
)
def test_broken_or_mismatching_profile_is_ignored(tmp_path: Path, plain: Image.Image, profile: bytes) -> None:
    plain.save(tmp_path / "leaf.png", icc_profile=profile)
    assert difference(load_rgb(tmp_path / "leaf.png"), plain) == 0


def test_colour_profile_on_grey_is_ignored(tmp_path: Path, plain: Image.Image) -> None:
    plain.convert("L").save(tmp_path / "leaf.png", icc_profile=ADOBE_RGB)
    assert difference(load_rgb(tmp_path / "leaf.png"), plain.convert("L").convert("RGB")) == 0


# --- reduced-scale decoding -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("format_name", ["JPEG", "MPO"])
@pytest.mark.parametrize("target_size", [1, 24, 50, 75, 100, 149, 150, 151, 400])
def test_reduced_jpeg_is_large_enough_and_alike(
    tmp_path: Path, plain: Image.Image, format_name: str, mode: str, target_size: int
) -> None:
    source = plain.resize((901, 601), Image.Resampling.BICUBIC).convert(mode)
    source.save(tmp_path / "leaf.jpg", format_name, quality=95)
    reduced = load_rgb(tmp_path / "leaf.jpg", target_size)
    assert min(reduced.size) >= min(2 * target_size, 601)
    assert min(reduced.size) < max(4 * target_size, 601 // 8 + 2)
    assert difference(reduced, source.convert("RGB").resize(reduced.size, Image.Resampling.BOX)) <= LOSSY


def test_reduced_jpeg_is_upright(tmp_path: Path, plain: Image.Image) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](np.asarray(plain.resize((960, 640))))))
    stored.save(tmp_path / "leaf.jpg", exif=orientation_tag(6), quality=95)
    reduced = load_rgb(tmp_path / "leaf.jpg", 100)
    assert reduced.size == (480, 320)
    assert difference(reduced, plain.resize((480, 320))) <= LOSSY


def test_other_formats_ignore_the_target_size(tmp_path: Path, plain: Image.Image) -> None:
    plain.save(tmp_path / "leaf.png")
    assert difference(load_rgb(tmp_path / "leaf.png", 2), plain) == 0


@pytest.mark.parametrize("target_size", [0, -5])
def test_target_size_must_be_positive(photograph: Path, target_size: int) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel"):
        load_rgb(photograph, target_size)


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("lenient", [False, True], ids=["pil_strict", "pil_lenient"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("leaf.jpg", {}),
        ("leaf.jpg", {"progressive": True}),
        ("leaf.png", {}),
        ("leaf.bmp", {}),
        ("leaf.webp", {}),
        ("leaf.webp", {"lossless": True}),
        ("leaf.tif", {}),
        ("leaf.tif", {"compression": "tiff_lzw"}),
        pytest.param("leaf.heic", {}, marks=needs_heif),
    ],
)
def test_a_cut_file_is_refused(
    tmp_path: Path,
    plain: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    lenient: bool,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = tmp_path / name
    heif_available()  # registers the writer
    plain.save(path, **options)
    whole = path.read_bytes()
    load_rgb(path)
    cuts = {0, 1, 2, 3, 8, 12, 20, *range(50, len(whole), max(1, len(whole) // 40))}
    for kept in sorted(cuts | {len(whole) - cut for cut in (1, 2, 3, 4, 5, 8, 13, 40)}):
        path.write_bytes(whole[:kept])
        for target_size in (None, 4):
            with pytest.raises(UnreadableImage):
                load_rgb(path, target_size)
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("lenient", [False, True], ids=["pil_strict", "pil_lenient"])
def test_a_file_with_a_lost_tail_is_refused(photograph: Path, monkeypatch: pytest.MonkeyPatch, lenient: bool) -> None:
    """An interrupted copy may have its full length, but zeros from some point on."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    whole = photograph.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 100, len(whole) - 2):
        photograph.write_bytes(whole[:kept].ljust(len(whole) + 5000, b"\0"))
        refusal(photograph)


def test_every_byte_of_a_png_counts(tmp_path: Path, plain: Image.Image) -> None:
    plain.save(tmp_path / "leaf.png", exif=orientation_tag(1))
    whole = (tmp_path / "leaf.png").read_bytes()
    exif = range(
        whole.index(b"eXIf") + 4, whole.index(b"eXIf") + 4 + int.from_bytes(whole[whole.index(b"eXIf") - 4 :][:4]) + 4
    )
    for at in set(range(8, len(whole))) - set(exif):
        (tmp_path / "leaf.png").write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        refusal(tmp_path / "leaf.png")


def test_bytes_behind_the_picture_do_no_harm(tmp_path: Path, plain: Image.Image) -> None:
    for name in ("leaf.jpg", "leaf.png"):
        plain.save(tmp_path / name)
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(100_000))
        assert difference(load_rgb(tmp_path / name), plain) <= LOSSY


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, plain: Image.Image) -> None:
    generator = np.random.default_rng(0)
    for name in ("leaf.jpg", "leaf.png", "leaf.tif", "leaf.webp", "leaf.bmp"):
        plain.save(tmp_path / name, exif=orientation_tag(6))
        whole = np.frombuffer((tmp_path / name).read_bytes(), dtype=np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            where = generator.integers(4, min(len(whole), 400), size=4)
            damaged[where] = generator.integers(0, 256, size=4)
            (tmp_path / name).write_bytes(damaged.tobytes())
            with contextlib.suppress(UnreadableImage):
                load_rgb(tmp_path / name)


def test_no_picture_at_all(tmp_path: Path) -> None:
    path = tmp_path / "leaf.jpg"
    path.write_bytes(b"")
    assert refusal(path) == "the file is empty"
    path.write_text("BLD,2024-07-03,plot 4\n" * 100)
    assert "content" in refusal(path)


@pytest.mark.parametrize("format_name", ["GIF", "PPM", "TGA", "ICO", "EPS", "DDS", "PCX"])
def test_other_formats_are_refused_under_any_name(tmp_path: Path, plain: Image.Image, format_name: str) -> None:
    plain.save(tmp_path / "leaf.jpg", format_name)
    with Image.open(tmp_path / "leaf.jpg") as image:
        assert image.format == format_name
    assert "content" in refusal(tmp_path / "leaf.jpg")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "JPEG XL"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "RAW"),
        (b"II*\0\x10\0\0\0CR\x02\0", "RAW"),
        (b"GIF89a", "GIF"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "video"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "leaf.jpg").write_bytes(start + bytes(200))
    assert name in refusal(tmp_path / "leaf.jpg")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "leaf.jpg") == "the file does not exist"
    assert refusal(tmp_path) == "not a regular file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "leaf.jpg")
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(refusal(tmp_path / "leaf.jpg")), daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert reasons == ["not a regular file"]


def test_links(tmp_path: Path, photograph: Path, plain: Image.Image) -> None:
    (tmp_path / "good.jpg").symlink_to(photograph)
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert difference(load_rgb(tmp_path / "good.jpg"), plain) <= LOSSY
    assert refusal(tmp_path / "broken.jpg") == "the file does not exist"
    assert refusal(tmp_path / "loop.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(photograph: Path) -> None:
    photograph.chmod(0)
    assert refusal(photograph) == "no permission to read the file"


def test_the_error_leaves_a_loader_worker(tmp_path: Path) -> None:
    error = UnreadableImage(tmp_path / "leaf.jpg", "the file is empty")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, str(copy)) == (error.path, error.reason, str(error))


# --- limits ---------------------------------------------------------------------------------------


def test_jpeg_limit(photograph: Path) -> None:
    content = photograph.read_bytes()
    frame = content.index(b"\xff\xc0") + 5

    def claim(width: int, height: int) -> None:
        photograph.write_bytes(content[:frame] + struct.pack(">HH", height, width) + content[frame + 4 :])

    assert PIXEL_LIMITS["JPEG"] == PIXEL_LIMITS["HEIF"] == 25_000 * 10_000
    claim(25_000, 10_000)
    with pytest.raises(UnreadableImage, match="missing"):  # not too large
        load_rgb(photograph, 1)
    claim(25_000, 10_001)
    assert "25000 x 10001 = 250,025,000 pixels; the limit for JPEG is 250,000,000" in refusal(photograph)


def test_limit_of_other_formats(tmp_path: Path, plain: Image.Image) -> None:
    path = tmp_path / "leaf.bmp"
    plain.convert("1").save(path)
    content = path.read_bytes()
    assert PIXEL_LIMIT == 10_000 * 10_000
    path.write_bytes(content[:18] + struct.pack("<ii", 10_000, 10_000) + content[26:])
    assert "truncated" in refusal(path)
    path.write_bytes(content[:18] + struct.pack("<ii", 10_000, 10_001) + content[26:])
    assert "10000 x 10001 = 100,010,000 pixels; the limit for BMP is 100,000,000" in refusal(path)


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [(10, Image.DecompressionBombError), (1000, Image.DecompressionBombWarning)],  # of 1536 pixels
)
@pytest.mark.parametrize("name", ["leaf.jpg", "leaf.png"])
def test_the_limit_of_pil_is_neither_asked_nor_changed(
    tmp_path: Path,
    plain: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    limit: int,
    complaint: type[Exception],
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    plain.save(tmp_path / name, quality=95)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(complaint):
            Image.open(tmp_path / name)
        assert difference(load_rgb(tmp_path / name), plain) <= LOSSY
    assert limit == Image.MAX_IMAGE_PIXELS


# --- good manners ---------------------------------------------------------------------------------


def test_the_picture_is_free_of_its_file(photograph: Path) -> None:
    image = load_rgb(photograph)
    photograph.unlink()
    assert type(image) is Image.Image
    assert image.info == {}
    assert len(image.getexif()) == 0
    image.putpixel((0, 0), (1, 2, 3))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count descriptors")
@pytest.mark.filterwarnings("error")
def test_no_descriptor_stays_open(tmp_path: Path, plain: Image.Image) -> None:
    bad = tmp_path / "bad.jpg"
    names = ["leaf.jpg", "leaf.png", "leaf.tif", "leaf.webp", "leaf.bmp"]
    for name in names:
        plain.save(tmp_path / name)
    bad.write_bytes((tmp_path / "leaf.jpg").read_bytes()[:-200])
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = [load_rgb(tmp_path / name) for name in names for _ in range(5)]
    reasons = [refusal(bad) for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(kept) == 25
    assert len(reasons) == 5


def test_threads_share_neither_pixels_nor_leniency(
    tmp_path: Path, plain: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    plain.resize((480, 320)).save(tmp_path / "good.jpg", quality=95, icc_profile=DISPLAY_P3)
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:-3000])
    expected = load_rgb(tmp_path / "good.jpg")
    outcomes: list[object] = []

    def work() -> None:
        for _ in range(20):
            outcomes.append(difference(load_rgb(tmp_path / "good.jpg"), expected))
            try:
                outcomes.append(load_rgb(tmp_path / "bad.jpg"))
            except UnreadableImage:
                outcomes.append(0.0)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [0.0] * 240
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_strict_until_the_last_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with images._strict_decoding:
        with images._strict_decoding:
            assert not ImageFile.LOAD_TRUNCATED_IMAGES
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert ImageFile.LOAD_TRUNCATED_IMAGES


# --- HEIC -----------------------------------------------------------------------------------------


@needs_heif
@pytest.mark.parametrize("value", range(1, 9))
def test_heic_is_turned_once(tmp_path: Path, plain: Image.Image, value: int) -> None:
    image = plain.resize((192, 128))
    stored = Image.fromarray(np.ascontiguousarray(STORED[value](np.asarray(image))))
    path = tmp_path / "leaf.heic"
    stored.save(path, quality=95, exif=orientation_tag(value).tobytes())
    assert path.suffix in HEIF_SUFFIXES
    assert difference(load_rgb(path), image) <= LOSSY


@needs_avif
@pytest.mark.parametrize("value", range(1, 9))
def test_avif_is_turned_once(tmp_path: Path, plain: Image.Image, value: int) -> None:
    image = plain.resize((192, 128))
    stored = Image.fromarray(np.ascontiguousarray(STORED[value](np.asarray(image))))
    stored.save(tmp_path / "leaf.avif", quality=95, exif=orientation_tag(value).tobytes())
    assert difference(load_rgb(tmp_path / "leaf.avif"), image) <= LOSSY


@needs_heif
def test_heic_profile(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (219, 0, 0)).save(tmp_path / "leaf.heic", quality=100, icc_profile=ADOBE_RGB)
    assert np.abs(np.asarray(load_rgb(tmp_path / "leaf.heic"), dtype=int) - (255, 0, 0)).max() <= 6


@pytest.mark.skipif(heif_available(), reason="pillow-heif (extra heif) is installed")
def test_heic_without_the_extra_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "leaf.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "install bldml[heif]" in refusal(tmp_path / "leaf.heic")


def test_reason_is_plain_for_damaged_content(photograph: Path) -> None:
    photograph.write_bytes(photograph.read_bytes()[:300])
    assert "damaged or truncated" in refusal(photograph)
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    photograph.write_bytes(buffer.getvalue()[:-6])
    assert refusal(photograph) == "truncated: the end of the file is missing"
