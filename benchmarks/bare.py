"""A bare loop over tensors in memory: what the network alone costs, for `training.py`.

    python benchmarks/bare.py --backbone mobilenet_v3_large --size 384 --unfrozen 0 [--plain] [--precision 32-true]

No photographs, no augmentation, no metrics, no Lightning. With --plain the network is called as torchvision built it,
without the folded frozen part. Prints images/s of training and validation.
"""

import argparse
import contextlib
import json
import sys
import time

from bldml.training.process import wait_briefly

wait_briefly()  # as `fit`, before torch is loaded

import torch  # noqa: E402

from bldml.training.backbones import BACKBONES  # noqa: E402
from bldml.training.module import LeafClassifier  # noqa: E402
from bldml.training.process import keep_freed_memory  # noqa: E402
from bldml.training.scores import weighted_loss  # noqa: E402


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v3_large", choices=list(BACKBONES))
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--unfrozen", type=int, default=0, help="stages that are trained beside the head")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--precision", choices=("bf16-mixed", "16-mixed", "32-true"), default="bf16-mixed")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--allocator", choices=("stock", "kept"), default="kept")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.allocator == "kept" and device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    module = LeafClassifier(options.backbone, "none", options.size, compile=options.compile).to(device)
    module.unfreeze(options.unfrozen)
    optimizer = module.configure_optimizers()
    images = torch.randint(0, 256, (2 * options.batch_size, 3, options.size, options.size), dtype=torch.uint8)
    labels = torch.arange(2 * options.batch_size) % 2
    images, labels = images.to(device), labels.to(device)
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

    def precision() -> contextlib.AbstractContextManager[object]:
        if options.precision == "32-true":
            return contextlib.nullcontext()
        return torch.autocast(device.type, types[options.precision])

    def logits(part: torch.Tensor) -> torch.Tensor:
        if options.plain:
            plain: torch.Tensor = module(part)
            return plain
        return module.trunk.logits(module.trunk.features(module.prepared(part))).squeeze(1).float()

    def step() -> None:
        with precision():
            loss = weighted_loss(logits(images[: options.batch_size]), labels[: options.batch_size], module.pos_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def look() -> None:
        with torch.no_grad(), precision():
            logits(images)

    rates = {}
    for name, work, count in (("train", step, options.batch_size), ("val", look, 2 * options.batch_size)):
        if name == "val":
            module.eval()
        for _ in range(3):
            work()
        synchronize(device)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < options.seconds:
            work()
            synchronize(device)
            done += count
        rates[name] = done / (time.perf_counter() - start)
    if device.type == "cuda":
        rates["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    sys.stdout.write(json.dumps({**vars(options), "device": device.type} | rates) + "\n")
    return 0


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
