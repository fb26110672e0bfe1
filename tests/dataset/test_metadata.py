"""What a photograph's file says of itself."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from bldml.dataset.metadata import Metadata, read_metadata


def photograph(path: Path, tags: dict[int, object], exposure: dict[int, object] | None = None) -> Path:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if exposure:
        exif.get_ifd(ExifTags.IFD.Exif).update(exposure)
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    return path


def bare(found: Metadata | None, has_gps: bool = False) -> Metadata:
    """A JPEG of 40 × 30 pixels that says nothing else."""
    assert found is not None
    return Metadata(40, 30, format="JPEG", mode="RGB", has_gps=has_gps, quantization=found.quantization)


def test_camera_time_and_upright_size(tmp_path: Path) -> None:
    path = photograph(
        tmp_path / "a.jpg",
        {ExifTags.Base.Make: "Apple", ExifTags.Base.Model: "iPhone 12", ExifTags.Base.Orientation: 6},
        {ExifTags.Base.DateTimeOriginal: "2024:06:01 12:30:05", ExifTags.Base.SubsecTimeOriginal: "071"},
    )
    found = read_metadata(path)
    assert found is not None
    assert (found.width, found.height, found.camera) == (30, 40, "Apple iPhone 12")
    assert (found.taken, found.subsec, found.orientation) == ("2024-06-01T12:30:05", "071", 6)


def test_where_it_was_taken_is_not_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (41.0, 30.0, 0.0)})
    exif[ExifTags.Base.Artist] = "Somebody"
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    found = read_metadata(tmp_path / "a.jpg")
    assert found == bare(found, has_gps=True)


def test_a_gps_table_without_a_place_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({29: "2024:06:01"})  # a date stamp
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    found = read_metadata(tmp_path / "a.jpg")
    assert found is not None
    assert not found.has_gps


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    ", "yesterday", "2024:13:45 99:00:00"])
def test_impossible_times_count_as_unknown(tmp_path: Path, taken: str) -> None:
    found = read_metadata(photograph(tmp_path / "a.jpg", {}, {ExifTags.Base.DateTimeOriginal: taken}))
    assert found == bare(found)


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
    found = read_metadata(tmp_path / "b.jpg")
    assert found == bare(found)
    Image.new("L", (8, 4)).save(tmp_path / "c.png")
    assert read_metadata(tmp_path / "c.png") == Metadata(8, 4, format="PNG", mode="L")


def test_kind_of_file_and_of_pixels(tmp_path: Path) -> None:
    picture, other = Image.new("RGB", (40, 30), "green"), Image.new("RGB", (40, 30), "red")
    picture.save(tmp_path / "a.mpo", save_all=True, append_images=[other])
    picture.save(tmp_path / "a.webp", save_all=True, append_images=[other, picture])
    picture.convert("CMYK").save(tmp_path / "a.jpg")
    Image.new("I;16", (8, 4)).save(tmp_path / "a.png")
    found = {suffix: read_metadata(tmp_path / f"a.{suffix}") for suffix in ("mpo", "webp", "jpg", "png")}
    told = {suffix: one and (one.format, one.mode, one.frames) for suffix, one in found.items()}
    assert told == {
        "mpo": ("MPO", "RGB", 2), "webp": ("WEBP", "RGB", 3), "jpg": ("JPEG", "CMYK", 1), "png": ("PNG", "I;16", 1),
    }  # fmt: skip


def test_lower_quality_has_coarser_steps(tmp_path: Path) -> None:
    steps = []
    for quality in (95, 75, 40):
        Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", quality=quality)
        found = read_metadata(tmp_path / "a.jpg")
        assert found is not None
        steps.append(found.quantization)
    assert 0 < steps[0] < steps[1] < steps[2]


def test_colour_profiles_are_named(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content, told in ((profile, "sRGB"), (b"no profile", "damaged profile")):
        Image.new("RGB", (40, 30)).save(tmp_path / "a.png", icc_profile=content)
        found = read_metadata(tmp_path / "a.png")
        assert found is not None
        assert told in found.icc


def test_an_illegal_orientation_is_told_and_turns_nothing(tmp_path: Path) -> None:
    found = read_metadata(photograph(tmp_path / "a.jpg", {ExifTags.Base.Orientation: 9}))
    assert found is not None
    assert (found.width, found.height, found.orientation) == (40, 30, 9)


def header(path: Path) -> Metadata:
    found = read_metadata(path)
    assert found is not None
    return found


XMP_TIMES = [
    ('photoshop:DateCreated="2024-07-03T10:11:12.34+02:00"', "2024-07-03T10:11:12"),
    ("exif:DateTimeOriginal = '2024-07-03T10:11:12Z'", "2024-07-03T10:11:12"),
    ("xmp:CreateDate='2024-07-03T10:11'", "2024-07-03T10:11:00"),
    ("><exif:DateTimeOriginal>\n 2024-07-03T10:11:12</exif:DateTimeOriginal><a ", "2024-07-03T10:11:12"),
    ('xmp:CreateDate="2024-01-01T00:00:00" exif:DateTimeOriginal="2024-07-03T10:11:12"', "2024-07-03T10:11:12"),
    ('xmp:ModifyDate="2024-07-03T10:11:12" photoshop:DateCreated="2024-07-03"', ""),  # edited; a day is no time
    ('xmp:CreateDate="2024-00-03T10:11:12"', ""),
    ('xmp:CreateDate="&time;"', ""),
]


@pytest.mark.parametrize("name", ["leaf.jpg", "leaf.png", "leaf.webp", "leaf.tif"])
@pytest.mark.parametrize(("text", "taken"), XMP_TIMES)
def test_time_from_xmp(tmp_path: Path, name: str, text: str, taken: str) -> None:
    packet = f'<!DOCTYPE x [<!ENTITY time "2024-07-03T10:11:12">]><x:xmpmeta><rdf:Description {text}/></x:xmpmeta>'
    image, options = Image.new("RGB", (60, 40)), dict[str, Any]()
    if name.endswith("png"):
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet)
        options = {"pnginfo": info}
    elif name.endswith("tif"):
        options = {"tiffinfo": {700: packet.encode()}}
    else:
        options = {"xmp": packet.encode()}
    image.save(tmp_path / name, **options)
    assert header(tmp_path / name).taken == taken


def test_exif_comes_before_xmp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = "2024:07:03 10:11:12"
    Image.new("RGB", (60, 40)).save(tmp_path / "leaf.jpg", exif=exif, xmp=b'xmp:CreateDate="2020-01-01T00:00:00"')
    assert header(tmp_path / "leaf.jpg").taken == "2024-07-03T10:11:12"


def test_colours_of_16_bits_are_told(tmp_path: Path) -> None:
    (tmp_path / "leaf.png").write_bytes(cv2.imencode(".png", np.full((8, 8, 3), 4000, np.uint16))[1].tobytes())
    assert header(tmp_path / "leaf.png").mode == "RGB;16"
