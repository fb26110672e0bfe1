"""Kill a sweep with all its processes, again and again, and compare it with one left in peace.

    python benchmarks/sweep.py --photographs FOLDER --weights FILE --output benchmarks/results/sweep.json

Two backbones, two seeds, three folds, at 96 px; all photographs are in the folds. The sweep, its runs and their loader
processes get SIGKILL at random moments (`--seed`), each while a run is in another phase, and the sweep is started again
by the same command. At the end must be equal to the last bit: history.csv, predictions and metrics of all splits,
weights and optimizer of last.ckpt and best.ckpt, the manifests of the folds, the pooled predictions, and the tables of
the experiment without training times. The exit code is 1 if anything differs, or if a kill found nothing to kill.
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
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from bldml.io.documents import dump_yaml
from bldml.sweep.plan import SweepFolder, read_plan
from bldml.sweep.states import FINISHED, is_finished
from bldml.training.resume.stretches import read_starts

PHASES = ("training", "evaluation", "start-up", "validation")  # a kill for each, in an order by chance
FOLDS = 3
SEEDS = (1, 2)
SPLITS = ("train", "val", "test")
TABLES = ("sweep.csv", "pairs.csv", "spread.csv")
TIMES = ("training_seconds",)  # columns of runs.csv
KEYS = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")


def experiment(photographs: Path, positive_class: str, weights: str, epochs: int) -> dict[str, Any]:
    """Return the experiment. The second backbone has random weights."""
    options = {
        "model.image_size": 96, "data.root": str(photographs), "data.positive_class": positive_class,
        "data.num_workers": 1, "data.test_fraction": 0, "trainer.max_epochs": epochs, "trainer.accelerator": "cpu",
        "unfreezing.start_epoch": 1, "checkpoint_minutes": 0.05, "report": False,
    }  # fmt: skip
    configurations = [
        {"name": "pretrained", "model.backbone": "mobilenet_v2_x0_35", "model.weights": weights},
        {"name": "random", "model.backbone": "mobilenet_v3_large", "model.weights": "none"},
    ]
    return {"options": options, "configurations": configurations, "seeds": list(SEEDS), "folds": FOLDS}


def start(folder: Path, output: str, jobs: int) -> "subprocess.Popen[bytes]":
    """Start the sweep; what it says goes to a file beside its folder."""
    words = ["-m", "bldml", "sweep", "experiment.yaml", "--output", output, "--jobs", str(jobs)]
    with (folder / f"{output}.txt").open("ab") as log:
        environment = {**os.environ, "BLDML_CACHE": str(folder / f"cache of {output}"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def descendants(process: int) -> Iterator[int]:
    """Yield the numbers of all processes that a process has started, and theirs."""
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def kill_all(process: "subprocess.Popen[bytes]") -> int:
    """Kill the process groups of a sweep and of all that it has started, as when a machine dies; return their number.

    Each run has a group of its own, in which its loader processes are.
    """
    os.kill(process.pid, signal.SIGSTOP)  # it starts no other run meanwhile
    there = [process.pid, *descendants(process.pid)]
    groups = set()
    for number in there:
        with suppress(OSError):
            groups.add(os.getpgid(number))
    for group in groups:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    process.wait()
    while any(map(is_alive, there)):
        time.sleep(0.05)
    return len(there)


def is_alive(number: int) -> bool:
    """Return whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def phases(sweep: SweepFolder, process: int, before: dict[str, int]) -> dict[str, str]:
    """Return the phase of each run that a sweep does now.

    Locks are not asked, because asking takes them for a moment.

    Args:
        sweep: The folder of the experiment.
        process: Number of the process of the sweep.
        before: How often each run had been started when that process was.
    """
    found = {}
    for number in descendants(process):
        with suppress(OSError):
            words = Path(f"/proc/{number}/cmdline").read_text().split("\0")
            names = [Path(word).stem for word in words if "/tasks/" in word or "/lightning_logs/" in word]
            if names and names[0] not in found:  # its loader processes have the same words
                records = read_starts(sweep.run(names[0]))
                found[names[0]] = records[-1].phase if len(records) > before.get(names[0], 0) else "start-up"
    return found


def counted_starts(sweep: SweepFolder) -> dict[str, int]:
    """Return how often each run was started."""
    with suppress(Exception):
        return {run.name: len(read_starts(sweep.run(run.name))) for run in read_plan(sweep).runs}
    return {}


def do_with_kills(
    folder: Path, output: str, jobs: int, aims: tuple[str, ...], longest: float, rng: random.Random
) -> list[dict[str, Any]]:
    """Do the sweep, with a kill for each phase aimed at; return what each kill found."""
    done: list[dict[str, Any]] = []
    sweep = SweepFolder(folder / output)
    while True:
        before, began = counted_starts(sweep), time.monotonic()
        process = start(folder, output, jobs)
        if len(done) == len(aims):
            assert process.wait() == 0, (folder / f"{output}.txt").read_text()
            return done
        aim, pause, delay = aims[len(done)], rng.uniform(5, longest), rng.uniform(0, 1)
        while process.poll() is None:
            seconds = time.monotonic() - began
            if seconds > pause and any(name.startswith(aim) for name in phases(sweep, process.pid, before).values()):
                break
            time.sleep(0.02)
        if process.poll() is not None:
            return done  # it has come to its end
        if aim in ("start-up", "training"):  # the others are short
            time.sleep(delay)
        found = phases(sweep, process.pid, before)
        killed = {"seconds": round(time.monotonic() - began, 1), "aim": aim, "runs": found}
        killed["finished"] = sum(is_finished(sweep.run(run.name)) for run in read_plan(sweep).runs)
        done.append(killed | {"processes": kill_all(process)})
        print(json.dumps(done[-1]), flush=True)


class Comparison:
    """Compares two folders of one experiment.

    Attributes:
        found: What differs.
        files, tensors: How many were compared.
    """

    def __init__(self, ours: SweepFolder, theirs: SweepFolder) -> None:
        self.found: list[str] = []
        self.files = self.tensors = 0
        for name in (*TABLES, *(f"folds/fold{fold}.csv" for fold in range(FOLDS))):
            self._file(ours.path / name, theirs.path / name, name)
        plan = read_plan(theirs)
        for name in (f"out_of_fold/{one.name}.csv" for one in plan.configurations):
            self._file(ours.path / name, theirs.path / name, name)
        if without_times(ours.path / "runs.csv") != without_times(theirs.path / "runs.csv"):
            self.found.append("runs.csv")
        for run in plan.runs:
            one, other = ours.run(run.name), theirs.run(run.name)
            if not (is_finished(one) and is_finished(other)):
                self.found.append(f"{run.name}: not finished")
                continue
            files = [f"evaluations/{split}/{name}" for split in SPLITS for name in ("predictions.csv", "metrics.json")]
            for name in ("history.csv", *files):
                self._file(one.path / name, other.path / name, f"{run.name}: {name}")
            for mine, its in (
                (one.last_checkpoint, other.last_checkpoint),
                (one.best_checkpoint, other.best_checkpoint),
            ):
                first, second = torch.load(mine, weights_only=True), torch.load(its, weights_only=True)
                self.found += [
                    f"{run.name}: {mine.name}: {key}" for key in KEYS if not self._is_same(first[key], second[key])
                ]
            looks = [len((place.path / "ledger.csv").read_text().splitlines()) - 1 for place in (one, other)]
            if looks[0] != looks[1]:
                self.found.append(f"{run.name}: {looks[0]} evaluations, not {looks[1]}")

    def _file(self, one: Path, other: Path, name: str) -> None:
        self.files += 1
        if one.read_bytes() != other.read_bytes():
            self.found.append(name)

    def _is_same(self, one: Any, other: Any) -> bool:
        """Return whether nested containers hold the same, tensors bit for bit."""
        if isinstance(one, torch.Tensor):
            self.tensors += 1
            return isinstance(other, torch.Tensor) and torch.equal(one, other)
        if isinstance(one, dict):
            same = isinstance(other, dict) and one.keys() == other.keys()
            return same and all(self._is_same(one[key], other[key]) for key in one)
        if isinstance(one, list | tuple):
            same = type(one) is type(other) and len(one) == len(other)
            return same and all(self._is_same(*pair) for pair in zip(one, other, strict=True))
        return bool(one == other)


def without_times(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table without how long training took."""
    with table.open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def photographs_in(sweep: SweepFolder) -> int:
    """Return the number of photographs of a sweep."""
    with sweep.manifest(0).open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def phases_hit(sweep: SweepFolder) -> dict[str, int]:
    """Return how many starts of runs ended in each phase but the last, as the runs have recorded it."""
    found: dict[str, int] = {}
    for run in read_plan(sweep).runs:
        for one in read_starts(sweep.run(run.name)):
            if one.phase != FINISHED:
                found[one.phase] = found.get(one.phase, 0) + 1
    return dict(sorted(found.items()))


def result_of(
    content: dict[str, Any], done: SweepFolder, whole: SweepFolder, own: dict[str, Any], began: float
) -> dict[str, Any]:
    """Return what is written: the experiment, what was `own` to this sweep, and what differs from the whole one."""
    compared, starts = Comparison(done, whole), counted_starts(done)
    weights = [one["model.weights"] for one in content["configurations"]]
    return {
        "photographs": photographs_in(whole),
        "backbones": [one["model.backbone"] for one in content["configurations"]],
        "weights": [Path(one).name for one in weights],
        "seeds": len(SEEDS), "folds": FOLDS, "runs": len(starts), "image_size": 96,
        "epochs": content["options"]["trainer.max_epochs"],
        **own,
        "runs_started_more_than_once": sum(number > 1 for number in starts.values()),
        "starts_that_ended_in_phase": phases_hit(done),
        "files_compared": compared.files, "tensors_compared": compared.tensors, "differences": compared.found,
        "minutes": round((time.monotonic() - began) / 60, 1), "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }  # fmt: skip


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--positive_class", default="diseased")
    parser.add_argument("--weights", default="none", help="of mobilenet_v2_x0_35; a file, or none")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds to the moment of a kill, at most")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="new folder, which is kept; without it, none is")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    weights = options.weights if options.weights == "none" else str(Path(options.weights).absolute())
    with nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).absolute()
        folder.mkdir(exist_ok=True)
        content = experiment(options.photographs.absolute(), options.positive_class, weights, options.epochs)
        (folder / "experiment.yaml").write_text(dump_yaml(content))
        aims = tuple(rng.sample(PHASES, len(PHASES)))
        kills = do_with_kills(folder, "killed", options.jobs, aims, options.longest, rng)
        do_with_kills(folder, "whole", options.jobs, (), options.longest, rng)
        killed, whole = SweepFolder(folder / "killed"), SweepFolder(folder / "whole")
        own = {"jobs": options.jobs, "seed_of_kills": options.seed, "kills": kills}
        result = result_of(content, killed, whole, own, began)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return int(bool(result["differences"]) or len(kills) < len(PHASES) or not all(one["runs"] for one in kills))


if __name__ == "__main__":
    sys.exit(main())
