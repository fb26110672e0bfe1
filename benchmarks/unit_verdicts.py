"""Verdicts on trees from several leaves: how good the rule is on new trees, and how often its intervals cover.

    nice -n 19 python benchmarks/unit_verdicts.py --simulations 400

The score of a leaf is normal with standard deviation 1.5 as a logit; leaves of one tree share a part of the variance,
the correlation "icc". Trees have 5 or 10 leaves. Sensitivity and specificity of a leaf are equal at the threshold. The
rule is chosen on 10, 20 or 40 trees of each class and judged on 2,000 new ones of each. "any" calls a tree positive if
any leaf is, "k of n" if at least 3 of 10 (2 of 5) are.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, ndtri

from bldml.metrics.certainty.unit_verdicts import LIMIT, UnitAssessment, choose_unit_rule, scores_of

TREES = (10, 20, 40)
LEAVES = {5: 2, 10: 3}  # and how many of them "k of n" asks for
ICCS = (0.0, 0.3, 0.6)
RATES = (0.9, 0.97)
SPREAD = 1.5
NEW = 2000


def draw(trees: int, leaves: int, icc: float, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Return probabilities, (2 classes, trees, leaves), negative trees first."""
    shift = np.array([-1, 1])[:, None, None] * ndtri(rate) * SPREAD
    shared = math.sqrt(icc) * generator.normal(size=(2, trees, 1))
    own = math.sqrt(1 - icc) * generator.normal(size=(2, trees, leaves))
    probabilities: np.ndarray = expit(shift + SPREAD * (shared + own))
    return probabilities


def outcomes_of(found: UnitAssessment, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether new trees are decided, and positive, both (classes, trees): the rule in one step for all."""
    rule = found.rule
    mean = scores_of(probabilities.ravel(), rule.threshold).reshape(probabilities.shape).mean(axis=2)
    some = [rule.judge(one).outcome for one in probabilities[:, :20].reshape(-1, probabilities.shape[2])]
    decided = np.abs(mean - rule.cut) >= 1.6448536269514722 * rule.spread / math.sqrt(probabilities.shape[2])
    assert [one in ("positive", "negative") for one in some] == decided[:, :20].ravel().tolist()
    return decided, mean >= rule.cut


def simulate(
    trees: int, leaves: int, icc: float, rate: float, simulations: int, generator: np.random.Generator
) -> dict[str, float]:
    """Return means over simulations for one setting."""
    labels, units = np.repeat([0, 1], trees * leaves), np.repeat(np.arange(2 * trees), leaves)
    kept: dict[str, list[float]] = {}
    for _ in range(simulations):
        found = choose_unit_rule(labels, draw(trees, leaves, icc, rate, generator).ravel(), units, 0.5)
        assert isinstance(found, UnitAssessment)
        new = draw(NEW, leaves, icc, rate, generator)
        decided, positive = outcomes_of(found, new)
        truth = (positive[1][decided[1]].mean(), 1 - positive[0][decided[0]].mean())
        above = (new >= 0.5).sum(axis=2)
        for name, estimate, true in zip(
            ("sensitivity", "specificity"), (found.sensitivity, found.specificity), truth, strict=True
        ):
            if estimate.numbers:
                low, value, high = estimate.numbers
                kept.setdefault(f"{name} covered", []).append(low <= true <= high)
                kept.setdefault(f"{name} estimate minus true", []).append(value - true)
            kept.setdefault(f"{name} of decided trees", []).append(true)
        kept.setdefault("decided", []).append(decided.mean())
        for name, least in (("any", 1), ("k of n", LEAVES[leaves])):
            kept.setdefault(f"{name}: specificity", []).append((above[0] < least).mean())
            kept.setdefault(f"{name}: sensitivity", []).append((above[1] >= least).mean())
    return {name: round(float(np.mean(values)), 4) for name, values in kept.items()}


def main() -> None:
    """Simulate all settings, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "unit_verdicts.json")
    options = parser.parse_args()
    begun, generator = time.perf_counter(), np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        {"trees of a class": trees, "leaves of a tree": leaves, "icc": icc, "specificity of a leaf": rate}
        | simulate(trees, leaves, icc, rate, options.simulations, generator)
        for trees in TREES
        for leaves in LEAVES
        for icc in ICCS
        for rate in RATES
    ]
    result = {
        "simulations": options.simulations,
        "limit of a score": round(LIMIT, 4),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seconds": round(time.perf_counter() - begun),
        "settings": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
