"""Faults of the operating system: the n-th change of a file below a folder fails in this process, or is its last.

`Faults.install` replaces the functions of `os` that change files, and `open` by the one of the standard library that is
written in Python and calls them. What libraries write by themselves in C, such as the encoders of Pillow into a file of
their own, is not counted.
"""

import builtins
import errno
import hashlib
import inspect
import io
import os
import re
import signal
import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

python_io: Any = import_module("_pyio")  # `io`, written in Python
TIMES = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|seconds\": [\d.]+|provenance\": \"[0-9a-f]{64}")
How = Literal["ENOSPC", "EIO", "kill"]
# Of these the first argument is an open file; of the others a path, of the last three also the second.
BY_FILE = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "sendfile", "close")
BY_PATH = ("mkdir", "unlink", "remove", "rmdir", "utime", "truncate", "chmod")
BY_TWO = ("rename", "replace", "link", "symlink")
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Faults:
    """Count changes of files below a folder; the change with the number `at`, counted from 1, fails or is the last.

    Args:
        folder: The folder.
        at: Number of the change; 0 for none.
        how: ENOSPC fails this change and every later one that needs space, as on a full disk; EIO this one alone.
            A write that fails has written half. "kill" ends the process at this change, in a write after half of it.

    Attributes:
        calls: The name of each change so far.
        places: For each change, where in bldml and the libraries it was asked for: equal for two turns of a loop.
        versions: Digests of each content that a file had when it was closed or came to its name.
    """

    def __init__(self, folder: Path, at: int = 0, how: How = "EIO") -> None:
        self.folder, self.at, self.how = os.path.realpath(folder), at, how
        self.calls: list[str] = []
        self.places: list[int] = []
        self.versions: dict[str, set[str]] = {}
        self._real = {name: getattr(os, name) for name in ("open", *BY_FILE, *BY_PATH, *BY_TWO)}
        self._open = builtins.open
        self._process = os.getpid()

    def install(self) -> None:
        for name in (*BY_FILE, *BY_PATH, *BY_TWO):
            setattr(os, name, self._changing(name))
        os.open = self._opening
        builtins.open = io.open = self._python_open

    def _is_inside(self, path: Any) -> bool:
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115  # as it is, quickly
            except OSError:
                return False
        path = os.fsdecode(path)
        return os.path.join(os.path.realpath(os.path.dirname(path) or "."), "").startswith(self.folder + os.sep)  # noqa: PTH118, PTH120

    def _python_open(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+") or not self._is_inside(file):
            return self._open(file, mode, *rest, **options)
        return python_io.open(file, mode, *rest, **options)

    def _opening(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & CHANGING and self._is_inside(path):
            self._reach("open", None)
        return int(self._real["open"](path, flags, *rest, **options))

    def _changing(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def change(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != self._process or not arguments or not self._is_inside(arguments[0]):
                return real(*arguments, **options)
            if name == "close" and not self._is_written(arguments[0]):
                return real(*arguments, **options)
            half: Callable[[], object] | None = None
            if name in ("write", "pwrite"):
                data = bytes(arguments[1])
                half = partial(real, arguments[0], data[: len(data) // 2], *arguments[2:])
            elif name == "close":
                self._note(os.readlink(f"/proc/self/fd/{arguments[0]}"))  # noqa: PTH115
                half = partial(real, *arguments)  # a file is closed even if that fails
            self._reach(name, half)
            result = real(*arguments, **options)
            if name in BY_TWO:
                self._note(os.fsdecode(arguments[1]))
            return result

        return change

    def _is_written(self, file: int) -> bool:
        with self._open(f"/proc/self/fdinfo/{file}") as about:
            flags = next(int(line.split()[1], 8) for line in about if line.startswith("flags"))
        return bool(flags & (os.O_WRONLY | os.O_RDWR))

    def _note(self, path: str) -> None:
        for file in [path] if os.path.isfile(path) else Path(path).rglob("*"):  # noqa: PTH113
            if os.path.isfile(file):  # noqa: PTH113
                with self._open(file, "rb") as opened:
                    digest = digest_of(opened.read())
                self.versions.setdefault(os.path.realpath(file), set()).add(digest)

    def _reach(self, name: str, half: Callable[[], object] | None) -> None:
        self.calls.append(name)
        self.places.append(_place(name))
        full = self.how == "ENOSPC" and 0 < self.at < len(self.calls)
        needs_space = name in ("open", "write", "pwrite", "mkdir", "link", "symlink", "sendfile", "ftruncate")
        if len(self.calls) != self.at and not (full and needs_space):
            return
        if half is not None and not full:
            half()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(getattr(errno, self.how), os.strerror(getattr(errno, self.how)))


def _place(name: str) -> int:
    frame, lines = inspect.currentframe(), [name]
    while frame:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return zlib.crc32("\n".join(lines).encode())


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of the content of a file without the times and durations that it names."""
    return hashlib.sha256(TIMES.sub(b"", content)).hexdigest()
