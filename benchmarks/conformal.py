"""How often a certain band is wrong on new leaves, where the limits were chosen on validation photographs.

    nice -n 19 python benchmarks/conformal.py --simulations 4000

Scores are normal with standard deviation 1 in both classes, so that the true error of a limit is known: the probability
that a positive leaf is certainly negative, or a negative one certainly positive. Validation has as many negatives as
positives. Independent positives: 19, 20, 45, 100 and 200. Clustered ones: 20, 40 or 80 groups of 1 to 15 positives
(8 on average), whose scores share a normal effect with the correlation "icc"; besides, what the limits would be if each
photograph counted as one ("photographs"). Selection: validation also chose the epoch with the highest AUROC of 10
equally good ones (scores of two epochs have the correlation 0.5 or 0.8), and the threshold with the highest F1.

"mean" is what is promised: at most the stated error. "in one of 20" is what one fit of 20 exceeds, and "predicted" what
`error_in_one_of` says of it.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr

from bldml.metrics.certainty.conformal import ONE_IN, choose_bands, error_in_one_of
from bldml.metrics.operating_point import choose_threshold
from bldml.metrics.scores import auroc

INDEPENDENT = (19, 20, 45, 100, 200)
GROUPS = (20, 40, 80)
ICCS = (0.5, 0.8, 1.0)
ERRORS = (0.05, 0.1)
DISTANCES = (1.0, 2.5)  # between the classes: areas of .76 and .96
SELECTION = (45, 100)
EPOCHS = 10
CORRELATIONS = (0.5, 0.8)


def errors_of(
    positive: np.ndarray, negative: np.ndarray, units: np.ndarray, distance: float, error: float
) -> list[float]:
    """Return the true errors of the positive and of the negative class; nan where there are no limits."""
    scores = np.concatenate([positive + distance, negative]) - distance / 2
    labels = np.repeat([1, 0], [positive.size, negative.size])
    probabilities = expit(scores)
    threshold = choose_threshold(labels, probabilities)
    bands = choose_bands(labels, probabilities, np.append(units, units + units.max() + 1), threshold, error)
    if bands.low is None or bands.high is None:
        return [math.nan, math.nan]
    low, high = (float(logit(min(limit, 1))) for limit in (bands.low, bands.high))
    return [float(ndtr(low - distance / 2)), float(ndtr(-high - distance / 2))]


def draw(units: np.ndarray, icc: float, generator: np.random.Generator) -> np.ndarray:
    """Return scores (n,) of mean 0."""
    shared, own = generator.normal(size=units.max() + 1)[units], generator.normal(size=units.size)
    return np.asarray(math.sqrt(icc) * shared + math.sqrt(1 - icc) * own)


def selected(
    n: int, correlation: float, distance: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of n positives and n negatives in the epoch with the highest AUROC."""
    labels, epochs = np.repeat([1, 0], n), np.arange(2 * n)
    common = generator.normal(size=2 * n)
    scores = [
        math.sqrt(correlation) * common + math.sqrt(1 - correlation) * draw(epochs, 0.0, generator)
        for _ in range(EPOCHS)
    ]
    areas = [auroc(labels, expit(one + distance * labels)) or 0.0 for one in scores]
    best = scores[int(np.argmax(areas))]
    return best[:n], best[n:]


def summary(errors: list[list[float]]) -> dict[str, float]:
    """Return mean and 95 % quantile of the error over both classes."""
    values = np.array(errors)
    return {
        "mean": round(float(values.mean()), 4),
        f"in one of {ONE_IN}": round(float(np.quantile(values, 1 - 1 / ONE_IN)), 4),
    }


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/conformal.json"))
    options = parser.parse_args()
    started, generator, turns = time.monotonic(), np.random.default_rng(options.seed), range(options.simulations)
    cells: dict[str, Any] = {}
    for error in ERRORS:
        for distance in DISTANCES:
            end = f"error {error}, distance {distance}"
            for n in INDEPENDENT:
                units = np.arange(n)
                found = [
                    errors_of(draw(units, 0, generator), draw(units, 0, generator), units, distance, error)
                    for _ in turns
                ]
                predicted = round(error_in_one_of(n, error), 4)
                cells[f"{n} positives, {end}"] = summary(found) | {"predicted": predicted}
            for n in SELECTION:
                units = np.arange(n)
                for correlation in CORRELATIONS:
                    found = [
                        errors_of(*selected(n, correlation, distance, generator), units, distance, error) for _ in turns
                    ]
                    name = f"{n} positives, best of {EPOCHS} epochs with correlation {correlation}, {end}"
                    cells[name] = summary(found) | {"predicted": round(error_in_one_of(n, error), 4)}
            for k in GROUPS:
                for icc in ICCS:
                    by_unit, by_photograph = [], []
                    for _ in turns:
                        units = np.repeat(np.arange(k), generator.integers(1, 16, k))
                        scores = draw(units, icc, generator), draw(units, icc, generator)
                        by_unit.append(errors_of(*scores, units, distance, error))
                        by_photograph.append(errors_of(*scores, np.arange(units.size), distance, error))
                    cells[f"{k} groups of 1 to 15, icc {icc}, {end}"] = {
                        "units": summary(by_unit) | {"predicted": round(error_in_one_of(k, error), 4)},
                        "photographs": summary(by_photograph),
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
