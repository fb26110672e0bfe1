"""How often the true sensitivity is below the minimum that the threshold was chosen for, with an assurance and without.

    nice -n 19 python benchmarks/assurance.py --simulations 2000

Scores are normal with standard deviation 1 in both classes, so that the true sensitivity and specificity of a threshold
are known. The threshold is chosen on as many negatives as positives, for a minimum sensitivity, as in validation.
Independent positives: 20, 45, 100 and 200. Clustered ones: 15, 30 or 60 groups of 8 positives, whose scores share a
normal effect with the correlation "icc" within a group; with 1 the 8 photographs are alike.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

from bldml.metrics.operating_point import ThresholdCriterion, assurance_of, choose_threshold

SIZE = 8  # photographs of a group
INDEPENDENT = (20, 45, 100, 200)
GROUPS = (15, 30, 60)
ICCS = (0.5, 0.8, 1.0)
MINIMA = (0.9, 0.95)
DISTANCES = (1.5, 2.5, 3.5)  # between the classes: areas of .86, .96 and .993
ASSURANCE = 0.9


def simulate(
    units: np.ndarray, icc: float, minimum: float, distance: float, simulations: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Return how often the minimum is missed, and the mean specificity, by criterion."""
    labels = np.repeat([1, 0], units.size)
    found: dict[str, Any] = {}
    criteria = {"without": None, "with": ASSURANCE}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in criteria}
    for name, assurance in criteria.items():
        criterion = ThresholdCriterion(sensitivity=minimum, assurance=assurance)
        assured = assurance_of(criterion, np.ones(units.size, dtype=bool), units)
        assert assured is not None
        found[f"{name} assurance"] = {"permitted": assured.permitted, "assurance": round(assured.reached, 3)}
        for _ in range(simulations):
            positive, negative = (_scores(units, icc, generator) for _ in range(2))
            scores = np.concatenate([positive + distance, negative])
            threshold = choose_threshold(labels, expit(scores - distance / 2), criterion, assured.design_effect)
            # Back from the probability to the score.
            limit = math.log(threshold / (1 - threshold)) + distance / 2
            rates[name].append((float(ndtr(distance - limit)), float(ndtr(limit))))
    for name, values in rates.items():
        found[f"{name} assurance"] |= {
            "missed": round(float(np.mean([sensitivity < minimum for sensitivity, _ in values])), 3),
            "specificity": round(float(np.mean([specificity for _, specificity in values])), 3),
        }
    return found


def _scores(units: np.ndarray, icc: float, generator: np.random.Generator) -> np.ndarray:
    shared, own = generator.normal(size=units.max() + 1)[units], generator.normal(size=units.size)
    return np.asarray(math.sqrt(icc) * shared + math.sqrt(1 - icc) * own)


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/assurance.json"))
    options = parser.parse_args()
    started, generator = time.monotonic(), np.random.default_rng(options.seed)
    settings = [(f"{n} positives", np.arange(n), 0.0) for n in INDEPENDENT]
    settings += [(f"{k} groups of {SIZE}, icc {icc}", np.arange(k * SIZE) // SIZE, icc) for k in GROUPS for icc in ICCS]
    cells = {
        f"{name}, minimum {minimum}, distance {distance}": simulate(
            units, icc, minimum, distance, options.simulations, generator
        )
        for name, units, icc in settings
        for minimum in MINIMA
        for distance in DISTANCES
    }
    result = {
        "simulations": options.simulations,
        "seed": options.seed,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.machine(),
        "seconds": round(time.monotonic() - started),
        "cells": cells,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
