"""Commands of bldml on a system that is made to lack what others lack; run by test_every_system.py as a program.

    python -m tests.other_system win32      (or darwin; in an empty folder)

On macOS and Windows the same commands run on what there is. Processes are spawned, and import this file again, so they
lack the same. As darwin, /proc and /sys are not there. As win32, refused is also what Windows refuses: below the
current folder, an open file cannot be replaced or removed, and names have no colon; raw files need O_BINARY.
"""

import builtins
import errno
import io
import json
import multiprocessing
import os
import pkgutil
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock  # noqa: F401  # with the locks of this system, before it seems to be another

if __name__ == "__main__":
    os.environ["BLDML_SIMULATED"] = sys.argv[1]
SIMULATED = os.environ.get("BLDML_SIMULATED", "win32")
MODULES: tuple[str, ...] = ("fcntl", "grp", "pwd", "resource", "termios", "syslog")
LACKING = {
    *("fork", "forkpty", "register_at_fork", "sched_getaffinity", "pread", "pwrite", "statvfs", "uname", "geteuid"),
    *("getuid", "getgid", "getegid", "mkfifo", "fchmod", "fchown", "chown", "killpg", "setsid", "O_NOFOLLOW"),
    *("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGCONT", "SIGALRM", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK", "alarm"),
    *("pthread_sigmask", "pthread_kill", "sigwait", "sigwaitinfo", "sigpending", "setitimer"),
}
if SIMULATED == "darwin":
    MODULES = ()
    LACKING = {"sched_getaffinity", "sigwaitinfo", "sigtimedwait", "posix_fadvise", "fdatasync", "memfd_create"}
O_BINARY = 1 << 30


def is_from_bldml(depth: int) -> bool:
    return str(sys._getframe(depth + 1).f_globals.get("__name__", "")).partition(".")[0] == "bldml"


class Lacking(ModuleType):
    """A module that lacks names, for bldml alone: other packages ask sys.platform what there is, or need it here."""

    def __getattribute__(self, name: str) -> Any:
        if name in LACKING and is_from_bldml(1):
            raise AttributeError(f"module {self!r} has no attribute {name!r}", name=name, obj=self)
        return super().__getattribute__(name)


def lack_names() -> None:
    """Hide what only Unix has."""
    for module in (os, signal):
        module.__class__ = Lacking
    really_import = builtins.__import__

    def import_(name: str, *rest: Any, **options: Any) -> Any:
        if name in MODULES and is_from_bldml(1):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return really_import(name, *rest, **options)

    builtins.__import__ = import_


def lack_proc() -> None:
    """Hide /proc and /sys, which macOS has not, from everything that is written in Python.

    Not from threadpoolctl: it asks sys.platform how libraries are found, and reads /proc on Linux alone.
    """
    really_open = io.open

    def open_(file: Any, *rest: Any, **options: Any) -> Any:
        hidden = isinstance(file, str | os.PathLike) and str(os.fspath(file)).startswith(("/proc/", "/sys/"))
        if hidden and sys._getframe(1).f_globals.get("__name__") != "threadpoolctl":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        return really_open(file, *rest, **options)

    io.open = builtins.open = open_


def refuse_what_windows_refuses() -> None:
    """Refuse to move or remove files that this process has open, and to open them as text by their descriptor."""
    mine = os.path.realpath(".")

    def check(path: Any) -> None:
        try:
            real = os.path.realpath(os.fspath(path))
        except TypeError:  # a descriptor
            return
        files = {os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()}
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        files.update(line.split(maxsplit=5)[5] for line in maps.splitlines() if len(line.split(maxsplit=5)) == 6)
        held = [name for name in files if name == real or name.startswith(f"{real}{os.sep}")]
        if real.startswith(mine) and held:
            raise PermissionError(13, f"still open: {held}", str(path))

    def guarded(function: Callable[..., Any], paths: int) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if "dir_fd" not in options:
                for path in arguments[:paths]:
                    check(path)
            return function(*arguments, **options)

        return call

    for name, paths in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        setattr(os, name, guarded(getattr(os, name), paths))

    really_open = os.open

    def raw(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if is_from_bldml(1):
            assert flags & O_BINARY, f"{path} is opened without O_BINARY"
            assert not Path(path).is_dir(), f"{path} is a folder"
        return really_open(path, flags & ~O_BINARY, *rest, **options)

    os.open = raw
    os.O_BINARY = O_BINARY  # type: ignore[attr-defined]


true_system = sys.platform
if true_system == "linux" and __name__ in ("__main__", "__mp_main__"):  # not when its doctests are looked for
    lack_names()
    lack_proc() if SIMULATED == "darwin" else refuse_what_windows_refuses()
    sys.platform = SIMULATED  # type: ignore[misc,unused-ignore]
import bldml.io.platform as system  # noqa: E402  # its part for that system

sys.platform = true_system
warnings.filterwarnings("error", category=EncodingWarning, module=r"bldml\b")
NEW, COPY = "lightning_logs/new", "lightning_logs/copy"
TWO_EPOCHS = ("--trainer.max_epochs=2", "--test_after_fit=false")


def check_files() -> None:
    """Check that a lock keeps others out, and that a file which another program opens for a moment can be replaced."""
    from bldml.io.locks import Lock, Taken

    held, new = Path("held"), Path("new")
    with Lock(held) as lock:
        assert lock.is_real
        if system.WINDOWS:  # elsewhere a lock keeps other processes out
            with suppress(Taken):
                Lock(held)
                raise AssertionError("a lock that is held was taken")
    Lock(held).close()
    new.write_text("new", encoding="utf-8")
    file = held.open("rb")
    threading.Timer(0.3, file.close).start()
    system.replace_path(new, held)
    assert held.read_text(encoding="utf-8") == "new"


def main() -> None:
    """Import all modules, then run the commands; print what each came to as JSON in the last line."""
    import bldml
    from bldml.figures import style
    from tests.support import SMALL

    for module in pkgutil.walk_packages(bldml.__path__, "bldml."):
        import_module(module.name)
    from bldml.cli import main as cli

    style.DPI, style.FORMATS = 50, {"svg": style.FORMATS["svg"]}
    system.write_any_text(sys.stdout, sys.stderr)
    check_files()
    codes = {}
    for command in (
        ("demo", "drawn", "--images_per_class=64", "--size=48"),
        ("split", "drawn"),
        ("audit", "drawn", "--workers=2", "--power=off"),
        # Each process that is spawned loads torch anew: for training, validation, and the evaluation of both.
        ("fit", "drawn", *SMALL, *TWO_EPOCHS, f"--data.num_workers={int(system.WINDOWS)}", "--run_name=new"),
        ("validate", NEW, "--data.num_workers=0"),
        ("test", NEW, "--data.num_workers=0"),
        ("predict", NEW, "drawn/BLD", f"--data.num_workers={int(not system.WINDOWS)}"),
        ("explain", NEW, "drawn/BLD/leaf_0001.jpg"),
        ("survey", NEW, "drawn", "--group=folder", "--sheet=2"),
        ("survey", NEW, "drawn", "--group=folder", "--sheet=3"),
        ("review", "confirmed.csv", NEW, "new"),
        ("report", NEW),
        ("compare", NEW, COPY),
    ):
        print("$ bldml", *command, flush=True)
        if SIMULATED == "darwin" and command[0] not in ("demo", "fit", "test", "predict"):
            continue  # the rest differs from Linux as little as these
        if command[0] == "review":
            shutil.copytree("drawn/BLD", "new")
            for file in Path("new").iterdir():
                file.write_bytes(file.read_bytes() + b"another photograph")
            rows = ["path,verdict,label,predicted,probability,unit,model", "leaf_0001.jpg,confirm,BLD,BLD,0.5,,ab"]
            Path("confirmed.csv").write_text("\n".join([*rows, "leaf_0002.jpg,reject,No_BLD,BLD,0.5,,ab"]), "utf-8")
        if COPY in command:
            shutil.copytree(NEW, COPY)
        codes[" ".join(command)] = cli([*command])
    bldml.load(NEW, device="cpu").predict("drawn/BLD/leaf_0001.jpg")
    print("\N{MINUS SIGN}0.5 × …")
    refused = [path.as_posix() for path in Path().rglob("*") if system.refused_on_windows(path.name)]
    print(json.dumps({"windows": system.WINDOWS, "codes": codes, "refused": refused}))


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
