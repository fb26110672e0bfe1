"""The checks themselves: a page with one planted fault each, which they must find."""

from pathlib import Path

import pytest

from tests.browser.pages import WIDTHS, Browser, complaints, shows

pytestmark = pytest.mark.browser

GOOD = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>A page</title>
<style>:root { color-scheme: light dark } svg { max-width: 100% }</style></head>
<body><main><h1>Good</h1><p>Text.</p>
<svg role="img" width="200" height="100"><title>A figure</title>
<rect width="200" height="100" fill="#003"/><text x="9" y="50" fill="#fff">white on dark</text></svg>
</main></body></html>"""
POLICY = GOOD[GOOD.index("<meta http-equiv") : GOOD.index("<meta name")]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
FAULTS = [  # what is replaced, by what, and the complaint
    ("Text.", "<img src='http://127.0.0.1:9/x.png' alt='' width=50 height=50>", "console: "),
    (POLICY, "<script>console.error('broken')</script>", "broken"),
    (POLICY, "<link rel=stylesheet href='http://127.0.0.1:9/style.css'>", "asks for http://127.0.0.1:9/style.css"),
    (POLICY, "<link rel=stylesheet href='other.css'>", "asks for file:"),
    (POLICY, "", "policy: none"),
    ("'none'; style-src", "'none'; script-src 'unsafe-inline'; style-src", "a loose policy"),
    ("Text.", "<b onclick='x()'>Text.</b>", "handler onclick of b"),
    ("Text.", "<a href='https://example.org'>Text.</a>", "href https://example.org"),
    ("Text.", "<img src='pictures/leaf.jpg' alt='' width=50 height=50>", "src pictures/leaf.jpg"),
    ("Text.", f"<img src='{PIXEL}' width=50 height=50>", "no alt"),
    ("Text.", f"<img src='{PIXEL}' alt=''>", "no box: 1 x 1"),
    ("Text.", "<img src='data:image/png;base64,AAAA' alt='' width=50 height=50>", "not loaded"),
    ('width="200" height="100"><title>', 'width="0" height="0"><title>', "no box: 0 x 0"),
    ("svg {", "svg { visibility: hidden;", "not visible"),
    ("svg {", "svg { position: relative; left: -150px;", "beyond the edge"),
    ('role="img"', "", "an svg without role and title"),
    ("Text.", "<span style='display: block; width: 2000px'>Text.</span>", "scrolls sideways"),
    ("Text.", f"<span style='display: block; width: 9em; overflow: hidden'>{'x' * 50}</span>", "cut off"),
    ("Text.", f"<span style='display: block; width: 9em; overflow: auto'>{'x' * 50}</span>", "but has no name"),
    (
        "Text.",
        f"<span style='display: block; width: 9em; overflow: auto' aria-label=x>{'x' * 50}</span>",
        "by keyboard",
    ),
    ("Text.", "<span style='color: #888; background: #fff'>grey</span>", "contrast 3.54: grey"),
    ("Text.", "<span style='color: #000; background: #fff; opacity: .4'>pale</span>", ": pale"),
    ('fill="#fff"', 'fill="#335"', ": white on dark"),
    ("<h1>Good</h1>", "<h1>Good</h1><h3>Less</h3>", "h3 skips a level"),
    ("<h1>Good</h1>", "<h2>Good</h2>", "not exactly one h1"),
    ('lang="en"', "", "no language"),
    ("Text.", "<i id=a>Text.</i><i id=a>Text.</i>", "id a more than once"),
    ("Text.", "</p><table><tr><td>1</td></tr></table><p>", "a table without a caption"),
]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_good_page_has_no_fault(width: int, dark: bool, tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "good.html"
    page.write_text(GOOD, encoding="utf-8")
    opened = browser.open(page, width, dark=dark)
    assert complaints(opened) == []
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert shows(opened, ["Text.", "<b>"]) == ["not shown as text: '<b>'"]


@pytest.mark.parametrize(("old", "new", "told"), FAULTS)
def test_a_planted_fault_is_found(old: str, new: str, told: str, tmp_path: Path, browser: Browser) -> None:
    assert GOOD.count(old) == 1
    page = tmp_path / "page.html"
    page.write_text(GOOD.replace(old, new), encoding="utf-8")
    found = complaints(browser.open(page))
    assert any(told in line for line in found), found


def test_a_page_laid_out_for_a_desk_is_found_on_a_telephone(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "page.html"
    page.write_text(GOOD.replace('content="width=device-width, initial-scale=1"', 'content="width=980"'))
    found = complaints(browser.open(page, 380))
    assert any("laid out for 980 px" in line for line in found), found


def test_dark_ink_on_dark_paper_is_found(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "page.html"
    page.write_text(GOOD.replace("svg {", "body { color: #222 } svg {"), encoding="utf-8")
    assert complaints(browser.open(page)) == []
    assert any("contrast" in line for line in complaints(browser.open(page, dark=True)))


def test_what_went_before_is_no_fault_of_the_next_page(tmp_path: Path, browser: Browser) -> None:
    bad, good = tmp_path / "bad.html", tmp_path / "good.html"
    bad.write_text(GOOD.replace(POLICY, "<script>console.error('broken')</script>"), encoding="utf-8")
    good.write_text(GOOD, encoding="utf-8")
    assert complaints(browser.open(bad))
    assert complaints(browser.open(good)) == []
