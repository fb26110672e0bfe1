"""Style of all figures, and their output as inline SVG for a page or as files for a paper.

matplotlib is imported when the first figure is made; pyplot, with its global list of open figures, is never imported.
"""

import hashlib
import io
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bldml.io.atomic import check_name, make_folder, write_atomically
from bldml.io.safe_points import safe_point
from bldml.io.text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 300  # usual requirement of journals
# Of the files, with what leaves out date and software: the same figure gives the same bytes.
FORMATS = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}
WIDTH = 5.0  # inches
# Okabe and Ito's colours (2008), which people with any type of colour vision can distinguish; those with the most
# contrast on both white and black come first. Black is missing, because text and axes have it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# So that no curve is identified by its colour alone.
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
# Of a heat map, from little to most. Magenta is the complement of green and no colour of a lesion, so it stands out
# where it is laid over them. The lightness increases, so the map can be read without colour.
HEAT = ("1f0033", "3f0a5e", "651287", "9016a3", "bd1db0", "e62cb9", "ff5ccb")
INK = "#1b1f24"  # text and axes; on a page it becomes the colour of the text around the figure
MARGIN = 0.02  # beyond 0 and 1, so that a curve on the frame is visible
_COLOURED = ("axes.edgecolor", "axes.labelcolor", "grid.color", "text.color", "xtick.color", "ytick.color")
_STYLE = dict.fromkeys(_COLOURED, INK) | {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.family": ["DejaVu Sans"],  # included in matplotlib, so that a figure is the same everywhere
    "font.size": 9,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,  # text stays text, as journals require
    "svg.fonttype": "none",
    "svg.hashsalt": "bldml",
    "text.parse_math": False,  # a dollar in a class name is a dollar
}
_MAX_LABEL_WIDTH = 32  # characters; a Chinese character counts as two
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font:\s*(?P<rest>.*?)(?P<size>[\d.]+)px\s")


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style, as a context or a decorator, independent of the user's matplotlibrc.

    A character missing in the font is drawn as a box.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure of a size in inches, not registered in pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write_message(axes: "Axes", message: str) -> None:
    """Write a message in the middle of empty axes."""
    axes.text(0.5, 0.5, message, transform=axes.transAxes, ha="center", va="center")


def label_of(name: str) -> str:
    r"""Return a user's name as a label for figures: on one line, short, and valid in XML.

    >>> label_of("healthy"), label_of("a\x00b"), label_of("x" * 255)
    ('healthy', 'a\\x00b', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…')
    """
    text = _legal(name)
    wide = np.cumsum([2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text])
    if not text or wide[-1] <= _MAX_LABEL_WIDTH:
        return text
    return text[: int(np.sum(wide < _MAX_LABEL_WIDTH))] + "…"


def _legal(text: str) -> str:
    """Return a text on one line without characters that XML forbids."""
    return "".join(c if unicodedata.category(c) != "Cn" else "\ufffd" for c in plain(text))


def _lay_out(figure: "Figure") -> None:
    """Place everything in a figure, once for all formats in which it is written."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)  # with "none", matplotlib draws it twice for each format


@styled()
def to_svg(figure: "Figure", *, title: str, description: str) -> str:
    """Return a figure as an `<svg>` element for an HTML page.

    It is allowed by a strict content security policy (no style, no script, no external address) and takes the colour of
    the surrounding text (light and dark). Its identifiers begin with a hash of its content and title, so that they
    never equal those of another figure. The same figure gives the same bytes. Title (also shown as a tooltip) and
    description are for people who cannot see the figure.
    """
    _lay_out(figure)
    file = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    root = ElementTree.fromstring(file.getvalue())  # written by matplotlib a moment ago: trusted
    prefix = "f" + hashlib.sha256(b"\0".join([file.getvalue(), title.encode("utf-8", "replace")])).hexdigest()[:10]
    for parent in root.iter():
        for child in [c for c in parent if c.tag == f"{_SVG}style" or not c.tag.startswith(_SVG)]:
            parent.remove(child)
    root[:] = [child for child in root if child.tag not in (f"{_SVG}metadata", f"{_SVG}title")]
    used = {value.removeprefix("#") for e in root.iter() if (value := e.get(_LINK) or e.get("href"))}
    used |= {name for e in root.iter() for value in e.attrib.values() for name in _REFERENCE.findall(value)}
    for element in root.iter():
        _plain_attributes(element, prefix, used)
        element.tag = element.tag.removeprefix(_SVG)
    root.attrib.pop("version", None)
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "role": "img",
        "aria-labelledby": f"{prefix}-title {prefix}-desc",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{prefix}-{tag}"})
        element.text = _legal(text)
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode")


def _plain_attributes(element: ElementTree.Element, prefix: str, used: set[str]) -> None:
    """Replace styles by attributes, `INK` by the text colour of the page, and make used identifiers unique."""
    style = _FONT.sub(r"font-size: \g<size>px; font-family: ", element.attrib.pop("style", ""))
    for rule in filter(None, map(str.strip, style.split(";"))):
        name, _, value = rule.partition(":")
        element.set(name.strip(), value.strip())
    if "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))
    if "font-family" in element.attrib:
        element.set("font-family", "inherit")
    if (identifier := element.attrib.pop("id", None)) in used:
        element.set("id", f"{prefix}-{identifier}")
    if link := element.attrib.pop(_LINK, None):
        element.set("href", f"#{prefix}-{link.removeprefix('#')}")
    for name, value in element.attrib.items():
        if value.lower() == INK:
            element.set(name, "currentColor")
        elif name != "href":
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))


@styled()
def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as `<name>.png` at 300 dpi, `<name>.pdf` and `<name>.svg`, without a date, and return their paths.

    Raises:
        RunError: The files cannot be written, or the name is not valid.
    """
    safe_point()
    check_name(name, "figure")
    make_folder(folder)
    _lay_out(figure)
    paths = []
    for suffix, omitted in FORMATS.items():
        file = io.BytesIO()
        figure.savefig(file, format=suffix, dpi=DPI, facecolor="white", metadata={omitted: None})
        paths.append(folder / f"{name}.{suffix}")
        write_atomically(paths[-1], file.getvalue())
    return paths
