"""Time and memory of an audit over many small files, first and again.

Draws the files (random clouds, so that no two are alike; one in a hundred is a copy of another, turned and compressed
again), audits them in a process of its own, and audits them again from what was kept.

    python benchmarks/audit.py --files 5000 50000

With `--against FOLDER`, a checkout of an earlier version, that version audits the same files too, in turn.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

RESULT = Path(__file__).parent / "results" / "audit.json"
PORTION = 500
NO_LOOK_ALIKES = ["--look_alikes=off"]
PLANTED = 100  # one file in so many is a near duplicate


def draw(place: tuple[Path, int, int]) -> None:
    """Draw the files of some numbers: clouds in 192 × 144 pixels."""
    folder, start, stop = place
    for number in range(start, stop):
        copied = number - 1 if number % PLANTED == 1 else number
        generator = np.random.default_rng(copied)
        coarse, fine = (generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((4, 5), (18, 24)))
        one, two = (Image.fromarray(part).resize((192, 144), Image.Resampling.BICUBIC) for part in (coarse, fine))
        picture, quality = Image.blend(one, two, 0.4), 85
        if copied != number:
            picture, quality = picture.transpose(Image.Transpose.ROTATE_90), 60
        path = folder / ("BLD" if number // 2 % 2 else "healthy") / f"leaf_{number:06}.jpg"
        picture.save(path, quality=quality)


def memory_of(process: int) -> dict[int, int]:
    """Proportional set size in bytes of a process and of all that it has started, by process."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(folder.name))
    found, waiting = {}, [process]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            found[one] = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return found


def processor_seconds() -> float:
    """Time that processes which were waited for have had a processor, with all that they started."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def audit(root: Path, output: Path, *options: str, version: Path | None = None) -> dict[str, float | int]:
    """Audit in a process of its own, watched: seconds, most memory of the process itself and of all together.

    Another version than this one is taken from its checkout.
    """
    command = [sys.executable, "-m", "bldml", "audit", str(root), "--output", str(output), *options]
    environment = {**os.environ, "PYTHONPATH": str(version.resolve())} if version else None
    begun, before = time.perf_counter(), processor_seconds()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=output.parent
    )
    itself, together = [0], [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            found = memory_of(process.pid)
            itself.append(found.get(process.pid, 0))
            together.append(sum(found.values()))

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    seconds = time.perf_counter() - begun
    done.set()
    thread.join()
    return {
        "exit_code": code,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds() - before, 1),
        "itself_mib": round(max(itself) / 2**20),
        "together_mib": round(max(together) / 2**20),
    }


def measure(count: int, against: Path | None) -> dict[str, object]:
    """Draw so many files and audit them twice, and without planted copies; the earlier version audits them before."""
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder) / "data", Path(folder) / "audit"
        for label in ("BLD", "healthy"):
            (root / label).mkdir(parents=True)
        portions = [(root, start, min(start + PORTION, count)) for start in range(0, count, PORTION)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(draw, portions))
        before: list[dict[str, float | int]] = []
        audits = []
        for options in (NO_LOOK_ALIKES, NO_LOOK_ALIKES, [*NO_LOOK_ALIKES, "--power=off"]):
            if against is not None and len(before) < 2:
                before.append(audit(root, Path(folder) / "before", version=against))
            audits.append(audit(root, output, *options))
        content = json.loads((output / "audit.json").read_text(encoding="utf-8"))
        with (output / "pairs.csv").open(encoding="utf-8") as file:
            near = {frozenset(line.split(",")[1:3]) for line in file if line.startswith("near,")}
        planted = {
            frozenset(f"{'BLD' if n // 2 % 2 else 'healthy'}/leaf_{n:06}.jpg" for n in (number - 1, number))
            for number in range(1, count, PLANTED)
        }
        return {
            "files": count,
            "first": audits[0],
            "again": audits[1],
            "again_without_planted_copies": audits[2],
            **({"earlier_version_first": before[0], "earlier_version_again": before[1]} if before else {}),
            "planted_near_duplicates": len(planted),
            "found": len(planted & near),
            "false": len(near - planted),
            "page_mib": round((output / "audit.html").stat().st_size / 2**20, 2),
            "kept_mib": round((output / "examined.jsonl").stat().st_size / 2**20, 1),
            "findings": content["findings_by_severity"],
        }


def main() -> None:
    """Measure each size and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--against", type=Path, help="checkout of an earlier version, without look-alikes")
    parser.add_argument("--hardware", default="AMD EPYC, 2 cores")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    results = []
    for count in arguments.files:
        results.append(measure(count, arguments.against))
        sys.stdout.write(f"{json.dumps(results[-1])}\n")
        sys.stdout.flush()
    load = round(os.getloadavg()[2], 1)
    content = {"hardware": arguments.hardware, "load_average_15_min": load, "results": results}
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
