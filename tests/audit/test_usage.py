"""What `bldml audit` does with a folder that is not its own, photographs that nobody divided, and mistakes."""

import errno
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bldml.dataset.synthetic.drawing import draw_leaf
from tests.support import ALONE, Bldml


def draw(root: Path, where: str, seed: int) -> Path:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_leaf("No_BLD" not in where, 96, np.random.default_rng([5, seed])).save(path, quality=90)
    return path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A few photographs that nobody divided."""
    root = tmp_path / "my leaves"
    for number in range(6):
        draw(root, f"BLD/a{number}.jpg", number)
        draw(root, f"No_BLD/b{number}.jpg", 100 + number)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def findings(folder: Path = Path("audit")) -> dict[str, dict[str, object]]:
    content = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return {finding["name"]: finding for finding in content["findings"]}


@pytest.mark.parametrize("where", [".", "audit", "BLD/audit", "link"])
def test_nothing_is_written_among_the_photographs(
    where: str, flat: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("link").symlink_to(flat)
    before = contents(flat)
    outcome = bldml("audit", *ALONE, flat, f"--output={Path('link') if where == 'link' else flat / where}")
    assert outcome.mistake == "audit-output-among-photographs"
    assert contents(flat) == before
    monkeypatch.chdir(flat)
    outcome = bldml("audit", *ALONE, ".")
    assert outcome.mistake == "audit-output-among-photographs"
    assert f"--output {flat.parent}/audit" in outcome.err
    assert contents(flat) == before


def test_the_audit_of_another_folder_stays(flat: Path, tmp_path: Path, bldml: Bldml) -> None:
    other = Path(shutil.copytree(flat, tmp_path / "other"))
    assert bldml("audit", *ALONE, flat).code == 0
    before = contents(Path("audit"))
    outcome = bldml("audit", *ALONE, other)
    assert outcome.mistake == "audit-output-of-other-data"
    assert contents(Path("audit")) == before
    assert bldml("audit", *ALONE, flat).code == 0
    assert str(tmp_path) not in json.loads(before["audit.json"])["root_hash"]


def test_an_audit_of_version_0_1_is_resumed(flat: Path, bldml: Bldml) -> None:
    assert bldml("audit", *ALONE, flat).code == 0
    content = json.loads(Path("audit/audit.json").read_text())
    root_hash = content.pop("root_hash")
    for stored, code in (({"place": root_hash}, 0), ({"place": "0" * 24}, 2), ({}, 0)):
        Path("audit/audit.json").write_text(json.dumps({**content, **stored}))
        assert bldml("audit", *ALONE, flat).code == code
    Path("audit/audit.json").write_text(json.dumps({**content, "root": "elsewhere"}))
    assert bldml("audit", *ALONE, flat).code == 2


@pytest.mark.parametrize("name", ["audit.csv", "audit.html", "pairs.csv", "audit.json", "examined.jsonl"])
def test_files_of_others_stay(name: str, flat: Path, bldml: Bldml) -> None:
    Path("audit").mkdir()
    Path("audit", name).write_text("[1]\n")
    outcome = bldml("audit", *ALONE, flat)
    assert outcome.mistake == "audit-output-foreign"
    assert outcome.fields["path"].name == name
    assert contents(Path("audit")) == {name: b"[1]\n"}


def test_an_audit_stopped_before_its_last_file_goes_on(flat: Path, bldml: Bldml) -> None:
    assert bldml("audit", *ALONE, flat).code == 0
    for name in ("audit.html", "pairs.csv", "audit.csv"):
        Path("audit", name).unlink()
        assert bldml("audit", *ALONE, flat).code == 0


def test_photographs_without_splits(flat: Path, bldml: Bldml) -> None:
    """What the default split of fit does is no error of the photographs, and the page says so."""
    for number in range(30):  # by their names some come to lie in other splits than a0
        shutil.copy(flat / "BLD/a0.jpg", flat / f"BLD/x{number}.jpg")
    outcome = bldml("audit", *ALONE, flat)
    assert outcome.code == 0, outcome.err
    assert "No splits were given" in outcome.out
    page = Path("audit/audit.html").read_text(encoding="utf-8")
    assert "No splits were given" in page
    found = findings()
    assert found["exact"]["title"] == "1 group of identical files: 31 photographs"
    of_split = [name for name in found if name.startswith(("leak_", "few_", "lacking_"))]
    assert any(name.startswith("leak_exact") for name in of_split)
    assert any(name.startswith("few_") for name in of_split)
    for name in of_split:
        assert found[name]["severity"] == "warning"
        assert str(found[name]["command"]).startswith(f"python -m bldml split '{flat}'")


def test_photographs_with_splits(flat: Path, bldml: Bldml) -> None:
    lines = [
        f"{path.relative_to(flat)},{path.parent.name},{'train' if number % 2 else 'test'}"
        for number, path in enumerate(sorted(flat.rglob("*.jpg")))
    ]
    shutil.copy(flat / "BLD/a0.jpg", flat / "BLD/z.jpg")
    Path("splits.csv").write_text("\n".join(["path,label,split", *lines, "BLD/z.jpg,BLD,train"]) + "\n")
    outcome = bldml("audit", *ALONE, flat, "--manifest=splits.csv")
    assert outcome.code == 1
    assert "No splits" not in outcome.out + Path("audit/audit.html").read_text(encoding="utf-8")
    found = findings()
    assert found["leak_exact_train_test"]["severity"] == "error"
    assert "folds" in str(found["few_test"]["advice"])


def test_errors_of_the_disk_and_ctrl_c(flat: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("bldml.audit.command.audit_page", full)
    outcome = bldml("audit", *ALONE, flat)
    assert outcome.code == 2
    assert "audit: No space left on device" in outcome.err
    monkeypatch.setattr("bldml.audit.command.audit_page", stop)
    outcome = bldml("audit", *ALONE, flat)
    assert outcome.code == 130
    assert "run the same command again to resume" in outcome.err


def test_counts_are_said_rightly(flat: Path, bldml: Bldml) -> None:
    for number in range(2):
        shutil.copy(flat / f"BLD/a{number}.jpg", flat / f"No_BLD/wrong{number}.jpg")
    shutil.copy(flat / "No_BLD/b5.jpg", flat / "No_BLD/once more.jpg")
    (flat / "BLD/empty.jpg").write_bytes(b"")
    bldml("audit", *ALONE, flat)
    found = findings()
    assert found["two_classes"]["title"] == "2 pairs of duplicates with different classes: 4 photographs"
    assert found["exact"]["title"] == "1 pair of identical files: 2 photographs"
    page = Path("audit/audit.html").read_text(encoding="utf-8")
    assert "15 photographs of 2 classes were read completely; 1 photograph could not be read." in page
    assert "Shortcuts could not be tested: fewer than 10 independent photographs of a class." in page


def test_commands_on_the_page(flat: Path, bldml: Bldml) -> None:
    (flat / "BLD/empty.jpg").write_bytes(b"")
    bldml("audit", *ALONE, flat)
    page = Path("audit/audit.html").read_text(encoding="utf-8")
    codes = [re.sub("<.*?>", "", code) for code in re.findall("<code>.*?</code>", page)]
    assert f"python -m bldml split &#39;{flat}&#39; --folds 5" in codes
    assert "--data.unreadable exclude" in codes
    assert "`" not in page


@pytest.mark.parametrize(
    ("names", "told"), [(("a", "b", "c"), "there are 3 classes"), (("a",), "there are fewer than two")]
)
def test_shortcuts_that_were_not_tested(names: tuple[str, ...], told: str, tmp_path: Path, bldml: Bldml) -> None:
    for number, name in enumerate(names):
        draw(tmp_path / "data", f"{name}/leaf.jpg", number)
    outcome = bldml("audit", *ALONE, tmp_path / "data")
    summary = f"Shortcuts were not tested: {told}"
    assert summary in outcome.out
    assert summary in Path("audit/audit.html").read_text(encoding="utf-8").partition("</h2>")[2].partition("<h2")[0]


def test_one_is_said_as_one(tmp_path: Path, bldml: Bldml) -> None:
    """One row that does not fit on the page, and one group in two splits."""
    root = tmp_path / "leaves"
    rows = []
    for number in range(48):
        place = f"{'BLD' if number % 2 else 'No_BLD'}/{number}.jpg"
        draw(root, place, number)
        group = number // 3  # 16, one more than there are rows
        rows.append(f"{place},{Path(place).parent},{'test' if number == 0 else 'train'},tree {group}")
    Path("m.csv").write_text("path,label,split,group\n" + "\n".join(rows) + "\n")
    assert bldml("audit", *ALONE, root, "--manifest=m.csv").code == 1
    page = Path("audit/audit.html").read_text()
    assert "1 more row is in the CSV file." in page
    assert findings()["groups"]["title"] == "1 of 16 groups has photographs in more than one split"
