"""Examination of all photographs, in parallel; files examined before are skipped."""

import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial

from bldml.audit.examine import FileRecord, Row, examine_file
from bldml.audit.keypoints import KeypointStore
from bldml.audit.store import Store
from bldml.dataset.samples import Collection, Sample
from bldml.errors import MachineError
from bldml.io.safe_points import safe_point
from bldml.training.resume.signals import blocked, ignore_in_worker

BATCH = 16  # files that a process receives at a time
MAX_MEASURED_OUTSIDE = 2000  # photographs, about; it takes 2 ms each, and more would hardly change what is found
FILES_PER_WORKER = 64  # at least; for fewer, starting a process takes longer than it saves


def examine_all(
    collection: Collection,
    store: Store,
    workers: int,
    *,
    keypoints: KeypointStore | None = None,
    quiet: bool = False,
) -> list[Row]:
    """Examine every photograph; return one row for each, in the collection's order.

    Records are looked up in the stores, and each new one is added at once; without a store of keypoints, photographs
    are examined without them. If `quiet`, or if standard error is not a terminal, no progress bar is shown.

    Raises:
        MachineError: A process was killed, or the photographs are gone.
        DatasetError: The store cannot be written.
    """
    from tqdm import tqdm

    samples = [(split, sample) for split, members in collection.splits.items() for sample in members]
    results: dict[str, FileRecord] = {}
    disable = True if quiet else None  # None: shown on a terminal only
    with tqdm(total=len(samples), desc="Photographs", unit="", disable=disable, smoothing=0.05) as progress:
        for _, sample in samples:
            known = store.find(sample.path)
            if known is not None and (keypoints is None or known.digest in keypoints):
                results[sample.name] = known
                progress.update()
            safe_point()
        missing = [sample for _, sample in samples if sample.name not in results]
        for sample, record in _examine_missing(missing, workers, len(samples), keypoints is not None):
            if keypoints is not None and record.keypoints:
                keypoints.add(record.digest, record.keypoints)
                record = replace(record, keypoints=b"")
            results[sample.name] = record
            store.add(sample.path, record)
            progress.update()
            safe_point(kept=1)
    return [Row(sample, split, results[sample.name]) for split, sample in samples]


def is_measured_outside(name: str, total: int) -> bool:
    """Return whether what lies outside the leaf is measured in this photograph of so many; its name alone decides."""
    chance = zlib.crc32(name.encode("utf-8", "surrogatepass")) / 2**32
    return chance * total < MAX_MEASURED_OUTSIDE


def _examine_missing(
    samples: Sequence[Sample], workers: int, total: int, keypoints: bool
) -> Iterator[tuple[Sample, FileRecord]]:
    examine = partial(examine_file, keypoints=True) if keypoints else examine_file
    paths = [sample.path for sample in samples]
    outside = [is_measured_outside(sample.name, total) for sample in samples]
    workers = min(workers, len(samples) // FILES_PER_WORKER)
    if workers <= 1:
        yield from zip(samples, map(examine, paths, outside), strict=True)
        return
    # Processes, because for small files most of the time is spent in Python itself. Spawned, because a fork would copy
    # the locks of running threads.
    with blocked():  # which starts the process that tracks semaphores
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    before = {process.pid for process in multiprocessing.active_children()}
    try:
        with blocked():  # and the workers
            results = pool.map(examine, paths, outside, chunksize=BATCH)
        processes = [process for process in multiprocessing.active_children() if process.pid not in before]
        yield from zip(samples, results, strict=True)
    except BrokenProcessPool as error:
        raise _loss(processes) from error
    except OSError as error:
        message = f"Worker processes cannot be started: {error.strerror}. Use fewer (--workers, now {workers})."
        raise MachineError(message, "workers-not-startable", reason=error.strerror) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _loss(processes: "Sequence[multiprocessing.process.BaseProcess]") -> MachineError:
    """Return the error of a pool that broke because one of its processes ended; it has ended the others by SIGTERM."""
    for process in processes:
        process.join(1.0)
    codes = {process.exitcode for process in processes} - {None, 0}
    code = next(iter(codes - {-signal.SIGTERM} or codes), None)
    how, cause = "ended", ""
    if code is not None and code < 0:
        how = f"was killed (signal {-code})"
        cause = " The usual cause is memory: the system ends a process when memory runs out." if code == -9 else ""
    elif code is not None:
        how = f"ended by itself (exit code {code})"
    message = f"A worker process {how}.{cause} Run the same command again to resume. If it happens again, ask for more "
    message += "memory, or use fewer workers (--workers 1)."
    return MachineError(message, "worker-killed", found=code)


def _start_worker() -> None:
    """Ignore signals, which the parent handles, and exit when the parent ends, even if it is killed."""
    ignore_in_worker()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
