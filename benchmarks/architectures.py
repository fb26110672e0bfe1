"""Ten architectures of timm with random weights: two epochs, test, explain and predict, by the commands.

    python -m benchmarks.architectures --output benchmarks/results/architectures.json

Each is trained for two epochs on drawn leaves, the first with the backbone frozen, the second with its two last stages
unfrozen. Then it is tested, and explains and predicts all leaves. What is checked: each command ends with 0, two epochs
are recorded, the second one changed the unfrozen stages and no other, each photograph has a map, and a photograph has
the same probability from `test` and `predict`. Random weights learn little in two epochs, so no figure of accuracy is
kept. The exit code is 1 if a check fails.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from bldml.run.folder import RunFolder
from bldml.run.predictions import read_predictions
from bldml.training.backbones import row_of
from bldml.training.networks.row import Backbone
from bldml.training.networks.timm_rows import build_timm

# By architecture: the side of its images here, as small as it takes, so that a processor will do.
ARCHITECTURES = {
    "timm:convnext_nano": 64,
    "timm:convnextv2_nano": 64,
    "timm:efficientnet_b0": 64,
    "timm:mobilenetv4_conv_small": 64,
    "timm:mobilenetv4_conv_medium": 64,
    "timm:regnetx_008": 64,
    "timm:regnety_004": 64,
    "timm:swin_tiny_patch4_window7_224": 224,
    "timm:vit_small_patch16_224": 64,
    "timm:vit_base_patch16_siglip_224.v2_webli": 64,
}
STAGES = 2


def bldml(*arguments: str) -> str:
    """Run a command of bldml; return what it printed as its error, empty if it ended well."""
    done = subprocess.run([sys.executable, "-m", "bldml", *arguments], env=os.environ, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{arguments[0]} ended with {done.returncode}: {done.stderr[-500:]}"


def attempt(name: str, size: int, leaves: Path, work: Path) -> dict[str, Any]:
    """Do all commands with one architecture, and return what was found."""
    run, row = work / "lightning_logs" / "run", row_of(name)
    frozen = work / "lightning_logs" / "frozen"
    fit = (
        "fit", "--data.root", str(leaves), "--data.positive_class", "BLD", "--model.backbone", name,
        "--model.weights", "none", "--model.image_size", str(size), "--data.batch_size", "8", "--data.num_workers", "0",
        "--unfreezing.start_epoch", "1", "--unfreezing.stages", str(STAGES),
        "--trainer.default_root_dir", str(work), "--report", "false", "--test_after_fit", "false",
    )  # fmt: skip
    found: dict[str, Any] = {
        "image_size": size,
        "parameters": sum(one.numel() for one in build_timm(name, size).parameters()),
        "stages": len(row.stages),
        "layer of Grad-CAM": row.gradcam,
        "problems": [],
    }
    for command in (
        (*fit, "--run_name", "frozen", "--trainer.max_epochs", "1"),  # where the other one is after its first epoch
        (*fit, "--run_name", "run", "--trainer.max_epochs", "2"),
        ("test", str(run)),
        ("explain", str(run), str(leaves), "--output", str(work / "cams")),
        ("predict", str(run), str(leaves), "--output", str(work / "predicted")),
    ):
        if problem := bldml(*command):
            found["problems"].append(problem)
            return found
    found["problems"] = [said for said, is_true in checks(row, work, run, frozen).items() if not is_true]
    return found


def checks(row: Backbone, work: Path, run: Path, frozen: Path) -> dict[str, bool]:
    """Return what must be true after all commands, by what is said if it is not."""
    history = list(csv.DictReader(RunFolder(run).history.read_text().splitlines()))
    files = (run / "evaluations" / "test" / "predictions.csv", work / "predicted" / "predictions.csv")
    # The leaves of both classes have the same names.
    tested, predicted = ({Path(row.path).parts[-2:]: row.probability for row in read_predictions(one)} for one in files)
    maps = list(csv.DictReader((work / "cams" / "explanations.csv").read_text().splitlines()))
    apart = [abs(value - predicted[path]) for path, value in tested.items()]
    changed = changed_stages(row, *(RunFolder(one).last_checkpoint for one in (frozen, run)))
    return {
        "two epochs are not recorded": len(history) == 2,
        "nothing was tested": bool(tested),
        f"the stages that changed are not the last {STAGES}: {changed}": changed == list(range(STAGES)),
        "photographs are without a map": len(maps) == len(predicted),
        "test and predict differ by more than 0.000001": max(apart, default=1) <= 1e-6,
    }


def changed_stages(row: Backbone, first: Path, second: Path) -> list[int]:
    """Return the stages, counted from the head, whose weights differ between two checkpoints."""
    one, two = (torch.load(path, weights_only=True)["state_dict"] for path in (first, second))
    found = []
    for number, stage in enumerate(row.stages):
        names = [name for name in one if any(f"{name.partition('.')[2]}.".startswith(f"{path}.") for path in stage)]
        assert names, stage
        if any(not torch.equal(one[name], two[name]) for name in names):
            found.append(number)
    return found


def main() -> int:
    """Try all architectures and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="some of the architectures")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    import timm

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        leaves = Path(folder) / "leaves"
        if problem := bldml("demo", str(leaves), "--images_per_class", "20", "--size", "96"):
            sys.exit(problem)
        for name in options.only or ARCHITECTURES:
            found[name] = attempt(name, ARCHITECTURES.get(name, 64), leaves, Path(folder) / name.replace(":", "_"))
            shutil.rmtree(Path(folder) / name.replace(":", "_"))
            sys.stdout.write(f"{name}: {found[name]}\n")
            sys.stdout.flush()
    record = {
        "what": "one epoch frozen, one with two stages, test, explain and predict on 40 drawn leaves, random weights",
        "versions": {"timm": timm.__version__, "torch": torch.__version__},
        "machine": {"system": platform.system(), "cores": os.cpu_count()},
        "architectures": found,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return int(any(one["problems"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
