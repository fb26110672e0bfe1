"""On real photographs of coffee leaves, where they are at hand: a result that is good, for the right reasons."""

import contextlib
import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest
from scipy.stats import binomtest

from tests.support import REPOSITORY, Bldml


@pytest.fixture(scope="module")
def coffee_run(tmp_path_factory: pytest.TempPathFactory, coffee: Path, small_weights: Path) -> Path:
    """Six epochs from ImageNet weights."""
    from bldml.cli import main

    with contextlib.chdir(tmp_path_factory.mktemp("coffee")):
        code = main([
            "fit", f"--config={REPOSITORY / 'configs' / 'mobilenet.yaml'}", f"--data.root={coffee}",
            "--data.positive_class=diseased", "--model.backbone=mobilenet_v2_x0_35", f"--model.weights={small_weights}",
            "--model.image_size=224", "--unfreezing.stages=4", "--trainer.max_epochs=6", "--trainer.accelerator=cpu",
            "--run_name=coffee", "--report=false",
        ])  # fmt: skip
        assert code == 0
        return Path("lightning_logs/coffee").resolve()


@pytest.mark.slow
def test_transfer_learning_reaches_auroc_098_within_six_epochs(coffee_run: Path) -> None:
    metrics = json.loads((coffee_run / "evaluations/test/metrics.json").read_text())
    assert metrics["n"] > 80
    assert metrics["auroc"] >= 0.98


@pytest.mark.slow
def test_gradcam_looks_at_the_lesions(coffee_run: Path, coffee: Path, tmp_path: Path, bldml: Bldml) -> None:
    """On test photographs with masks: what a map that is even, or that misses the leaf, would not give."""
    masks = coffee.parent / "masks"
    if not masks.is_dir():
        pytest.skip("the masks of the coffee leaves are not on this machine")
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    with (coffee_run / "splits.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    for label, count in (("diseased", 16), ("healthy", 2)):
        for name in [name for name in names if name.startswith(label)][:count]:
            shutil.copy(coffee / name, photographs)
    outcome = bldml(
        "explain", "--ckpt_path", coffee_run / "checkpoints/best.ckpt", photographs, "--masks", masks, "--output=cams",
        "--device=cpu",
    )  # fmt: skip
    assert outcome.code == 0
    with Path("cams/explanations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sick = [row for row in rows if float(row["lesion_area"])]
    assert (len(rows), len(sick)) == (18, 16)

    def median(key: str) -> float:
        return statistics.median(float(row[key]) for row in sick if row[key])

    assert median("lesion_enrichment") > 1.5
    assert median("lesion_enrichment_within_leaf") > 1
    # A sign test: by chance one photograph in two would be above 1.
    enriched = [float(row["lesion_enrichment"]) > 1 for row in sick if row["lesion_enrichment"]]
    assert binomtest(sum(enriched), len(enriched), alternative="greater").pvalue < 0.01
