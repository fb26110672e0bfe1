"""A run folder around a network that was never trained, to export."""

import csv
from pathlib import Path
from typing import Any

import torch

from bldml.training.checkpoint import KEY
from bldml.training.module import LeafClassifier
from bldml.training.transforms import MEAN, STD

SIZE = 64


def write_run(folder: Path, root: Path, val: list[str], **header: Any) -> Path:
    """Write a run folder as `export` reads it, and return its checkpoint.

    Args:
        folder: The run folder.
        root: Folder of the photographs.
        val: Names of the validation photographs below it.
        header: Fields of the header that differ from the usual ones.
    """
    torch.manual_seed(1)
    model = LeafClassifier(backbone="three_layers", weights="none", image_size=SIZE)  # type: ignore[arg-type]
    # Logits that differ among photographs, instead of the first ones, which hardly do.
    with torch.no_grad():
        model.network.head.weight.mul_(200)  # type: ignore[union-attr,operator]
    plain: dict[str, Any] = {
        "backbone": "three_layers", "image_size": SIZE, "mean": MEAN, "std": STD, "class_names": ("BLD", "No_BLD"),
        "positive_class": "BLD", "threshold": 0.5, "temperature": 1.3, "offset": 0.2, "fingerprints": {},
        "seen": "secret", "versions": {}, "format": 1, "decode": "full",
        "settings": {"data": {"root": str(root)}, "precision": "32-true"},
    }  # fmt: skip
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 0, "state_dict": model.state_dict(), KEY: plain | header}, path)
    (folder / "config.yaml").write_text("model: {backbone: mobilenet_v2_x0_35}\n")
    with (folder / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *((name, name.split("/")[0], "val") for name in val)])
    return path
