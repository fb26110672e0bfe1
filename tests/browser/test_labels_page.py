"""The page of labels to look at again in a real browser: sound, and its verdicts saved as a table."""

import csv
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from bldml.sweep.plan import SweepFolder, read_plan
from tests.browser.pages import WIDTHS, Browser, alone, contrast, figures, quiet, reachable, shows, within
from tests.support import Bldml
from tests.sweep.experiments import photographs, write_experiment

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)> "
CHECKS = (quiet, alone, figures, within, contrast, reachable)


@pytest.fixture
def experiment(tmp_path: Path) -> SweepFolder:
    """An experiment whose photographs exist, of trees with a hostile name."""
    sweep, root = write_experiment(tmp_path / "sweep", {"a": 0.5}), tmp_path / "leaves"
    for number, (path, _, _) in enumerate(photographs()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 120, 40)).save(root / path)
    for run in read_plan(sweep).runs:
        folder = sweep.run(run.name).evaluation("test")
        provenance = json.loads((folder / "provenance.json").read_text())
        (folder / "provenance.json").write_text(json.dumps({**provenance, "root": str(root)}))
        table = folder / "predictions.csv"
        table.write_text(table.read_text().replace(",tree ", f",{HOSTILE}"))
    return sweep


def test_the_page_is_sound_and_its_verdicts_are_saved(
    experiment: SweepFolder, browser: Browser, tmp_path: Path, bldml: Bldml
) -> None:
    outcome = bldml("review", experiment.path / "a", "--sheet=12")
    assert outcome.code == 0, outcome.err
    page, driver, downloads = experiment.path / "review" / "a" / "labels.html", browser.driver, tmp_path / "downloads"
    for dark, width in zip((False, True), WIDTHS, strict=True):
        opened = browser.open(page, width, dark=dark)
        assert [complaint for check in CHECKS for complaint in check(opened)] == []
        assert shows(opened, [HOSTILE.strip(), "The label is contradicted", "more with such a reason"]) == []
    downloads.mkdir()
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    cards = browser.run(
        "return [...document.querySelectorAll('.card-of')].map(card => "
        "[card.dataset.path, card.dataset.asked, card.dataset.other, card.dataset.predicted])"
    )
    assert len(cards) == 12
    for number, button in ((1, 0), (2, 1), (3, 2)):
        driver.find_elements("css selector", f"#photograph-{number} button")[button].click()
    driver.find_element("id", "save").click()
    file = downloads / "confirmed.csv"
    for _ in range(100):
        if file.exists() and file.stat().st_size:
            break
        time.sleep(0.1)
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text, strict=True))
    (first, label, *_), (second, _, other, _), (third, *_) = cards[:3]
    assert [(row["path"], row["verdict"], row["label"]) for row in rows] == [
        (first, "confirm", label), (second, "reject", other), (third, "not a leaf", ""),
    ]  # fmt: skip
    assert [row["predicted"] for row in rows] == [card[3] for card in cards[:3]]
    assert any(card[1] != card[3] for card in cards[:3]), "what is confirmed is the label, not the prediction"
