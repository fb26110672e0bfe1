"""The page of an experiment in a real browser: light and dark, on a telephone and on a desk."""

import os
from pathlib import Path

import pytest

from bldml.sweep.collect import collect
from tests.browser.pages import WIDTHS, Browser, complaints, shows
from tests.sweep.experiments import write_experiment

pytestmark = pytest.mark.browser

SCREENSHOTS = os.environ.get("BLDML_SCREENSHOTS")  # a folder; for those who want to look themselves
NAMES = {"resnet50": 1.0, "<script>alert(2)<_script>": 1.4}


def test_the_page_of_an_experiment_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    sweep = write_experiment(tmp_path / "sweep", NAMES, without=["resnet50-seed2-fold1"])
    collect(sweep, {"resnet50-seed2-fold1": "failed: <b>no memory</b>"})
    wrong = []
    for width in WIDTHS:
        for dark in (False, True):
            opened = browser.open(sweep.path / "sweep.html", width, dark=dark)
            scheme = "dark" if dark else "light"
            found = [*complaints(opened), *shows(opened, [*NAMES, "failed: <b>no memory</b>"])]
            wrong += [f"{width} px, {scheme}: {line}" for line in found]
            assert browser.run("return document.querySelectorAll('figure svg').length") == 2
            if SCREENSHOTS:
                browser.screenshot(Path(SCREENSHOTS) / f"sweep-{width}-{scheme}.png", width)
    assert not wrong, "\n".join(wrong)
