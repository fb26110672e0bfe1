"""Time and memory of an audit over many small files, first and again.

Draws the files (random clouds, so that no two are alike; one in a hundred is a copy of another, turned and compressed
again), audits them in a process of its own, and audits them again from what was kept.

    python benchmarks/audit.py --files 5000 50000

With `--against FOLDER …`, checkouts of earlier versions, each audits the same files too, in turn. No version searches
look-alikes.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
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
HERE = Path(__file__).parents[1]
NO_LOOK_ALIKES = "--look_alikes=off"
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


def commit(version: Path) -> str:
    """The commit of a checkout."""
    command = ["git", "-C", str(version), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def draw_all(root: Path, count: int) -> list[str]:
    """Draw so many files, by all processors; returns their paths below the root, by number."""
    for label in ("BLD", "healthy"):
        (root / label).mkdir(parents=True)
    portions = [(root, start, min(start + PORTION, count)) for start in range(0, count, PORTION)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, portions))
    return [f"{'BLD' if number // 2 % 2 else 'healthy'}/leaf_{number:06}.jpg" for number in range(count)]


def watched(
    command: list[str], version: Path, folder: Path, variables: dict[str, str] | None = None
) -> dict[str, float | int]:
    """Run a command of a version in a folder: exit code, seconds, most memory of it alone and of all that it starts."""
    environment = {**os.environ, **(variables or {}), "PYTHONPATH": str(version.resolve())}
    begun, before = time.perf_counter(), processor_seconds()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
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
    with contextlib.suppress(ProcessLookupError):  # loader processes of a fit that was stopped
        os.killpg(process.pid, signal.SIGKILL)
    return {
        "exit_code": code,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds() - before, 1),
        "itself_mib": round(max(itself) / 2**20),
        "together_mib": round(max(together) / 2**20),
    }


def audit(root: Path, output: Path, *options: str, version: Path = HERE) -> dict[str, float | int]:
    """Audit by a version, with those of the options that it has."""
    source = (version / "bldml" / "audit" / "command.py").read_text(encoding="utf-8")
    known = [one for one in options if one.partition("=")[0].strip("-") in source]
    return watched(
        [sys.executable, "-m", "bldml", "audit", str(root), "--output", str(output), *known], version, output.parent
    )


def measure(count: int, against: list[Path]) -> dict[str, object]:
    """Draw so many files; each version audits them twice, in turn, and this one without planted copies too."""
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder) / "data", Path(folder) / "audit"
        paths = draw_all(root, count)
        earlier: dict[str, dict[str, object]] = {commit(version): {} for version in against}
        result: dict[str, object] = {"files": count}
        for when in ("first", "again"):
            for version in against:
                output_of = Path(folder) / commit(version)
                earlier[commit(version)][when] = audit(root, output_of, NO_LOOK_ALIKES, version=version)
            result[when] = audit(root, output, NO_LOOK_ALIKES)
        result["again_without_planted_copies"] = audit(root, output, NO_LOOK_ALIKES, "--power=off")
        content = json.loads((output / "audit.json").read_text(encoding="utf-8"))
        with (output / "pairs.csv").open(encoding="utf-8") as file:
            near = {frozenset(line.split(",")[1:3]) for line in file if line.startswith("near,")}
        planted = {frozenset(paths[number - 1 : number + 1]) for number in range(1, count, PLANTED)}
        return {
            **result,
            "earlier_versions": earlier,
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
    parser.add_argument("--against", type=Path, nargs="+", default=[], help="checkouts of earlier versions")
    parser.add_argument("--hardware", default="AMD EPYC, 2 cores")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    results = []
    for count in arguments.files:
        results.append(measure(count, arguments.against))
        sys.stdout.write(f"{json.dumps(results[-1])}\n")
        sys.stdout.flush()
    load = round(os.getloadavg()[2], 1)
    content = {"hardware": arguments.hardware, "now": commit(HERE), "load_average_15_min": load, "results": results}
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
