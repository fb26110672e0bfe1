"""Peak memory of a run over 1,000, 10,000 and 100,000 photographs: the process that trains, and one that loads.

    python benchmarks/memory.py --output benchmarks/results/memory.json

Each size is a run of its own in a fresh process, which does what a fit does apart from the network, and says the peak
of each step: photographs are found, decoded once and kept, compared between the splits, written down in a run folder,
and loaded for one epoch by two workers. Another process then finds and reads them again. The photographs are tiny, so
that what grows with their number is not hidden behind their pixels. Linux alone: figures come from /proc.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

SIZE = 16  # px; a cached image is 1 KiB
WORKERS = 2
MIB = 2**20


def write_photographs(root: Path, count: int) -> None:
    """Two classes of tiny JPEGs, no two alike, of seven cameras and many moments, in folders of at most 1000."""
    generator = np.random.default_rng(0)
    for number in range(count):
        folder = root / ("BLD", "No_BLD")[number % 2] / f"site_{number // 1000:03d}"
        if number % 1000 < 2:
            folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(generator.integers(0, 255, (8, 8, 3), np.uint8)).resize((48, 32))
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = f"Camera {number % 7}"
        exif[ExifTags.Base.DateTime] = f"{datetime(2024, 6, 1) + timedelta(minutes=number):%Y:%m:%d %H:%M:%S}"
        picture.save(folder / f"leaf {number * 7919:09d}.jpg", exif=exif)


def status(process: int, key: str) -> float:
    """A figure of /proc/<process>/status, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def private(process: int) -> float:
    """What a process has for itself, in MiB: its own pages, and copies of those that it was forked with."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024


def children() -> list[int]:
    """Processes that this one has started."""
    own = os.getpid()
    return [int(number) for number in Path(f"/proc/{own}/task/{own}/children").read_text().split()]


def measure(root: Path) -> dict[str, Any]:
    """One run, in this process."""
    from bldml.app.photographs import check_splits, photographs_table, write_phashes
    from bldml.dataset.manifest import to_manifest
    from bldml.run.folder import RunFolder
    from bldml.training.data.datamodule import LeafDataModule

    steps: dict[str, Any] = {"before": {"peak_mib": round(status(os.getpid(), "VmRSS"))}}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = time.monotonic()
        yield
        steps[name] = {
            "peak_mib": round(status(os.getpid(), "VmHWM")),
            "after_mib": round(status(os.getpid(), "VmRSS")),
            "s": round(time.monotonic() - start, 1),
        }

    datamodule = LeafDataModule(root=root, positive_class="BLD", image_size=SIZE, num_workers=WORKERS, batch_size=16)
    with step("read"):
        data = datamodule.read_for_fit()
    run = RunFolder(Path(os.environ["BLDML_CACHE"]).parent)
    with step("compare"):
        check_splits(data, datamodule.on_leak)
    with step("write"):
        for text in (photographs_table(data), to_manifest(data.collection), data.seen_digests()):
            assert text
        write_phashes(run, data)
        data.contents.forget_phashes()
    with step("load"):
        workers = load(datamodule)
    return {
        "photographs": len(data.contents),
        "parent_peak_mib": max(figures["peak_mib"] for figures in steps.values()),
        "parent": steps,
        **workers,
    }


def measure_again(root: Path) -> dict[str, int]:
    """Reading photographs whose images are cached already, in this process."""
    from bldml.training.data.datamodule import LeafDataModule

    LeafDataModule(root=root, positive_class="BLD", image_size=SIZE).read_for_fit()
    return {"parent_peak_when_read_again_mib": round(status(os.getpid(), "VmHWM"))}


def load(datamodule: Any) -> dict[str, int]:
    """One epoch; the memory of the processes that load."""
    batches = iter(datamodule.train_dataloader())
    next(batches)
    workers = [worker for worker in children() if worker]
    at_start = max(private(worker) for worker in workers)
    at_end = peak = 0.0
    left = len(datamodule.train_dataloader()) - 1
    for number, _ in enumerate(batches, 1):
        # The last batches are asked for before they are taken: looking at 20 before the end is late enough.
        if number == max(1, left - 20):
            at_end = max(private(worker) for worker in workers)
            peak = max(status(worker, "VmHWM") for worker in workers)
    return {
        "worker_peak_mib": round(peak),
        "worker_private_at_first_batch_mib": round(at_start),
        "worker_private_at_the_end_mib": round(at_end),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--hardware", default=f"{platform.machine()}, {os.cpu_count()} cores")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)  # the run of one size
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)  # only read
    options = parser.parse_args()
    if options.root is not None:
        sys.stdout.write(json.dumps(measure_again(options.root) if options.again else measure(options.root)))
        return
    runs = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "leaves"
            write_photographs(root, count)
            command = [sys.executable, __file__, "--root", str(root)]
            environment = {**os.environ, "BLDML_CACHE": f"{folder}/pixels"}
            once, again = (
                json.loads(
                    subprocess.run([*command, *more], check=True, stdout=subprocess.PIPE, env=environment).stdout
                )
                for more in ((), ("--again",))
            )
            runs.append(once | again)
            sys.stderr.write(f"{runs[-1]}\n")
    result = {
        "workers": WORKERS,
        "image_size": SIZE,
        "runs": runs,
        "hardware": options.hardware,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
