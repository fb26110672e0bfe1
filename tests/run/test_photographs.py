"""The table of photographs, and how two sets differ."""

from dataclasses import replace
from pathlib import Path

from bldml.run.photographs import PhotographRow, describe, differences, photographs_text, read_photograph_table
from tests.support import mistake

ROW = PhotographRow("a.jpg", "train", "BLD", "tree 1", 4000, 3000, "Apple iPhone 12", "2023-06-01T12:00:00")


def test_table_round_trip_with_hostile_text(tmp_path: Path) -> None:
    rows = [
        ROW,
        replace(ROW, path="ü,\"'.jpg", true_class="=1+1", group="@x", camera="-cmd|' /C calc'!A0", taken=""),
        replace(ROW, width=0, height=0, camera=""),
        replace(ROW, original_class="=rust", burst="a.jpg", format="MPO", mode="RGB", frames=2, orientation=6),
        replace(ROW, has_gps=True, icc="@Display P3", quantization=4.25, border=(12.5, 0, 255, 1.05, 0, 3, 0.31)),
    ]
    path = tmp_path / "photographs.csv"
    path.write_text(photographs_text(rows), encoding="utf-8")
    assert read_photograph_table(path) == rows
    assert not [cell for cell in path.read_text().replace("\n", ",").split(",") if cell[:1] in ("=", "@", "-")]


def test_table_of_version_0_1(tmp_path: Path) -> None:
    path = tmp_path / "photographs.csv"
    header, line = photographs_text([ROW]).splitlines()
    n = header.split(",").index("sha256") + 1
    path.write_text(f"{','.join(header.split(',')[:n])}\n{','.join(line.split(',')[:n])}\n")
    assert read_photograph_table(path) == [ROW]


def test_damaged_table_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "photographs.csv"
    with mistake("photograph-table-unreadable", path=path):
        read_photograph_table(path)
    path.write_text(photographs_text([ROW]).replace("4000", "wide"))
    with mistake("photograph-row-wrong", path=path, row=2):
        read_photograph_table(path)
    path.write_text("path,split\n")
    missing = ["true_class", "group", "width", "height", "camera", "taken", "sha256"]
    with mistake("photograph-table-foreign", path=path, expected=missing):
        read_photograph_table(path)


def test_how_a_set_differs() -> None:
    training = [ROW] * 3 + [replace(ROW, true_class="No_BLD")] * 1
    other = [
        replace(ROW, true_class="No_BLD", camera="NIKON D90", width=2000, height=1000, taken="2024-07-01T08:00:00"),
        replace(ROW, true_class="No_BLD", camera="", width=2000, height=1000, taken="2024-07-03T08:00:00"),
    ]
    assert differences(training, other, "BLD") == [
        "0 % (0 of 2) of these photographs are BLD; in training 75 % (3 of 4).",
        "Their median size is 2.0 megapixels; in training 12.0.",
        "50 % (1 of 2) were taken with cameras that took no training photograph: NIKON D90 (1). The camera is not "
        "known for 50 % (1 of 2).",
        "They were taken from 2024-07-01 to 2024-07-03; the training photographs from 2023-06-01 to 2023-06-01: the "
        "periods do not overlap.",
    ]
    assert differences(training, [], "BLD") == []


def test_what_files_do_not_record_is_stated() -> None:
    bare = [replace(ROW, width=0, height=0, camera="", taken="")]
    said = " ".join(differences([ROW], bare, "BLD"))
    assert "sizes are not known" in said
    assert "do not record the camera" in said
    assert "the files do not record the date" in said
    assert describe(bare, "BLD").megapixels is None
    some = " ".join(differences([ROW], [ROW, *bare], "BLD"))
    assert "All known cameras also took training photographs. The camera is not known for 50 % (1 of 2)." in some
    day = "from 2023-06-01 to 2023-06-01"
    assert f"They were taken {day} (1 of 2 dated); the training photographs {day}: the periods overlap." in some
    some = " ".join(differences([ROW, ROW, *bare], [ROW], "BLD"))
    assert f"They were taken {day}; the training photographs {day} (2 of 3 dated): the periods overlap." in some
    none = " ".join(differences([ROW, *bare], bare, "BLD"))
    assert "not known: the files do not record the date (0 of 1 dated; training photographs: 1 of 2 dated)." in none
