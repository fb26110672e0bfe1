"""Which recipe for the main configurations: two stages or four, our augmentation or that of the paper's scripts?

    python benchmarks/recipe.py FOLDER --positive_class diseased --weights FILE --output benchmarks/results/recipe.json

FOLDER holds a folder of photographs a class. For each of five divisions (`bldml split` with five seeds, 60/20/20)
`bldml fit` trains with the schedule of the main configurations and each of the four recipes, and with all of the recipe
of the paper. All ways see the same divisions, so that their differences are those of the recipes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from bldml.run.folder import RunFolder

PAPER = yaml.safe_load((Path(__file__).parents[1] / "configs" / "paper" / "mobilenet.yaml").read_text())
AUGMENTATION = [f"--data.augmentation={json.dumps(PAPER['data']['augmentation'])}"]
WAYS = {
    "stages 2": ["--unfreezing.stages=2"],
    "stages 4": ["--unfreezing.stages=4"],
    "stages 2, paper's augmentation": ["--unfreezing.stages=2", *AUGMENTATION],
    "stages 4, paper's augmentation": ["--unfreezing.stages=4", *AUGMENTATION],
    "paper": [
        *AUGMENTATION, "--unfreezing.blocks=2", "--unfreezing.reset_optimizer=true", "--early_stopping.patience=10",
        "--model.freeze_batchnorm=false", "--model.frozen_mode=train",
    ],
}  # fmt: skip
FIGURES = ("auroc", "loss", "brier", "accuracy")


def run(arguments: list[str], cache: Path) -> None:
    """Run a command of bldml."""
    done = subprocess.run(
        [sys.executable, "-m", "bldml", *arguments], env=os.environ | {"BLDML_CACHE": str(cache)}, capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)


def fit(options: argparse.Namespace, work: Path, division: int, way: str) -> dict[str, float]:
    """Train one way on one division; the figures of its test and validation photographs."""
    logs = work / f"{division} {way}"
    run(
        ["fit", f"--data.root={options.folder}", f"--data.manifest={work / f'{division}.csv'}",
         f"--data.positive_class={options.positive_class}", f"--model.backbone={options.backbone}",
         f"--model.weights={options.weights}", f"--model.image_size={options.size}", "--early_stopping.patience=5",
         f"--trainer.max_epochs={options.epochs}", f"--trainer.default_root_dir={logs}", "--run_name=r",
         "--data.on_leak=off", "--report=false", *WAYS[way]],
        work / "cache",
    )  # fmt: skip
    folder = RunFolder(logs / "lightning_logs" / "r")
    figures: dict[str, float] = {}
    for split in ("val", "test"):
        metrics = json.loads((folder.path / "evaluations" / split / "metrics.json").read_text())
        figures |= {f"{split}_{name}": metrics[name] for name in FIGURES[:3]}
        figures[f"{split}_accuracy"] = metrics["at_threshold"]["accuracy"]
    figures["epochs"] = len(folder.history.read_text().splitlines()) - 1
    return figures


def against(first: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """The other way's figures minus the first one's, division by division."""
    differences = {name: [b[name] - a[name] for a, b in zip(first, other, strict=True)] for name in first[0]}
    return {
        name: {"mean": mean(values), "smallest": min(values), "largest": max(values)}
        for name, values in differences.items()
    }


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--positive_class", required=True)
    parser.add_argument("--backbone", default="mobilenet_v2_x0_35")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--divisions", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for division in range(options.divisions):
            manifest = work / f"{division}.csv"
            run(["split", str(options.folder), f"--seed={division}", f"--output={manifest}"], work / "cache")
            for way, rows in found.items():
                rows.append(fit(options, work, division, way))
                sys.stdout.write(f"{division} {way}: {rows[-1]}\n")
                sys.stdout.flush()
    base = next(iter(WAYS))
    record = {
        "what": f"each way minus {base!r}, over {options.divisions} divisions",
        "settings": {k: v for k, v in vars(options).items() if k not in ("folder", "output", "weights")},
        "ways": WAYS,
        "figures": found,
        "means": {way: {name: mean(row[name] for row in rows) for name in rows[0]} for way, rows in found.items()},
        "against": {way: against(found[base], rows) for way, rows in found.items() if way != base},
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
