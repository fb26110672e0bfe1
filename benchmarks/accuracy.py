"""Does accuracy pay for speed? The same seeds with everything kept, with nothing kept, and in float32.

    python benchmarks/accuracy.py FOLDER --positive_class diseased --output benchmarks/results/accuracy.json

FOLDER holds a folder of photographs a class. For each seed `bldml fit` trains with cached images and kept features
(twice: the second run finds the pixels that the first one kept), without either, and without either in float32. Each is
tested, and the scores of the test photographs are compared: the largest difference of a probability, and the difference
of the areas under the ROC curve with DeLong's interval.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bldml.metrics.auroc import paired_auroc
from bldml.run.predictions import Prediction, read_predictions

NOTHING_KEPT = ["--data.cache=off", "--model.feature_cache=0"]
WAYS = {
    "kept": ["--trainer.precision=bf16-mixed"],
    "kept, again": ["--trainer.precision=bf16-mixed"],
    "nothing kept": ["--trainer.precision=bf16-mixed", *NOTHING_KEPT],
    "nothing kept, float32": ["--trainer.precision=32-true", *NOTHING_KEPT],
}


def fit(options: argparse.Namespace, work: Path, seed: int, way: str) -> list[Prediction]:
    """Train, test, and return the test photographs with their probabilities."""
    root = work / f"{seed} {way}"
    command = [
        sys.executable, "-m", "bldml", "fit", f"--seed_everything={seed}", f"--data.root={options.folder}",
        f"--data.positive_class={options.positive_class}", f"--model.backbone={options.backbone}",
        f"--model.weights={options.weights}", f"--model.image_size={options.size}",
        f"--trainer.max_epochs={options.epochs}", f"--trainer.default_root_dir={root}", "--report=false",
        f"--unfreezing.start_epoch={options.start_epoch}", f"--unfreezing.stages={options.stages}",
    ]  # fmt: skip
    environment = os.environ | {"BLDML_CACHE": str(work / "cache")}
    done = subprocess.run([*command, *WAYS[way]], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    (table,) = root.rglob("test/predictions.csv")
    return sorted(read_predictions(table), key=lambda row: row.path)


def compare(first: list[Prediction], second: list[Prediction], positive_class: str) -> dict[str, Any]:
    """How far the second differs from the first on the same photographs."""
    if [row.path for row in first] != [row.path for row in second]:
        sys.exit("Not the same photographs.")
    labels = [int(row.true_class == positive_class) for row in first]
    one, two = ([row.probability for row in rows] for rows in (first, second))
    paired = paired_auroc(labels, one, two)
    interval = paired.difference.interval
    return {
        "areas": [paired.first, paired.second],
        "difference": paired.difference.value,
        "interval": None if interval is None else [interval.low, interval.high],
        "largest_difference_of_a_probability": max(abs(a - b) for a, b in zip(one, two, strict=True)),
    }


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--positive_class", required=True)
    parser.add_argument("--backbone", default="mobilenet_v2_x0_35")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--start_epoch", type=int, default=2, help="epoch in which the first stage is unfrozen")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    against: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS if way != "kept"}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            found = {way: fit(options, Path(folder), seed, way) for way in WAYS}
            for way, comparisons in against.items():
                comparisons.append({"seed": seed} | compare(found["kept"], found[way], options.positive_class))
                sys.stdout.write(f"{way}: {comparisons[-1]}\n")
                sys.stdout.flush()
    record = {
        "what": "test photographs; kept minus the way named",
        "settings": {k: v for k, v in vars(options).items() if k not in ("folder", "output", "weights")},
        "photographs": len(found["kept"]),
        "against": against,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
