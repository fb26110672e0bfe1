"""What a person sees while a command runs: through a pseudo-terminal, and in the log file of the run."""

import csv
import fcntl
import hashlib
import logging
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bldml.app.screen.bar import RunLog
from bldml.app.screen.epochs import compare_with_wall_time
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.predictions import read_predictions
from bldml.training.checkpoint import read_checkpoint
from bldml.training.resume.slurm import WallTime
from tests.prepared import Prepared
from tests.support import THREE_LAYERS, Bldml

LINE = re.compile(r"(\d+)/(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +(\S+) +(head|\d stages?|\d blocks?) +([\d.]*) ?(\*?)")


def terminal(folder: Path, *arguments: str, interrupt_at: str | None = None) -> str:
    """Run a command in a terminal of 150 columns; return all that it wrote. Ctrl-C is typed when a text appears."""
    expected = 0
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
    command = [sys.executable, "-m", "tests.three_layers", *arguments]
    process = Prepared(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the terminal has no other end any more
        while part := os.read(ours, 65536):
            written += part
            if interrupt_at is not None and interrupt_at.encode() in written:
                process.send_signal(signal.SIGINT)
                interrupt_at, expected = None, 128 + signal.SIGINT
    os.close(ours)
    text = written.decode()
    assert process.wait(120) == expected, text
    return text


def screen(text: str) -> list[str]:
    """The lines that remain on a terminal: carriage return, line feed, cursor up, erase to the end of the line."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[AK]|\r|\n|[^\x1b\r\n]+", text):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token == "\x1b[A":
            row -= 1
        elif token == "\x1b[K":
            lines[row] = lines[row][:column]
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + token + line[column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def without_clock(path: Path) -> list[str]:
    """The lines of a log, each of which must begin with date and time."""
    lines = path.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( |$)", line) for line in lines)
    return [line[20:] for line in lines]


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
    log = without_clock(tmp_path / "lightning_logs/r/log.txt")
    assert "Run folder:" in "".join(log)
    missing = [line for line in log if line not in shown]
    assert not missing, "\n".join(shown)
    place = [shown.index(line) for line in log]
    assert place == sorted(place)


def test_an_interruption_leaves_no_bar(leaves: Path, tmp_path: Path) -> None:
    options = ["--run_name=r", f"--data.root={leaves}", "--trainer.max_epochs=500", "--early_stopping.patience=500"]
    shown = screen(terminal(tmp_path, "fit", *THREE_LAYERS, *options, interrupt_at="  1/499  "))
    assert not [line for line in shown if "it/s" in line or "%|" in line], "\n".join(shown)
    assert [line for line in shown if re.fullmatch(r"Saved .*last\.ckpt \(epoch \d+, \d+ steps\)\.", line)]
    assert "Resume:" in shown


def test_a_job_says_whether_its_wall_time_is_long_enough(
    leaves: Path, bldml: Bldml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in scontrol's place: the job has two minutes left of its hour, whatever this node's clock shows."""
    end = datetime(2025, 5, 6, 7, 8)
    times = f"RunTime=00:58:00 TimeLimit=01:00:00 StartTime=2025-05-06T06:08:00 EndTime={end:%FT%T}"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho JobId=12 JobState=RUNNING {times}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    outcome = bldml("fit", *THREE_LAYERS, f"--data.root={leaves}", "--trainer.max_epochs=2", "--unfreezing.stages=0")
    assert outcome.code == 0, outcome.err
    assert f"The wall time ends at {end:%Y-%m-%d %H:%M}, in 2 min 0 s: " in outcome.err
    assert (
        "at this pace, the training does not end before. It is then saved, and needs about 1 more start" in outcome.err
    )


@pytest.mark.parametrize(
    ("rest", "is_slower", "expected"),
    [
        (7 * 3600 - 181, False, "in 7 h 0 min: at this pace, the training ends before."),
        # The signal comes three minutes before the end.
        (7 * 3600 - 179, False, "needs about 1 more start of this length."),
        (7 * 3600 + 3 * 8 * 3600, False, "needs about 4 more starts of this length."),
        (7 * 3600, True, "needs at least 1 more start of this length."),
    ],
)
def test_starts_that_a_training_needs(rest: float, is_slower: bool, expected: str) -> None:
    wall_time = WallTime(datetime(2026, 11, 30, 1), timedelta(hours=8), timedelta(hours=7))
    assert compare_with_wall_time(rest, wall_time, is_slower=is_slower).endswith(expected)


def test_the_end_says_why_and_what_is_next(leaves: Path, bldml: Bldml) -> None:
    options = ("--run_name=r", f"--data.root={leaves}", "--trainer.max_epochs=9", "--early_stopping.patience=1")
    # The rate is so low that nothing improves beyond this difference.
    outcome = bldml("fit", *THREE_LAYERS, *options, "--early_stopping.min_delta=9", "--unfreezing.start_epoch=1")
    assert outcome.code == 0, outcome.err
    end = "early stopping, val_loss has not improved for 1 validation (early_stopping.patience)."
    assert re.search(r"Training ended after \d epochs? \(.*\): " + re.escape(end), outcome.err)
    assert re.search(r"Best epoch: \d, val_loss \d\.\d{4}\.", outcome.err)
    run = Path("lightning_logs/r").absolute()
    for command in (f"bldml test {run} ", f"bldml predict {run} ", f"tensorboard --logdir {run}\n"):
        assert command in outcome.out
    assert re.search(r"Results: .*lightning_logs/r \(\d+ MiB\)", outcome.out)
    said = "\n".join(without_clock(Path("lightning_logs/r/log.txt")))
    assert said in outcome.err.replace("INFO: ", "")


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
    log = "\n".join(without_clock(Path("lightning_logs/r/log.txt")))
    assert [(int(found[1]), int(found[2])) for found in LINE.finditer(log)] == [(0, 1), (1, 1), (2, 3), (3, 3)]


@pytest.fixture
def best(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy")) / "checkpoints/best.ckpt"


def test_predict_prints_the_verdict_on_one_photograph(best: Path, leaves: Path, bldml: Bldml) -> None:
    photograph = next(path for path in sorted((leaves / "BLD").iterdir()))
    outcome = bldml("predict", "--ckpt_path", best, "--data.root", photograph, "--trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    folder = best.parents[1] / "evaluations" / photograph.stem
    ((path, verdict, probability, of, threshold, digest),) = [
        [row[name] for name in ("path", "predicted_class", "probability", "probability_of", "threshold",
                                "checkpoint_sha256")]
        for row in csv.DictReader((folder / "predictions.csv").read_text().splitlines())
    ]  # fmt: skip
    assert (path, of) == (photograph.name, "BLD")
    assert (verdict == "BLD") == (float(probability) >= float(threshold))
    assert hashlib.sha256(best.read_bytes()).hexdigest().startswith(digest)
    assert len(digest) == 16
    assert f"\n{path}: {verdict}\n  The probability of BLD is {float(probability):.4f}" in outcome.out
    assert f"; BLD is predicted from {float(threshold):.4f} on." in outcome.out
    # Readers of the run still read the table.
    assert [row.path for row in read_predictions(folder / "predictions.csv")] == [path]
    assert bldml("report", best.parents[1]).code == 0


def test_predict_of_a_folder_counts_and_names_what_to_look_at(
    best: Path, run: Path, leaves: Path, tmp_path: Path, bldml: Bldml
) -> None:
    field = tmp_path / "field"
    write_leaves(field, images_per_class=3, size=96, seed=77)
    (field / "BLD" / "cut.jpg").write_bytes(b"not a photograph")
    options = ("--ckpt_path", best, "--data.root", field, "--trainer.accelerator=cpu", "--data.unreadable=exclude")
    outcome = bldml("predict", *options)
    assert outcome.code == 0, outcome.err
    assert "in training or validation" not in outcome.err
    rows = read_predictions(best.parents[1] / "evaluations/field/predictions.csv")
    diseased = sum(row.predicted_class == "BLD" for row in rows)
    assert f"6 photographs, predicted: {diseased} BLD, {6 - diseased} No_BLD" in outcome.out
    threshold = read_checkpoint(best).header.threshold
    sides = {True: 1 - threshold, False: threshold}
    far = {row.path: abs(row.probability - threshold) / sides[row.probability >= threshold] for row in rows}
    shown = [line.split()[2] for line in re.findall(r"^    0\.\d{4}  .*$", outcome.out, re.MULTILINE)]
    assert shown == sorted(far, key=lambda name: (round(far[name], 12), name))[:5]
    assert re.search(r"Could not be read: BLD/cut\.jpg \(.+\)", outcome.out)

    # By content, whatever their names, and by the run's table or the digests in the checkpoint alone.
    splits = csv.DictReader((run / "splits.csv").read_text().splitlines())
    split = {row["path"]: row["split"] for row in splits}
    for name, number in (("train", 2), ("val", 1), ("test", 1)):
        for path in [path for path, where in split.items() if where == name][:number]:
            shutil.copy(leaves / path, field / f"again-{name}-{Path(path).name}")
    outcome = bldml("predict", *options)
    assert "3 of 10 photographs were in training or validation (2 train, 1 val): their" in outcome.err
    bare = Path(shutil.copy(best, tmp_path / "bare.ckpt"))
    outcome = bldml("predict", "--ckpt_path", bare, *options[2:])
    assert "3 of 10 photographs were in training or validation: their" in outcome.err


def test_nothing_is_said_of_a_wall_time_that_is_over() -> None:
    wall_time = WallTime(datetime(2026, 11, 30, 1), timedelta(hours=8), timedelta(seconds=-20))
    assert compare_with_wall_time(60, wall_time) == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_reader_that_has_seen_enough_is_no_mistake_and_a_full_log_is_one() -> None:
    """`bldml --help | head -0`, and a log on a full disk: what Python would say of both is a traceback."""
    command = [sys.executable, "-m", "bldml"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        ended = subprocess.run([*command, "--help"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*command, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert ended.returncode == 1
        said = "bldml: error: Nothing more can be printed to <stdout>: No space left on device.\n"
        assert ended.stderr == said
        # What cannot be said is no other mistake.
        assert subprocess.run([*command, "nonsense"], stderr=full, check=False).returncode == 2


def test_a_log_that_cannot_be_written_is_said_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault campaign found a traceback for each message, on a full disk."""
    logger = logging.getLogger("lightning.pytorch")
    # Lightning's own handlers, here and above, may write to the stderr of an earlier test.
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    with RunLog() as log:
        logger.warning("first")
        log.write_to(Path("/dev/full"))
        logger.warning("second")
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert told.count("/dev/full cannot be written: No space left on device") == 1
