"""What the operating system says: processors, and what files hold."""

import hashlib
import os
from pathlib import Path


def processors() -> int:
    """How many this process may use: a job's share of them, not the machine's."""
    # Not on every system: macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_path(path: Path) -> str:
    """What stands for a real path in files that are passed on, where the path itself must not: 24 digits.

    >>> hash_of_path(Path("/")) == hash_of_path(Path("/.."))
    True
    """
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
