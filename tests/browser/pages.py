"""A real browser, and what every page must hold in it. Each check takes a page that `Browser.open` has opened."""

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
# Nothing that the browser does by itself may leave the machine, and no name is looked up.
FLAGS = (
    "--headless",
    "--no-sandbox",  # its sandbox refuses root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
WIDTHS = (380, 1280)  # CSS pixels: a telephone, a desk
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3, for text of any size


def missing() -> str | None:
    """Why there is no browser, or None."""
    lacking = [name for name in (CHROMIUM, DRIVER) if shutil.which(name) is None]
    return f"no browser: {', '.join(lacking)} not found (Debian: chromium, chromium-driver)" if lacking else None


@dataclass
class Browser:
    """Headless Chromium with one window."""

    driver: Any  # selenium's own types lack its DevTools calls

    @classmethod
    def start(cls, profile: Path) -> "Browser":
        """Start it with an empty profile."""
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        return cls(Chrome(options=options, service=ChromeService(DRIVER)))

    def stop(self) -> None:
        """End it."""
        self.driver.quit()

    def open(self, page: Path, width: int = 1280, *, dark: bool = False, unfold: bool = True) -> "Opened":
        """Open a file as a reader would who has just got it, and keep what it asked for and complained about.

        With `unfold`, what is folded is opened afterwards.
        """
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what went before
        self._size(width, 900)
        scheme = "dark" if dark else "light"
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(page.resolve().as_uri())
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        # The browser's own first page may still be at work.
        asked = [e["request"]["url"] for e in sent if not e["documentURL"].startswith(("chrome:", "chrome-untrusted:"))]
        said = [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]
        self.driver.execute_async_script(
            """
            if (arguments[0]) for (const part of document.querySelectorAll('details')) part.open = true;
            const pictures = [...document.images];
            for (const picture of pictures) picture.loading = 'eager';
            Promise.allSettled(pictures.map(picture => picture.decode())).then(arguments[1]);
            """,
            unfold,
        )
        return Opened(self, page, width, asked, said)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return its value."""
        return self.driver.execute_script(script, *arguments)

    def seen(self, width: int, height: int) -> bytes:
        """The part of the page that a window of this size shows, as PNG."""
        self._size(width, height)
        return base64.b64decode(self._tell("Page.captureScreenshot")["data"])

    def screenshot(self, file: Path, width: int) -> None:
        """Keep a picture of the whole page."""
        height = int(self.run("return document.documentElement.scrollHeight"))
        self._size(width, min(height, 12_000))
        file.write_bytes(base64.b64decode(self._tell("Page.captureScreenshot")["data"]))
        self._size(width, 900)

    def printed(self) -> bytes:
        """The page as PDF, as its print dialog would make it."""
        return base64.b64decode(self._tell("Page.printToPDF", preferCSSPageSize=True)["data"])

    def _size(self, width: int, height: int) -> None:
        narrow = width < 600
        self._tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)

    def _tell(self, method: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(method, parameters)


@dataclass
class Opened:
    """A page in the browser.

    Args:
        browser: where it is open.
        page: the file.
        width: of the window in CSS pixels.
        asked: every address that was asked for while it was loaded.
        said: what stands in the console.
    """

    browser: Browser
    page: Path
    width: int
    asked: list[str]
    said: list[str]


def complaints(opened: Opened) -> list[str]:
    """All that is wrong with a page of which nothing else is known; empty for a good one."""
    return [
        *quiet(opened),
        *alone(opened),
        *figures(opened),
        *within(opened),
        *contrast(opened),
        *reachable(opened),
        *harmless(opened),
    ]


def quiet(opened: Opened) -> list[str]:
    """Nothing in the console: no error, no refusal of the content security policy, no warning."""
    return [f"console: {line}" for line in opened.said]


def alone(opened: Opened) -> list[str]:
    """It asks for itself and nothing else; `data:` is no request."""
    own = opened.page.resolve().as_uri()
    if own not in opened.asked:
        return [f"the page itself was not asked for: {opened.asked}"]  # the log does not work
    return [f"asks for {url[:200]}" for url in opened.asked if url != own and not url.startswith("data:")]


def figures(opened: Opened) -> list[str]:
    """Every figure and picture is there, is seen, and is not wider than the window."""
    found: list[str] = opened.browser.run(
        """
        const wrong = [];
        for (const figure of document.querySelectorAll('svg, img, figure, canvas')) {
          const box = figure.getBoundingClientRect(), name = figure.outerHTML.slice(0, 80);
          if (box.width < 20 || box.height < 20) wrong.push(`no box: ${box.width} x ${box.height}: ${name}`);
          if (!figure.checkVisibility({opacityProperty: true, visibilityProperty: true}))
            wrong.push(`not visible: ${name}`);
          if (figure.localName == 'img' && !(figure.complete && figure.naturalWidth > 0))
            wrong.push(`not loaded: ${name}`);
          if (figure.localName == 'img' && !figure.hasAttribute('alt')) wrong.push(`no alt: ${name}`);
          if (figure.localName == 'svg' && !figure.closest('[aria-hidden=true]') &&
              !(figure.getAttribute('role') == 'img' && figure.querySelector('title')?.textContent.trim()))
            wrong.push(`an svg without role and title: ${name}`);
          if (!figure.closest('[tabindex="0"]') && (box.left < -0.5 || box.right > window.innerWidth + 0.5))
            wrong.push(`beyond the edge, ${box.left} to ${box.right}: ${name}`);
        }
        return wrong;
        """
    )
    return found


def within(opened: Opened) -> list[str]:
    """The page is not wider than the window, and no text is cut off."""
    found: list[str] = opened.browser.run(
        """
        const wrong = [], root = document.scrollingElement, [width] = arguments;
        if (window.innerWidth != width) wrong.push(`laid out for ${window.innerWidth} px, not ${width}`);
        if (root.scrollWidth > width) {
          const wide = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > width);
          wrong.push(`scrolls sideways: ${root.scrollWidth} px in ${width}: ` +
                     wide.slice(-3).map(e => e.outerHTML.slice(0, 80)).join(' | '));
        }
        for (const element of document.body.querySelectorAll('*')) {
          const style = getComputedStyle(element);
          if (!(element instanceof HTMLElement) || style.display == 'inline') continue;
          if (['hidden', 'clip'].includes(style.overflowX) && element.scrollWidth > element.clientWidth + 1 &&
              element.clientWidth > 1)
            wrong.push(`cut off: ${element.outerHTML.slice(0, 120)}`);
        }
        return wrong;
        """,
        opened.width,
    )
    return found


def contrast(opened: Opened) -> list[str]:
    """Every text has a contrast of 4.5 or more with what is painted behind it, those of figures included."""
    found: list[str] = opened.browser.run(CONTRAST, LEAST_CONTRAST)
    return found


CONTRAST = """
const [least] = arguments, wrong = [], seen = new Map();
const brush = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
  .getContext('2d', {willReadFrequently: true});
const colour = text => {  // of any notation, as red, green, blue and opacity
  if (!seen.has(text)) {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = text;
    brush.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
    seen.set(text, [r, g, b, a / 255]);
  }
  return seen.get(text);
};
const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const dark = matchMedia('(prefers-color-scheme: dark)').matches &&
  getComputedStyle(document.documentElement).colorScheme.includes('dark');
const behind = element => {
  const line = [];
  for (let e = element; e; e = e.parentElement) line.unshift(getComputedStyle(e));
  const paper = dark ? [18, 18, 18, 1] : [255, 255, 255, 1];
  return line.reduce((under, style) => over(colour(style.backgroundColor), under), paper);
};
const beneath = (text, under) => {  // shapes painted before a text of a figure, where its middle is
  const box = text.getBoundingClientRect(), at = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2);
  for (const shape of text.ownerSVGElement.querySelectorAll('path, rect, circle, ellipse, polygon')) {
    if (shape.closest('defs, clipPath') ||
        !(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
    const style = getComputedStyle(shape);
    if (style.fill == 'none') continue;
    if (!shape.isPointInFill(at.matrixTransform(shape.getScreenCTM().inverse()))) continue;
    const [r, g, b, a] = colour(style.fill);
    under = over([r, g, b, a * style.fillOpacity * style.opacity], under);
  }
  return under;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let checked = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, shown = walker.currentNode.data.trim();
  if (!shown || element.closest('script, style, title, desc, template, noscript')) continue;
  const box = element.getBoundingClientRect();
  if (!element.checkVisibility({visibilityProperty: true}) || !box.width || !box.height) continue;
  const style = getComputedStyle(element), figure = element.ownerSVGElement;
  const under = figure ? beneath(element, behind(figure)) : behind(element);
  let [r, g, b, a] = colour(figure ? style.fill : style.color);
  if (figure) a *= style.fillOpacity;
  for (let e = element; e; e = e.parentElement) a *= getComputedStyle(e).opacity;
  const [x, y] = [light(over([r, g, b, a], under)), light(under)].sort((one, other) => other - one);
  const ratio = (x + 0.05) / (y + 0.05);
  checked += 1;
  if (ratio < least) wrong.push(`contrast ${ratio.toFixed(2)}: ${shown.slice(0, 60)}`);
}
if (!checked) wrong.push('contrast: there is no text');
return [...new Set(wrong)];
"""


def reachable(opened: Opened) -> list[str]:
    """What scrolls has a name and can be reached with the keyboard; headings, tables and the language are in order."""
    found: list[str] = opened.browser.run(
        """
        const wrong = [];
        for (const element of document.body.querySelectorAll('*')) {
          const style = getComputedStyle(element);
          if (!['auto', 'scroll'].includes(style.overflowX) || element.scrollWidth <= element.clientWidth) continue;
          if (element.tabIndex < 0) wrong.push(`scrolls, but not by keyboard: ${element.outerHTML.slice(0, 80)}`);
          if (!element.hasAttribute('aria-label') &&
              !document.getElementById(element.getAttribute('aria-labelledby') ?? ''))
            wrong.push(`scrolls, but has no name: ${element.outerHTML.slice(0, 80)}`);
        }
        const levels = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(e => Number(e.localName[1]));
        if (levels.filter(level => level == 1).length != 1) wrong.push('not exactly one h1');
        levels.forEach((level, i) => { if (level > (levels[i - 1] ?? 0) + 1) wrong.push(`h${level} skips a level`); });
        if (!document.documentElement.lang) wrong.push('no language');
        if (!document.title.trim()) wrong.push('no title');
        if (!document.querySelector('main')) wrong.push('no main');
        const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
        for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) != i))) wrong.push(`id ${id} more than once`);
        for (const table of document.querySelectorAll('table'))
          if (!table.caption && !table.getAttribute('aria-labelledby')) wrong.push('a table without a caption');
        return wrong;
        """
    )
    return found


def harmless(opened: Opened) -> list[str]:
    """No script, no handler, no frame, no form, no address outside; a strict policy comes before anything else."""
    found: list[str] = opened.browser.run(
        """
        const wrong = [], unwanted = 'script, iframe, object, embed, form, base, link, audio, video';
        for (const element of document.querySelectorAll('*')) {
          if (element.matches(unwanted))
            wrong.push(`a ${element.localName}: ${element.outerHTML.slice(0, 80)}`);
          for (const {name, value} of element.attributes) {
            if (name.startsWith('on')) wrong.push(`handler ${name} of ${element.localName}`);
            if (['src', 'srcset', 'poster', 'data'].includes(name) && !value.startsWith('data:image/'))
              wrong.push(`${name} ${value.slice(0, 80)}`);
            if (['href', 'xlink:href'].includes(name) && !value.startsWith('#'))
              wrong.push(`${name} ${value.slice(0, 80)}`);
          }
        }
        const policy = document.querySelector('meta[http-equiv="Content-Security-Policy"]')?.content ?? '';
        if (!policy.startsWith("default-src 'none'")) wrong.push(`policy: ${policy || 'none'}`);
        if (/script-src|https?:|\\*/.test(policy)) wrong.push(`a loose policy: ${policy}`);
        return wrong;
        """
    )
    return found


def shows(opened: Opened, texts: list[str]) -> list[str]:
    """Each of these stands on the page as text that a reader sees, letter for letter."""
    seen: str = opened.browser.run("return document.body.innerText")
    return [f"not shown as text: {text!r}" for text in texts if text not in seen]
