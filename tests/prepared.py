"""Processes that begin with torch and Lightning loaded: they are forked from one that has loaded them once.

Loading takes five seconds of a core. A forked process is otherwise its own: arguments, environment, folder, streams,
session, signals, the module that runs as `__main__`, and a whole end. It is a child of the process of the tests. What
happens while Python starts or loads is for tests that start `python` itself.
"""

import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parent.parent  # tests.support would load pytest
# Not bldml, whose modules a test may be about.
LOADED = (
    *("lightning.pytorch.cli", "torchvision.transforms.v2", "torch.utils.tensorboard", "sklearn.linear_model"),
    *("cv2", "PIL.Image", "simplejpeg", "matplotlib.backends.backend_agg", "jinja2"),
)
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl.h
_LONGEST = 1 << 17  # bytes of a request: arguments and environment
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_REPOSITORY)}  # before a test changes it


class Prepared(subprocess.Popen[str]):
    """`subprocess.Popen` of `[sys.executable, "-m", MODULE, …]`, which finds this repository's modules."""

    def _execute_child(self, *arguments: Any) -> None:
        inherited: Any = super()
        if sys.platform != "linux":
            inherited._execute_child(*arguments)
            return
        given = inspect.signature(inherited._execute_child).bind(*arguments).arguments
        python, option, *words = map(str, given["args"])
        assert (python, option) == (sys.executable, "-m")
        request = {
            "words": words,
            "folder": str(given["cwd"] or Path.cwd()),
            "environment": dict(given["env"] or os.environ),
            "new_session": given["start_new_session"],
        }
        streams = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        zygote, prctl = _zygote(), ctypes.CDLL(None).prctl
        # Whoever is orphaned now becomes a child of this process. Later, one would remain a zombie.
        prctl(_SUBREAPER, 1)
        try:
            message = json.dumps(request).encode()
            socket.send_fds(zygote, [message], [own if fd == -1 else fd for own, fd in enumerate(streams)])
            self.pid = int(zygote.recv(_LONGEST))
        finally:
            prctl(_SUBREAPER, 0)
        self._child_created = True
        inherited._close_pipe_fds(*(given[name] for name in given if name[:3] in ("p2c", "c2p", "err")))


@cache
def _zygote() -> socket.socket:
    """Start the process that is forked, unless it is there; it ends when this one has ended."""
    if _FROM_HERE:
        return _FROM_HERE[0]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.prepared", str(theirs.fileno())]
        process = subprocess.Popen(
            command, cwd=_REPOSITORY, env=_ENVIRONMENT, pass_fds=[theirs.fileno()],
            # Python's streams on a pipe do not seek, so that they fit whatever takes the pipe's place.
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    _STARTED.append(process)
    return ours


_STARTED: list[subprocess.Popen[bytes]] = []


def fork_from_here() -> None:
    """Let what this process starts as `Prepared` be forked from how it is now; for one that was itself forked so.

    To be called before the process has changed anything, such as signals, locks or modules that a test is about.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        _FROM_HERE.append(ours)
    else:
        ours.close()
        _become(_serve(theirs))
        sys.exit()


_FROM_HERE: list[socket.socket] = []


def close() -> None:
    """End the process that is forked, where one was started."""
    if _STARTED:
        _zygote().close()
        _zygote.cache_clear()
        _STARTED.pop().communicate()  # closes its streams too


def _serve(channel: socket.socket) -> dict[str, Any]:
    """Fork a process for each request; return in each of those, with its streams in place."""
    while True:
        message, streams, _, _ = socket.recv_fds(channel, _LONGEST, 3)
        if not message:
            os._exit(0)  # Python's own end would first visit all that is loaded
        read, write = os.pipe()
        between = os.fork()
        if not between:
            between, pid = os.getpid(), os.fork()
            if not pid:
                break
            os.write(write, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)  # the child has its new parent
        channel.send(os.read(read, 100))
        for fd in (*streams, read, write):
            os.close(fd)
    channel.close()
    while os.getppid() == between:
        time.sleep(0.001)
    for own, fd in enumerate(streams):
        os.dup2(fd, own)
    for fd in (*streams, read, write):
        os.close(fd)
    found: dict[str, Any] = json.loads(message)
    return found


def _become(request: dict[str, Any]) -> None:
    """Do what Python does before it runs a module."""
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    sys.path[0] = request["folder"]
    module, *sys.argv[1:] = request["words"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    gc.disable()
    for name in LOADED:
        importlib.import_module(name)
    gc.enable()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
