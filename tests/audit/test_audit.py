"""`bldml audit` from the command line: planted defects are found, and nothing is found on a clean set."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFilter, ImageOps

from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.dataset.synthetic.leaves import write_leaves
from tests.support import ALONE, REPOSITORY, Bldml


def read(folder: Path = Path("audit")) -> tuple[dict[str, Any], dict[str, dict[str, str]], list[dict[str, str]]]:
    """The findings by name, the photographs by path, the pairs."""
    content = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    with (folder / "audit.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    with (folder / "pairs.csv").open(encoding="utf-8", newline="") as file:
        pairs = list(csv.DictReader(file))
    assert (folder / "audit.html").stat().st_size < 30 * 2**20
    return {finding["name"]: finding for finding in content["findings"]}, rows, pairs


def severe(findings: dict[str, Any]) -> list[str]:
    """Names of errors and warnings, without those of small splits."""
    found = [name for name, finding in findings.items() if finding["severity"] != "info"]
    return [name for name in found if not name.startswith("few_")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean") / "data"
    write_leaves(root, images_per_class=60, size=256, seed=11, splits={"train": 0.5, "val": 0.25, "test": 0.25})
    return root


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    """A clean set to plant something in."""
    return Path(shutil.copytree(clean, tmp_path / "data"))


def some(root: Path, where: str, number: int = 0) -> Path:
    return sorted((root / where).glob("*.jpg"))[number]


def shoot(path: Path, seed: int, camera: str = "", taken: str = "") -> None:
    """Draw a leaf with the EXIF of a camera."""
    exif = Image.Exif()
    if camera:
        exif[ExifTags.Base.Model] = camera
    if taken:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_leaf(path.parent.name == "BLD", 160, np.random.default_rng([77, seed])).save(path, exif=exif, quality=90)


def test_nothing_is_found_on_a_clean_set(clean: Path, bldml: Bldml) -> None:
    before = {path: path.read_bytes() for path in clean.rglob("*.jpg")}
    outcome = bldml("audit", clean)
    assert outcome.code == 0, outcome.err
    findings, rows, pairs = read()
    assert severe(findings) == []
    assert pairs == []
    assert len(rows) == 120
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert "0 errors, 0 warnings" in outcome.out
    assert {path: path.read_bytes() for path in clean.rglob("*.jpg")} == before


def test_copies_same_names_and_leaks(data: Path, bldml: Bldml) -> None:
    shutil.copy(some(data, "train/BLD"), data / "train/BLD/leaf_0001 - Copy.jpg")
    twin = some(data, "train/BLD", 1)
    shutil.copy(twin, twin.with_suffix(".JPG"))
    shutil.copy(some(data, "train/No_BLD", 2), data / "test/No_BLD/again.jpg")
    shutil.copy(some(data, "val/BLD", 3), data / "val/No_BLD/wrong.jpg")
    for place, number, name in (("train", 5, "oak7_rot90.jpg"), ("train", 6, "oak7_flip.jpg"), ("test", 5, "oak7.jpg")):
        some(data, f"{place}/BLD", number).rename(data / place / "BLD" / name)
    outcome = bldml("audit", *ALONE, data)
    assert outcome.code == 1
    assert "2 errors. See audit/audit.html" in outcome.err
    findings, rows, pairs = read()
    errors = {"two_classes", "leak_exact_train_test"}
    by_name = findings["leak_source_train_test"]
    assert by_name["severity"] == "warning"
    assert by_name["title"].startswith("Possible leak from train to test (named as made from one photograph)")
    assert set(severe(findings)) == errors | {"leak_source_train_test", "exact", "same_name", "copies", "sources"}
    assert findings["sources"]["count"] == 3
    assert findings["two_classes"]["severity"] == findings["leak_exact_train_test"]["severity"] == "error"
    assert findings["two_classes"]["count"] == 2
    assert findings["two_classes"]["examples"] == [[f"val/BLD/{some(data, 'val/BLD', 3).name}", "val/No_BLD/wrong.jpg"]]
    found = {(pair["kind"], Path(pair["path_a"]).name, Path(pair["path_b"]).name) for pair in pairs}
    leaf = some(data, "train/No_BLD", 2).name
    assert ("leak exact", leaf, "again.jpg") in found
    assert any(kind == "copy" and "Copy" in b for kind, _, b in found)
    assert {("source", "oak7_flip.jpg", "oak7.jpg"), ("leak source", "oak7_flip.jpg", "oak7.jpg")} <= found
    assert any(kind == "same name" for kind, _, b in found)
    assert rows["test/No_BLD/again.jpg"]["same_as"] == rows[f"train/No_BLD/{leaf}"]["same_as"] != ""


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored": ImageOps.mirror,
    "cut": lambda image: image.crop((0, 0, round(image.width * 0.95), round(image.height * 0.95))),
    "same": lambda image: image,
}


def test_near_duplicates(data: Path, bldml: Bldml) -> None:
    """They are warnings, in another split too: only equal content or pixels are a fact."""
    planted = {}
    originals = sorted((data / "train/BLD").glob("*.jpg"))
    for original, (name, change) in zip(originals, CHANGES.items(), strict=False):
        for where in ("train", "test"):
            copy = data / where / "BLD" / f"{name}.jpg"
            with Image.open(original) as image:
                change(image).save(copy, quality=60 if where == "train" else 75)
            planted[f"{where}/BLD/{name}.jpg"] = f"train/BLD/{original.name}"
    outcome = bldml("audit", *ALONE, data)
    assert outcome.code == 0
    findings, rows, pairs = read()
    assert findings["leak_near_train_test"]["severity"] == "warning"
    assert {rows[copy]["same_as"] for copy in planted} == {rows[original]["same_as"] for original in planted.values()}
    assert all(rows[copy]["same_as"] == rows[original]["same_as"] for copy, original in planted.items())
    assert sum(row["same_as"] != "" for row in rows.values()) == 15
    leaks = {pair["path_b"] for pair in pairs if pair["kind"].startswith("leak")}
    assert leaks == {copy for copy in planted if copy.startswith("test")}
    assert "near" in findings


def test_a_burst_in_two_splits(data: Path, bldml: Bldml) -> None:
    for second, split in enumerate(("train", "test", "test")):
        shoot(data / split / "BLD" / f"IMG_{4000 + second}.JPG", second, "Canon", f"2024:06:01 12:00:{3 * second:02}")
    assert bldml("audit", *ALONE, data).code == 0
    findings, rows, _ = read()
    assert findings["leak_burst_train_test"]["count"] == 2
    assert len({row["burst"] for path, row in rows.items() if "IMG_4" in path}) == 1


def test_files_that_are_damaged_or_odd(data: Path, bldml: Bldml) -> None:
    folder = data / "train/BLD"
    cut = some(data, "train/BLD")
    cut.write_bytes(cut.read_bytes()[:-200])
    (folder / "empty.jpg").write_bytes(b"")
    picture = draw_leaf(True, 400, np.random.default_rng(5))
    picture.resize((800, 200)).save(folder / "wide.jpg")
    picture.resize((40, 30)).save(folder / "tiny.jpg")
    picture.point(lambda value: value // 20).save(folder / "night.jpg")
    picture.filter(ImageFilter.GaussianBlur(25)).save(folder / "shaken.jpg")
    draw_leaf(True, 300, np.random.default_rng(6)).save(folder / "Screenshot_2024.png")
    outcome = bldml("audit", *ALONE, data)
    assert outcome.code == 1
    findings, rows, _ = read()
    assert findings["unreadable"]["severity"] == "error"
    assert findings["unreadable"]["count"] == 2
    assert rows[f"train/BLD/{cut.name}"]["status"] == rows["train/BLD/empty.jpg"]["status"] == "unreadable"
    assert "truncated" in rows[f"train/BLD/{cut.name}"]["reason"]
    for name, odd in (("wide.jpg", "panorama"), ("tiny.jpg", "tiny"), ("night.jpg", "dark"), ("shaken.jpg", "blurred"),
                      ("Screenshot_2024.png", "screenshot")):  # fmt: skip
        assert odd in rows[f"train/BLD/{name}"]["odd"].split(), name
        assert [f"train/BLD/{name}"] in findings[odd]["examples"], name


def test_a_folder_cut_at_one_size_and_odd_kinds_of_file(data: Path, bldml: Bldml) -> None:
    folder = data / "train/BLD"
    for number in range(5):
        path = folder / f"copied_{number}.jpg"
        draw_leaf(True, 300, np.random.default_rng(70 + number)).save(path, quality=98)
        path.write_bytes(path.read_bytes()[:8192])
    picture = draw_leaf(True, 200, np.random.default_rng(7))
    picture.convert("CMYK").save(folder / "print.jpg")
    picture.save(folder / "leaf.webp")
    Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 16).save(folder / "dark.tif")
    (folder / "photo.jpg.download").write_bytes((folder / "print.jpg").read_bytes())
    assert bldml("audit", *ALONE, data).code == 1
    findings, rows, _ = read()
    assert (
        "5 of these files have exactly the same size, 8,192 bytes. Probably a copy was interrupted"
        in (findings["unreadable"]["text"])
    )
    assert rows["train/BLD/print.jpg"]["odd"] == "cmyk"
    assert "depth" in rows["train/BLD/dark.tif"]["odd"].split()
    assert findings["cmyk"]["count"] == findings["depth"]["count"] == 1
    assert findings["no_checksum"]["text"].startswith("1 TIFF, 1 WEBP.")
    assert "such as photo.jpg.download" in findings["ignored"]["text"]


def test_shortcuts_in_files(tmp_path: Path, bldml: Bldml) -> None:
    """Another camera on other days, and a border of another colour."""
    root = tmp_path / "data"
    for number in range(60):
        for label, camera, day in (("BLD", "Canon", 3), ("No_BLD", "Nikon", 20)):
            path = root / label / f"{label}_{number}.jpg"
            taken = f"2024:06:{day:02} {8 + number // 6:02}:{7 * number % 60:02}:00"
            shoot(path, number + (1000 if label == "BLD" else 0), camera, taken)
    assert bldml("audit", *ALONE, root, "--output=first").code == 1
    findings, _, _ = read(Path("first"))
    assert severe(findings) == ["shortcut_metadata"]
    assert "camera" in findings["shortcut_metadata"]["text"]
    page = Path("first/audit.html").read_text(encoding="utf-8")
    assert "Photographs by day and class" in page
    assert page.index(f'href="#error-1"><bdi>{findings["shortcut_metadata"]["title"][:30]}') < page.index(
        '<h2 id="error"'
    )
    for path in root.rglob("*.jpg"):
        with Image.open(path) as image:
            picture = ImageOps.expand(image.convert("RGB"), 12, (180, 60, 60) if path.parent.name == "BLD" else "grey")
        picture.save(path, quality=90)
    assert bldml("audit", *ALONE, root, "--output=second").code == 1
    found = severe(read(Path("second"))[0])
    assert found[0] == "shortcut_border"
    assert "shortcut_marks" in found  # of the same border
    assert "shortcut_metadata" not in found


def test_what_only_new_photographs_repair_comes_first(tmp_path: Path, bldml: Bldml) -> None:
    root = tmp_path / "data"
    for split, first in (("train", 0), ("val", 24), ("test", 36)):
        for number in range(first, first + 24):
            for label, camera in (("BLD", "Canon"), ("No_BLD", "Nikon")):
                taken = f"2024:06:{number % 20 + 1:02} {8 + number // 6:02}:{7 * number % 60:02}:00"
                shoot(root / split / label / f"{number}.jpg", number + (1000 if label == "BLD" else 0), camera, taken)
    assert bldml("audit", *ALONE, root, "--positive_class=BLD").code == 1
    names = list(read()[0])
    assert names.index("shortcut_metadata") == 0
    assert names.index("leak_exact_val_test") > 0


def test_a_manifest_with_groups_and_a_class_that_is_missing(data: Path, bldml: Bldml) -> None:
    lines = ["path,label,split,group"]
    for index, path in enumerate(sorted(data.rglob("*.jpg"))):
        split = "val" if index % 4 == 0 and path.parent.name == "BLD" else "train"
        lines.append(f"{path.relative_to(data)},{path.parent.name},{split},tree {index // 3}")
    Path("splits.csv").write_text("\n".join(lines) + "\n")
    assert bldml("audit", *ALONE, data, "--manifest=splits.csv", "--positive_class=BLD").code == 1
    findings, rows, _ = read()
    assert findings["groups"]["severity"] == findings["lacking_val"]["severity"] == "error"
    assert "no No_BLD" in findings["lacking_val"]["title"]
    assert {row["group"] for row in rows.values()} == {f"tree {number}" for number in range(40)}


def test_the_way_from_split_to_audit(data: Path, bldml: Bldml) -> None:
    """The audit finds no error in a manifest of `split`, until a photograph is replaced."""
    assert bldml("split", data, "--output=splits.csv").code == 0
    assert bldml("audit", *ALONE, data, "--manifest=splits.csv").code == 0
    assert severe(read()[0]) == []
    changed = some(data, "train/BLD", 3)
    draw_leaf(True, 256, np.random.default_rng(99)).save(changed)
    assert bldml("audit", *ALONE, data, "--manifest=splits.csv").code == 1
    findings, _, _ = read()
    assert severe(findings) == ["changed"]
    assert findings["changed"]["examples"] == [[str(changed.relative_to(data))]]


def test_names_from_outside_stay_text(tmp_path: Path, bldml: Bldml) -> None:
    root = tmp_path / "data"
    hostile = ("=cmd", "<script>alert(1)</script>"[:15], "@x\n", "a, \"b\" 'c' {{ 7*7 }}")
    for number, name in enumerate(hostile):
        for label in ("=1+1", "<b>"):
            shoot(root / label / f"{name}.jpg", number, "<img src=x onerror=alert(1)>" if number else '=HYPERLINK("x")')
            shoot(root / label / f"plain{number}.jpg", 100 + number)
    bldml("audit", *ALONE, root)
    _, rows, _ = read()
    assert len(rows) == 8 * 2
    for row in rows.values():
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values()), row
    page = Path("audit/audit.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<b>" not in page


@pytest.mark.parametrize("readable", [0, 1])
def test_hardly_anything_to_look_at(readable: int, tmp_path: Path, bldml: Bldml) -> None:
    folder = tmp_path / "data" / "BLD"
    folder.mkdir(parents=True)
    (folder / "empty.jpg").write_bytes(b"")
    for number in range(readable):
        shoot(folder / f"{number}.jpg", number)
    outcome = bldml("audit", *ALONE, tmp_path / "data")
    assert outcome.code == 1
    assert "See audit/audit.html" in outcome.err
    findings, rows, _ = read()
    assert findings["unreadable"]["count"] == 1
    assert findings["classes"]["severity"] == "error"
    assert len(rows) == 1 + readable


def test_three_classes(tmp_path: Path, bldml: Bldml) -> None:
    """Shortcuts are looked for where the class is named."""
    for number in range(36):
        label = ("BLD", "healthy", "rust")[number % 3]
        shoot(tmp_path / "data" / label / f"{number}.jpg", number, "Canon" if label == "rust" else "Nikon")
    bldml("audit", *ALONE, tmp_path / "data")
    assert "no_positive_class" in read()[0]
    bldml("audit", *ALONE, tmp_path / "data", "--positive_class=rust")
    findings, _, _ = read()
    assert "no_positive_class" not in findings
    assert findings["shortcut_metadata"]["severity"] == "error"


def test_no_metadata_goes_into_the_page(tmp_path: Path, bldml: Bldml) -> None:
    import base64
    import re

    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Erika Mustermann"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (41.0, 30.0, 0.0)})
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            picture = draw_leaf(label == "a", 200, np.random.default_rng([number, ord(label)]))
            picture.save(tmp_path / "data" / label / f"{number}.jpg", exif=exif)
    bldml("audit", *ALONE, tmp_path / "data")
    _, rows, _ = read()
    assert {row["has_gps"] for row in rows.values()} == {"yes"}
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", Path("audit/audit.html").read_text())
    assert len(pictures) == 8
    for picture in pictures:
        content = base64.b64decode(picture)
        assert b"Exif" not in content
        assert b"Mustermann" not in content
    for file in Path("audit").iterdir():
        assert b"Mustermann" not in file.read_bytes()


def test_coffee_border(coffee: Path, bldml: Bldml) -> None:
    """Of real photographs: colours and texture of the border tell something, and no two are the same.

    Two files of different leaves carry the same time to the hundredth of a second, given by hand to both: whether that
    makes them a burst is not the question here.
    """
    outcome = bldml("audit", *ALONE, coffee, "--positive_class=diseased")
    findings, _, pairs = read()
    content = json.loads(Path("audit/audit.json").read_text())
    border = next(one for one in content["shortcuts"] if one["source"] == "border")
    assert 0.58 < border["auroc"] < 0.68
    assert border["low"] > 0.5
    assert [name for name in severe(findings) if not name.startswith("leak_burst")] == [
        "shortcut_border",
        "shortcut_texture",
        "shortcut_processing",
        "shortcut_marks",
    ]
    assert [pair for pair in pairs if pair["kind"] != "leak burst"] == []
    assert outcome.code == 0  # no splits were given: leaks of the default split are warnings


def test_the_audit_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, bldml.audit.command; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
