"""Interrupt a sweep at random moments, and compare it with one left in peace.

    python benchmarks/sweep.py --photographs FOLDER --positive_class diseased --output benchmarks/results/sweep.json

Two backbones, two seeds, three folds, at 96 px. The sweep gets SIGTERM, SIGUSR1 or SIGKILL (with its runs) at random
moments and is started again by the same command. At the end history.csv, predictions and metrics of all splits, and
weights and optimizer of last.ckpt and best.ckpt must be equal to the last bit; the exit code is 1 if they are not.
"""

import argparse
import csv
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bldml.io.documents import dump_yaml
from bldml.sweep.plan import SweepFolder, read_plan
from bldml.sweep.states import is_finished

KINDS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)
BACKBONES = ("mobilenet_v2_x0_35", "mobilenet_v3_large")
SPLITS = ("train", "val", "test")


def experiment(photographs: Path, positive_class: str, epochs: int) -> dict[str, Any]:
    """Return the experiment."""
    options = {
        "model.weights": "none", "model.image_size": 96, "data.root": str(photographs), "report": False,
        "data.positive_class": positive_class, "data.num_workers": 1, "trainer.max_epochs": epochs,
        "trainer.accelerator": "cpu", "unfreezing.start_epoch": 0, "checkpoint_minutes": 0.1,
    }  # fmt: skip
    return {"options": options, "grid": {"model.backbone": list(BACKBONES)}, "seeds": [1, 2], "folds": 3}


def start(folder: Path, output: str, jobs: int) -> "subprocess.Popen[bytes]":
    """Start the sweep; what it says goes to a file beside its folder."""
    words = ["-m", "bldml", "sweep", "experiment.yaml", "--output", output, "--jobs", str(jobs)]
    with (folder / f"{output}.txt").open("ab") as log:
        environment = {**os.environ, "BLDML_CACHE": str(folder / "cache")}
        return subprocess.Popen([sys.executable, *words], cwd=folder, stdout=log, stderr=log, env=environment)


def kill_with_its_runs(process: "subprocess.Popen[bytes]") -> None:
    """Kill a sweep and the processes that it has started, as when a machine dies."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in (process.pid, *map(int, children)):
        os.kill(number, signal.SIGKILL)


def interrupt_sometimes(
    folder: Path, output: str, jobs: int, times: int, longest: float, rng: random.Random
) -> list[str]:
    """Do the sweep, with so many interruptions; return the name of each signal."""
    done: list[str] = []
    while True:
        process = start(folder, output, jobs)
        if len(done) == times:
            assert process.wait() == 0, (folder / f"{output}.txt").read_text()
            return done
        pause, kind = rng.uniform(5, longest), rng.choice(KINDS)
        while process.poll() is None and not any((folder / output).glob("logs/*.log")):  # it is planning
            time.sleep(0.2)
        try:
            process.wait(pause)
            return done
        except subprocess.TimeoutExpired:
            if kind is signal.SIGKILL:
                kill_with_its_runs(process)
            else:
                process.send_signal(kind)
            process.wait()
            print(f"{kind.name} after {pause:.0f} s, exit code {process.returncode}", flush=True)
            done.append(kind.name)


def differences(ours: SweepFolder, theirs: SweepFolder) -> list[str]:
    """Return what differs between two sweeps of one experiment."""
    found = []
    for run in read_plan(theirs).runs:
        one, other = ours.run(run.name), theirs.run(run.name)
        assert is_finished(one), run.name
        files = [f"evaluations/{split}/{name}" for split in SPLITS for name in ("predictions.csv", "metrics.json")]
        files = [
            name
            for name in ("history.csv", *files)
            if (one.path / name).read_bytes() != (other.path / name).read_bytes()
        ]
        found += [f"{run.name}: {name}" for name in files]
        for path, same in ((one.last_checkpoint, other.last_checkpoint), (one.best_checkpoint, other.best_checkpoint)):
            mine, its = torch.load(path, weights_only=True), torch.load(same, weights_only=True)
            keys = ("epoch", "global_step", "state_dict", "optimizer_states")
            found += [f"{run.name}: {path.name}: {key}" for key in keys if not is_same(mine[key], its[key])]
        looks = [len((place.path / "ledger.csv").read_text().splitlines()) for place in (one, other)]
        if looks[0] != looks[1]:
            found.append(f"{run.name}: {looks[0] - 1} evaluations, not {looks[1] - 1}")
    return found


def photographs_in(sweep: SweepFolder) -> int:
    """Return the number of photographs of a sweep, with those that are sealed."""
    with sweep.final.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def starts(sweep: SweepFolder, name: str) -> int:
    """Return how often a run was started."""
    return len(json.loads((sweep.run(name).path / "stretches.json").read_text(encoding="utf-8"))["stretches"])


def is_same(one: Any, other: Any) -> bool:
    """Return whether nested containers hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(is_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--positive_class", default="diseased")
    parser.add_argument("--interruptions", type=int, default=3)
    parser.add_argument("--longest", type=float, default=90.0, help="seconds between two interruptions, at most")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        content = experiment(options.photographs.absolute(), options.positive_class, options.epochs)
        (folder / "experiment.yaml").write_text(dump_yaml(content))
        times = options.interruptions
        interruptions = interrupt_sometimes(folder, "interrupted", options.jobs, times, options.longest, rng)
        interrupt_sometimes(folder, "whole", options.jobs, 0, options.longest, rng)
        interrupted, whole = SweepFolder(folder / "interrupted"), SweepFolder(folder / "whole")
        found, runs = differences(interrupted, whole), read_plan(whole).runs
        result = {
            "photographs": photographs_in(whole), "runs": len(runs), "backbones": list(BACKBONES),
            "seeds": 2, "folds": 3, "image_size": 96,
            "epochs": options.epochs, "jobs": options.jobs, "interruptions": interruptions,
            "runs_started_twice": sum(starts(interrupted, run.name) > 1 for run in runs), "differences": found,
            "minutes": round((time.monotonic() - began) / 60, 1), "torch": torch.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        }  # fmt: skip
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
