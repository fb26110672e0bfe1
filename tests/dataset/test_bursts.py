"""What was taken in one go, and what only looks so."""

import csv
import random
import re
from collections import Counter
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bldml.dataset.duplicates.bursts import BurstEvidence, burst_evidence, burst_groups
from bldml.dataset.duplicates.cameras import is_camera_name
from bldml.dataset.metadata import Metadata
from tests.support import SHARED


def taken(time: str, camera: str = "Canon R5") -> Metadata:
    return Metadata(60, 40, camera, f"2024-06-01T{time}")


def groups(*photographs: tuple[str, Metadata | None], gap_seconds: float = 10) -> list[set[str]]:
    """Bursts of two and more."""
    names = [name for name, _ in photographs]
    found: dict[str, set[str]] = {}
    for name, group in zip(names, burst_groups(names, [m for _, m in photographs], gap_seconds), strict=True):
        found.setdefault(group, set()).add(name)
    return [members for members in found.values() if len(members) > 1]


def without_time(*names: str) -> list[set[str]]:
    return groups(*[(name, None) for name in names])


def test_time_of_one_camera() -> None:
    found = groups(
        ("BLD/a.jpg", taken("12:00:00")),
        ("No_BLD/b.jpg", taken("12:00:09")),
        ("BLD/c.jpg", taken("12:00:19")),
        ("BLD/d.jpg", taken("12:00:30")),
        ("BLD/e.jpg", taken("12:00:05", "Apple iPhone 12")),
    )
    assert found == [{"BLD/a.jpg", "No_BLD/b.jpg", "BLD/c.jpg"}]


def test_the_gap_can_be_chosen() -> None:
    pair = (("a.jpg", taken("12:00:00")), ("b.jpg", taken("12:00:09")))
    assert groups(*pair, gap_seconds=5) == []
    assert len(groups(*pair, gap_seconds=9)) == 1


def test_times_without_a_camera_are_compared_within_a_folder() -> None:
    assert groups(("A/a.jpg", taken("12:00:00", "")), ("B/b.jpg", taken("12:00:01", ""))) == []
    assert len(groups(("A/a.jpg", taken("12:00:00", "")), ("A/b.jpg", taken("12:00:01", "")))) == 1


def test_time_decides_over_frame_numbers() -> None:
    assert groups(("A/IMG_0012.jpg", taken("12:00:00")), ("A/IMG_0013.jpg", taken("13:00:00"))) == []
    assert len(groups(("A/IMG_0012.jpg", taken("12:00:00")), ("A/IMG_0013.jpg", None))) == 1
    assert len(groups(("A/IMG_0012.jpg", taken("12:00:00")), ("A/IMG_0900.jpg", taken("12:00:01")))) == 1


def test_a_clock_that_stood_still_is_no_burst() -> None:
    stopped = [(f"A/leaf {i}.jpg", taken("00:00:00")) for i in range(31)]
    assert groups(*stopped) == []
    assert len(groups(*stopped[:30])) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("IMG_0012.JPG", "IMG_0013.jpg"), ("DSC00099.JPG", "DSC00100.JPG"), ("_DSC0012.jpg", "_DSC0013.jpg"),
        ("DSC_0012.jpg", "DSC_0013.jpg"), ("DSCF0012.jpg", "DSCF0013.jpg"), ("DSCN0012.jpg", "DSCN0013.jpg"),
        ("P1010012.JPG", "P1010013.JPG"), ("PA120012.JPG", "PA120013.JPG"), ("100_0012.JPG", "100_0013.JPG"),
        ("_MG_0012.jpg", "_MG_0013.jpg"), ("DJI_0012.jpg", "DJI_0013.jpg"), ("IMG_E0012.jpg", "IMG_0013.jpg"),
        ("IMG_0012 (1).jpg", "IMG_0013.jpg"), ("IMG_0012.jpg", "IMG_0012.JPG"),
        ("20240601_123000.jpg", "20240601_123008.jpg"), ("IMG_20240601_123000.jpg", "IMG_20240601_123001_1.jpg"),
        ("PXL_20240601_123000123.jpg", "PXL_20240601_123001999.MP.jpg"),
        ("20240601_235958.jpg", "20240602_000001.jpg"),
    ],
)  # fmt: skip
def test_names_that_tell_a_burst(one: str, other: str) -> None:
    assert without_time(f"train/BLD/{one}", f"val/BLD/{other}") == [{f"train/BLD/{one}", f"val/BLD/{other}"}]
    assert without_time(f"BLD/tree 1/{one}", f"BLD/tree 2/{other}") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("leaf_0001.jpg", "leaf_0002.jpg"), ("1002.jpg", "1003.jpg"), ("BLD_0012.jpg", "BLD_0013.jpg"),
        ("IMG-20240601-WA0003.jpg", "IMG-20240601-WA0004.jpg"), ("IMG_1.jpg", "IMG_2.jpg"),
        ("IMG_0012.jpg", "DSC_0013.jpg"), ("IMG_0012.jpg", "IMG_0014.jpg"),
        ("20240601_123000.jpg", "20240601_123100.jpg"), ("20240601_123000.jpg", "PXL_20240601_123001000.jpg"),
        ("20241301_123000.jpg", "20241301_123001.jpg"), ("leaf (1).jpg", "leaf (2).jpg"),
        ("Screenshot_20240601_123000.jpg", "Screenshot_20240601_123001.jpg"),
    ],
)  # fmt: skip
def test_names_that_tell_nothing(one: str, other: str) -> None:
    assert without_time(f"BLD/{one}", f"BLD/{other}") == []


def test_numbered_exports_are_no_burst() -> None:
    for pattern in ("leaf_{:04d}.jpg", "{:04d}.jpg", "image{:05d}.png"):
        names = ["BLD/" + pattern.format(i) for i in range(400)]
        assert burst_groups(names, [None] * 400) == names


def test_a_long_run_of_frames_is_cut_at_fixed_numbers() -> None:
    names = [f"BLD/IMG_{i:04d}.jpg" for i in range(1, 401)]
    sizes = Counter(burst_groups(names, [None] * 400)).values()
    assert max(sizes) == 10
    # Further frames at the end change nothing.
    more = [f"BLD/IMG_{i:04d}.jpg" for i in range(1, 444)]
    assert burst_groups(more, [None] * 443)[:390] == burst_groups(names, [None] * 400)[:390]
    assert len(without_time(*names[:20])) == 1


def test_order_and_far_photographs_change_nothing() -> None:
    photographs: dict[str, Metadata | None] = {f"A/IMG_{i:04d}.jpg": None for i in (1, 2, 3, 7, 8, 30)}
    photographs |= {f"B/{i}.jpg": taken(f"12:00:{i * 7:02d}") for i in range(8)}
    names = sorted(photographs)
    expected = dict(zip(names, burst_groups(names, [photographs[n] for n in names]), strict=True))
    generator = random.Random(1)
    for _ in range(10):
        generator.shuffle(names)
        assert burst_groups(names, [photographs[n] for n in names]) == [expected[n] for n in names]
    far = [*names, "A/IMG_0500.jpg", "B/far.jpg", "C/IMG_0004.jpg"]
    metadata = [*(photographs[n] for n in names), None, taken("18:00:00"), None]
    assert burst_groups(far, metadata)[: len(names)] == [expected[n] for n in names]
    assert burst_groups(far, metadata)[-3:] == far[-3:]


def test_evidence() -> None:
    names = ["A/a.jpg", "A/20240601_123000.jpg", "A/IMG_0001.jpg", "A/IMG_0002.jpg", "A/leaf_1.jpg"]
    metadata = [taken("12:00:00"), None, None, None, None]
    evidence = burst_evidence(names, metadata, burst_groups(names, metadata))
    assert evidence == BurstEvidence(5, 1, 1, 2, 2)
    assert evidence.weak
    assert "may have been missed" in evidence.sentence()
    strong = burst_evidence(names[:1], [taken("12:00:00")], ["x"])
    assert not strong.weak
    assert strong.sentence() == "1 of 1 photograph has an EXIF time. No burst was found."
    assert burst_evidence([], [], []).largest == 0


BURSTS = """
12.30.00[R][0@0][0].jpg 12.30.02[R][0@0][0].jpg 12.30.09[M][0@0][0].jpg
EP-01-12345_0012.JPG EP-01-12345_0013.JPG EP-01-12345_0014.JPG
IMG_1717245000.jpg IMG_1717245002.jpg IMG_1717245011.jpg
snapshot-1717245000.png snapshot-1717245004.png
IMG20240601123000.jpg IMG20240601123002.jpg IMG20240601123000_BURST001.jpg
00000IMG_00000_BURST20240601123000123_COVER.jpg 00001IMG_00001_BURST20240601123000123.jpg
DSC_0001_BURST20240601123000123.JPG DSC_0002_BURST20240601123000123_COVER.JPG
IMG_20240601_123000_BURST001_COVER.jpg IMG_20240601_123000_BURST002.jpg
PXL_20240601_123000123.BURST-01.COVER.jpg PXL_20240601_123000456.BURST-02.jpg
20240601_123000_001.jpg 20240601_123000_002.jpg 20240601_123001(0).jpg
P_20240601_123000_vHDR_Auto.jpg P_20240601_123003.jpg
DJI_20240601123000_0001_D.JPG DJI_20240601123002_0002_T.JPG
DJI_0012_T.JPG DJI_0012_W.JPG DJI_0013_W.JPG
IMG_160601_123000_0001_RGB.JPG IMG_160601_123001_0002_RGB.JPG
Bebop_2_2016-06-01T123000+0200_ABCDEF.jpg Bebop_2_2016-06-01T123003+0200_ABCDEA.jpg
IMG_20240601_123000_00_001.jpg IMG_20240601_123002_00_002.jpg
2024_0601_123000_001.JPG 2024_0601_123002_002.JPG
WP_20140601_12_30_00_Pro.jpg WP_20140601_12_30_02_Pro__highres.jpg
WP_20140601_001.jpg WP_20140601_002.jpg
WIN_20240601_12_30_00_Pro.jpg WIN_20240601_12_30_02_Pro.jpg
2024-06-01 12.30.00.jpg|2024-06-01 12.30.02.jpg
2024-06-01 12.59.58 PM.jpg|2024-06-01 01.00.01 PM.jpg
Photo 2024-06-01 at 12.30.00 PM.jpg|Photo 2024-06-01 at 12.30.02 PM.jpg
2024-06-01T12-30-00.jpg 2024-06-01T12-30-02.jpg
2024-06-01-12-30-00.jpg 2024-06-01-12-30-02.jpg
01062024_123000.jpg 01062024_123002.jpg
2024-06-01 12-30-00 M 1_3.JPG|2024-06-01 12-30-00 M 2_3.JPG
vlcsnap-2024-06-01-12h30m00s123.png vlcsnap-2024-06-01-12h30m02s456.png
G0010001.JPG G0010002.JPG G0010003.JPG
GP010012.JPG GP010013.JPG
RCNX0001.JPG RCNX0002.JPG RCNX0003.JPG
06010001.JPG 06010002.JPG 06010003.JPG
EK000001.JPG EK000002.JPG EK000003.JPG
SPYP0012.JPG SPYP0013.JPG SPYP0014.JPG
MFDC0012.JPG MFDC0013.JPG MFDC0014.JPG
IMAG0012_BURST001.jpg IMAG0012_BURST002_COVER.jpg
0C7A0001.JPG 0C7A0002.JPG 0C7A0003.JPG
BV6A0012.JPG BV6A0013.JPG BV6A0014.JPG
D85_0012.JPG D85_0013.JPG D85_0014.JPG
_6010012.JPG _6010013.JPG _6010014.JPG
L1000012.DNG L1000013.DNG L1000014.DNG
R0010012.JPG R0010013.JPG R0010014.JPG
B0000012.JPG B0000013.JPG B0000014.JPG
SDIM0012.JPG SDIM0013.JPG SDIM0014.JPG
YUN00012.jpg YUN00013.jpg YUN00014.jpg
B01_0009.JPG B01_0010.JPG B01_0011.JPG
scene00001.png scene00002.png scene00003.png
IMG_0012_1.tif IMG_0012_2.tif IMG_0013_1.tif IMG_0014_5.tif
FLIR0012.jpg FLIR0013.jpg
IR_0012.jpg IR_0013.jpg
RIMG0012.JPG RIMG0013.JPG
EVO_0012.JPG EVO_0013.JPG
1717245000123.jpg 1717245004123.jpg
img_thermal_1717245000123.jpg img_thermal_1717245002123.jpg
image_24-06-01_12-30-00-12.jpg image_24-06-01_12-30-02-34.jpg
frame9.jpg frame10.jpg frame11.jpg
mpv-shot0001.jpg mpv-shot0002.jpg mpv-shot0003.jpg
timelapse_0001.jpg timelapse_0002.jpg timelapse_0003.jpg
DSC_0012 - Copy.JPG|DSC_0013.JPG|DSC_0014-Edit.JPG
"""


@pytest.mark.parametrize("line", BURSTS.split("\n")[1:-1])
def test_bursts_of_phones_cameras_drones_and_traps(line: str) -> None:
    names = [f"{split}/BLD/{name}" for name in line.split("|" if "|" in line else None) for split in ("train", "val")]
    assert without_time(*names) == [set(names)]


@pytest.mark.skipif(not (SHARED / "cases/names").is_dir(), reason="../shared/cases is not there")
def test_bursts_of_the_cases() -> None:
    with (SHARED / "cases/names/bursts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            names = row["names (one burst)"].split()
            assert without_time(*names) == [set(names)], row["maker"]


EXPORTS = {
    "words in capitals": [f"BLD/LEAF{i:04d}.JPG" for i in range(1, 12)],
    "words": [f"BLD/{word}{i:04d}.jpg" for i in range(1, 12) for word in ("leaf", "pic", "plant", "photo_")],
    "the class": [f"BLD/{word}{i:04d}.JPG" for i in range(1, 12) for word in ("BLD_", "BLD")],
    "letters, all numbers": [f"x/CTRL{i:04d}.JPG" for i in range(1, 200)],
    "two of no known maker": ["x/0C7A0001.JPG", "x/0C7A0002.JPG", "x/CTRL0001.JPG", "x/CTRL0002.JPG"],
    "numbers of ten digits": [f"BLD/17172450{i:02d}.jpg" for i in range(1, 30)],
    "ten digits of other words": [f"BLD/{word}17172450{i:02d}.jpg" for i in range(1, 30) for word in ("leaf_", "BLD_")],
    "days and numbers": [f"BLD/2024-06-01-{i:04d}.jpg" for i in range(1, 30)],
    "clocks of unknown days": [f"BLD/Argus-01-1230{i:02d}-1231{i:02d}.jpg" for i in range(0, 30, 2)],
    "numbered by ffmpeg": [f"x/{word}{i:03d}.jpg" for i in range(1, 30) for word in ("img", "out")],
    "numbers": [f"BLD/{i:0{digits}d}.jpg" for digits in (4, 8, 12) for i in range(1, 30)],
    "identifiers": [f"BLD/{i}.jpg" for i in (*range(23456700, 23456730), *range(12120045, 12120075))],
    "WhatsApp": [f"BLD/WhatsApp Image 2024-06-01 at 12.30.0{i}{mark}.jpeg" for i in range(9) for mark in ("", " (1)")],
    "Telegram": [f"BLD/photo_2024-06-01_12-30-0{i}.jpg" for i in range(9)],
    "a script": [f"BLD/leaf_20240601_1230{i:02d}.jpg" for i in range(60)],
    "a scanner": [f"BLD/Scan_20240601_1230{i:02d}.jpg" for i in range(9)],
    "no milliseconds": [f"BLD/{first}{i:03d}.jpg" for i in range(9) for first in (9876543210, 17172450001, 171724500)],
    "no time": [f"BLD/2024{month}01_12300{i}.jpg" for i in range(9) for month in ("13", "00")],
}


@pytest.mark.parametrize("names", EXPORTS.values(), ids=EXPORTS)
def test_exports_and_messages_are_no_bursts(names: list[str]) -> None:
    assert burst_groups(names, [None] * len(names)) == names


@given(st.from_regex(r"[a-z]{3,8}[-_ ]?[0-9]{1,6}", fullmatch=True), st.integers(2, 9))
def test_numbered_words_are_no_burst(first: str, count: int) -> None:
    """A word in small letters is an export's, unless it is one that cameras and frame grabbers write."""
    word, number = re.fullmatch(r"(\D+)(\d+)", first).groups()  # type: ignore[union-attr]
    names = sorted({f"BLD/{word}{int(number) + i:0{len(number)}d}.jpg" for i in range(count)})
    assume(not any(is_camera_name(name[4:-4]) for name in names))
    assert without_time(*names) == []


@given(
    st.sampled_from(["IMG_{}", "{}", "PXL_{}123", "DJI_{}_0001_D", "P_{}", "WP_{}_Pro", "IMG{}_BURST001"]),
    st.sampled_from(["%Y%m%d_%H%M%S", "%Y%m%d%H%M%S", "%Y-%m-%d %H.%M.%S", "%Y%m%d_%H_%M_%S", "%Y-%m-%dT%H-%M-%S"]),
    st.datetimes(datetime(2001, 1, 1), datetime(2039, 1, 1)),
    st.integers(0, 30),
)
def test_a_time_in_a_name_is_a_burst_within_the_gap(name: str, form: str, first: datetime, seconds: int) -> None:
    assume("123" not in name or form[-1] != "S" or "_%H%M%S" in form)
    times = (first, first + timedelta(seconds=seconds))
    one, other = (f"BLD/{name.format(time.strftime(form))}{i}.jpg" for i, time in zip(("", "_1"), times, strict=True))
    assert (len(without_time(one, other)) == 1) == (seconds <= 10)
