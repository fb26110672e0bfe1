"""Look-alikes: pairs that somebody should look at, because they may show one leaf or scene. Nothing here is proof."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bldml.audit.checks.repeats import Repeats
from bldml.audit.examine import Row
from bldml.audit.findings import SHOWN, AuditFinding, Severity, split_command
from bldml.audit.keypoints import StoredKeypoints
from bldml.dataset.duplicates.find import component_roots, exact_groups
from bldml.dataset.duplicates.lookalikes import LookAlike, find_lookalikes
from bldml.dataset.files import shell_word
from bldml.dataset.samples import Collection
from bldml.io.text import Cell, counted, csv_text

GROUPS_NAME = "lookalikes.csv"  # a table of groups, in the output folder
GROUPS_COLUMNS, JOINED = ("path", "group"), "look-alike"
MOST_PHOTOGRAPHS = 20_000  # among which look-alikes are searched unless it is asked for: it takes long among more
FEW_KEYPOINTS = 30  # in a photograph with fewer, no relative can be recognised reliably
_TEXT = (
    "Parts of these photographs agree after a turn, a zoom and a shift: they may show one leaf or scene turned, "
    "cropped, in overlapping tiles, mirrored, with a caption or from another angle. This is no proof; different "
    "leaves on one background can agree too. "
)
_ADVICE = (
    "Look at each pair. lookalikes.csv puts the photographs of each pair into one group. Save it under another name, "
    "empty the group of those that do not belong together, and split with it."
)


@dataclass(frozen=True)
class LookAlikes:
    """Result of the search; numbers are indices in the list of readable rows."""

    searched: bool
    pairs: tuple[LookAlike, ...] = ()  # without those known to belong together; the strongest first
    plain: int = 0  # photographs with too few keypoints

    def sentence(self) -> str:
        """Return what was searched, and what cannot be found."""
        if not self.searched:
            text = "Look-alikes (one leaf turned, cropped or from another angle) were not searched. The option "
            return f"{text}--look_alikes keypoints searches them; auto does so among at most {MOST_PHOTOGRAPHS:,}."
        found = f"Look-alikes were searched by keypoints: {counted(len(self.pairs), 'pair')} to look at."
        limits = " Relatives that are blurred, or that share only a small part, may be missed"
        few = f"; {counted(self.plain, 'photograph')} of this set has" if self.plain == 1 else ""
        few = f"; {counted(self.plain, 'photograph')} of this set have" if self.plain > 1 else few
        return f"{found}{limits}{few + ' too few details for any' if few else ''}."


def is_searched(option: Literal["auto", "keypoints", "off"], collection: Collection) -> bool:
    """Return whether look-alikes are searched in a collection."""
    count = sum(len(samples) for samples in collection.splits.values())
    return option == "keypoints" or (option == "auto" and count <= MOST_PHOTOGRAPHS)


def search_lookalikes(rows: Sequence[Row], described: StoredKeypoints, repeats: Repeats, *, quiet: bool) -> LookAlikes:
    """Compare all readable photographs by their keypoints; duplicates, bursts and groups are left out."""
    from tqdm import tqdm

    plain = sum(len(keypoints.frames) < FEW_KEYPOINTS for keypoints in described)
    disable = True if quiet else None
    with tqdm(total=len(rows), desc="Look-alikes", unit="", disable=disable, smoothing=0.05) as progress:
        pairs = find_lookalikes(described, progress=progress.update)
    same = {index: number for number, group in enumerate(repeats.duplicates.groups) for index in group}

    def is_new(pair: LookAlike) -> bool:
        a, b = pair.a, pair.b
        if same.get(a, -1) == same.get(b, -2):
            return False
        return repeats.units[a] != repeats.units[b] or rows[a].sample.class_name != rows[b].sample.class_name

    new = sorted(filter(is_new, pairs), key=lambda pair: (-pair.strength, pair.a, pair.b))
    return LookAlikes(True, tuple(new), plain)


def report_lookalikes(rows: Sequence[Row], found: LookAlikes, root: Path, output: Path) -> list[AuditFinding]:
    """Return findings on look-alikes: those across splits or classes are a warning, others are information.

    A table of groups is written into the folder `output`.
    """
    across = [pair for pair in found.pairs if _is_across(rows[pair.a], rows[pair.b])]
    within = [pair for pair in found.pairs if not _is_across(rows[pair.a], rows[pair.b])]
    findings: list[AuditFinding] = []
    texts: tuple[tuple[Severity, str, list[LookAlike], str, str], ...] = (
        ("warning", "lookalikes_across", across, " in two splits or of two classes: please look", "If a pair shows one "
         "leaf, a test on it is too good, or one of its labels is wrong."),
        ("info", "lookalikes", within, "", "If many pairs show one leaf each, intervals are too narrow."),
    )  # fmt: skip
    for severity, name, pairs, where, text in texts:
        if pairs:
            photographs = len({index for pair in pairs for index in (pair.a, pair.b)})
            title = f"{counted(len(pairs), 'pair')} of look-alikes{where}"
            examples = tuple((rows[pair.a].name, rows[pair.b].name) for pair in pairs[:SHOWN])
            details = tuple(_detail(rows[pair.a], rows[pair.b], pair) for pair in pairs[:SHOWN])
            command = split_command(root, "--group", shell_word(output / GROUPS_NAME))
            findings.append(
                AuditFinding(severity, name, title, _TEXT + text, _ADVICE, photographs, examples, details, command)
            )
    return findings


def _is_across(a: Row, b: Row) -> bool:
    return a.split != b.split or a.sample.class_name != b.sample.class_name


def _detail(a: Row, b: Row, pair: LookAlike) -> str:
    parts = [
        " and ".join(dict.fromkeys((a.split, b.split))),
        " and ".join(dict.fromkeys((a.sample.class_name, b.sample.class_name))),
        f"{pair.points} points agree{' after mirroring' if pair.mirrored else ''}",
    ]
    return "; ".join(filter(None, parts))


def groups_csv(rows: Sequence[Row], found: LookAlikes) -> str:
    """Return a table of groups for `split`: look-alikes joined, the groups of the manifest kept, others empty."""
    groups = [row.sample.group for row in rows]
    joined = [(pair.a, pair.b) for pair in found.pairs]
    known = [(group[0], other) for group in exact_groups(groups) for other in group[1:]]
    roots = component_roots(len(rows), [*joined, *known])
    alike = {roots[index] for pair in joined for index in pair}
    lines: list[list[Cell]] = [
        [row.name, f"{JOINED} {root + 1}" if root in alike else group]
        for row, root, group in zip(rows, roots, groups, strict=True)
    ]
    return csv_text(GROUPS_COLUMNS, lines)
