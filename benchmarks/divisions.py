"""What do two stages, four stages (the default), a logistic head and an ensemble reach on the same photographs?

    python benchmarks/divisions.py FOLDER --positive_class diseased --weights FILE --work WORK --output RESULT

FOLDER holds a folder of photographs a class. A sweep divides them into five folds, by burst: each is the test split of
one division, so each photograph is tested once in each way. In each division, another sweep makes three folds of what
is not its test split, and `bldml ensemble` makes one classifier of the three runs, which is tested on the test split
that none of them saw. A single classifier learns from 80 % of the photographs outside the test split, a member of an
ensemble from 53 %. WORK is kept: the same command resumes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bldml.io.documents import dump_yaml
from bldml.metrics.estimates import Estimate
from bldml.metrics.paired import holm
from bldml.metrics.proportions import proportion_by_unit
from bldml.metrics.registry import METRICS
from bldml.metrics.replicates.pooled import Pooled, estimate_pooled
from bldml.metrics.replicates.rivals import compare_pooled
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction
from bldml.run.reader import read_run
from bldml.sweep.plan import SweepFolder, read_plan

CONFIGURATIONS: list[dict[str, Any]] = [
    {"name": "two stages", "unfreezing.stages": 2},
    {"name": "four stages", "unfreezing.stages": 4},  # the default
    {"name": "logistic head", "model.head": "logistic"},
]
JOINED = ("four stages", "logistic head")
DIVISIONS, MEMBERS = 5, 3
FIGURES = ("auroc", "loss", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
PAIRS = (  # the questions
    ("four stages", "two stages"),
    ("four stages", "logistic head"),
    ("ensemble of four stages", "four stages"),
    ("ensemble of logistic heads", "logistic head"),
)
ENSEMBLES = dict(zip(JOINED, ("ensemble of four stages", "ensemble of logistic heads"), strict=True))


def bldml(work: Path, *arguments: str) -> None:
    """Run a command of bldml."""
    environment = os.environ | {"BLDML_CACHE": str(work / "cache")}
    done = subprocess.run([sys.executable, "-m", "bldml", *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def sweep(options: argparse.Namespace, name: str, names: tuple[str, ...], folds: int, data: dict[str, Any]) -> Path:
    """Do a sweep of some configurations and return its folder."""
    common = {
        "model.backbone": options.backbone, "model.weights": str(options.weights), "model.image_size": options.size,
        "trainer.max_epochs": options.epochs, "data.positive_class": options.positive_class, "report": False,
        "data.test_fraction": 0, **data,
    }  # fmt: skip
    chosen = [{**one, "name": plain(one["name"])} for one in CONFIGURATIONS if one["name"] in names]
    experiment, folder = Path(options.work) / f"{name}.yaml", Path(options.work) / name
    experiment.write_text(
        dump_yaml({"options": common, "configurations": chosen, "seeds": [options.seed], "folds": folds})
    )
    bldml(options.work, "sweep", str(experiment), "--output", str(folder))
    return folder


def plain(name: str) -> str:
    """Return a name as a folder has it."""
    return name.replace(" ", "_")


def tested(folder: Path) -> tuple[list[Prediction], float]:
    """Return the predictions of the test split and the threshold of a run."""
    (evaluation,) = [one for one in read_run(RunFolder(folder)).evaluations if one.name == "test"]
    return list(evaluation.rows), evaluation.point.threshold


def members(options: argparse.Namespace, folds: Path, number: int) -> Path:
    """Train the members of both ensembles in one division, and return the folder of their sweep."""
    manifest = SweepFolder(folds).manifest(number)
    data = {"data.root": str(options.folder), "data.manifest": str(manifest.absolute())}
    return sweep(options, f"division{number}", (options.only,) if options.only else JOINED, MEMBERS, data)


def joined(options: argparse.Namespace, folder: Path, name: str) -> tuple[list[Prediction], float]:
    """Join the members of one configuration, and test the ensemble on the test split that none of them saw."""
    run = folder / "ensembles" / plain(name)
    if not run.exists():
        bldml(options.work, "ensemble", str(folder / plain(name)))
    if not any(one.name == "test" for one in read_run(RunFolder(run)).evaluations):
        bldml(options.work, "test", str(run))
    return tested(run)


def pool(positive: str, divisions: list[tuple[list[Prediction], float]]) -> Pooled:
    """Return the test photographs of all divisions, sorted by photograph, each with the threshold of its classifier."""
    rows = [(row, threshold, fold) for fold, (found, threshold) in enumerate(divisions) for row in found]
    rows.sort(key=lambda one: one[0].path)
    return Pooled.checked(
        [int(row.true_class == positive) for row, _, _ in rows],
        [[row.probability for row, _, _ in rows]],
        [[threshold for _, threshold, _ in rows]],
        [fold for _, _, fold in rows],
        [row.unit for row, _, _ in rows],
    )


def shown(found: Estimate) -> dict[str, Any]:
    """Return an estimate for the record."""
    interval = found.interval
    return {
        "value": found.value,
        "interval": None if interval is None else [interval.low, interval.high],
        "method": None if interval is None else interval.method,
    }


def flagged(divisions: list[tuple[list[Prediction], float]], units: NDArray[np.int64]) -> dict[str, Any]:
    """Return how many test photographs are farther than the limit, of those with a distance; the limit is for 2 %."""
    rows = sorted((row for found, _ in divisions for row in found), key=lambda row: row.path)
    far = np.array([row.is_familiar is False for row in rows])
    known = np.array([row.is_familiar is not None for row in rows])
    return {"flagged": int(far.sum()), "of": int(known.sum()), **shown(proportion_by_unit(far[known], units[known]))}


def main() -> int:
    """Train, join, test and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--positive_class", required=True)
    parser.add_argument("--backbone", default="mobilenet_v2_x0_35")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=JOINED, help="this configuration and its ensemble alone")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    names = (options.only,) if options.only else tuple(one["name"] for one in CONFIGURATIONS)
    ensembles = {name: ensemble for name, ensemble in ENSEMBLES.items() if name in names}
    folds = sweep(options, "divisions", names, DIVISIONS, {"data.root": str(options.folder)})
    found: dict[str, list[tuple[list[Prediction], float]]] = {name: [] for name in (*names, *ensembles.values())}
    plan = read_plan(SweepFolder(folds))
    numbers = sorted({run.fold for run in plan.runs if run.fold is not None})
    for number in numbers:
        for name in names:
            (run,) = [one for one in plan.runs if one.fold == number and one.configuration == plain(name)]
            found[name].append(tested(SweepFolder(folds).run(run.name).path))
        folder = members(options, folds, number)
        for name, ensemble in ensembles.items():
            found[ensemble].append(joined(options, folder, name))
        sys.stdout.write(f"division {number} of {len(numbers)}\n")
        sys.stdout.flush()
    pooled = {name: pool(options.positive_class, divisions) for name, divisions in found.items()}
    compared = {
        pair: {figure: compare_pooled(METRICS[figure], pooled[pair[0]], pooled[pair[1]]) for figure in FIGURES}
        for pair in PAIRS
        if {*pair} <= pooled.keys()
    }
    adjusted = {
        figure: dict(zip(compared, holm([one[figure][1] or 1.0 for one in compared.values()]), strict=True))
        for figure in ("auroc", "accuracy")
    }
    first = next(iter(pooled.values()))
    record = {
        "what": "test photographs of five divisions, pooled: each once, with the threshold of its classifier",
        "settings": {k: v for k, v in vars(options).items() if k not in ("folder", "output", "weights", "work")}
        | {"divisions": DIVISIONS, "members of an ensemble": MEMBERS},
        "machine": {"system": platform.system(), "cores": os.cpu_count()},
        "photographs": int(first.labels.size),
        "positive": int(first.labels.sum()),
        "units": len(np.unique(first.units)),
        "ways": {
            name: {
                **{figure: shown(estimate_pooled(METRICS[figure], one)) for figure in FIGURES},
                "errors": int((~one.is_correct).sum()),
                "flagged as unlike the training photographs": flagged(found[name], one.units),
                "auroc of each division": one.fold_values(METRICS["auroc"])[0].tolist(),
                "accuracy of each division": one.fold_values(METRICS["accuracy"])[0].tolist(),
            }
            for name, one in pooled.items()
        },
        "differences, first minus second": [
            {"first": first, "second": second}
            | {
                figure: shown(estimate)
                | {"p": p}
                | ({"adjusted p (Holm)": adjusted[figure][first, second]} if figure in adjusted else {})
                for figure, (estimate, p) in figures.items()
            }
            for (first, second), figures in compared.items()
        ],
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
