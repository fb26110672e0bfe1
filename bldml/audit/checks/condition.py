"""Photographs that are damaged, odd, blurred, too dark or too bright."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

import numpy as np

from bldml.audit.findings import AuditFinding, Severity, first, photographs, share, split_command
from bldml.audit.reading import Row
from bldml.dataset.files import escape_path
from bldml.dataset.samples import Collection

PANORAMA = 3.0  # longer over shorter side, from which a leaf becomes too small
TINY = 64  # pixels of the shorter side
BLURRED = 4.0  # robust standard deviations below the median of the logarithm of the sharpness
FEWEST = 20  # photographs, below which there is no telling what is usual
LOOK = "Look whether a person could tell the disease on them."
DARK, BRIGHT = 20.0, 245.0  # mean grey level, 0 to 255

_SCREENSHOT = re.compile(
    r"screen[ _-]?shot|bildschirmfoto|capture d.?.cran|captura de pantalla|screen[ _-]?capture", re.I
)
_MESSENGER = re.compile(
    r"IMG-\d{8}-WA\d{4}|whatsapp image|^photo_\d{4}-\d\d-\d\d|^signal-\d{4}|^received_\d{6}|^fb_img_|^telegram", re.I
)
_MESSENGER_SIDES = (1280, 1600)  # Telegram's and WhatsApp's longer side in pixels; others have none of their own
_PHONE_WIDTHS = frozenset((640, 720, 750, 828, 1080, 1125, 1170, 1179, 1206, 1242, 1284, 1290, 1320, 1440))


def is_screenshot(row: Row) -> bool:
    """Whether the name says so, or a PNG without a camera is as wide and long as a telephone's screen."""
    found = row.metadata
    narrow, long = sorted((found.width, found.height))
    is_like_a_screen = narrow in _PHONE_WIDTHS and 1.7 <= long / narrow <= 2.4
    return bool(_SCREENSHOT.search(_stem(row))) or (found.format == "PNG" and not found.camera and is_like_a_screen)


def is_from_messenger(row: Row) -> bool:
    """Whether a messenger seems to have compressed it again: its name, or its size in a JPEG without a camera."""
    found = row.metadata
    is_sized_so = max(found.width, found.height) in _MESSENGER_SIDES and min(found.width, found.height) > 0
    return bool(_MESSENGER.search(_stem(row))) or (found.format == "JPEG" and not found.camera and is_sized_so)


def is_panorama(row: Row) -> bool:
    """Whether one side is more than three times the other."""
    found = row.metadata
    return max(found.width, found.height) > PANORAMA * min(found.width, found.height) > 0


def is_tiny(row: Row) -> bool:
    """Whether the shorter side has less than 64 pixels."""
    return 0 < min(row.metadata.width, row.metadata.height) < TINY


def blurred(rows: Sequence[Row]) -> list[Row]:
    """Photographs far less sharp than the others, the least sharp first.

    The measure depends on what is shown, so it is compared within the set: median and median absolute deviation.
    """
    if len(rows) < FEWEST:
        return []
    values = np.log([row.found.sharpness + 0.01 for row in rows])
    centre = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    # A set of very different photographs must not hide one that is 25 times less sharp than usual.
    spread = min(max(spread, 0.1), 0.8)
    order = np.argsort(values, kind="stable")
    return [rows[index] for index in order if values[index] < centre - BLURRED * spread]


def flags(row: Row, blurred_names: frozenset[str]) -> list[str]:
    """What is odd about a photograph, as words for a table."""
    checks: dict[str, Callable[[Row], bool]] = {
        "panorama": is_panorama,
        "tiny": is_tiny,
        "screenshot": is_screenshot,
        "messenger": is_from_messenger,
        "dark": lambda row: row.found.brightness < DARK,
        "bright": lambda row: row.found.brightness > BRIGHT,
        "blurred": lambda row: row.name in blurred_names,
    }
    return [] if row.found.reason else [word for word, check in checks.items() if check(row)]


def find_unreadable(collection: Collection, rows: Iterable[Row]) -> list[AuditFinding]:
    """Files that cannot be used, and HEIC files that nothing here reads."""
    bad = [row for row in rows if row.found.reason]
    found = []
    if bad:
        found.append(
            AuditFinding(
                "wrong",
                "unreadable",
                f"{photographs(len(bad))} cannot be read",
                "They are damaged, cut short or no pictures. A fit stops at them.",
                "Copy them again from the camera or card; or take them away, or fit with `--data.unreadable exclude`, "
                "which names them in the run folder.",
                len(bad),
                first([row.name for row in bad]),
                tuple(row.found.reason for row in bad),
            )
        )
    if collection.heif:
        names = [escape_path(path.relative_to(collection.root)) for path in collection.heif]
        found.append(
            AuditFinding(
                "doubtful",
                "heic",
                f"In HEIC, and not read: {photographs(len(names))}",
                "HEIC is what iPhones write. Without them a class or a telephone may be missing from the set.",
                "Install `bldml[heif]`, or export them as JPEG.",
                len(names),
                first(names),
            )
        )
    return found


def find_changed(collection: Collection, rows: Iterable[Row]) -> list[AuditFinding]:
    """Photographs that are no longer what the manifest says by their SHA-256."""
    changed = [
        row.name
        for row in rows
        if not row.found.reason and collection.digests.get(row.name, row.found.digest) != row.found.digest
    ]
    if not changed:
        return []
    return [
        AuditFinding(
            "wrong",
            "changed",
            f"{photographs(len(changed))} changed since the manifest was written",
            "Their contents are not those that the manifest names by SHA-256. A fit stops at them.",
            "Put the old files back, or divide anew.",
            len(changed),
            first(changed),
            command=split_command(collection.root),
        )
    ]


def find_odd(rows: Sequence[Row]) -> list[AuditFinding]:
    """What can be read and should be looked at."""
    blurred_rows = blurred(rows)
    dark = sorted((r for r in rows if r.found.brightness < DARK), key=lambda row: row.found.brightness)
    bright = sorted((r for r in rows if r.found.brightness > BRIGHT), key=lambda row: -row.found.brightness)
    found = [
        _odd("panorama", "Panoramas", [r for r in rows if is_panorama(r)], rows,
             "One side is more than three times the other. In a square frame the leaf becomes small and is squeezed.",
             "Cut the leaf out, or leave them away."),
        _odd("tiny", "Tiny", [r for r in rows if is_tiny(r)], rows, f"The shorter side has less than {TINY} pixels: "
             "thumbnails rather than photographs.", "Look for the originals."),
        _odd("screenshot", "Screenshots, it seems", [r for r in rows if is_screenshot(r)], rows,
             "By their names, or by the size of a telephone’s screen. A frame or buttons around the leaf can give the "
             "class away.",
             "Look for the originals."),
        _odd("blurred", "Far less sharp than the others", blurred_rows, rows, "", LOOK),
        _odd("dark", "Nearly black", dark, rows, "", LOOK),
        _odd("bright", "Nearly white", bright, rows, "", LOOK),
        _messengers(rows),
    ]  # fmt: skip
    return [finding for finding in found if finding is not None]


def _odd(name: str, title: str, odd: Sequence[Row], rows: Sequence[Row], text: str, advice: str) -> AuditFinding | None:
    if not odd:
        return None
    text = f"{text} {share(len(odd), len(rows))} of all: {_by_class(odd)}.".strip()
    severity: Severity = "note" if advice == LOOK else "doubtful"
    title = f"{title}: {photographs(len(odd))}"
    return AuditFinding(severity, name, title, text, advice, len(odd), first([row.name for row in odd]))


def _messengers(rows: Sequence[Row]) -> AuditFinding | None:
    sent = [row for row in rows if is_from_messenger(row)]
    if not sent:
        return None
    return AuditFinding(
        "note",
        "messenger",
        f"Come through a messenger, it seems: {photographs(len(sent))}",
        f"{share(len(sent), len(rows))} of all: {_by_class(sent)}. Messengers shrink photographs, compress them again "
        "and take camera and time away.",
        "Where one class came through a messenger and the other did not, a classifier may learn the compression: get "
        "the originals.",
        len(sent),
        first([row.name for row in sent]),
    )


def _by_class(rows: Iterable[Row]) -> str:
    counts = Counter(row.sample.class_name or "without a class" for row in rows)
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _stem(row: Row) -> str:
    return PurePath(row.name).stem
