"""How often the 95 % intervals of bldml cover the true value, by simulation.

    python benchmarks/coverage.py --simulations 2000 --output benchmarks/results/coverage.json

Areas of .86 to .998 on 45 + 71 independent photographs, and on 30 trees of 8 photographs whose scores share an effect
of the tree. Scores are normal in both classes, so that the true area is Phi(distance / sqrt 2). Beside the intervals of
bldml stand those it avoids: plain DeLong, photographs taken as independent, the percentile cluster bootstrap.
Proportions are those of a latent normal score with an effect of the tree. Last, how often two classifiers of the same
true area are told apart at p < .05. The bootstraps, which are slow, are run in one of ten simulations.
"""

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from bldml.metrics.auroc import estimate_auroc, paired_auroc
from bldml.metrics.bootstrap import bootstrap, paired_bootstrap
from bldml.metrics.estimates import Interval, Z
from bldml.metrics.proportions import clustered_proportion, proportion
from bldml.metrics.scores import auroc as area_of

AREAS = (0.86, 0.96, 0.988, 0.998)
SHARES = (0.5, 0.9, 0.97)
TREES, LEAVES = 30, 8
DESIGNS = {
    "12 sick, 18 healthy trees": np.repeat((np.arange(TREES) < 12).astype(int), LEAVES),
    "3 of 8 leaves sick on each tree": np.tile([1, 1, 1, 0, 0, 0, 0, 0], TREES),
}
TREE = np.repeat(np.arange(TREES), LEAVES)
NAMES = [str(tree) for tree in TREE]
REPLICATES = 500
SELDOM = 10


class Tally:
    """Counts, for each method, how often the truth lies within, and how wide the interval is."""

    def __init__(self, truth: float) -> None:
        """Begin with nothing."""
        self.truth = truth
        self.found: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)

    def add(self, method: str, interval: Interval | None) -> None:
        """Note one interval; none counts as a miss."""
        low, high = (math.inf, -math.inf) if interval is None else (interval.low, interval.high)
        width = 0.0 if interval is None else high - low
        self.found[method].append((low > self.truth, high < self.truth, width))

    def result(self) -> dict[str, Any]:
        """Shares and mean widths."""
        shown = {}
        for method, rows in self.found.items():
            above, below, width = np.array(rows, dtype=float).T
            covered = 1 - float(np.mean((above + below) > 0))
            shown[method] = {
                "coverage": round(covered, 4),
                "standard_error": round(math.sqrt(covered * (1 - covered) / len(rows)), 4),
                "interval_above_truth": round(float(above.mean()), 4),
                "interval_below_truth": round(float(below.mean()), 4),
                "mean_width": round(float(width.mean()), 4),
                "simulations": len(rows),
            }
        return shown


def distance(area: float) -> float:
    """Between the means of two normal scores of variance 1 with this area."""
    return NormalDist().inv_cdf(area) * math.sqrt(2)


def noise(generator: np.random.Generator, share_of_tree: float) -> np.ndarray:
    """Standard normal, (240,), correlated within a tree."""
    tree, leaf = generator.normal(size=TREES)[TREE], generator.normal(size=TREE.size)
    return math.sqrt(share_of_tree) * tree + math.sqrt(1 - share_of_tree) * leaf


def area_statistic(labels: np.ndarray, logits: np.ndarray) -> Callable[[np.ndarray], float | None]:
    """Area of a resample."""
    probabilities = 1 / (1 + np.exp(-logits))
    return lambda index: area_of(labels[index], probabilities[index])


def independent_areas(simulations: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """45 + 71 photographs, each of its own."""
    labels, rows = np.r_[np.ones(45, int), np.zeros(71, int)], []
    for area in AREAS:
        tally = Tally(area)
        for number in range(simulations):
            scores = distance(area) * labels + generator.normal(size=labels.size)
            tally.add("bldml: logit DeLong, Newcombe at 1", estimate_auroc(labels, scores).interval)
            against_constant = paired_auroc(labels, scores, np.zeros(labels.size)).difference
            plain = against_constant.interval
            if (
                plain is not None
                and against_constant.value is not None
                and estimate_auroc(labels, scores).value not in (0, 1)
            ):
                half = against_constant.value - plain.low
                tally.add("plain DeLong", Interval(0.5 + plain.low, 0.5 + plain.low + 2 * half, ""))
            else:
                tally.add("plain DeLong", Interval(1.0, 1.0, ""))
            if number % SELDOM == 0:
                drawn = bootstrap(area_statistic(labels, scores), labels, replicates=REPLICATES, seed=number)
                tally.add("percentile bootstrap", drawn)
        rows.append({"area": area, "methods": tally.result()})
    return rows


def clustered_areas(simulations: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """30 trees of 8 photographs."""
    rows = []
    for design, labels in DESIGNS.items():
        for share in (0.8, 0.3):
            for area in AREAS:
                tally = Tally(area)
                for number in range(simulations):
                    scores = distance(area) * labels + noise(generator, share)
                    tally.add("bldml: Newcombe over design effect", estimate_auroc(labels, scores, NAMES).interval)
                    tally.add("photographs taken as independent", estimate_auroc(labels, scores).interval)
                    if number % SELDOM == 0:
                        drawn = bootstrap(area_statistic(labels, scores), labels, NAMES, replicates=REPLICATES)
                        tally.add("percentile cluster bootstrap", drawn)
                rows.append({"design": design, "share_of_tree": share, "area": area, "methods": tally.result()})
    return rows


def clustered_proportions(simulations: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Share of hits among 30 trees of 8 photographs."""
    rows = []
    for share in (0.8, 0.3, 0.0):
        for truth in SHARES:
            tally, limit = Tally(truth), NormalDist().inv_cdf(truth)
            for _ in range(simulations):
                hits = noise(generator, share) < limit
                tally.add("bldml: Wilson over design effect", clustered_proportion(hits, NAMES).interval)
                tally.add("photographs taken as independent", proportion(int(hits.sum()), hits.size).interval)
            rows.append({"share_of_tree": share, "proportion": truth, "methods": tally.result()})
    return rows


def false_alarms(simulations: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Share of p < .05 for two classifiers of the same true area, in one of ten simulations."""
    rows, n = [], max(1, simulations // SELDOM)
    for design, labels in DESIGNS.items():
        for area in (0.86, 0.96, 0.988):
            alarms = {"paired cluster bootstrap": 0, "paired DeLong, photographs taken as independent": 0}
            for number in range(n):
                common = noise(generator, 0.8) * math.sqrt(0.5)
                first, second = (
                    distance(area) * labels + common + math.sqrt(0.5) * noise(generator, 0.8) for _ in range(2)
                )
                one, two = area_statistic(labels, first), area_statistic(labels, second)

                def difference(index: np.ndarray, one: Any = one, two: Any = two) -> float:
                    return float(one(index) - two(index))

                found = paired_bootstrap(difference, labels, NAMES, replicates=REPLICATES, seed=number)
                p = paired_auroc(labels, first, second).p
                alarms["paired cluster bootstrap"] += found is not None and found.p < 0.05
                alarms["paired DeLong, photographs taken as independent"] += p is not None and p < 0.05
            shares = {method: round(count / n, 4) for method, count in alarms.items()}
            rows.append({"design": design, "area": area, "p_below_0.05": shares, "simulations": n})
    return rows


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/coverage.json"))
    options = parser.parse_args()
    started, generator = time.monotonic(), np.random.default_rng(options.seed)
    result: dict[str, Any] = {
        "level": 0.95,
        "z": Z,
        "seed": options.seed,
        "replicates_of_bootstrap": REPLICATES,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.machine(),
    }
    for part in (independent_areas, clustered_areas, clustered_proportions, false_alarms):
        result[part.__name__] = part(options.simulations, generator)
        result["seconds"] = round(time.monotonic() - started)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
