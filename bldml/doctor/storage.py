"""Folders of a fit: free space, quota, whether files can be written, automatic deletion, project groups, modes."""

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from bldml.doctor.checks import Finding, Status, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.tools import ask
from bldml.io.locks import Lock
from bldml.io.platform import read_group
from bldml.io.text import counted

CHECKPOINTS = 4  # best, last, the previous one, and the one being written
MIN_FREE = 2 * 10**9  # bytes; less free space is a warning
CHUNK = 2**20
MAX_USED = 0.9  # of a quota
DEFAULT_KILL_WAIT_S = 30.0
SCRATCH = Path("/90daydata")
PROJECTS = Path("/project")
RETENTION_DAYS = 90
MAX_FILES = 100_000


def run_folder(settings: Settings | None) -> Path:
    """Return the folder in which runs are written."""
    return ((settings.root_dir if settings else Path()) / "lightning_logs").absolute()


def nearest_existing(path: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), path)


def hub_folder() -> Path:
    """Return the folder in which torch caches downloaded weights."""
    import torch

    return Path(torch.hub.get_dir()).expanduser().absolute()


def check_folders(settings: Settings | None, checkpoint: int) -> Iterable[Finding]:
    """Check each folder that a fit writes to; `checkpoint` is the size of one in bytes, 0 if not known."""
    remedy = "--trainer.default_root_dir FOLDER"
    yield check_folder("run folder", run_folder(settings), CHECKPOINTS * checkpoint, remedy)
    # torch can read weights from a folder that is not writable; only a download needs to write.
    yield check_folder("weights folder", hub_folder(), 0, "export TORCH_HOME=FOLDER", otherwise="WARN")
    yield check_folder("TMPDIR", Path(tempfile.gettempdir()), 0, "export TMPDIR=FOLDER")


def check_folder(name: str, path: Path, needed: int, remedy: str, otherwise: Status = "FAIL") -> Finding:
    """Check that files can be created, renamed, locked and removed in a folder, and that it has enough free space.

    The folder may not exist yet. `needed` bytes will be written; `otherwise` is the status if that cannot be.
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
        remedy += "     (two fits could write to the same run)"
        return warn(name, f"{found}; file locking is not available", remedy)
    return ok_or_warn(usage.free >= MIN_FREE, name, f"{found}; writing, renaming and locking work", remedy)


def probe_folder(folder: Path) -> bool:
    """Create a file, lock it, rename it over another and remove it; return whether it could be locked.

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


def checkpoint_size(backbone: str) -> int:
    """Return the size of a checkpoint in bytes: weights and two optimizer moments, float32, of all parameters."""
    import torch

    from bldml.training.backbones import build

    with torch.device("meta"):
        network = build(backbone)
    return 3 * 4 * sum(parameter.numel() for parameter in network.parameters())


def check_writing(folder: Path, size: int, kill_wait: float | None) -> Finding:
    """Check that a checkpoint of `size` bytes can be written in the seconds between Slurm's SIGTERM and SIGKILL."""
    name, folder = "checkpoint write", nearest_existing(folder)
    try:
        if shutil.disk_usage(folder).free < 2 * size:
            return skip(name, f"not timed: less than {_size(2 * size)} free in {folder}")
        seconds = time_writing(folder, size)
    except OSError as error:
        found = f"{_size(size)} cannot be written to {folder}: {error.strerror}"
        return fail(name, found, "see the row “run folder”")
    limit = DEFAULT_KILL_WAIT_S if kill_wait is None else kill_wait
    found = f"{size / 1e6:.0f} MB in {seconds:.1f} s; {'usual ' if kill_wait is None else ''}KillWait {limit:.0f} s"
    remedy = "put the run folder on a faster file system: --trainer.default_root_dir FOLDER"
    return ok_or_warn(seconds < limit, name, found, remedy)


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


def check_quota(environ: Mapping[str, str]) -> Finding:
    """Check how much of the user's quotas is used, if `quota` reports it."""
    name = "quota"
    answer = ask("quota", "-s", environ=environ)
    rows = read_quota(answer.text)
    if not rows:
        return skip(name, f"not known: {answer.problem or 'quota -s reports no limit'} (on SCINet: my_quotas)")
    found = ", ".join(f"{file_system} {_size(used)} of {_size(limit)}" for file_system, used, limit in rows)
    good = all(used <= MAX_USED * limit for _, used, limit in rows)
    return ok_or_warn(good, name, found, "remove files that are not needed: du -xhd1 ~ | sort -h")


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
        words = line.split()
        if line.startswith("Disk quotas") or "quota" in words:
            continue
        # A long name has a line of its own.
        if words and not re.fullmatch(r"[\d.]+[KMGTP]?\*?", words[0]):
            file_system = words.pop(0)
        used, soft, hard = [*map(_bytes, words[:3]), None, None, None][:3]
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


def check_home(run_folder: Path, home: Path, on_cluster: bool) -> Iterable[Finding]:
    """Check that runs are not written to the small home folder of a cluster."""
    if on_cluster:
        inside = run_folder.is_relative_to(home)
        found = f"the run folder {run_folder} is {'' if inside else 'not '}in {home}"
        remedy = "--trainer.default_root_dir /project/PROJECT/runs     (home folders are small)"
        yield ok_or_warn(not inside, "home folder", found, remedy)


def check_scratch(name: str, path: Path, now: datetime, scratch: Path = SCRATCH) -> Iterable[Finding]:
    """Check whether files in a folder are deleted after 90 days, and whether all users can read them."""
    if not path.is_relative_to(scratch):
        return
    found = f"{path}: files are deleted {RETENTION_DAYS} days after their date"
    if oldest := oldest_file(path):
        date, file = oldest
        left = counted(max(0, RETENTION_DAYS - (now - date).days), "day")
        found += f"; the oldest, {file.name}, is from {date:%Y-%m-%d}: {left} left"
    remedy = "keep another copy elsewhere (/project, Juno); unpack with tar -m, because tar and rsync -a keep old dates"
    yield warn(f"{name} on scratch", found, remedy)
    if path.is_relative_to(scratch / "shared"):
        remedy = f"chmod -R o-rwx {path}; umask 007"
        yield warn(f"{name} is shared", f"{path}: every user of the cluster can read it", remedy)


def oldest_file(folder: Path) -> tuple[datetime, Path] | None:
    """Return modification time and path of the oldest file, among the first `MAX_FILES` below a folder."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    oldest: tuple[float, Path] | None = None
    for path in islice(files, MAX_FILES):
        with suppress(OSError):
            date = path.lstat().st_mtime
            if oldest is None or date < oldest[0]:
                oldest = date, path
    return (datetime.fromtimestamp(oldest[0], UTC), oldest[1]) if oldest else None


def check_group(name: str, path: Path, projects: Path = PROJECTS) -> Iterable[Finding]:
    """Check that new files below /project count against the quota of the project, not of the user."""
    folder = nearest_existing(path)
    if not folder.is_relative_to(projects) or folder == projects:
        return
    status = folder.stat()
    group, _ = read_group(status.st_gid)
    setgid = bool(status.st_mode & stat.S_ISGID)
    yield ok_or_warn(
        group.startswith("proj-") and setgid,
        f"{name}'s group",
        f"{folder}: group {group}, setgid bit {'set' if setgid else 'not set'}",
        f"chgrp -R proj-{folder.relative_to(projects).parts[0]} {folder}; find {folder} -type d -exec chmod g+s {{}} +",
    )


def check_modes(config_files: Iterable[Path]) -> Iterable[Finding]:
    """Check that others cannot change imported code or the configuration, which is code too."""
    folders = {"configuration": {path.absolute().parent for path in config_files}}
    folders["sys.path"] = {Path(entry).absolute() for entry in sys.path if entry}
    remedy = "chmod g-w,o-w FOLDER     (or make sure that you trust everybody who can write there)"
    for name, paths in folders.items():
        shared = ", ".join(f"{path} ({who})" for path in sorted(paths) if (who := writable_by(path)))
        private = f"{counted(len(paths), 'folder')}, not writable by others"
        if paths:
            found = f"writable by others: {shared}" if shared else private
            yield ok_or_warn(not shared, f"modes of {name}", found, remedy)


def writable_by(path: Path) -> str:
    """Return who besides its owner can change a folder; empty if nobody can, or if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    group, members = read_group(status.st_gid)
    # Many systems give each user a group of the same number, without other members.
    private = status.st_gid == status.st_uid and not members
    return f"group {group}" if status.st_mode & stat.S_IWGRP and not private else ""


def check_umask(mask: int) -> Finding:
    """Check that new files are not writable by everybody.

    >>> check_umask(0o000).status, check_umask(0o022).status
    ('WARN', 'OK')
    """
    if mask & 0o002:
        return ok("umask", f"{mask:03o}")
    return warn("umask", f"{mask:03o}: everybody can change new files", "umask 007")


def current_umask() -> int:
    """Return the umask; it can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
