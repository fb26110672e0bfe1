"""Settings of the process: freed memory, how threads wait, garbage; and Session, which restores the process.

Loads no torch by itself.

By default glibc maps separate pages for every block above 32 MiB (128 KiB at first) and unmaps them when the block is
freed, and it trims the top of its heap. The pages of the next tensor must then be mapped and zeroed again.

By default the threads of GNU's OpenMP, which torch is built with, spin for some milliseconds after each part of an
operation. Loader processes and other programs then compete with the thread that all others wait for.
`benchmarks/README.md` says what both cost, and where they make no difference.
"""

import atexit
import ctypes
import gc
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

from bldml.io.platform import LINUX
from bldml.training.lightning_internals import parsing_state, put_parsing_state

# Lightning's loggers, whose messages `hush` filters.
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# Fits an int, and larger than any process here.
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; useful only if tensors are on the CPU.

    The process then stays at its peak size, which it would reach again in the next step. Blocks of any size come from
    the heap. The result tells whether the C library supports the setting.
    """
    if not LINUX:
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


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Search for no garbage while libraries are loaded, and later not among their objects; for a process of its own.

    Torch and Lightning come with a million objects that stay. Visiting them again and again takes much of the time
    that loading takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # some libraries count what is left at the very end, and complain
        gc.enable()


def default_seed() -> int:
    """The seed of `lightning.seed_everything`; 0 where that was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class Session(ExitStack):
    """Restore the state of the process at the end of a command, however it ends.

    Restored are the environment variables, the filters of warnings and of Lightning's loggers, jsonargparse's settings
    and torch's, the states of the random generators, and what was registered by `callback` (signal handlers).

    Not restored: the setting of the C library for freed memory (`keep_freed_memory`), which it cannot report; how long
    threads of OpenMP spin, which is read once, when torch is loaded; and modules that were imported.

    A process that ends with its command needs no session.
    """

    def __enter__(self) -> Self:
        """Take the state of the process, and that of the libraries that are loaded."""
        super().__enter__()
        self.callback(_put_environment, dict(os.environ))
        self.enter_context(warnings.catch_warnings())
        for name in LOGGERS:
            logger = logging.getLogger(name)
            self.callback(setattr, logger, "filters", list(logger.filters))
        self._taken: set[str] = set()
        self.keep_libraries()
        return self

    def keep_libraries(self) -> None:
        """Take the state of those libraries that have been loaded since; to be called before a command changes it."""
        for name, settings in (("jsonargparse", _parsing), ("torch", _of_torch), ("numpy", _random)):
            if name in sys.modules and name not in self._taken:
                self._taken.add(name)
                for put, value in settings():
                    self.callback(put, value)


# Functions that restore something, with what they are to restore.
Restorers = Iterator[tuple[Callable[[Any], Any], Any]]


@contextmanager
def exact_arithmetic(device_type: str) -> Iterator[None]:
    """Compute in float32 within this context: no autocast, no TF32 on a GPU, no bf16 inside float32 on a CPU.

    Whatever precision a training has, its published results do not depend on it.
    """
    import torch

    backends: Any = torch.backends  # torch gives these no types
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def _put_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _parsing() -> Restorers:
    yield put_parsing_state, parsing_state()


def _random() -> Restorers:
    import numpy as np

    yield random.setstate, random.getstate()
    yield np.random.set_state, np.random.get_state()


def _of_torch() -> Restorers:
    import torch

    yield torch.set_rng_state, torch.get_rng_state()
    yield torch.set_num_threads, torch.get_num_threads()
    yield torch.set_default_dtype, torch.get_default_dtype()
    yield torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()
    yield torch.set_grad_enabled, torch.is_grad_enabled()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # a process without a GPU in use must not begin
        yield torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    put = partial(torch.use_deterministic_algorithms, warn_only=warn_only)
    yield put, torch.are_deterministic_algorithms_enabled()
    for name in ("benchmark", "deterministic"):
        yield partial(setattr, torch.backends.cudnn, name), getattr(torch.backends.cudnn, name)
