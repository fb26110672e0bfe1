"""The C library's memory allocator, told to keep what was freed, because training asks for the same again at once.

By default glibc gives every block above 32 MiB (128 KiB in the beginning) pages of its own and takes them away
when it is freed, and it cuts off the top of its heap; the next tensor's pages are then made and zeroed anew.
`benchmarks/results/training.json` says what that costs.
"""

import ctypes
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
