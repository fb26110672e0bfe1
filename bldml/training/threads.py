"""The threads of a tensor operation, told to leave their core soon when they wait for each other.

By default those of GNU's OpenMP, which torch is built with, keep it busy for some milliseconds, at the end of each part
of an operation and after the last. Whoever decodes photographs meanwhile, or another program, then takes time from the
thread that all wait for. `benchmarks/README.md` says what that costs, and where it makes no difference.
"""

import os

_SPINS = 10_000  # a few tenths of a millisecond; with 1,000 or 3,000 some epochs took nearly twice as long


def wait_briefly() -> None:
    """Set how long threads of this process, and of those it starts, wait busily; before torch is loaded.

    Whoever has set OpenMP's own variables has thought about it: they stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
