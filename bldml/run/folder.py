"""What a run folder holds, `lightning_logs/<run>/`: read it and write it.

Every file is written beside its place and then renamed, so that a kill leaves the old file or the new one.
"""

import errno
import itertools
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bldml.errors import RunError
from bldml.io.atomic import check_name, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run and the places of what it holds; a place need not exist yet.

    Args:
        path: the folder, `lightning_logs/<run>`.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration that the run was started with."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Software, hardware and the command."""
        return self.path / "environment.json"

    @property
    def history(self) -> Path:
        """One row per epoch: history.csv, or metrics.csv in a run that 0.1 started, which goes on in it."""
        new, old = self.path / "history.csv", self.path / "metrics.csv"
        return old if old.is_file() and not new.exists() else new

    @property
    def training_time(self) -> Path:
        """Seconds spent in training."""
        return self.path / "training_time.json"

    @property
    def splits(self) -> Path:
        """Which photograph was in which split."""
        return self.path / "splits.csv"

    @property
    def excluded(self) -> Path:
        """Photographs that were not used, and why."""
        return self.path / "excluded.csv"

    @property
    def photographs(self) -> Path:
        """Size, camera, time and content of each photograph."""
        return self.path / "photographs.csv"

    @property
    def leaks(self) -> Path:
        """Photographs of one split that are in another as well; no file where that was not looked for."""
        return self.path / "leaks.csv"

    @property
    def phashes(self) -> Path:
        """Perceptual hashes of the training and validation photographs, to find near duplicates in external sets."""
        return self.path / "phashes.npz"

    @property
    def ledger(self) -> Path:
        """Every evaluation that was made."""
        return self.path / "ledger.csv"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """The epoch with the best monitored score."""
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Where the run goes on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def next_checkpoint(self) -> Path:
        """A whole checkpoint that has not taken the place of `last_checkpoint` yet."""
        return self.checkpoints / "next.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before `last_checkpoint`, should that be damaged."""
        return self.checkpoints / "previous.ckpt"

    def evaluation(self, name: str) -> Path:
        """Return the folder of one evaluation: `val`, `test` or the name of an external set."""
        check_name(name, "evaluation")
        return self.path / "evaluations" / name

    @classmethod
    def create(
        cls, logs: Path, name: str, *, unique: bool = False, content: Mapping[str, str] | None = None
    ) -> "RunFolder":
        """Make the folder of a new run; at every moment it is not there, or there with its first content.

        Args:
            logs: folder of all runs, made where it is missing.
            name: name of the run.
            unique: where the name is taken, take `<name>-2`, `<name>-3`, … instead (for automatic names);
                safe when several jobs start at once, because a folder appears in one step.
            content: text of the files that it holds from the beginning, by name.

        Raises:
            RunError: the name is taken or is no name, or the folder cannot be made; nothing is left behind.
        """
        check_name(name, "run")
        missing: list[Path] = []
        try:
            missing.extend(folder for folder in (logs, *logs.parents) if not folder.exists())
            logs.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                path = logs / (name if number == 1 else f"{name}-{number}")
                if _appear(path, content or {}):
                    return cls(path)
                if not unique:
                    break
        except OSError as error:
            for folder in missing:  # deepest first; one that another job uses by now is not empty and stays
                with suppress(OSError):
                    folder.rmdir()
            raise RunError(
                f"Cannot make the run folder {logs / name}: {error.strerror} ({error.filename}). "
                "Use a folder that you may write to.",
                "run-folder-not-makable",
                path=logs / name,
                reason=error.strerror,
            ) from error
        message = f"{path} exists already and is left as it is. Give another --run_name, or move it away."
        raise RunError(message, "run-folder-exists", path=path)

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """Return the run that a checkpoint `<run>/checkpoints/<name>` lies in, or None outside a run."""
        # A link to a checkpoint leads to its run; but a run's checkpoints may be a link to another disk.
        for place in (checkpoint.resolve(), checkpoint.absolute()):
            run = cls(place.parent.parent)
            if place.parent == run.checkpoints and run.config.is_file():
                return run
        return None


def _appear(path: Path, content: Mapping[str, str]) -> bool:
    """Make a folder with its content in one step; False if there is something of that name."""
    if not content:
        with suppress(FileExistsError):
            path.mkdir()
            return True
        return False
    if path.exists():  # a rename would take the place of an empty folder
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
        shutil.rmtree(hidden, ignore_errors=True)  # after the rename it is not there
    return True
