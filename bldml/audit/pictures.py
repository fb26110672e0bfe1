"""Thumbnails for the page, encoded again from the pixels, so that they contain no metadata of the files."""

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
PER_SHEET = 48  # photographs of one class
MAX_THUMBNAILS = 600  # on the page
MAX_BYTES = 20 * 2**20  # of all thumbnails together, base64-encoded


def contact_sheets(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return some photographs of each class, those with the smallest hashes: the same set gives the same sheets."""
    sheets: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"sheet {row.file.digest}".encode()).digest()):
        sheets.setdefault(row.sample.class_name, []).append(row)
    size = max(1, min(PER_SHEET, MAX_THUMBNAILS // 2 // max(1, len(sheets))))
    return {name: sheets[name][:size] for name in sorted(sheets)[: MAX_THUMBNAILS // 2]}


def names_to_draw(findings: Iterable[AuditFinding], sheets: dict[str, list[Row]]) -> list[str]:
    """Return the names of the photographs on the page: at most half for the findings and half for the sheets."""
    of_findings = dict.fromkeys(name for finding in findings for example in finding.examples for name in example)
    of_sheets = [row.name for sheet in sheets.values() for row in sheet]
    return list(dict.fromkeys([*list(of_findings)[: MAX_THUMBNAILS // 2], *of_sheets[: MAX_THUMBNAILS // 2]]))


def draw_thumbnails(rows: Iterable[Row], names: Sequence[str], workers: int) -> dict[str, str]:
    """Return data URLs of thumbnails by name; those that cannot be read or exceed `MAX_BYTES` are missing."""
    by_name = {row.name: row for row in rows if not row.file.reason}
    shown = [by_name[name] for name in names if name in by_name]
    urls: dict[str, str] = {}
    free = MAX_BYTES
    with ThreadPoolExecutor(workers) as pool:
        for row, url in zip(shown, pool.map(_draw, shown), strict=True):
            free -= len(url)
            if url and free >= 0:
                urls[row.name] = url
    return urls


def _draw(row: Row) -> str:
    try:
        picture = load_rgb(row.sample.path, SIDE)
    except UnreadableImage:  # changed since it was examined
        return ""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
