"""What this process is told before it trains: to keep freed memory, and threads to wait briefly. Loads no torch.

By default glibc gives every block above 32 MiB (128 KiB in the beginning) pages of its own and takes them away
when it is freed, and it cuts off the top of its heap; the next tensor's pages are then made and zeroed anew.

By default the threads of GNU's OpenMP, which torch is built with, keep their core busy for some milliseconds, at the
end of each part of an operation and after the last. Whoever decodes photographs meanwhile, or another program, then
takes time from the thread that all wait for. `benchmarks/README.md` says what both cost, and where it makes no
difference.
"""

import ctypes
import os
import sys

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# An int, and larger than any process here grows.
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; worth it only where tensors live on the CPU.

    Its size then stays at its peak, which it would reach again in the next step. Blocks come from the heap, whatever
    their size.

    Returns:
        Whether the C library is one that can be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


_SPINS = 10_000  # a few tenths of a millisecond; with 1,000 or 3,000 some epochs took nearly twice as long


def wait_briefly() -> None:
    """Set how long threads of this process, and of those it starts, wait busily; before torch is loaded.

    Whoever has set OpenMP's own variables has thought about it: they stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
