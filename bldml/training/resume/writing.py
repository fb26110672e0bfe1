"""Atomic writing of checkpoints: the whole new file, or the old one stays."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from bldml.errors import RunError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final path and rename it, so that a kill leaves the old file or the new one.

    Lightning's own class writes to the system's temporary folder, usually on another disk: there a rename is a copy,
    and a kill leaves half of it. It also removes any path that a checkpoint callback remembers, including folders and
    URLs, and such a path may come from a checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            RunError: The file cannot be written; an old file is unchanged.
        """
        target = Path(path)
        # Always the same name, so that a partial file left by a kill is overwritten.
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(target.parent.resolve())
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        # torch reports a full disk as a RuntimeError.
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise RunError(
                f"Cannot write the checkpoint {target}: {reason}. The previous checkpoints are unchanged. Check free "
                "space and write permission.",
                "checkpoint-not-writable",
                path=target,
                reason=reason,
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file from a folder that this process has written checkpoints to; nothing else."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file() and file.parent.resolve() in self._folders:
            file.unlink(missing_ok=True)
