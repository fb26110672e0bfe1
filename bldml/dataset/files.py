"""Find the photographs under a folder, whatever else lies there.

Names may hold any bytes. Two functions turn a path into text for a table and back: `escape_path`, `unescape_path`.
"""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bldml.dataset.images import HEIF_SUFFIXES, PHOTO_SUFFIXES, heif_available

SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "__pycache__", "thumbs.db", "desktop.ini"}
)


class DatasetError(Exception):
    """The photographs cannot be used as they are; the message says what was found and what to do."""


@dataclass
class Found:
    """What a search met.

    Attributes:
        photographs: Paths of what can be read, in a fixed order.
        ignored: How many things were left out, by reason in plain words.
        heif: HEIC photographs that cannot be read because the extra is not installed.
    """

    photographs: list[Path] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    heif: list[Path] = field(default_factory=list)


def is_ignored_name(name: str) -> bool:
    """Whether a file or folder is hidden or left by a system or notebook.

    >>> [is_ignored_name(name) for name in ("._a.jpg", ".ipynb_checkpoints", "Thumbs.db", "leaf.jpg")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


class Searcher:
    """Walks folders below one root; each real file is found once, under its own name rather than a link's.

    Links are kept back until `finish` so that a file that is both there and linked to is found where it is. A link is
    followed only when its target lies inside the root and was not found before, so loops end.

    Args:
        root: The folder that links must not leave.

    Raises:
        DatasetError: A folder cannot be listed.
    """

    def __init__(self, root: Path) -> None:
        self.real_root = os.path.realpath(root)
        self.visited: set[str] = set()
        self.links: deque[tuple[Path, Found]] = deque()

    def search(self, folder: Path) -> Found:
        """Search a folder, links apart; call `finish` after the last folder to complete what was returned."""
        found = Found()
        real = os.path.realpath(folder)
        if real != self.real_root and folder.is_symlink():
            self.links.append((folder, found))
        elif not self._is_inside(real):
            found.ignored["link that leads out of the data folder"] += 1
        else:
            self._walk(folder, found)
        return found

    def finish(self) -> None:
        """Follow the links met so far, each at most once."""
        while self.links:
            path, found = self.links.popleft()
            target = Path(os.path.realpath(path))
            if not target.exists():
                found.ignored["broken link"] += 1
            elif not self._is_inside(str(target)):
                found.ignored["link that leads out of the data folder"] += 1
            elif str(target) in self.visited:
                found.ignored["link to something found already"] += 1
            elif target.is_dir():
                self._walk(path, found)
            else:
                self._take(path, target.stat().st_mode, found)

    def _is_inside(self, real: str) -> bool:
        return real == self.real_root or real.startswith(self.real_root.rstrip(os.sep) + os.sep)

    def _walk(self, folder: Path, found: Found) -> None:
        real = os.path.realpath(folder)
        if real in self.visited:
            found.ignored["link to something found already"] += 1
            return
        self.visited.add(real)
        for entry in list_folder(folder):
            path = folder / entry.name
            if is_ignored_name(entry.name):
                found.ignored["hidden or system file or folder"] += 1
            elif entry.is_symlink():
                self.links.append((path, found))
            elif entry.is_dir(follow_symlinks=False):
                self._walk(path, found)
            else:
                self._take(path, entry.stat(follow_symlinks=False).st_mode, found)

    def _take(self, path: Path, mode: int, found: Found) -> None:
        suffix = path.suffix.lower()
        if not stat.S_ISREG(mode):
            found.ignored["not a regular file"] += 1
        elif suffix in PHOTO_SUFFIXES or (suffix in HEIF_SUFFIXES and heif_available()):
            self.visited.add(os.path.realpath(path))
            found.photographs.append(path)
        elif suffix in HEIF_SUFFIXES:
            found.heif.append(path)
        else:
            found.ignored[f"{suffix} file" if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "other file"] += 1


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by the bytes of their names so that the order is the same everywhere.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise DatasetError(f"The folder {show_path(folder)} cannot be listed: {error.strerror}.") from error


def subfolders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, links to folders included, without hidden and system ones."""
    for entry in list_folder(folder):
        if entry.is_dir() and not is_ignored_name(entry.name):
            yield folder / entry.name


def show_path(path: str | os.PathLike[str]) -> str:
    r"""A path on one line of plain text, for messages.

    >>> show_path("a\nb.jpg")
    'a\\nb.jpg'
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape_path(path: str | os.PathLike[str]) -> str:
    r"""A path as text for a table: valid UTF-8, reversible by `unescape_path`, no formula for a spreadsheet.

    Bytes that are not UTF-8 become ``\xNN``; a literal ``\x`` becomes ``\x5cx``; a relative path that begins like a
    formula gets ``./`` in front and names the same file.

    >>> escape_path(os.fsdecode(b"caf\xe9.jpg")), escape_path("=1+1.jpg")
    ('caf\\xe9.jpg', './=1+1.jpg')
    """
    raw = os.fsencode(path).replace(b"\\x", b"\\x5cx")
    text = raw.decode("utf-8", "backslashreplace")
    return f"./{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def unescape_path(text: str) -> str:
    r"""The path that `escape_path` wrote.

    >>> os.fsencode(unescape_path("caf\\xe9.jpg"))
    b'caf\xe9.jpg'
    """
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), os.fsencode(text))
    return os.fsdecode(raw)
