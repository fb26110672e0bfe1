"""Somebody adds F2 to the registry, one row in one file, and finds it everywhere: with the real command line."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t

from tests.support import REPOSITORY, THREE_LAYERS

ROW = """
register(
    Metric(
        name="f2",
        title="F2 (sensitivity counts more)",
        short="F2",
        definition="5 TP / (5 TP + 4 FN + FP)",
        of_counts=lambda tp, fp, fn, tn: _ratio(5 * tp, 5 * tp + 4 * fn + fp),
        interval=resampled,
        better="higher",
        range=(0, 1),
    )
)
"""


class Copy:
    """A copy of the package with another row, and its command line."""

    def __init__(self, folder: Path, row: str) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "bldml", folder / "bldml", ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / "bldml" / "metrics" / "registry.py").open("a", encoding="utf-8") as file:
            file.write(row)

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with the copy in front of what is installed."""
        path = os.pathsep.join((str(self.folder), str(REPOSITORY)))
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def bldml(self, *arguments: str | Path) -> str:
        """Run a command that must succeed; what it says."""
        found = self.python("-m", "tests.three_layers", *arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout + found.stderr


@pytest.fixture(scope="module")
def f2(tmp_path_factory: pytest.TempPathFactory, leaves: Path) -> Copy:
    """The copy with F2 after a fit that was steered by it."""
    copy = Copy(tmp_path_factory.mktemp("f2"), ROW)
    options = ("--monitor=val_f2", "--run_name=one", "--trainer.max_epochs=2", f"--data.root={leaves}")
    said = copy.bldml("fit", *THREE_LAYERS, *options, "--report=true")
    assert "F2 " in said
    return copy


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def f2_of(tp: float, fp: float, fn: float) -> float:
    return 5 * tp / (5 * tp + 4 * fn + fp)


def test_it_is_followed_and_chooses_the_best_epoch(f2: Copy) -> None:
    run = f2.folder / "lightning_logs" / "one"
    history = table(run / "history.csv")
    values = [float(row["val_f2"]) for row in history]
    assert all("train_f2" in row for row in history)
    provenance = json.loads((run / "evaluations" / "val" / "provenance.json").read_text())
    assert provenance["epoch"] == values.index(max(values)), "the greatest F2, not the smallest loss"


def test_it_is_in_the_metrics_of_every_evaluation(f2: Copy) -> None:
    for split in ("train", "val", "test"):
        folder = f2.folder / "lightning_logs" / "one" / "evaluations" / split
        metrics = json.loads((folder / "metrics.json").read_text())
        for key in ("at_threshold", "at_0.5"):
            at = metrics[key]
            assert at["f2"] == pytest.approx(f2_of(at["tp"], at["fp"], at["fn"]))
        assert float(table(folder / "metrics.csv")[0]["f2"]) == metrics["at_threshold"]["f2"]


def test_it_is_in_the_report_with_its_own_interval(f2: Copy) -> None:
    run = f2.folder / "lightning_logs" / "one"
    counts = json.loads((run / "evaluations" / "val" / "metrics.json").read_text())["at_threshold"]
    tp, fp, fn, tn = (counts[cell] for cell in ("tp", "fp", "fn", "tn"))
    rows = {row["metric"]: row for row in table(run / "tables" / "val" / "scores.csv")[::2]}
    low, high = (float(rows["f2"][limit]) for limit in ("low", "high"))
    if rows["f2"]["method"].startswith("jackknife"):  # without each photograph in turn, on the logit, with t
        n = tp + fp + fn + tn
        without = [f2_of(tp - 1, fp, fn)] * tp + [f2_of(tp, fp - 1, fn)] * fp + [f2_of(tp, fp, fn - 1)] * fn
        without += [f2_of(tp, fp, fn)] * tn
        logits = logit(without)
        half = t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * np.sum((logits - logits.mean()) ** 2))
        expected = expit(logit(f2_of(tp, fp, fn)) + np.array([-half, half]))
        assert (low, high) == pytest.approx(expected.tolist(), rel=1e-6)
    else:
        cells = np.random.default_rng(11).dirichlet(np.array([tp, fp, fn, tn]) + 0.5, 20_000)
        expected = np.quantile([f2_of(*cell[:3]) for cell in cells], [0.025, 0.975])
        assert (low, high) == pytest.approx((min(expected[0], f2_of(tp, fp, fn)), expected[1]), abs=0.03)
    assert (rows["mcc"]["low"], rows["mcc"]["high"]) != (rows["f2"]["low"], rows["f2"]["high"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "F2 (sensitivity counts more)" in page
    assert {row["metric"] for row in table(run / "tables" / "run" / "sets.csv")} >= {"f2"}


def test_it_is_compared(f2: Copy) -> None:
    runs = f2.folder / "lightning_logs"
    shutil.copytree(runs / "one", runs / "two")
    f2.bldml("compare", runs / "one", runs / "two", "--output", f2.folder / "compared")
    own = {row["metric"]: row for row in table(runs / "one" / "tables" / "test" / "scores.csv")[::2]}["f2"]
    for row in table(f2.folder / "compared" / "comparison.csv"):
        assert [row[f"f2{part}"] for part in ("", "_low", "_high")] == [own[part] for part in ("value", "low", "high")]
    page = (f2.folder / "compared" / "comparison.html").read_text(encoding="utf-8")
    assert '<th scope="col"><bdi>F2</bdi></th>' in page


def test_it_can_be_monitored_and_is_in_the_documents(f2: Copy) -> None:
    found = f2.python("-m", "bldml", "fit", "--monitor=val_f3")
    assert found.returncode == 2
    assert "val_f3 cannot be monitored. Set monitor to one of val_loss, val_sensitivity" in found.stderr
    assert "val_f2" in found.stderr
    page = f2.python("-c", "from tests.metrics_page import page; print(page())").stdout
    assert (
        "| `f2` | F2 (sensitivity counts more) | 5 TP / (5 TP + 4 FN + FP) | [0, 1] | higher | jackknife | yes |"
        in page
    )


def test_a_row_without_an_interval_rule_is_refused(tmp_path: Path) -> None:
    copy = Copy(tmp_path, ROW.replace("        interval=resampled,\n", ""))
    found = copy.python("-c", "import bldml.metrics.registry")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == (
        "ValueError: The metric f2 in bldml/metrics/registry.py cannot be used: it has no interval rule (such as "
        "resampled, or no_interval with the reason)."
    )
