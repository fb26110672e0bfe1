"""The Jinja environment of every page: outside text is escaped, and an undefined name is an error."""

from pathlib import Path
from typing import TYPE_CHECKING

from bldml.io.text import plain

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def page_template(name: str) -> "jinja2.Template":
    """Return the template of a page.

    Its filter `svg` inserts a figure of `bldml.figures`, in which all text is escaped; `plain` is
    `bldml.io.text.plain`.

    Args:
        name: Its file name, such as `report.html`.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "plain": plain}
    return environment.get_template(name)
