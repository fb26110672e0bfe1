"""The report in a real browser: light and dark, on a telephone and on a desk."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bldml.io.text import plain
from bldml.metrics.assessment import evaluate
from bldml.metrics.operating_point import OperatingPoint
from bldml.report.page import write_report
from bldml.run import gallery
from bldml.run.card import TITLES
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.run.predictions import Prediction, write_metrics, write_predictions
from tests.browser.pages import WIDTHS, Browser, complaints, shows, within

pytestmark = pytest.mark.browser

SCREENSHOTS = os.environ.get("BLDML_SCREENSHOTS")
HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    "a' onmouseover='x \"{{ 7*7 }}.jpg",
    "\u202egpj.exe \u05d0\u05d1.jpg",
    "</style><script>alert(1)</script>.jpg",
    "&lt;b&gt;.jpg",
    "W" * 251 + ".jpg",
)
POSITIVE, NEGATIVE = "<i>BLD</i>", 'No "BLD"\'&amp;'
POINT = OperatingPoint(threshold=0.4, temperature=1.3)


def predictions(seed: int, groups: bool) -> list[Prediction]:
    """60 photographs; those with hostile names are misclassified, and so are a few others."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(60):
        true = POSITIVE if number % 2 else NEGATIVE
        name = f"{true}/{HOSTILE[number] if number < len(HOSTILE) else f'leaf_{number:02}.jpg'}"
        wrong = number < len(HOSTILE) or number % 15 == 0
        probability = float(
            generator.uniform(0.41, 0.999) if (true == POSITIVE) != wrong else generator.uniform(0, 0.39)
        )
        called = POSITIVE if probability >= POINT.threshold else NEGATIVE
        rows.append(Prediction(name, f"tree <b>{number % 12}" if groups else "", true, called, probability))
    return rows


def picture(shade: int) -> bytes:
    """A small photograph."""
    file = io.BytesIO()
    Image.new("RGB", (320, 240), (shade, 120, 40)).save(file, format="JPEG")
    return file.getvalue()


def write_evaluation(run: RunFolder, name: str, seed: int, *, groups: bool) -> None:
    rows, folder = predictions(seed, groups), run.evaluation(name)
    write_predictions(folder / "predictions.csv", rows)
    labels = np.array([row.true_class == POSITIVE for row in rows], dtype=np.int64)
    write_metrics(folder, evaluate(labels, np.array([row.probability for row in rows]), POINT))
    role = {"val": "validation", "test": "test"}.get(name, "external")
    provenance = {"schema": 1, "created": "2026-01-01", "root": "/<b>photographs", "role": role}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    shown = []
    (folder / gallery.FOLDER).mkdir()
    for number, (kind, row) in enumerate(gallery.choose_photographs(rows, POINT.threshold)):
        files = (f"{number:03}.jpg", f"{number:03}_seen.jpg")
        for shade, file in enumerate(files):
            (folder / gallery.FOLDER / file).write_bytes(picture(40 + 3 * number % 200 + shade))
        shown.append((kind, row, *files))
    (folder / gallery.FOLDER / gallery.TABLE).write_text(gallery.gallery_text(shown))
    append_entry(
        run, LedgerEntry("2026-01-01T00:00:00+00:00", name, "test", "ab" * 32, len(rows), "checkpoints/best.ckpt")
    )


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as whole as it can be, in which every text from outside is hostile."""
    run = RunFolder(tmp_path_factory.mktemp("logs") / "run <b>&amp;'\"")
    run.path.mkdir()
    card = {key: f"<b onclick=alert(1)>{key}</b> {'x' * 255}" for key in list(TITLES)[::2]}
    config = {
        "data": {"positive_class": POSITIVE},
        "model": {"backbone": "<script>alert(2)</script>", "lr": 0.001},
        "operating_point": {"maximize": "f1"},
        "card": card,
    }
    run.config.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    run.environment.write_text(json.dumps({"created": "2026-01-01", "gpu": "<b>GPU</b>", "versions": {"bldml": "0.1"}}))
    epochs = [f"{e},{9 * e},{1 / (e + 1)},{0.2 + 1 / (e + 1)},{1 - 0.5 / (e + 1)},{min(1, e / 4)}" for e in range(6)]
    header = "epoch,step,train_loss,val_loss,val_auroc,trainable_share"
    run.history.write_text("\n".join([header, *epochs, ""]))
    for name, seed, groups in (("val", 1, False), ("test", 2, True), ("ohio_2024", 3, False)):
        write_evaluation(run, name, seed, groups=groups)
    return write_report(run)


def test_report_in_a_browser(page: Path, browser: Browser) -> None:
    wrong = []
    for width in WIDTHS:
        for dark in (False, True):
            opened = browser.open(page, width, dark=dark)
            scheme = "dark" if dark else "light"
            texts = [plain(name) for name in HOSTILE] + [POSITIVE, NEGATIVE, plain(page.parent.name), "<b>GPU</b>"]
            texts += ["<script>alert(2)</script>", "<b onclick=alert(1)>intended_use</b>", "Not stated", "tree <b>0"]
            found = [*complaints(opened), *shows(opened, texts)]
            wrong += [f"{width} px, {scheme}: {line}" for line in found]
            assert browser.run("return document.querySelectorAll('figure svg').length") >= 7
            assert browser.run("return document.images.length") >= 2 * len(HOSTILE)
            if SCREENSHOTS:
                browser.screenshot(Path(SCREENSHOTS) / f"report-{width}-{scheme}.png", width)
    assert not wrong, "\n".join(wrong)


FIRST_SCREEN = 800  # CSS pixels
PHONE, PHONE_SCREEN, PHONE_SCREENS = 390, 844, 12


def test_the_first_screen_is_the_answer(page: Path, browser: Browser) -> None:
    """Also with hostile names, which are longer than any real one; warnings and a table of two sets."""
    browser.open(page, unfold=False)
    top, bottom, after = browser.run(
        """
        const box = document.querySelector('table').getBoundingClientRect();
        const figure = document.querySelector('figure').getBoundingClientRect();
        return [box.top, box.bottom, figure.top - box.bottom];
        """
    )
    assert 0 < top < bottom < FIRST_SCREEN
    assert after < 0, "the ROC curve is beside it"


def test_a_phone_needs_few_screens(page: Path, browser: Browser) -> None:
    opened = browser.open(page, PHONE, unfold=False)
    assert within(opened) == []
    height = browser.run("return document.documentElement.scrollHeight")
    assert height <= PHONE_SCREENS * PHONE_SCREEN


@pytest.mark.parametrize("width", [1280, PHONE])
def test_contents_lead_somewhere(page: Path, browser: Browser, width: int) -> None:
    """What a link points to is seen though other parts are folded."""
    browser.open(page, width, unfold=False)
    links = browser.run("return [...document.querySelectorAll('nav a')].map(link => link.hash)")
    assert len(links) == len(set(links)) > 8
    for link in links:
        browser.run("location.hash = arguments[0]", link)
        top = browser.run(
            """
            const target = document.getElementById(arguments[0]);
            return target?.checkVisibility() ? target.getBoundingClientRect().top : null;
            """,
            link[1:],
        )
        assert top is not None, link
        assert -1 <= top < 900, link


def test_few_pages_are_printed(page: Path, browser: Browser) -> None:
    """The first screen, and what the first set has: its tables too, which are folded on the screen."""
    browser.open(page, unfold=False)
    browser._tell("Emulation.setEmulatedMedia", media="print")
    shown = browser.run(
        """
        const seen = text => [...document.querySelectorAll('h2, caption')]
          .some(e => e.textContent.includes(text) && e.getClientRects().length && e.checkVisibility());
        return ['Results: test', 'Metrics that need no threshold', 'Results: ohio', 'Reproduction'].map(seen);
        """
    )
    browser._tell("Emulation.setEmulatedMedia", media="")
    assert shown == [True, True, False, False]
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.printed()))
    assert 2 <= pages <= 14
