"""A checkpoint is written whole, or the old file stays."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from bldml.errors import RunError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill leaves the old file or the new one.

    Lightning's own goes through the system's temporary folder, which usually lies on another disk: there a rename is a
    copy, and a kill leaves half of it. And Lightning's removes whatever a checkpoint callback remembers, folders and
    addresses too, which a checkpoint that is resumed from may have told it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it.

        Raises:
            RunError: It cannot be written; an old file is unchanged.
        """
        target = Path(path)
        # Always the same name, so that what a kill has left is written over and not left for ever.
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
                f"Cannot write the checkpoint {target}: {reason}. The checkpoints before are as they were. Is there "
                "space left, and may you write there?",
                "checkpoint-not-writable",
                path=target,
                reason=reason,
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file, where this process has written others beside it; leave everything else alone."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file() and file.parent.resolve() in self._folders:
            file.unlink(missing_ok=True)
