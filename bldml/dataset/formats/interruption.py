"""Signs that photographs are not to blame if they cannot be read: an interrupted copy, or a folder that is gone."""

import errno
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.errors import MachineError

LEAST = 3  # files with the same sign
BLOCKS = (1 << 20, 1 << 16, 1 << 12)  # bytes; by chance one file in 4,096 ends at the smallest
_NAMES = ("ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENODEV", "EMFILE", "ENFILE", "ENOMEM")
_OF_MACHINE = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}


def blame_machine(path: Path, error: BaseException | None) -> None:
    """Raise MachineError if a photograph that was found before cannot be read, and not for a reason of its own.

    Args:
        path: The photograph.
        error: Why it cannot be read; that of a damaged file is none of the machine's.
    """
    if isinstance(error, MemoryError):
        message = f"There is not enough memory to decode {show_path(path)}. Ask for more (--mem in Slurm)."
        raise MachineError(message, "photograph-without-memory", path=path) from error
    if not isinstance(error, OSError) or error.errno is None:
        return
    if error.errno in _OF_MACHINE:
        message = f"{show_path(path)} cannot be read: {error.strerror}. That is no fault of the photograph: the file "
        message += "server or this machine failed."
        raise MachineError(message, "photographs-unreachable", path=path, reason=error.strerror) from error
    folder = path.parent
    try:
        with os.scandir(folder) as entries:
            what = "" if next(entries, None) else "is empty now"
    except FileNotFoundError:
        what = "is gone"
    except OSError as failed:
        what = f"cannot be read any more ({failed.strerror})"
    if what:
        message = f"The folder {show_path(folder)}, in which photographs were found, {what}. "
        message += "Was it moved or unmounted? Restore it."
        raise MachineError(message, "photographs-gone", path=folder) from error


def describe_interruption(unreadable: Iterable[Path]) -> str:
    """Return a sentence if at least half of unreadable files have the same size or end at a block; empty if not."""
    sizes = []
    for path in unreadable:
        with suppress(OSError):
            sizes.append(path.stat().st_size)
    if not sizes:
        return ""
    (size, equal), least = Counter(sizes).most_common(1)[0], max(LEAST, (len(sizes) + 1) // 2)
    likely = "Probably a copy was interrupted: copy the folder again from the original."
    if equal >= least:
        what = "are empty" if size == 0 else f"have exactly the same size, {size:,} bytes"
        return f"{equal:,} of these files {what}. {likely}"
    for block in BLOCKS:
        if (at_end := sum(size > 0 and size % block == 0 for size in sizes)) >= least:
            return f"{at_end:,} of these files end at a multiple of {block:,} bytes, as parts of a copy do. {likely}"
    return ""
