"""The Jinja environment of every page: outside text is escaped, and an undefined name is an error."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bldml.figures.style import HEAT
from bldml.io.text import counted, number, plain
from bldml.report.tables import count, precise_number

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def script_hash(script: str) -> str:
    """Return by which a page's Content-Security-Policy allows a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def page_template(name: str, folder: Path = TEMPLATES) -> "jinja2.Template":
    """Return the template of a page.

    Its filter `svg` inserts a figure of `bldml.figures`, in which all text is escaped; the others format a text, a
    number or a count as everywhere.

    Args:
        name: Its file name, such as `report.html`.
        folder: Where it lies, if not among the report's; it may include those.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "plain": plain, "number": number, "precise_number": precise_number}
    environment.globals["heat_colours"] = HEAT
    environment.filters |= {"counted": counted, "thousands": count}
    return environment.get_template(name)
