"""File systems and permissions of folders: home, scratch with automatic deletion, project groups, modes, umask."""

import grp
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bldml.doctor.checks import Finding, ok, ok_or_warn, warn
from bldml.doctor.storage import nearest_existing
from bldml.io.text import counted

SCRATCH = Path("/90daydata")
PROJECTS = Path("/project")
RETENTION_DAYS = 90
MAX_FILES = 100_000


def check_home(run_folder: Path, home: Path, on_cluster: bool) -> Iterable[Finding]:
    """Check that runs are not written to the small home folder of a cluster."""
    if on_cluster:
        yield ok_or_warn(
            not run_folder.is_relative_to(home),
            "home folder",
            f"the run folder {run_folder} is {'' if run_folder.is_relative_to(home) else 'not '}in {home}",
            "--trainer.default_root_dir /project/PROJECT/runs     (home folders are small)",
        )


def check_scratch(name: str, path: Path, now: datetime, scratch: Path = SCRATCH) -> Iterable[Finding]:
    """Check whether files are deleted after 90 days, and whether all users can read them.

    Args:
        name: Name of the folder in the report.
        path: The folder.
        now: Current time, with time zone.
        scratch: Root of the file system on which old files are deleted.
    """
    if not path.is_relative_to(scratch):
        return
    oldest = oldest_file(nearest_existing(path)) if path.exists() else None
    found = f"{path}: files are deleted {RETENTION_DAYS} days after their date"
    if oldest is not None:
        left = RETENTION_DAYS - (now - oldest[1]).days
        found += f"; the oldest, {oldest[0].name}, is from {oldest[1]:%Y-%m-%d}: {counted(max(0, left), 'day')} left"
    remedy = "keep another copy elsewhere (/project, Juno); unpack with tar -m, because tar and rsync -a keep old dates"
    yield warn(f"{name} on scratch", found, remedy)
    if path.is_relative_to(scratch / "shared"):
        yield warn(
            f"{name} is shared", f"{path}: every user of the cluster can read it", f"chmod -R o-rwx {path}; umask 007"
        )


def oldest_file(folder: Path) -> tuple[Path, datetime] | None:
    """Return the oldest file and its modification time, among the first `MAX_FILES` files below a folder."""
    oldest: tuple[float, Path] | None = None
    for number, path in enumerate(_files(folder)):
        if number >= MAX_FILES:
            break
        try:
            date = path.lstat().st_mtime
        except OSError:
            continue
        if oldest is None or date < oldest[0]:
            oldest = (date, path)
    return (oldest[1], datetime.fromtimestamp(oldest[0], UTC)) if oldest else None


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def check_group(name: str, path: Path, projects: Path = PROJECTS) -> Iterable[Finding]:
    """Check that new files below /project count against the quota of the project, not of the user."""
    folder = nearest_existing(path)
    if not folder.is_relative_to(projects) or folder == projects:
        return
    status = folder.stat()
    group = group_name(status.st_gid)
    setgid = bool(status.st_mode & stat.S_ISGID)
    yield ok_or_warn(
        group.startswith("proj-") and setgid,
        f"{name}'s group",
        f"{folder}: group {group}, setgid bit {'set' if setgid else 'not set'}",
        f"chgrp -R proj-{folder.relative_to(projects).parts[0]} {folder}; find {folder} -type d -exec chmod g+s {{}} +",
    )


def group_name(number: int) -> str:
    """Return the name of a group, or its number if it has no name."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def check_modes(config_files: Iterable[Path]) -> Iterable[Finding]:
    """Check that others cannot change imported code or the configuration, which is code too."""
    folders = {"configuration": {path.absolute().parent for path in config_files}}
    folders["sys.path"] = {Path(entry).absolute() for entry in sys.path if entry}
    for name, paths in folders.items():
        shared = [f"{path} ({who})" for path in sorted(paths) if (who := writable_by(path))]
        if paths:
            yield ok_or_warn(
                not shared,
                f"modes of {name}",
                f"writable by others: {', '.join(shared)}"
                if shared
                else f"{counted(len(paths), 'folder')}, not writable by others",
                "chmod g-w,o-w FOLDER     (or make sure that you trust everybody who can write there)",
            )


def writable_by(path: Path) -> str:
    """Return who besides its owner can change a folder; empty if nobody can, or if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    group = group_name(status.st_gid)
    # Many systems give each user a group of the same number, without other members.
    private = status.st_gid == status.st_uid and not _members(status.st_gid)
    return f"group {group}" if status.st_mode & stat.S_IWGRP and not private else ""


def _members(number: int) -> list[str]:
    try:
        return grp.getgrgid(number).gr_mem
    except KeyError:
        return []


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
