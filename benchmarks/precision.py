"""What it costs that every published number is computed in float32.

    python benchmarks/precision.py --output benchmarks/results/precision.json

For each backbone with random weights: seconds of an evaluation in float32 divided by those in the 16 bits that training
uses on this device (bf16 on a CPU, fp16 on a GPU), in one process, in turn. On a CPU one thread is used and the time is
that of the processor, so that other work does not count.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from bldml.training.backbones import BACKBONES, BackboneName
from bldml.training.module import LeafClassifier


def seconds(call: Callable[[], Tensor], device: str) -> float:
    """Time of one call."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def compare(name: BackboneName, device: str, batch: int, rounds: int) -> float:
    """Ratio of the times."""
    torch.manual_seed(0)
    model = LeafClassifier(name, "none").eval().to(device)
    images = torch.randint(0, 256, (batch, 3, model.image_size, model.image_size), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        exact, rough = [], []
        for _ in range(rounds + 1):
            exact.append(seconds(lambda: model.evaluate(images), device))
            with torch.autocast(device, torch.bfloat16 if device == "cpu" else torch.float16):
                rough.append(seconds(lambda: model(images), device))
    return round(statistics.median(exact[1:]) / statistics.median(rough[1:]), 2)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    found = {name: compare(name, device, options.batch, options.rounds) for name in get_args(BackboneName)}
    about = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "batch": options.batch,
        "image_size": {name: BACKBONES[name].image_size for name in found},
    }
    text = json.dumps({"about": about, "float32 against 16 bits": found}, indent=2) + "\n"
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
