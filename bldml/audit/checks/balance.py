"""How many photographs there are of each class: by split, site, camera, day and kind of file."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bldml.audit.findings import AuditFinding, photographs, split_command
from bldml.audit.reading import Row
from bldml.dataset.samples import SPLITS, Collection
from bldml.io.text import counted, number, plain
from bldml.report.tables import Table, simple

FEW = 10  # photographs of a class in a split, below which its figures say little
SHOWN = 15  # rows of a table on the page
APART = 0.1  # difference of the share of a class between two splits that is worth saying

ORIENTATIONS = {
    0: "not stated", 1: "upright", 2: "mirrored", 3: "turned by 180°", 4: "mirrored, turned by 180°",
    5: "mirrored, turned by 270°", 6: "turned by 90°", 7: "mirrored, turned by 90°", 8: "turned by 270°",
}  # fmt: skip


def class_names(rows: Iterable[Row]) -> list[str]:
    """Names of the classes, in alphabetical order."""
    return sorted({row.sample.class_name for row in rows})


def splits_table(rows: Sequence[Row], units: Sequence[int]) -> Table:
    """Photographs by split and class.

    Args:
        rows: Photographs.
        units: What must not be divided, a number for each.
    """
    names = class_names(rows)
    cells = Counter((row.split, row.sample.class_name) for row in rows)
    independent: dict[str, set[int]] = defaultdict(set)
    groups: dict[str, set[str]] = defaultdict(set)
    for row, unit in zip(rows, units, strict=True):
        independent[row.split].add(unit)
        if row.sample.group:
            groups[row.split].add(row.sample.group)
    lines: list[list[str | int | None]] = [
        [
            split,
            *(cells[split, name] for name in names),
            sum(cells[split, name] for name in names),
            len(groups[split]) or "none named",
            len(independent[split]),
        ]
        for split in sorted(independent, key=SPLITS.index)
    ]
    caption = (
        "Photographs that can be read, by split and class. Independent ones: bursts, duplicates and groups counted as "
        "one each."
    )
    header = ("Split", *map(plain, names), "All", "Groups", "Independent")
    return simple("splits", caption, header, lines)


def by_class(name: str, title: str, caption: str, rows: Sequence[Row], key: Callable[[Row], str]) -> Table:
    """Photographs by some property and class, the most frequent value first.

    Args:
        name: Of the table.
        title: Of its first column.
        caption: Below it.
        rows: Photographs.
        key: Value of the property; empty where not known.
    """
    names = class_names(rows)
    cells = Counter((key(row), row.sample.class_name) for row in rows)
    values = [value for value, _ in Counter(key(row) for row in rows).most_common()]
    lines: list[list[str | int | None]] = []
    for value in values:
        counts = [cells[value, label] for label in names]
        shares = [number(count / sum(counts), 2) for count in counts]
        lines.append([plain(value) or "not known", sum(counts), *counts, *shares])
    header = (title, "All", *map(plain, names), *(f"Share {plain(label)}" for label in names))
    table = simple(name, caption, header, lines)
    return Table(
        table.name, table.caption, table.header, table.rows[:SHOWN], table.raw, left_out=max(0, len(lines) - SHOWN)
    )


def tables(rows: Sequence[Row], units: Sequence[int]) -> list[Table]:
    """All tables of counts; those of properties that no file tells are left away."""
    note = "Where a class has values of its own, a classifier may learn these and not the leaf."
    wanted: list[tuple[str, str, str, Callable[[Row], str]]] = [
        ("groups", "Group", "By group (site, tree), as the manifest says.", lambda row: row.sample.group),
        ("cameras", "Camera", f"By camera, as the files say. {note}", lambda row: row.metadata.camera),
        ("days", "Day", f"By day, as the files say. {note}", lambda row: row.metadata.taken[:10]),
        ("formats", "Format", f"By file format and kind of pixels. {note}", _format),
        ("sizes", "Size", f"By size in pixels, upright. {note}", _size),
        ("orientations", "Orientation", "By orientation of the camera, as the files say; all are shown upright.",
         lambda row: ORIENTATIONS.get(row.metadata.orientation, "illegal")),
        ("profiles", "Colour profile", "By embedded colour profile; all are converted to sRGB.",
         lambda row: row.metadata.icc or "none"),
    ]  # fmt: skip
    found = [splits_table(rows, units)]
    for name, title, caption, key in wanted:
        if any(key(row) for row in rows):
            found.append(by_class(name, title, caption, rows, key))
    return found


def find_imbalance(collection: Collection, rows: Sequence[Row]) -> list[AuditFinding]:
    """Classes that a split lacks or hardly has, splits that differ, groups that lie in two splits."""
    names = class_names(rows)
    counts = {
        split: Counter(row.sample.class_name for row in rows if row.split == split) for split in collection.splits
    }
    found = []
    if len(names) < 2:
        found.append(
            AuditFinding("wrong", "classes", "There are fewer than two classes",
                    f"Photographs that can be read: {_listed(Counter(row.sample.class_name for row in rows))}.",
                    "Give each class a folder, with photographs in it.")
        )  # fmt: skip
    for split, count in counts.items():
        lacking = [name for name in names if not count[name]]
        few = [name for name in names if 0 < count[name] < FEW]
        if lacking:
            found.append(
                AuditFinding("wrong", f"lacking_{split}", f"The {split} split has no {' and no '.join(lacking)}",
                        f"It has {_listed(count)}.", "Divide the photographs anew.", sum(count.values()),
                        command=split_command(collection.root))
            )  # fmt: skip
        if few:
            found.append(
                AuditFinding("doubtful", f"few_{split}", f"The {split} split has few photographs of a class",
                        f"It has {_listed(count)}. Figures from so few say little.", "Add photographs, or "
                        "divide those that are there into folds, so that nearly all are tested on.",
                        sum(count[name] for name in few), command=split_command(collection.root, "--folds", "5"))
            )  # fmt: skip
    return [*found, *_apart(names, counts, collection.root), *_divided_groups(rows, collection.root)]


def _apart(names: Sequence[str], counts: dict[str, Counter[str]], root: Path) -> list[AuditFinding]:
    """Say where the share of a class differs between splits by more than chance and by more than a little."""
    from scipy.stats import chi2_contingency

    table = [[count[name] for name in names] for count in counts.values() if sum(count.values())]
    totals = [sum(count[name] for count in counts.values()) for name in names]
    if len(table) < 2 or len(names) < 2 or not all(totals):
        return []
    p = float(chi2_contingency(table)[1])
    shares = {split: count[names[0]] / sum(count.values()) for split, count in counts.items() if sum(count.values())}
    if p > 0.001 or max(shares.values()) - min(shares.values()) < APART:
        return []
    told = ", ".join(f"{split} {100 * value:.0f} %" for split, value in shares.items())
    return [
        AuditFinding("doubtful", "shares", f"The share of {names[0]} differs between the splits", f"{told}.",
                "An operating point chosen on one does not fit the other. Divide them anew, by class.",
                command=split_command(root))
    ]  # fmt: skip


def _divided_groups(rows: Sequence[Row], root: Path) -> list[AuditFinding]:
    places: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.sample.group:
            places[row.sample.group].add(row.split)
    divided = sorted(name for name, splits in places.items() if len(splits) > 1)
    if not divided:
        return []
    count = sum(row.sample.group in set(divided) for row in rows)
    have = "has" if len(divided) == 1 else "have"
    title = f"{len(divided):,} of {counted(len(places), 'group')} {have} photographs in more than one split"
    return [
        AuditFinding("wrong", "groups", title,
                f"{', '.join(map(plain, divided[:5]))}{' …' if len(divided) > 5 else ''}: {photographs(count)}. A test "
                "on a tree or site that was trained on does not tell how a new one would do.",
                "Divide them by group.", count, command=split_command(root, "--group", "groups.csv"))
    ]  # fmt: skip


def _listed(count: Counter[str]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in sorted(count.items())) or "none"


def _format(row: Row) -> str:
    found = row.metadata
    return f"{found.format}, {found.mode}{f', {found.frames} pictures' if found.frames > 1 else ''}"


def _size(row: Row) -> str:
    return f"{row.metadata.width} × {row.metadata.height}"
