"""bldml runs on Linux, macOS and Windows."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from bldml.dataset.files import escape_path
from bldml.dataset.folders import split_of
from bldml.io import platform
from tests.support import REPOSITORY

ONLY_ROOM = REPOSITORY / "bldml" / "io" / "platform.py"


@pytest.mark.slow
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_commands_run_without_what_another_system_lacks(system: str, tmp_path: Path) -> None:
    if sys.platform not in ("linux", system):
        pytest.skip("Only Linux can be made to lack what others lack.")
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONIOENCODING": "cp1252",
        "BLDML_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-m", "tests.other_system", system],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        check=False,
    )
    shown = done.stdout.decode("cp1252")
    assert done.returncode == 0, shown + done.stderr.decode("cp1252", "replace")
    *_, text, line = shown.splitlines()
    assert text == "-0.5 × …"
    found = json.loads(line)
    assert len(found["codes"]) >= 4
    assert set(found["codes"].values()) == {0}, shown + done.stderr.decode("cp1252", "replace")
    assert found["refused"] == []
    assert found["windows"] is (system == "win32")


def test_one_module_asks_for_the_system() -> None:
    asking = ("sys.platform", "os.name", "platform.system")
    found = {
        path
        for path in (REPOSITORY / "bldml").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in asking
    }
    assert found == {ONLY_ROOM}


@pytest.mark.parametrize("system", [PurePosixPath, PureWindowsPath])
def test_names_have_slashes_and_the_same_split_on_every_system(system: type[PurePath]) -> None:
    assert escape_path(system("BLD", "tree 7", "a.jpg")) == "BLD/tree 7/a.jpg"
    names = [f"tree_{number}/a.jpg" for number in range(20)]
    assert [split_of(system(name), 0.3, 0.3) for name in names] == [
        split_of(PurePosixPath(name), 0.3, 0.3) for name in names
    ]


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "−1 × “é”…"), ("cp1252", "-1 × “é”…"), ("ascii", r'-1 x "\xe9"...')],
)
def test_a_terminal_without_unicode_shows_all_text(encoding: str, written: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    platform.write_any_text(stream)
    stream.write("−1 × “é”…")
    stream.seek(0)
    assert stream.read() == written
