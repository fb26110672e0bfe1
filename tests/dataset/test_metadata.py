"""What a photograph's file says of itself."""

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from bldml.dataset.metadata import Metadata, read_metadata


def photograph(path: Path, tags: dict[int, object], exposure: dict[int, object] | None = None) -> Path:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if exposure:
        exif.get_ifd(ExifTags.IFD.Exif).update(exposure)
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    return path


def test_camera_time_and_upright_size(tmp_path: Path) -> None:
    path = photograph(
        tmp_path / "a.jpg",
        {ExifTags.Base.Make: "Apple", ExifTags.Base.Model: "iPhone 12", ExifTags.Base.Orientation: 6},
        {ExifTags.Base.DateTimeOriginal: "2024:06:01 12:30:05"},
    )
    assert read_metadata(path) == Metadata(30, 40, "Apple iPhone 12", "2024-06-01T12:30:05")


def test_where_it_was_taken_is_not_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (41.0, 30.0, 0.0)})
    exif[ExifTags.Base.Artist] = "Somebody"
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert read_metadata(tmp_path / "a.jpg") == Metadata(40, 30)


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    ", "yesterday", "2024:13:45 99:00:00"])
def test_impossible_times_count_as_unknown(tmp_path: Path, taken: str) -> None:
    found = read_metadata(photograph(tmp_path / "a.jpg", {}, {ExifTags.Base.DateTimeOriginal: taken}))
    assert found == Metadata(40, 30)


def test_hostile_camera_is_one_short_line(tmp_path: Path) -> None:
    found = read_metadata(photograph(tmp_path / "a.jpg", {ExifTags.Base.Model: "<img src=x>\n\u202e" + "x" * 500}))
    assert found is not None
    assert "\n" not in found.camera
    assert len(found.camera) < 120


def test_no_picture_and_damaged_exif(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    assert read_metadata(tmp_path / "a.jpg") is None
    assert read_metadata(tmp_path / "none.jpg") is None
    Image.new("RGB", (40, 30)).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert read_metadata(tmp_path / "b.jpg") == Metadata(40, 30)
    Image.new("L", (8, 4)).save(tmp_path / "c.png")
    assert read_metadata(tmp_path / "c.png") == Metadata(8, 4)
