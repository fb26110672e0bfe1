"""Look-alikes in `bldml audit`: shown and not accused, stored, and offered to `split` as a table of groups."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bldml.audit.keypoints import KeypointStore
from bldml.dataset.duplicates.keypoints import describe_keypoints
from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.dataset.synthetic.leaves import write_leaves
from tests.support import Bldml


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 different leaves; one of train is turned in test, another in train; a third is turned in the other class."""
    root = tmp_path_factory.mktemp("planted") / "data"
    write_leaves(root, images_per_class=10, size=256, seed=21, splits={"train": 0.6, "val": 0.2, "test": 0.2})
    first, second, third = sorted((root / "train/BLD").glob("*.jpg"))[:3]
    for original, name in ((first, "test/BLD/a.jpg"), (second, "train/BLD/b.jpg"), (third, "train/No_BLD/c.jpg")):
        Image.open(original).rotate(25, Image.Resampling.BICUBIC, expand=True).save(root / name, quality=90)
    return root


def read() -> tuple[dict[str, Any], dict[str, Any], list[dict[str, str]]]:
    content = json.loads(Path("audit/audit.json").read_text(encoding="utf-8"))
    with Path("audit/pairs.csv").open(encoding="utf-8", newline="") as file:
        pairs = [row for row in csv.DictReader(file) if row["kind"] == "lookalike"]
    return content, {finding["name"]: finding for finding in content["findings"]}, pairs


def test_look_alikes_are_shown_and_not_accused(planted: Path, bldml: Bldml) -> None:
    outcome = bldml("audit", planted, "--power=off")
    assert outcome.code == 0, outcome.err
    content, findings, pairs = read()
    across, within = findings["lookalikes_across"], findings["lookalikes"]
    assert (across["severity"], len(across["examples"])) == ("warning", 2)
    assert (within["severity"], len(within["examples"])) == ("info", 1)
    assert len(pairs) == 3
    new = {"a.jpg", "b.jpg", "c.jpg"}
    assert all(len({Path(pair[end]).name for end in ("path_a", "path_b")} & new) == 1 for pair in pairs)
    assert content["look_alikes"]["searched_by"] == "keypoints"
    assert content["findings_by_severity"]["error"] == 0
    page = Path("audit/audit.html").read_text(encoding="utf-8")
    assert "Photograph test/BLD/a.jpg" in page
    assert "This is no proof" in page
    said = " ".join(finding[part] for finding in (across, within) for part in ("title", "text", "advice"))
    assert "duplicate" not in said

    assert bldml("split", planted, "--group", "audit/lookalikes.csv").code == 0
    with Path("splits.csv").open(encoding="utf-8", newline="") as file:
        split = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert all(split[pair["path_a"]] == split[pair["path_b"]] for pair in pairs)


def test_off_searches_and_stores_nothing(planted: Path, bldml: Bldml) -> None:
    assert bldml("audit", planted, "--power=off", "--look_alikes", "off").code == 0
    content, findings, pairs = read()
    assert not pairs
    assert not [name for name in findings if name.startswith("lookalikes")]
    assert content["look_alikes"]["searched_by"] is None
    assert {path.name for path in Path("audit").iterdir()}.isdisjoint({"keypoints.bin", "lookalikes.csv"})
    assert "were not searched" in Path("audit/audit.html").read_text(encoding="utf-8")
    # Then with it: photographs that are known are described all the same.
    assert bldml("audit", planted, "--power=off").code == 0
    assert len(read()[2]) == 3


def test_a_second_audit_describes_only_what_is_not_stored(planted: Path, bldml: Bldml) -> None:
    assert bldml("audit", planted, "--power=off").code == 0
    pairs, stored = read()[2], Path("audit/keypoints.bin")
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-100])
    assert bldml("audit", planted, "--power=off").code == 0
    assert read()[2] == pairs
    assert stored.read_bytes() == whole


def test_files_of_others_are_not_overwritten(planted: Path, bldml: Bldml) -> None:
    Path("audit").mkdir()
    for name in ("keypoints.bin", "lookalikes.csv"):
        path = Path("audit", name)
        path.write_text("mine\n")
        outcome = bldml("audit", planted, "--power=off")
        assert (outcome.error and outcome.error.code, outcome.code) == ("audit-output-foreign", 2)
        assert path.read_text() == "mine\n"
        path.unlink()


def test_descriptions_of_photographs_that_are_gone_are_removed(planted: Path, tmp_path: Path, bldml: Bldml) -> None:
    root = Path(shutil.copytree(planted, tmp_path / "copy"))
    assert bldml("audit", root, "--power=off").code == 0
    before = Path("audit/keypoints.bin").stat().st_size
    for path in (root / "val").rglob("*.jpg"):
        path.unlink()
    bldml("audit", root, "--power=off")
    assert Path("audit/keypoints.bin").stat().st_size < before
    assert len(read()[2]) == 3


def test_damaged_descriptions_are_not_read(tmp_path: Path) -> None:
    described = [describe_keypoints(draw_leaf(True, 96, np.random.default_rng(seed))) for seed in range(3)]
    digests = [digit * 64 for digit in "abc"]
    store = KeypointStore(tmp_path)
    for digest, one in zip(digests, described, strict=True):
        store.add(digest, one.to_bytes())
    store.close()
    whole = store.path.read_bytes()
    damaged = {
        3: whole,
        2: whole[:-1],
        1: whole[: -2 * len(whole) // 5],
        0: b'{"keypoints_by": [0, ""]}\n' + whole.partition(b"\n")[2],
    }
    for intact, content in (*damaged.items(), (2, whole[:-1] + b"?"), (3, whole + b"d" * 64)):
        store.path.write_bytes(content)
        store = KeypointStore(tmp_path)
        assert [digest in store for digest in digests] == [number < intact for number in range(3)]
        store.add(digests[2], described[2].to_bytes())
        assert np.array_equal(store[digests[2]].descriptors, described[2].descriptors)
        store.close()
        assert digests[2] in KeypointStore(tmp_path)
