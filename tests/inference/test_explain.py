"""From a map to a picture and to shares inside a mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bldml.inference.pictures import attention, contact_sheet, overlay, read_mask, thumbnail_side
from tests.support import mistake

LEAF, LESION, NOTHING = (0, 176, 0), (255, 0, 0), (0, 0, 0)


def test_overlay_keeps_the_photograph_where_the_map_is_empty() -> None:
    photograph = Image.new("RGB", (400, 100), (10, 120, 30))
    cam = np.zeros((2, 4), dtype=np.float32)
    assert overlay(photograph, cam).tobytes() == photograph.tobytes()
    cam[1, 3] = 1  # lower right: no axis may be mixed up
    changed = np.asarray(overlay(photograph, cam)) != np.asarray(photograph)
    rows, columns = np.nonzero(changed.any(axis=2))
    assert rows.min() > 20
    assert columns.min() > 200
    assert changed[90, 390].any()


def test_shares_inside_a_mask() -> None:
    cam = np.zeros((4, 4), dtype=np.float32)
    cam[:2] = 1
    leaf = np.zeros((4, 4), dtype=bool)
    leaf[:, :2] = True
    lesion = np.zeros((4, 4), dtype=bool)
    lesion[:2, 0] = True
    assert attention(cam, leaf, lesion) == {
        "attention_in_leaf": 0.5, "leaf_area": 0.5, "leaf_enrichment": 1,
        "attention_in_lesion": 0.25, "lesion_area": 0.125, "lesion_enrichment": 2, "lesion_enrichment_within_leaf": 2,
    }  # fmt: skip


def test_what_is_not_defined_is_none() -> None:
    nothing = np.zeros((2, 2), dtype=bool)
    empty_map = attention(np.zeros((2, 2), dtype=np.float32), ~nothing, nothing)
    assert {name for name, value in empty_map.items() if value is not None} == {"leaf_area", "lesion_area"}
    no_lesion = attention(np.ones((2, 2), dtype=np.float32), ~nothing, nothing)
    assert (no_lesion["attention_in_lesion"], no_lesion["lesion_enrichment"]) == (0, None)
    assert no_lesion["lesion_enrichment_within_leaf"] is None


def test_mask_colours(tmp_path: Path) -> None:
    colours = [NOTHING, LEAF, LESION, (255, 255, 255), (20, 3, 3)]
    mask = Image.new("RGB", (5, 1))
    mask.putdata(colours)
    mask.save(tmp_path / "mask.png")
    leaf, lesion = read_mask(tmp_path / "mask.png", tmp_path / "leaf.jpg", (500, 100))
    assert leaf.tolist() == [[False, True, True, True, False]]
    assert lesion.tolist() == [[False, False, True, False, False]]


def test_mask_of_other_proportions_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (50, 100)).save(tmp_path / "mask.png")
    with mistake("mask-size-differs", path=tmp_path / "mask.png", found=(50, 100), expected=(100, 50)):
        read_mask(tmp_path / "mask.png", tmp_path / "leaf.jpg", (100, 50))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with mistake("mask-unreadable", path=tmp_path / "bad.png"):
        read_mask(tmp_path / "bad.png", tmp_path / "leaf.jpg", (100, 50))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 26])
def test_contact_sheet_shows_every_picture(count: int) -> None:
    side = thumbnail_side(count)
    colours = [(40 + i, 100, 200 - i) for i in range(count)]
    small = [Image.new("RGB", (side, side // 2), colour) for colour in colours]
    sheet = contact_sheet(small, [str(i) for i in range(count)], side)
    found = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    assert set(colours) <= found


def test_contact_sheet_of_very_many_stays_one_picture() -> None:
    side = thumbnail_side(10_000)
    sheet = contact_sheet([Image.new("RGB", (side, side))] * 10_000, ["x"] * 10_000, side)
    assert max(sheet.size) < 5000
