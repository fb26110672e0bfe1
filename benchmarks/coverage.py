"""How often the 95 % intervals of bldml cover the true value, and how often its tests reject where nothing differs.

    nice -n 19 python benchmarks/coverage.py --simulations 300

Classifiers with normal scores in both classes and probabilities that are calibrated, so that every true value is known
(that of many photographs). 8, 15 and 30 units of 8 photographs: half of the units are of one class, or half of the
photographs of each unit; the scores of a unit share a normal effect, with the correlation "icc" within a unit. And 45
positive + 71 negative, and 17 + 89 photographs that are units of their own. Each draw yields the interval of every
metric, of the predictive values at a prevalence of 5 %, and of the fraction of positives in the third bin of the
calibration figure, whose true value is taken to be the mean probability in the bin (in a quarter of the draws). The
tests compare two classifiers of equal skill with independent scores, in five times as many draws. With `--package` the
result becomes the table in bldml/metrics/coverage.json, which pages print.
"""

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtri

from bldml.metrics.auroc import paired_auroc
from bldml.metrics.checked import SamplingUnit
from bldml.metrics.estimates import Estimate
from bldml.metrics.metric import Scored
from bldml.metrics.paired import mcnemar, paired_accuracy
from bldml.metrics.proportions import predictive_values
from bldml.metrics.registry import METRICS
from bldml.metrics.scores import reliability

SIZE = 8  # photographs of a unit
UNITS = (8, 15, 30)
ICCS = (0.0, 0.5, 0.8)
DISTANCES = {"mixed units": 2.2, "units of one class": 3.4}  # between the classes: areas of .94 and .992
CLASSES = ("positive", "negative")
INDEPENDENT = ((45, 71), (17, 89))
INDEPENDENT_DISTANCES = (1.5, 2.5, 3.5)  # areas of .86, .96 and .993
PREVALENCE = 0.05
LEFT_OUT = ("ece", "ece_expected")  # have no interval
PACKAGED = Path("bldml/metrics/coverage.json")  # what pages print of the result


class Cell:
    """One setting: the labels and units of its photographs, and the true values.

    Args:
        labels: 0 or 1, (n,).
        units: Sampling unit of each photograph, (n,).
        distance: Between the means of the scores of both classes, in standard deviations.
        icc: Correlation of the scores within a unit.
    """

    def __init__(self, labels: np.ndarray, units: np.ndarray, distance: float, icc: float) -> None:
        self.labels, self.units, self.distance, self.icc = labels, units, distance, icc
        self.named = [SamplingUnit("group", str(unit)) for unit in units] if np.unique(units).size < units.size else ()
        self.prior = float(logit(labels.mean()))
        many = [ndtri((np.arange(n) + 0.5) / n) for n in ((labels.size - labels.sum()) * 200, labels.sum() * 200)]
        scores = np.concatenate([many[0], many[1] + distance])
        population = Scored(np.repeat([0, 1], [many[0].size, many[1].size]), self.probabilities(scores))
        values = {name: metric.value(population) for name, metric in METRICS.items() if name not in LEFT_OUT}
        self.truth = {name: value for name, value in values.items() if value is not None}
        rates = self.truth["sensitivity"], self.truth["specificity"]
        self.truth |= zip(("ppv at 5 %", "npv at 5 %"), _by_bayes(*rates), strict=True)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities."""
        logits = self.distance * scores - self.distance**2 / 2 + self.prior
        return np.asarray(expit(logits), dtype=np.float64)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """Return the probabilities of one classifier."""
        unit = generator.normal(size=self.units.max() + 1)[self.units]
        alone = generator.normal(size=self.units.size)
        noise = math.sqrt(self.icc) * unit + math.sqrt(1 - self.icc) * alone
        return self.probabilities(self.distance * self.labels + noise)


def _by_bayes(sensitivity: float, specificity: float) -> tuple[float, float]:
    hit, alarm = sensitivity * PREVALENCE, (1 - specificity) * (1 - PREVALENCE)
    right, missed = specificity * (1 - PREVALENCE), (1 - sensitivity) * PREVALENCE
    return hit / (hit + alarm), right / (right + missed)


def cells() -> dict[str, Cell]:
    """Return every setting by its name."""
    found = {}
    for n in UNITS:
        for icc in ICCS:
            units = np.repeat(np.arange(n), SIZE)
            for design, distance in DISTANCES.items():
                labels = np.tile(np.arange(SIZE) % 2, n) if design == "mixed units" else units % 2
                found[f"{n} {design}, icc {icc}"] = Cell(labels, units, distance, icc)
    for positive, negative in INDEPENDENT:
        labels = np.repeat([1, 0], [positive, negative])
        for distance in INDEPENDENT_DISTANCES:
            name = f"{positive} + {negative} photographs, distance {distance}"
            found[name] = Cell(labels, np.arange(labels.size), distance, 0.0)
    return found


def simulate(cell: Cell, simulations: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return coverage by metric and method, and the proportion of p values below .05 by test."""
    covered: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    missing: dict[str, int] = defaultdict(int)
    rejected: dict[str, list[bool]] = defaultdict(list)

    def note(name: str, estimate: Estimate, truth: float) -> None:
        if estimate.interval is None:
            missing[f"{name}: {estimate.note}"] += 1
            return
        method = estimate.interval.method.partition(",")[0]
        is_covered = estimate.interval.low - 1e-12 <= truth <= estimate.interval.high + 1e-12
        covered[f"{name}: {method}"].append((is_covered, estimate.interval.high - estimate.interval.low))

    for number in range(simulations):
        first = cell.draw(generator)
        scored = Scored(cell.labels, first, 0.5, cell.named)
        estimates = {name: METRICS[name].estimate(scored) for name in METRICS if name not in LEFT_OUT}
        pair = predictive_values(estimates["sensitivity"], estimates["specificity"], PREVALENCE)
        for name, estimate in (estimates | dict(zip(("ppv at 5 %", "npv at 5 %"), pair, strict=True))).items():
            note(name, estimate, cell.truth[name])
        if number % 4 == 0:
            third = reliability(cell.labels, first, cell.units)[2]
            note("bin of the calibration figure", third.fraction, third.mean)
    for _ in range(5 * simulations):
        first, second = cell.draw(generator), cell.draw(generator)
        one, other = ((scores >= 0.5) == cell.labels for scores in (first, second))
        difference, p = paired_accuracy(one, other, cell.units)
        note("difference of accuracies", difference, 0.0)
        areas = paired_auroc(cell.labels, first, second, cell.units)
        note("difference of areas", areas.difference, 0.0)
        rejected["accuracy"].append(p < 0.05)
        if areas.p is not None:
            rejected["area"].append(areas.p < 0.05)
        if not cell.named:
            rejected["accuracy: McNemar, exact"].append(mcnemar(one, other).exact < 0.05)
    return {
        "coverage": {
            name: {
                "coverage": round(float(np.mean([one for one, _ in rows])), 3),
                "mean_width": round(float(np.mean([width for _, width in rows])), 3),
                "draws": len(rows),
            }
            for name, rows in sorted(covered.items())
        },
        "without_interval": dict(sorted(missing.items())),
        "p_below_0.05": {name: round(float(np.mean(rows)), 3) for name, rows in rejected.items()},
    }


def _by_metric(cell: dict[str, Any]) -> dict[str, float]:
    """Return the coverage by metric, methods together; a metric with fewer than 50 intervals is left out."""
    together: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for name, row in cell["coverage"].items():
        together[name.partition(":")[0]].append((row["coverage"], row["draws"]))
    numbers = {name: sum(draws for _, draws in rows) for name, rows in together.items()}
    return {
        name: round(sum(share * draws for share, draws in rows) / numbers[name], 3)
        for name, rows in together.items()
        if numbers[name] >= 50
    }


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the worst and the mean cell by metric, clustered and independent; the methods of a cell together."""
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    sizes: dict[str, dict[str, float]] = defaultdict(dict)
    for cell, result in found.items():
        kind = "clustered" if "units" in cell else "independent"
        for name, coverage in _by_metric(result).items():
            shares[f"{name}, {kind}"][cell] = coverage
        for name, size in result["p_below_0.05"].items():
            sizes[f"{name}, {kind}"][cell] = size
    return {
        "coverage": {
            name: {
                "worst": min(of.values()),
                "mean": round(float(np.mean([*of.values()])), 3),
                "cell": min(of, key=of.__getitem__),
            }
            for name, of in sorted(shares.items())
        },
        "p_below_0.05": {
            name: {
                "worst": max(of.values()),
                "mean": round(float(np.mean([*of.values()])), 3),
                "cell": max(of, key=of.__getitem__),
            }
            for name, of in sorted(sizes.items())
        },
    }


def packaged(result: dict[str, Any]) -> dict[str, Any]:
    """Return the table that is part of bldml: the lowest coverage of each metric's interval, by simulated size."""
    settings: dict[str, dict[str, Any]] = {}
    for name, cell in result["cells"].items():
        numbers = [int(word) for word in name.partition(",")[0].split() if word.isdigit()]
        sizes = {"units": numbers[0], "size": SIZE} if "units" in name else dict(zip(CLASSES, numbers, strict=True))
        lowest = settings.setdefault(str(sizes), sizes | {"coverage": {}})["coverage"]
        for metric, coverage in _by_metric(cell).items():
            if metric in METRICS:
                lowest[metric] = min(coverage, lowest.get(metric, 1.0))
    return {"simulations": result["simulations"], "settings": [*settings.values()]}


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/coverage.json"))
    parser.add_argument("--package", action="store_true", help=f"simulate nothing; write {PACKAGED} from the result")
    options = parser.parse_args()
    if options.package:
        found = packaged(json.loads(options.output.read_text(encoding="utf-8")))
        PACKAGED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    started, generator = time.monotonic(), np.random.default_rng(options.seed)
    result: dict[str, Any] = {
        "simulations": options.simulations,
        "seed": options.seed,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.machine(),
    }
    found = {}
    for name, cell in cells().items():
        found[name] = simulate(cell, options.simulations, generator)
        result |= {"seconds": round(time.monotonic() - started), "summary": summary(found), "cells": found}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
