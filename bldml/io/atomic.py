"""Atomic writing of files, and names allowed for folders."""

import os
import secrets
import unicodedata
from contextlib import suppress
from pathlib import Path

from bldml.errors import MachineError, UsageError
from bldml.io.platform import WINDOWS, refused_on_windows, replace_path

_LONGEST_NAME = 200  # bytes; file systems allow 255, and a number is appended to make a name unique

_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def check_name(name: str, what: str) -> None:
    """Raise UsageError unless a name that the user typed is safe as the name of a folder, such as that of a "run".

    >>> check_name("resnet50-4711", "run")
    """
    if not name.strip():
        problem = "is empty"
    elif "/" in name or "\\" in name:
        problem = "has a path separator"
    elif name.startswith((".", "-")):  # hidden, or parsed as an option; covers "." and ".."
        problem = f"starts with {name[0]!r}"
    elif "$" in name or "`" in name:  # TensorBoard would insert an environment variable
        problem = "has a $ or `"
    elif any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        problem = "contains control characters or invalid text"
    elif any(unicodedata.bidirectional(character) in _TURNING for character in name):
        problem = "contains marks of the writing direction"
    elif len(name.encode()) > _LONGEST_NAME:
        problem = f"is {len(name.encode())} bytes long; {_LONGEST_NAME} are allowed"
    elif not (WINDOWS and (problem := refused_on_windows(name))):
        return
    message = f"The {what} name {name!r} {problem}. Use a plain name such as resnet50-2."
    raise UsageError(message, "name-refused", what=what, found=name, reason=problem)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it contains, at every moment, the whole old or the whole new content.

    Text is encoded as UTF-8. Several processes may write the same file at once: the last one wins. The file's mode
    follows the umask, so that a group's shared folder stays readable for the group.

    Raises:
        MachineError: The file cannot be written; an old file is unchanged, and no temporary file is left.
    """
    data = content.encode() if isinstance(content, str) else content
    # A short name, because the name of `path` may have the maximum length; "x" never opens another writer's file.
    temporary = path.with_name(f".bldml-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_path(temporary, path)
    except OSError as error:
        raise MachineError(
            f"Cannot write {path}: {error.strerror}. The file is unchanged. Check that its folder exists, "
            f"{'that no other program has the file open, ' if WINDOWS else ''}that you have write permission, and that "
            "there is free space.",
            "file-not-writable",
            path=path,
            reason=error.strerror,
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Return whether a file has the name of a temporary one, as a process leaves it that is killed while it writes.

    >>> is_leftover(".bldml-0123456789abcdef.tmp"), is_leftover("notes.tmp")
    (True, False)
    """
    return name.startswith(".bldml-") and name.endswith(".tmp")


def make_folder(folder: Path) -> None:
    """Create a folder, and its parents if they are missing; MachineError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = next((one for one in (folder, *folder.parents) if os.path.lexists(one)), folder)
        reason = error.strerror if found.is_dir() else f"{found} is not a folder"
        message = f"Cannot create {folder}: {reason}. Check your write permission, and the path."
        raise MachineError(message, "folder-not-makable", path=folder, reason=error.strerror) from error
