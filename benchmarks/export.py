"""How exact and large exports of all backbones are, beside their checkpoints in torch.

    python benchmarks/export.py --output benchmarks/results/export.json

Weights are random, since what is compared is arithmetic. BatchNorm takes its statistics from the photographs, and the
last layer is scaled so that the logits have a standard deviation of 2, as those of a trained classifier. The threshold
is the median of the probabilities, where most verdicts can change. Photographs are drawn leaves.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.export.onnx import onnx_bytes
from bldml.export.storage import Weights, store_weights
from bldml.inference.classifier import Classifier
from bldml.inference.exported import ExportedModel
from bldml.training.backbones import BackboneName
from bldml.training.checkpoint import Header
from bldml.training.module import LeafClassifier
from bldml.training.transforms import MEAN, STD, evaluation_image


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=16)
    parser.add_argument(
        "--backbones", nargs="*", choices=get_args(BackboneName), help="only these; results of others are kept"
    )
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        leaves = Path(folder) / "leaves"
        write_leaves(leaves, images_per_class=options.photographs // 2, size=512, seed=0)
        paths = sorted(leaves.rglob("*.jpg"))
        names = options.backbones or get_args(BackboneName)
        found = {name: measure(name, paths) for name in names}
    kept = {}
    if options.backbones and options.output.exists():
        kept = json.loads(options.output.read_text())["backbones"]
    record = {
        "what": "largest and mean difference of a probability from torch in float32, and verdicts that change at a "
        "threshold at the median; size of the file as a ratio to the weights of the checkpoint",
        "photographs": len(paths),
        "backbones": kept | found,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")


def measure(name: BackboneName, paths: list[Path]) -> dict[str, Any]:
    """Return what was measured of one backbone."""
    torch.manual_seed(0)
    model = LeafClassifier(name, weights="none").eval()
    images = torch.stack([evaluation_image(load_rgb(path), model.image_size) for path in paths])
    logits = settle(model, images)
    plain: Any = {"fingerprints": {}, "seen": "", "versions": {}, "settings": {"data": {}}}
    plain |= {"class_names": ("BLD", "No_BLD"), "positive_class": "BLD", "threshold": 0.5, "temperature": 1.3}
    header = Header(name, model.image_size, MEAN, STD, **plain)
    expected = header.operating_point.probabilities(logits.numpy())
    header = replace(header, threshold=float(np.median(expected)))
    parameters = sum(value.numel() for value in model.network.state_dict().values())
    result: dict[str, Any] = {"image_size": header.image_size, "parameters": parameters}
    full = onnx_bytes(Classifier(header, model), "fp32", {"exported_with": {"bldml": ""}, **plain_header(header)})
    batches = [images[start : start + 8] for start in range(0, len(images), 8)]
    for weights in get_args(Weights):
        proto = onnx.load_from_string(full)
        store_weights(proto.graph, weights)
        content = proto.SerializeToString()
        exported = ExportedModel(content, Path("model.onnx"))
        probabilities = np.concatenate([exported.evaluate(some)[0] for some in batches])
        differences = np.abs(probabilities - expected)
        changed = (probabilities >= header.threshold) != (expected >= header.threshold)
        result[weights] = {
            "largest_difference": float(f"{differences.max():.2g}"),
            "mean_difference": float(f"{differences.mean():.2g}"),
            "verdicts_changed": int(changed.sum()),
            "megabytes": round(len(content) / 1e6, 1),
            "size_ratio": round(len(content) / (4 * parameters), 3),
        }
        print(name, weights, result[weights], flush=True)
    return result


def settle(model: LeafClassifier, images: Tensor) -> Tensor:
    """Give BatchNorm the statistics of the photographs, scale the last layer, and return the logits."""
    batches = [images[start : start + 8] for start in range(0, len(images), 8)]
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over batches
        module.train()
    with torch.no_grad():
        for some in batches[:4]:
            evaluate(model, some)
    model.eval()
    logits = torch.cat([evaluate(model, some) for some in batches])
    last = [module for module in model.network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(2 / logits.std())
        last.bias.sub_(logits.mean()).mul_(2 / logits.std())
    return torch.cat([evaluate(model, some) for some in batches])


def evaluate(model: LeafClassifier, images: Tensor) -> Tensor:
    """Return the logits."""
    with torch.no_grad():
        return model.evaluate(images)


def plain_header(header: Header) -> dict[str, Any]:
    """Return the header as an exported file has it."""
    return {key: value for key, value in vars(header).items() if key not in ("seen", "settings")}


if __name__ == "__main__":
    main()
