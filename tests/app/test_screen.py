"""What a person sees while a command runs: through a pseudo-terminal, and in the log file of the run."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

from tests.support import REPOSITORY, THREE_LAYERS, Bldml

LINE = re.compile(r"(\d+)/(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +(\S+) +(head|\d stages?|\d blocks?) +([\d.]*) ?(\*?)")


def terminal(folder: Path, *arguments: str) -> str:
    """Run a command in a terminal of 150 columns; return all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.three_layers", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment)
    os.close(theirs)
    parts = []
    with suppress(OSError):  # the terminal has no other end any more
        while part := os.read(ours, 65536):
            parts.append(part)
    os.close(ours)
    text = b"".join(parts).decode()
    assert process.wait(120) == 0, text
    return text


def screen(text: str) -> list[str]:
    """The lines that remain: a terminal that knows carriage return, line feed, cursor up, and nothing else."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[A|\r|\n|[^\x1b\r\n]+", text):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token == "\x1b[A":
            row -= 1
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + token + line[column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def test_the_lines_of_epochs_stay_and_no_text_is_torn(leaves: Path, tmp_path: Path) -> None:
    options = ["--run_name=r", f"--data.root={leaves}", "--trainer.max_epochs=5", "--data.cache_dir=pixels"]
    written = terminal(tmp_path, "fit", *THREE_LAYERS, *options, "--unfreezing.start_epoch=2", "--unfreezing.stages=1")
    shown = screen(written)
    assert {"Epoch 3:", "Validation:", "Evaluating test:"} <= set(re.findall(r"[EV][a-z]+(?: \w+)?:", written))
    assert "DataLoader" not in written
    rows = [found for line in shown if (found := LINE.search(line))]
    assert [int(row[1]) for row in rows] == [0, 1, 2, 3, 4]
    assert [row[7] for row in rows] == ["head", "head", "1 stage", "1 stage", "1 stage"]
    best = float("inf")
    for row in rows:
        # Equal in four digits, an epoch may be better or not.
        if f"{best:.4f}" != row[4]:
            assert bool(row[9]) == (float(row[4]) < best)
        best = min(best, float(row[4]))
    # Of every bar nothing stays; every other line is a whole message.
    assert not [line for line in shown if "it/s" in line or "%|" in line]
    log = (tmp_path / "lightning_logs/r/log.txt").read_text().splitlines()
    assert "Run folder:" in "".join(log)
    missing = [line for line in log if line not in shown]
    assert not missing, "\n".join(shown)
    place = [shown.index(line) for line in log]
    assert place == sorted(place)


def test_the_end_says_why_and_what_is_next(leaves: Path, bldml: Bldml) -> None:
    options = ("--run_name=r", f"--data.root={leaves}", "--trainer.max_epochs=9", "--early_stopping.patience=1")
    # The rate is so low that nothing improves beyond this difference.
    outcome = bldml("fit", *THREE_LAYERS, *options, "--early_stopping.min_delta=9", "--unfreezing.start_epoch=1")
    assert outcome.code == 0, outcome.err
    end = "early stopping, val_loss has not improved for 1 validation (early_stopping.patience)."
    assert re.search(r"Training ended after \d epochs? \(.*\): " + re.escape(end), outcome.err)
    assert re.search(r"Best epoch: \d, val_loss \d\.\d{4}\.", outcome.err)
    for command in ("bldml test --ckpt_path", "bldml predict --ckpt_path", "tensorboard --logdir"):
        assert command in outcome.out
    assert re.search(r"Results: .*lightning_logs/r \(\d+ MiB\)", outcome.out)
    assert Path("lightning_logs/r/log.txt").read_text() in outcome.err.replace("INFO: ", "")


def test_a_best_epoch_before_the_unfreezing_is_a_warning(leaves: Path, bldml: Bldml) -> None:
    options = (f"--data.root={leaves}", "--trainer.max_epochs=3", "--model.backbone_lr_factor=1e9")
    outcome = bldml("fit", *THREE_LAYERS, *options, "--unfreezing.start_epoch=1", "--early_stopping.check_finite=false")
    assert outcome.code == 0, outcome.err
    assert "The best epoch, 0, is before epoch 1, the first in which layers of the backbone were trained" in outcome.err
    assert re.search(r"Training ended after 3 epochs \(.*\): trainer.max_epochs is 3\.", outcome.err)
    outcome = bldml("fit", *THREE_LAYERS, *options, "--unfreezing.stages=0", "--model.lr=1e9")
    assert outcome.code == 0, outcome.err
    assert "no later epoch has improved val_loss" in outcome.err


def test_a_diverged_training_says_so(leaves: Path, bldml: Bldml) -> None:
    outcome = bldml("fit", *THREE_LAYERS, f"--data.root={leaves}", "--trainer.max_epochs=9", "--model.lr=1e38")
    assert "val_loss is not a finite number, so the classifier has diverged" in outcome.err


def test_a_resumed_run_goes_on_with_its_numbers(leaves: Path, bldml: Bldml) -> None:
    options = (f"--data.root={leaves}", "--run_name=r", "--trainer.max_epochs=2")
    assert bldml("fit", *THREE_LAYERS, *options).code == 0
    config = Path("lightning_logs/r/config.yaml")
    config.write_text(config.read_text().replace("max_epochs: 2", "max_epochs: 4"))
    outcome = bldml("fit", "--resume=lightning_logs/r")
    assert outcome.code == 0, outcome.err
    assert "Best so far: val_loss" in outcome.err
    assert [int(found[1]) for found in LINE.finditer(outcome.err)] == [2, 3]
    log = Path("lightning_logs/r/log.txt").read_text()
    assert [(int(found[1]), int(found[2])) for found in LINE.finditer(log)] == [(0, 1), (1, 1), (2, 3), (3, 3)]
