"""How fast `bldml fit` trains: against the plain way (`reference.py`) and against a bare loop (`bare.py`), in one run.

    python benchmarks/training.py FOLDER --positive_class diseased --output benchmarks/results/training.json

FOLDER holds a folder of photographs a class. It is divided as `fit` divides it, and the same division is given to all.
Each way is a process of its own, one after the other, several times in turn (`--rounds`), so that what else the machine
does hits all alike; the medians are compared. Of each process the second epoch and later ones count: the first fills
caches. With --megapixels the photographs are enlarged first.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bldml.dataset.folders import read_folders
from bldml.dataset.images import load_rgb
from bldml.training.backbones import BACKBONES

HERE = Path(__file__).parent
# glibc's own names for what `training/process.py` sets.
GLIBC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}
# GNU OpenMP's default, where `training/process.py` sets less.
STOCK_THREADS = {"GOMP_SPINCOUNT": "300000"}
Rates = dict[str, float]


def divide(root: Path, to: Path, megapixels: float | None, most: int) -> None:
    """Lay out train/, val/ and test/ as copies, enlarged if wanted."""
    for split, samples in read_folders(root).splits.items():
        for sample in samples[:: max(1, -(-len(samples) // most))]:
            place = to / split / sample.class_name / sample.path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if megapixels is None:
                shutil.copy(sample.path, place)  # links out of a data folder are not followed
            else:
                photograph = load_rgb(sample.path)
                factor = (megapixels * 1e6 / (photograph.width * photograph.height)) ** 0.5
                size = (round(photograph.width * factor), round(photograph.height * factor))
                photograph.resize(size, Image.Resampling.BICUBIC).save(place.with_suffix(".jpg"), quality=92)


def rates(records: list[dict[str, Any]]) -> Rates:
    """Photographs a second of training, validation and the whole epoch, from the second epoch on."""
    later = records[1:]
    train, val = (sum(record[f"{part}_seconds"] for record in later) for part in ("train", "val"))
    n, m = (sum(record[part] for record in later) for part in ("train", "val"))
    return {"train": n / train, "val": m / val, "epoch": (n + m) / (train + val)}


def run(command: list[str], environment: dict[str, str]) -> str:
    """The output of a process; its errors are shown."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


def reference(folder: Path, options: argparse.Namespace, unfrozen: int, environment: dict[str, str]) -> Rates:
    """The plain way."""
    command = [
        sys.executable, str(HERE / "reference.py"), str(folder), f"--backbone={options.backbone}",
        f"--size={options.size}", f"--unfrozen={unfrozen}", "--epochs=2", f"--workers={options.workers}",
    ]  # fmt: skip
    return rates([json.loads(line) for line in run(command, environment).splitlines()])


def fit(
    folder: Path, options: argparse.Namespace, unfrozen: int, *more: str, environment: dict[str, str] | None = None
) -> Rates:
    """`bldml fit`."""
    with tempfile.TemporaryDirectory() as work:
        times = Path(work) / "times.jsonl"
        command = [
            sys.executable, "-m", "bldml", "fit", f"--model.backbone={options.backbone}", "--model.weights=none",
            f"--model.image_size={options.size}", f"--data.root={folder}", "--data.batch_size=16",
            f"--data.positive_class={options.positive_class}", f"--data.num_workers={options.workers}",
            f"--data.cache_dir={options.cache}", f"--trainer.max_epochs={options.epochs}",
            f"--trainer.precision={options.precision}", "--trainer.logger=false",
            f"--trainer.default_root_dir={work}", "--unfreezing.start_epoch=0", f"--unfreezing.stages={unfrozen}",
            "--test_after_fit=false", "--report=false", "--early_stopping.patience=100", "--trust_config",
            "--trainer.callbacks+=benchmarks.epochs.EpochTimes", *more,
        ]  # fmt: skip
        run(command, {"EPOCH_TIMES": str(times), "PYTHONPATH": str(HERE.parent)} | (environment or {}))
        return rates([json.loads(line) for line in times.read_text().splitlines()])


def bare(
    folder: Path, options: argparse.Namespace, unfrozen: int, *more: str, environment: dict[str, str] | None = None
) -> Rates:
    """The bare loop."""
    command = [
        sys.executable, str(HERE / "bare.py"), f"--backbone={options.backbone}", f"--size={options.size}",
        f"--unfrozen={unfrozen}", f"--precision={options.precision}", *more,
    ]  # fmt: skip
    found = json.loads(run(command, environment or {}))
    n, m = (sum(path.is_file() for path in (folder / split).rglob("*")) for split in ("train", "val"))
    found["epoch"] = (n + m) / (n / found["train"] + m / found["val"])
    return {key: value for key, value in found.items() if key in ("train", "val", "epoch", "gpu_gib")}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--positive_class", required=True)
    parser.add_argument("--backbone", default="mobilenet_v3_large", choices=list(BACKBONES))
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--unfrozen", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="bf16-mixed", choices=("bf16-mixed", "16-mixed", "32-true"))
    parser.add_argument("--megapixels", type=float, help="enlarge the photographs to this size")
    parser.add_argument("--photographs", type=int, default=10**6, help="at most so many in a split")
    parser.add_argument("--ways", nargs="+", default=["reference", "reference_glibc", "fit", "fit_uncached", "bare"])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder, options.cache = Path(work) / "photographs", Path(work) / "cache"
        divide(options.folder, folder, options.megapixels, options.photographs)
        results: dict[str, Any] = {}
        for unfrozen in options.unfrozen:
            ways = {
                "reference": lambda k=unfrozen: reference(folder, options, k, {}),
                "reference_glibc": lambda k=unfrozen: reference(folder, options, k, GLIBC),
                "fit": lambda k=unfrozen: fit(folder, options, k),
                "fit_uncached": lambda k=unfrozen: fit(folder, options, k, "--data.cache=off"),
                "fit_stock_threads": lambda k=unfrozen: fit(folder, options, k, environment=STOCK_THREADS),
                "fit_compiled": lambda k=unfrozen: fit(folder, options, k, "--model.compile=true"),
                "bare": lambda k=unfrozen: bare(folder, options, k),
                "bare_stock_allocator": lambda k=unfrozen: bare(folder, options, k, "--allocator=stock"),
                "bare_stock_threads": lambda k=unfrozen: bare(folder, options, k, environment=STOCK_THREADS),
                "bare_plain_network": lambda k=unfrozen: bare(folder, options, k, "--plain"),
                "bare_compiled": lambda k=unfrozen: bare(folder, options, k, "--compile"),
            }
            rounds: dict[str, list[Rates]] = {way: [] for way in options.ways}
            for _ in range(options.rounds):
                for way in options.ways:
                    rounds[way].append(ways[way]())
                    sys.stdout.write(f"{unfrozen} stages unfrozen, {way}: {rounds[way][-1]}\n")
                    sys.stdout.flush()
            results[f"{unfrozen} stages unfrozen"] = summary(rounds)
    cpu = next((line.split(":")[1].strip() for line in cpu_lines() if line.startswith("model name")), "unknown")
    record = {
        "what": "photographs a second, medians of the rounds; ratios of these medians",
        "hardware": f"{cpu}, {len(os.sched_getaffinity(0))} cores"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "settings": {k: v for k, v in vars(options).items() if k not in ("folder", "output", "cache")},
        "results": results,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


def summary(rounds: dict[str, list[Rates]]) -> dict[str, Any]:
    """Medians and their ratios."""
    medians = {
        way: {key: statistics.median(rate[key] for rate in found) for key in found[0]} for way, found in rounds.items()
    }
    ratios = {
        f"fit / {way}": {key: medians["fit"][key] / rate[key] for key in rate if key in medians["fit"]}
        for way, rate in medians.items()
        if "fit" in medians and way != "fit"
    }
    return {"medians": medians, "ratios": ratios, "rounds": rounds}


def cpu_lines() -> list[str]:
    """What Linux says of the processor."""
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
