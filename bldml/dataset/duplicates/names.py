"""Find the photographs that were made from one photograph, by the names that exports, editors and augmenters write.

A name proves nothing: what is found here is a heuristic. There are three kinds of evidence.

1. Syntax of one program (`.rf.<hash>`, `_90deg`, ` - Copy`) joins by itself.
2. Words for an operation or a part (`_flip`, `_crop_3`, `_r128_c64`) join names that begin with a number of their own
   (`leaf100_flip`), or whose original is there.
3. A bare number (`IMG_3060_2`, `IMG_3060 (1)`) joins where the rest is a name that only a camera writes (a frame number
   or a time), or where the original of nearly all such names is there. Otherwise it may count photographs of one plant:
   names that only share their beginning are reported (`Sources.beginnings`) and not joined.

No list has the words of all programs. Whatever stands behind the whole name of another file joins too (`leaf7` and
`leaf7_web`, `IMG_3060-4x`), and so does what stands before it, if nearly all names that begin so have their original.

Split folders are ignored. Between other folders, such as those of two classes, names are compared only if they are
unique by themselves (a UUID, a long hash, a time), or if they count parts and no part is in two folders.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bldml.dataset.duplicates.cameras import is_camera_name, is_time_of_another_kind
from bldml.dataset.duplicates.marks import RANDOM, RANK, UNIQUE, NameEvidence, ParsedName, parse_name, plain_stem
from bldml.dataset.samples import SPLITS
from bldml.io.text import counted

_SMALLEST_TILE = 32  # pixels; lower numbers of rows and columns may be those of plants in a field
_PIXELS = 200  # rows and columns above which they are those of pixels
_LARGEST = 1 / 3  # proportion of the photographs of a top folder that may come from one, if there are more than _MANY
_MANY = 20
_MOST_ORIGINALS = 0.9  # proportion of the numbered families of a folder whose original must be there
_FEWEST_BEGINNINGS = 3  # that are reported
_SCATTER = 20  # mean distance above which the last numbers of names are random and not a count

_RAW = re.compile(r"\.(?:hei[cf]|dng|cr[23]|nef|arw|raw)$")
_BRACKETED = re.compile(r"(?<=.) ?\(\d{1,3}\)$")  # x (1); Windows also numbers all files of a selection like this
_VIDEO_NAME = re.compile(r"(?:.*[-_ ])?(?:video|vid|clip|movie|film)[-_ ]?\d+")
_NUMBERED = re.compile(r"(.+?)(?:(?: - |[-_ ])(\d{1,4}|0\d{4,5})| ?\((\d{1,3})\))")
_BETWEEN = re.compile(r"[-–—_. ~@#+(\[]+")
_COUNTED_WORD = re.compile(r"[-_. ]+[^\W\d_]+[-_ ]?\d{1,3}")  # _leaf3: may count leaves of a tree
_WORDED = re.compile(rf"(.*\d)[-_. ]+[^\W\d_].*|(.+)[-_. ](?:{RANDOM})")
_PREFIXED = re.compile(rf"([^\W\d_]+|\d{{1,3}}|{RANDOM})[-_. ]+(.*\d.*)")
_LETTERED = re.compile(r".*\d_[a-z]")  # IMG_0012_b; without IMG_0012 it is a lens of a drone
_LONG_NUMBER, _LONGEST_COUNT = re.compile(r"\d{3}"), re.compile(r"\d{6}")
_TWO_NUMBERS = re.compile(r"(.+)_(\d{1,6})_(\d{1,7})")
_YOLO_CROP = re.compile(r"((?:img_|_?dsc[_nf]|_mg_|dji_|gopr|imgp)\d{4})([2-9]|[1-9]\d)")  # IMG_0012, IMG_00122, …


_Family = list[tuple[int, ParsedName]]  # index and parsed name of each photograph with one source name


@dataclass(frozen=True)
class Beginnings:
    """Numbered names of which many share few beginnings, for a reason that is not known."""

    photographs: tuple[int, ...]  # indexes
    count: int  # number of beginnings
    fewest: int  # photographs of one beginning
    most: int
    expression: str  # of file names; its first group is the beginning

    def title(self) -> str:
        """Return the finding in a few words."""
        each = f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        count = f"{counted(len(self.photographs), 'name')} share {counted(self.count, 'beginning')}"
        return f"{count}, {each} each: parts of one photograph?"


@dataclass(frozen=True)
class Sources:
    """Photographs that are named as made from one; numbers are indexes."""

    groups: tuple[tuple[int, ...], ...]
    beginnings: Beginnings | None


def source_name(name: str) -> str:
    """Return the name of the photograph that a file was made from, as far as its name alone says.

    It has no folder, suffix and capitals. Numbers without brackets stay.

    >>> [source_name(s) for s in ("leaf7_jpg.rf.0a1b2c3d4e5f.jpg", "a - copie (2).jpg", "IMG_E0012.JPG", "leaf_1.jpg")]
    ['leaf7', 'a', 'img_0012', 'leaf_1']
    """
    source = parse_name(plain_stem(name)).source
    while (bare := _BRACKETED.sub("", source)) != source:
        source = parse_name(bare).source
    return source


def find_sources(names: Sequence[str]) -> Sources:
    """Find photographs that are named as made from one photograph; names are paths below the data folder.

    >>> find_sources(["BLD/a1_flip.jpg", "BLD/a1_rot90.jpg", "BLD/a2.jpg", "No_BLD/a1_rot90.jpg"]).groups
    ((0, 1),)
    """
    parsed, loose = _parse_all(names)
    families: dict[tuple[str, str], _Family] = defaultdict(list)
    for i, (name, one) in enumerate(zip(names, parsed, strict=True)):
        folder = "" if UNIQUE.search(one.source) else folder_without_split(name)
        families[folder, one.source].append((i, one))
    families = {key: family for key, found in families.items() if (family := _with_raw(found, names))}
    sizes = Counter(map(_top_folder, names))
    groups: list[tuple[int, ...]] = []
    for source, family in _across_folders(families):
        accepted = _accepted(source, family)
        tops = Counter(_top_folder(names[i]) for i in accepted)
        if len(accepted) > 1 and all(count <= max(_MANY, _LARGEST * sizes[top]) for top, count in tops.items()):
            groups.append(tuple(accepted))
        elif len(family) > 1 and any(c.isdigit() for c in source):
            loose.append([(i, one) for i, one in family if one.evidence == "grid"])
    return Sources(tuple(sorted(groups)), _beginnings([found for found in loose if found], len(names)))


def _beginnings(loose: Sequence[_Family], count: int) -> Beginnings | None:
    """Return what to ask about numbered names that were not joined; None if few of `count` are repeated."""
    photographs = sorted(i for found in loose for i, _ in found)
    if len(loose) < _FEWEST_BEGINNINGS or 2 * len(photographs) < count:
        return None
    sizes = [len(found) for found in loose]
    shapes = Counter(re.sub(r"\d+", "0", one.part).strip("-_ ") for found in loose for _, one in found)
    known = {"0": r"(.+)[-_ ]\d", "(0)": r"(.+?) ?\(\d", "0_0": r"(.+)[-_ ]\d+_\d"}
    is_grid = any(one.evidence == "grid" for found in loose for _, one in found)
    other = r"(.+?)[-_ ](?:row|col|[rcxy])[-_=]?\d" if is_grid else r"(.*\d)[-_. ]+[^\W_].*\."
    expression = known.get(shapes.most_common(1)[0][0], other)
    return Beginnings(tuple(photographs), len(loose), min(sizes), max(sizes), f"^{expression}")


def _accepted(source: str, family: _Family) -> list[int]:
    """Return the photographs of a family whose names are evidence enough; see the top of this file."""
    has_digit = any(c.isdigit() for c in source)
    has_original = any(not one.evidence for _, one in family)
    is_shot = is_camera_name(source)
    numbers = [int(n) for _, one in family for n in re.findall(r"\d+", one.part) if one.evidence == "grid"]
    # Programs count from 0, people count rows and columns of plants from 1.
    is_computed = 0 in numbers or max(numbers, default=0) >= _PIXELS or _are_pixels(numbers)
    enough: dict[NameEvidence, bool] = {
        "": True,
        "syntax": True,
        "operation": has_digit or has_original,
        "grid": has_digit and (is_shot or has_original or is_computed),
        "number": True,  # `_parse_all` has decided
    }
    accepted = [(i, one) for i, one in family if enough[one.evidence]]
    return sorted(i for i, _ in accepted) if any(one.evidence for _, one in accepted) else []


def _are_pixels(numbers: Sequence[int]) -> bool:
    return max(numbers, default=0) >= _SMALLEST_TILE and all(n % 8 == 0 for n in numbers)


def _across_folders(families: Mapping[tuple[str, str], _Family]) -> Iterator[tuple[str, _Family]]:
    """Yield each source with its photographs, joined where folders share the parts of photographs.

    If no part of any source is in two folders, the parts were sorted into these folders. If one is, the folders have
    photographs of the same names.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for folder, source in families:
        folders[source].append(folder)
    shared = {source: [families[f, source] for f in found] for source, found in folders.items() if len(found) > 1}
    parts = {source: [one.part for family in found for _, one in family] for source, found in shared.items()}
    apart = bool(parts) and all(all(found) and len(set(found)) == len(found) for found in parts.values())
    for source, found in folders.items():
        if apart and source in shared:
            yield source, [member for family in shared[source] for member in family]
        else:
            yield from ((source, families[folder, source]) for folder in found)


def _with_raw(family: _Family, names: Sequence[str]) -> _Family:
    """Return a family if its names have marks, or are HEIC or raw files and JPEGs of one shot; else an empty one."""
    if len(family) < 2 or any(one.evidence for _, one in family):
        return family if any(one.evidence for _, one in family) else []
    raw = [bool(_RAW.search(names[i].casefold())) for i, _ in family]
    if all(raw) or not any(raw) or not is_camera_name(family[0][1].source):
        return []
    return [
        (i, ParsedName(one.source, "syntax", one.part) if r else one) for (i, one), r in zip(family, raw, strict=True)
    ]


def _parse_all(names: Sequence[str]) -> tuple[list[ParsedName], list[_Family]]:
    """Parse each name with its last numbers, which only the other names explain.

    Returns:
        The parsed names; and families of numbered names that may be of one photograph.
    """
    known = [(folder_without_split(name), parse_name(plain_stem(name))) for name in names]
    present = {(folder, one.source) for folder, one in known}
    kinds = _two_number_kinds(present)
    parsed: list[ParsedName] = []
    numbered, worded = _Numbered(), _Numbered(each=True)
    prefixed = _prefixed(known, present)
    for i, (folder, one) in enumerate(known):
        source, evidence, part = one
        counted_name, two = _NUMBERED.fullmatch(source), _TWO_NUMBERS.fullmatch(source)
        crop = _YOLO_CROP.fullmatch(source)
        if crop and (folder, crop[1]) in present:
            one = ParsedName(crop[1], "number", f"{crop[2]}{part}")
        elif (folder, source) in prefixed:
            one = ParsedName(prefixed[folder, source], max(evidence, "operation", key=RANK.index), f"{source}{part}")
        elif _LETTERED.fullmatch(source) and (folder, source[:-2]) in present:
            one = ParsedName(source[:-2], max(evidence, "operation", key=RANK.index), f"{source[-2:]}{part}")
        elif is_camera_name(source) or is_time_of_another_kind(source):
            pass
        elif counted_name and (is_camera_name(counted_name[1]) or _VIDEO_NAME.fullmatch(counted_name[1])):
            one = ParsedName(counted_name[1], "number", f"{source.removeprefix(counted_name[1])}{part}")
        elif two and (kind := kinds.get((folder, two[1]))):
            # What Keras writes last is random and says nothing about the part.
            bare = f"{two[1]}_{two[2]}" if kind == "operation" else two[1]
            rest = f"{two[2]}_{two[3]}{part}" if kind == "grid" else ""
            one = ParsedName(bare, max(evidence, kind, key=RANK.index), rest)
        elif counted_name and any(c.isdigit() for c in counted_name[1]):
            numbered.add(folder, counted_name[1], source, i)
        elif base := _beginning(source, folder, present):
            rest = source.removeprefix(base)
            if (folder, base) not in present or _COUNTED_WORD.fullmatch(rest):
                worded.add(folder, base, source, i)
            else:
                one = ParsedName(base, max(evidence, "operation", key=RANK.index), f"{rest}{part}")
        parsed.append(one)
    loose = [*numbered.resolve(parsed, present), *worded.resolve(parsed, present)]
    _follow(known, parsed)
    return parsed, loose


class _Numbered:
    """Names that count something, by what stands before the count; `each` original must be there, or nearly all."""

    def __init__(self, each: bool = False) -> None:
        self._each = each
        self._sources: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))

    def add(self, folder: str, base: str, source: str, index: int) -> None:
        """Add a photograph."""
        self._sources[folder, base][source].append(index)

    def resolve(self, parsed: list[ParsedName], present: Collection[tuple[str, str]]) -> list[_Family]:
        """Take the counts off where nearly all originals of a folder are there; return the other families."""
        has_original: dict[str, list[bool]] = defaultdict(list)
        # What the names of others begin with is a photograph: the count in its own name is not that of a part.
        counts = {
            key: not any((key[0], source) in self._sources for source in sources)
            for key, sources in self._sources.items()
        }
        for folder, base in self._sources:
            if (folder, base) in present or counts[folder, base]:
                has_original[folder].append((folder, base) in present)
        least, fewest = _MOST_ORIGINALS, _FEWEST_BEGINNINGS
        with_originals = {f for f, has in has_original.items() if len(has) >= fewest and sum(has) >= least * len(has)}
        loose: list[_Family] = []
        for (folder, base), sources in self._sources.items():
            of_base = sorted((i, source) for source, found in sources.items() for i in found)
            family = [(i, ParsedName(base, "number", source.removeprefix(base))) for i, source in of_base]
            is_counted = counts[folder, base] and not self._each
            if folder in with_originals and ((folder, base) in present or is_counted):
                for i, one in family:
                    parsed[i] = one
            elif len(sources) > 1:
                loose.append(family)
        return loose


def _follow(known: Sequence[tuple[str, ParsedName]], parsed: list[ParsedName]) -> None:
    """Lead each name to the original of its original."""
    moved = {
        (folder, before.source): after.source
        for (folder, before), after in zip(known, parsed, strict=True)
        if len(after.source) < len(before.source)
    }
    for i, ((folder, _), one) in enumerate(zip(known, parsed, strict=True)):
        source = one.source
        while (folder, source) in moved:  # each step is shorter
            source = moved[folder, source]
        parsed[i] = ParsedName(source, one.evidence, one.part)


def _beginning(source: str, folder: str, present: Collection[tuple[str, str]]) -> str:
    """Return the longest beginning that is the name of another file; else all before a last word; empty if neither."""
    if not any(c.isdigit() for c in source):
        return ""
    ends = [match.start() for match in _BETWEEN.finditer(source)]
    whole = (source[:end] for end in reversed(ends) if (folder, source[:end]) in present)
    found = next((base for base in whole if any(c.isdigit() for c in base)), "")
    rest = source.removeprefix(found)
    if found and (any(c.isalpha() for c in rest) or _LONGEST_COUNT.search(rest)):
        return found
    match = _WORDED.fullmatch(source)
    return (match[1] or match[2]) if match else ""


def _prefixed(
    known: Sequence[tuple[str, ParsedName]], present: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Return the originals of names that begin with something else, by folder and name.

    What they begin with has no number of its own (`tree1_0012` is no version of `0012`), and nearly all names of a
    folder that begin so have an original with a long number or of a camera.
    """
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for folder, one in known:
        match = _PREFIXED.fullmatch(one.source)
        if match and not is_camera_name(one.source):
            word, original = match.groups()
            is_original = (folder, original) in present and (_LONG_NUMBER.search(original) or is_camera_name(original))
            kind = "#" if word.isdecimal() else "0a" if any(c.isdigit() for c in word) else word
            found[folder, kind][one.source] = original if is_original else ""
    return {
        (folder, source): original
        for (folder, _), originals in found.items()
        if sum(map(bool, originals.values())) >= max(_FEWEST_BEGINNINGS, _MOST_ORIGINALS * len(originals))
        for source, original in originals.items()
        if original
    }


def _two_number_kinds(present: Collection[tuple[str, str]]) -> dict[tuple[str, str], NameEvidence]:
    pairs: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for folder, source in present:
        two = _TWO_NUMBERS.fullmatch(source)
        is_shot = two and any(map(is_camera_name, (source, f"{two[1]}_{two[2]}")))
        if two and not is_shot:
            pairs[folder, two[1]].add((int(two[2]), int(two[3])))
    kinds = {key: _two_numbers(found) for key, found in pairs.items()}
    # Few numbers of one beginning may be near each other by chance.
    of_folders: dict[str, Counter[NameEvidence]] = defaultdict(Counter)
    for (folder, _), kind in kinds.items():
        of_folders[folder][kind] += 1
    common = {folder: of_folder.most_common(1)[0] for folder, of_folder in of_folders.items()}
    usual = {folder: kind for folder, (kind, count) in common.items() if 2 * count > of_folders[folder].total()}
    kinds = {key: kind or usual.get(key[0], "") for key, kind in kinds.items()}
    # Without a number of its own, a beginning is that of all names.
    return {k: kind for k, kind in kinds.items() if kind and (kind != "grid" or any(c.isdigit() for c in k[1]))}


def _two_numbers(pairs: Collection[tuple[int, int]]) -> NameEvidence:
    """Return what the two numbers at the end of names with one beginning are; empty if it is not known.

    A grid: they are pixels, or each of several rows has the same columns. An operation: the index of a photograph and a
    random number, as Keras writes them; syntax if there is one index.
    """
    rows, columns = {a for a, _ in pairs}, sorted({b for _, b in pairs})
    is_full = len(rows) > 1 < len(columns) and len(rows) * len(columns) == len(pairs)
    if is_full or _are_pixels([n for pair in pairs for n in pair]):
        return "grid"
    is_repeated = len(columns) > 1 and 2 * len(pairs) > 3 * len(rows)
    is_scattered = is_repeated and columns[-1] - columns[0] > _SCATTER * len(columns)
    return ("operation" if len(rows) > 1 else "syntax") if is_scattered else ""


def folder_without_split(name: str) -> str:
    """Return the folder of a photograph without the split folder.

    >>> folder_without_split("train/BLD/tree 1/a.jpg"), folder_without_split("BLD/a.jpg"), folder_without_split("a.jpg")
    ('BLD/tree 1', 'BLD', '')
    """
    parts = name.removeprefix("./").split("/")[:-1]
    return "/".join(parts[1:] if parts and parts[0] in SPLITS else parts)


def _top_folder(name: str) -> str:
    return folder_without_split(name).partition("/")[0]
