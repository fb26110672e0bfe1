"""File lock, held by one process at a time and released by the system when that process ends; lock of an output."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from bldml.errors import RunError
from bldml.io.platform import WINDOWS, is_locked, try_lock
from bldml.io.safe_points import safe_point
from bldml.io.screen import complain
from bldml.io.text import plain

OUTPUT_LOCK = ".bldml.lock"
"""In an output folder that a process is writing."""
SHORTLY_S = 600.0  # for another process that writes what it has already computed
_TRIES = 50  # to lock a file that others remove

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
            file = path.open("ab")
            opened.callback(_close, file)
            self.is_real = _take(file, wait, waiting)
            self._number = os.fstat(file.fileno()).st_ino
            if note:  # through this handle: closing another one would release the lock
                file.truncate(0)
                file.write(note.encode())
                file.flush()
            self.enter_context(opened.pop_all())
        real = os.path.realpath(path)
        _held.add(real)
        self.callback(_held.discard, real)

    def is_of(self, path: Path) -> bool:
        """Return whether the file at this path is the one that is locked, not a later one with the same name."""
        try:
            return path.stat().st_ino == self._number
        except OSError:
            return False


def _close(file: IO[bytes]) -> None:
    """Release the lock; what a full disk says then is no error of the work that was done under it."""
    with suppress(OSError):
        file.close()


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


@contextmanager
def hold_output(output: Path, *, wait: float = 0.0, option: str = "--output") -> Iterator[None]:
    """Keep other processes from writing the same output, a file or an existing folder, until the context is left.

    The lock file is removed then. Where the file system has no locks, or no file can be made, nobody is kept out.

    Args:
        output: The file, whose lock lies beside it, or the folder, whose lock lies in it.
        wait: Seconds to wait for another process, which is said; a signal may interrupt that.
        option: The option that chooses another output; empty if there is none.

    Raises:
        RunError: Another process is writing it.
    """
    path = output / OUTPUT_LOCK if output.is_dir() else output.with_name(f".{output.name}.lock")
    lock: Lock | None = None
    try:
        lock = _lock_file_at(path, wait, _Waiting(output, wait))
    except Taken as error:
        message = f"Another process is writing {plain(str(output))}. Wait until it has ended"
        message += f", or choose another {option}." if option else "."
        raise RunError(message, "output-in-use", path=output) from error
    except OSError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                if not WINDOWS:  # which removes no open file
                    path.unlink()
            lock.close()
            with suppress(OSError):
                if WINDOWS:
                    path.unlink()


class _Waiting:
    def __init__(self, output: Path, wait: float) -> None:
        self.text = f"Waiting for another process, which is writing {plain(str(output))}, for up to {wait:.0f} s.\n"

    def __call__(self) -> None:
        """Say once that this process waits, where it does; then let a signal interrupt it."""
        if self.text:
            complain(self.text)
            self.text = ""
        safe_point()


def _lock_file_at(path: Path, wait: float, waiting: Callable[[], None]) -> Lock | None:
    """Lock the file at a path, or return None if another one is found there after each of many tries."""
    for _ in range(_TRIES):
        lock = Lock(path, wait=wait, waiting=waiting)
        if lock.is_of(path):
            return lock
        lock.close()  # who had it has removed the file; or the file system gives it another number at each look
        safe_point()
        time.sleep(0.1)
    return None


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
