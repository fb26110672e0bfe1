"""Photographs that are damaged, unusual, blurred, too dark or too bright."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

import numpy as np

from bldml.audit.examine import Row
from bldml.audit.findings import AuditFinding, Severity, about_photographs, percentage, split_command
from bldml.dataset.files import escape_path
from bldml.dataset.formats.interruption import describe_interruption
from bldml.dataset.samples import Collection
from bldml.io.text import counted
from bldml.run.baselines import is_from_messenger

PANORAMA = 3.0  # longer over shorter side; above it, the leaf becomes too small
TINY = 64  # pixels of the shorter side
BLURRED = 4.0  # robust standard deviations below the median of log sharpness
MIN_PHOTOGRAPHS = 20  # with fewer, the usual sharpness is not known
LOOK = "Check whether a person can recognise the disease in them."
DARK, BRIGHT = 20.0, 245.0  # mean grey level, 0 to 255
BITS_12 = 255 / 16  # mean grey level; of 12 bits stored as 16, without saying so, it is lower
NO_CHECKSUM = ("WEBP", "BMP", "TIFF")

_SCREENSHOT = re.compile(
    r"screen[ _-]?shot|bildschirmfoto|capture d.?.cran|captura de pantalla|screen[ _-]?capture", re.I
)
_PHONE_WIDTHS = frozenset((640, 720, 750, 828, 1080, 1125, 1170, 1179, 1206, 1242, 1284, 1290, 1320, 1440))


def is_screenshot(row: Row) -> bool:
    """Return whether the file name says so, or a PNG without camera has the size of a phone screen."""
    metadata = row.metadata
    narrow, long = sorted((metadata.width, metadata.height))
    has_screen_size = narrow in _PHONE_WIDTHS and 1.7 <= long / narrow <= 2.4
    by_size = metadata.format == "PNG" and not metadata.camera and has_screen_size
    return by_size or bool(_SCREENSHOT.search(PurePath(row.name).stem))


def find_odd(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the photographs that somebody should check, by what is unusual about them; the keywords of `audit.csv`."""
    sides = {row.name: sorted((row.metadata.width, row.metadata.height)) for row in rows}
    dark = [row for row in rows if row.file.brightness < DARK]
    bright = [row for row in rows if row.file.brightness > BRIGHT]
    return {
        "panorama": [row for row in rows if sides[row.name][1] > PANORAMA * sides[row.name][0] > 0],
        "tiny": [row for row in rows if 0 < sides[row.name][0] < TINY],
        "screenshot": [row for row in rows if is_screenshot(row)],
        "messenger": [row for row in rows if is_from_messenger(row.photograph)],
        "dark": sorted(dark, key=lambda row: row.file.brightness),
        "bright": sorted(bright, key=lambda row: -row.file.brightness),
        "blurred": find_blurred(rows),
        "depth": [row for row in rows if ";16" in row.metadata.mode and row.file.brightness < BITS_12],
        "cmyk": [row for row in rows if row.metadata.mode == "CMYK" and not row.metadata.icc],
    }


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


# Severity, title, text with the place of number and classes, advice.
_ODD: dict[str, tuple[Severity, str, str, str]] = {
    "panorama": (
        "warning",
        "Panoramas",
        "One side is more than three times the other. Resized to a square, the leaf is small and distorted. {}",
        "Crop the leaf, or remove the photographs.",
    ),
    "tiny": (
        "warning",
        "Very small",
        f"The shorter side has fewer than {TINY} pixels: these are probably thumbnails. {{}}",
        "Use the original photographs.",
    ),
    "screenshot": (
        "warning",
        "Probably screenshots",
        "Recognised by file name or by the size of a phone screen. A frame or buttons around the leaf can reveal the "
        "class. {}",
        "Use the original photographs.",
    ),
    "depth": (
        "warning",
        "Perhaps 12 bits stored as 16",
        "Their mean is below 1/16 of the highest value of 16 bits, as it is when the highest value used is that of 12 "
        "bits. The files do not say so, and they are read as they are: nearly black. {}",
        "Look at them. If they are too dark, export them with 8 bits, or with all 16.",
    ),
    "cmyk": (
        "warning",
        "CMYK without a colour profile",
        "CMYK is for printing. Without a profile its colours are a rough guess. {}",
        "Use the original photographs, or export them as sRGB.",
    ),
    "blurred": ("info", "Far less sharp than the others", "{}", LOOK),
    "dark": ("info", "Nearly black", "{}", LOOK),
    "bright": ("info", "Nearly white", "{}", LOOK),
    "messenger": (
        "info",
        "Probably sent by messenger",
        "{} Messengers reduce photographs in size, compress them again and remove camera and time.",
        "If one class was sent by messenger and the other was not, a classifier may learn the compression: use the "
        "original photographs.",
    ),
}


def report_odd(odd: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> list[AuditFinding]:
    """Return findings on photographs that somebody should check, among all readable ones."""
    findings = []
    for name, (severity, title, text, advice) in _ODD.items():
        if found := odd[name]:
            counts = Counter(row.sample.class_name or "without a class" for row in found)
            by_class = ", ".join(f"{count:,} {label}" for label, count in sorted(counts.items()))
            text = text.format(f"{percentage(len(found), len(rows))} of all photographs: {by_class}.")
            title = f"{title}: {counted(len(found), 'photograph')}"
            findings.append(about_photographs(severity, name, title, text, advice, [row.name for row in found]))
    return findings


def find_unreadable(collection: Collection, rows: Iterable[Row]) -> list[AuditFinding]:
    """Return findings on files that cannot be read, and HEIC files without the package to read them."""
    bad = [row for row in rows if row.file.reason]
    found = []
    if bad:
        title = f"{counted(len(bad), 'photograph')} cannot be read"
        text = "They are damaged, incomplete or not images. A fit does not start with them."
        if interruption := describe_interruption(row.sample.path for row in bad):
            text = f"{text} {interruption}"
        advice = "Copy them again from the camera or memory card, remove them, or run fit with "
        advice += "`--data.unreadable exclude`, which lists them in the run folder."
        names, reasons = [row.name for row in bad], [row.file.reason for row in bad]
        found.append(about_photographs("error", "unreadable", title, text, advice, names, reasons))
    if collection.heif:
        names = [escape_path(path.relative_to(collection.root)) for path in collection.heif]
        title = f"{counted(len(names), 'HEIC photograph')} not read"
        text = "iPhones write HEIC. Without these photographs a class or a phone may be missing from the dataset."
        advice = "Install `bldml[heif]`, or export them as JPEG."
        found.append(about_photographs("warning", "heic", title, text, advice, names))
    return found


def find_without_checksum(rows: Iterable[Row]) -> list[AuditFinding]:
    """Return a finding on readable files in which overwritten data cannot be noticed."""
    found = [row for row in rows if row.metadata.format in NO_CHECKSUM]
    if not found:
        return []
    counts = Counter(row.metadata.format for row in found)
    by_format = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    title = f"Overwritten data would not be noticed in {counted(len(found), 'photograph')}"
    text = (
        f"{by_format}. WebP, BMP and TIFF have no checksum. Missing data are found in them, but not data that another "
    )
    text += "file or zeros replaced, unless the TIFF is compressed."
    return [about_photographs("info", "no_checksum", title, text, "", [row.name for row in found])]


def find_changed(collection: Collection, rows: Iterable[Row]) -> list[AuditFinding]:
    """Return a finding on readable photographs whose content differs from the digest in the manifest."""
    changed = [row.name for row in rows if collection.digests.get(row.name, row.file.digest) != row.file.digest]
    if not changed:
        return []
    title = f"{counted(len(changed), 'photograph')} changed since the manifest was written"
    text = "Their SHA-256 differs from the one in the manifest. A fit does not start with them."
    advice = "Restore the original files, or write a new manifest."
    command = split_command(collection.root)
    return [about_photographs("error", "changed", title, text, advice, changed, command=command)]
