"""The page that classifies photographs in a browser without a network: as a folder, and as one file."""

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageCms

from bldml.export.parity import Parity
from bldml.figures.style import HEAT
from bldml.inference.exported import ExportedModel
from bldml.io.text import plain
from bldml.report.html import page_template, script_hash
from bldml.training.checkpoint import Header
from bldml.training.transforms import evaluation_image

WEB = Path(__file__).parent / "web"
VENDOR = WEB / "vendor"
RUNTIME_VERSION = "1.30.0"
BROWSER_TOLERANCE = 0.002
"""Largest difference of a probability in a browser from Python's, which the page checks on a drawn image."""
CHECK_SIZE = (331, 257)  # of that image


def page_files(
    model: ExportedModel, content: bytes, parity: Parity, stated: Mapping[str, str | None]
) -> dict[str, bytes]:
    """Return the files of the page by name: those of the folder, and the page as one file.

    Args:
        model: The exported ONNX file.
        content: Its bytes.
        parity: How it compares with its checkpoint.
        stated: Items of the card; None for one that is not stated.
    """
    scripts = {
        # Packed, they have a checksum: one changed digit of the threshold would change verdicts.
        "settings.js": _asset("settings", _packed(json.dumps(_settings(model)).encode())),
        "runtime.js": "".join(_asset(name, text) for name, text in _runtime().items()),
        "model.js": _asset("model", _packed(content)),
        **{name: (WEB / name).read_text(encoding="utf-8") for name in ("colour.js", "image.js", "exif.js", "app.js")},
    }
    values = _values(model, parity, stated)
    template = page_template("index.html", WEB)
    hashes = " ".join(f"'{script_hash(text)}'" for text in scripts.values())
    inline = [(name, Markup(text)) for name, text in scripts.items()]  # they are our own, and JSON without <
    files = {
        "index.html": template.render(values, is_folder=True, scripts_allowed="'self'", scripts=inline).encode(),
        **{name: text.encode() for name, text in scripts.items()},
        "icon.svg": (WEB / "icon.svg").read_bytes(),
        "manifest.webmanifest": json.dumps(_manifest(values["positive"], values["negative"])).encode(),
    }
    files["sw.js"] = _worker(files)
    files["LICENSE-onnxruntime.txt"] = (VENDOR / "LICENSE").read_bytes()
    files["ThirdPartyNotices-onnxruntime.txt"] = gzip.decompress((VENDOR / "ThirdPartyNotices.txt.gz").read_bytes())
    single = template.render(values, is_folder=False, scripts_allowed=Markup(hashes), scripts=inline)
    return files | {single_name(values["positive"], values["negative"]): single.encode()}


def single_name(positive: str, negative: str) -> str:
    """Return the name of the page as one file.

    >>> single_name("BLD", "No BLD"), single_name("é", "/")
    ('BLD_or_No_BLD.html', 'classifier.html')
    """
    names = [re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")[:40] for name in (positive, negative)]
    return f"{'_or_'.join(names) if all(names) else 'classifier'}.html"


def check_image(width: int, height: int) -> NDArray[np.uint8]:
    """Return the image by which the page checks itself, (height, width, 3); `checkImage` in image.js is the same."""
    y, x, c = np.ogrid[:height, :width, :3]
    pixels: NDArray[np.uint8] = ((x * (c + 1) + y * 2 + ((x * y) >> 6)) & 255).astype(np.uint8)
    return pixels


def exchanged_jpeg() -> bytes:
    """Return a reddish JPEG with a profile that exchanges red and blue, by which the page tests the browser."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(file, format="JPEG", quality=95, icc_profile=exchanged)
    return file.getvalue()


def band_limits(header: Header) -> dict[str, float] | None:
    """Return the limits between certain and uncertain predictions; None for a classifier without."""
    if header.bands is None or header.bands.low is None or header.bands.high is None:
        return None
    return {"low": header.bands.low, "high": header.bands.high}


def _settings(model: ExportedModel) -> dict[str, Any]:
    header, said = model.header, model.description
    width, height = CHECK_SIZE
    image = evaluation_image(Image.fromarray(check_image(width, height)), header.image_size).unsqueeze(0)
    return {
        "positive": plain(header.positive_class),
        "negative": plain(header.negative_class),
        "threshold": header.threshold,
        "bands": band_limits(header),
        "side": header.image_size,
        "heat": [[*bytes.fromhex(colour)] for colour in HEAT],
        "checkpoint": said["checkpoint_sha256"],
        "check": {
            "width": width,
            "height": height,
            "probability": float(model.evaluate(image)[0][0]),
            "tolerance": BROWSER_TOLERANCE,
            "jpeg": _base64(exchanged_jpeg()),
        },
    }


def _runtime() -> dict[str, str]:
    """Return ONNX Runtime Web and its notices, each compressed and in Base64."""
    library = (VENDOR / "ort.wasm.bundle.min.mjs").read_bytes()
    packed = {name: (VENDOR / file).read_bytes() for name, file in _PACKED.items()}
    return {"library": _packed(library), **{name: _base64(content) for name, content in packed.items()}}


_PACKED = {"wasm": "ort-wasm-simd-threaded.wasm.gz", "notices": "ThirdPartyNotices.txt.gz"}


def _asset(name: str, value: Any) -> str:
    """Return a script that defines one part of the page's content. No text in it can end the script early."""
    return f"globalThis.ASSETS ??= {{}};\nASSETS.{name} = {json.dumps(value).replace('<', chr(92) + 'u003c')};\n"


def _packed(content: bytes) -> str:
    return _base64(gzip.compress(content, mtime=0))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _values(model: ExportedModel, parity: Parity, stated: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what the template shows."""
    header, said = model.header, model.description
    decoding = "" if header.decode == "full" else " The checkpoint was evaluated with JPEGs decoded at a reduced scale."
    return {
        "positive": plain(header.positive_class),
        "negative": plain(header.negative_class),
        "threshold": f"{header.threshold:.3g}",
        "bands": band_limits(header),
        "stated": [(title, text) for title, text in stated.items() if text],
        "parity": parity.sentence + decoding,
        "facts": f"{header.backbone}, {header.image_size} × {header.image_size} px; weights stored as "
        f"{said['weights']}; checkpoint {said['checkpoint_sha256'][:16]}; bldml {said['exported_with']['bldml']}",
        "runtime_version": RUNTIME_VERSION,
        "licence": (VENDOR / "LICENSE").read_text(encoding="utf-8"),
    }


def _manifest(positive: str, negative: str) -> dict[str, Any]:
    """Return what a browser needs to install the page."""
    icon = {"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}
    name = {"name": f"{positive} or {negative}?", "short_name": positive}
    return name | {"start_url": "./", "scope": "./", "display": "standalone", "icons": [icon]}


def _worker(files: Mapping[str, bytes]) -> bytes:
    """Return the script that keeps these files in the browser; its version follows from their content."""
    version = hashlib.sha256(b"".join(files.values())).hexdigest()[:16]
    names = Markup(json.dumps(["./", *files]))
    return page_template("sw.js", WEB).render(version=version, files=names).encode()
