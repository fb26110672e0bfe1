"""File lock: held by one process at a time, released by the system when that process ends."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from bldml.io.platform import is_locked, try_lock

_held: set[str] = set()  # real paths of the lock files that this process holds


class Taken(Exception):
    """Another process holds the lock."""


class Lock(ExitStack):
    """A lock file that is held until `close`, or until the process ends; its child processes do not hold it.

    Args:
        path: The lock file; it is created if missing, and its content stays.
        wait: Seconds to wait for another process; None for as long as it takes.
        note: Text that replaces the content of the file once this process holds the lock.
        waiting: Called about every second while another process holds it; may raise to end the waiting.

    Attributes:
        is_real: Whether the file system supports locks. If not, no other process is kept out.

    Raises:
        Taken: Another process holds it.
        OSError: The file cannot be opened for writing.
    """

    def __init__(
        self,
        path: Path,
        *,
        wait: float | None = 0.0,
        note: str = "",
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        with ExitStack() as opened:  # closed again if the lock is not taken
            file = opened.enter_context(path.open("ab"))
            self.is_real = _take(file, wait, waiting)
            if note:  # through this handle: closing another one would release the lock
                file.truncate(0)
                file.write(note.encode())
                file.flush()
            self.enter_context(opened.pop_all())
        real = os.path.realpath(path)
        _held.add(real)
        self.callback(_held.discard, real)


def is_taken(path: Path) -> bool:
    """Return whether a process, this one or another, holds the lock of this file; it is not taken for that.

    False where the file is missing or cannot be read, or the file system has no locks.
    """
    if os.path.realpath(path) in _held:  # closing another handle of it would release the lock
        return True
    try:
        with path.open("rb") as file:
            return is_locked(file.fileno())
    except OSError:
        return False


def _take(file: IO[bytes], wait: float | None, waiting: Callable[[], None]) -> bool:
    end = None if wait is None else time.monotonic() + wait
    while True:
        try:
            if try_lock(file.fileno()):
                return True
        except OSError:
            return False
        if end is not None and time.monotonic() >= end:
            raise Taken(os.fspath(file.name))
        waiting()
        time.sleep(1)
