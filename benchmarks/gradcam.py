"""Grad-CAM on photographs whose lesions are known: how much of it is inside them.

    python benchmarks/gradcam.py cams/explanations.csv --checkpoint best.ckpt --photographs leaves --masks masks

Medians over photographs with lesions, and their bootstrap intervals, from the table that `bldml explain --masks` wrote.
Chance is the fraction of the image area. Lesions are inside leaves, so there is a second reference: the mean map of all
other photographs applied to each mask, which is the value of a map that is always the same.
"""

import argparse
import csv
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bldml.app.explain.command import find_masks
from bldml.dataset.folders import read_unlabelled
from bldml.dataset.images import load_rgb
from bldml.inference.classifier import load
from bldml.inference.pictures import attention, read_mask
from bldml.metrics.proportions import proportion
from bldml.metrics.resampling import bootstrap

Row = dict[str, float | None]


def read_table(path: Path) -> dict[str, Row]:
    """The figures of each photograph; None where the table is empty."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["path"]: {
                key: float(value) if value else None
                for key, value in row.items()
                if key not in ("number", "path", "overlay")
            }
            for row in csv.DictReader(file)
        }


def by_other_maps(checkpoint_path: Path, photographs: Path, masks: Path) -> dict[str, Row]:
    """Enrichment that the mean map of all other photographs has on each mask."""
    classifier = load(checkpoint_path)
    samples = read_unlabelled(photographs).splits["predict"]
    found = find_masks(masks, samples)
    maps = {sample.name: classifier.verdict_with_map(sample.path)[1] for sample in samples}
    unit = {name: cam / cam.sum() for name, cam in maps.items() if cam.sum() > 0}
    total = np.sum(list(unit.values()), axis=0)
    rows: dict[str, Row] = {}
    for sample in samples:
        others = (total - unit.get(sample.name, 0)).astype(np.float32)
        size = load_rgb(sample.path).size
        rows[sample.name] = attention(others, *read_mask(found[sample.name], sample.path, size))
    return rows


def median(values: list[float | None]) -> dict[str, Any]:
    """Median of those that are defined, with its interval."""
    defined = np.array([value for value in values if value is not None])
    interval = bootstrap(
        lambda index: float(np.median(defined[index])), np.ones(defined.size, int), np.arange(defined.size)
    )
    if interval is None:
        raise SystemExit("the table has no photograph for which this is defined")
    limits = [round(interval.low, 4), round(interval.high, 4)]
    return {"n": defined.size, "median": round(float(np.median(defined)), 4), "interval": limits}


def above(values: list[float | None], threshold: float = 1.0) -> dict[str, Any]:
    """Share of photographs above a threshold, by Wilson."""
    defined = [value for value in values if value is not None]
    found = proportion(sum(value > threshold for value in defined), len(defined))
    limits = None if found.interval is None else [round(found.interval.low, 4), round(found.interval.high, 4)]
    return {"n": len(defined), "above": sum(value > threshold for value in defined), "interval": limits}


def summary(rows: dict[str, Row], others: dict[str, Row]) -> dict[str, Any]:
    """All figures."""
    sick = {name: row for name, row in rows.items() if row["lesion_area"]}
    result: dict[str, Any] = {
        "photographs": len(rows),
        "with_lesions": len(sick),
        "without_lesions_and_with_an_empty_map": sum(
            row["attention_in_leaf"] is None for row in rows.values() if not row["lesion_area"]
        ),
    }
    for key in (
        "attention_in_leaf", "leaf_area", "leaf_enrichment",
        "attention_in_lesion", "lesion_area", "lesion_enrichment", "lesion_enrichment_within_leaf",
    ):  # fmt: skip
        result[key] = median([row[key] for row in sick.values()])
    for key in ("lesion_enrichment", "lesion_enrichment_within_leaf"):
        result[f"{key}_above_chance"] = above([row[key] for row in sick.values()])
        by_others = [others[name][key] for name in sick]
        ratios = [
            own / other
            for own, other in zip((row[key] for row in sick.values()), by_others, strict=True)
            if own is not None and other
        ]
        result[f"{key}_of_the_other_maps"] = median(by_others)
        result[f"{key}_over_that_of_the_other_maps"] = median(list(ratios))
        result[f"{key}_above_that_of_the_other_maps"] = above(list(ratios))
    return result


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--commands", type=Path, help="text file with the commands that led here, one on a line")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    others = by_other_maps(options.checkpoint, options.photographs, options.masks)
    result = {
        **summary(read_table(options.table), others),
        "level": 0.95,
        "intervals": "medians: percentile bootstrap over photographs, 2000 draws; counts: Wilson",
        "commit_of_the_fit": json.loads((options.checkpoint.parents[1] / "environment.json").read_text())["git_commit"],
        "commands": options.commands.read_text().splitlines() if options.commands else [],
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    # Limits on one line.
    text = re.sub(r"\[\s+([\d.]+),\s+([\d.]+)\s+\]", r"[\1, \2]", json.dumps(result, indent=2)) + "\n"
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
