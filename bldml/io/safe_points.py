"""Safe points of the plain commands: where a signal may interrupt them, and whether anything is kept by then.

At a safe point nothing is half done: files are whole, and what is finished is recorded. Imports nothing heavy.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_checks: list[Callable[[], None]] = []
_kept = 0


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` at each safe point within this context; it may raise an exception to interrupt."""
    _checks.append(check)
    try:
        yield
    finally:
        _checks.remove(check)


def safe_point(*, kept: int = 0) -> None:
    """Let a signal interrupt the command here; in other threads than the main one, do nothing.

    `kept` is as in `note_kept`.
    """
    note_kept(kept)
    if threading.current_thread() is threading.main_thread():
        for check in _checks:
            check()


def note_kept(count: int = 1) -> None:
    """Note that so many results have been stored, which an interrupted command need not make again."""
    global _kept
    _kept += count


def count_kept() -> int:
    """Return how many results this process has stored."""
    return _kept
