"""The browser that the tests of this folder look at pages with."""

import os
from collections.abc import Iterator

import pytest

from tests.browser.pages import Browser, missing


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium, one for each file: after the tests of an export, pictures of other pages hang in it."""
    reason = missing()
    if reason is not None:
        # Continuous integration says that it has one, so that a test which cannot run is noticed.
        if os.environ.get("BLDML_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    browser = Browser.start(tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.stop()
