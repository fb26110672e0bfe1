"""What a fit, a test, a report and a comparison say when the leaf was not needed, through the real command line."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.photographs import read_photograph_table
from tests.support import SMALL, Bldml

FIT = ("fit", *SMALL, "--trainer.max_epochs=1", "--plateau.patience=0", "--report=true")
NOT_SHOWN = "it is not shown that the classifier looks at the leaf"


def plant_days(root: Path) -> None:
    """Photograph the diseased leaves in May and the others in July."""
    for path in root.rglob("*.jpg"):
        exif = Image.Exif()
        month = "07" if path.parent.name == "No_BLD" else "05"
        day = 1 + int(re.findall(r"\d+", path.stem)[-1]) % 28
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2024:{month}:{day:02} 12:00:00"
        image = Image.open(path)
        image.load()
        image.save(path, exif=exif, quality=90)


@pytest.fixture
def by_day(tmp_path: Path, bldml: Bldml) -> tuple[Path, str]:
    """A run on photographs whose day tells the class, and what its fit printed."""
    root = tmp_path / "leaves"
    write_leaves(root, images_per_class=60, size=96, seed=5)
    plant_days(root)
    outcome = bldml(*FIT, f"--data.root={root}", "--run_name=by_day")
    assert outcome.code == 0, outcome.err
    return Path("lightning_logs/by_day"), outcome.out


def test_the_summary_says_that_the_leaf_was_not_needed(by_day: tuple[Path, str], bldml: Bldml) -> None:
    run, printed = by_day
    page = (run / "report.html").read_text(encoding="utf-8")
    for text in (printed, page.partition("Limits: performance")[0], page.partition('id="evaluation-1"')[2]):
        assert re.search(r"Without the leaf: predicted from (metadata|day and hour) alone, the AUROC is 1", text)
        assert "(warning: please check)" in text, "with so few photographs"
        assert NOT_SHOWN in text
    assert "<strong>Shortcuts.</strong>" not in page, "they were tested"

    stored = json.loads((run / "evaluations/test/metrics.json").read_text())["baselines"]
    assert stored["auroc"]["time"]["value"] == 1
    assert stored["advantage"]["high"] < 0.5
    assert "baselines" not in json.loads((run / "evaluations/train/metrics.json").read_text())
    with (run / "tables/test/baselines.csv").open(newline="") as file:
        table = {row["source"]: row for row in csv.DictReader(file)}
    assert float(table["time"]["low"]) == pytest.approx(stored["auroc"]["time"]["low"])
    assert table["time"]["verdict"] == "warning: please check"
    assert table["camera"]["value"] == ""

    # In the comparison too.
    shutil.copytree(run, run.parent / "other")
    outcome = bldml("compare", run, run.parent / "other", "--output=comparison")
    assert outcome.code == 0, outcome.err
    compared = Path("comparison/comparison.html").read_text(encoding="utf-8")
    assert "Not shown to exceed a baseline that does not see the leaf: by_day, other." in compared
    assert Path("comparison/without_leaf.csv").is_file()

    # Of an evaluation that did not store them, they are computed from photographs.csv.
    for path in (run / "evaluations").glob("*/metrics.json"):
        content = json.loads(path.read_text())
        content.pop("baselines", None)
        path.write_text(json.dumps(content))
    assert bldml("report", run).code == 0
    assert NOT_SHOWN in (run / "report.html").read_text(encoding="utf-8")
    photographs = run / "photographs.csv"
    assert {row.taken[:7] for row in read_photograph_table(photographs)} == {"2024-05", "2024-07"}
    photographs.unlink()  # and without it they are not known
    assert bldml("report", run).code == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Without the leaf" not in page
    assert "<strong>Shortcuts.</strong>" in page


def test_border_of_coffee_leaves(coffee: Path, bldml: Bldml) -> None:
    """Of real photographs: the border alone tells something, and it stands beside the AUROC."""
    outcome = bldml(*FIT[:-1], f"--data.root={coffee}", "--data.positive_class=diseased", "--run_name=coffee")
    assert outcome.code == 0, outcome.err
    assert "Without the leaf: predicted from" in outcome.out
    stored = json.loads(Path("lightning_logs/coffee/evaluations/test/metrics.json").read_text())["baselines"]
    assert 0.5 < stored["auroc"]["border"]["value"] < 0.8
