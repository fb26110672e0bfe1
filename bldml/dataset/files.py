"""Find the photographs below a folder among other files.

Names may contain any bytes. `escape_path` turns a path into text for a table, `unescape_path` turns it back.
"""

import os
import re
import stat
import sys
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from bldml.dataset.images import HEIF_SUFFIXES, PHOTO_SUFFIXES, heif_available, parse_header
from bldml.errors import DatasetError
from bldml.io.platform import quoted

SYSTEM_NAMES = frozenset(
    {
        "__macosx", "__pycache__", "lost+found", "thumbs.db", "desktop.ini", "$recycle.bin",
        "system volume information", "@eadir", "#recycle", "@recycle",
    }
)  # fmt: skip
HIDDEN = "hidden or system file or folder"
RENAME = "photograph by its content, but not by its name"
_LIKE_A_PHOTOGRAPH = re.compile(r"\.(jpe?g|jpe|png|tiff?|webp|hei[cf]|bmp|avif)(?![a-z0-9])", re.I)
_RAW = (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw")
_NOT_READ = {
    **dict.fromkeys(_RAW, "RAW"),
    **{".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".gif": "GIF", ".psd": "Photoshop"},
}  # photographs in formats that are not read


@dataclass
class Found:
    """Result of a search."""

    photographs: list[Path] = field(default_factory=list)  # in readable formats, in a fixed order
    ignored: Counter[str] = field(default_factory=Counter)  # number of files, links and folders by reason
    heif: list[Path] = field(default_factory=list)  # HEIC that cannot be read because the extra is not installed


def is_ignored_name(name: str) -> bool:
    """Return whether a file or folder is hidden or was created by the system or a notebook."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def search_folders(root: Path, folders: Iterable[Path]) -> list[Found]:
    """Search folders below one root; find each real file once, under its own name rather than that of a link.

    Links are followed last, so that a file that is also the target of a link is found at its own path. A link is
    followed only if its target is inside the root and was not found before, so loops end. A folder that cannot be
    listed is a DatasetError.
    """
    searcher = _Searcher(root)
    found = [searcher.search(folder) for folder in folders]
    searcher.follow_links()
    return found


class _Searcher:
    def __init__(self, root: Path) -> None:
        self.root, self.real_root = root, os.path.realpath(root)
        self.visited: set[str] = set()
        self.links: deque[tuple[Path, Found]] = deque()

    def search(self, folder: Path) -> Found:
        """Search the root or a folder below it; `follow_links` adds to the result what its links lead to."""
        found = Found()
        below = folder.relative_to(self.root)
        # A link up to a folder that contains this one leads to no further photographs.
        self.visited.update(os.path.realpath(self.root / parent) for parent in below.parents)
        if os.path.realpath(folder) == str(Path(self.real_root, below)):
            self._walk(folder, found)
        else:
            self.links.append((folder, found))
        return found

    def follow_links(self) -> None:
        while self.links:
            path, found = self.links.popleft()
            real = os.path.realpath(path)
            inside = real == self.real_root or real.startswith(self.real_root.rstrip(os.sep) + os.sep)
            try:
                mode = Path(real).stat().st_mode
            except OSError as error:
                if inside and isinstance(error, PermissionError):
                    message = f"The link {show_path(path)} cannot be followed: {error.strerror}."
                    raise DatasetError(message, "link-broken", path=path, reason=error.strerror) from error
                found.ignored["broken link"] += 1
                continue
            if not inside:
                found.ignored["link to outside the data folder"] += 1
            elif stat.S_ISDIR(mode):
                self._walk(path, found)
            else:
                self._take(path, real, stat.S_ISREG(mode), found)

    def _walk(self, top: Path, found: Found) -> None:
        # A list instead of recursion, whose depth limit a disk may exceed.
        folders = [(top, os.path.realpath(top))]
        while folders:
            folder, real = folders.pop()
            if self._is_known(real, found):
                continue
            inner: list[tuple[Path, str]] = []
            for entry in list_folder(folder):
                path, real_path = folder / entry.name, f"{real.rstrip(os.sep)}{os.sep}{entry.name}"
                if is_ignored_name(entry.name):
                    found.ignored[HIDDEN] += 1
                elif entry.is_symlink():
                    self.links.append((path, found))
                elif entry.is_dir(follow_symlinks=False):
                    inner.append((path, real_path))
                else:
                    self._take(path, real_path, entry.is_file(follow_symlinks=False), found)
            folders += reversed(inner)

    def _take(self, path: Path, real: str, is_regular: bool, found: Found) -> None:
        suffix = path.suffix.lower()
        if not is_regular:
            found.ignored["not a regular file"] += 1
        elif suffix in PHOTO_SUFFIXES or suffix in HEIF_SUFFIXES:
            if not self._is_known(real, found):
                readable = suffix in PHOTO_SUFFIXES or heif_available()
                (found.photographs if readable else found.heif).append(path)
        else:
            found.ignored[_describe(path, found.ignored)] += 1

    def _is_known(self, real: str, found: Found) -> bool:
        known = real in self.visited
        self.visited.add(real)
        if known:
            found.ignored["link to a file or folder already found"] += 1
        return known


def _describe(path: Path, known: Iterable[str]) -> str:
    """Return why a file with another suffix is ignored, in words that count alike files together."""
    suffix = path.suffix.lower()
    if suffix in _NOT_READ:
        return f"{_NOT_READ[suffix]} file ({suffix}), which is not read: export it as JPEG"
    is_plain = re.fullmatch(r"\.[a-z0-9]{1,8}", suffix)
    if (not is_plain or _LIKE_A_PHOTOGRAPH.search(path.name)) and _is_photograph(path):
        same = (reason for reason in known if reason.startswith(RENAME))
        return next(same, f"{RENAME}, such as {show_path(path.name)}: rename it")
    return f"{suffix} file" if is_plain else "other file"


def _is_photograph(path: Path) -> bool:
    try:
        with path.open("rb") as file, parse_header(file):
            return True
    except Exception:  # not one, or damaged; PIL raises almost anything
        return False


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by the bytes of their names, or raise DatasetError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        message = f"The folder {show_path(folder)} cannot be listed: {error.strerror}."
        raise DatasetError(message, "folder-unreadable", path=folder, reason=error.strerror) from error


def subfolders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, including links to folders, without hidden and system folders."""
    for entry in list_folder(folder):
        if not is_ignored_name(entry.name) and is_folder(folder / entry.name):
            yield folder / entry.name


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder or a link to one; False if the link is a loop or may not be followed."""
    return os.path.isdir(path)  # noqa: PTH112  # Path.is_dir raises PermissionError before Python 3.14


def show_path(path: str | os.PathLike[str]) -> str:
    """Return a path as one line of plain text, for messages."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shell_word(value: str | os.PathLike[str]) -> str:
    r"""Quote a value as one word of a shell command, on one line.

    >>> shell_word("my leaves"), shell_word("two\nlines"), shell_word("-x")
    ("'my leaves'", "$'two\\x0alines'", './-x')
    """
    text = os.fspath(value)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return quoted(text)
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{''.join(plain)}'"


def escape_text(text: str) -> str:
    r"""Return a name as one line of valid UTF-8 that does not begin or end with a space.

    Bytes that are not UTF-8, control characters, and white space at both ends become ``\xNN``. Escaped text is
    unchanged.

    >>> escape_text(os.fsdecode(b"caf\xe9")), escape_text("two\nlines ")
    ('caf\\xe9', 'two\\x0alines\\x20')
    """
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    if text.isprintable() and text == text.strip():  # nearly always
        return text
    ends = {0, len(text) - 1}
    return "".join(
        "".join(f"\\x{byte:02x}" for byte in c.encode())
        if unicodedata.category(c) == "Cc" or (i in ends and c.isspace())
        else c
        for i, c in enumerate(text)
    )


def escape_path(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text for a table (see `escape_text`), which `unescape_path` reverses; never a formula.

    Its separator is ``/`` on every system. A literal ``\x`` becomes ``\x5cx``; a relative path that begins like a
    formula gets a leading ``./``, which does not change its meaning.

    >>> escape_path(os.fsdecode(b"caf\xe9.jpg")), escape_path("=1+1.jpg")
    ('caf\\xe9.jpg', './=1+1.jpg')
    """
    plain = path.as_posix() if isinstance(path, PurePath) else os.fspath(path)
    text = escape_text(plain.replace("\\x", "\\x5cx"))
    return f"./{text}" if text[:1] in ("=", "+", "-", "@") else text


def unescape_path(text: str) -> str:
    """Return the path that `escape_path` encoded."""
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), os.fsencode(text))
    # Not os.fsdecode, which on Windows raises an error for bytes that are not UTF-8.
    return raw.decode(sys.getfilesystemencoding(), "surrogateescape")
