"""What was taken in one go, and what only looks so."""

import random
from collections import Counter

import pytest

from bldml.dataset.duplicates.bursts import BurstEvidence, burst_evidence, burst_groups
from bldml.dataset.metadata import Metadata


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
