"""How exact, large and fast exports of all backbones are, beside their checkpoints in torch.

    OMP_NUM_THREADS=1 python benchmarks/export.py --output benchmarks/results/export.json

Weights are random, since what is compared is arithmetic. BatchNorm takes its statistics from the photographs, and the
last layer is scaled so that the logits have a standard deviation of 2, as those of a trained classifier. The threshold
is the median of the probabilities, where most verdicts can change. Photographs are drawn leaves.

Times are those of the processor on one core, so that other work does not count: of a whole export in a process that has
exported before, with its comparison on the photographs, and of the network alone, exported and in torch in turn.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.errors import CheckpointError
from bldml.export.command import PACKAGES, Format, export_checkpoint
from bldml.export.onnx import onnx_bytes
from bldml.export.storage import Weights, store_weights
from bldml.inference.classifier import Classifier
from bldml.inference.exported import ExportedModel
from bldml.training.backbones import BackboneName
from bldml.training.checkpoint import KEY, Header
from bldml.training.module import LeafClassifier
from bldml.training.transforms import MEAN, STD, evaluation_image

BATCH_SIZE = 8
EXPORTS: dict[str, tuple[Format, Weights]] = {
    **{weights: ("onnx", weights) for weights in get_args(Weights)},
    "web": ("web", "fp32"),
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=16)
    parser.add_argument(
        "--backbones", nargs="*", choices=get_args(BackboneName), help="only these; results of others are kept"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison of times with torch")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        leaves = Path(folder) / "leaves"
        write_leaves(leaves, images_per_class=options.photographs // 2, size=512, seed=0)
        paths = sorted(leaves.rglob("*.jpg"))
        names = options.backbones or get_args(BackboneName)
        found = {name: measure(name, paths, options.rounds, Path(folder) / name) for name in names}
    kept = {}
    if options.backbones and options.output.exists():
        kept = json.loads(options.output.read_text())["backbones"]
    record = {
        "what": "largest and mean difference of a probability from torch in float32, and verdicts that change at a "
        "threshold at the median; size of the file as a ratio to the weights of the checkpoint; seconds of the "
        "processor for a whole export with its comparison (one core, warm), at a threshold at which no verdict can "
        "change, or until it is refused; seconds of the exported network for a batch divided by those of torch, median "
        "of the rounds",
        "machine": platform.processor() or platform.machine(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "photographs": len(paths),
        "rounds": options.rounds,
        "backbones": kept | found,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")


def on_one_core() -> None:
    """Keep this process to one core and one thread, as far as the system can."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # by which onnxruntime counts its threads
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])


def measure(name: BackboneName, paths: list[Path], rounds: int, folder: Path) -> dict[str, Any]:
    """Return what was measured of one backbone; the folder is for its exports."""
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
    batches = torch.split(images, BATCH_SIZE)
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
            "time_ratio": time_ratio(exported, model, batches[0], rounds),
        }
        print(name, weights, result[weights], flush=True)
    checkpoint = write_checkpoint(folder, model, header)
    exports = {
        kind: export(checkpoint, *options, folder / kind, paths[0].parents[1]) for kind, options in EXPORTS.items()
    }
    for kind, found in exports.items():
        result.setdefault(kind, {}).update(found)
        print(name, kind, found, flush=True)
    return result


def time_ratio(exported: ExportedModel, model: LeafClassifier, images: Tensor, rounds: int) -> float:
    """Return the processor time of an exported network for a batch, divided by that of torch."""
    ratios = []
    for _ in range(rounds + 1):
        before = time.process_time()
        exported.evaluate(images)
        between = time.process_time()
        evaluate(model, images)
        ratios.append((between - before) / (time.process_time() - between))
    return round(statistics.median(ratios[1:]), 2)  # the first call of either prepares


def write_checkpoint(folder: Path, model: LeafClassifier, header: Header) -> Path:
    """Write a checkpoint with a threshold that no probability is near, and return its path."""
    plain = {key: value for key, value in vars(header).items() if key != "bands"} | {"threshold": 0.999}
    folder.mkdir()
    torch.save({"epoch": 0, "state_dict": model.state_dict(), KEY: plain}, folder / "best.ckpt")
    return folder / "best.ckpt"


def export(checkpoint: Path, kind: Format, weights: Weights, output: Path, photographs: Path) -> dict[str, Any]:
    """Export as the command does, and return its time, and the sizes of a page."""
    start = time.process_time()
    try:
        export_checkpoint(checkpoint, kind, output, weights, photographs, version="")
    except CheckpointError as error:
        return {"seconds": round(time.process_time() - start, 1), "refused": error.code}
    found: dict[str, Any] = {"seconds": round(time.process_time() - start, 1)}
    if kind == "web":
        sizes = {path.name: path.stat().st_size / 1e6 for path in output.iterdir()}
        single = sizes.pop("BLD_or_No_BLD.html")
        found |= {"folder_megabytes": round(sum(sizes.values()), 1), "single_file_megabytes": round(single, 1)}
    return found


def settle(model: LeafClassifier, images: Tensor) -> Tensor:
    """Give BatchNorm the statistics of the photographs, scale the last layer, and return the logits."""
    batches = torch.split(images, BATCH_SIZE)
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
