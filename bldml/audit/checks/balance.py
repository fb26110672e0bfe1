"""Class counts by split, group, camera, day and file type; classes missing from a split."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bldml.audit.examine import Row
from bldml.audit.findings import AuditFinding, split_command
from bldml.dataset.samples import SPLITS, Collection
from bldml.io.text import counted, number, plain
from bldml.report.tables import Table, text_table

FEW = 10  # photographs of a class in a split; with fewer, its metrics are unreliable
MEGAPIXELS = (0.1, 0.3, 1, 2, 4, 8, 12, 16, 24, 48)  # edges of bins, near the sizes of sensors
SQUARE = 0.02  # difference of the sides of a square
MAX_ROWS = 15  # of a table on the page
MIN_DIFFERENCE = 0.1  # of a class's proportion between two splits, to be reported

ORIENTATIONS = {
    0: "not stated", 1: "upright", 2: "mirrored", 3: "rotated by 180°", 4: "mirrored, rotated by 180°",
    5: "mirrored, rotated by 270°", 6: "rotated by 90°", 7: "mirrored, rotated by 90°", 8: "rotated by 270°",
}  # fmt: skip

CHROMA = {"2x2 1x1 1x1": "4:2:0", "2x1 1x1 1x1": "4:2:2", "1x1 1x1 1x1": "4:4:4"}  # by sampling factors


def class_names(rows: Iterable[Row]) -> list[str]:
    """Return the class names in alphabetical order."""
    return sorted({row.sample.class_name for row in rows})


def splits_table(rows: Sequence[Row], units: Sequence[int]) -> Table:
    """Return a table of photographs by split and class; `units` are those of `Repeats`."""
    names = class_names(rows)
    lines: list[list[str | int | None]] = []
    for split in sorted({row.split for row in rows}, key=SPLITS.index):
        inside = [(row.sample, unit) for row, unit in zip(rows, units, strict=True) if row.split == split]
        counts = Counter(sample.class_name for sample, _ in inside)
        groups = {sample.group for sample, _ in inside} - {""}
        independent = {unit for _, unit in inside}
        lines.append(
            [split, *(counts[name] for name in names), len(inside), len(groups) or "not given", len(independent)]
        )
    caption = (
        "Readable photographs by split and class. Independent: each burst, set of duplicates or group counts as one "
        "photograph."
    )
    header = ("Split", *map(plain, names), "Total", "Groups", "Independent")
    return text_table("splits", caption, header, lines)


def by_class(name: str, title: str, caption: str, rows: Sequence[Row], key: Callable[[Row], str]) -> Table:
    """Return a table of photographs by a property and class, the most frequent value first.

    `title` is that of its first column; `key` returns the value of the property, empty if not known.
    """
    names = class_names(rows)
    cells = Counter((key(row), row.sample.class_name) for row in rows)
    lines: list[list[str | int | None]] = []
    for value, total in Counter(key(row) for row in rows).most_common():
        counts = [cells[value, class_name] for class_name in names]
        fractions = [number(count / total, 2) for count in counts]
        lines.append([plain(value) or "not known", total, *counts, *fractions])
    header = (title, "Total", *map(plain, names), *(f"Fraction {plain(class_name)}" for class_name in names))
    table = text_table(name, caption, header, lines)
    return replace(table, rows=table.rows[:MAX_ROWS], left_out=max(0, len(lines) - MAX_ROWS))


def tables(rows: Sequence[Row], units: Sequence[int]) -> list[Table]:
    """Return all tables of counts, without those of properties that no file has."""
    note = "If a value occurs in one class only, a classifier may learn it instead of the disease."
    properties: list[tuple[str, str, str, Callable[[Row], str]]] = [
        ("groups", "Group", "By group (site, tree) from the manifest.", lambda row: row.sample.group),
        ("cameras", "Camera", f"By camera (file metadata). {note}", lambda row: row.metadata.camera),
        ("days", "Day", f"By day (file metadata). {note}", lambda row: row.metadata.taken[:10]),
        ("formats", "Format", f"By file format and pixel mode. {note}", _format),
        ("sizes", "Size", f"By size of the upright image: megapixels and ratio of the sides. {note}", _size),
        ("orientations", "Orientation", "By orientation tag; all photographs are used upright.",
         lambda row: ORIENTATIONS.get(row.metadata.orientation, "illegal")),
        ("profiles", "Colour profile", "By embedded colour profile; all photographs are converted to sRGB.",
         lambda row: row.metadata.icc or "none"),
        ("encoders", "Encoder", f"By encoder: how the file was written, and by which program. {note}", _encoder),
    ]  # fmt: skip
    shown = [
        by_class(name, title, caption, rows, key)
        for name, title, caption, key in properties
        if any(key(row) for row in rows)
    ]
    return [splits_table(rows, units), *shown]


def find_imbalance(collection: Collection, rows: Sequence[Row]) -> list[AuditFinding]:
    """Return findings on classes missing or rare in a split, differing class proportions, groups in two splits."""
    names, root = class_names(rows), collection.root
    counts = {
        split: Counter(row.sample.class_name for row in rows if row.split == split) for split in collection.splits
    }
    findings = []
    if len(names) < 2:
        title = "There are fewer than two classes"
        text = f"Readable photographs: {_listed(Counter(row.sample.class_name for row in rows))}."
        advice = "Make one folder with photographs for each class."
        findings.append(AuditFinding("error", "classes", title, text, advice))
    for split, count in counts.items():
        missing = [name for name in names if not count[name]]
        few = [name for name in names if 0 < count[name] < FEW]
        text = f"It contains {_listed(count)}"
        if missing:
            title, advice = f"The {split} split has no {' and no '.join(missing)}", "Split the photographs again."
            finding = AuditFinding("error", f"lacking_{split}", title, f"{text}.", advice, count.total())
            findings.append(replace(finding, command=split_command(root)))
        if few:
            title, text = f"The {split} split has few photographs of a class", f"{text}: metrics on this split will be "
            advice = "Add photographs, or use cross-validation folds, so that nearly all photographs are tested on."
            number_of_few = sum(count[name] for name in few)
            finding = AuditFinding("warning", f"few_{split}", title, f"{text}unreliable.", advice, number_of_few)
            findings.append(replace(finding, command=split_command(root, "--folds", "5")))
    return [*findings, *_proportions(names, counts, root), *_shared_groups(rows, root)]


def _proportions(names: Sequence[str], counts: dict[str, Counter[str]], root: Path) -> list[AuditFinding]:
    """Report a class whose proportion differs between splits by more than chance and by `MIN_DIFFERENCE`."""
    from scipy.stats import chi2_contingency

    used = {split: count for split, count in counts.items() if count.total()}
    if len(used) < 2 or len(names) < 2:
        return []
    p = float(chi2_contingency([[count[name] for name in names] for count in used.values()])[1])
    proportions = {split: count[names[0]] / count.total() for split, count in used.items()}
    if p > 0.001 or max(proportions.values()) - min(proportions.values()) < MIN_DIFFERENCE:
        return []
    title = f"The proportion of {names[0]} differs between the splits"
    text = ", ".join(f"{split} {100 * value:.0f} %" for split, value in proportions.items())
    advice = "A threshold chosen on one split does not fit another. Split the photographs again, by class."
    command = split_command(root)
    return [AuditFinding("warning", "class_proportions", title, f"{text}.", advice, command=command)]


def _shared_groups(rows: Sequence[Row], root: Path) -> list[AuditFinding]:
    splits_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.sample.group:
            splits_of[row.sample.group].add(row.split)
    shared = sorted(name for name, splits in splits_of.items() if len(splits) > 1)
    if not shared:
        return []
    count = sum(row.sample.group in set(shared) for row in rows)
    have = "has" if len(shared) == 1 else "have"
    examples = ", ".join(map(plain, shared[:5])) + (" …" if len(shared) > 5 else "")
    title = f"{len(shared):,} of {counted(len(splits_of), 'group')} {have} photographs in more than one split"
    text = f"{examples}: {counted(count, 'photograph')}. A test on trees or sites seen in training does not show how "
    text += "the classifier performs on new ones."
    command = split_command(root, "--group", "groups.csv")
    return [AuditFinding("error", "groups", title, text, "Split the photographs by group.", count, command=command)]


def _listed(count: Counter[str]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in sorted(count.items())) or "none"


def _size(row: Row) -> str:
    """Return the size in bins, because cropped photographs all differ by some pixels."""
    width, height = row.metadata.width, row.metadata.height
    if not width or not height:  # the file was cut short, or replaced, after its picture was read
        return "unknown"
    megapixels = width * height / 1e6
    edges = [edge for edge in MEGAPIXELS if edge <= megapixels]
    low = edges[-1] if edges else 0
    above = next((edge for edge in MEGAPIXELS if edge > megapixels), None)
    size = f"{low:g} megapixels or more" if above is None else f"{low:g} to {above:g} megapixels"
    ratio = width / height
    shape = "square" if abs(ratio - 1) < SQUARE else "landscape" if ratio > 1 else "portrait"
    return f"{size}, {shape}"


def _encoder(row: Row) -> str:
    """Return the parts of how a file was written that mean something to a reader."""
    encoder = row.file.encoder
    chroma = CHROMA.get(encoder.chroma, encoder.chroma)
    tables = encoder.tables and f"{'tables' if chroma else 'compression'} {encoder.tables}"
    return ", ".join(filter(None, (encoder.program, chroma, encoder.scan, tables)))


def _format(row: Row) -> str:
    metadata = row.metadata
    return f"{metadata.format}, {metadata.mode}{f', {metadata.frames} frames' if metadata.frames > 1 else ''}"
