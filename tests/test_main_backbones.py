"""The four main backbones at their own sizes, on real photographs of coffee leaves, where they are at hand."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from bldml.training.checkpoint import read_checkpoint
from tests.support import REPOSITORY, Bldml

CONFIGS = {
    "efficientnet.yaml": "efficientnet_v2_s",
    "resnet50.yaml": "resnet50",
    "mobilenet.yaml": "mobilenet_v3_large",
    "inception.yaml": "inception_v3",
    "paper/mobilenet.yaml": "mobilenet_v3_large",
}


@pytest.fixture(scope="module")
def few(coffee: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four leaves for training, and two each for validation and test."""
    folder = tmp_path_factory.mktemp("few")
    with (folder / "splits.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for label in ("diseased", "healthy"):
            for number, path in enumerate(sorted((coffee / label).iterdir())[:4]):
                split = "train" if number < 2 else "val" if number < 3 else "test"
                writer.writerow((path.relative_to(coffee).as_posix(), label, split))
    return folder / "splits.csv"


@pytest.mark.slow
@pytest.mark.parametrize("config", list(CONFIGS))
def test_main_backbone_fits_two_epochs_and_is_tested_from_the_bare_checkpoint(
    config: str, coffee: Path, few: Path, tmp_path: Path, bldml: Bldml
) -> None:
    """At the shipped image size, with random weights and one batch an epoch."""
    outcome = bldml(
        "fit", "--config", REPOSITORY / "configs" / config, "--data.root", coffee, "--data.manifest", few,
        "--data.positive_class=diseased", "--model.weights=none", "--trainer.max_epochs=2",
        "--unfreezing.start_epoch=1", "--trainer.accelerator=cpu", "--run_name=r", "--test_after_fit=false",
        "--report=false",
    )  # fmt: skip
    assert outcome.code == 0
    bare = tmp_path / "elsewhere"
    bare.mkdir()
    shutil.copy("lightning_logs/r/checkpoints/best.ckpt", bare)
    assert read_checkpoint(bare / "best.ckpt").header.backbone == CONFIGS[config]
    tested = bldml("test", "--ckpt_path", bare / "best.ckpt", "--report=false")
    assert tested.code == 0
    metrics = json.loads((bare / "evaluations/test/metrics.json").read_text())
    assert metrics["n"] == 2
