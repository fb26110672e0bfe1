"""How often the bands of the ROC and the precision-recall curve cover the true curve, at one place at a time.

    nice -n 19 python benchmarks/bands.py --simulations 300

Scores are normal with standard deviation 1 in both classes, so that the true curves are known. Mixed units: half of the
photographs of each unit are positive; units of one class: half of the units. Units have 8 photographs, whose scores
share a normal effect with the correlation "icc". And 45 positive + 71 negative, and 17 + 89 photographs that are units
of their own. "bootstrap" is what the band is compared with: the percentile interval of the sensitivity at each
false-positive rate (vertical averaging, Fawcett 2006) of units drawn as in `bldml.metrics.resampling`.
"""

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, ndtr, ndtri

from bldml.metrics.auroc import curve_bands

SIZE = 8  # photographs of a unit
ICCS = (0.0, 0.5, 0.8)
MIXED, ONE_CLASS = (8, 15, 30), (16, 30, 60)
INDEPENDENT = ((45, 71), (17, 89))
ALARMS = np.array([0.02, 0.05, 0.1, 0.2, 0.5])  # false-positive rates
RECALLS = np.array([0.5, 0.8, 0.9, 0.95, 0.99])
REPLICATES = 300

Limits = tuple[np.ndarray, np.ndarray]


class Cell(NamedTuple):
    """One setting: labels and units, (n,), distance of the classes in standard deviations, correlation in units."""

    labels: np.ndarray
    units: np.ndarray
    distance: float
    icc: float

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """Return the probabilities of one classifier."""
        shared, own = generator.normal(size=self.units.max() + 1)[self.units], generator.normal(size=self.units.size)
        noise = math.sqrt(self.icc) * shared + math.sqrt(1 - self.icc) * own
        return np.asarray(expit(self.distance * (self.labels - 0.5) + noise))


def cells() -> dict[str, Cell]:
    """Return every setting by its name."""
    found: dict[str, Cell] = {}
    for name, numbers, distance in (("mixed units", MIXED, 2.2), ("units of one class", ONE_CLASS, 3.4)):
        for n in numbers:
            units = np.repeat(np.arange(n), SIZE)
            labels = np.tile(np.arange(SIZE) % 2, n) if name == "mixed units" else units % 2
            found |= {f"{n} {name}, icc {icc}": Cell(labels, units, distance, icc) for icc in ICCS}
    for positive, negative in INDEPENDENT:
        labels = np.repeat([1, 0], [positive, negative])
        for distance in (1.5, 2.5, 3.5):
            name = f"{positive} + {negative} photographs, distance {distance}"
            found[name] = Cell(labels, np.arange(labels.size), distance, 0.0)
    return found


def truth(cell: Cell) -> dict[str, np.ndarray]:
    """Return the true sensitivity at `ALARMS` and the true precision at `RECALLS`."""
    share, alarms = cell.labels.mean(), ndtr(ndtri(RECALLS) - cell.distance)
    return {
        "roc": np.asarray(ndtr(cell.distance + ndtri(ALARMS))),
        "precision-recall": share * RECALLS / (share * RECALLS + (1 - share) * alarms),
    }


def drawn_bands(cell: Cell, probabilities: np.ndarray) -> dict[str, Limits]:
    """Return the limits at `ALARMS` and `RECALLS`, read off as they are drawn."""
    bands = curve_bands(cell.labels, probabilities, cell.units)
    assert bands is not None
    return {
        name: (np.interp(at, band.at, band.low), np.interp(at, band.at, band.high))
        for name, at, band in zip(("roc", "precision-recall"), (ALARMS, RECALLS), bands, strict=True)
    }


def bootstrap(cell: Cell, probabilities: np.ndarray, generator: np.random.Generator) -> Limits:
    """Return the percentile interval of the sensitivity at `ALARMS`."""
    positives, sizes = np.bincount(cell.units, weights=cell.labels), np.bincount(cell.units)
    kinds = np.where(positives == 0, 0, np.where(positives == sizes, 1, 2))
    times = np.zeros((REPLICATES, sizes.size))
    for kind in np.unique(kinds):
        stratum = np.flatnonzero(kinds == kind)
        times[:, stratum] = generator.multinomial(stratum.size, np.full(stratum.size, 1 / stratum.size), REPLICATES)
    order = np.argsort(-probabilities)
    weights, label = times[:, cell.units[order]], cell.labels[order]
    hits, alarms = np.cumsum(weights * label, axis=1), np.cumsum(weights * (1 - label), axis=1)
    rates, false = hits / hits[:, -1:], alarms / alarms[:, -1:]
    found = np.stack([np.where(false <= alarm + 1e-12, rates, 0.0).max(axis=1) for alarm in ALARMS])
    low, high = np.quantile(found, [0.025, 0.975], axis=1)
    return low, high


def simulate(cell: Cell, simulations: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return by band the coverage and the mean width at each place."""
    right = truth(cell)
    covered: dict[str, list[np.ndarray]] = defaultdict(list)
    widths: dict[str, list[np.ndarray]] = defaultdict(list)
    for _ in range(simulations):
        probabilities = cell.draw(generator)
        found = drawn_bands(cell, probabilities) | {"roc, bootstrap": bootstrap(cell, probabilities, generator)}
        for name, (low, high) in found.items():
            true = right[name.partition(",")[0]]
            covered[name].append((low - 1e-9 <= true) & (true <= high + 1e-9))
            widths[name].append(high - low)
    return {
        name: {
            "coverage": np.mean(covered[name], axis=0).round(3).tolist(),
            "mean_width": np.mean(widths[name], axis=0).round(3).tolist(),
        }
        for name in covered
    }


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the worst and the mean coverage by band, clustered and independent."""
    together: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for cell, result in found.items():
        for name, row in result.items():
            together[f"{name}, {'clustered' if 'units' in cell else 'independent'}"][cell] = row["coverage"]
    return {
        name: {
            "worst": min(map(min, of.values())),
            "cell": min(of, key=lambda cell: min(of[cell])),
            "mean": round(float(np.mean([*of.values()])), 3),
        }
        for name, of in sorted(together.items())
    }


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/bands.json"))
    options = parser.parse_args()
    started, generator = time.monotonic(), np.random.default_rng(options.seed)
    found = {name: simulate(cell, options.simulations, generator) for name, cell in cells().items()}
    result = {
        "simulations": options.simulations,
        "seed": options.seed,
        "false-positive rates": ALARMS.tolist(),
        "recalls": RECALLS.tolist(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.machine(),
        "seconds": round(time.monotonic() - started),
        "summary": summary(found),
        "cells": found,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
