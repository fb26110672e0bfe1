"""A forked process does what one that Python starts does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.prepared import Prepared
from tests.support import REPOSITORY

SHOW = """
import atexit, json, os, signal, sys, threading
names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGPIPE")
found = {
    "arguments": sys.argv[1:], "file": sys.argv[0], "first": sys.path[0], "folder": os.getcwd(),
    "environment": dict(os.environ), "leads a session": os.getsid(0) == os.getpid(),
    "parent": os.getppid(), "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "handlers": [str(signal.getsignal(getattr(signal, name))).split(" at ")[0] for name in names],
    "main": [__name__, __spec__.name, sys.modules["__main__"].__file__], "threads": threading.active_count(),
    "files": sorted(os.listdir("/proc/self/fd"))[:-1], "buffered": sys.stdout.line_buffering,
}
print(json.dumps(found))
atexit.register(print, "the end", file=sys.stderr)
input()
sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python starts it")
@pytest.mark.parametrize("new_session", [False, True])
def test_it_begins_and_ends_like_another(new_session: bool, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)

    environment = {"PYTHONPATH": str(REPOSITORY), "LC_CTYPE": "C.UTF-8", "X": "1"}

    def show(start: Callable[..., "subprocess.Popen[str]"]) -> dict[str, Any]:
        process = start(
            [sys.executable, "-m", "show", "a", "--b=c"], cwd=tmp_path, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=new_session,
        )  # fmt: skip
        out, err = process.communicate("\n")
        assert (process.returncode, err) == (3, "the end\n")
        found: dict[str, Any] = json.loads(out)
        return found

    assert show(Prepared) == show(subprocess.Popen)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python starts it")
def test_it_is_ended_by_a_signal_and_its_orphans_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(
        "import os, time\npid = os.fork()\nif pid:\n    print(pid, flush=True)\ntime.sleep(60)\n"
    )
    process = Prepared([sys.executable, "-m", "orphan"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    assert f"PPid:\t{os.getpid()}\n" not in Path(f"/proc/{orphan}/status").read_text()
    os.kill(orphan, signal.SIGKILL)
    process.stdout.close()
