"""Why a loader's worker process ended, or could not send its photographs: what is known, and what to do about it."""

import re
import shutil
import signal
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from bldml.dataset.cache.writer import shown_size
from bldml.errors import BldmlError, MachineError
from bldml.io.platform import signals

SHARED_MEMORY = Path("/dev/shm")  # where Linux has the memory through which workers pass photographs
# The last words of torch's error about a file there: "…</torch_1_2_3>: No space left on device (28)".
_NO_SHARED_MEMORY = re.compile(r"</torch_\S+>.*: ([^:\n]+?)(?: \(\d+\))?\s*$", re.MULTILINE)
_PATIENCE_S = 1.0  # a broken connection may be noticed before the end of the process that broke it
_CRASHES = signals("SIGSEGV", "SIGILL", "SIGABRT", "SIGFPE", "SIGSYS", "SIGTRAP")
_BUS_ERROR = signals("SIGBUS")


def explain_loss(workers: Sequence[BaseProcess], error: Exception) -> MachineError | None:
    """Return the error of a loader that gets no photographs because a worker ended or memory ran out; else None.

    Args:
        workers: The worker processes.
        error: What was raised in waiting for a batch; a mistake that a worker has found (BldmlError) is not explained.
    """
    if isinstance(error, BldmlError):
        return None
    gone = wait([worker.sentinel for worker in workers], _PATIENCE_S)
    for worker in workers:
        if worker.sentinel in gone:  # a process closes its files before it ends
            worker.join(_PATIENCE_S)
    ended = [worker.exitcode for worker in workers if worker.exitcode is not None]
    # Several may have ended, one after the other; that of a signal is the cause.
    code = min(ended, default=None)
    fewer = fewer_workers(len(workers))
    if code is not None and code < 0:
        message = f"A loader process was killed ({_named(-code)}). {_cause(-code)} {fewer}"
        return MachineError(message, "loader-killed", signal=-code, workers=len(workers))
    if code is not None:
        message = f"A loader process ended by itself (exit code {code}). --data.num_workers 0 loads without processes, "
        message += "and so shows the cause."
        return MachineError(message, "loader-ended", found=code, workers=len(workers))
    if found := _NO_SHARED_MEMORY.search(str(error)):
        message = f"Loader processes cannot pass photographs on: {found[1]}. {_shared_memory()} Use fewer processes "
        message += f"(--data.num_workers, which is {len(workers)}; 0 needs none), or a smaller --data.batch_size."
        return MachineError(message, "shared-memory-full", reason=found[1], workers=len(workers))
    if isinstance(error, MemoryError):
        return MachineError(f"A loader process has no memory left. {fewer}", "loader-memory", workers=len(workers))
    return None


def fewer_workers(number: int) -> str:
    """Return how loaders need less memory, where there are so many processes."""
    return (
        "Ask for more memory (--mem in Slurm), or use fewer loader processes "
        f"(--data.num_workers, which is {number}; 0 loads in the main process)."
    )


def _cause(signum: int) -> str:
    if signum == signal.SIGKILL:
        return "The usual cause is memory: the system ends a process when memory runs out."
    if signum in _BUS_ERROR:
        return f"The usual cause is memory. {_shared_memory()}"
    if signum in _CRASHES:
        return "The usual causes are memory and an error in a library; --data.num_workers 0 tells them apart."
    return "The system or another program sent that signal; the usual cause is memory."


def _shared_memory() -> str:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return "Loader processes pass photographs through shared memory."
    return (
        f"Loader processes pass photographs through {SHARED_MEMORY}, of whose {shown_size(usage.total)} "
        f"{shown_size(usage.free)} are free now (a container has more with --shm-size)."
    )


def _named(signum: int) -> str:
    try:
        return f"signal {signum}, {signal.Signals(signum).name}"
    except ValueError:
        return f"signal {signum}"
