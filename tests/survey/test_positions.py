"""Time and position of photographs: written by Pillow into real files, read back; nothing is guessed."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from bldml.survey.positions import Position, read_origin

LATITUDE, LONGITUDE = (47.0, 30.0, 36.0), (8.0, 15.0, 18.0)
HERE = Position(8.255, 47.51)


def photograph(folder: Path, gps: dict[int, Any], exposure: dict[int, Any] | None = None) -> Path:
    exif = Image.Exif()
    exif[0x8825] = gps
    exif[0x8769] = exposure or {}
    path = folder / "leaf.jpg"
    Image.new("RGB", (16, 16)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ({1: "N", 2: LATITUDE, 3: "E", 4: LONGITUDE}, HERE),
        ({1: "S", 2: LATITUDE, 3: "W", 4: LONGITUDE}, Position(-8.255, -47.51)),
        # Decimal minutes, and decimal degrees alone.
        ({1: "N", 2: (47.0, 30.6, 0.0), 3: "E", 4: (8.0, 15.3, 0.0)}, HERE),
        ({1: "N", 2: (47.51, 0.0, 0.0), 3: "E", 4: (8.255, 0.0, 0.0)}, HERE),
        ({1: "N", 2: (47.0, 30.6), 3: "E", 4: (8.0, 15.3)}, HERE),
        ({1: "n\0", 2: LATITUDE, 3: "e\0", 4: LONGITUDE, 18: "WGS-84"}, HERE),
        ({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: LONGITUDE}, Position(8.255, 0.0)),  # the equator is a place
        ({}, None),
        ({29: "2024:05:01"}, None),  # a date alone
    ],
)
def test_position(tmp_path: Path, gps: dict[int, Any], expected: Position | None) -> None:
    origin = read_origin(photograph(tmp_path, gps))
    assert origin.problem == ""
    assert origin.position == (expected and pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize(
    ("gps", "problem"),
    [
        ({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, "0, 0"),
        ({1: "N", 2: (IFDRational(0, 0), 0.0, 0.0), 3: "E", 4: LONGITUDE}, "0/0"),
        ({1: "N", 2: LATITUDE, 3: "E", 4: (8.0, IFDRational(0, 0), 0.0)}, "0/0"),
        ({1: "N", 2: LATITUDE}, "numbers that are none"),
        ({2: LATITUDE, 3: "E", 4: LONGITUDE}, "hemisphere"),
        ({1: "N", 2: LATITUDE, 4: LONGITUDE}, "hemisphere"),
        ({1: "E", 2: LATITUDE, 3: "N", 4: LONGITUDE}, "hemisphere"),
        ({1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: LONGITUDE}, "impossible"),
        ({1: "N", 2: LATITUDE, 3: "E", 4: (180.0, 0.0, 1.0)}, "impossible"),
        ({1: "N", 2: (47.0, 75.0, 0.0), 3: "E", 4: LONGITUDE}, "impossible"),
        ({1: "N", 2: LATITUDE, 3: "E", 4: LONGITUDE, 18: "TOKYO"}, "datum"),
    ],
)
def test_position_that_cannot_be_used_has_a_reason(tmp_path: Path, gps: dict[int, Any], problem: str) -> None:
    origin = read_origin(photograph(tmp_path, gps))
    assert origin.position is None
    assert problem in origin.problem


TIME = "2024:05:01 12:30:00"


@pytest.mark.parametrize(
    ("exposure", "date"),
    [
        ({0x9003: TIME}, "2024-05-01T12:30:00"),
        ({0x9003: TIME, 0x9011: "+02:00"}, "2024-05-01T12:30:00+02:00"),
        ({0x9003: TIME, 0x9011: "-03:30\0"}, "2024-05-01T12:30:00-03:30"),
        ({0x9003: TIME, 0x9011: "+99:00"}, "2024-05-01T12:30:00"),
        ({0x9003: TIME, 0x9011: "   :  "}, "2024-05-01T12:30:00"),
        ({0x9004: TIME, 0x9011: "+02:00"}, "2024-05-01T12:30:00"),  # the offset is that of another time
        ({0x9011: "+02:00"}, ""),
    ],
)
def test_date_has_the_offset_of_its_own_tag(tmp_path: Path, exposure: dict[int, Any], date: str) -> None:
    assert read_origin(photograph(tmp_path, {}, exposure)).date == date


def test_file_that_is_no_photograph_has_no_origin(tmp_path: Path) -> None:
    path = tmp_path / "leaf.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_origin(path) == ("", None, "")
    assert read_origin(tmp_path / "gone.jpg") == ("", None, "")
