"""Two processes that write one output: the second says so, or waits; `benchmarks/together.py` tries many pairs."""

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bldml.app.trainer import run_pass
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.io.locks import OUTPUT_LOCK, Lock, hold_output
from tests.support import REPOSITORY, Bldml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the other process is stopped by closing its input")

HOLD = """
import sys, time
from pathlib import Path
from bldml.io.locks import hold_output
with hold_output(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read(1)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held(output: Path, seconds: float = 0.0) -> Iterator[Callable[[], None]]:
    """Another process writes this output; it ends so many seconds after the function was called, or at the end."""
    words = [sys.executable, "-c", HOLD, str(output), str(seconds)]
    with subprocess.Popen(words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.stdin.close
        process.stdin.close()


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A run of its own, and another one beside it."""
    shutil.copytree(run, tmp_path / "logs/other")
    return Path(shutil.copytree(run, tmp_path / "logs/small"))


def test_long_commands_say_so(run: Path, leaves: Path, bldml: Bldml) -> None:
    output = Path("out").absolute()
    output.mkdir()
    with held(output):
        assert bldml("explain", run, leaves / "BLD", "--output=out").mistake == "output-in-use"
        assert [file.name for file in output.iterdir()] == [OUTPUT_LOCK]
    with held(output / "splits.csv"):
        assert bldml("split", leaves, "--output=out/splits.csv").mistake == "output-in-use"
    assert not list(output.iterdir())


def test_what_is_written_at_the_end_waits(
    own: Path, leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the other process is done; here that takes longer than anybody waits."""
    for module in ("report.page", "report.comparison.page", "app.evaluation_record"):
        monkeypatch.setattr(f"bldml.{module}.SHORTLY_S", 0.0)
    with held(own):
        before = (own / "report.html").read_bytes() if (own / "report.html").exists() else b""
        report = bldml("report", own)
        assert report.mistake == "output-in-use"
        assert str(report.error).endswith("Wait until it has ended.")  # it has no option for another output
        assert bldml("test", own, "--trainer.accelerator=cpu", "--report=false").mistake == "output-in-use"
        assert ((own / "report.html").read_bytes() if before else b"") == before
    output = Path("out").absolute()
    output.mkdir()
    with held(output):
        assert bldml("compare", own, own.parent / "other", "--output=out").mistake == "output-in-use"
    assert not list(output.iterdir())


def test_it_waits_until_the_other_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held(tmp_path, seconds=0.3) as end:
        end()
        with hold_output(tmp_path, wait=60):
            assert (tmp_path / OUTPUT_LOCK).exists()  # not the file that the other one has removed
    assert capsys.readouterr().err == (
        f"Waiting for another process, which is writing {tmp_path}, for up to 60 s.\n"  # said once
    )
    assert not list(tmp_path.iterdir())


def test_a_file_system_on_which_a_lock_never_is_the_file_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each look gives another number: it goes on without a lock."""
    monkeypatch.setattr(Lock, "is_of", lambda lock, path: False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with hold_output(tmp_path), hold_output(tmp_path):
        pass


def test_what_a_killed_process_leaves_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / OUTPUT_LOCK).touch()
    with hold_output(tmp_path):
        assert (tmp_path / OUTPUT_LOCK).exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_cannot_be_closed_is_given_up_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that reports a full disk only then; a fit that had written everything ended with 1."""

    class Full(io.FileIO):
        def close(self) -> None:
            if not self.closed:
                super().close()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Full(path, mode))
        lock = Lock(tmp_path / "lock")
    lock.close()
    Lock(tmp_path / "lock").close()


@pytest.mark.parametrize("other", [False, True])
def test_other_photographs_under_the_same_name(
    other: bool, own: Path, leaves: Path, tmp_path: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has written an evaluation of this name after this one had looked for it."""
    more, third, folder = tmp_path / "more", tmp_path / "third", own / "evaluations/site"
    write_leaves(more, images_per_class=3, size=64, seed=2)
    write_leaves(third, images_per_class=4, size=64, seed=3)
    words = ("--name=site", "--trainer.accelerator=cpu", "--report=false")
    assert bldml("test", own, more, *words).code == 0
    shutil.move(folder, tmp_path / "written")

    def passing(*arguments: object) -> None:
        run_pass(*arguments)  # type: ignore[arg-type]
        if other:
            shutil.copytree(tmp_path / "written", folder, dirs_exist_ok=True)

    monkeypatch.setattr("bldml.app.evaluation.run_pass", passing)
    outcome = bldml("test", own, third, *words)
    assert outcome.mistake == ("evaluation-of-other-photographs" if other else None)
    rows = (folder / "predictions.csv").read_text().splitlines()
    assert len(rows) == (7 if other else 9)
    assert not (folder / ".unfinished").exists()
