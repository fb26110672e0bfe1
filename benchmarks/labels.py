"""Plant wrong labels among photographs, and count how many of them are among the first that `review` shows.

    nice -n 19 python benchmarks/labels.py FOLDER --weights FILE --output benchmarks/results/labels.json

A twentieth of each class gets the other label, drawn by chance. A sweep with `model.head: logistic` and five folds
predicts every photograph out of fold; `bldml review` ranks them. Labels that were wrong before, if any, count as right.
"""

import argparse
import csv
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bldml.io.documents import dump_yaml

BACKBONE = "mobilenet_v2_x0_35"


def plant(photographs: Path, folder: Path, fraction: float, seed: int) -> set[str]:
    """Copy the two class folders, with a fraction of each in the other one; return the names of these."""
    generator, planted = random.Random(seed), set()
    classes = sorted(path.name for path in photographs.iterdir() if path.is_dir())
    assert len(classes) == 2, classes
    for name, other in (classes, classes[::-1]):
        files = sorted((photographs / name).iterdir())
        wrong = set(generator.sample(files, round(fraction * len(files))))
        for file in files:
            target = folder / (other if file in wrong else name) / f"{name}_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            if file in wrong:
                planted.add(target.relative_to(folder).as_posix())
    return planted


def ranking(folder: Path, positive_class: str, weights: Path, size: int, seed: int) -> list[dict[str, str]]:
    """Return the rows of labels.csv after a sweep over the photographs in `leaves` of a folder."""
    options = {
        "model.backbone": BACKBONE, "model.weights": str(weights), "model.image_size": size,
        "model.head": "logistic", "data.root": "leaves", "data.positive_class": positive_class,
        "data.num_workers": 0, "data.test_fraction": 0.0, "trainer.accelerator": "cpu", "report": False,
    }  # fmt: skip
    experiment = {"options": options, "configurations": [{"name": "logistic"}], "seeds": [seed], "folds": 5}
    (folder / "labels.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    for words in (["sweep", "labels.yaml"], ["review", "sweeps/labels"]):
        environment = {**os.environ, "BLDML_CACHE": str(folder / "cache")}
        subprocess.run([sys.executable, "-m", "bldml", *words], cwd=folder, check=True, env=environment)
    table = folder / "sweeps" / "labels" / "review" / "logistic" / "labels.csv"
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def counts(rows: list[dict[str, str]], planted: set[str]) -> dict[str, Any]:
    """Return how many of the planted labels are among the first so many photographs."""
    hits = [row["path"] in planted for row in rows]
    k = len(planted)
    marked = [row["path"] in planted for row in rows if row["confident"] == "yes"]
    return {
        "photographs": len(rows),
        "planted": k,
        "of_the_planted_among_the_first": {str(n): sum(hits[:n]) for n in (k, 2 * k, 4 * k)},
        "contradicted": sum(row["reason"] == "contradicted" for row in rows),
        "planted_and_contradicted": sum(
            hit for hit, row in zip(hits, rows, strict=True) if row["reason"] == "contradicted"
        ),
        "confidently": len(marked),
        "planted_and_confidently": sum(marked),
    }


def main() -> None:
    """Plant, train, rank, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--positive_class", default="diseased")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            planted = plant(options.photographs, folder / "leaves", options.fraction, seed)
            rows = ranking(folder, options.positive_class, options.weights.absolute(), options.image_size, seed)
            found.append({"seed": seed, **counts(rows, planted)})
            print(json.dumps(found[-1]), flush=True)
    settings = {"image_size": options.image_size, "fraction": options.fraction, "folds": 5, "head": "logistic"}
    settings |= {"backbone": BACKBONE, "weights": options.weights.name, "positive_class": options.positive_class}
    result = {"settings": settings, "machine": platform.machine(), "cpus": os.cpu_count(), "plants": found}
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
