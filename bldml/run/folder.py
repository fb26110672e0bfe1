"""The run folder, `lightning_logs/<run>/`: the paths of its files, its creation and its lock.

Every file is written under a temporary name and then renamed, so that a killed process leaves the old or the new file.
"""

import errno
import itertools
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bldml.errors import RunError
from bldml.io.atomic import check_name, write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.io.locks import Lock, Taken
from bldml.io.text import plain


class _Inside:
    """The path of a file inside the run folder whose attribute this is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run and the paths of its files, which need not exist yet.

    Args:
        path: The folder, `lightning_logs/<run>`.
    """

    path: Path

    config = _Inside("config.yaml")
    """The configuration with which the run was started."""
    lock = _Inside(".lock")
    """Held by the process that trains in the run, which says there who it is."""
    environment = _Inside("environment.json")
    """Software, hardware and the command."""
    training_time = _Inside("training_time.json")
    """Duration of the training in seconds."""
    log = _Inside("log.txt")
    """What a fit said on the screen: one line per epoch, and messages."""
    splits = _Inside("splits.csv")
    """The split of each photograph."""
    excluded = _Inside("excluded.csv")
    """Photographs that were not used, with the reason."""
    photographs = _Inside("photographs.csv")
    """Size, camera, time and content of each photograph."""
    leaks = _Inside("leaks.csv")
    """Photographs with a duplicate or a photograph of the same burst in another split; missing without a search."""
    phashes = _Inside("phashes.npz")
    """Perceptual hashes of the training and validation photographs, to find near duplicates in external sets."""
    ledger = _Inside("ledger.csv")
    """Every evaluation with labels."""
    checkpoints = _Inside("checkpoints")
    best_checkpoint = _Inside("checkpoints/best.ckpt")
    """The epoch with the best monitored metric."""
    last_checkpoint = _Inside("checkpoints/last.ckpt")
    """The checkpoint from which the run is resumed."""
    next_checkpoint = _Inside("checkpoints/next.ckpt")
    """A complete checkpoint that has not replaced `last_checkpoint` yet."""
    previous_checkpoint = _Inside("checkpoints/previous.ckpt")
    """The checkpoint before `last_checkpoint`, used if that one is damaged."""

    @property
    def history(self) -> Path:
        """One row per epoch: history.csv, or metrics.csv in a run that version 0.1 started, also after resuming."""
        new, old = self.path / "history.csv", self.path / "metrics.csv"
        return old if old.is_file() and not new.exists() else new

    def evaluation(self, name: str) -> Path:
        """Return the folder of one evaluation: `val`, `test` or the name of an external set."""
        check_name(name, "evaluation")
        return self.path / "evaluations" / name

    @classmethod
    def create(cls, logs: Path, name: str, content: Mapping[str, str], *, unique: bool = False) -> "RunFolder":
        """Create the folder of a new run together with its first files in one step.

        Args:
            logs: Folder of all runs, created if missing.
            name: Name of the run.
            content: Text of its first files, by name; at least one.
            unique: If the name is taken, use `<name>-2`, `<name>-3`, … instead (for automatic names); safe when several
                jobs start at once, because the folder is created in one step.

        Raises:
            RunError: The name is taken or not valid, or the folder cannot be created; nothing is left behind.
        """
        check_name(name, "run")
        missing: list[Path] = []
        try:
            missing.extend(folder for folder in (logs, *logs.parents) if not folder.exists())
            logs.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                path = logs / (name if number == 1 else f"{name}-{number}")
                if _create_with_content(path, content):
                    return cls(path)
                if not unique:
                    break
        except OSError as error:
            for folder in missing:  # deepest first; one that another job uses by now is not empty and stays
                with suppress(OSError):
                    folder.rmdir()
            raise RunError(
                f"Cannot create the run folder {logs / name}: {error.strerror} ({error.filename}). "
                "Use a folder that you may write to.",
                "run-folder-not-makable",
                path=logs / name,
                reason=error.strerror,
            ) from error
        message = f"{path} already exists and was not changed. Set another --run_name, or move the folder away."
        raise RunError(message, "run-folder-exists", path=path)

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """Return the run of a checkpoint `<run>/checkpoints/<name>`; None for a checkpoint outside a run."""
        # A link to a checkpoint leads to its run; but a run's checkpoints may be a link to another disk.
        for path in (checkpoint.resolve(), checkpoint.absolute()):
            run = cls(path.parent.parent)
            if path.parent == run.checkpoints and run.config.is_file():
                return run
        return None


def leave_last_checkpoint(run: RunFolder) -> None:
    """Leave last.ckpt, beside best.ckpt, of the checkpoints of a run that has ended, also where a save was killed.

    Between two renames of its last save there is next.ckpt in its place; during a save there is a part beside it.
    """
    with suppress(OSError):
        if run.next_checkpoint.is_file() and not run.last_checkpoint.exists():
            run.next_checkpoint.replace(run.last_checkpoint)
        for path in (run.next_checkpoint, run.previous_checkpoint, *run.checkpoints.glob(".*.ckpt.part")):
            path.unlink(missing_ok=True)


def _create_with_content(path: Path, content: Mapping[str, str]) -> bool:
    """Create a folder with its content in one step; return False if the name is taken."""
    if path.exists():  # a rename would replace an empty folder
        return False
    hidden = path.with_name(f".bldml-{secrets.token_hex(8)}.tmp")
    hidden.mkdir()
    try:
        for name, text in content.items():
            write_atomically(hidden / name, text)
        hidden.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)  # after the rename it does not exist
    return True


@dataclass(frozen=True)
class Holder:
    """The process that trains in a run, as it says in the lock file.

    Attributes:
        host: Name of its machine.
        process: Its number there.
        since: When it locked the run, ISO 8601, UTC.
        job: Key of its Slurm job; empty outside Slurm.
        restarts: Number of times Slurm had restarted that job.
    """

    host: str
    process: int
    since: str
    job: str = ""
    restarts: int = 0

    @classmethod
    def here(cls, job: str = "", restarts: int = 0) -> "Holder":
        """Return this process."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), now, job, restarts)

    def __str__(self) -> str:
        of_job = f" of job {self.job.rpartition(':')[2]}" if self.job else ""
        return plain(f"process {self.process}{of_job} on {self.host}, since {self.since}")


def read_holder(run: RunFolder) -> Holder | None:
    """Return who locked the run last; None if that is not recorded.

    Not for the process that holds the lock: closing the file would release it.
    """
    found = mapping_or_nothing(run.lock)
    kinds = {"host": str, "process": int, "since": str, "job": str, "restarts": int}
    if found.keys() != kinds.keys() or not all(isinstance(found[name], kind) for name, kind in kinds.items()):
        return None
    return Holder(**found)


def lock_run(
    run: RunFolder, *, wait: float = 0.0, holder: Holder | None = None, waiting: Callable[[], None] = lambda: None
) -> Lock:
    """Prevent other processes from training in this run until the lock is closed or the process ends.

    Args:
        run: The run.
        wait: Seconds to wait for a process that is about to end, or for a file server that notices late.
        holder: What other processes are told of this one; None for host and process alone.
        waiting: Called about every second while waiting; may raise to end it.

    Raises:
        RunError: Another process holds the lock, or the run folder is not writable.
    """
    try:
        return Lock(run.lock, wait=wait, note=json.dumps(asdict(holder or Holder.here())), waiting=waiting)
    except Taken as error:
        other = read_holder(run)
        raise RunError(
            f"Another process is training in {run.path}{f': {other}' if other else ''}. Two processes would mix their "
            "results. Wait until it has ended, or start another run with --run_name.",
            "run-in-use",
            path=run.path,
            found=None if other is None else asdict(other),
        ) from error
    except OSError as error:
        message = f"Cannot write in {run.path}: {error.strerror}. Check that you may write there."
        raise RunError(message, "run-not-writable", path=run.path, reason=error.strerror) from error
