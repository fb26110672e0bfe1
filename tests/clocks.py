"""A clock that somebody sets while the program runs, as a time server does after a start without a network."""

import itertools
import sys
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any

import pytest
import tqdm.std

DAY_S = 86400.0
JUMPS_S = (0.0, 2 * DAY_S, -3 * DAY_S, 3600.0, -7200.0)


def set_clock(monkeypatch: pytest.MonkeyPatch, shift: Callable[[], float]) -> None:
    """Shift what the clock of this process shows at each look at it, for all of bldml, by these seconds."""
    real: Any = time.time

    def shown() -> float:
        return float(real() + shift())

    class Shown(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Shown":
            return cls.fromtimestamp(shown(), tz)

    monkeypatch.setattr(time, "time", shown)
    monkeypatch.setattr(time, "time_ns", lambda: int(shown() * 1e9))
    monkeypatch.setattr(tqdm.std, "time", shown)
    for name, module in list(sys.modules.items()):
        if name.startswith("bldml") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Shown)


def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each look, the clock shows another time within five days."""
    shifts = itertools.cycle(JUMPS_S)
    set_clock(monkeypatch, lambda: next(shifts))


def without_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a small computer that has just been switched on: the first of January 1970."""
    start = time.time() - DAY_S / 2
    set_clock(monkeypatch, lambda: -start)
