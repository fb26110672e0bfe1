"""Photographs related by their names: how many are found, how many others are joined, and the time for many names.

    python -m benchmarks.names --output benchmarks/results/names.json

The names are those of the tests, which were made with the rules at hand: another program may write others.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bldml.dataset.duplicates.bursts import burst_groups
from bldml.dataset.duplicates.names import find_sources
from tests.dataset.test_bursts import BURSTS, EXPORTS
from tests.dataset.test_names import APART, CAMERAS, SCHEMES, STYLES, divided

SOURCES = 24
FORMS = {
    "frame numbers": "BLD/IMG_{:05d}.JPG",
    "times": "BLD/IMG_2024060{:06d}.jpg",
    "Roboflow": "BLD/leaf {:05d} of the tree number 7_jpg.rf.0a1b2c3d4e5f6a7b0a1b2c3d4e5f6a7b.jpg",
    "PlantVillage": "BLD/0a1b2c3d-0a1b-0a1b-0a1b-{:012d}___RS_HL 1000_new30degFlipLR.JPG",
}


def divided_sources() -> dict[str, dict[str, int]]:
    """Return of each scheme the sources, and those that are divided or joined with another."""
    found: dict[str, dict[str, int]] = {}
    for scheme, files in SCHEMES.items():
        sources = [
            [[f"BLD/{name}" for name in files(style.format(100 + 37 * i))] for i in range(SOURCES)]
            for style in STYLES[:-1]
        ]
        found[scheme] = {"sources": SOURCES * len(sources), "wrong": sum(len(divided(one)) for one in sources)}
    for camera, files_of in CAMERAS.items():
        one = [[f"BLD/{name}" for name in files_of(3000 + 37 * i)] for i in range(SOURCES)]
        found[f"camera: {camera}"] = {"sources": SOURCES, "wrong": len(divided(one))}
    return found


def bursts() -> dict[str, int]:
    """Return how many bursts there are, and how many are not found whole."""
    lines = [line.split("|" if "|" in line else None) for line in BURSTS.split("\n")[1:-1]]
    return {
        "bursts": len(lines),
        "missed": sum(len(set(burst_groups(names, [None] * len(names)))) > 1 for names in lines),
    }


def joined_names() -> dict[str, dict[str, int]]:
    """Return how many names of unrelated photographs there are, and how many were joined with another."""
    sources = {kind: sum(map(len, find_sources(names).groups)) for kind, names in APART.items()}
    found = {f"sources: {kind}": {"names": len(names), "joined": sources[kind]} for kind, names in APART.items()}
    for kind, names in EXPORTS.items():
        alone = len(set(burst_groups(names, [None] * len(names))))
        found[f"bursts: {kind}"] = {"names": len(names), "joined": len(names) - alone}
    return found


def seconds(count: int) -> dict[str, dict[str, float]]:
    """Return the processor time of each search among so many names."""
    found: dict[str, dict[str, float]] = {}
    for form, pattern in FORMS.items():
        names = [pattern.format(i) for i in range(count)]
        found[form] = {}
        for what, search in (("sources", find_sources), ("bursts", lambda n: burst_groups(n, [None] * len(n)))):
            start = time.process_time()
            search(names)
            found[form][what] = round(time.process_time() - start, 2)
    return found


def main() -> None:
    """Write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "sources": divided_sources(),
        "bursts": bursts(),
        "unrelated": joined_names(),
        "processor_seconds": {"names": options.count, **seconds(options.count)},
    }
    options.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
