"""Different leaves in the same frame, bar or interface are no near duplicates; only equal pixels are called a fact."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.accusations import KINDS, recompress_well
from bldml.dataset.duplicates.phash import find_near_duplicates, find_near_duplicates_between, perceptual_hash
from bldml.dataset.synthetic.drawing import draw_leaf
from tests.support import Bldml

Furnish = Callable[[Image.Image], Image.Image]


def leaf(number: int, size: int = 240) -> Image.Image:
    return draw_leaf(bool(number % 2), size, np.random.default_rng([21, number]))


def findings(folder: Path = Path("audit")) -> dict[str, Any]:
    content = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return {finding["name"]: finding for finding in content["findings"]}


def write(root: Path, images: dict[str, Image.Image], **options: Any) -> Path:
    for name, image in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
    return root


@pytest.mark.parametrize("kind", ["padded all round, black", "polaroid", "screenshot, dark"])
def test_different_leaves_in_one_frame(kind: str, tmp_path: Path, bldml: Bldml) -> None:
    """Each of these sets had many pairs, an error and exit code 1, and became few large groups."""
    names = [f"{'No_BLD' if number % 2 else 'BLD'}/leaf {number}.jpg" for number in range(40)]
    root = write(tmp_path / "data", {name: KINDS[kind](leaf(number)) for number, name in enumerate(names)}, quality=92)
    outcome = bldml("audit", "--power=off", root)
    assert outcome.code == 0, outcome.out
    assert not {"near", "two_classes", "near_two_classes"} & findings().keys()
    outcome = bldml("split", root, "--test=0.25", "--val=0.25")
    assert outcome.code == 0, outcome.err
    assert "near duplicates" not in outcome.out
    rows = Path("splits.csv").read_text(encoding="utf-8")
    assert [rows.count(f",{split},") for split in ("train", "val", "test")] == [20, 10, 10]


@pytest.mark.parametrize("kind", ["millimetre paper", "squared paper, wide"])
def test_different_leaves_on_one_paper(kind: str) -> None:
    """The lines outweigh the leaves, so pairs of these were near duplicates (10 and 1). Copies are found as before."""
    pictures = [recompress_well(KINDS[kind](leaf(number))) for number in range(40)]
    hashes = np.stack([perceptual_hash(picture) for picture in pictures])
    assert find_near_duplicates(hashes) == []
    halves = [picture.resize((picture.width // 2, picture.height // 2)) for picture in pictures]
    turned = [half.transpose(Image.Transpose.ROTATE_90) for half in halves]
    copies = np.stack([perceptual_hash(picture) for picture in (*halves[:20], *turned[20:])])
    found = {(pair.a, pair.b) for pair in find_near_duplicates(np.concatenate([hashes, copies]))}
    assert found >= {(number, number + 40) for number in range(40)}
    between = {(pair.a, pair.b) for pair in find_near_duplicates_between(hashes, copies)}
    assert between == {(number, number) for number in range(40)}


def test_a_near_duplicate_with_another_label_is_something_to_look_at(tmp_path: Path, bldml: Bldml) -> None:
    images = {f"{'No_BLD' if number % 2 else 'BLD'}/leaf {number}.jpg": leaf(number) for number in range(12)}
    half = leaf(0).resize((leaf(0).width // 2, leaf(0).height // 2))
    root = write(tmp_path / "data", {**images, "No_BLD/smaller.jpg": half}, quality=92)
    outcome = bldml("audit", "--power=off", root)
    assert outcome.code == 0, outcome.out
    found = findings()
    assert "two_classes" not in found
    assert found["near_two_classes"]["severity"] == "warning"
    (pair,) = found["near_two_classes"]["examples"]
    assert set(pair) == {"BLD/leaf 0.jpg", "No_BLD/smaller.jpg"}
    said = bldml("split", root, "--output=s.csv").out
    assert "near duplicates are in two classes, 1 time: BLD/leaf 0.jpg and No_BLD/smaller.jpg. Look at them." in said
    assert "One label is wrong" not in said


def test_equal_pixels_are_a_fact(tmp_path: Path, bldml: Bldml) -> None:
    """In another format, and turned without loss."""
    root = tmp_path / "data"
    write(root, {f"train/{'No_BLD' if n % 2 else 'BLD'}/leaf {n}.png": leaf(n, 128) for n in range(8)})
    write(root, {"train/No_BLD/same.bmp": leaf(0, 128)})
    write(root, {"val/BLD/turned.tif": leaf(2, 128).transpose(Image.Transpose.ROTATE_90), "val/No_BLD/a.png": leaf(9)})
    assert bldml("audit", "--power=off", root).code == 1
    found = findings()
    assert found["two_classes"]["severity"] == "error"
    (pair,) = found["two_classes"]["examples"]
    assert set(pair) == {"train/BLD/leaf 0.png", "train/No_BLD/same.bmp"}
    assert found["leak_near_train_val"]["severity"] == "error"
    assert "all pixels are equal" in found["leak_near_train_val"]["text"]
    # One grey level in one pixel, and it is no fact any more.
    image = leaf(2, 128)
    red, green, blue = image.getpixel((5, 5))  # type: ignore[misc]
    image.putpixel((5, 5), (red ^ 1, green, blue))
    (root / "val/BLD/turned.tif").unlink()
    (root / "train/No_BLD/same.bmp").unlink()
    write(root, {"val/BLD/changed.png": image})
    assert bldml("audit", "--power=off", root).code == 0
    assert "two_classes" not in findings()
    leak = findings()["leak_near_train_val"]
    assert leak["severity"] == "warning"
    assert leak["title"].startswith("Possible leak from train to val")
