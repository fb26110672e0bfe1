"""The four main backbones at their own sizes, on real photographs of coffee leaves, where they are at hand."""

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


@pytest.mark.slow
@pytest.mark.parametrize("config", list(CONFIGS))
def test_main_backbone_fits_two_epochs_and_is_tested_from_the_bare_checkpoint(
    config: str, coffee: Path, tmp_path: Path, bldml: Bldml
) -> None:
    """At the shipped image size and batch, with random weights and a few batches."""
    outcome = bldml(
        "fit", "--config", REPOSITORY / "configs" / config, "--data.root", coffee, "--data.positive_class=diseased",
        "--model.weights=none", "--trainer.max_epochs=2", "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1", "--unfreezing.start_epoch=1", "--trainer.accelerator=cpu", "--run_name=r",
        "--test_after_fit=false", "--report=false",
    )  # fmt: skip
    assert outcome.code == 0
    bare = tmp_path / "elsewhere"
    bare.mkdir()
    shutil.copy("lightning_logs/r/checkpoints/best.ckpt", bare)
    assert read_checkpoint(bare / "best.ckpt").header.backbone == CONFIGS[config]
    tested = bldml("test", "--ckpt_path", bare / "best.ckpt", "--report=false")
    assert tested.code == 0
    metrics = json.loads((bare / "evaluations/test/metrics.json").read_text())
    assert metrics["n"] == 106
