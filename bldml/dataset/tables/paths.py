"""Find the files that the paths of a table mean, where only one file can be meant, and say how they were read."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from bldml.dataset.files import search_folders, show_path, unescape_path
from bldml.errors import DatasetError
from bldml.io.text import counted

_SAMPLED = 200  # paths that decide whether all have a folder too many
_KINDS = {
    "prefix": "without “{}” at the beginning",
    "slashes": "with / for \\",
    "encoding": "as Windows-1252",
    "case": "in other capitals than the file",
    "suffix": "without the suffix of the file",
    "decimal": "without “.0”, which a program had added",
    "percent": "with the characters that % codes stand for",
    "quotes": "without quotes around them",
    "folder": "without the folder of the file",
    "address": "without what an address has behind the file",
    "export": "without the mark that Label Studio writes before the name",
}
_THOUSANDS, _SEPARATED = re.compile(r"\d{1,3}(?:[.,'’ \u00a0\u202f]\d{3})+"), re.compile(r"\D")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # https://, gs://, s3://
_LABEL_STUDIO = re.compile(r"(^|/)(?!(?:19|20)\d{6}-)[0-9a-f]{8}-(?=[^/]+$)")  # but no date
_UPLOADED = re.compile(r"/?(?:.+/)?upload/\d+/")
_REPLACED = re.compile(r"#+|#(?:REF|NAME|VALUE|N/A|NUM|DIV)\S*|\d(?:[.,]\d+)?E[+-]?\d+", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def exact_file(root: Path, cell: str) -> Path | None:
    """Return the file of a cell that `escape_path` wrote, or that was written by hand and only looks escaped."""
    text = cell.strip()
    paths = (root / name for name in (unescape_path(text), text, cell))
    # Path.is_file raises for a name that is too long.
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113


class PathFinder:
    """Finds the files of a table's paths.

    Args:
        root: Folder that relative paths start from.
        all_cells: Returns all paths of the table; called only if one is not found as it is written.
    """

    def __init__(self, root: Path, all_cells: Callable[[], Iterable[str]]) -> None:
        self.root, self._all_cells = root, all_cells
        self._read: Counter[str] = Counter()

    def find(self, cell: str) -> Path | None:
        """Return the file that a path means; None if there is none, or more than one."""
        if path := exact_file(self.root, cell):
            return path
        if not cell.strip() or "\0" in cell:
            return None
        for kinds, text in self._spellings(cell.strip()):
            if (path := exact_file(self.root, text)) or (path := self._similar(text)):
                self._read.update(kinds)
                return path
        return None

    def notes(self) -> list[str]:
        """Return how paths were read that were not found as they are written, one sentence for each way."""
        prefix = show_path(self._prefix) if self._read["prefix"] else ""
        return [
            f"{counted(count, 'path was', 'paths were')} read {_KINDS[kind].format(prefix)}."
            for kind, count in self._read.items()
        ]

    def hint(self, cell: str) -> str:
        """Return what somebody may have meant with a path that is not found; empty if nothing is like it."""
        text = _with_slashes(cell.strip())
        if not text or "\0" in text:
            return ""
        several = [part for part in re.split(r"[;,|\n]", text) if part.strip()]
        if len(several) > 1 and all(
            self._by_path.get(_key(one.strip())) or self._by_name.get(_key(one.strip())) for one in several
        ):
            return "; it names several files: write a row for each"
        name, folder = PurePosixPath(text).name, _key(str(PurePosixPath(text).parent))
        if _REPLACED.fullmatch(name):
            return "; a spreadsheet wrote this for another text: restore it, and format the column as text"
        if _THOUSANDS.fullmatch(name) and len(found := self._by_number.get(_SEPARATED.sub("", name), [])) == 1:
            return f"; the file is called {self._shown(found[0])}"
        same = self._by_name.get(_key(name)) or self._by_stem.get(_key(PurePosixPath(name).stem)) or []
        tails = [path for path in same if _key(text).endswith(f"/{_key(self._shown(path))}")]
        if len(tails) == 1:
            return f"; take away {show_path(text[: len(text) - len(self._shown(tails[0]))])}"
        same = [path for path in same if _key(str(self._below(path).parent)) == folder] or same
        if len(same) > 1:
            return f"; {', '.join(map(self._shown, same[:3]))}{', …' if len(same) > 3 else ''} have this name"
        near = (
            same
            or self._by_number.get(_number(name), [])
            or self._of_date(PurePosixPath(name).stem)
            or self._of_date(name)
        )
        if len(near) == 1:
            return f"; the file is called {self._shown(near[0])}"
        here = self._by_folder.get(folder, {})
        close = get_close_matches(name, here, 1, 0.85)
        return f"; did you mean {self._shown(here[close[0]])}?" if close else ""

    def _spellings(self, text: str) -> Iterable[tuple[tuple[str, ...], str]]:
        """Yield texts that may be meant by one that is no path, and in which ways they differ from it."""
        kinds: tuple[str, ...] = ()
        if not is_utf8(text):
            kinds, text = ("encoding",), from_windows(text)
        if "\\" in text:
            text = _with_slashes(text)
            kinds = (*kinds, "slashes") if os.sep == "/" else kinds
        if (file := _of_address(text)) != text:
            kinds, text = (*kinds, "address"), file
        if (bare := text.strip("'\"`“”«»\u200b\ufeff ")) != text:
            kinds, text = (*kinds, "quotes"), bare
        if "%" in text and (plain := unquote(text)) != text and "\0" not in plain:
            kinds, text = (*kinds, "percent"), plain
        if kinds:
            yield kinds, text
        whole = text
        if self._prefix and text.startswith(self._prefix):
            kinds, text = (*kinds, "prefix"), text.removeprefix(self._prefix)
        yield kinds, text
        if _UPLOADED.fullmatch(_folder(whole)) and _LABEL_STUDIO.search(text):
            # If its folder is there, also below another one than the table says, a file elsewhere is not meant.
            places = (text, *(whole.split("/", above)[-1] for above in range(whole.count("/") - 1)))
            there = (one for one in places if "/" in one and os.path.isdir(self.root / _folder(one)))  # noqa: PTH112
            yield (*kinds, "export"), _LABEL_STUDIO.sub(r"\1", next(there, PurePosixPath(text).name))

    def _similar(self, text: str) -> Path | None:
        """Return the only file whose path is like a text."""
        candidates: list[tuple[str, list[Path]]] = []
        whole = re.sub(r"(?<=\d)[.,]0(?=$|\.[a-z]+$)", "", text)
        for kind, spelling in (("", text), ("decimal", whole)):
            if kind and spelling == text:
                continue
            by_path = self._by_path.get(_key(spelling), [])
            by_stem = self._by_path_without_suffix.get(_key(spelling), [])
            candidates += [(kind or "case", by_path), (kind or "suffix", by_stem)]
            if "/" not in spelling:
                candidates += [(kind or "folder", self._by_name.get(_key(spelling), []))]
                candidates += [(kind or "folder", self._by_stem.get(_key(spelling), []))]
        for kind, found in candidates:
            if len(found) == 1:
                self._read[kind] += 1
                return found[0]
            if found:
                return None
        return None

    @cached_property
    def _prefix(self) -> str:
        """Folders at the beginning of all paths that the files do not have; empty if there are none.

        An absolute path may come from another computer. A relative one must end with the name of the root: otherwise
        it may be of other photographs.
        """
        cells = [_of_address(_with_slashes(cell.strip())) for cell in self._all_cells() if cell.strip()]
        folders = [cell.split("/")[:-1] for cell in cells]
        first, last = (min(folders), max(folders)) if folders else ([], [])
        common = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
        sampled = cells[:: max(1, len(cells) // _SAMPLED)]
        if any(exact_file(self.root, cell) for cell in sampled):
            return ""
        is_absolute = bool(cells) and (
            cells[0].startswith("/")
            or re.match("[a-zA-Z]:/", cells[0]) is not None
            or _ADDRESS.match(cells[0]) is not None
        )
        for count in range(1, len(common) + 1):
            prefix = "/".join(common[:count]) + "/"
            below = [cell.removeprefix(prefix) for cell in sampled]
            found = sum(bool(exact_file(self.root, cell) or self._by_path.get(_key(cell))) for cell in below)
            if _UPLOADED.fullmatch(prefix):
                found = sum(len(self._by_name.get(_key(_LABEL_STUDIO.sub("", cell)), [])) == 1 for cell in below)
            if 2 * found > len(below) and (is_absolute or common[count - 1] in self._own_names):
                return prefix
        return ""

    @cached_property
    def _own_names(self) -> set[str]:
        return {self.root.name, Path(os.path.realpath(self.root)).name, "."}

    @cached_property
    def _index(self) -> list[Path]:
        with suppress(OSError, DatasetError):
            (found,) = search_folders(self.root, [self.root])
            return sorted(found.photographs)
        return []

    def _below(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self.root).as_posix())

    @cached_property
    def _by_path(self) -> dict[str, list[Path]]:
        return self._indexed(str)

    @cached_property
    def _by_path_without_suffix(self) -> dict[str, list[Path]]:
        return self._indexed(lambda path: str(path.with_suffix("")))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return self._indexed(lambda path: path.name)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return self._indexed(lambda path: path.stem)

    @cached_property
    def _by_folder(self) -> dict[str, dict[str, Path]]:
        found: dict[str, dict[str, Path]] = defaultdict(dict)
        for path in self._index:
            found[_key(str(self._below(path).parent))][path.name] = path
        return found

    @cached_property
    def _by_number(self) -> dict[str, list[Path]]:
        return self._indexed(lambda path: _number(path.name))

    def _indexed(self, key: Callable[[PurePosixPath], str]) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self._index:
            if text := key(self._below(path)):
                found[_key(text)].append(path)
        return found

    def _shown(self, path: Path) -> str:
        return show_path(str(self._below(path)))

    def _of_date(self, name: str) -> list[Path]:
        """Return the files of which a spreadsheet may have made a date, such as 6-1 for 2024-06-01 or 06. Jan."""
        return [path for stem in numbers_of_date(name) for path in self._by_stem.get(_key(stem), [])]


def numbers_of_date(text: str) -> list[str]:
    """Return what a spreadsheet may have made a date of; empty if a text is no date.

    >>> numbers_of_date("06. Jan")[:2], numbers_of_date("2024-06-01")[:2], numbers_of_date("tree 6")
    (['6-1', '06-01'], ['6-1', '06-01'], [])
    """
    short = text.strip().casefold()
    if match := re.fullmatch(r"(?:19|20)\d\d-(\d\d)-(\d\d)(?: 00:00:00)?", short):
        pair = int(match[1]), int(match[2])
    elif match := re.fullmatch(r"(\d{1,2})[-. ]{1,2}([a-z]{3})[a-z]*\.?", short):
        pair = int(match[1]), _MONTHS.index(match[2]) + 1 if match[2] in _MONTHS else 0
    elif match := re.fullmatch(r"([a-z]{3})[a-z]*[-. ]{1,2}(\d{1,2})", short):
        pair = _MONTHS.index(match[1]) + 1 if match[1] in _MONTHS else 0, int(match[2])
    else:
        return []
    if 0 in pair:
        return []
    forms = [form for between in "-/._" for form in (f"{{}}{between}{{}}", f"{{:02}}{between}{{:02}}")]
    return [form.format(*order) for order in (pair, pair[::-1]) for form in forms]


def _folder(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _with_slashes(text: str) -> str:
    return text.replace("\\", "/")


def _of_address(text: str) -> str:
    """Return an address without what stands behind the file, or the file that Label Studio serves.

    >>> _of_address("https://x.org/a/1.jpg?raw=1#x"), _of_address("/data/local-files/?d=a/1.jpg"), _of_address("a?.jpg")
    ('https://x.org/a/1.jpg', 'a/1.jpg', 'a?.jpg')
    """
    if "/local-files/?d=" in text:
        return text.partition("?d=")[2]
    return re.split("[?#]", text)[0] if _ADDRESS.match(text) else text


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text.removeprefix("./")).casefold()


def _number(name: str) -> str:
    """Return the digits of a name without zeros in front; empty if it has anything else."""
    stem = PurePosixPath(name).stem
    return stem.lstrip("0") if stem.isdecimal() else ""


def from_windows(text: str) -> str:
    r"""Return a text with bytes that are not UTF-8 as a western Windows wrote it.

    >>> from_windows(b"caf\xe9".decode("utf-8", "surrogateescape"))
    'café'
    """
    return text if is_utf8(text) else text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def is_utf8(text: str) -> bool:
    """Return whether a text has no bytes that are not UTF-8."""
    return not any("\udc80" <= c <= "\udcff" for c in text)
