"""The rule that no input may break: exit 0, 1 or 2; no traceback, no network, bounded time and memory.

Each input is tried by `obey` or `obey_command`. `BLDML_FUZZ=50 pytest tests/fuzz` tries 50 times as many inputs as the
checks before a merge, which try the same ones each time.
"""

import os
import resource
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from bldml.errors import BldmlError
from tests.support import Outcome

TIMES = float(os.environ.get("BLDML_FUZZ", "1"))
SECONDS = 60  # that one input may take, on a machine that has much else to do
MEMORY = 3 * 2**30  # bytes of address space that one input may add
TRIED: Counter[str] = Counter()
"""Number of inputs by target."""


def examples(count: int) -> Callable[[Any], Any]:
    """Return the settings of a target: `count` inputs, always the same, or many times as many by chance."""
    many = TIMES > 1
    # Shrinking in the checks would take longer than the checks.
    phases = (Phase.explicit, Phase.generate, Phase.shrink) if many else (Phase.explicit, Phase.generate)
    return settings(
        max_examples=max(1, round(count * TIMES)), derandomize=not many, deadline=None, database=None, phases=phases,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=many,
    )  # fmt: skip


class Broken(AssertionError):
    """An input broke the rule."""


@contextmanager
def bounded() -> Iterator[None]:
    """Stop what takes too long or too much memory, and what opens a connection."""

    def late(*_: Any) -> None:
        raise Broken(f"more than {SECONDS} s")

    def connect(*words: Any) -> None:
        raise Broken(f"a connection: {words[1:]}")

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, before, alarm = resource.getrlimit(resource.RLIMIT_AS), socket.socket.connect, signal.SIGALRM
    handler = signal.signal(alarm, late)
    socket.socket.connect = connect  # type: ignore[method-assign]
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except MemoryError as error:
        raise Broken(f"more than {MEMORY:,} bytes") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        socket.socket.connect = before  # type: ignore[method-assign]
        signal.signal(alarm, handler)


def obey(target: str, call: Callable[[], Any]) -> Any:
    """Call a function that may raise the errors of bldml and nothing else; return its result, or the error."""
    TRIED[target] += 1
    with bounded():
        try:
            return call()
        except BldmlError as error:
            if error.exit_code not in (1, 2):
                raise Broken(error) from error
            return error


def obey_command(target: str, bldml: Callable[..., Outcome], *words: Any) -> Outcome:
    """Run a command line in this process."""
    TRIED[target] += 1
    with bounded():
        outcome = bldml(*words)
    assert outcome.code in (0, 1, 2), outcome
    assert "Traceback" not in outcome.err
    shown = outcome.out + outcome.err
    assert not {"\x1b", "\x07", "\x00", "\u202e"} & set(shown), repr(shown)
    assert len(outcome.err) < 100_000
    return outcome
