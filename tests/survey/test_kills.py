"""A survey that is killed, or whose disk is full: what is done stays done, and the end is the same."""

import contextlib
import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prepared import Prepared
from tests.support import Bldml

resource = pytest.importorskip("resource")  # Windows has none, and no such kill

COPIES = 6  # of 60 drawn leaves
RESULTS = ("survey.csv", "survey.geojson", "survey.qml", "units.csv")


@pytest.fixture
def photographs(leaves: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    for number in range(COPIES):
        shutil.copytree(leaves, folder / f"tree {number}")
    return folder


def lines(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def start_and_kill(arguments: list[str], file: Path, least: int) -> None:
    """Start the command, and kill it as soon as the file of its progress has so many lines."""
    process = Prepared([sys.executable, "-m", "bldml", *arguments], stdout=subprocess.DEVNULL)
    try:
        while lines(file) < least:
            assert process.poll() is None
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def test_survey_killed_twice_ends_like_one_in_one_go(run: Path, photographs: Path, bldml: Bldml) -> None:
    options = ["--sheet=0", "--group=folder", "--device=cpu"]
    whole = bldml("survey", run, photographs, "--output=whole", *options)
    assert whole.code == 0, whole.err
    file = Path("killed/progress.jsonl")
    for least in (60, 150):
        start_and_kill(["survey", str(run), str(photographs), "--output=killed", *options], file, least)
        assert least <= lines(file) <= 60 * COPIES
    before = lines(file)
    assert not Path("killed/survey.csv").exists()
    last = bldml("survey", run, photographs, "--output=killed", *options)
    assert last.code == 0, last.err
    assert 0 < int(last.out.split("; ")[1].split()[0]) <= 60 * COPIES - before + 2  # a broken line, and the head
    for name in RESULTS:
        assert (Path("killed") / name).read_bytes() == (Path("whole") / name).read_bytes(), name
    assert whole.out.splitlines()[1:-6] == last.out.splitlines()[1:-6]  # the summary


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let writes beyond `size` bytes fail half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_what_is_done(run: Path, photographs: Path, bldml: Bldml) -> None:
    assert bldml("survey", run, photographs, "--output=whole", "--sheet=0").code == 0
    with file_size_limit(4000):
        outcome = bldml("survey", run, photographs, "--output=full", "--sheet=0")
    assert outcome.mistake == "survey-not-writable"
    done = lines(Path("full/progress.jsonl")) - 2  # the head, and the broken line
    assert done > 10
    with file_size_limit(60_000):  # enough for the progress, not for the results
        outcome = bldml("survey", run, photographs, "--output=full", "--sheet=0")
    assert outcome.mistake == "file-not-writable"
    # The table is smaller than the map, which was not written, nor a part of it.
    assert {path.name for path in Path("full").iterdir() if "lock" not in path.name} == {"progress.jsonl", "survey.csv"}
    outcome = bldml("survey", run, photographs, "--output=full", "--sheet=0")
    assert "; 0 to judge" in outcome.out
    with Path("full/survey.csv").open(encoding="utf-8", newline="") as text:
        assert len(list(csv.DictReader(text))) == 60 * COPIES
    assert Path("full/survey.csv").read_bytes() == Path("whole/survey.csv").read_bytes()
