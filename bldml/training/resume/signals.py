"""Signals that interrupt a run: they set a flag here, and the run is interrupted at its next safe point.

Imports nothing heavy, so that `bldml.cli` can catch signals before torch is loaded: a job that is preempted in its
first seconds must not be killed by the default action.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bldml.io.platform import QUIT_KEY, change_signal_mask, signals, wait_for_sender

# Signals that a job script may ask Slurm to send when the wall time is near.
WALL_TIME = signals("SIGUSR1", "SIGUSR2")
# SIGINT: Ctrl-C. SIGHUP: the terminal was closed.
BY_HAND = signals("SIGINT", "SIGHUP")
# SIGTERM: preemption, scancel, shutdown.
INTERRUPTING = (*WALL_TIME, signal.SIGTERM, *BY_HAND)

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Interrupted(BaseException):
    """The run was interrupted by a signal, at a safe point.

    Not an Exception: like KeyboardInterrupt it must pass through code that catches errors.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


class InterruptSignals:
    """Catch interrupting signals between `install` and `restore`; each only sets a flag.

    SIGINT and SIGHUP stay ignored if they were ignored before (a background job of a shell, `nohup`).
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._before: dict[int, Handler] = {}

    def install(self) -> None:
        """Install the handlers; do nothing outside the main thread, where Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in INTERRUPTING:
            before = signal.getsignal(signum)
            if signum in self._before or (before is signal.SIG_IGN and signum in BY_HAND):
                continue
            self._before[signum] = signal.SIG_DFL if before is None else before
            signal.signal(signum, self._set_flag)

    def restore(self) -> None:
        """Restore the previous handlers."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    @property
    def received(self) -> int | None:
        """Number of the first signal received; None if there was none."""
        return self._received[0] if self._received else None

    def has(self, *signums: int) -> bool:
        """Return whether one of these signals was received, first or later."""
        return any(signum in self._received for signum in signums)

    def check(self) -> None:
        """Raise Interrupted if a signal was received; for places where there is nothing to save."""
        if self._received:
            raise Interrupted(self._received[0])

    def _set_flag(self, signum: int, frame: FrameType | None) -> None:
        first = not self._received
        self._received.append(signum)
        if first and is_first_process():
            # Not print or logging: the interrupted code may hold their locks.
            name = signal.Signals(signum).name
            text = f"{name} received: saving at the next safe point ({QUIT_KEY} quits at once).\n"
            # A terminal erases the line, in which there may be a progress bar.
            os.write(2, (("\r\x1b[K" if os.isatty(2) else "\n") + text).encode())


def is_first_process() -> bool:
    """Return whether this process is the first of those that train together, by the environment variables."""
    return all(os.environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "RANK", "LOCAL_RANK", "NODE_RANK"))


@contextmanager
def blocked() -> Iterator[None]:
    """Block signals while child processes start, so that they receive none before they ignore them."""
    before = change_signal_mask("block", INTERRUPTING)
    try:
        yield
    finally:
        change_signal_mask("set", before)


def ignore_in_worker() -> None:
    """Make a loader's worker ignore the signals that the main process handles: Slurm signals all processes of a step.

    Only its parent may end it by SIGTERM, as at the end of a run. In torch, a SIGTERM from another process ends the
    worker, and with it the main process.
    """
    for signum in INTERRUPTING:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or wait_for_sender is None:
        change_signal_mask("unblock", INTERRUPTING)
        return
    # SIGTERM stays blocked, as `blocked` left it, so that a thread can receive it together with its sender.
    change_signal_mask("block", [signal.SIGTERM])
    threading.Thread(target=_end_with_parent, args=(wait_for_sender, parent.pid), daemon=True).start()


def _end_with_parent(wait: Callable[[int], int], parent: int) -> None:
    while wait(signal.SIGTERM) != parent:
        pass
    os._exit(0)
