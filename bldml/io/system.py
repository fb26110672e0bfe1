"""Number of usable CPUs, memory that is free, and SHA-256 of files and paths."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path


def processors() -> int:
    """Return the number of CPUs that this process may use: those allocated to its job, not all of the machine."""
    # Not on every system: macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Return the bytes of memory that this process may still use: of the machine, or of its job; None if unknown."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, IndexError):
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
        for _, controllers, path in groups:
            # Version 2 has one hierarchy, version 1 one for memory.
            root, most, used, total = ("/sys/fs/cgroup", "memory.max", "memory.current", "")
            if "memory" in controllers.split(","):
                root, total = f"{root}/memory", "total_"
                most, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            elif controllers:
                continue
            folder = Path(f"{root}{path}")
            for group in (folder, *folder.parents):
                with suppress(OSError, ValueError):  # "max" is no number
                    limit, taken = ((group / name).read_text(encoding="ascii") for name in (most, used))
                    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
                    # Files that were read are counted as used, but give way to whoever needs the memory.
                    cached = {f"{total}{name}" for name in ("active_file", "inactive_file")}
                    freed = sum(int(number) for name, number in map(str.split, lines) if name in cached)
                    found.append(int(limit) - max(0, int(taken) - freed))
    return max(0, min(found)) if found else None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_path(path: Path) -> str:
    """Return a hash of 24 digits that replaces a real path in files that are shared with others.

    >>> hash_of_path(Path("/")) == hash_of_path(Path("/.."))
    True
    """
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
