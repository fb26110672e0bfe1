"""Processes that start at once on the same photographs: one decodes them into the cache, the others wait for it."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bldml.dataset.cache.format import ROWS, RowIndex, cache_name, read_shards
from bldml.dataset.cache.location import is_writable, make_cache_folder
from bldml.dataset.samples import Sample
from bldml.io.locks import Lock
from bldml.io.system import sha256_of

PATIENCE_S = 300.0  # without a new image; a process may be suspended for as long as somebody likes
LOOK_S = 10.0  # while waiting, whether everything is cached
_PROBES = 8


class _NoTurn(Exception):
    """Nothing is left to wait for: everything is cached, or the other process makes no progress."""


def take_turn(
    folders: Sequence[Path],
    side: int,
    target_size: int | None,
    root: Path,
    splits: Sequence[Sequence[Sample]],
    check: Callable[[], None],
    say: Callable[[str], None],
) -> Lock | None:
    """Wait while another process decodes the photographs of this folder into the cache, and let others wait from then.

    What it had cached is there when this returns. The system ends the turn of a process that is killed.

    Args:
        folders: Folders of the cache; see `ImageCache`.
        side: Side of the images in pixels.
        target_size: See `cache_name`.
        root: Folder of the photographs.
        splits: Photographs whose images will be needed.
        check: Called about every second while waiting; may raise to end it.
        say: Prints why this process waits.

    Returns:
        The turn, to be closed when the images are cached; None where there is nothing to wait for: the images are
        cached (by a sample of each split), perhaps meanwhile; the cache cannot be written to; or the other process
        makes no progress.
    """
    name = cache_name(side, target_size)
    folder = next((folder for folder in folders if is_writable(folder)), None)

    def is_cold() -> bool:
        return _is_cold(folders, name, side, splits)

    if folder is None or not is_cold():
        return None
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    try:
        make_cache_folder(folder)
        waiting = _Waiting(folder, name, is_cold, check, say)
        turn = Lock(folder / f"{name}-{key}.turn", wait=None, waiting=waiting)
    except (OSError, _NoTurn):
        return None
    if waiting.since and not is_cold():  # or those who wait would read the photographs one after another
        turn.close()
        return None
    return turn


class _Waiting:
    def __init__(
        self,
        folder: Path,
        name: str,
        is_cold: Callable[[], bool],
        check: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.name, self.is_cold, self.check, self.say = folder, name, is_cold, check, say
        self.newest, self.since, self.looked = 0.0, 0.0, time.monotonic()

    def __call__(self) -> None:
        """Look whether the other process goes on, and now and then whether there is anything left to decode."""
        self.check()
        if not self.since:
            self.say(f"Waiting: another process is decoding these photographs into {self.folder}.")
            self.since = time.monotonic()
        if time.monotonic() - self.looked >= LOOK_S:
            if not self.is_cold():
                raise _NoTurn
            self.looked = time.monotonic()
        newest = max((_changed(path) for path in self.folder.glob(f"{self.name}-*{ROWS}")), default=0.0)
        if newest != self.newest:
            self.newest, self.since = newest, time.monotonic()
        elif time.monotonic() - self.since > PATIENCE_S:
            self.say(f"The other process has cached nothing for {PATIENCE_S:.0f} s; this one decodes them itself.")
            raise _NoTurn


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def _is_cold(folders: Sequence[Path], name: str, side: int, splits: Sequence[Sequence[Sample]]) -> bool:
    """Return whether one of a few photographs of a split, evenly spaced, first and last among them, has no image."""
    index = RowIndex(read_shards(folders, name, side, with_metadata=False))
    for samples, number in ((samples, number) for samples in splits for number in range(_PROBES) if samples):
        path = samples[number * (len(samples) - 1) // (_PROBES - 1)].path
        try:
            if path.is_file() and index.find(sha256_of(path)) is None:
                return True
        except OSError:  # verification says what is wrong with it
            continue
    return False
