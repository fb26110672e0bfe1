"""The exported page in a real browser, opened from the disk without a network: Python's numbers, no connection."""

import base64
import csv
import gzip
import hashlib
import http.server
import json
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from sklearn.linear_model import LogisticRegression

import bldml
from bldml.dataset.images import load_rgb
from bldml.export.page import BROWSER_TOLERANCE, VENDOR
from bldml.metrics.operating_point import choose_operating_point
from bldml.training.checkpoint import KEY
from bldml.training.module import LeafClassifier
from tests.browser.pages import WIDTHS, Browser, Opened, alone, contrast, quiet, reachable, shows, within
from tests.dataset.test_images import ADOBE_RGB, DISPLAY_P3, LINEAR_GREY, SRGB_BY_ANOTHER_NAME, matrix_profile, xyz
from tests.export.checkpoints import write_run

pytestmark = pytest.mark.browser

POSITIVE, NEGATIVE = "<i>BLD</i>", "No \"BLD\" </script><script>alert('1')</script>&amp;"
PHONE = 390  # CSS pixels
SAME = 1e-4  # largest difference of a probability from Python's where the image is the same; measured: 1e-5


def test_the_runtime_is_the_published_one() -> None:
    listed = [line.split() for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    packed = {path.stem: gzip.decompress(path.read_bytes()) for path in VENDOR.glob("*.gz")}
    found = {path.name: path.read_bytes() for path in VENDOR.iterdir()} | packed
    assert {name: digest for digest, name in listed} == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in found.items()
        if name not in ("SHA256SUMS", "README.md")
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, leaves: Path) -> Path:
    """The page of an untrained network in int8 whose classes have hostile names."""
    from bldml.cli import main

    folder = tmp_path_factory.mktemp("page")
    names = [path.relative_to(leaves).as_posix() for path in sorted(leaves.rglob("*.jpg"))[::6]]
    classes: dict[str, Any] = {"class_names": (POSITIVE, NEGATIVE), "positive_class": POSITIVE}
    path = write_run(folder / "run", leaves, names, **classes)
    likely = sorted(v.probability for v in bldml.load(path, "cpu").predict([leaves / name for name in names]))
    bands = {
        "error": 0.1,
        "n_positive": 20,
        "n_negative": 20,
        "low": sum(likely[2:4]) / 2,
        "high": sum(likely[6:8]) / 2,
    }
    known = sorted(leaves.rglob("*.jpg"))[::2]
    write_run(folder / "run", leaves, names, known=known, **classes, bands=bands)
    assert main(["export", str(folder / "run"), "--format=web", "--weights=int8", f"--output={folder / 'out'}"]) == 0
    return folder / "out"


def ready(browser: Browser, page: Path, width: int = PHONE) -> Opened:
    """Open a page without a network, and wait until it has loaded its classifier or said why not."""
    browser._tell("Network.enable")
    cut = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser._tell("Network.emulateNetworkConditions", offline=True, **cut)
    try:
        opened = browser.open(page, width)
        wait(browser, "!document.getElementById('state').textContent.startsWith('Loading')")
    finally:
        browser._tell("Network.emulateNetworkConditions", offline=False, **cut)
    return opened


def wait(browser: Browser, condition: str) -> None:
    end = time.monotonic() + 120
    while not browser.run(f"return {condition}"):
        assert time.monotonic() < end, (condition, state(browser))
        time.sleep(0.05)


def state(browser: Browser) -> str:
    text: str = browser.run("return document.getElementById('state').textContent")
    return text


def classify(browser: Browser, photographs: list[Path]) -> list[dict[str, Any]]:
    """Choose photographs as a user does, and return the rows of the page."""
    before = browser.run("return rows.length")
    browser.driver.find_element("id", "files").send_keys("\n".join(map(str, photographs)))
    wait(browser, f"rows.length == {before + len(photographs)}")
    rows: list[dict[str, Any]] = browser.run(
        "return rows.map(row => ({name: row.name, probability: row.probability, problem: row.problem,"
        " label: row.problem ? null : labelOf(row)}))"
    )
    return rows[before:]


# --- the same numbers as Python ------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, coffee: Path, small_weights: Path) -> Path:
    """A checkpoint that knows diseased from healthy coffee leaves: a last layer fitted to features of ImageNet."""
    folder, size = tmp_path_factory.mktemp("coffee"), 160
    paths = [path for name in ("diseased", "healthy") for path in sorted((coffee / name).iterdir())[:40]]
    model = LeafClassifier("mobilenet_v2_x0_35", weights=str(small_weights), image_size=size)
    model.load_pretrained()
    header: dict[str, Any] = {
        "backbone": "mobilenet_v2_x0_35",
        "image_size": size,
        "class_names": ("diseased", "healthy"),
    }
    header |= {"positive_class": "diseased", "temperature": 1.0, "offset": 0.0}
    path = write_run(folder / "run", coffee, [path.relative_to(coffee).as_posix() for path in paths], **header)

    def save(**values: float) -> None:
        plain = torch.load(path, weights_only=True)[KEY] | values
        torch.save({"epoch": 0, "state_dict": model.state_dict(), KEY: plain}, path)

    save()
    images = torch.stack([bldml.load(path, "cpu").image(photograph) for photograph in paths])
    features: list[torch.Tensor] = []
    last = model.network.get_submodule("classifier.1")
    hook = last.register_forward_hook(lambda _, inputs, __: features.append(inputs[0]))
    with torch.inference_mode():
        model.eval().evaluate(images)
    hook.remove()
    labels = np.array([path.parent.name == "diseased" for path in paths], dtype=np.int64)
    fitted = LogisticRegression(C=0.05, max_iter=1000).fit(features[0].numpy(), labels)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(fitted.coef_))  # type: ignore[operator]
        last.bias.copy_(torch.from_numpy(fitted.intercept_))  # type: ignore[operator]
        logits = model.evaluate(images).numpy()
    save(threshold=choose_operating_point(logits, labels).threshold)
    return path


def in_many_forms(leaf: Path, folder: Path) -> list[Path]:
    """Write a photograph in all orientations, colour spaces and formats that phones and cameras write."""
    with Image.open(leaf) as file:
        photograph = file.convert("RGB")
    photograph = photograph.crop((0, 0, photograph.width, photograph.height * 3 // 4))  # not square
    folder.mkdir()
    paths = []

    def save(name: str, image: Image.Image = photograph, **options: Any) -> None:
        paths.append(folder / name)
        image.save(paths[-1], **{"quality": 92} | options)

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        save(f"orientation_{orientation}.jpg", exif=exif)
    save("p3.jpg", icc_profile=DISPLAY_P3)
    save("p3_turned.mpo", format="MPO", icc_profile=DISPLAY_P3, exif=exif)
    save("adobe.jpg", icc_profile=ADOBE_RGB)
    save("two_frames.mpo", format="MPO", save_all=True, append_images=[photograph.rotate(180)])
    large = photograph.resize((4000, 3000), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 6, (3000, 4000, 3))
    grainy = Image.fromarray(np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    save("12_megapixels.jpg", grainy, exif=exif)
    save("progressive.jpg", progressive=True, subsampling=0)
    save("grey.jpg", photograph.convert("L"))
    save("lossless.png")
    save("small.png", photograph.resize((50, 70)))
    transparent = photograph.copy()
    transparent.putalpha(Image.linear_gradient("L").resize(photograph.size))
    save("transparent.png", transparent)
    save("leaf.webp")
    return paths


@pytest.mark.slow
def test_probabilities_are_those_of_python(
    browser: Browser, trained: Path, coffee: Path, tmp_path: Path, bldml: Any
) -> None:
    import bldml as package  # the fixture has its name

    assert bldml("export", trained, "--format=web", "--output=page").code == 0
    photographs = [path for name in ("diseased", "healthy") for path in sorted((coffee / name).iterdir())[20:60]]
    leaf = package.load(trained, "cpu")
    # Of the forms, one of a leaf that is neither certainly diseased nor certainly healthy: there, differences show.
    expected = leaf.predict(photographs)
    doubtful = min(expected, key=lambda verdict: abs(verdict.probability - 0.5))
    forms = in_many_forms(Path(doubtful.path), tmp_path / "forms")
    photographs, expected = [*photographs, *forms], [*expected, *leaf.predict(forms)]
    # The folder's page computes by the same scripts, so fewer photographs will do.
    for page, first in ((Path("page/diseased_or_healthy.html"), 0), (Path("page/index.html"), 72)):
        shown, verdicts = photographs[first:], expected[first:]
        assert quiet(ready(browser, page)) == []
        assert state(browser) == "Ready."
        found = classify(browser, shown)
        differences = {v.path: abs(row["probability"] - v.probability) for v, row in zip(verdicts, found, strict=True)}
        assert {path: value for path, value in differences.items() if value > SAME} == {}
        assert [row["label"] for row in found] == [verdict.label for verdict in verdicts]
        maps = browser.run("return rows.slice(0, 8).map(row => [...row.map.values])")
        for path, cam in zip(shown, maps, strict=False):
            np.testing.assert_allclose(cam, leaf.verdict_with_map(path)[1].ravel(), atol=0.01)
    assert len({verdict.label for verdict in expected}) == 2


@pytest.mark.parametrize(
    "size", [(64, 64), (63, 200), (1, 1), (640, 331), (1500, 40), (300, 536), (300, 537), (20, 60), (270, 1024)]
)
def test_resizing_is_that_of_pillow_to_the_last_bit(browser: Browser, drawn: Path, size: tuple[int, int]) -> None:
    width, height = size
    if browser.driver.current_url != (drawn / "index.html").resolve().as_uri():
        ready(browser, drawn / "index.html")
    found = browser.run(
        """
        const [width, height, side] = arguments;
        const value = (x, y, c) => (x * 7919 + y * 104729 + c * 31 + ((x * y) >> 2) * 17) & 255;
        const read = (left, top, columns, rows) => {
          const pixels = new Uint8Array(columns * rows * 4);
          for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) for (let c = 0; c < 3; c++)
            pixels[(y * columns + x) * 4 + c] = value(left + x, top + y, c);
          return pixels;
        };
        return [...toSquare(read, width, height, side)];
        """,
        width,
        height,
        64,
    )
    y, x, c = np.ogrid[:height, :width, :3]
    pixels = ((x * 7919 + y * 104729 + c * 31 + ((x * y) >> 2) * 17) & 255).astype(np.uint8)
    resized = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(resized).ravel(), found)


PARAMETERS = (round(65536 * value) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
BY_FORMULA = matrix_profile(  # Display P3 as phones write it
    xyz(0.51512, 0.24120, -0.00105),
    xyz(0.29198, 0.69225, 0.04189),
    xyz(0.15710, 0.06657, 0.78407),
    b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *PARAMETERS),
)
PROFILES = {"table": DISPLAY_P3, "power": ADOBE_RGB, "formula": BY_FORMULA, "srgb": SRGB_BY_ANOTHER_NAME}


@pytest.mark.parametrize("name", PROFILES)
def test_colours_are_those_of_pillow_to_the_last_bit(browser: Browser, drawn: Path, name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=PROFILES[name])
    expected = np.asarray(load_rgb(tmp_path / "a.png"))
    assert (name == "srgb") == np.array_equal(expected, pixels)
    if browser.driver.current_url != (drawn / "index.html").resolve().as_uri():
        ready(browser, drawn / "index.html")
    assert browser.run("return session.isRaw")
    opaque = np.concatenate([pixels, np.full((64, 64, 1), 255, np.uint8)], axis=2)
    found = browser.run(
        """
        const [profile, colours] = arguments, pixels = Uint8ClampedArray.from(colours);
        conversionOf(Uint8Array.from(profile))(pixels);
        return [...pixels];
        """,
        [*PROFILES[name]],
        opaque.ravel().tolist(),
    )
    assert np.array_equal(np.array(found).reshape(64, 64, 4)[..., :3], expected)


@pytest.mark.parametrize("profile", [LINEAR_GREY, DISPLAY_P3[:200], b"", DISPLAY_P3.replace(b"rTRC", b"xTRC")])
def test_other_profiles_are_left_to_the_browser(browser: Browser, drawn: Path, profile: bytes) -> None:
    if browser.driver.current_url != (drawn / "index.html").resolve().as_uri():
        ready(browser, drawn / "index.html")
    assert browser.run("return conversionOf(Uint8Array.from(arguments[0]))", [*profile]) is None


# --- what the page shows and keeps to itself -----------------------------------------------------


@pytest.mark.parametrize("width", [PHONE, *WIDTHS])
def test_the_page_can_be_read(browser: Browser, drawn: Path, leaves: Path, tmp_path: Path, width: int) -> None:
    (tmp_path / "no photograph.jpg").write_text("text")
    single = drawn / "i_BLD_i_or_No_BLD_script_script_alert_1_script_amp.html"
    opened = ready(browser, single, width)
    photographs = [next(leaves.rglob("*.jpg")), tmp_path / "no photograph.jpg"]
    rows = classify(browser, photographs)
    assert [row["problem"] for row in rows] == ["", "cannot be read by this browser"]
    assert rows[1]["probability"] is None
    pictures = "return [...document.querySelectorAll('#rows canvas')].map(one => one.checkVisibility())"
    assert browser.run(pictures) == [True, False]
    browser.driver.find_element("id", "maps").click()
    assert browser.run(pictures) == [False, True]
    assert [*quiet(opened), *itself(opened), *within(opened), *contrast(opened), *reachable(opened)] == []
    assert shows(opened, [POSITIVE, NEGATIVE, "no photograph.jpg", "1 not classified"]) == []


def itself(opened: Opened) -> list[str]:
    """What a page asked for beside itself and the script that it holds."""
    opened.asked = [address for address in opened.asked if not address.startswith("blob:null/")]
    return alone(opened)


class Recorder(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        """Note the path, then serve it."""
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def server(drawn: Path) -> Iterator[tuple[http.server.ThreadingHTTPServer, list[str]]]:
    """A web server of the page on this machine, and the paths that it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (Recorder,), {"asked": asked})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(drawn)))
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running, asked
    running.shutdown()
    running.server_close()
    thread.join()


def test_nothing_can_leave_the_page(browser: Browser, drawn: Path, server: Any) -> None:
    """Its policy stops whatever script might run in it: a server that listens hears nothing."""
    running, asked = server
    for page in sorted(drawn.glob("*.html")):
        ready(browser, page)
        address = f"http://127.0.0.1:{running.server_port}/"
        refused = browser.driver.execute_async_script(
            """
            const [address, done] = arguments, refused = [];
            addEventListener('securitypolicyviolation', event => refused.push(event.effectiveDirective));
            const ignore = () => {};
            fetch(address + 'fetch').catch(ignore);
            navigator.sendBeacon(address + 'beacon', 'x');
            try { new WebSocket(address.replace('http', 'ws') + 'socket'); } catch { ignore(); }
            try { new EventSource(address + 'events'); } catch { ignore(); }
            const request = new XMLHttpRequest();
            request.open('GET', address + 'request'); request.onerror = ignore; request.send();
            new Image().src = address + 'image';
            import(address + 'module.js').catch(ignore);
            document.body.append(Object.assign(document.createElement('iframe'), {src: address + 'frame'}));
            document.body.append(Object.assign(document.createElement('script'), {src: address + 'script.js'}));
            document.body.append(Object.assign(document.createElement('script'), {textContent: 'globalThis.ran = 1'}));
            const form = Object.assign(document.createElement('form'), {action: address + 'form', target: 'frame'});
            document.body.append(form); form.submit();
            setTimeout(() => done([...refused, String(globalThis.ran)]), 1500);
            """,
            address,
        )
        assert asked == [], page.name
        assert refused[-1] == "undefined", "an inline script ran"
        assert {"connect-src", "img-src", "script-src-elem", "frame-src", "form-action"} <= set(refused)


def test_a_browser_keeps_a_page_that_was_served(browser: Browser, drawn: Path, server: Any) -> None:
    running, asked = server
    address = f"http://127.0.0.1:{running.server_port}/"
    # Another page of the same server, of which it keeps the files too.
    shutil.copytree(drawn, drawn / "other", ignore=shutil.ignore_patterns("other"))
    (drawn / "other" / "sw.js").write_text((drawn / "sw.js").read_text().replace("${OWN}", "${OWN}0"))
    for page in (address, f"{address}other/"):
        browser.driver.get(page)
        wait(browser, "document.getElementById('state').textContent == 'Ready.'")
        browser.driver.execute_async_script("navigator.serviceWorker.ready.then(() => arguments[0]())")
        assert browser.run("return document.querySelector('link[rel=manifest]') !== null")
    running.shutdown()
    running.server_close()
    before = len(asked)
    browser.driver.get(address)
    wait(browser, "document.getElementById('state').textContent == 'Ready.'")
    assert len(asked) == before
    shutil.rmtree(drawn / "other")


def test_a_folder_that_is_not_complete_says_so(browser: Browser, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, page := tmp_path / "page")
    for name in ("model.js", "runtime.js", "settings.js", "image.js", "exif.js", "colour.js"):
        (page / name).rename(tmp_path / name)
        ready(browser, page / "index.html")
        assert state(browser) == "Files of this page are missing. Keep all files of its folder together.", name
        assert browser.run("return document.getElementById('files').disabled")
        (tmp_path / name).rename(page / name)


def test_a_browser_that_computes_other_numbers_is_refused(browser: Browser, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "page")
    path = tmp_path / "page" / "settings.js"
    start, packed = path.read_text().split("ASSETS.settings = ")
    content = gzip.decompress(base64.b64decode(json.loads(packed.rstrip(";\n"))))
    settings = json.loads(content)
    settings["check"]["probability"] += 2 * BROWSER_TOLERANCE
    packed = json.dumps(base64.b64encode(gzip.compress(json.dumps(settings).encode())).decode())
    path.write_text(f"{start}ASSETS.settings = {packed};\n")
    ready(browser, tmp_path / "page" / "index.html")
    assert state(browser).startswith("This browser computes other probabilities than Python")
    assert browser.run("return document.getElementById('files').disabled")


@pytest.mark.parametrize("name", ["settings", "model"])
def test_a_changed_bit_is_said(browser: Browser, drawn: Path, tmp_path: Path, name: str) -> None:
    """A bit of the threshold changed the verdicts of the page without a word."""
    shutil.copytree(drawn, tmp_path / "page")
    path = tmp_path / "page" / f"{name}.js"
    content = bytearray(path.read_bytes())
    at = len(content) - 40
    content[at] = ord("B" if content[at] == ord("A") else "A")
    path.write_bytes(content)
    ready(browser, tmp_path / "page" / "index.html")
    assert state(browser) == "Files of this page are damaged. Copy or export them again."
    assert browser.run("return document.getElementById('files').disabled")


# --- tables --------------------------------------------------------------------------------------

TIME: dict[int, str] = {
    ExifTags.Base.DateTimeOriginal: "2026:06:05 09:30:00",
    ExifTags.Base.OffsetTimeOriginal: "+02:00",
}
# Reference and value of latitude and longitude as they are stored, and the position that they mean.
POSITIONS: dict[str, tuple[tuple[Any, Any, Any, Any], list[float] | None]] = {
    "north_east": (("N", (47.0, 22.0, 36.5), "E", (8.0, 32.0, 24.25)), [8.540069, 47.376806]),
    "south_west": (("S", (12.0, 2.0, 47.0), "W", (77.0, 1.0, 42.0)), [-77.028333, -12.046389]),
    "minutes": (("N", (40.0, 26.7717, 0.0), "W", (79.0, 56.93172, 0.0)), [-79.948862, 40.446195]),
    "none": ((None, None, None, None), None),
    "zero": (("N", (0.0, 0.0, 0.0), "E", (0.0, 0.0, 0.0)), None),
    "no_hemisphere": ((None, (47.0, 22.0, 36.5), "E", (8.0, 32.0, 24.25)), None),
    "impossible": (("N", (97.0, 0.0, 0.0), "E", (8.0, 0.0, 0.0)), None),
}


def placed(leaf: Path, folder: Path) -> list[Path]:
    """Write a leaf at each of the positions."""
    photograph, paths = Image.open(leaf), []
    for name, ((north, latitude, east, longitude), _) in POSITIONS.items():
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif).update(TIME)
        stored = {1: north, 2: latitude, 3: east, 4: longitude}
        exif.get_ifd(ExifTags.IFD.GPSInfo).update({tag: value for tag, value in stored.items() if value is not None})
        paths.append(folder / f"{name}.jpg")
        photograph.save(paths[-1], exif=exif)
    # A camera without a fix that writes 0/0: no other program writes it, so it is written over a true position.
    paths.append(folder / "nan.jpg")
    content = (folder / "north_east.jpg").read_bytes()
    degrees = (47).to_bytes(4, "big") + (1).to_bytes(4, "big")
    little = (47).to_bytes(4, "little") + (1).to_bytes(4, "little")
    assert content.count(degrees) + content.count(little) == 2  # either byte order reads one of them
    paths[-1].write_bytes(content.replace(degrees, bytes(8)).replace(little, bytes(8)))
    paths.append(folder / "=1+1,.jpg")
    shutil.copy(leaf, paths[-1])
    return paths


def saved(browser: Browser, folder: Path, button: str, name: str) -> str:
    """Press a button of the page and return the file that it saves."""
    (folder / name).unlink(missing_ok=True)
    browser._tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.driver.find_element("id", button).click()
    end = time.monotonic() + 60
    while not (folder / name).is_file():
        assert time.monotonic() < end
        time.sleep(0.05)
    return (folder / name).read_text(encoding="utf-8")


def test_positions_are_saved_only_if_asked_for(browser: Browser, drawn: Path, leaves: Path, tmp_path: Path) -> None:
    packed = (drawn / "model.js").read_text().split("ASSETS.model = ")[1].rstrip(";\n")
    (tmp_path / "model.onnx").write_bytes(gzip.decompress(base64.b64decode(json.loads(packed))))
    whole = bldml.load(drawn.parent / "run", "cpu").predict(photographs := sorted(leaves.rglob("*.jpg"))[::6])
    verdicts = bldml.load(tmp_path / "model.onnx").predict(photographs)
    assert max(abs(one.probability - other.probability) for one, other in zip(whole, verdicts, strict=True)) > 2 * SAME
    assert {verdict.band for verdict in verdicts} == {"negative", "uncertain", "positive"}
    ready(browser, drawn / "index.html")
    found = [row["probability"] for row in classify(browser, photographs)]
    assert found == pytest.approx([verdict.probability for verdict in verdicts], abs=SAME)
    table = list(csv.DictReader(saved(browser, tmp_path, "csv", "verdicts.csv").splitlines()))
    assert [row["band"] for row in table] == [verdict.band for verdict in verdicts]
    assert [float(row["distance"]) for row in table] == pytest.approx([v.distance for v in verdicts], rel=1e-3)
    strange = tmp_path / "magenta.png"
    Image.new("RGB", (60, 80), (255, 0, 255)).save(strange)
    classify(browser, [strange])
    assert "unlike the photographs that it learned from" in browser.run("return byId('rows').lastChild.textContent")
    table = list(csv.DictReader(saved(browser, tmp_path, "csv", "verdicts.csv").splitlines()))
    assert (table[0]["familiar"], table[-1]["familiar"]) == ("yes", "no")
    photographs = placed(next(leaves.rglob("*.jpg")), tmp_path)
    ready(browser, drawn / "index.html")
    rows = classify(browser, photographs)
    expected = [*(position for _, position in POSITIONS.values()), None, None]
    for asked, exact in ((False, False), (True, False), (True, True)):
        for box in (["places"] if asked and not exact else []) + (["rounded"] if exact else []):
            browser.driver.find_element("id", box).click()
        document = json.loads(saved(browser, tmp_path, "geojson", "verdicts.geojson"))
        assert document["type"] == "FeatureCollection"
        digits = 6 if exact else 2
        for feature, position, row in zip(document["features"], expected, rows, strict=True):
            found = feature["geometry"]
            if position is None or not asked:
                assert found is None, row["name"]
            else:
                assert found["type"] == "Point"
                assert found["coordinates"] == pytest.approx([round(value, digits) for value in position], abs=1e-6)
            properties = feature["properties"]
            assert (properties["path"], properties["label"]) == (row["name"], row["label"])
            assert properties["probability"] == row["probability"]
        times = {feature["properties"]["time"] for feature in document["features"]}
        assert times == ({None, "2026-06-05T09:30:00+02:00"} if asked else {None})
        table = list(csv.DictReader(saved(browser, tmp_path, "csv", "verdicts.csv").splitlines()))
        assert [row["longitude"] for row in table] == [
            "" if position is None or not asked else table[i]["longitude"] for i, position in enumerate(expected)
        ]
        assert table[-1]["path"] == "'=1+1,.jpg"
        assert [float(line["probability"]) for line in table] == [row["probability"] for row in rows]
    browser.driver.find_element("id", "clear").click()
    assert state(browser) == "Ready."
