"""Peak memory of a run over 1,000, 10,000 and 100,000 photographs: the process that trains, and one that loads.

    python benchmarks/memory.py --output benchmarks/results/memory.json

Each size is a run of its own in a fresh process: photographs are found, decoded once, kept, and loaded for one epoch by
two workers. The photographs are tiny, so that what grows with their number is not hidden behind their pixels.
Linux alone: figures come from /proc.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 16  # px; a cached square is 1 KiB
WORKERS = 2
MIB = 2**20


def write_photographs(root: Path, count: int) -> None:
    """Two classes of tiny JPEGs, no two of the same content, in folders of at most 1000."""
    generator = np.random.default_rng(0)
    kinds = []
    for _ in range(64):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), np.uint8)).resize((48, 32)).save(file, "JPEG")
        kinds.append(file.getvalue())
    for number in range(count):
        folder = root / ("BLD", "No_BLD")[number % 2] / f"site_{number // 1000:03d}"
        if number % 1000 < 2:
            folder.mkdir(parents=True, exist_ok=True)
        # What follows the end of a JPEG is another part of the file, but no pixel.
        (folder / f"IMG_{number:07d}.jpg").write_bytes(kinds[number % 64] + number.to_bytes(8, "big"))


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
    from bldml.training.datamodule import LeafDataModule

    before = status(os.getpid(), "VmRSS")
    datamodule = LeafDataModule(root=root, positive_class="BLD", image_size=SIZE, num_workers=WORKERS, batch_size=16)
    start = time.monotonic()
    datamodule.read_for_fit()
    reading = time.monotonic() - start
    after = status(os.getpid(), "VmRSS")
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
    assert datamodule.collection is not None
    return {
        "photographs": sum(len(split) for split in datamodule.collection.splits.values()),
        "parent_before_reading_mib": round(before),
        "parent_after_reading_mib": round(after),
        "parent_peak_mib": round(status(os.getpid(), "VmHWM")),
        "worker_peak_mib": round(peak),
        "worker_private_at_first_batch_mib": round(at_start),
        "worker_private_at_the_end_mib": round(at_end),
        "reading_s": round(reading, 1),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--hardware", default=f"{platform.machine()}, {os.cpu_count()} cores")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)  # the run of one size
    options = parser.parse_args()
    if options.root is not None:
        sys.stdout.write(json.dumps(measure(options.root)))
        return
    runs = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "leaves"
            write_photographs(root, count)
            command = [sys.executable, __file__, "--root", str(root)]
            environment = {**os.environ, "BLDML_CACHE": f"{folder}/pixels"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
            runs.append(json.loads(done.stdout))
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
