"""A HEIC or AVIF file is whole or refused."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from bldml.dataset.images import UnreadableImage, heif_available, load_rgb
from tests.dataset.test_jpeg import picture
from tests.support import REPOSITORY

CASES = REPOSITORY.parent / "shared/cases/heic_cut"
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
needs_heif = pytest.mark.skipif(not heif_available(), reason="pillow-heif (extra heif) is not installed")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiles": ("HEIF", {"tile_size": 128, "quality": 85}),  # as phones write
    "one tile": ("HEIF", {"tile_size": 0, "quality": 85}),
    "AVIF": ("AVIF", {"quality": 85}),
}
EACH = [
    pytest.param("tiles", marks=needs_heif),
    pytest.param("one tile", marks=needs_heif),
    pytest.param("AVIF", marks=needs_avif),
]


def encoded(image: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def whole() -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def get(kind: str) -> bytes:
        if kind not in made:
            made[kind] = encoded(picture(), *KINDS[kind])
        return made[kind]

    return get


def reason(path: Path, data: bytes) -> str:
    """Why a file is refused; empty if it is not."""
    path.write_bytes(data)
    try:
        load_rgb(path, 64)
    except UnreadableImage as error:
        return error.reason
    return ""


@pytest.mark.parametrize("kind", EACH)
def test_every_cut_is_found(tmp_path: Path, whole: Callable[[str], bytes], kind: str) -> None:
    data = whole(kind)
    assert not reason(tmp_path / "leaf.heic", data)
    media = data.index(b"mdat")
    for kept in (*np.linspace(media + 8, len(data) - 1, 12).astype(int), len(data) - 2):
        assert "truncated" in reason(tmp_path / "leaf.heic", data[:kept]), kept
        assert reason(tmp_path / "leaf.heic", data[:kept].ljust(len(data), b"\0")) or kept > len(data) - 64, kept
    # Also where nothing ends the box with the coded data.
    to_the_end = data[: media - 4] + bytes(4) + data[media:]
    assert not reason(tmp_path / "leaf.heic", to_the_end)
    assert "truncated" in reason(tmp_path / "leaf.heic", to_the_end[:-300])


@pytest.mark.parametrize("kind", EACH)
def test_zeroed_clusters_are_found(tmp_path: Path, whole: Callable[[str], bytes], kind: str) -> None:
    data = whole(kind)
    for at in np.linspace(data.index(b"mdat") + 200, len(data) - 600, 12).astype(int):
        for filler in (b"\0", b"\xff"):
            assert "damaged" in reason(tmp_path / "leaf.heic", data[:at] + filler * 512 + data[at + 512 :])


@pytest.mark.parametrize("kind", EACH)
def test_a_box_with_a_size_of_64_bits(tmp_path: Path, whole: Callable[[str], bytes], kind: str) -> None:
    data = whole(kind) + (1).to_bytes(4) + b"free" + (16 + 100).to_bytes(8) + bytes(100)
    assert not reason(tmp_path / "leaf.heic", data)
    assert "truncated" in reason(tmp_path / "leaf.heic", data[:-1])


@pytest.mark.parametrize("kind", EACH)
def test_what_phones_append_is_not_damage(tmp_path: Path, whole: Callable[[str], bytes], kind: str) -> None:
    (tmp_path / "leaf.heic").write_bytes(whole(kind))
    expected = np.asarray(load_rgb(tmp_path / "leaf.heic"))
    for appended in (b"\0" * 4000, b"SEFHk\0\0\0Image_UTC_Data1642", (400).to_bytes(4) + b"sefd" + bytes(20)):
        (tmp_path / "leaf.heic").write_bytes(whole(kind) + appended)
        assert np.array_equal(np.asarray(load_rgb(tmp_path / "leaf.heic")), expected)


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("quality", [1, 60, 100])
def test_even_pictures_are_not_damage(tmp_path: Path, kind: str, quality: int) -> None:
    file_format, options = KINDS[kind]
    even = Image.new("RGB", (700, 500), "white")
    even.paste((0, 0, 0), (0, 250, 700, 500))
    data = encoded(even, file_format, {**options, "quality": quality})
    assert not reason(tmp_path / "leaf.heic", data)


@needs_heif
def test_given_cases(tmp_path: Path) -> None:
    if not CASES.is_dir():
        pytest.skip("the given cases are not on this machine")
    refused = {path.stem: reason(tmp_path / "leaf.heic", path.read_bytes()) for path in CASES.glob("*.heic")}
    assert [name for name, why in refused.items() if not why] == ["whole"]
    assert {why for why in refused.values() if why} == {"truncated: the end of the file is missing"}
