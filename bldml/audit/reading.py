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
from bldml.errors import DatasetError

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
        DatasetError: A process was killed, or the store cannot be written.
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
        missing = [sample for _, sample in samples if sample.name not in results]
        for sample, record in _examine_missing(missing, workers, len(samples), keypoints is not None):
            if keypoints is not None and record.keypoints:
                keypoints.add(record.digest, record.keypoints)
                record = replace(record, keypoints=b"")
            results[sample.name] = record
            store.add(sample.path, record)
            progress.update()
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
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield from zip(samples, pool.map(examine, paths, outside, chunksize=BATCH), strict=True)
    except BrokenProcessPool as error:
        raise DatasetError(
            "A worker process was killed, probably because memory ran out. Run the same command again to resume; if it "
            "happens again, use fewer workers (--workers 1).",
            "worker-killed",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
