"""What an interrupted evaluation has done, in the hidden folder `.unfinished`, so that it is resumed behind that.

The folder exists from the first result that is worth keeping to the end of the command. It holds the logits of whole
and interrupted passes over a split, and one document: of which checkpoint they are, and which evaluations are written.
"""

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bldml.errors import CheckpointError, ConfigError, DatasetError, RunError
from bldml.io.atomic import write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.io.locks import Lock, Taken
from bldml.io.safe_points import note_kept
from bldml.io.system import sha256_of
from bldml.run.digests.content import is_sealed, with_digests
from bldml.training.checkpoint import software_versions
from bldml.training.data.reading import PreparedData
from bldml.training.recording import PredictionRecorder
from bldml.training.resume.state import AtomicCheckpointIO

NAME, DOCUMENT, LOCK = ".unfinished", "unfinished.json", ".lock"
UNUSABLE = (CheckpointError, ConfigError, DatasetError)
WRITTEN = ("predictions.csv", "metrics.json", "provenance.json")
_DAMAGED = (
    OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError,
    zipfile.BadZipFile,
)  # fmt: skip
"""What reading a damaged file of logits raises."""


def pass_key(data: PreparedData, split: str) -> str:
    """Return the SHA-256 of name, group, class and content of each photograph of a split, in their order.

    A pass is resumed at a position in that order; the dataset digest knows neither names nor positions.
    """
    key = hashlib.sha256()
    for sample, digest in zip(data.samples(split), data.contents_of(split).digests, strict=True):
        key.update(repr((sample.name, sample.group, sample.class_name, digest)).encode())
    return key.hexdigest()


class UnfinishedEvaluation(AbstractContextManager["UnfinishedEvaluation"]):
    """The evaluations of one command, as far as an earlier start of the same command has got.

    Results of another checkpoint, of other settings or of other versions are not used. Leaving the context keeps what
    is done, unless the checkpoint or the photographs turned out to be unusable; `end` comes before, if all is done.

    Args:
        folder: Folder that `.unfinished` is in.
        checkpoint: The checkpoint file.
        settings: What the results depend on beside the checkpoint and the photographs, as plain values.
        device: Device that computes; results of another kind of device are not used.

    Attributes:
        time: When the evaluation began, before any interruption; ISO 8601 in UTC.
        is_resumed: Whether an earlier start of the command began it.
    """

    def __init__(self, folder: Path, checkpoint: Path, settings: Mapping[str, Any], device: torch.device) -> None:
        self.folder = folder / NAME
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self._conditions = {**software_versions(), "device": name}
        self.time, self.is_resumed = datetime.now(UTC).isoformat(timespec="seconds"), False
        self._of = {"checkpoint": sha256_of(checkpoint), **settings}
        self._passes: dict[str, Any] = {}
        self._restored = 0
        self._written: dict[str, Any] = {}
        self._lock, self._is_held, self._is_usable = ExitStack(), False, True
        if self.folder.is_dir():
            self._read()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let another command use the folder."""
        if kind is not None and issubclass(kind, UNUSABLE):
            self.end()
        self._lock.close()

    def renew(self, checkpoint: Path) -> None:
        """Take the checkpoint file as the same one after it got its bands; its weights have not changed."""
        self._of["checkpoint"] = sha256_of(checkpoint)
        if self._passes and self._hold():
            with suppress(RunError):
                self._write()

    def restore(self, recorder: PredictionRecorder, split: str, key: str, batch_size: int) -> int:
        """Restore what was computed of a split with this key (see `pass_key`); return for how many photographs.

        What is damaged is computed again.
        """
        stored, path = self._passes.get(split, {}), self.folder / f"{split}.pt"
        self._restored = 0
        with suppress(*_DAMAGED):
            if stored.get("of") == [key, batch_size] and stored.get("sha256") == sha256_of(path):
                self._restored = recorder.restore(torch.load(path, weights_only=True))
        return self._restored

    def keep(self, recorder: PredictionRecorder, split: str, key: str, batch_size: int) -> None:
        """Store what has been computed of a split; where that is not possible, an interruption costs its time."""
        if not recorder.collected or not self._hold():
            return
        path = self.folder / f"{split}.pt"
        with suppress(RunError, OSError):
            AtomicCheckpointIO().save_checkpoint(recorder.state(), path)
            self._passes[split] = {"of": [key, batch_size], "sha256": sha256_of(path)}
            self._write()
            note_kept(recorder.collected - self._restored)

    def note(self, split: str, key: str, evaluation: Path) -> None:
        """Record that an evaluation is completely written, into this folder."""
        if self._hold():
            with suppress(RunError, OSError):
                self._written[split] = {"of": key, "files": _hashes(evaluation)}
                self._write()
                note_kept()

    def is_written(self, split: str, key: str, evaluation: Path) -> bool:
        """Return whether an earlier start of the command has completely written an evaluation, unchanged since."""
        found = self._written.get(split, {})
        with suppress(OSError):
            return bool(found) and found.get("of") == key and found.get("files") == _hashes(evaluation)
        return False

    def end(self) -> None:
        """Remove the folder: the evaluation has ended, and the next one is another."""
        if not self._is_held:
            return
        # Windows and NFS remove no folder with an open file, so the lock goes last, when nothing is left to protect.
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name != LOCK:
                    path.unlink()
        with suppress(OSError):
            self._lock.close()
        self._is_held = self._is_usable = False
        shutil.rmtree(self.folder, ignore_errors=True)

    def _hold(self) -> bool:
        """Make the folder and take it; return whether it is this command's, not that of another at the same time."""
        if self._is_held or not self._is_usable:
            return self._is_held
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(Lock(self.folder / LOCK))
            self._is_held = True
        except (Taken, OSError):
            self._is_usable = False
        return self._is_held

    def _read(self) -> None:
        if not self._hold():
            return
        found = mapping_or_nothing(self.folder / DOCUMENT)
        if found.get("of") != self._of or is_sealed("unfinished", found) is False:
            return
        try:
            datetime.fromisoformat(found["time"])
        except (KeyError, TypeError, ValueError):  # damaged
            return
        self.time, self.is_resumed = found["time"], True
        if found.get("versions") == self._conditions:
            self._passes, self._written = _mappings(found.get("passes")), _mappings(found.get("written"))

    def _write(self) -> None:
        content = {
            "schema": 1,
            "of": self._of,
            "time": self.time,
            "versions": self._conditions,
            "passes": self._passes,
            "written": self._written,
        }
        write_atomically(self.folder / DOCUMENT, json.dumps(with_digests("unfinished", content), indent=2) + "\n")


def _mappings(value: Any) -> dict[str, Any]:
    """Return those values of a mapping that are mappings; others are damaged."""
    return {key: one for key, one in value.items() if isinstance(one, dict)} if isinstance(value, dict) else {}


def _hashes(evaluation: Path) -> dict[str, str]:
    return {name: sha256_of(evaluation / name) for name in WRITTEN if (evaluation / name).is_file()}
