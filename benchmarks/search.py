"""A search of 20 trials by two processes on one study, one of which is killed again and again.

    python benchmarks/search.py --output benchmarks/results/search.json

On drawn leaves, with a small network. The killed process is started again each time. At the end there must be exactly
20 trials, no more runs resumed than processes killed, and the objective of each complete trial must be the mean of the
best validation losses of its histories; the exit code is 1 if not. Then one process does the same search alone, killed
as often, and its trials must be those of one that nobody killed.
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

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.io.documents import dump_yaml
from bldml.sweep.plan import Plan, SweepFolder, read_plan
from bldml.sweep.states import is_finished

TRIALS = 20


def experiment(epochs: int) -> dict[str, Any]:
    """Return the experiment: two folds, one seed."""
    options = {
        "model.backbone": "mobilenet_v2_x0_35", "model.weights": "none", "model.image_size": 64,
        "data.root": "leaves", "data.positive_class": "BLD", "data.num_workers": 0, "report": False,
        "trainer.max_epochs": epochs, "trainer.accelerator": "cpu", "unfreezing.start_epoch": 0,
    }  # fmt: skip
    ranges = {
        "model.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "unfreezing.stages": {"low": 0, "high": 4},
        "data.augmentation.strength": {"low": 0.0, "high": 2.0},
    }
    return {"options": options, "seeds": [1], "folds": 2, "search": {"trials": TRIALS, "ranges": ranges}}


def start(folder: Path, output: str) -> "subprocess.Popen[bytes]":
    """Start a worker; what it says goes to a file beside its folder."""
    words = ["-m", "bldml", "sweep", "experiment.yaml", "--output", output]
    with (folder / f"{output}.txt").open("ab") as log:
        environment = {**os.environ, "BLDML_CACHE": str(folder / "cache")}
        return subprocess.Popen([sys.executable, *words], cwd=folder, stdout=log, stderr=log, env=environment)


def kill_worker(process: "subprocess.Popen[bytes]") -> None:
    """Kill a worker and the processes that it has started, as when a machine dies."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in (process.pid, *map(int, children)):
        os.kill(number, signal.SIGKILL)
    process.wait()


def search_with_kills(folder: Path, output: str, helpers: int, kills: int, longest: float, rng: random.Random) -> int:
    """Do the search with one worker that is killed so often, beside others; return how often it was."""
    others = [start(folder, output) for _ in range(helpers)]
    done = 0
    while True:
        process = start(folder, output)
        while process.poll() is None and not (folder / output / "study.journal").exists():
            time.sleep(0.2)
        if done == kills:
            assert process.wait() == 0, (folder / f"{output}.txt").read_text()
            assert [other.wait() for other in others] == [0] * helpers, (folder / f"{output}.txt").read_text()
            return done
        try:
            assert process.wait(rng.uniform(5, longest)) == 0, (folder / f"{output}.txt").read_text()
            assert [other.wait() for other in others] == [0] * helpers, (folder / f"{output}.txt").read_text()
            return done
        except subprocess.TimeoutExpired:
            kill_worker(process)
            done += 1


def objective(sweep: SweepFolder, plan: Plan, trial: str) -> float:
    """Return the mean of the best validation losses of a trial, from its histories."""
    best = []
    for run in plan.of(trial):
        with sweep.run(run.name).history.open(encoding="utf-8", newline="") as file:
            best.append(min(float(row["val_loss"]) for row in csv.DictReader(file)))
    return sum(best) / len(best)


def starts(sweep: SweepFolder, plan: Plan) -> dict[str, int]:
    """Return how often each run was started from its beginning or resumed."""
    found = {}
    for run in plan.runs:
        stretches = sweep.run(run.name).path / "stretches.json"
        found[run.name] = len(json.loads(stretches.read_text())["stretches"]) if stretches.is_file() else 0
    return found


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/search.json"))
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--longest", type=float, default=60.0, help="largest number of seconds before a kill")
    parser.add_argument("--alone", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_leaves(folder / "leaves", images_per_class=16, size=64, seed=1)
        (folder / "experiment.yaml").write_text(dump_yaml(experiment(arguments.epochs)))
        began = time.monotonic()
        kills = search_with_kills(folder, "two", 1, arguments.kills, arguments.longest, rng)
        seconds = time.monotonic() - began
        sweep = SweepFolder(folder / "two")
        plan = read_plan(sweep)
        counts = starts(sweep, plan)
        states = [trial.state for trial in plan.trials]
        complete = [trial for trial in plan.trials if trial.state == "complete"]
        wrong = [one.name for one in complete if abs(objective(sweep, plan, one.name) - (one.value or 0)) > 1e-12]
        unfinished = [run.name for one in complete for run in plan.of(one.name) if not is_finished(sweep.run(run.name))]
        resumed = sum(number - 1 for number in counts.values() if number)
        result = {
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "trials": len(plan.trials), "complete": len(complete), "pruned": states.count("pruned"),
            "kills": kills, "runs_resumed": resumed, "objectives_wrong": wrong, "runs_unfinished": unfinished,
            "seconds": round(seconds, 1),
        }  # fmt: skip
        is_right = len(plan.trials) == TRIALS and not wrong and not unfinished and resumed <= kills
        if arguments.alone:
            search_with_kills(folder, "killed", 0, arguments.kills, arguments.longest, rng)
            search_with_kills(folder, "alone", 0, 0, arguments.longest, rng)
            trials = [read_plan(SweepFolder(folder / name)).trials for name in ("killed", "alone")]
            result["one_worker_killed_proposes_the_same"] = trials[0] == trials[1]
            is_right = is_right and trials[0] == trials[1]
    arguments.output.write_text(json.dumps({**result, "passed": is_right}, indent=1) + "\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
