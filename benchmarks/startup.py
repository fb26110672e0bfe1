"""How long each command takes to begin, beside importing torch and Lightning's command line alone.

    python benchmarks/startup.py --output benchmarks/results/startup.json

Each is started anew, in turn, several times; medians, and their ratio to `import torch`. Plain commands load no torch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bldml.commands import COMMANDS

WAYS: dict[str, list[str]] = {
    "import torch": ["-c", "import torch"],
    "import lightning.pytorch.cli": ["-c", "import lightning.pytorch.cli"],
    "bldml --help": ["-m", "bldml", "--help"],
    **{f"bldml {name} --help": ["-m", "bldml", name, "--help"] for name in COMMANDS},
    "bldml fit --help": ["-m", "bldml", "fit", "--help"],
    "bldml fit --help=all": ["-m", "bldml", "fit", "--help=all"],
    "bldml predict --help=all": ["-m", "bldml", "predict", "--help=all"],
}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, arguments in WAYS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    record = {
        "what": "median seconds from the start of the process to its end, and their ratio to `import torch`",
        "hardware": f"AMD EPYC, {len(os.sched_getaffinity(0))} cores",
        "seconds": {way: round(value, 2) for way, value in medians.items()},
        "ratio": {way: round(value / medians["import torch"], 2) for way, value in medians.items()},
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
