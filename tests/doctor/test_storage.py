"""Folders: room, rights, quota, and where they lie."""

import fcntl
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bldml.doctor import storage
from bldml.doctor.checks import Finding
from bldml.doctor.storage import (
    check_folder,
    check_group,
    check_home,
    check_modes,
    check_quota,
    check_scratch,
    check_writing,
    checkpoint_size,
    current_umask,
    read_quota,
    time_writing,
    writable_by,
)
from bldml.training.backbones import BACKBONES, build
from tests import three_layers

REMEDY = "export PLACE=FOLDER"
QUOTA = """\
Disk quotas for user jane (uid 1007):
     Filesystem   space   quota   limit   grace   files   quota   limit   grace
storage.example:/home/jane
                 28.5G     30G     32G            412k       0       0
     /dev/scratch   120M      0K      0K              12       0       0
     /dev/project  3000M   1024G   1100G           40000       0       0
"""


def test_folder_that_can_be_used_is_left_as_it_was(tmp_path: Path) -> None:
    finding = check_folder("run folder", tmp_path / "runs" / "lightning_logs", 0, REMEDY)
    assert finding.status in ("OK", "WARN")  # a nearly full disk is a warning
    assert f"will be created in {tmp_path}" in finding.found
    assert not list(tmp_path.iterdir())


def test_folder_without_room(tmp_path: Path) -> None:
    finding = check_folder("run folder", tmp_path, shutil.disk_usage(tmp_path).total * 2, REMEDY)
    assert finding.status == "FAIL"
    assert "checkpoints need" in finding.found


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)  # the superuser may write everywhere
    finding = check_folder("run folder", tmp_path, 0, REMEDY)
    assert (finding.status, finding.remedy) == ("FAIL", REMEDY)
    assert "Permission denied" in finding.found
    assert not list(tmp_path.iterdir())


def test_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, command: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    finding = check_folder("run folder", tmp_path, 0, REMEDY)
    assert finding.status == "WARN"
    assert "file locking is not available" in finding.found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 1, storage.CHUNK, 3 * storage.CHUNK + 5])
def test_as_much_is_written_as_was_asked_for(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: sizes.append(os.fstat(number).st_size))
    assert time_writing(tmp_path, size) >= 0
    assert sizes == [size]
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_there_is_no_room(tmp_path: Path) -> None:
    assert check_writing(tmp_path, shutil.disk_usage(tmp_path).total, None).status == "SKIP"


@pytest.mark.parametrize(
    ("seconds", "kill_wait", "status"),
    [(29.0, 30.0, "OK"), (31.0, 30.0, "WARN"), (29.0, None, "OK"), (31.0, None, "WARN"), (6.0, 5.0, "WARN")],
)
def test_time_to_save(
    seconds: float, kill_wait: float | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "time_writing", lambda folder, size: seconds)
    assert check_writing(tmp_path, 1000, kill_wait).status == status


def test_checkpoint_holds_three_numbers_a_parameter() -> None:
    count = sum(parameter.numel() for parameter in build("mobilenet_v2_x0_35").parameters())
    assert checkpoint_size("mobilenet_v2_x0_35") == 12 * count
    assert all(checkpoint_size(name) > 10**6 for name in BACKBONES if name != three_layers.NAME)


def test_quota_is_read() -> None:
    gib = 2**30
    assert read_quota(QUOTA) == [
        ("storage.example:/home/jane", 28.5 * gib, 30 * gib),
        ("/dev/project", 3000 * 2**20, 1024 * gib),
    ]
    assert read_quota("Disk quotas for user root (uid 0): none\n") == []


@pytest.mark.parametrize(("used", "status"), [("28G", "WARN"), ("20G", "OK"), ("31G*", "WARN")])
def test_quota(used: str, status: str, tmp_path: Path) -> None:
    program = tmp_path / "quota"
    program.write_text("#!/bin/bash\nwhile read -r line; do printf '%s\\n' \"$line\"; done <<'E'\n"
                       + QUOTA.replace("28.5G", used) + "E\n")  # fmt: skip
    program.chmod(0o755)
    assert check_quota({"PATH": f"{tmp_path}:{os.environ['PATH']}"}).status == status


def test_quota_that_is_not_known(tmp_path: Path) -> None:
    assert check_quota({"PATH": str(tmp_path)}).status == "SKIP"


@pytest.mark.parametrize(
    ("folder", "on_cluster", "statuses"),
    [("/home/jane/runs", True, ["WARN"]), ("/home/jane/runs", False, []), ("/project/beech/runs", True, ["OK"])],
)
def test_home_is_small(folder: str, on_cluster: bool, statuses: list[str]) -> None:
    assert [f.status for f in check_home(Path(folder), Path("/home/jane"), on_cluster)] == statuses


def test_scratch_says_how_long_the_oldest_file_has(tmp_path: Path) -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    folder = tmp_path / "beech"
    for name, days in (("new.jpg", 1), ("old.jpg", 80)):
        path = folder / "leaves" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        date = (now - timedelta(days=days)).timestamp()
        os.utime(path, (date, date))
    (finding,) = check_scratch("data folder", folder, now, tmp_path)
    assert finding.status == "WARN"
    assert "the oldest, old.jpg, is from 2026-09-06: 10 days left" in finding.found
    assert not list(check_scratch("data folder", folder, now, tmp_path / "elsewhere"))


def test_scratch_that_is_shared_is_told_too(tmp_path: Path) -> None:
    findings = list(check_scratch("data folder", tmp_path / "shared" / "beech", datetime.now(UTC), tmp_path))
    assert [finding.status for finding in findings] == ["WARN", "WARN"]
    assert "every user" in findings[1].found


@pytest.mark.parametrize(
    ("group", "mode", "status"),
    [("proj-beech", 0o2770, "OK"), ("proj-beech", 0o770, "WARN"), ("jane", 0o2770, "WARN")],
)
def test_group_of_a_project(
    group: str, mode: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "beech" / "runs"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    monkeypatch.setattr(storage, "read_group", lambda number: (group, []))
    (finding,) = check_group("run folder", folder / "to_come", tmp_path)
    assert finding.status == status
    if status == "WARN":
        assert f"chgrp -R proj-beech {folder}" in finding.remedy
    assert not list(check_group("run folder", folder, tmp_path / "other"))


@pytest.mark.parametrize(("mode", "who"), [(0o700, ""), (0o755, ""), (0o777, "everybody"), (0o775, "group others")])
def test_who_may_write(mode: int, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "read_group", lambda number: ("others", ["jane", "joe"]))
    tmp_path.chmod(mode)
    assert writable_by(tmp_path) == who
    assert writable_by(tmp_path / "none") == ""


def test_configuration_that_everybody_can_change(tmp_path: Path) -> None:
    def status() -> str:
        findings: list[Finding] = list(check_modes([tmp_path / "a.yaml"]))
        return next(finding.status for finding in findings if finding.name == "modes of configuration")

    tmp_path.chmod(0o700)
    assert status() == "OK"
    tmp_path.chmod(0o777)
    assert status() == "WARN"


def test_umask_is_read_and_put_back() -> None:
    before = os.umask(0o027)
    try:
        assert current_umask() == 0o027
        assert current_umask() == 0o027
    finally:
        os.umask(before)
