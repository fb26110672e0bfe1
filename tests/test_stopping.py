"""Plain commands that a signal interrupts: at a safe point, with what is done kept, and the end is the same."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bldml.io.atomic import write_atomically
from bldml.training.resume.signals import InterruptSignals
from bldml.training.resume.stopping import NO_PROGRESS
from tests.support import ALONE, THREE_LAYERS, Bldml

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")

# What a command is typed with, behind which its output is one folder or file, and the results that hold no time.
COMMANDS: dict[str, tuple[Callable[[Path, Path], list[object]], tuple[str, ...]]] = {
    "audit": (lambda run, leaves: [leaves, *ALONE, "--output=out"], ("audit.csv", "pairs.csv")),
    "explain": (lambda run, leaves: [run, leaves / "BLD", "--output=out"], ("explanations.csv", "contact_sheet.png")),
    "survey": (lambda run, leaves: [run, leaves, "--sheet=2", "--output=out"], ("survey.csv", "survey.geojson")),
    "split": (lambda run, leaves: [leaves, "--output=out"], ("",)),
    "report": (lambda run, leaves: [run], ("report.html",)),
    "compare": (lambda run, leaves: [run, run.parent / "other", "--output=out"], ("comparison.csv",)),
    "export": (lambda run, leaves: [run, "--photographs", leaves / "BLD", "--output=out"], ("model.onnx",)),
}


class Interrupting:
    """Sends a signal at the safe point with this number, counted from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.signum, self.passed, check = 0, signal.SIGTERM, 0, InterruptSignals.check

        def passing(signals: InterruptSignals) -> None:
            self.passed += 1
            if self.passed == self.at:
                os.kill(os.getpid(), self.signum)
            check(signals)

        monkeypatch.setattr(InterruptSignals, "check", passing)

    def arm(self, at: int, signum: signal.Signals = signal.SIGTERM) -> None:
        self.at, self.signum, self.passed = at, signum, 0


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Interrupting:
    return Interrupting(monkeypatch)


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A run of its own, and another one beside it."""
    shutil.copytree(run, tmp_path / "logs/other")
    return Path(shutil.copytree(run, tmp_path / "logs/small"))


@pytest.mark.parametrize("name", list(COMMANDS))
def test_command_stops_at_safe_points_and_ends_the_same(
    name: str, own: Path, leaves: Path, bldml: Bldml, interrupting: Interrupting
) -> None:
    if name == "export":  # of a network of three layers, which takes a fifth of the time
        pytest.importorskip("onnxruntime")
        assert bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--run_name=few", "--trainer.max_epochs=1").code == 0
        own = Path("lightning_logs/few").absolute()
    arguments, results = COMMANDS[name]
    out = own if name == "report" else Path("out")

    def content() -> list[bytes]:
        return [(out / result if result else out).read_bytes() for result in results]

    interrupting.arm(0)
    assert bldml(name, *arguments(own, leaves)).code == 0
    points, whole = interrupting.passed, content()
    assert points >= 2, "it has hardly a place at which it can be interrupted"
    if name != "report":
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    for at, signum in ((1, signal.SIGTERM), (points // 2 + 1, signal.SIGUSR1), (2, signal.SIGHUP)):
        interrupting.arm(at, signum)
        outcome = bldml(name, *arguments(own, leaves))
        assert outcome.code == 128 + signum, outcome.err
        assert "run the same command again" in outcome.err
        assert "Traceback" not in outcome.err
    interrupting.arm(0)
    outcome = bldml(name, *arguments(own, leaves))
    assert outcome.code == 0, outcome.err
    assert content() == whole
    if name in ("audit", "explain", "survey"):
        assert "what is done is kept" in outcome.err or interrupting.passed <= points


def test_a_signal_after_the_last_safe_point_changes_nothing(
    leaves: Path, bldml: Bldml, interrupting: Interrupting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bldml("split", leaves, "--output=a.csv").code == 0
    name = "bldml.dataset.splitting.command.write_atomically"

    def killed(path: Path, content: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write_atomically(path, content)

    monkeypatch.setattr(name, killed)
    assert bldml("split", leaves, "--output=b.csv").code == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


@pytest.mark.parametrize(("restarts", "at", "code"), [("2", 1, 1), ("1", 1, 138), ("2", 90, 138)])
def test_a_job_that_keeps_nothing_is_not_requeued_for_ever(
    restarts: str, at: int, code: int, leaves: Path, bldml: Bldml, interrupting: Interrupting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", "")  # there is no scontrol, so that the job is not requeued in the other cases
    for variable, value in {"JOB_ID": "12", "RESTART_COUNT": restarts, "JOB_NAME": "audit"}.items():
        monkeypatch.setenv(f"SLURM_{variable}", value)
    # Every file is first looked up among those that were examined before.
    interrupting.arm(at, signal.SIGUSR1)
    outcome = bldml("audit", leaves, *ALONE, "--output=out")
    assert outcome.code == code, outcome.err
    assert (outcome.mistake == "job-without-progress") == (code == 1)
    said = f"Job 12 is not requeued: start 3 got SIGUSR1, the signal of the wall time, {NO_PROGRESS}"
    assert (said in outcome.err) == (code == 1)


@pytest.mark.slow
def test_audit_of_several_processes_is_signalled_as_a_whole(leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    """Slurm signals all processes of a step; a worker that a signal ends would end the audit with a false reason."""
    root = tmp_path / "photographs"
    for number in range(4):
        for name in ("BLD", "No_BLD"):
            shutil.copytree(leaves / name, root / name / str(number))
    command = [sys.executable, "-m", "bldml", "audit", str(root), "--workers=2", *ALONE]
    done = tmp_path / "out" / "examined.jsonl"
    for kind in (signal.SIGUSR1, signal.SIGTERM):
        before = done.stat().st_size if done.exists() else 0
        process = subprocess.Popen(
            [*command, f"--output={done.parent}"], start_new_session=True, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and (done.stat().st_size if done.exists() else 0) <= before + 20_000:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + kind, err
        assert "Interrupted; what is done is kept." in err
        assert "Traceback" not in err
    assert bldml("audit", root, *ALONE, f"--output={done.parent}").code in (0, 1)
    assert bldml("audit", root, *ALONE, "--output=whole").code in (0, 1)
    for name in ("audit.csv", "pairs.csv"):
        assert (done.parent / name).read_bytes() == (Path("whole") / name).read_bytes()
