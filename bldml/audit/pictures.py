"""Small pictures for the page: drawn anew from the pixels, so that nothing of a file's metadata goes with them."""

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from bldml.audit.findings import AuditFinding
from bldml.audit.reading import Row
from bldml.dataset.images import UnreadableImage, load_rgb

SIDE = 160  # pixels of the longer side
QUALITY = 80
ON_A_SHEET = 48  # photographs of a class
MOST = 600  # pictures on a page
PAGE_BYTES = 20 * 2**20  # of all pictures together, as text


def contact_sheets(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Some photographs of each class, the same whenever the same are there: those whose hashes are smallest."""
    sheets: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"sheet {row.found.digest}".encode()).digest()):
        sheets.setdefault(row.sample.class_name, []).append(row)
    room = max(1, min(ON_A_SHEET, MOST // 2 // max(1, len(sheets))))
    return {name: sheets[name][:room] for name in sorted(sheets)[: MOST // 2]}


def wanted(findings: Iterable[AuditFinding], sheets: dict[str, list[Row]]) -> list[str]:
    """Names of the photographs that a page shows: half of the room is for the findings, half for the sheets."""
    of_findings = dict.fromkeys(name for finding in findings for example in finding.examples for name in example)
    of_sheets = [row.name for sheet in sheets.values() for row in sheet]
    return list(dict.fromkeys([*list(of_findings)[: MOST // 2], *of_sheets[: MOST // 2]]))


def draw(rows: Iterable[Row], names: Sequence[str], workers: int) -> dict[str, str]:
    """Addresses with pictures inside them, by name; those that cannot be read, or are too many, are missing."""
    by_name = {row.name: row for row in rows if not row.found.reason}
    shown = [by_name[name] for name in names if name in by_name]
    addresses: dict[str, str] = {}
    free = PAGE_BYTES
    with ThreadPoolExecutor(workers) as pool:
        for row, address in zip(shown, pool.map(_draw, shown), strict=True):
            free -= len(address)
            if address and free >= 0:
                addresses[row.name] = address
    return addresses


def _draw(row: Row) -> str:
    try:
        picture = load_rgb(row.sample.path, SIDE)
    except UnreadableImage:  # since it was examined
        return ""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
