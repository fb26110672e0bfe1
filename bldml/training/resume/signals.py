"""Signals that ask a run to stop: they raise a flag here, and the run stops at its next safe point.

Imports nothing heavy, so that the front door can catch signals before torch is loaded: a job that is preempted in its
first seconds must not die of the default action either.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What a job script may ask Slurm to send when the wall time is near.
WALL_TIME = (signal.SIGUSR1, signal.SIGUSR2)
# SIGTERM: preemption, scancel, shutdown. SIGINT: Ctrl-C. SIGHUP: the terminal has gone away.
INTERRUPTING = (*WALL_TIME, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Interrupted(BaseException):
    """The run was asked to stop, and has stopped at a safe point.

    Not an Exception: like KeyboardInterrupt it must pass through code that catches errors.

    Args:
        signum: The signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class InterruptSignals:
    """Catches the stopping signals between `install` and `restore`; each only raises a flag.

    SIGINT and SIGHUP stay ignored where they were before (a background job of a shell, `nohup`).
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._before: dict[int, Handler] = {}

    def install(self) -> None:
        """Install the handlers."""
        for signum in INTERRUPTING:
            self.catch(signum)

    def restore(self) -> None:
        """Put back what was there."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def catch(self, signum: int) -> None:
        """Install the handler for one signal; nothing outside the main thread, where Python allows none."""
        if threading.current_thread() is not threading.main_thread() or signum in self._before:
            return
        before = signal.getsignal(signum)
        if before is signal.SIG_IGN and signum in (signal.SIGINT, signal.SIGHUP):
            return
        self._before[signum] = signal.SIG_DFL if before is None else before
        signal.signal(signum, self._raise_flag)

    @property
    def received(self) -> int | None:
        """The first signal that came; None as long as none did."""
        return self._received[0] if self._received else None

    def has(self, *signums: int) -> bool:
        """Whether one of these signals came, first or later."""
        return any(signum in self._received for signum in signums)

    def check(self) -> None:
        """Stop here, where there is nothing to save, if a signal has come.

        Raises:
            Interrupted: One has.
        """
        if self._received:
            raise Interrupted(self._received[0])

    def _raise_flag(self, signum: int, frame: FrameType | None) -> None:
        first = not self._received
        self._received.append(signum)
        if first and is_first_process():
            # Not print or logging: their locks may be held by the very code that was interrupted.
            text = (
                f"\n{signal.Signals(signum).name} received: stopping at the next safe point (Ctrl-\\ quits at once).\n"
            )
            os.write(2, text.encode())


def is_first_process() -> bool:
    """Whether this process speaks for all that train together, as far as the environment tells."""
    return all(os.environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "RANK", "LOCAL_RANK", "NODE_RANK"))


@contextmanager
def blocked() -> Iterator[None]:
    """Hold signals back while child processes start, which so never see one before they have learnt to ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_in_worker(worker_id: int) -> None:
    """Make a loader's process ignore what the main process answers: Slurm sends to all processes of a step.

    Only its own parent may end it by SIGTERM, as at the end of a run. That is torch's rule too, but one that another
    process sends ends the worker there, and the main process with it.
    """
    for signum in INTERRUPTING:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or not hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTING)
        return
    # SIGTERM stays blocked, as `blocked` has left it, so that a thread can take it and see who has sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_obey, args=(parent.pid,), daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
