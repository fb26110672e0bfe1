"""The folders that a fit writes to: room, quota, and whether files can be made, renamed, locked and removed there."""

import fcntl
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

LOGS = "lightning_logs"
KEPT = 3  # best, last, and the one that is being written
LITTLE = 2 * 10**9  # bytes
CHUNK = 2**20
FULL = 0.9


def run_folder(settings: Settings | None) -> Path:
    """Where runs are written."""
    return ((settings.root_dir if settings else Path()) / LOGS).absolute()


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def hub_folder() -> Path:
    """Where torch keeps downloaded weights."""
    import torch

    return Path(torch.hub.get_dir()).expanduser().absolute()


def check_folders(settings: Settings | None, checkpoint: int) -> Iterable[Finding]:
    """Try each folder out.

    Args:
        settings: The fit's settings; None if they are not known.
        checkpoint: Bytes of one checkpoint; 0 if not known.
    """
    yield check_folder("run folder", run_folder(settings), KEPT * checkpoint, "--trainer.default_root_dir FOLDER")
    # torch finds weights in a folder that it cannot write to; only a download needs more.
    yield check_folder("weights folder", hub_folder(), 0, "export TORCH_HOME=FOLDER", otherwise="WARN")
    yield check_folder("TMPDIR", Path(tempfile.gettempdir()), 0, "export TMPDIR=FOLDER")


def check_folder(name: str, path: Path, needed: int, remedy: str, otherwise: Status = "FAIL") -> Finding:
    """Whether files can be made, renamed, locked and removed in a folder, and how much room there is.

    Args:
        name: What it is for.
        path: The folder, which may not exist yet.
        needed: Bytes that will be written.
        remedy: How to choose another.
        otherwise: What it means if nothing can be written there.
    """
    folder = existing(path)
    where = str(path) if folder == path else f"{path} (to be made in {folder})"
    try:
        locked = try_out(folder)
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(otherwise, name, f"{where}: nothing can be written there: {error.strerror}", remedy)
    found = f"{where}: {_size(usage.free)} free of {_size(usage.total)}"
    if usage.free < needed:
        return Finding(otherwise, name, f"{found}, {_size(needed)} are needed for checkpoints", remedy)
    if not locked:
        return warn(
            name, f"{found}; files cannot be locked there", f"{remedy}     (two fits could take the same folder)"
        )
    return ok_or_warn(usage.free >= LITTLE, name, f"{found}; writing, renaming and locking work", remedy)


def try_out(folder: Path) -> bool:
    """Make a file, lock it, rename it over another and remove it.

    Returns:
        Whether it could be locked.

    Raises:
        OSError: Anything else did not work.
    """
    old, new = (folder / f".bldml-doctor-{secrets.token_hex(8)}" for _ in range(2))
    try:
        with old.open("xb") as file:
            file.write(b"bldml doctor")
            file.flush()
            os.fsync(file.fileno())
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(file, fcntl.LOCK_UN)
                locked = True
            except OSError:
                locked = False
        new.touch()
        old.replace(new)
    finally:
        for path in (old, new):
            with suppress(OSError):
                path.unlink()
    return locked


def time_writing(folder: Path, size: int) -> float:
    """Seconds to write a file of this size and have it on the disk; it is removed again.

    Raises:
        OSError: It cannot be written.
    """
    # Noise: a file system that compresses must not look faster than it is.
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
    """Bytes of a checkpoint: weights and the optimizer's two moments, float32, of all parameters."""
    import torch

    from bldml.training.backbones import BACKBONES, build

    name = next(name for name in BACKBONES if name == backbone)
    with torch.device("meta"):
        network = build(name)
    return 3 * 4 * sum(parameter.numel() for parameter in network.parameters())


def check_quota(environ: Mapping[str, str]) -> Finding:
    """How much of the user's quotas is used, where `quota` tells."""
    name = "quota"
    answer = ask("quota", "-s", environ=environ)
    rows = read_quota(answer.text)
    if not rows:
        return skip(name, f"not known: {answer.problem or 'quota -s names no limit'} (my_quotas on SCINet)")
    found = ", ".join(f"{place} {_size(used)} of {_size(limit)}" for place, used, limit in rows)
    full = [row for row in rows if row[1] > FULL * row[2]]
    return ok_or_warn(not full, name, found, "remove what is not needed: du -xhd1 ~ | sort -h")


def read_quota(text: str) -> list[tuple[str, int, int]]:
    r"""Place, bytes used and bytes allowed, of `quota -s`; rows without a limit are left out.

    >>> read_quota(
    ...     "Disk quotas for user jane (uid 7):\n  Filesystem space quota limit\n/dev/home\n  29G* 28G 30G 9 0 0"
    ... )
    [('/dev/home', 31138512896, 30064771072)]
    """
    rows = []
    place = ""
    for line in text.splitlines():
        if line.startswith("Disk quotas") or "quota" in line.split():
            continue
        words = line.split()
        # A long name stands alone on its line.
        if words and not re.fullmatch(r"[\d.]+[KMGTP]?\*?", words[0]):
            place = words.pop(0)
        sizes = [_bytes(word) for word in words[:3]]
        used, soft, hard = [*sizes, None, None, None][:3]
        limit = soft or hard
        if used is not None and limit:
            rows.append((place, used, limit))
    return rows


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)\*?", text)
    # Without a unit they are blocks of 1 KiB.
    return int(float(match[1]) * 1024 ** (" KMGTP".index(match[2]) if match[2] else 1)) if match else None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count < 10**12 else f"{count / 1e12:.1f} TB"


def check_writing(folder: Path, size: int) -> tuple[float | None, Finding | None]:
    """Time one checkpoint; a finding instead where there is no room or it cannot be written."""
    name = "checkpoint write"
    try:
        if shutil.disk_usage(folder).free < 2 * size:
            return None, skip(name, f"not timed: less than {_size(2 * size)} free in {folder}")
        return time_writing(folder, size), None
    except OSError as error:
        return None, fail(name, f"{_size(size)} cannot be written to {folder}: {error.strerror}", "see run folder")
