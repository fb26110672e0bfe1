"""The comparison in a real browser: light and dark, on a telephone and on a desk."""

import os
from pathlib import Path

import pytest

from bldml.io.text import plain
from tests.browser.pages import WIDTHS, Browser, complaints, shows
from tests.report.test_compare import HOSTILE, PAPER, rows_of, write_run
from tests.support import Bldml

pytestmark = pytest.mark.browser

SCREENSHOTS = os.environ.get("BLDML_SCREENSHOTS")  # a folder; for those who want to look themselves


@pytest.fixture
def page(tmp_path: Path, bldml: Bldml) -> Path:
    """The runs of the paper beside runs with names that are not meant well."""
    config = "model: {backbone: '<script>alert(2)</script>'}\ndata: {positive_class: 'BLD'}\n"
    names = [*PAPER, *HOSTILE]
    runs = [
        write_run(tmp_path / "logs" / name, rows_of(list(PAPER.values())[number % 4], number), config=config)
        for number, name in enumerate(names)
    ]
    outcome = bldml("compare", *runs, "--output", "out")
    assert outcome.code == 0, outcome.err
    return Path("out/comparison.html")


def test_comparison_in_a_browser(page: Path, browser: Browser) -> None:
    wrong = []
    for width in WIDTHS:
        for dark in (False, True):
            opened = browser.open(page, width, dark=dark)
            scheme = "dark" if dark else "light"
            found = [*complaints(opened), *shows(opened, [plain(name) for name in (*HOSTILE, *PAPER)])]
            found += shows(opened, ["<script>alert(2)</script>", "\\u202egpj.exe"])
            wrong += [f"{width} px, {scheme}: {line}" for line in found]
            assert browser.run("return document.querySelectorAll('figure svg').length") == 2
            if SCREENSHOTS:
                browser.screenshot(Path(SCREENSHOTS) / f"comparison-{width}-{scheme}.png", width)
    assert not wrong, "\n".join(wrong)
