"""Settings of the process before training: keep freed memory, and let threads wait only briefly. Loads no torch.

By default glibc maps separate pages for every block above 32 MiB (128 KiB at first) and unmaps them when the block is
freed, and it trims the top of its heap. The pages of the next tensor must then be mapped and zeroed again.

By default the threads of GNU's OpenMP, which torch is built with, spin for some milliseconds after each part of an
operation. Loader processes and other programs then compete with the thread that all others wait for.
`benchmarks/README.md` says what both cost, and where they make no difference.
"""

import ctypes
import os
import sys

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# Fits an int, and larger than any process here.
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; useful only if tensors are on the CPU.

    The process then stays at its peak size, which it would reach again in the next step. Blocks of any size come from
    the heap.

    Returns:
        Whether the C library supports the setting.
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
    """Set how long threads of this process and its children spin; call it before torch is loaded.

    OpenMP variables that the user has set are respected.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


def default_seed() -> int:
    """The seed of `lightning.seed_everything`; 0 where that was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
