"""Photographs that are damaged, unusual, blurred, too dark or too bright."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

import numpy as np

from bldml.audit.findings import AuditFinding, Severity, percentage, single_examples, split_command
from bldml.audit.reading import Row
from bldml.dataset.files import escape_path
from bldml.dataset.samples import Collection
from bldml.io.text import counted

PANORAMA = 3.0  # longer over shorter side; above it, the leaf becomes too small
TINY = 64  # pixels of the shorter side
BLURRED = 4.0  # robust standard deviations below the median of log sharpness
MIN_PHOTOGRAPHS = 20  # with fewer, the usual sharpness is not known
LOOK = "Check whether a person can recognise the disease in them."
DARK, BRIGHT = 20.0, 245.0  # mean grey level, 0 to 255

_SCREENSHOT = re.compile(
    r"screen[ _-]?shot|bildschirmfoto|capture d.?.cran|captura de pantalla|screen[ _-]?capture", re.I
)
_MESSENGER = re.compile(
    r"IMG-\d{8}-WA\d{4}|whatsapp image|^photo_\d{4}-\d\d-\d\d|^signal-\d{4}|^received_\d{6}|^fb_img_|^telegram", re.I
)
_MESSENGER_SIDES = (1280, 1600)  # longer side in pixels of Telegram and WhatsApp; other messengers have no typical size
_PHONE_WIDTHS = frozenset((640, 720, 750, 828, 1080, 1125, 1170, 1179, 1206, 1242, 1284, 1290, 1320, 1440))


def is_screenshot(row: Row) -> bool:
    """Return whether the file name says so, or a PNG without camera has the size of a phone screen."""
    metadata = row.metadata
    narrow, long = sorted((metadata.width, metadata.height))
    has_screen_size = narrow in _PHONE_WIDTHS and 1.7 <= long / narrow <= 2.4
    return bool(_SCREENSHOT.search(_stem(row))) or (
        metadata.format == "PNG" and not metadata.camera and has_screen_size
    )


def is_from_messenger(row: Row) -> bool:
    """Return whether a messenger probably compressed it again: by file name, or a JPEG of its size without camera."""
    metadata = row.metadata
    sides = (metadata.width, metadata.height)
    has_messenger_size = max(sides) in _MESSENGER_SIDES and min(sides) > 0
    return bool(_MESSENGER.search(_stem(row))) or (
        metadata.format == "JPEG" and not metadata.camera and has_messenger_size
    )


def is_panorama(row: Row) -> bool:
    """Return whether one side is more than three times the other."""
    sides = (row.metadata.width, row.metadata.height)
    return max(sides) > PANORAMA * min(sides) > 0


def is_tiny(row: Row) -> bool:
    """Return whether the shorter side has fewer than 64 pixels."""
    return 0 < min(row.metadata.width, row.metadata.height) < TINY


def find_blurred(rows: Sequence[Row]) -> list[Row]:
    """Return photographs that are far less sharp than the others, the least sharp first.

    Sharpness depends on the subject, so it is compared within the set: median and median absolute deviation.
    """
    if len(rows) < MIN_PHOTOGRAPHS:
        return []
    values = np.log([row.file.sharpness + 0.01 for row in rows])
    centre = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    # Even in a set of very different photographs, one that is 25 times less sharp than usual must be found.
    spread = min(max(spread, 0.1), 0.8)
    order = np.argsort(values, kind="stable")
    return [rows[index] for index in order if values[index] < centre - BLURRED * spread]


def flags(row: Row, blurred_names: frozenset[str]) -> list[str]:
    """Return what is unusual about a photograph, as keywords for a table."""
    checks: dict[str, Callable[[Row], bool]] = {
        "panorama": is_panorama,
        "tiny": is_tiny,
        "screenshot": is_screenshot,
        "messenger": is_from_messenger,
        "dark": lambda row: row.file.brightness < DARK,
        "bright": lambda row: row.file.brightness > BRIGHT,
        "blurred": lambda row: row.name in blurred_names,
    }
    return [] if row.file.reason else [word for word, check in checks.items() if check(row)]


def find_unreadable(collection: Collection, rows: Iterable[Row]) -> list[AuditFinding]:
    """Return findings on files that cannot be read, and HEIC files without the package to read them."""
    bad = [row for row in rows if row.file.reason]
    found = []
    if bad:
        found.append(
            AuditFinding(
                "error",
                "unreadable",
                f"{counted(len(bad), 'photograph')} cannot be read",
                "They are damaged, incomplete or not images. A fit does not start with them.",
                "Copy them again from the camera or memory card, remove them, or run fit with "
                "`--data.unreadable exclude`, which lists them in the run folder.",
                len(bad),
                single_examples([row.name for row in bad]),
                tuple(row.file.reason for row in bad),
            )
        )
    if collection.heif:
        names = [escape_path(path.relative_to(collection.root)) for path in collection.heif]
        found.append(
            AuditFinding(
                "warning",
                "heic",
                f"{counted(len(names), 'HEIC photograph')} not read",
                "iPhones write HEIC. Without these photographs a class or a phone may be missing from the dataset.",
                "Install `bldml[heif]`, or export them as JPEG.",
                len(names),
                single_examples(names),
            )
        )
    return found


def find_changed(collection: Collection, rows: Iterable[Row]) -> list[AuditFinding]:
    """Return a finding on photographs whose SHA-256 differs from the manifest's."""
    changed = [
        row.name
        for row in rows
        if not row.file.reason and collection.digests.get(row.name, row.file.digest) != row.file.digest
    ]
    if not changed:
        return []
    return [
        AuditFinding(
            "error",
            "changed",
            f"{counted(len(changed), 'photograph')} changed since the manifest was written",
            "Their SHA-256 differs from the one in the manifest. A fit does not start with them.",
            "Restore the original files, or write a new manifest.",
            len(changed),
            single_examples(changed),
            command=split_command(collection.root),
        )
    ]


def find_unusual(rows: Sequence[Row]) -> list[AuditFinding]:
    """Return findings on readable photographs that somebody should check."""
    dark = sorted((r for r in rows if r.file.brightness < DARK), key=lambda row: row.file.brightness)
    bright = sorted((r for r in rows if r.file.brightness > BRIGHT), key=lambda row: -row.file.brightness)
    found = [
        _unusual("panorama", "Panoramas", [r for r in rows if is_panorama(r)], rows,
                 "One side is more than three times the other. Resized to a square, the leaf is small and distorted.",
                 "Crop the leaf, or remove the photographs."),
        _unusual("tiny", "Very small", [r for r in rows if is_tiny(r)], rows, f"The shorter side has fewer than {TINY} "
                 "pixels: these are probably thumbnails.", "Use the original photographs."),
        _unusual("screenshot", "Probably screenshots", [r for r in rows if is_screenshot(r)], rows,
                 "Recognised by file name or by the size of a phone screen. A frame or buttons around the leaf can "
                 "reveal the class.", "Use the original photographs."),
        _unusual("blurred", "Far less sharp than the others", find_blurred(rows), rows, "", LOOK),
        _unusual("dark", "Nearly black", dark, rows, "", LOOK),
        _unusual("bright", "Nearly white", bright, rows, "", LOOK),
        _messengers(rows),
    ]  # fmt: skip
    return [finding for finding in found if finding is not None]


def _unusual(
    name: str, title: str, found: Sequence[Row], rows: Sequence[Row], text: str, advice: str
) -> AuditFinding | None:
    if not found:
        return None
    text = f"{text} {percentage(len(found), len(rows))} of all photographs: {_by_class(found)}.".strip()
    severity: Severity = "info" if advice == LOOK else "warning"
    title = f"{title}: {counted(len(found), 'photograph')}"
    return AuditFinding(severity, name, title, text, advice, len(found), single_examples([row.name for row in found]))


def _messengers(rows: Sequence[Row]) -> AuditFinding | None:
    sent = [row for row in rows if is_from_messenger(row)]
    if not sent:
        return None
    return AuditFinding(
        "info",
        "messenger",
        f"Probably sent by messenger: {counted(len(sent), 'photograph')}",
        f"{percentage(len(sent), len(rows))} of all photographs: {_by_class(sent)}. Messengers reduce photographs in "
        "size, compress them again and remove camera and time.",
        "If one class was sent by messenger and the other was not, a classifier may learn the compression: use the "
        "original photographs.",
        len(sent),
        single_examples([row.name for row in sent]),
    )


def _by_class(rows: Iterable[Row]) -> str:
    counts = Counter(row.sample.class_name or "without a class" for row in rows)
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _stem(row: Row) -> str:
    return PurePath(row.name).stem
