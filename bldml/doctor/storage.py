"""Folders that a fit writes to: free space, quota, and whether files can be created, renamed, locked and removed."""

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from bldml.doctor.checks import Finding, Status, fail, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.tools import ask
from bldml.io.locks import Lock

LOGS = "lightning_logs"
CHECKPOINTS = 3  # best, last, and the one being written
MIN_FREE = 2 * 10**9  # bytes; less free space is a warning
CHUNK = 2**20
MAX_USED = 0.9  # of a quota


def run_folder(settings: Settings | None) -> Path:
    """Return the folder in which runs are written."""
    return ((settings.root_dir if settings else Path()) / LOGS).absolute()


def nearest_existing(path: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def hub_folder() -> Path:
    """Return the folder in which torch caches downloaded weights."""
    import torch

    return Path(torch.hub.get_dir()).expanduser().absolute()


def check_folders(settings: Settings | None, checkpoint: int) -> Iterable[Finding]:
    """Check each folder that a fit writes to.

    Args:
        settings: Settings of the fit; None if they are not known.
        checkpoint: Size of a checkpoint in bytes; 0 if not known.
    """
    yield check_folder(
        "run folder", run_folder(settings), CHECKPOINTS * checkpoint, "--trainer.default_root_dir FOLDER"
    )
    # torch can read weights from a folder that is not writable; only a download needs to write.
    yield check_folder("weights folder", hub_folder(), 0, "export TORCH_HOME=FOLDER", otherwise="WARN")
    yield check_folder("TMPDIR", Path(tempfile.gettempdir()), 0, "export TMPDIR=FOLDER")


def check_folder(name: str, path: Path, needed: int, remedy: str, otherwise: Status = "FAIL") -> Finding:
    """Check that files can be created, renamed, locked and removed in a folder, and that it has enough free space.

    Args:
        name: Name of the folder in the report.
        path: The folder; it may not exist yet.
        needed: Number of bytes that will be written.
        remedy: How to choose another folder.
        otherwise: Status if the folder is not writable.
    """
    folder = nearest_existing(path)
    where = str(path) if folder == path else f"{path} (will be created in {folder})"
    try:
        locked = probe_folder(folder)
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(otherwise, name, f"{where} is not writable: {error.strerror}", remedy)
    found = f"{where}: {_size(usage.free)} free of {_size(usage.total)}"
    if usage.free < needed:
        return Finding(otherwise, name, f"{found}; checkpoints need {_size(needed)}", remedy)
    if not locked:
        return warn(
            name, f"{found}; file locking is not available", f"{remedy}     (two fits could write to the same run)"
        )
    return ok_or_warn(usage.free >= MIN_FREE, name, f"{found}; writing, renaming and locking work", remedy)


def probe_folder(folder: Path) -> bool:
    """Create a file, lock it, rename it over another and remove it.

    Returns:
        Whether it could be locked.

    Raises:
        OSError: Another step failed.
    """
    old, new = (folder / f".bldml-doctor-{secrets.token_hex(8)}" for _ in range(2))
    try:
        with old.open("xb") as file:
            file.write(b"bldml doctor")
            file.flush()
            os.fsync(file.fileno())
        with Lock(old) as lock:
            locked = lock.is_real
        new.touch()
        old.replace(new)
    finally:
        for path in (old, new):
            with suppress(OSError):
                path.unlink()
    return locked


def time_writing(folder: Path, size: int) -> float:
    """Return the seconds to write a file of this size to the disk (with fsync); the file is removed again.

    Raises:
        OSError: The file cannot be written.
    """
    # Random bytes, because a file system with compression must not appear faster than it is.
    chunk = os.urandom(CHUNK)
    path = folder / f".bldml-doctor-{secrets.token_hex(8)}"
    start = time.monotonic()
    try:
        with path.open("xb", buffering=0) as file:
            for written in range(0, size, CHUNK):
                file.write(chunk[: size - written])
            os.fsync(file.fileno())
        return time.monotonic() - start
    finally:
        path.unlink(missing_ok=True)


def checkpoint_size(backbone: str) -> int:
    """Return the size of a checkpoint in bytes: weights and two optimizer moments, float32, of all parameters."""
    import torch

    from bldml.training.backbones import BACKBONES, build

    name = next(name for name in BACKBONES if name == backbone)
    with torch.device("meta"):
        network = build(name)
    return 3 * 4 * sum(parameter.numel() for parameter in network.parameters())


def check_quota(environ: Mapping[str, str]) -> Finding:
    """Check how much of the user's quotas is used, if `quota` reports it."""
    name = "quota"
    answer = ask("quota", "-s", environ=environ)
    rows = read_quota(answer.text)
    if not rows:
        return skip(name, f"not known: {answer.problem or 'quota -s reports no limit'} (on SCINet: my_quotas)")
    found = ", ".join(f"{file_system} {_size(used)} of {_size(limit)}" for file_system, used, limit in rows)
    full = [row for row in rows if row[1] > MAX_USED * row[2]]
    return ok_or_warn(not full, name, found, "remove files that are not needed: du -xhd1 ~ | sort -h")


def read_quota(text: str) -> list[tuple[str, int, int]]:
    r"""Return file system, bytes used and bytes allowed from `quota -s`; rows without a limit are ignored.

    >>> read_quota(
    ...     "Disk quotas for user jane (uid 7):\n  Filesystem space quota limit\n/dev/home\n  29G* 28G 30G 9 0 0"
    ... )
    [('/dev/home', 31138512896, 30064771072)]
    """
    rows = []
    file_system = ""
    for line in text.splitlines():
        if line.startswith("Disk quotas") or "quota" in line.split():
            continue
        words = line.split()
        # A long name has a line of its own.
        if words and not re.fullmatch(r"[\d.]+[KMGTP]?\*?", words[0]):
            file_system = words.pop(0)
        sizes = [_bytes(word) for word in words[:3]]
        used, soft, hard = [*sizes, None, None, None][:3]
        limit = soft or hard
        if used is not None and limit:
            rows.append((file_system, used, limit))
    return rows


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)\*?", text)
    # Without a unit: blocks of 1 KiB.
    return int(float(match[1]) * 1024 ** (" KMGTP".index(match[2]) if match[2] else 1)) if match else None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count < 10**12 else f"{count / 1e12:.1f} TB"


def check_writing(folder: Path, size: int) -> tuple[float | None, Finding | None]:
    """Return the seconds to write one checkpoint, or a finding if there is no space or it cannot be written."""
    name = "checkpoint write"
    try:
        if shutil.disk_usage(folder).free < 2 * size:
            return None, skip(name, f"not timed: less than {_size(2 * size)} free in {folder}")
        return time_writing(folder, size), None
    except OSError as error:
        return None, fail(
            name, f"{_size(size)} cannot be written to {folder}: {error.strerror}", "see the row “run folder”"
        )
