"""A fault at each change of a file by Python, for twelve commands: what is told, what is left, what a repetition makes.

    python -m benchmarks.faults [--commands fit …] [--places] [--sample 20] --output benchmarks/results/faults.json

The n-th write, open, fsync, close, rename, link, mkdir, … fails with ENOSPC (and every later one that needs space), or
with EIO, or the process is killed there. Then the command is repeated or resumed. A finding is a traceback, an error
without a sentence, half a file, a file that is left, or another result in the end. Tried are all changes; with --places
the first and the last one of each place in the code (turns of one loop differ in the file alone); with --sample a drawn
sample of them. The output keeps the results of other commands that it has already.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import tests.three_layers  # noqa: F401  # first, because it adds a backbone
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.training import weights
from tests.faults.commands import CACHE, Command, Trial, import_everything, run_forked
from tests.faults.layer import How
from tests.support import THREE_LAYERS
from tests.test_prefetch import Server

RUN = "lightning_logs/run"
FIT = ("fit", *THREE_LAYERS, "--run_name=run", "--trainer.max_epochs=2", "--model.image_size=32")
UNTRAINED = ("split", "fit", "audit", "prefetch")
NAMES = (*UNTRAINED, "survey", "review", "predict", "test", "explain", "export", "report", "compare")


def commands(names: Sequence[str], folder: Path) -> Iterator[tuple[Command, Path]]:
    """Yield each command with the folder that it is tried in."""
    leaves = folder / "leaves"
    write_leaves(leaves, images_per_class=10, size=48, seed=1)
    fit = (*FIT, f"--data.root={leaves}", "--trainer.logger=false")
    others = {
        "split": ("split", leaves, "--output=splits.csv"),
        "audit": ("audit", leaves, "--output=out", "--power=off", "--look_alikes=off", "--workers=1"),
        "prefetch": ("prefetch", "--backbone=resnet50", "--to=home"),
        "survey": ("survey", RUN, leaves, "--output=out", "--device=cpu"),
        "review": ("review", "confirmed.csv", RUN, "more", "--output=out"),
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
        if name not in UNTRAINED:
            made = run_forked(fit, world, None)
            assert made.code == 0, made.said
        if name == "compare":
            shutil.copytree(world / RUN, world / "lightning_logs/other")
        if name == "review":
            _write_review(world)
        if name == "prefetch":
            _serve_weights()
        words = fit if name == "fit" else tuple(map(str, others[name]))
        yield Command(name, words, world, partial(_resumed, fit) if name == "fit" else None), place


def _resumed(fit: Sequence[str], work: Path) -> Sequence[str]:
    return ("fit", "--resume", RUN) if (work / RUN).exists() else fit


def _write_review(world: Path) -> None:
    write_leaves(world / "more", images_per_class=5, size=48, seed=2)
    files = sorted(file.relative_to(world / "more") for file in (world / "more").rglob("*.*"))
    rows = "".join(f"{file},confirm,{file.parent.name}\n" for file in files)
    (world / "confirmed.csv").write_text(f"path,verdict,label\n{rows}", encoding="utf-8")


def _serve_weights() -> None:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    weights.weights_url = lambda name: server.url(name)  # torchvision's files lie on this machine


def try_all(names: Sequence[str], sample: int, seed: int, by_place: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each command with its numbers of positions and trials, and all findings, after each position."""
    with tempfile.TemporaryDirectory() as folder:
        for command, place in commands(names, Path(folder).resolve()):
            start, trial, findings = time.monotonic(), Trial(command, place), []
            positions: Sequence[int] = range(1, trial.changes + 1)
            if by_place:
                firsts = {trial.places[at - 1]: at for at in reversed(positions)}
                lasts = {trial.places[at - 1]: at for at in positions}
                positions = sorted({*firsts.values(), *lasts.values()})
            if sample and sample < len(positions):
                positions = random.Random(f"{seed} {command.name}").sample(positions, sample)
            # In drawn order, so that what was tried until an interruption is a sample too; each place once, then again.
            order = random.Random(f"{seed} {command.name}").sample(list(positions), len(positions))
            order.sort(key=lambda at: trial.places.index(trial.places[at - 1]) + 1 != at)
            for number, at in enumerate(order, 1):
                for how in get_args(How):
                    found = [f"{how} at {trial.kinds[at - 1]} {at}: {one}" for one in trial.findings(at, how)]
                    sys.stderr.write("".join(f"{command.name}: {one}\n" for one in found))
                    findings += found
                result = {
                    "seed": seed,
                    "positions": trial.changes,
                    "places": len(set(trial.places)),
                    "kinds": dict(Counter(trial.kinds)),
                    "positions_tried": number,
                    "places_tried": len({trial.places[one - 1] for one in order[:number]}),
                    "tried": number * len(get_args(How)),
                    "compared_files": len(trial.results),
                    "seconds": round(time.monotonic() - start),
                    "findings": findings,
                }
                yield command.name, result


def main() -> None:
    """Try the commands, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--places", action="store_true", help="the first and last change of each place in the code")
    parser.add_argument("--sample", type=int, default=0, help="positions of each command; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    import_everything()
    for name, result in try_all(options.commands, options.sample, options.seed, options.places):
        old = json.loads(options.output.read_text()) if options.output.exists() else {"commands": {}}
        all_of_them = {**old["commands"], name: result}
        about = {
            "python": sys.version.split()[0],
            "commands": {key: all_of_them[key] for key in NAMES if key in all_of_them},
        }
        options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
