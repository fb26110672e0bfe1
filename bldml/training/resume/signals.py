"""Signals that interrupt a run: they set a flag here, and the run is interrupted at its next safe point.

Imports nothing heavy, so that `bldml.cli` can catch signals before torch is loaded: a job that is preempted in its
first seconds must not be killed by the default action.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
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
        self._mask: set[int] | None = None
        self._is_over = False

    def install(self, signums: Sequence[signal.Signals] = INTERRUPTING) -> None:
        """Install the handlers and let signals through, also those that waited; outside the main thread do nothing.

        Python allows handlers in the main thread alone.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in signums:
            before = signal.getsignal(signum)
            if signum in self._before or (before is signal.SIG_IGN and signum in BY_HAND):
                continue
            self._before[signum] = signal.SIG_DFL if before is None else before
            signal.signal(signum, self._set_flag)
        before_mask = change_signal_mask("unblock", INTERRUPTING)
        self._mask = before_mask if self._mask is None else self._mask

    def restore(self) -> None:
        """Restore the previous handlers, and the signals that waited."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()
        if self._mask is not None:
            change_signal_mask("set", self._mask)
            self._mask = None

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

    def end(self) -> None:
        """From here on nothing is interrupted: the work is done, and what is left takes seconds.

        Raises:
            Interrupted: A signal was received before.
        """
        self._is_over = True  # before the check, so that no signal falls between the two
        if self._received:
            self._is_over = False
            self.check()

    def count(self, signum: int) -> int:
        """Return how often a signal was received."""
        return self._received.count(signum)

    def _set_flag(self, signum: int, frame: FrameType | None) -> None:
        if self._is_over:
            _say(signum, "the work is done, and its last results are being written")
            return
        first = not self._received
        self._received.append(signum)
        if first:
            _say(signum, "saving at the next safe point")


def _say(signum: int, what: str) -> None:
    """Say what follows from a signal. Not by print or logging: the interrupted code may hold their locks."""
    if is_first_process():
        text = f"{signal.Signals(signum).name} received: {what} ({QUIT_KEY} quits at once).\n"
        # A terminal erases the line, in which there may be a progress bar.
        os.write(2, (("\r\x1b[K" if os.isatty(2) else "\n") + text).encode())


def let_through() -> None:
    """Let signals through that waited while the process started; for commands that do not handle them."""
    change_signal_mask("unblock", INTERRUPTING)


def ignore_to_the_end() -> None:
    """Ignore signals until this process ends: its work is done, and a late signal must not change its exit code.

    When Python shuts down, it restores the default action of the signals that it handles, but not of ignored ones.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in INTERRUPTING:
            signal.signal(signum, signal.SIG_IGN)


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
