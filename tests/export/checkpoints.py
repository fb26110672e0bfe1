"""A run folder around a network that was never trained, to export."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bldml.dataset.images import load_rgb
from bldml.metrics.certainty.novelty import fit_novelty
from bldml.training.checkpoint import KEY, NOVELTY
from bldml.training.module import LeafClassifier
from bldml.training.networks.distribution import plain_novelty
from bldml.training.transforms import MEAN, STD, evaluation_image

SIZE = 64


def write_run(folder: Path, root: Path, val: list[str], *, known: Sequence[Path] = (), **header: Any) -> Path:
    """Write a run folder as `export` reads it, and return its checkpoint.

    Args:
        folder: The run folder.
        root: Folder of the photographs.
        val: Names of the validation photographs below it.
        known: Photographs that the checkpoint records as what its classifier learned from; by default none.
        header: Fields of the header that differ from the usual ones.
    """
    torch.manual_seed(1)
    model = LeafClassifier(backbone="three_layers", weights="none", image_size=SIZE)
    # Logits that differ among photographs, instead of the first ones, which hardly do.
    with torch.no_grad():
        model.network.head.weight.mul_(200)  # type: ignore[union-attr,operator]
    plain: dict[str, Any] = {
        "backbone": "three_layers", "image_size": SIZE, "mean": MEAN, "std": STD, "class_names": ("BLD", "No_BLD"),
        "positive_class": "BLD", "threshold": 0.5, "temperature": 1.3, "offset": 0.2, "fingerprints": {},
        "seen": "5ec2e7", "versions": {}, "format": 1, "decode": "full",
        "settings": {"data": {"root": str(root)}, "precision": "32-true"},
    }  # fmt: skip
    content: dict[str, Any] = {"epoch": 0, "state_dict": model.state_dict(), KEY: plain | header}
    if known:
        images = torch.stack([evaluation_image(load_rgb(one), SIZE) for one in known])
        with torch.inference_mode():
            features = model.eval().evaluate_with_features(images)[1].numpy()
        novelty = fit_novelty(features[::2], features[1::2], np.arange(len(features[1::2])))
        assert novelty is not None
        content[NOVELTY] = plain_novelty(novelty)
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    (folder / "config.yaml").write_text("model: {backbone: mobilenet_v2_x0_35}\n")
    with (folder / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *((name, name.split("/")[0], "val") for name in val)])
    return path
