"""What Linux, macOS and Windows do differently: the one module that asks on which of them it runs."""

import codecs
import os
import platform
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

LINUX = sys.platform == "linux"
# Without Unix permissions: neither umask nor groups of users say who may change a file.
WINDOWS = sys.platform == "win32"
QUIT_KEY = "Ctrl-Break" if WINDOWS else "Ctrl-\\"

# For os.open, which translates line ends on Windows.
BINARY: int = getattr(os, "O_BINARY", 0)
NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)

Mask = Iterable[int]

_TRIES = 20 if WINDOWS else 1
_PAUSE_S = 0.1

if sys.platform == "win32":
    from filelock import lock_descriptor

    _position = threading.Lock()

    def try_lock(file: int) -> bool:
        """Lock an open file; False if another open file has the lock. It ends when the file is closed."""
        return lock_descriptor(file, blocking=False)

    def is_locked(file: int) -> bool:
        """Return whether another open file has the lock; for a moment, this one may have it."""
        return not lock_descriptor(file, blocking=False)

    def read_at(file: int, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at an offset; threads may share the file."""
        with _position:
            os.lseek(file, offset, os.SEEK_SET)
            return os.read(file, length)

    def write_some_at(file: int, data: memoryview, offset: int) -> int:
        """Write data at an offset; return how many bytes were written. Threads may share the file."""
        with _position:
            os.lseek(file, offset, os.SEEK_SET)
            return os.write(file, data)

    def change_signal_mask(how: Literal["block", "unblock", "set"], signums: Mask) -> set[int]:
        """Do nothing: no other process sends signals here."""
        return set()

    def after_fork_in_child(function: Callable[[], object]) -> None:
        """Do nothing: no process is forked here."""

    def read_group(number: int) -> tuple[str, list[str]]:
        """Return a number as the name of a group without members."""
        return str(number), []

    def has_terminal() -> bool:
        """Return False: no cluster's terminal is asked for here."""
        return False

else:
    import errno
    import fcntl
    import grp

    _MASKS = {"block": signal.SIG_BLOCK, "unblock": signal.SIG_UNBLOCK, "set": signal.SIG_SETMASK}

    def try_lock(file: int) -> bool:
        """Lock an open file; False if another process has the lock. It ends when this process closes the file.

        By `lockf`, so neither threads nor child processes hold it: a `flock` would stay with the workers of a loader
        after the training process was killed. Any process that opens and closes the same file releases its lock.
        """
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    # The layout of the system's struct flock, and where it has the kind of lock.
    _FLOCK, _KIND = ("qqihh", 3) if sys.platform == "darwin" else ("hhqqi", 0)

    def is_locked(file: int) -> bool:
        """Return whether another process has locked an open file by `try_lock`; never locks it, not for a moment."""
        asked = (0, 0, 0, fcntl.F_WRLCK, 0) if _KIND else (fcntl.F_WRLCK, 0, 0, 0, 0)
        answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(_FLOCK, *asked))
        return bool(struct.unpack(_FLOCK, answer)[_KIND] != fcntl.F_UNLCK)

    def read_at(file: int, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at an offset; threads may share the file."""
        return os.pread(file, length, offset)

    def write_some_at(file: int, data: memoryview, offset: int) -> int:
        """Write data at an offset; return how many bytes were written. Threads may share the file."""
        return os.pwrite(file, data, offset)

    def change_signal_mask(how: Literal["block", "unblock", "set"], signums: Mask) -> set[int]:
        """Change which signals wait until they are unblocked; return those that waited before."""
        return set(signal.pthread_sigmask(_MASKS[how], signums))

    def after_fork_in_child(function: Callable[[], object]) -> None:
        """Call a function in every process that is forked from this one."""
        os.register_at_fork(after_in_child=function)

    def read_group(number: int) -> tuple[str, list[str]]:
        """Return the name of a group of users, or its number if it has no name, and its members."""
        try:
            group = grp.getgrgid(number)
        except KeyError:
            return str(number), []
        return group.gr_name, group.gr_mem

    def has_terminal() -> bool:
        """Return whether a terminal controls this process, wherever its input and output go."""
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            return False
        return True


if sys.platform == "win32" or sys.platform == "darwin":
    wait_for_sender: Callable[[int], int] | None = None
else:

    def _wait_for_sender(signum: int) -> int:
        return signal.sigwaitinfo([signum]).si_pid

    # Waits for a blocked signal and returns which process sent it; None where a system does not tell.
    wait_for_sender = _wait_for_sender


def replace_path(path: Path, target: Path) -> None:
    """Rename a file or folder, which replaces a file; on Windows also one that another program is just reading.

    Virus scanners, indexers and programs that copy to a cloud open new files for a moment.

    Raises:
        OSError: It cannot be renamed; PermissionError on Windows if the file stays open.
    """
    for _ in range(_TRIES - 1):
        try:
            path.replace(target)
        except PermissionError:
            time.sleep(_PAUSE_S)
        else:
            return
    path.replace(target)


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals that this system has of these, such as SIGUSR1, which Windows lacks.

    >>> signals("SIGTERM", "SIGNONE")
    (<Signals.SIGTERM: 15>,)
    """
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def cpu_model() -> str:
    """Return the name of the processor, or its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines() if LINUX else []
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def quoted(word: str) -> str:
    """Return one word of a command as the shell of this system takes it."""
    return subprocess.list2cmdline([word]) if WINDOWS else shlex.quote(word)


_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}


def refused_on_windows(name: str) -> str:
    """Return why Windows has no file or folder of a name, as the end of a sentence; empty if it may have.

    >>> [refused_on_windows(name) for name in ("leaf", "leaf?", "nul.txt", "leaf.")]
    ['', "has a '?'", 'is reserved by Windows', 'ends with a dot or space']
    """
    if refused := [character for character in name if character in '<>:"|?*']:
        return f"has a {refused[0]!r}"
    if name.endswith((".", " ")):
        return "ends with a dot or space"
    return "is reserved by Windows" if name.partition(".")[0].strip().upper() in _DEVICES else ""


_PLAIN = str.maketrans({"−": "-", "–": "-", "×": "x", "…": "...", "“": '"', "”": '"', "’": "'", "\u00a0": " "})


def _in_plain_characters(error: UnicodeError) -> tuple[str | bytes, int]:
    """Stand in for characters that a terminal does not have: a similar one, or its number as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


def write_any_text(*streams: object) -> None:
    """Let streams of text, such as those of a terminal without Unicode, write all characters in some form.

    The code page of Windows has no minus sign (U+2212), and ASCII no ellipsis.
    """
    codecs.register_error("bldml", _in_plain_characters)
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="bldml")
