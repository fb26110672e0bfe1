"""One command with a fault at each of its changes of files: what is told, what is left, and what a repetition makes.

Each run is a child process that is forked from one that has imported everything.
"""

import json
import os
import pkgutil
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import bldml
from bldml.cli import main
from tests.faults.layer import Faults, How, digest_of

UNREADABLE = b"cannot be read: "
COUNTING = ("environment.json", "stretches.json")  # say how often the work was begun
LIMIT_S = 300.0
APPENDED = ("progress.jsonl", "examined.jsonl", "ledger.csv", "log.txt")  # may end with half a line
CACHE = "cache"  # folder of cached images, whose names are drawn
# Files that processes leave when they are killed, which are removed or written over later.
TEMPORARY = (".tmp", ".part", ".building", ".rgb")
RESUMED = ".pth.part"  # a download that is not finished; it is kept until the next one finishes it


@dataclass
class Ended:
    """How a run of a command ended: exit code (negative: the signal), what it said, and what it did."""

    code: int
    said: str
    calls: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    versions: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """A command line that is run in a copy of a folder, and how it is repeated after a fault.

    `again` gets the folder.
    """

    name: str
    words: tuple[str, ...]
    world: Path  # the folder that is copied
    again: Callable[[Path], Sequence[str]] | None = None


def import_everything() -> None:
    """Import what the commands import, so that a forked child does not; torch computes with one thread."""
    import matplotlib.backends.backend_svg  # noqa: F401

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(bldml.__path__, "bldml."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def run_forked(words: Sequence[str], folder: Path, faults: Faults | None) -> Ended:
    """Run a command line in a forked child, in that folder."""
    return start_forked(words, folder, faults)()


def start_forked(words: Sequence[str], folder: Path, faults: Faults | None, name: str = "said") -> Callable[[], Ended]:
    """Start a command line in a forked child, in that folder; return what waits for its end.

    Beside the folder, files that begin with the name keep what it says and did.
    """
    log, told = folder.parent / f"{name}.txt", folder.parent / f"{name}.json"
    told.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _run_child(words, folder, faults, log, told)
    return lambda: _await(child, log, told)


def _await(child: int, log: Path, told: Path) -> Ended:
    end = time.monotonic() + LIMIT_S
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(found[1])
    nothing: dict[str, Any] = {"calls": [], "places": [], "versions": {}}
    about = json.loads(told.read_text()) if told.exists() else nothing
    versions = {path: set(digests) for path, digests in about["versions"].items()}
    return Ended(code, log.read_text(errors="replace"), about["calls"], about["places"], versions)


def _run_child(words: Sequence[str], folder: Path, faults: Faults | None, log: Path, told: Path) -> None:
    """Never returns."""
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    counting = faults or Faults(folder)
    counting._process = os.getpid()
    real_open = open
    counting.install()
    code: int = 99
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        versions = {path: sorted(digests) for path, digests in counting.versions.items()}
        with real_open(told, "w", encoding="utf-8") as about:
            json.dump({"calls": counting.calls, "places": counting.places, "versions": versions}, about)
        os._exit(code)


class Trial:
    """A command, its undisturbed results, and runs of it with faults.

    Args:
        command: The command.
        folder: An empty folder to work in; the command always runs in the same folder below it.

    Attributes:
        changes: Number of changes of files in an undisturbed run.
        kinds, places: The name and place of each change, see `Faults`.
    """

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder = command, folder / "work"
        self._reset()
        self.before = digests_of(self.folder)
        first = run_forked(command.words, self.folder, None)
        assert first.code == 0, first.said
        results = digests_of(self.folder)
        self._reset()
        second = run_forked(command.words, self.folder, None)
        other = digests_of(self.folder)
        assert results.keys() == other.keys(), results.keys() ^ other.keys()
        # Files that say when they were written differ between two runs.
        self.results = {path: digest for path, digest in results.items() if other[path] == digest}
        timed = (*COUNTING, "log.txt")  # which begins its lines with the time
        self.results = {path: digest for path, digest in self.results.items() if not path.endswith(timed)}
        self.files = set(results)
        # The contents that a file may have at any moment: that of before, and each that it came to its name with.
        self.versions = {path: set(first.versions.get(self._real(path), ())) for path in self.results}
        self.stable = {path for path in self.results if self.versions[path] == second.versions.get(self._real(path))}
        for path in self.stable & self.before.keys():
            self.versions[path].add(self.before[path])
        self.changes, self.kinds, self.places = len(first.calls), first.calls, first.places

    def _real(self, path: str) -> str:
        return os.path.realpath(self.folder / path)

    def _reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.command.world, self.folder, symlinks=True)

    def findings(self, at: int, how: How) -> list[str]:
        """Run the command with a fault at a change, then again without; return what is not as it must be."""
        self._reset()
        ended = run_forked(self.command.words, self.folder, Faults(self.folder, at, how))
        found = [*self._told(ended, how), *self._half(), *(self._left() if how != "kill" else ())]
        # A command that was killed behind its last result, or that said what it could not enter, is another look.
        is_whole = digests_of(self.folder).items() >= self.results.items()
        is_other_look = (is_whole and how == "kill") or "was not added to the ledger" in ended.said
        if ended.code != 0:
            words = self.command.again(self.folder) if self.command.again else self.command.words
            again = run_forked(words, self.folder, None)
            if again.code != 0:
                return [*found, f"the repetition ends with {again.code}: {last_line(again.said)}"]
        now = digests_of(self.folder)
        found += [f"{path} is missing in the end" for path in sorted(self.files - now.keys())]
        found += [f"{path} is left in the end" for path in sorted(now) if path.endswith(RESUMED)]
        differing = [path for path, digest in self.results.items() if now.get(path, digest) != digest]
        if is_other_look:
            differing = [path for path in differing if not path.endswith("ledger.csv")]
        return [*found, *(f"{path} differs in the end" for path in sorted(differing))]

    def _told(self, ended: Ended, how: How) -> list[str]:
        if how == "kill":
            return (
                []
                if ended.code in (-9, 0)
                else [f"ends with {ended.code} instead of being killed: {last_line(ended.said)}"]
            )
        found = []
        if ended.code not in (0, 1, 2):
            found.append(f"ends with {ended.code}")
        if "Traceback" in ended.said:
            found.append(f"a traceback: {last_line(ended.said)}")
        if ended.code and "bldml: error: " not in ended.said:
            found.append("no error is told")
        return found

    def _half(self) -> list[str]:
        """Return the files that are neither as before nor as one of their versions."""
        found = []
        for path, digest in digests_of(self.folder).items():
            is_other = path in self.stable and digest not in self.versions[path]
            if path.endswith(".ckpt"):
                is_other = _content(self.folder / path).startswith(UNREADABLE)
            elif path.endswith(COUNTING):
                is_other = not isinstance(json.loads((self.folder / path).read_bytes()), dict)
            if is_other and not path.endswith(APPENDED):
                found.append(f"{path} is half")
        return found

    def _left(self) -> list[str]:
        now = digests_of(self.folder).keys() - self.files
        return [f"{path} is left" for path in sorted(now) if path.endswith(TEMPORARY) and not path.endswith(RESUMED)]


def digests_of(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder, by its path there; those of the cache of images are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    files = [path for path in files if CACHE not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): digest_of(_content(path)) for path in files}


def _content(path: Path) -> bytes:
    """Return the content of a file; of a checkpoint its values, which may be packed in several ways."""
    if path.suffix != ".ckpt":
        return path.read_bytes()
    try:
        return repr(_values(torch.load(path, weights_only=True))).encode()
    except Exception as error:
        return UNREADABLE + str(error).encode()


def _values(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), digest_of(value.contiguous().view(-1).numpy().tobytes())
    if isinstance(value, dict):
        return [(str(key), _values(item)) for key, item in value.items()]
    return [_values(item) for item in value] if isinstance(value, list | tuple) else value


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return ([""] + [line for line in text.splitlines() if line.strip()])[-1][:200]
