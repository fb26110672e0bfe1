"""All photographs examined, in parallel and only where that is not known yet."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from bldml.audit.examine import Examined, examine_file
from bldml.audit.store import Store
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import Collection, Sample
from bldml.errors import DatasetError

PORTION = 16  # files that a process is given at once
WORTH_A_PROCESS = 64  # files; for fewer, starting one takes longer than it saves


@dataclass(frozen=True, eq=False)
class Row:
    """One photograph of the set.

    Attributes:
        sample: Which.
        split: Its split.
        found: What its file holds.
    """

    sample: Sample
    split: str
    found: Examined

    @property
    def name(self) -> str:
        """The sample's name."""
        return self.sample.name

    @property
    def metadata(self) -> Metadata:
        """What the file says of itself; without size where even that cannot be had."""
        return self.found.metadata or Metadata(0, 0)


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_all(collection: Collection, store: Store, workers: int, *, quiet: bool = False) -> list[Row]:
    """Examine every photograph.

    Args:
        collection: The photographs.
        store: Earlier examinations; new ones are added at once.
        workers: Processes, at least 1.
        quiet: Show no progress; there is none anyway where the error stream is no terminal.

    Returns:
        A row for each photograph, in the collection's order.

    Raises:
        DatasetError: A process was killed, or the store cannot be written.
    """
    from tqdm import tqdm

    samples = [(split, sample) for split, found in collection.splits.items() for sample in found]
    results: dict[str, Examined] = {}
    disable = True if quiet else None  # None: where there is no terminal
    with tqdm(total=len(samples), desc="Photographs", unit="", disable=disable, smoothing=0.05) as progress:
        missing: list[Sample] = []
        for _, sample in samples:
            known = store.find(sample.path)
            if known is None:
                missing.append(sample)
            else:
                results[sample.name] = known
                progress.update()
        for sample, found in _examine_all(missing, workers):
            results[sample.name] = found
            store.add(sample.path, found)
            progress.update()
    return [Row(sample, split, results[sample.name]) for split, sample in samples]


def _examine_all(samples: Sequence[Sample], workers: int) -> Iterator[tuple[Sample, Examined]]:
    workers = min(workers, len(samples) // WORTH_A_PROCESS)
    if workers <= 1:
        for sample in samples:
            yield sample, examine_file(sample.path)
        return
    # Processes, because with small files most of the time goes to Python itself. Spawned, because a fork would copy
    # the locks of threads that run here.
    context = multiprocessing.get_context("spawn")
    portions = deque(samples[start : start + PORTION] for start in range(0, len(samples), PORTION))
    waiting: deque[tuple[Sequence[Sample], Future[list[Examined]]]] = deque()
    pool = ProcessPoolExecutor(workers, context, initializer=_start)
    try:
        while portions or waiting:
            while portions and len(waiting) < 4 * workers:
                portion = portions.popleft()
                waiting.append((portion, pool.submit(_examine_portion, [sample.path for sample in portion])))
            portion, future = waiting.popleft()
            yield from zip(portion, future.result(), strict=True)
    except BrokenProcessPool as error:
        raise DatasetError(
            "A process that reads photographs was killed, perhaps for want of memory. What was read is kept: run the "
            "same command again, with fewer processes (--workers 1) if it happens again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _examine_portion(paths: list[Path]) -> list[Examined]:
    return [examine_file(path) for path in paths]


def _start() -> None:
    """Leave Ctrl-C to the parent, and end with it even where it is killed: nobody else would end this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
