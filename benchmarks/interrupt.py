"""Interrupt one run again and again, at random moments and in random ways, and compare it with one left in peace.

    python benchmarks/interrupt.py --interruptions 50 --output benchmarks/results/interrupt.json
    python -m benchmarks.interrupt --slurm --interruptions 60 --output benchmarks/results/interrupt_slurm.json

With `--slurm`, see interrupt_slurm.py. Without, SIGUSR1 and SIGTERM go to all processes of the run, as Slurm sends
them, and so does SIGKILL, as when a node dies. After each the run is continued by `fit --resume`. At the end weights,
optimizer, history.csv and predictions must be equal to the last bit to those of the reference; the exit code is 1 if
they are not. A run that ends before all interruptions were made is compared, and the next one takes the
others.
"""

import argparse
import csv
import json
import math
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.folder import RunFolder

OPTIONS = (
    "--model.backbone=mobilenet_v2_x0_35",
    "--model.weights=none",
    "--model.image_size=64",
    "--model.freeze_batchnorm=false",
    "--model.lr=1e-2",
    "--data.positive_class=BLD",
    "--data.num_workers=2",
    "--data.batch_size=8",
    "--trainer.accelerator=cpu",
    "--unfreezing={start_epoch: 2, stages: 4, every_n_epochs: 2}",
    "--plateau.patience=3",
    "--early_stopping.patience=100000",
    "--checkpoint_minutes=0.01",
)
KINDS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL)


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A fit in a process group of its own; what it says goes to log.txt."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bldml", "fit", *arguments],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def interrupt(process: subprocess.Popen[bytes], kind: signal.Signals, seconds: float) -> bool:
    """Send a signal to all processes of a run after some seconds; False if it ended before."""
    try:
        process.wait(None if math.isinf(seconds) else seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, kind)
    process.wait()
    return True


def content(run: RunFolder) -> dict[str, Any]:
    """Everything that must be equal."""
    found: dict[str, Any] = {
        str(path.relative_to(run.path)): path.read_text()
        for path in (run.history, *sorted(run.path.glob("evaluations/*/predictions.csv")))
    }
    for path in (run.best_checkpoint, run.last_checkpoint):
        checkpoint = torch.load(path, weights_only=True)
        for key in ("state_dict", "optimizer_states", "callbacks"):
            for name, value in flatten(checkpoint[key], f"{path.name}:{key}"):
                # The run folders have different names.
                found[name.replace(str(run.path), "")] = (
                    value.replace(str(run.path), "") if isinstance(value, str) else value
                )
    return found


def flatten(value: Any, name: str) -> list[tuple[str, Any]]:
    """The leaves of nested tables and lists, tensors as bytes."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in flatten(item, f"{name}.{key}")]
    if isinstance(value, list | tuple):
        return [leaf for number, item in enumerate(value) for leaf in flatten(item, f"{name}.{number}")]
    return [(name, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value)]


def run_interrupted(folder: Path, options: list[str], name: str, number: int, chance: random.Random) -> Counter[str]:
    """Train a run to its end with at most so many interruptions; the delays are from none to some epochs."""
    run, kinds, log = folder / "lightning_logs" / name, Counter[str](), folder / "log.txt"
    while True:
        before = log.stat().st_size
        existing = (run / "config.yaml").exists()
        process = start(folder, *(("--resume", str(run)) if existing else (*options, f"--run_name={name}")))
        delay = math.inf
        if kinds.total() < number:
            delay = chance.uniform(0, 5)
            # Every fourth falls into the first seconds, in which Python, torch and the photographs are loaded.
            late = chance.random() > 0.25
            while late and b"Run folder:" not in log.read_bytes()[before:] and process.poll() is None:
                time.sleep(0.05)
        kind = chance.choice(KINDS)
        if interrupt(process, kind, delay):
            kinds[kind.name] += 1
            sys.stderr.write(f"{name}: {kinds.total()} {kind.name} exit code {process.returncode}\n")
        elif process.returncode != 0:
            raise SystemExit(f"the run failed: see {log}")
        else:
            return kinds


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--interruptions", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--slurm", action="store_true")
    arguments = parser.parse_args()
    if arguments.slurm:
        from benchmarks.interrupt_slurm import interrupt_jobs

        return interrupt_jobs(arguments.interruptions, arguments.seed, arguments.output)
    folder = Path(tempfile.mkdtemp(prefix="bldml-interrupt-"))
    write_leaves(folder / "leaves", images_per_class=60, size=96, seed=1)
    options = [*OPTIONS, "--data.root=leaves", f"--trainer.max_epochs={arguments.epochs}"]
    began = time.monotonic()
    if start(folder, *options, "--run_name=reference").wait() != 0:
        raise SystemExit(f"the reference failed: see {folder / 'log.txt'}")
    peace = time.monotonic() - began
    began = time.monotonic()
    chance, kinds = random.Random(arguments.seed), Counter[str]()
    runs, steps, different = [RunFolder(folder / "lightning_logs" / "reference")], [], set[str]()
    reference = content(runs[0])
    while kinds.total() < arguments.interruptions:
        name = f"interrupted_{len(runs)}"
        kinds += run_interrupted(folder, options, name, arguments.interruptions - kinds.total(), chance)
        runs.append(RunFolder(folder / "lightning_logs" / name))
        found = content(runs[-1])
        different |= {f"{name} {k}" for k in reference.keys() | found.keys() if reference.get(k) != found.get(k)}
        notes = json.loads(runs[-1].environment.read_text()).get("continued", [])
        steps.append([note["step"] for note in notes])
    hurt = time.monotonic() - began
    with runs[0].history.open(newline="") as file:
        rows = len(list(csv.DictReader(file)))
    result = {
        "interruptions": dict(kinds),
        "epochs": rows,
        "optimizer_steps": torch.load(runs[0].last_checkpoint, weights_only=True)["global_step"],
        "runs": len(steps),
        "continued_from_step": steps,
        "things_compared": len(reference),
        "different": sorted(different),
        "time_ratio_interrupted_to_reference": round(hurt / peace / len(steps), 2),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    # Lists of numbers on one line each.
    text = json.dumps(result, indent=2) + "\n"
    text = re.sub(r"\[\s*((?:\d+,?\s*)+)\]", lambda match: f"[{', '.join(match[1].replace(',', ' ').split())}]", text)
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
