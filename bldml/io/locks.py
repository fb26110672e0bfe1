"""File lock: held by one process at a time, released by the system when that process ends."""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

_TAKEN = (errno.EACCES, errno.EAGAIN)


class Taken(Exception):
    """Another process holds the lock."""


class Lock:
    """A lock file that is held until `close`, or until the process ends.

    It uses `lockf`, so neither threads nor child processes hold it: a `flock` would stay with the workers of a loader
    after the training process was killed. Any process that opens and closes the same file releases its lock.

    Args:
        path: The lock file; it is created if missing, and its content stays.
        wait: Seconds to wait for another process; None for as long as it takes.

    Attributes:
        is_real: Whether the file system supports locks. If not, no other process is kept out.

    Raises:
        Taken: Another process holds it.
        OSError: The file cannot be opened for writing.
    """

    def __init__(self, path: Path, *, wait: float | None = 0.0) -> None:
        self._file: IO[bytes] = path.open("ab")
        try:
            self.is_real = self._take(wait)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> "Lock":
        """Return the lock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.close()

    def _take(self, wait: float | None) -> bool:
        end = None if wait is None else time.monotonic() + wait
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if end is None else fcntl.LOCK_NB))
                return True
            except OSError as error:
                if error.errno not in _TAKEN:
                    return False
                if end is None or time.monotonic() >= end:
                    raise Taken(os.fspath(self._file.name)) from error
            time.sleep(1)
