"""The audit's page in a real browser: light and dark, on a telephone and on a desk."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from bldml.audit.command import audit_photographs
from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.io.text import plain
from tests.browser.pages import WIDTHS, Browser, complaints, shows

pytestmark = pytest.mark.browser

SCREENSHOTS = os.environ.get("BLDML_SCREENSHOTS")
CLASSES = ("<i>BLD<", 'No "BLD"\'&amp;')
HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    "a' onmouseover='x \"{{ 7*7 }}.jpg",
    "\u202egpj.exe \u05d0\u05d1.jpg",
    "&lt;b&gt;.jpg",
    "W" * 251 + ".jpg",
)
CAMERA = "<script>alert(2)<"
# Short words of commands, and words of the shortcuts' table, that lie in more than one line.
BROKEN_WORDS = """
const lines = (node, start, end) => {
  const range = document.createRange(); range.setStart(node, start); range.setEnd(node, end);
  return new Set([...range.getClientRects()].map(one => Math.round(one.top))).size;
};
const broken = [];
const walk = (element) => {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) for (const word of walker.currentNode.data.matchAll(/[^\\s]+/g))
    if (word[0].length < 14 && lines(walker.currentNode, word.index, word.index + word[0].length) > 1)
      broken.push(word[0]);
};
document.querySelectorAll("code, [aria-labelledby=table-shortcuts] td").forEach(walk);
return broken.join(" ");
"""
LOST_LINKS = """
const links = [...document.querySelectorAll(".findings a")];
return links.length ? links.map(one => one.hash).filter(hash => !document.querySelector(hash)) : ["no link"];
"""
SCROLLING = """
const wide = [...document.querySelectorAll(".wide")].filter(one => one.scrollWidth > one.clientWidth);
return wide.length ? getComputedStyle(wide[0]).overflowX : "no table is wider than its box";
"""


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with everything wrong with them, and hostile names."""
    root = tmp_path_factory.mktemp("data") / "leaves <b>&amp;'\""
    for split in ("train", "val", "test"):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(24 if split == "train" else 8):
                exif = Image.Exif()
                exif[ExifTags.Base.Model] = CAMERA if label else "Canon"
                leaf = draw_leaf(bool(label), 160, np.random.default_rng([len(split), label, number, ord(split[0])]))
                leaf.save(folder / f"leaf_{number:02}.jpg", exif=exif)
    first, second = (root / "train" / name for name in CLASSES)
    for number, name in enumerate(HOSTILE):
        shutil.copy(first / f"leaf_{number:02}.jpg", first / name)
        shutil.copy(first / f"leaf_{number:02}.jpg", root / "test" / CLASSES[0] / name)
    shutil.copy(first / "leaf_20.jpg", second / "</style><script>alert(1)<.jpg".replace("/", ":"))
    (first / "empty <b>.jpg").write_bytes(b"")
    draw_leaf(True, 200, np.random.default_rng(1)).resize((800, 200)).save(second / "wide.png")
    output = tmp_path_factory.mktemp("audit")
    audit_photographs(root, output, version="0.1", workers=1, quiet=True)
    return output / "audit.html"


def test_audit_in_a_browser(page: Path, browser: Browser) -> None:
    wrong = []
    for width in WIDTHS:
        for dark in (False, True):
            opened = browser.open(page, width, dark=dark)
            scheme = "dark" if dark else "light"
            texts = [f"train/{CLASSES[0]}/{plain(name)}" for name in HOSTILE]
            texts += [*CLASSES, CAMERA, "leaves <b>&amp;'\"", "empty <b>.jpg", "the file is empty", "What to do."]
            found = [*complaints(opened), *shows(opened, texts)]
            wrong += [f"{width} px, {scheme}: {line}" for line in found]
            assert browser.run("return document.images.length") >= 60
            assert browser.run("return document.scripts.length") == 0
            if broken := browser.run(BROKEN_WORDS):
                wrong.append(f"{width} px, {scheme}: broken within a word: {broken}")
            assert browser.run(LOST_LINKS) == []
            if width < 400:
                assert browser.run(SCROLLING) == "auto"
            if SCREENSHOTS:
                browser.screenshot(Path(SCREENSHOTS) / f"audit-{width}-{scheme}.png", width)
    assert not wrong, "\n".join(wrong)
