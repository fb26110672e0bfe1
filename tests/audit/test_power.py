"""The audit plants copies and says how many it would have found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bldml.audit.checks.power import FEWEST, PLANTS, choose_originals
from bldml.audit.examine import Row, examine_file
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.drawing import draw_leaf
from tests.support import Bldml


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    for number in range(24):
        path = tmp_path / "data" / ("No_BLD" if number % 3 else "BLD") / f"leaf {number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_leaf(bool(number % 3), 200, np.random.default_rng([31, number])).save(path, quality=92)
    return tmp_path / "data"


def power() -> Any:
    return json.loads(Path("audit/audit.json").read_text(encoding="utf-8"))["power"]


def test_copies_are_planted_and_counted(leaves: Path, bldml: Bldml) -> None:
    before = {path: path.read_bytes() for path in leaves.rglob("*") if path.is_file()}
    outcome = bldml("audit", leaves)
    assert outcome.code == 0, outcome.out
    kinds = {kind["kind"]: kind for kind in power()["kinds"]}
    assert kinds.keys() == PLANTS.keys()
    assert {kind["planted"] for kind in kinds.values()} == {FEWEST}
    assert power()["copies"] == FEWEST * len(PLANTS)
    assert power()["compared"] == 24
    assert power()["mistaken"] == 0
    for name in ("half the size", "JPEG of quality 60", "turned by 90°", "mirrored", "padded with black"):
        assert kinds[name]["near"] == FEWEST, name
    # The perceptual hash cannot find these, and the audit says so.
    for name in ("turned by 25°", "cropped to 50 % of the sides"):
        assert kinds[name]["near"] == 0, name
        assert f"{name} ({kinds[name]['found']} of" in outcome.out or kinds[name]["asked"]
    assert kinds["mirrored"]["low"] < 0.7 < kinds["mirrored"]["high"] == 1
    assert f"Taken for a copy of an unrelated photograph: 0 of {FEWEST * len(PLANTS)}." in outcome.out
    page = Path("audit/audit.html").read_text(encoding="utf-8")
    assert "Power: what would have been found?" in page
    assert f"{FEWEST} of {FEWEST}" in page
    assert {path: path.read_bytes() for path in leaves.rglob("*") if path.is_file()} == before
    assert bldml("audit", leaves, "--power=off").code == 0
    assert power() is None
    assert "Power: what" not in Path("audit/audit.html").read_text(encoding="utf-8")


def test_what_has_no_details_is_not_found_and_not_mistaken(tmp_path: Path, bldml: Bldml) -> None:
    """Plain ground with noise: all tiles look the same, and no copy of one is said to be found."""
    for number in range(12):
        noise = np.random.default_rng(number).normal(150, 3, (160, 160, 3))
        path = tmp_path / "data" / ("No_BLD" if number % 2 else "BLD") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(noise)).save(path)
    outcome = bldml("audit", tmp_path / "data")
    assert outcome.code == 0, outcome.out
    assert power()["mistaken"] == 0
    assert {kind["near"] for kind in power()["kinds"]} == {0}


def test_originals_are_of_all_classes_and_of_different_units(leaves: Path) -> None:
    paths = sorted(leaves.rglob("*.jpg"))
    rows = [Row(Sample(path, path.name, path.parent.name), "train", examine_file(path)) for path in paths]
    chosen = choose_originals(rows, range(len(rows)))
    assert len(chosen) == len(set(chosen)) == FEWEST
    assert [rows[i].sample.class_name for i in chosen].count("BLD") == FEWEST // 2
    units = [number // 6 for number in range(24)]
    assert sorted(units[i] for i in choose_originals(rows, units)) == [0, 1, 2, 3]
    assert choose_originals(rows, range(len(rows))) == chosen
