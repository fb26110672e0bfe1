"""The run folder, `lightning_logs/<run>/`: the paths of its files, and its creation.

Every file is written under a temporary name and then renamed, so that a killed process leaves the old or the new file.
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
    """The folder of one run and the paths of its files, which need not exist yet.

    Args:
        path: The folder, `lightning_logs/<run>`.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration with which the run was started."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Software, hardware and the command."""
        return self.path / "environment.json"

    @property
    def history(self) -> Path:
        """One row per epoch: history.csv, or metrics.csv in a run that version 0.1 started, also after resuming."""
        new, old = self.path / "history.csv", self.path / "metrics.csv"
        return old if old.is_file() and not new.exists() else new

    @property
    def training_time(self) -> Path:
        """Duration of the training in seconds."""
        return self.path / "training_time.json"

    @property
    def splits(self) -> Path:
        """The split of each photograph."""
        return self.path / "splits.csv"

    @property
    def excluded(self) -> Path:
        """Photographs that were not used, with the reason."""
        return self.path / "excluded.csv"

    @property
    def photographs(self) -> Path:
        """Size, camera, time and content of each photograph."""
        return self.path / "photographs.csv"

    @property
    def leaks(self) -> Path:
        """Photographs with a duplicate or a photograph of the same burst in another split; missing without a search."""
        return self.path / "leaks.csv"

    @property
    def phashes(self) -> Path:
        """Perceptual hashes of the training and validation photographs, to find near duplicates in external sets."""
        return self.path / "phashes.npz"

    @property
    def ledger(self) -> Path:
        """Every evaluation with labels."""
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
        """The checkpoint from which the run is resumed."""
        return self.checkpoints / "last.ckpt"

    @property
    def next_checkpoint(self) -> Path:
        """A complete checkpoint that has not replaced `last_checkpoint` yet."""
        return self.checkpoints / "next.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint before `last_checkpoint`, used if that one is damaged."""
        return self.checkpoints / "previous.ckpt"

    def evaluation(self, name: str) -> Path:
        """Return the folder of one evaluation: `val`, `test` or the name of an external set."""
        check_name(name, "evaluation")
        return self.path / "evaluations" / name

    @classmethod
    def create(
        cls, logs: Path, name: str, *, unique: bool = False, content: Mapping[str, str] | None = None
    ) -> "RunFolder":
        """Create the folder of a new run together with its first files in one step.

        Args:
            logs: Folder of all runs, created if missing.
            name: Name of the run.
            unique: If the name is taken, use `<name>-2`, `<name>-3`, … instead (for automatic names); safe when several
                jobs start at once, because the folder is created in one step.
            content: Text of its first files, by name.

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
                if _create_with_content(path, content or {}):
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


def _create_with_content(path: Path, content: Mapping[str, str]) -> bool:
    """Create a folder with its content in one step; return False if the name is taken."""
    if not content:
        with suppress(FileExistsError):
            path.mkdir()
            return True
        return False
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
