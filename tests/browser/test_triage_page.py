"""The page for review of a survey in a real browser: clicking, typing, coming back later, and the saved table."""

import csv
import shutil
import time
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains

from tests.browser.pages import WIDTHS, Browser, alone, contrast, figures, quiet, reachable, shows, within
from tests.support import Bldml

pytestmark = pytest.mark.browser

HOSTILE = ("<img src=x onerror=alert(1)>.jpg", "a' onmouseover='x \"{{ 7*7 }},.jpg", "=1+1.jpg", "W" * 200 + ".jpg")
CHECKS = (quiet, alone, figures, within, contrast, reachable)
BLOCKED = """
const done = arguments[0];
document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => done("not by the policy"), 2000));
"""


@pytest.fixture
def page(run: Path, leaves: Path, tmp_path: Path, bldml: Bldml) -> Path:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name, path in zip(HOSTILE, sorted((leaves / "BLD").iterdir()), strict=False):
        shutil.copy(path, photographs / name)
    (photographs / "broken <b>.jpg").write_bytes(b"\xff\xd8\xff")
    assert bldml("survey", run, photographs, "--output=survey").code == 0
    return Path("survey/triage.html").absolute()


def test_page_is_sound(page: Path, browser: Browser) -> None:
    for dark, width in zip((False, True), WIDTHS, strict=True):
        opened = browser.open(page, width, dark=dark)
        assert [complaint for check in CHECKS for complaint in check(opened)] == []
        assert shows(opened, ["<img src=x onerror=alert(1)>.jpg", "./=1+1.jpg", "broken <b>.jpg"]) == []
    policy = browser.run("return document.querySelector('meta[http-equiv]').content")
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy
    assert browser.driver.execute_async_script(BLOCKED) == "connect-src"


def test_verdicts_are_saved_as_a_table(page: Path, browser: Browser, tmp_path: Path) -> None:
    driver, downloads = browser.driver, tmp_path / "downloads"
    downloads.mkdir()
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    browser.open(page)
    paths = browser.run("return [...document.querySelectorAll('.card-of')].map(card => card.dataset.path)")
    assert len(paths) == 4
    buttons = driver.find_elements("css selector", "#photograph-1 button")
    buttons[0].click()
    ActionChains(driver).send_keys("j", "r", "j", "n", "j", "c", "c").perform()  # the second c takes the first back
    browser.open(page)  # a later day
    assert shows(browser.open(page), ["3 of 4 reviewed"]) == []
    driver.find_element("id", "next").click()
    assert browser.run("return document.activeElement.id") == "photograph-4"
    driver.find_element("id", "save").click()
    file = downloads / "confirmed.csv"
    for _ in range(100):
        if file.exists() and file.stat().st_size:
            break
        time.sleep(0.1)
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text, strict=True))
    assert [(row["path"], row["verdict"]) for row in rows] == [
        *zip(paths, ("confirm", "reject", "not a leaf"), strict=False),
    ]
    confirmed, rejected, none = rows
    assert confirmed["label"] == confirmed["predicted"]
    assert {rejected["label"], rejected["predicted"]} == {"BLD", "No_BLD"}
    assert none["label"] == ""
