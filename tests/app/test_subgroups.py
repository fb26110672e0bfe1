"""Original classes that were merged by class_aliases, through the real command line: fit, report, test and compare."""

import csv
import json
from pathlib import Path

import pytest
from scipy import stats

from bldml.dataset.synthetic.leaves import write_leaves
from tests.support import THREE_LAYERS, Bldml

ALIASES = "--data.class_aliases={aphids: No_BLD, healthy: No_BLD}"


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Leaves in the folders BLD, aphids and healthy."""
    root = tmp_path / "several"
    write_leaves(root, images_per_class=40, size=96, seed=5)
    (root / "No_BLD").rename(root / "healthy")
    (root / "aphids").mkdir()
    for path in sorted((root / "healthy").iterdir())[::2]:
        path.rename(root / "aphids" / path.name)
    return root


def test_each_original_class_has_its_own_rate(several: Path, bldml: Bldml) -> None:
    options = ("--trainer.max_epochs=1", "--unfreezing.stages=0", "--data.test_fraction=0.4", "--report=true", ALIASES)
    for name in "ab":
        outcome = bldml("fit", *THREE_LAYERS, *options, f"--data.root={several}", f"--run_name={name}")
        assert outcome.code == 0, outcome.err
    run = Path("lightning_logs/a")
    with (run / "evaluations/test/predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["true_class"] == "No_BLD"]
    stored = json.loads((run / "evaluations/test/metrics.json").read_text())["subgroups"]
    found = {one["value"]: one for one in stored if one["by"] == "original class"}
    assert set(found) == {"aphids", "healthy"}
    page, compared = (run / "report.html").read_text(), bldml("compare", run, "lightning_logs/b", "--output", "out")
    assert compared.code == 0, compared.err
    with Path("out/original_classes.csv").open(newline="") as file:
        of_a = {row["original_class"]: row for row in csv.DictReader(file) if row["run"] == "a"}
    screen = outcome.out.partition("test: ")[2]
    for value, one in found.items():
        of_class = [row for row in rows if row["path"].startswith(f"{value}/")]
        hits, n = sum(row["predicted_class"] == "No_BLD" for row in of_class), len(of_class)
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        rate = one["specificity"]
        assert (one["n"], one["n_positive"], rate["value"]) == (n, 0, pytest.approx(hits / n))
        assert (rate["low"], rate["high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert (rate["method"], rate["unit"]) == ("Wilson", "photograph")
        assert one["sensitivity"]["value"] is None
        assert float(of_a[value]["low"]) == pytest.approx(expected.low, abs=1e-9)
        assert f"{value:7}  specificity" in screen
    assert "low partly by chance" in page
    assert "low partly by chance" in Path("out/comparison.html").read_text()
    wrong = next((row["path"].partition("/")[0] for row in rows if row["predicted_class"] == "BLD"), "")
    assert not wrong or f"Errors, most certain first: {wrong}" in page
    assert "(original class <bdi>aphids</bdi>)" in page


def test_without_merged_classes_nothing_is_said_of_them(run: Path) -> None:
    stored = json.loads((run / "evaluations/test/metrics.json").read_text())
    assert not [one for one in stored.get("subgroups", []) if one["by"] == "original class"]
    assert "(original class" not in (run / "report.html").read_text()
