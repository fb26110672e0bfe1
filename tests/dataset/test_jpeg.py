"""A JPEG is whole or refused, and its pixels are those that PIL decodes."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from bldml.dataset.images import UnreadableImage, load_rgb
from tests.support import REPOSITORY

CASES = REPOSITORY.parent / "shared/cases/jpeg_damage"
ENCODINGS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "optimized": {"optimize": True},
    "progressive": {"progressive": True},
    "restart": {"restart_marker_rows": 1},
    "restart_progressive": {"progressive": True, "restart_marker_rows": 1},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


def picture(width: int = 384, height: int = 256, grey_levels: float = 12) -> Image.Image:
    """Blurred noise with fine grain of so many grey levels: detail everywhere, as on a leaf."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.normal(0, grey_levels, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    image.convert(mode).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    return {name: encoded(picture(), **options) for name, options in ENCODINGS.items()}


def reason(path: Path, data: bytes, target_size: int | None = None) -> str:
    """Why a file is refused; empty if it is not."""
    path.write_bytes(data)
    try:
        load_rgb(path, target_size)
    except UnreadableImage as error:
        return error.reason
    return ""


def start_of(data: bytes) -> int:
    """Offset of the coded data."""
    scan = data.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])


# --- equal pixels ---------------------------------------------------------------------------------


def is_as_by_pil(path: Path, target_size: int | None, data: bytes) -> bool:
    """Whether the pixels of a file are those that PIL decodes from data."""
    with Image.open(io.BytesIO(data)) as image:
        if target_size:
            image.draft("RGB", (2 * target_size, 2 * target_size))
        return np.array_equal(np.asarray(load_rgb(path, target_size)), np.asarray(image.convert("RGB")))


@settings(max_examples=120, deadline=None)
@given(
    size=st.tuples(st.integers(1, 260), st.integers(1, 260)),
    subsampling=st.sampled_from(["444", "422", "420", "440", "411", "Gray"]),
    quality=st.integers(5, 98),
    target_size=st.none() | st.integers(1, 80),
)
def test_pixels_are_those_of_pil(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    subsampling: str,
    quality: int,
    target_size: int | None,
) -> None:
    pixels = np.asarray(picture(*size))
    if subsampling == "Gray":
        grey = np.ascontiguousarray(pixels[..., :1])
        data = simplejpeg.encode_jpeg(grey, quality, "GRAY", "Gray")
    else:
        data = simplejpeg.encode_jpeg(pixels, quality, "RGB", subsampling)
    path = tmp_path_factory.getbasetemp() / "equal.jpg"
    path.write_bytes(data)
    assert is_as_by_pil(path, target_size, data)


@pytest.mark.parametrize("target_size", [None, 20, 60])
@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "CMYK"])
def test_pixels_of_each_encoding(
    tmp_path: Path, whole: dict[str, bytes], encoding: str, target_size: int | None
) -> None:
    (tmp_path / "leaf.jpg").write_bytes(whole[encoding])
    assert is_as_by_pil(tmp_path / "leaf.jpg", target_size, whole[encoding])


def test_pixels_of_coffee_leaves(coffee: Path) -> None:
    for number, path in enumerate(sorted(coffee.rglob("*.jpg"))[::50]):
        target_size = (None, 48, 112)[number % 3]
        assert is_as_by_pil(path, target_size, path.read_bytes()), path.name


# --- damage ---------------------------------------------------------------------------------------

# A flash card is read in clusters, and a broken copy has other bytes, or none, where one was.
DAMAGE: dict[str, Callable[[bytes, int, int], bytes]] = {
    "zeros": lambda data, at, n: data[:at] + bytes(n) + data[at + n :],
    "ones": lambda data, at, n: data[:at] + b"\xff" * n + data[at + n :],
    "missing": lambda data, at, n: data[:at] + data[at + n :],
    "twice": lambda data, at, n: data[: at + n] + data[at:],
    "cut": lambda data, at, n: data[:at],
    "cut_and_end_mark": lambda data, at, n: data[:at] + b"\xff\xd9",
    "zeros_to_the_end": lambda data, at, n: data[:at] + bytes(len(data) - at - 2) + data[-2:],
    "zeros_behind": lambda data, at, n: data[:at] + bytes(len(data) - at),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_damaged_cluster_is_found(tmp_path: Path, whole: dict[str, bytes], encoding: str, damage: str) -> None:
    data = whole[encoding]
    start, length = start_of(data), 512
    for at in np.linspace(start + 20, len(data) - length - 20, 5).astype(int):
        found = reason(tmp_path / "leaf.jpg", DAMAGE[damage](data, int(at), length), 40)
        # A progressive JPEG counts runs of empty blocks, and a run may end behind the picture without a warning.
        assert found or ("progressive" in encoding and damage == "missing"), (at, len(data))
        assert not found or "damaged" in found or "truncated" in found


def test_zeros_that_stand_for_just_as_many_blocks(tmp_path: Path) -> None:
    """Zeros are valid code in the usual tables; where their blocks happen to be as many, libjpeg sees nothing."""
    data, unseen = encoded(picture(grey_levels=6)), 0
    for at in range(start_of(data) + 500, len(data) - 600, 501):
        damaged = DAMAGE["zeros"](data, at, 512)
        try:
            simplejpeg.decode_jpeg(damaged)
            unseen += 1
        except ValueError:
            pass
        assert "zeros" in reason(tmp_path / "leaf.jpg", damaged)
    assert unseen  # or this test shows nothing


def test_even_areas_are_not_damage(tmp_path: Path) -> None:
    """An encoder with its own tables writes an even area as zeros."""
    even = Image.new("RGB", (1200, 900), (90, 120, 40))
    even.paste(picture(), (300, 300))
    for mode, options in (("RGB", {}), ("RGB", {"optimize": True}), ("RGB", {"progressive": True}), ("L", {})):
        assert not reason(tmp_path / "leaf.jpg", encoded(even, mode, **options))
    assert bytes(64) in encoded(Image.new("L", (1200, 900), 128), "L", optimize=True)
    assert not reason(tmp_path / "leaf.jpg", encoded(Image.new("L", (1200, 900), 128), "L", optimize=True))


@pytest.mark.parametrize("encoding", ["progressive", "restart_progressive"])
def test_a_file_that_ends_between_two_scans(tmp_path: Path, whole: dict[str, bytes], encoding: str) -> None:
    data = whole[encoding]
    scans = [at for at in range(len(data)) if data.startswith((b"\xff\xda", b"\xff\xc4"), at)]
    for at in scans[len(scans) // 2 :]:
        assert "scans" in reason(tmp_path / "leaf.jpg", data[:at] + b"\xff\xd9"), at


def test_given_cases(tmp_path: Path) -> None:
    if not CASES.is_dir():
        pytest.skip("the given cases are not on this machine")
    refused = {path.stem: reason(tmp_path / "leaf.jpg", path.read_bytes()) for path in CASES.glob("*.jpg")}
    assert [name for name, why in refused.items() if not why] == ["whole"]


# --- what is not damage ---------------------------------------------------------------------------


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def behind_start(data: bytes, *inserted: bytes) -> bytes:
    return data[:2] + b"".join(inserted) + data[2:]


def before_tables(data: bytes, inserted: bytes) -> bytes:
    at = data.index(b"\xff\xdb")
    return data[:at] + inserted + data[at:]


def without_jfif(data: bytes) -> bytes:
    return data[:2] + data[20:]


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "zeros behind the end": lambda data: data + bytes(5000),
    "a second picture behind the end": lambda data: data + encoded(picture(64, 48)),
    "a broken second picture behind the end": lambda data: data + encoded(picture(64, 48))[:-300],
    "text behind the end": lambda data: data + b"SEFHe\0\0\0Image_UTC_Data",
    "fill bytes between segments": lambda data: before_tables(data, b"\xff\xff\xff\xff"),
    "fill bytes before the end mark": lambda data: data[:-2] + b"\xff" * 500 + data[-2:],
    "zeros before the end mark": lambda data: data[:-2] + bytes(500) + data[-2:],
    "bytes between segments": lambda data: before_tables(data, b"\0\0junk"),
    "a comment": lambda data: behind_start(data, segment(0xFE, b"taken in plot 4")),
    "a thumbnail": lambda data: behind_start(data, segment(0xE1, b"Exif\0\0" + encoded(picture(64, 48)))),
    "a later JFIF": lambda data: data[:11] + b"\x02" + data[12:],
    "an unknown Adobe transform": lambda data: behind_start(
        without_jfif(data), segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 7))
    ),
}


@pytest.mark.parametrize("target_size", [None, 40])
@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("encoding", ["4:2:0", "progressive", "restart"])
def test_harmless(tmp_path: Path, whole: dict[str, bytes], encoding: str, kind: str, target_size: int | None) -> None:
    good, path = whole[encoding], tmp_path / "leaf.jpg"
    data = HARMLESS[kind](good)
    assert data != good
    path.write_bytes(data)
    assert is_as_by_pil(path, target_size, good)
    damaged = data.replace(good[-700:-400], bytes(300))
    assert damaged != data
    assert reason(path, damaged, target_size) or encoding == "progressive"


def test_the_end_mark_of_a_thumbnail_ends_nothing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    data = HARMLESS["a thumbnail"](whole["4:2:0"])
    assert "truncated" in reason(tmp_path / "leaf.jpg", data[:-2])
    assert "truncated" in reason(tmp_path / "leaf.jpg", data[: start_of(whole["4:2:0"]) + 5000])


def test_a_missing_end_is_not_the_next_picture(tmp_path: Path, whole: dict[str, bytes]) -> None:
    cut = whole["4:2:0"][: len(whole["4:2:0"]) // 2]
    assert "damaged" in reason(tmp_path / "leaf.mpo", cut + whole["4:4:4"])


@pytest.mark.parametrize("components", [b"RGB", b"\x00\x01\x02", b"\x01\x22\x11"])
def test_other_names_of_the_channels(tmp_path: Path, components: bytes) -> None:
    """libjpeg takes the colours of a file without JFIF and Adobe from the names of its channels."""
    data = bytearray(without_jfif(encoded(picture(), subsampling=0)))
    for marker, offset, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        at = data.index(marker) + offset
        for number, name in enumerate(components):
            data[at + step * number] = name
    (tmp_path / "leaf.jpg").write_bytes(data)
    for target_size in (None, 40):
        assert is_as_by_pil(tmp_path / "leaf.jpg", target_size, bytes(data))


def test_strict_whatever_another_library_has_set(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for encoding, data in whole.items():
        assert reason(tmp_path / "leaf.jpg", data[: len(data) * 2 // 3]), encoding


def test_very_many_scans_are_refused(tmp_path: Path, whole: dict[str, bytes]) -> None:
    data = whole["progressive"]
    first, end = data.index(b"\xff\xda"), start_of(data)
    many = data[:end] + bytes(2) + (data[first:end] + bytes(2)) * 2_000 + b"\xff\xd9"
    assert "scans" in reason(tmp_path / "leaf.jpg", many)
