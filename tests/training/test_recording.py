"""What a run writes down: the table of epochs, predictions, the environment."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from bldml.metrics.assessment import evaluate
from bldml.metrics.operating_point import OperatingPoint, to_probabilities
from bldml.run.predictions import read_predictions
from bldml.training import recording
from bldml.training.checkpoint import Header, software_versions
from bldml.training.data.loading import UNLABELLED
from bldml.training.recording import (
    EpochTable,
    PredictionRecorder,
    Row,
    code_digest,
    git_commit,
    record_conditions,
    record_environment,
)
from tests.support import REPOSITORY, mistake

HEADER = Header(
    "resnet50", 224, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), ("BLD", "No_BLD"), "BLD", 0.3, 2.0, {}, "", {}, {"data": {}}
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_values_of_an_epoch_are_one_row(tmp_path: Path) -> None:
    table = EpochTable(tmp_path / "history.csv")
    table.log_metrics({"val_loss": 0.5, "epoch": 0.0}, step=4)
    table.save()
    assert rows(table.path) == [{"epoch": "0", "step": "4", "val_loss": "0.5"}]
    table.log_metrics({"train_loss": 0.75, "epoch": 0}, step=5)
    table.log_metrics({"val_loss": 0.1 + 0.2, "epoch": 1}, step=9)
    table.save()
    assert rows(table.path) == [
        {"epoch": "0", "step": "5", "val_loss": "0.5", "train_loss": "0.75"},
        {"epoch": "1", "step": "9", "val_loss": "0.30000000000000004", "train_loss": ""},
    ]
    # A later value of the same epoch takes the place of the earlier one; rows are in order of epochs.
    table.log_metrics({"val_loss": math.nan, "epoch": 1}, step=None)
    table.log_metrics({"lr_head": 1e-3, "epoch": 3}, step=12)
    table.log_metrics({"lr_head": 1e-2, "epoch": 2}, step=11)
    table.save()
    found = rows(table.path)
    assert [row["epoch"] for row in found] == ["0", "1", "2", "3"]
    assert [row["lr_head"] for row in found] == ["", "", "0.01", "0.001"]
    assert math.isnan(float(found[1]["val_loss"]))


def test_the_callers_metrics_are_left_alone(tmp_path: Path) -> None:
    metrics = {"val_loss": 0.5, "epoch": 0.0}
    EpochTable(tmp_path / "history.csv").log_metrics(metrics, step=4)
    assert metrics == {"val_loss": 0.5, "epoch": 0.0}


def test_table_is_replaced_whole(tmp_path: Path) -> None:
    """A reader that opened the old table goes on reading it; no half-written or temporary file is left."""
    table = EpochTable(tmp_path / "history.csv")
    table.log_metrics({"val_loss": 0.5, "epoch": 0}, step=1)
    table.save()
    old = table.path.read_text()
    with table.path.open() as reader:
        table.log_metrics({"val_loss": 0.4, "train_loss": 1.0, "epoch": 1}, step=2)
        table.save()
        assert reader.read() == old
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    assert len(rows(table.path)) == 2


def test_an_epoch_is_shown_once_and_whole(tmp_path: Path) -> None:
    shown: list[Row] = []
    table = EpochTable(tmp_path / "history.csv", shown.append)
    table.log_metrics({"val_loss": 0.5, "epoch": 2}, step=1)
    assert not shown
    table.log_metrics({"train_loss": 0.75, "epoch": 2}, step=1)
    assert shown == [{"epoch": 2, "step": 1, "val_loss": 0.5, "train_loss": 0.75}]


def recorder(folder: Path, header: Header = HEADER) -> PredictionRecorder:
    return PredictionRecorder(folder, header)


def feed(recorder: PredictionRecorder, verb: str, labels: list[int], logits: list[float], first: int = 0) -> None:
    numbers = range(first, first + len(labels))
    batch: dict[str, Any] = {
        "label": torch.tensor(labels),
        "path": [f"leaf {n}.jpg" for n in numbers],
        "group": [f"tree {n % 2}" for n in numbers],
    }
    outputs = torch.tensor(logits, dtype=torch.float32)
    getattr(recorder, f"on_{verb}_batch_end")(Trainer.__new__(Trainer), LightningModule(), outputs, batch, 0)


def bursts(n: int) -> dict[str, str]:
    return {f"leaf {number}.jpg": "" for number in range(n)}


@pytest.mark.parametrize("verb", ["validation", "test"])
@pytest.mark.parametrize("positive", ["BLD", "No_BLD"])
def test_labelled(verb: str, positive: str, tmp_path: Path) -> None:
    header = Header(**asdict(HEADER) | {"positive_class": positive})
    negative = {"BLD": "No_BLD", "No_BLD": "BLD"}[positive]
    used = recorder(tmp_path / "evaluations" / "val", header)
    labels, logits = [1, 0, 1, 0, 1], [3.0, -4.0, -1.5, 1.0, -2.0]
    feed(used, verb, labels[:3], logits[:3])
    feed(used, verb, labels[3:], logits[3:], first=3)
    used.write({f"leaf {n}.jpg": "leaf 1.jpg" if n in (1, 2) else "" for n in range(5)})
    found = read_predictions(used.folder / "predictions.csv")
    probabilities = [1 / (1 + math.exp(-logit / 2.0)) for logit in logits]
    assert [row.path for row in found] == [f"leaf {n}.jpg" for n in range(5)]
    assert [row.group for row in found] == ["tree 0", "tree 1", "tree 0", "tree 1", "tree 0"]
    assert [row.burst for row in found] == ["", "leaf 1.jpg", "leaf 1.jpg", "", ""]
    assert [row.true_class for row in found] == [positive if label else negative for label in labels]
    assert [row.probability for row in found] == pytest.approx(probabilities, abs=1e-12)
    # The header's threshold of 0.3, not 0.5, decides: the third photograph has 0.32.
    assert [row.predicted_class for row in found] == [positive, negative, positive, positive, negative]
    expected = evaluate(labels, to_probabilities(logits, 2.0), OperatingPoint(0.3, 2.0), [row.unit for row in found])
    assert used.metrics == expected
    assert used.labels.tolist() == labels
    assert used.probabilities == pytest.approx(probabilities)


def test_the_threshold_itself_is_positive(tmp_path: Path) -> None:
    used = recorder(tmp_path, Header(**asdict(HEADER) | {"threshold": 0.5}))
    feed(used, "test", [1, 0], [0.0, -1e-3])
    used.write(bursts(2))
    assert [row.predicted_class for row in read_predictions(tmp_path / "predictions.csv")] == ["BLD", "No_BLD"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_classifier_is_refused(value: float, tmp_path: Path) -> None:
    used = recorder(tmp_path / "val")
    feed(used, "test", [1, 0, 1], [0.5, value, 1.0])
    with mistake("model-diverged", found=1):
        used.write(bursts(3))
    assert not used.folder.exists()


def test_unlabelled(tmp_path: Path) -> None:
    used = recorder(tmp_path)
    feed(used, "predict", [UNLABELLED, UNLABELLED], [2.0, -6.0])
    feed(used, "predict", [UNLABELLED], [0.0], first=2)
    used.write(bursts(3))
    found = read_predictions(tmp_path / "predictions.csv")
    assert [row.true_class for row in found] == ["", "", ""]
    assert [row.predicted_class for row in found] == ["BLD", "No_BLD", "BLD"]
    assert used.metrics is None
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    code = tmp_path / "bldml" / "recording.py"
    code.parent.mkdir()
    code.write_text("first\n")
    monkeypatch.setattr(recording, "__file__", str(code))
    assert git_commit() is None  # no repository
    git(tmp_path, "init", "-q")
    assert git_commit() is None  # a repository without a commit
    (tmp_path / "other.txt").write_text("other\n")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-qm", "other")
    assert git_commit() is None  # another project's repository, in which this code merely lies
    git(tmp_path, "add", "bldml")
    git(tmp_path, "commit", "-qm", "code")
    head = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "tag", "v1")
    assert git_commit() == head
    code.write_text("second\n")
    assert git_commit() == f"{head}+changes"


def test_commit_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None


def test_versions() -> None:
    found = software_versions()
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["torch"] == version("torch")
    assert {"bldml", "lightning", "torchvision", "torchmetrics", "numpy", "pillow"} <= found.keys()


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "atlas")
    record = record_environment(5, record_conditions(torch.device("cpu"), "bf16-mixed", 2), {"val": "00ff"}, 1234)
    assert record["parameters"] == 1234
    assert json.loads(json.dumps(record)) == record
    assert datetime.fromisoformat(record["created"]).tzinfo is not None
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(record["created"])).total_seconds() < 60
    assert record["command"] == sys.argv
    assert record["versions"] == software_versions()
    assert (record["seed"], record["device"], record["slurm_job"]) == (5, "cpu", "atlas:77")
    assert (record["gpu"], record["cuda"]) == (None, None)
    assert record["dataset_fingerprint"] == {"val": "00ff"}
    assert record["cpu_threads"] == torch.get_num_threads()
    assert record["platform"]
    if (REPOSITORY / ".git").exists():
        head = git(REPOSITORY, "rev-parse", "HEAD")
        assert record["git_commit"] in (head, f"{head}+changes")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert record_environment(5, {}, {})["slurm_job"] is None
    assert (record["host"], record["precision"]) == (socket.gethostname(), "bf16-mixed")
    assert (record["processes"], record["nodes"]) == (2, 1)
    assert record["cpu"]


def test_an_edit_that_is_not_committed_has_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "bldml" / "training" / "recording.py"
    code.parent.mkdir(parents=True)
    code.write_text("first\n")
    monkeypatch.setattr(recording, "__file__", str(code))
    before = code_digest()
    assert code_digest() == before
    code.write_text("second\n")
    assert code_digest() != before


def test_part_of_a_split_does_not_pass_for_the_whole(tmp_path: Path) -> None:
    used = recorder(tmp_path / "test")
    feed(used, "test", [1, 0], [0.5, -1.0])
    with mistake("evaluation-incomplete", found=2, expected=3):
        used.write(bursts(3))
    assert not used.folder.exists()
