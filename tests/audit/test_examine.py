"""One photograph measured, and what was measured kept."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from bldml.audit.examine import examine_file
from bldml.audit.reading import MAX_MEASURED_OUTSIDE, examine_all, is_measured_outside
from bldml.audit.store import NAME, Store
from bldml.dataset.folders import read_folders
from bldml.dataset.synthetic.drawing import draw_leaf
from tests.support import REPOSITORY, mistake


def leaf(path: Path, seed: int = 0, size: int = 200) -> Path:
    picture = draw_leaf(False, size, np.random.default_rng(seed))
    if path.suffix == ".jpg":
        picture.save(path, quality=95)
    else:
        picture.save(path)
    return path


def test_border_is_of_the_border_alone(tmp_path: Path) -> None:
    picture = Image.new("RGB", (640, 480), (10, 200, 30))
    picture.paste((250, 0, 0), (60, 45, 580, 435))
    picture.save(tmp_path / "a.png")
    metadata = examine_file(tmp_path / "a.png").metadata
    assert metadata is not None
    assert metadata.border == (10, 200, 30, 0, 0, 0, 0)


def test_blur_lowers_sharpness_and_size_does_not_count(tmp_path: Path) -> None:
    picture = draw_leaf(True, 1024, np.random.default_rng(3))
    picture.save(tmp_path / "a.png")
    picture.filter(ImageFilter.GaussianBlur(12)).save(tmp_path / "b.png")
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX).save(tmp_path / "c.png")
    sharp, blurred, small = (examine_file(tmp_path / f"{name}.png").sharpness for name in "abc")
    assert blurred < sharp / 5
    assert small == pytest.approx(sharp, rel=0.1)


@pytest.mark.parametrize(("content", "told"), [(b"", "empty"), (b"GIF89a nothing", "GIF"), (None, "truncated")])
def test_what_cannot_be_used_has_a_reason(content: bytes | None, told: str, tmp_path: Path) -> None:
    path = leaf(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    found = examine_file(path)
    assert told in found.reason
    assert found.size == path.stat().st_size


def test_a_second_audit_decodes_nothing(tmp_path: Path, leaves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = read_folders(leaves)
    store = Store(tmp_path)
    first = examine_all(collection, store, 1)
    store.close(complete=True)
    moved = tmp_path / "moved"
    shutil.copytree(leaves, moved)  # another place, another time: known by its content
    for path in moved.rglob("*.jpg"):
        os.utime(path, (1, 1))

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr("bldml.audit.reading.examine_file", refuse)
    for root in (leaves, moved, moved):
        store = Store(tmp_path)
        again = examine_all(read_folders(root), store, 1)
        store.close(complete=True)
        assert [row.name for row in again] == [row.name for row in first]
        for one, two in zip(first, again, strict=True):
            assert one.file.metadata == two.file.metadata
            assert (one.file.digest, one.file.metadata) == (two.file.digest, two.file.metadata)
            assert (one.file.sharpness, one.file.brightness) == (two.file.sharpness, two.file.brightness)
            assert one.file.thumbnail is not None
            assert two.file.thumbnail is not None
            assert one.file.encoder == two.file.encoder
            assert (one.file.surroundings.free == two.file.surroundings.free).all()
            for name in ("has_leaf", "processing", "marks"):
                values = (getattr(row.file.surroundings, name) for row in (one, two))
                np.testing.assert_array_equal(*values)
            assert (one.file.phash == two.file.phash).all()
            assert (one.file.thumbnail == two.file.thumbnail).all()


def test_a_changed_file_is_examined_again(tmp_path: Path) -> None:
    """Even where it is as long as before."""
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        leaf(tmp_path / "data" / label / "x.bmp", seed=ord(label))
    collection = read_folders(tmp_path / "data")
    path = tmp_path / "data" / "a" / "x.bmp"
    sizes = set()
    for seed in (1, 2, 3):
        Image.new("RGB", (40, 30), (seed, 200, 0)).save(path)
        os.utime(path, (seed, seed))
        sizes.add(path.stat().st_size)
        store = Store(tmp_path)
        rows = examine_all(collection, store, 1)
        store.close(complete=True)
        assert {row.name: row.file.digest for row in rows}["a/x.bmp"] == examine_file(path).digest
    assert len(sizes) == 1


def test_half_a_line_and_a_damaged_one_are_read_again(tmp_path: Path, leaves: Path) -> None:
    collection = read_folders(leaves)
    store = Store(tmp_path)
    first = examine_all(collection, store, 1)
    store.close(complete=True)
    lines = (tmp_path / NAME).read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(first)
    lines[5] = lines[5].replace(b'"light"', b'"night"')
    (tmp_path / NAME).write_bytes(b"".join(lines)[:-40])
    store = Store(tmp_path)
    missing = [row.name for row in first if store.find(row.sample.path) is None]
    assert len(missing) == 2
    again = examine_all(collection, store, 1)
    store.close(complete=False)  # as after a kill: lines were appended behind half a line
    assert [row.file.digest for row in again] == [row.file.digest for row in first]
    store = Store(tmp_path)
    assert all(store.find(row.sample.path) is not None for row in first)
    store.close(complete=True)
    assert len((tmp_path / NAME).read_bytes().splitlines()) == 1 + len(first)


def test_another_version_is_forgotten(tmp_path: Path, leaves: Path) -> None:
    path = next(leaves.rglob("*.jpg"))
    store = Store(tmp_path)
    store.add(path, examine_file(path))
    store.close(complete=True)
    text = (tmp_path / NAME).read_text().splitlines()
    text[0] = json.dumps({"examined_by": [0, 0, "0"]})
    (tmp_path / NAME).write_text("\n".join(text) + "\n")
    store = Store(tmp_path)
    assert store.find(path) is None
    store.add(path, examine_file(path))
    store.close(complete=True)
    store = Store(tmp_path)
    assert store.find(path) is not None
    store.close(complete=True)


def test_no_path_is_written_down(tmp_path: Path, leaves: Path) -> None:
    store = Store(tmp_path)
    examine_all(read_folders(leaves), store, 1)
    store.close(complete=True)
    assert str(leaves) not in (tmp_path / NAME).read_text()
    assert "leaf_" not in (tmp_path / NAME).read_text()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with mistake("audit-output-not-writable"):
        Store(tmp_path / "none")


def test_a_killed_audit_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(150):
            leaf(tmp_path / "data" / label / f"{number:03}.jpg", seed=number + 1000 * ord(label), size=48)
    command = [sys.executable, "-m", "bldml", "audit", str(tmp_path / "data"), "--workers=2", "--power=off"]
    output = tmp_path / "audit" / NAME
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as process:
        while lines_of(output) < 40:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        children = children_of(process.pid)
        process.kill()
    assert len(children) >= 2
    end = time.monotonic() + 60
    while (left := [child for child in children if is_running(child)]) and time.monotonic() < end:
        time.sleep(0.05)
    for child in left:
        os.kill(child, signal.SIGKILL)
    assert not left
    assert lines_of(output) < 300
    store = Store(tmp_path / "audit")
    kept = sum(store.find(path) is not None for path in (tmp_path / "data").rglob("*.jpg"))
    store.close(complete=False)
    assert kept >= 38
    process_again = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert b"Wrote audit/audit.html" in process_again.stdout
    assert lines_of(output) == 301


def test_two_audits_do_not_share_a_folder(tmp_path: Path) -> None:
    code = f"import sys, pathlib; from bldml.audit.store import Store; held = Store(pathlib.Path({str(tmp_path)!r}))"
    code += "; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        with mistake("audit-running"):
            Store(tmp_path)
        holder.kill()
    Store(tmp_path).close(complete=True)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def children_of(process: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(folder.name))
    return found


def is_running(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(66):
            leaf(tmp_path / "data" / label / f"{number:02}.jpg", seed=number, size=32)
    (tmp_path / "data/a/05.jpg").write_bytes(b"no picture")
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        store = Store(folder)
        found.append(examine_all(read_folders(tmp_path / "data"), store, workers))
        store.close(complete=True)
    assert len(found[0]) == 132
    assert [row.name for row in found[0]] == [row.name for row in found[1]]
    assert [row.file.digest for row in found[0]] == [row.file.digest for row in found[1]]
    assert [row.file.reason for row in found[0]] == [row.file.reason for row in found[1]]
    assert sum(bool(row.file.reason) for row in found[0]) == 1


def test_of_a_large_set_about_so_many_are_measured_outside_the_leaf() -> None:
    for total in (100, MAX_MEASURED_OUTSIDE, 10 * MAX_MEASURED_OUTSIDE):
        measured = [is_measured_outside(f"BLD/leaf_{number}.jpg", total) for number in range(total)]
        assert sum(measured) == pytest.approx(min(total, MAX_MEASURED_OUTSIDE), rel=0.1)
