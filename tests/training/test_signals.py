"""Signals over the life of a process: in its first moments they must wait, in its last they must not count."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bldml.training.resume.signals import INTERRUPTING, Interrupted, InterruptSignals
from tests.support import REPOSITORY, THREE_LAYERS

TERM, INT, USR1, USR2, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
# As scripts/slurm/fit.sbatch starts the fit.
GUARD = ("env", "--block-signal=TERM,USR1,USR2")
INTERVAL_S = 0.05


@pytest.fixture
def signals() -> Iterator[InterruptSignals]:
    signals = InterruptSignals()
    yield signals
    signals.restore()


def start(folder: Path, command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def storm(process: subprocess.Popen[str], *kinds: signal.Signals) -> str:
    """Send the signals every 50 ms until the process has ended; return what it still said."""
    while True:
        try:
            return process.communicate(timeout=INTERVAL_S)[0]
        except subprocess.TimeoutExpired:
            for kind in kinds:
                process.send_signal(kind)


def how(process: subprocess.Popen[str], signum: int) -> set[str]:
    """How a process meets a signal: SigBlk if it waits, SigCgt if there is a handler, SigIgn; nothing by default."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    masks = dict(line.split(":\t", 1) for line in status if line.startswith("Sig"))
    return {name for name in ("SigBlk", "SigIgn", "SigCgt") if int(masks[name], 16) >> (signum - 1) & 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [USR1, USR2, TERM])
def test_from_the_first_moment_of_a_job(kind: signal.Signals, leaves: Path, tmp_path: Path) -> None:
    command = [*GUARD, sys.executable, "-m", "tests.three_layers", "fit", *THREE_LAYERS, f"--data.root={leaves}"]
    process = start(tmp_path, command)
    said = storm(process, kind)
    assert process.returncode == 128 + kind, said
    assert said.count(f"{kind.name} received") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_from_the_first_line_of_a_plain_process(leaves: Path, tmp_path: Path) -> None:
    """Without the guard nobody can listen while Python itself starts, which takes hundredths of a second."""
    process = start(tmp_path, [sys.executable, "-m", "bldml", "fit", f"--data.root={leaves}", "--model.weights=none"])
    while not (found := how(process, USR1)):
        assert process.poll() is None
    said = storm(process, INT, USR1)
    assert found == {"SigBlk"}  # long before there are handlers
    assert process.returncode == 128 + INT, said
    assert "Traceback" not in said


@pytest.mark.slow
def test_to_the_last_instruction_of_a_finished_run(leaves: Path, tmp_path: Path) -> None:
    options = (f"--data.root={leaves}", "--trainer.max_epochs=1", "--run_name=r")
    process = start(tmp_path, [sys.executable, "-u", "-m", "tests.three_layers", "fit", *THREE_LAYERS, *options])
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("Best checkpoint"):
            break
    rest = storm(process, TERM, USR1, USR2, INT, HUP)
    assert process.returncode == 0, "".join(said) + rest


def test_other_commands_let_signals_through(leaves: Path, tmp_path: Path) -> None:
    """Those that waited too."""
    process = start(tmp_path, [*GUARD, sys.executable, "-m", "bldml", "audit", str(leaves), "--output=out"])
    process.send_signal(TERM)
    time.sleep(INTERVAL_S)
    said = storm(process, TERM)
    assert process.returncode in (-TERM, 128 + TERM), said


def test_nothing_is_interrupted_after_the_end(signals: InterruptSignals, capfd: pytest.CaptureFixture[str]) -> None:
    signals.install()
    signals.end()
    for signum in INTERRUPTING:
        os.kill(os.getpid(), signum)
    signals.check()
    assert signals.received is None
    assert "SIGTERM received: the work is done" in capfd.readouterr().err


def test_a_signal_before_the_end_interrupts(signals: InterruptSignals) -> None:
    signals.install()
    os.kill(os.getpid(), USR1)
    with pytest.raises(Interrupted):
        signals.end()
    assert (signals.count(USR1), signals.count(TERM)) == (1, 0)


def test_what_waited_arrives_when_handlers_are_installed(signals: InterruptSignals) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [USR1])
    try:
        # Other threads of the tests do not block it.
        signal.pthread_kill(threading.get_ident(), USR1)
        signals.install()
        assert signals.received == USR1
        signals.restore()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {USR1}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])
