"""A survey of many drawn leaves: photographs per second, peak memory, and what kills change (nothing).

    nice -n 19 python benchmarks/survey.py RUN --photographs 10000

Draws 1,000 leaves and repeats them under other names, with a position each. RUN is a run folder, such as that of
`make demo`. The survey runs three times in processes of its own: of a tenth of the photographs, of all in one go, and
of all with two kills. The results of the last two must be equal.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from bldml.dataset.synthetic.leaves import write_leaves

DRAWN = 1000
RESULTS = ("survey.csv", "survey.geojson", "units.csv", "survey.qml")


def draw(folder: Path, count: int) -> None:
    """Write the photographs: copies of drawn leaves in folders of ten, each ten metres from the one before."""
    with tempfile.TemporaryDirectory() as drawn:
        write_leaves(Path(drawn) / "leaves", images_per_class=DRAWN // 2, size=160, seed=5)
        leaves = sorted((Path(drawn) / "leaves").rglob("*.jpg"))
        for number in range(count):
            tree = folder / f"tree_{number // 10:05}"
            tree.mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            minutes, seconds = divmod(number % 10_000 * 0.33, 60)
            exif[0x8825] = {1: "N", 2: (47.0, minutes, seconds), 3: "E", 4: (8.0, 15.0, 0.0)}
            with Image.open(leaves[number % len(leaves)]) as picture:
                picture.save(tree / f"leaf_{number:06}.jpg", exif=exif, quality=92)


def survey(run: Path, photographs: Path, output: Path, kills: tuple[int, ...] = ()) -> dict[str, float]:
    """Run the survey to its end, and return seconds and peak memory; kill it when so many lines are written."""
    command = [sys.executable, "-m", "bldml", "survey", str(run), str(photographs), f"--output={output}"]
    command += ["--group=gps:5m", "--sheet=50", "--device=cpu"]
    for least in kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        file = output / "progress.jsonl"
        while not file.exists() or file.read_bytes().count(b"\n") < least:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return {"seconds": round(time.perf_counter() - begun, 1), "peak MiB": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--photographs", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "survey.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "all", options.photographs)
        draw(folder / "tenth", options.photographs // 10)
        tenth = survey(options.run, folder / "tenth", folder / "of tenth")
        whole = survey(options.run, folder / "all", folder / "of all")
        third = options.photographs // 3
        killed = survey(options.run, folder / "all", folder / "killed", (third, 2 * third))
        equal = all((folder / "killed" / n).read_bytes() == (folder / "of all" / n).read_bytes() for n in RESULTS)
        size = {n: (folder / "of all" / n).stat().st_size for n in (*RESULTS, "triage.html", "progress.jsonl")}
    result: dict[str, Any] = {
        "photographs": options.photographs,
        "a tenth": tenth,
        "all": whole | {"photographs per second": round(options.photographs / whole["seconds"], 1)},
        "the last part, after two kills": killed,
        "results after two kills are equal": equal,
        "bytes": size,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
