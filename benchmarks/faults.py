"""A fault at each change of a file by Python, for ten commands: what is told, what is left, what a repetition makes.

    python -m benchmarks.faults [--commands fit …] [--sample 20] [--seed 0] --output benchmarks/results/faults.json

The n-th write, open, fsync, close, rename, link, mkdir, … fails with ENOSPC (and every later one that needs space), or
with EIO, or the process is killed there, for each n or a drawn sample of them. Then the command is repeated or resumed.
A finding is a traceback, an error without a sentence, half a file, a file that is left, or another result in the end.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import tests.three_layers  # noqa: F401  # first, because it adds a backbone
from bldml.dataset.synthetic.leaves import write_leaves
from tests.faults.commands import CACHE, Command, Trial, import_everything, run_forked
from tests.faults.layer import How
from tests.support import THREE_LAYERS

RUN = "lightning_logs/run"
FIT = ("fit", *THREE_LAYERS, "--run_name=run", "--trainer.max_epochs=2", "--model.image_size=32")
NAMES = ("split", "fit", "audit", "survey", "predict", "test", "explain", "export", "report", "compare")


def commands(names: Sequence[str], folder: Path) -> Iterator[tuple[Command, Path]]:
    """Yield each command with the folder that it is tried in."""
    leaves = folder / "leaves"
    write_leaves(leaves, images_per_class=10, size=48, seed=1)
    fit = (*FIT, f"--data.root={leaves}", "--trainer.logger=false")
    others = {
        "split": ("split", leaves, "--output=splits.csv"),
        "audit": ("audit", leaves, "--output=out", "--power=off", "--look_alikes=off", "--workers=1"),
        "survey": ("survey", RUN, leaves, "--output=out", "--device=cpu"),
        "predict": ("predict", RUN, leaves, "--output=out", "--data.num_workers=0"),
        "test": ("test", RUN, "--data.num_workers=0", "--report=false"),
        "explain": ("explain", RUN, leaves, "--output=out", "--device=cpu"),
        "export": ("export", RUN, "--output=out", f"--photographs={leaves}"),
        "report": ("report", RUN),
        "compare": ("compare", RUN, "lightning_logs/other"),
    }
    for name in names:
        place = folder / name
        world = place / "world"
        world.mkdir(parents=True)
        os.environ["BLDML_CACHE"] = str(place / "work" / CACHE)
        if name not in ("fit", "split", "audit"):
            made = run_forked(fit, world, None)
            assert made.code == 0, made.said
        if name == "compare":
            shutil.copytree(world / RUN, world / "lightning_logs/other")
        words = fit if name == "fit" else tuple(map(str, others[name]))
        yield Command(name, words, world, partial(_resumed, fit) if name == "fit" else None), place


def _resumed(fit: Sequence[str], work: Path) -> Sequence[str]:
    return ("fit", "--resume", RUN) if (work / RUN).exists() else fit


def try_all(names: Sequence[str], sample: int, seed: int) -> dict[str, Any]:
    """Return the numbers of positions and trials, and all findings, by command."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for command, place in commands(names, Path(folder).resolve()):
            start, trial, findings = time.monotonic(), Trial(command, place), []
            positions: Sequence[int] = range(1, trial.changes + 1)
            if sample and sample < trial.changes:
                positions = sorted(random.Random(f"{seed} {command.name}").sample(positions, sample))
            for at in positions:
                for how in get_args(How):
                    findings += [f"{how} at {trial.kinds[at - 1]} {at}: {one}" for one in trial.findings(at, how)]
            results[command.name] = {
                "positions": trial.changes,
                "kinds": dict(Counter(trial.kinds)),
                "tried": len(positions) * len(get_args(How)),
                "compared_files": len(trial.results),
                "seconds": round(time.monotonic() - start),
                "findings": findings,
            }
            print(command.name, json.dumps(results[command.name]), file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Try the commands, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--sample", type=int, default=0, help="positions of each command; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    import_everything()
    results = try_all(options.commands, options.sample, options.seed)
    about = {"python": sys.version.split()[0], "seed": options.seed, "sample": options.sample, "commands": results}
    options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
