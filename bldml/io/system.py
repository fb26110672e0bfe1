"""Number of usable CPUs, and SHA-256 of files and paths."""

import hashlib
import os
from pathlib import Path


def processors() -> int:
    """Return the number of CPUs that this process may use: those allocated to its job, not all of the machine."""
    # Not on every system: macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
