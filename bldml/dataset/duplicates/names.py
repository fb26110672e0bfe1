"""Find the photographs that were made from one photograph, by the names that exports, editors and augmenters write.

A name proves nothing: what is found here is a heuristic. There are three kinds of evidence.

1. Syntax of one program (`.rf.<hash>`, `_90deg`, ` - Copy`) joins by itself.
2. Words for an operation or a part (`_flip`, `_crop_3`, `_r128_c64`) join names that begin with a number of their own
   (`leaf100_flip`), or whose original is there.
3. A bare number (`IMG_3060_2`, `IMG_3060 (1)`) joins where the rest is a name that only a camera writes (a frame number
   or a time), or where the original of nearly all such names is there. Otherwise it may count photographs of one plant:
   names that only share their beginning are reported (`Sources.beginnings`) and not joined.

Split folders are ignored. Between other folders, such as those of two classes, names are compared only if they are
unique by themselves (a UUID, a long hash, a time), or if they count parts and no part is in two folders.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from bldml.dataset.duplicates.cameras import is_camera_name, is_time_of_another_kind
from bldml.dataset.samples import SPLITS
from bldml.io.text import counted

_Evidence = Literal["", "syntax", "operation", "grid", "number"]  # "" for a name without marks, then strongest first
_RANK: tuple[_Evidence, ...] = get_args(_Evidence)

_SMALLEST_TILE = 32  # pixels; lower numbers of rows and columns may be those of plants in a field
_PIXELS = 200  # rows and columns above which they are those of pixels
_LARGEST = 1 / 3  # proportion of the photographs of a top folder that may come from one, if there are more than _MANY
_MANY = 20
_MOST_ORIGINALS = 0.9  # proportion of the numbered families of a folder whose original must be there
_FEWEST_BEGINNINGS = 3  # that are reported
_SCATTER = 20  # mean distance above which the last numbers of names are random and not a count

_IMAGE = r"(?:jpe?g|jfif|png|bmp|webp|tiff?|hei[cf]|avif|gif|dng|cr[23]|nef|arw|raw)"
_VIDEO = r"(?:mp4|mov|avi|mkv|m4v|3gp|webm|m2?ts|mpe?g|wmv|insv|lrv)"
_RAW = re.compile(r"\.(?:hei[cf]|dng|cr[23]|nef|arw|raw)$")
_HEX = "[0-9a-f]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
# "copy" and "edited" in the languages of Windows, macOS, Linux desktops and Google Photos.
_COPY = (
    r"(?:copy|copie|c[oó]pia|kopie|kopi[aoi]?|kopya|m[aá]solat|salinan|αντίγραφο"
    r"|копи[яі]|копія|副本|拷[贝貝]|コピー|복사본)"
)
_OF = r"(?:of|von|de|di|van|af|av|z)"
_EDITED = (
    r"(?:edited|edit|bearbeitet|modifi(?:ed|[ée]e?)|editad[oa]|modificat[oa]|bewerkt|edytowane|redigeret|redigerad)"
)

_DIRECTION = (
    r"(?:hor(?:iz(?:ontal(?:ly)?)?)?|vert(?:ical(?:ly)?)?|left|right|up|down|top|bottom|cent(?:er|re)|in|out|both|by"
    r"|random|low|high|colou?r|motion|median|salt|pepper|and|sp|gauss(?:ian)?|cc?w|(?:counter)?clockwise)"
)
_DETAIL = rf"(?:[-_. ]?(?:[-+]?\d{{1,4}}(?:[.,]\d+)?|deg(?:rees)?|lr|tb|ud|{_DIRECTION}|(?<=[-_. ])[hvxy](?![a-z])))"
_WORDS = (
    r"(?:aug(?:ment(?:ed|ation)?)?s?|rot(?:at(?:ed?|ion))?|turned|[hv]?flip(?:ped)?(?:[-_]r\d{1,3}(?!\d))?|mirror(?:ed)?"
    r"|transposed?|bright(?:ness|en(?:ed)?|er)?|dark(?:en(?:ed)?|er)?|light|contrast|nois[ey]|blur(?:red|ry)?|sharp(?:en(?:ed)?)?"
    r"|crop(?:ped)?|zoom(?:ed)?|shift(?:ed)?|shear(?:ed)?|translat(?:ed?|ion)|skew(?:ed)?|scaled?|resized?|upscaled?"
    r"|downscaled?|enhanced?|hue|sat(?:uration)?|gamma|clahe|equali[sz]ed?|gr[ae]y(?:scale)?|jitter(?:ed)?|elastic"
    r"|distort(?:ed|ion)?|warp(?:ed)?|perspective|affine|cutout|cutmix|mixup|eras(?:ed?|ing)|dropout|normali[sz]ed"
    r"|synth(?:etic)?|mask(?:ed)?|seg(?:mented|mentation)?|overlay|annotated|removebg(?:[-_]preview)?|no[-_]?bg"
    r"|bg[-_]?removed|rembg|denoise[-\w]*|gigapixel\w*|topaz\w*|dxo\w*|hdr|orig(?:inal)?|thumb(?:nail)?|preview"
    r"|compressed|small|medium|large|lowres|hires|transform(?:ed)?|solari[sz]ed?|posteri[sz]ed?|invert(?:ed)?"
    r"|gedreht|gespiegelt|zugeschnitten|recadr[ée]e?|tourn[ée]e?|recortad[oa]|girad[oa]|ruotat[oa]|ritagliat[oa])"
)
_PIECES = (
    r"(?:(?:tile|patch|part|piece|chip|slice|quad(?:rant)?|window|roi|crop|bbox|bounding[-_ ]?box|obj(?:ect)?"
    r"|det(?:ection)?)s?)"
)
_SYNTAX = re.compile(
    rf"^{_COPY}(?: ?\(\d{{1,3}}\))? {_OF} "  # Copy of x, Copy (2) of x, Kopie von x
    rf"|(?: ?[-–—_] ?| ){_COPY}(?: ?\(?\d{{1,3}}\)?)?$"  # x - Copy (2), x copy 2, x_copy
    rf"|(?: |の|의 |的){_COPY}(?: ?\d{{1,3}})?$"
    rf"| ?\((?:another |\d+\w\w )?{_COPY}(?: \d{{1,3}})?\)$"  # x (copy), x (3rd copy): Linux desktops
    r"| ?\([^()]*conflicted copy[^()]*\)$|\.sync-conflict-[-\w]+$"  # Dropbox, Nextcloud; Syncthing
    rf"| ?\({_EDITED}\)$|[-_ ]{_EDITED}(?:[-_]\d{{1,15}})?$"  # x (Edited), x_edited; Samsung: x_edit_123456789
    r"|-enhanced(?:-[a-z]{2})*(?:-\d{1,2})?$"  # Lightroom: x-Enhanced-NR
    r"|(?<=.)~\d{1,2}$"  # Android: x~2
    r"|(?<=^pxl_\d{8}_\d{9})[._~].*$"  # Pixel: x.MP, x.PORTRAIT-01.COVER, x_exported_1024
    rf"|(?:[._]{_IMAGE})*\.rf\.[0-9a-z]{{6,64}}$"  # Roboflow: x_jpg.rf.<hash>
    rf"|[._]{_VIDEO}[-_ ]?(?:frame)?[-_ ]?\d{{1,7}}$"  # frames of a video: x_mp4-12, and in the next line x_frame_12
    r"|(?<=.)[-_. ](?:fra?me?[-_ ]?\d+(?:_t\d+(?:\.\d+)?)?|f\d{3,})$"
    rf"|^.*?_original_(?=.)|\.{_IMAGE}_{_UUID}$"  # Augmentor: class_original_x.jpg_<uuid>
    r"|(?<=.)_(?:\d{1,3}deg|flip(?:lr|tb)|new\d+deg\w*|newpixel\w*|final_masked)$"  # PlantVillage and its augmentation
    rf"|(?:\.{_IMAGE})?___(?:fuse|save|pixel|objects|lores|thumb|huge)$"  # SuperAnnotate
    rf"|^(?!(?:19|20)\d{{6}}-){_HEX}{{8}}-(?!{_HEX}{{4}}-)(?=.*[a-z])"  # Label Studio: 3f2a1b9c-x, but no face0012-flip
    rf"(?!(?:{_COPY}|{_EDITED}|\d{{3,5}}x\d{{3,5}}|(?:{_WORDS})+\d*|{_PIECES}\d*)(?![a-z0-9]))"
    r"|(?<=.)[-_ ]\(?\d{3,5}x\d{3,5}\)?$|^\d{2,4}px-|(?<=\d)-scaled$|@[23]x$"  # sizes: WordPress, Wikimedia
    r"|(?<=\d)__\d(?:\.\d+)?__\d+___\d+$|(?<=\d)_\d+_\d+_\d{3,}_\d{3,}$| \[(?:[a-z]=[\d.]+,?)+\]$"  # DOTA, SAHI, QuPath
    rf"|\.{_IMAGE}(?:\?[-\w=&]*)?$"  # x.jpg.png, x.jpg?1642.jpg
)
_OPERATION = re.compile(
    rf"[-_. ]+(?:{_DIRECTION}[-_. ]?)*(?:{_WORDS})+{_DETAIL}*$|[-_. ]+{_PIECES}[-_ ]?\d+(?:[-_x,]\d+)*$"
    rf"|^{_WORDS}(?:[-_ ]?\d{{1,3}})?[-_ ]+(?=[a-z])|^(?:tile|crop|roi)(?:[-_ ]?\d+)+[-_ ]+(?=[a-z])"  # rot90_x
)
_GRID = re.compile(
    r"[-_. ]+(?:r(?:ow)?[-_=]?\d+[-_, ]*c(?:ol(?:umn)?)?[-_=]?\d+|c(?:ol(?:umn)?)?[-_=]?\d+[-_, ]*r(?:ow)?[-_=]?\d+"
    r"|x[-_=]?\d+[-_, ]*y[-_=]?\d+(?:[-_, ]*w[-_=]?\d+[-_, ]*h[-_=]?\d+)?|y[-_=]?\d+[-_, ]*x[-_=]?\d+)$"
)
_BRACKETED = re.compile(r"(?<=.) ?\(\d{1,3}\)$")  # x (1); Windows also numbers all files of a selection like this
_SEPARATOR = re.compile(r"[-–—_. ~@(\[の의的]")  # a mark begins with one, or is at the beginning of the name
_MARKS: tuple[tuple[re.Pattern[str], _Evidence], ...] = (
    (_SYNTAX, "syntax"),
    (_OPERATION, "operation"),
    (_GRID, "grid"),
)
_PLAIN = re.compile(r"[^\W_]*|[^\W\d_]+[-_ ]?\d*")  # most names: no mark fits, so none has to be tried
_PHONE_EDITED = re.compile(r"^img_e(?=\d{4}$)")
_VIDEO_NAME = re.compile(r"(?:.*[-_ ])?(?:video|vid|clip|movie|film)[-_ ]?\d+")
_NUMBERED = re.compile(r"(.+?)(?:(?: - |[-_ ])(\d{1,4})| ?\((\d{1,3})\))")
_TWO_NUMBERS = re.compile(r"(.+)_(\d{1,6})_(\d{1,7})")
_YOLO_CROP = re.compile(r"((?:img_|_?dsc[_nf]|_mg_|dji_|gopr|imgp)\d{4})([2-9]|[1-9]\d)")  # IMG_0012, IMG_00122, …
_UNIQUE = re.compile(rf"{_UUID}|(?<!{_HEX})(?=\d*[a-f])(?=[a-f]*\d){_HEX}{{16,}}|(?:19|20)\d{{6}}[-_]?\d{{6}}")


class _Parsed(NamedTuple):
    source: str  # name of the photograph that the file was made from
    evidence: _Evidence  # the weakest of its marks
    part: str  # which part of it the file is, as far as the name says


_Family = list[tuple[int, _Parsed]]  # index and parsed name of each photograph with one source name


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
    source = _parse(plain_stem(name)).source
    while (bare := _BRACKETED.sub("", source)) != source:
        source = _parse(bare).source
    return source


def find_sources(names: Sequence[str]) -> Sources:
    """Find photographs that are named as made from one photograph; names are paths below the data folder.

    >>> find_sources(["BLD/a1_flip.jpg", "BLD/a1_rot90.jpg", "BLD/a2.jpg", "No_BLD/a1_rot90.jpg"]).groups
    ((0, 1),)
    """
    parsed, loose = _parse_all(names)
    families: dict[tuple[str, str], _Family] = defaultdict(list)
    for i, (name, one) in enumerate(zip(names, parsed, strict=True)):
        folder = "" if _UNIQUE.search(one.source) else folder_without_split(name)
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
    expression = known.get(shapes.most_common(1)[0][0], r"(.+?)[-_ ](?:row|col|[rcxy])[-_=]?\d")
    return Beginnings(tuple(photographs), len(loose), min(sizes), max(sizes), f"^{expression}")


def _accepted(source: str, family: _Family) -> list[int]:
    """Return the photographs of a family whose names are evidence enough; see the top of this file."""
    has_digit = any(c.isdigit() for c in source)
    has_original = any(not one.evidence for _, one in family)
    is_shot = is_camera_name(source)
    numbers = [int(n) for _, one in family for n in re.findall(r"\d+", one.part) if one.evidence == "grid"]
    # Programs count from 0, people count rows and columns of plants from 1.
    is_computed = 0 in numbers or max(numbers, default=0) >= _PIXELS or _are_pixels(numbers)
    enough: dict[_Evidence, bool] = {
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
    return [(i, _Parsed(one.source, "syntax", one.part) if r else one) for (i, one), r in zip(family, raw, strict=True)]


def _first_match(pattern: re.Pattern[str], stem: str) -> re.Match[str] | None:
    """Return the first match of a pattern; a search would take three times as long, because it tries every position."""
    found = pattern.match(stem)
    starts = (separator.start() for separator in _SEPARATOR.finditer(stem))
    return found or next((match for start in starts if (match := pattern.match(stem, start))), None)


def _parse(stem: str) -> _Parsed:
    evidence: _Evidence = ""
    part, found = "", not _PLAIN.fullmatch(stem)
    while found:
        found = False
        for pattern, kind in _MARKS:
            match = _first_match(pattern, stem)
            if match and match[0] and (bare := stem[: match.start()] + stem[match.end() :]):
                stem, evidence, found = bare, max(evidence, kind, key=_RANK.index), True
                part = f"{match[0]}{part}" if kind != "syntax" else part
                break
    bare = _PHONE_EDITED.sub("img_", stem)
    return _Parsed(bare, evidence or ("syntax" if bare != stem else ""), part)


def _parse_all(names: Sequence[str]) -> tuple[list[_Parsed], list[_Family]]:
    """Parse each name with its last numbers, which only the other names explain.

    Returns:
        The parsed names; and families of numbered names that may be of one photograph.
    """
    known = [(folder_without_split(name), _parse(plain_stem(name))) for name in names]
    present = {(folder, one.source) for folder, one in known}
    kinds = _two_number_kinds(present)
    parsed: list[_Parsed] = []
    numbered: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (folder, one) in enumerate(known):
        source, evidence, part = one
        counted_name, two = _NUMBERED.fullmatch(source), _TWO_NUMBERS.fullmatch(source)
        crop = _YOLO_CROP.fullmatch(source)
        if crop and (folder, crop[1]) in present:
            one = _Parsed(crop[1], "number", f"{crop[2]}{part}")
        elif is_camera_name(source) or is_time_of_another_kind(source):
            pass
        elif counted_name and (is_camera_name(counted_name[1]) or _VIDEO_NAME.fullmatch(counted_name[1])):
            one = _Parsed(counted_name[1], "number", f"{source.removeprefix(counted_name[1])}{part}")
        elif two and (kind := kinds.get((folder, two[1]))):
            # What Keras writes last is random and says nothing about the part.
            bare = f"{two[1]}_{two[2]}" if kind == "operation" else two[1]
            rest = f"{two[2]}_{two[3]}{part}" if kind == "grid" else ""
            one = _Parsed(bare, max(evidence, kind, key=_RANK.index), rest)
        elif counted_name and any(c.isdigit() for c in counted_name[1]):
            numbered[folder, counted_name[1]][source].append(i)
        parsed.append(one)
    has_original: dict[str, list[bool]] = defaultdict(list)
    for folder, bare in numbered:
        has_original[folder].append((folder, bare) in present)
    least, fewest = _MOST_ORIGINALS, _FEWEST_BEGINNINGS
    with_originals = {f for f, has in has_original.items() if len(has) >= fewest and sum(has) >= least * len(has)}
    loose: list[_Family] = []
    for (folder, bare), sources in numbered.items():
        members = [i for found in sources.values() for i in found]
        family = [(i, _Parsed(bare, "number", known[i][1].source.removeprefix(bare))) for i in sorted(members)]
        if folder in with_originals:
            for i, one in family:
                parsed[i] = one
        elif len(sources) > 1:
            loose.append(family)
    return parsed, loose


def _two_number_kinds(present: Collection[tuple[str, str]]) -> dict[tuple[str, str], _Evidence]:
    pairs: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for folder, source in present:
        two = _TWO_NUMBERS.fullmatch(source)
        is_shot = two and any(map(is_camera_name, (source, f"{two[1]}_{two[2]}")))
        if two and not is_shot:
            pairs[folder, two[1]].add((int(two[2]), int(two[3])))
    kinds = {key: _two_numbers(found) for key, found in pairs.items()}
    # Without a number of its own, a beginning is that of all names.
    return {k: kind for k, kind in kinds.items() if kind and (kind != "grid" or any(c.isdigit() for c in k[1]))}


def _two_numbers(pairs: Collection[tuple[int, int]]) -> _Evidence:
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


def plain_stem(name: str) -> str:
    """Return a file's name without folder and suffix, case-folded, in Unicode form NFC."""
    file = unicodedata.normalize("NFC", name.rpartition("/")[2])
    return (file.rpartition(".")[0] or file).casefold()


def _top_folder(name: str) -> str:
    return folder_without_split(name).partition("/")[0]
