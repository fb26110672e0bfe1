"""Folds and seeds: what nesting changes, how often pooled intervals cover, the best of ten, and the level of tests.

    nice -n 19 python benchmarks/replicates.py --simulations 400

Four parts. "coverage": outcomes and scores are drawn with effects of units, photographs and trainings; five folds; the
truth is that of the trained classifiers, and that of the recipe (the mean over all trainings). "nesting": a linear
classifier is trained by gradient descent on 120 photographs; epoch and threshold are chosen on the fold that is then
assessed (not nested), or on an inner split (nested). "best": the best of ten equal configurations. "level": two
configurations that are equally good by symmetry (linear discriminants of two sets of features with the same
information, trained on random halves), compared by the tests of `bldml.metrics.replicates`. Each rate has its standard
error beside it.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp

from bldml.metrics.checked import SamplingUnit
from bldml.metrics.registry import METRICS
from bldml.metrics.replicates.pooled import Pooled, estimate_pooled
from bldml.metrics.replicates.rivals import best_of, compare_pooled, corrected_t
from bldml.metrics.replicates.spread import decompose

FOLDS = 5
ACCURACY, AUROC = METRICS["accuracy"], METRICS["auroc"]


def mean_and_error(values: list[float]) -> dict[str, float]:
    """Return the mean over simulations and its standard error."""
    found = np.array(values, dtype=float)
    found = found[~np.isnan(found)]
    return {"mean": round(float(found.mean()), 4), "error": round(float(found.std(ddof=1) / math.sqrt(found.size)), 4)}


def names_of(units: np.ndarray) -> list[SamplingUnit]:
    """Return the sampling units by name."""
    return [SamplingUnit("group", str(unit)) for unit in units.tolist()]


def with_training(found: tuple[float, float, float], deviation: float, seeds: int) -> tuple[float, float]:
    """Return limits that also allow for the standard deviation between trainings, with Student's t."""
    low, value, high = found
    more = float(student_t.ppf(0.975, seeds - 1)) * deviation / math.sqrt(seeds)
    return value - math.hypot(value - low, more), value + math.hypot(high - value, more)


def coverage(units: int, size: int, seeds: int, training: float, simulations: int, generator: Any) -> dict[str, Any]:
    """Return how often pooled intervals cover, for one setting; `training` is the latent spread between trainings."""
    n, icc, shift = units * size, 0.5 if size > 1 else 0.0, 1.6
    unit = np.repeat(np.arange(units), size)
    label, fold = unit % 2, unit // 2 % FOLDS
    kept: dict[str, list[float]] = {}
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    of_recipe = {"accuracy": float(weights @ ndtr(shift + training * nodes)),
                 "auroc": float(weights @ ndtr(math.sqrt(2) * (shift + training * nodes)))}  # fmt: skip
    for _ in range(simulations):
        model = shift + training * generator.normal(size=(seeds, FOLDS))
        # Of the latent variance 1, half is the photograph's (shared within a unit by the icc), half the training's.
        own = math.sqrt(icc) * generator.normal(size=units)[unit] + math.sqrt(1 - icc) * generator.normal(size=n)
        latent = math.sqrt(0.5) * own + math.sqrt(0.5) * generator.normal(size=(seeds, n))
        score = (model[:, fold] + latent) * np.where(label, 1, -1)
        pooled = Pooled.checked(label, ndtr(score), 0.5, fold, names_of(unit))
        share = np.bincount(fold, minlength=FOLDS) / n
        # Scores of different folds are compared as well: the area between positives of one and negatives of another.
        pairs = (model[:, :, None] + model[:, None, :]) / math.sqrt(2)
        truth = {"accuracy": float((ndtr(model) @ share).mean()), "auroc": float(ndtr(pairs).mean())}
        for metric in (ACCURACY, AUROC):
            found = estimate_pooled(metric, pooled).numbers
            if found is None:
                continue
            low, high = found[0], found[2]
            name = metric.name
            kept.setdefault(f"{name}: these classifiers", []).append(low <= truth[name] <= high)
            kept.setdefault(f"{name}: the recipe", []).append(low <= of_recipe[name] <= high)
            kept.setdefault(f"{name}: width", []).append(high - low)
            if seeds > 1 and (parts := decompose(metric, pooled)):
                low, high = with_training(found, parts.training, seeds)
                kept.setdefault(f"{name}: the recipe, with the spread of training", []).append(
                    low <= of_recipe[name] <= high
                )
                kept.setdefault(f"{name}: estimated spread of training", []).append(parts.training)
    return {name: mean_and_error(values) for name, values in kept.items()}


def descend(x: np.ndarray, y: np.ndarray, epochs: int, rate: float = 0.3) -> np.ndarray:
    """Return the weights of logistic regression after each epoch of gradient descent, (epochs, features)."""
    weight, kept = np.zeros(x.shape[1]), []
    for _ in range(epochs):
        weight = weight + rate * x.T @ (y - 1 / (1 + np.exp(-x @ weight))) / len(y)
        kept.append(weight)
    return np.array(kept)


def choose(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the weights of the epoch with the highest accuracy at its best threshold, and the threshold."""
    logits = x @ weights.T
    best: tuple[float, np.ndarray, float] = (-1.0, weights[0], 0.0)
    for weight, logit in zip(weights, logits.T, strict=True):
        cuts = np.concatenate([[-np.inf], np.sort(logit)])
        cuts = np.concatenate([(cuts[1:-1] + cuts[2:]) / 2, [0.0]])
        accuracy = ((logit[:, None] >= cuts) == (y[:, None] == 1)).mean(axis=0)
        if accuracy.max() > best[0]:
            best = float(accuracy.max()), weight, float(cuts[accuracy.argmax()])
    return best[1], best[2]


def nesting(simulations: int, generator: Any, n: int = 120, features: int = 30, epochs: int = 60) -> dict[str, Any]:
    """Return figures minus truth, nested and not nested."""
    kept: dict[str, list[float]] = {}
    direction = np.zeros(features)
    direction[:5] = 0.55
    for _ in range(simulations):
        y = np.arange(n) % 2
        x = generator.normal(size=(n, features)) + np.where(y[:, None], 1, -1) * direction
        fold = generator.permutation(n) % FOLDS
        for name in ("not nested", "nested"):
            right, logit, truths = np.zeros(n), np.zeros(n), []
            for k in range(FOLDS):
                test, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
                val = test if name == "not nested" else rest[: rest.size // 4]
                train = np.setdiff1d(rest, val)
                weight, cut = choose(descend(x[train], y[train], epochs), x[val], y[val])
                right[test] = (x[test] @ weight >= cut) == (y[test] == 1)
                logit[test] = (x[test] @ weight - cut) / np.linalg.norm(weight)
                middle, spread = weight @ direction, np.linalg.norm(weight)
                truths.append((ndtr((middle - cut) / spread) + ndtr((middle + cut) / spread)) / 2)
            kept.setdefault(f"{name}: accuracy", []).append(right.mean())
            kept.setdefault(f"{name}: true accuracy", []).append(np.mean(truths))
            kept.setdefault(f"{name}: optimism", []).append(right.mean() - np.mean(truths))
            pooled = Pooled.checked(y, ndtr(logit), 0.5, fold)
            found = estimate_pooled(ACCURACY, pooled).numbers
            assert found is not None
            kept.setdefault(f"{name}: interval covers", []).append(found[0] <= np.mean(truths) <= found[2])
    return {name: mean_and_error(values) for name, values in kept.items()}


def best(k: int, seeds: int, skill: float, others: float, simulations: int, generator: Any) -> dict[str, Any]:
    """Return the value of the best of k configurations minus its true one, as it is and corrected."""
    n, kept = 106, dict[str, list[float]]()
    skills = np.array([skill] + [others] * (k - 1))
    label = np.arange(n) % 2
    for _ in range(simulations):
        common = generator.normal(size=n)
        configurations = []
        for one in skills:
            latent = math.sqrt(0.5) * common + math.sqrt(0.5) * generator.normal(size=(seeds, n))
            right = latent < ndtri(one)
            configurations.append(Pooled.checked(label, np.where(right == (label == 1), 0.9, 0.1), 0.5))
        found = best_of(ACCURACY, configurations)
        assert found is not None
        assert found.corrected is not None
        kept.setdefault("as it is", []).append(found.value - skills[found.which])
        kept.setdefault("corrected", []).append(found.corrected - skills[found.which])
        assert found.interval is not None
        low, high = found.interval.low, found.interval.high
        kept.setdefault("interval covers", []).append(low <= skills[found.which] <= high)
        kept.setdefault("interval's width", []).append(high - low)
    return {name: mean_and_error(values) for name, values in kept.items()}


def level(
    units: int, size: int, seeds: int, stronger: float, simulations: int, generator: Any, features: int = 8
) -> dict[str, Any]:
    """Return how often each test finds a difference (p < .05) between two configurations; `stronger` 0: none exists."""
    n = units * size
    unit = np.repeat(np.arange(units), size)
    y, fold = unit % 2, unit // 2 % FOLDS
    kept: dict[str, list[float]] = {}
    for _ in range(simulations):
        own = generator.normal(size=(units, 2, features))[unit] if size > 1 else 0.0
        weight = 0.5 if size > 1 else 0.0
        noise = math.sqrt(weight) * own + math.sqrt(1 - weight) * generator.normal(size=(n, 2, features))
        strength = np.array([0.42 + stronger, 0.42])[:, None]
        x = noise + np.where(y, 1, -1)[:, None, None] * strength
        pooled = []
        for which in range(2):
            probability = np.zeros((seeds, n))
            for seed in range(seeds):
                for k in range(FOLDS):
                    test, train = fold == k, np.flatnonzero(fold != k)
                    train = generator.permutation(train)[: train.size // 2]
                    a, b = (x[train, which][y[train] == value] for value in (0, 1))
                    covariance = np.cov(np.concatenate([a - a.mean(0), b - b.mean(0)]).T) + 0.1 * np.eye(features)
                    w = np.linalg.solve(covariance, b.mean(0) - a.mean(0))
                    logit = (x[test, which] - (a.mean(0) + b.mean(0)) / 2) @ w
                    probability[seed, test] = 1 / (1 + np.exp(-logit))
            names = names_of(unit) if size > 1 else []
            pooled.append(Pooled.checked(y, np.clip(probability, 0, 1), 0.5, fold, names))
        for metric in (ACCURACY, AUROC):
            p = compare_pooled(metric, *pooled)[1]
            kept.setdefault(f"{metric.name}: pooled, by unit", []).append(p is not None and p < 0.05)
            values = (pooled[0].fold_values(metric) - pooled[1].fold_values(metric)).ravel()
            p = corrected_t(values, 1 / (FOLDS - 1))[1]
            kept.setdefault(f"{metric.name}: corrected t over runs", []).append(p is not None and p < 0.05)
            naive = ttest_1samp(values, 0).pvalue if values.std() > 1e-12 else 1.0
            kept.setdefault(f"{metric.name}: t over runs, not corrected", []).append(naive < 0.05)
    return {name: mean_and_error(values) for name, values in kept.items()}


def main() -> None:
    """Simulate all settings, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "replicates.json")
    parser.add_argument(
        "--only_best", action="store_true", help="simulate the best of ten anew, keep all other results"
    )
    options = parser.parse_args()
    begun, many = time.perf_counter(), options.simulations
    best_of_ten = [
        {"configurations": 10, "seeds": seeds, "accuracy of one": one, "of the others": others}
        | best(10, seeds, one, others, many, np.random.default_rng(2))
        for seeds, one, others in ((1, 0.9, 0.9), (3, 0.9, 0.9), (1, 0.97, 0.8))
    ]
    if options.only_best:
        result = json.loads(options.output.read_text(encoding="utf-8")) | {"best of": best_of_ten}
        assert result["simulations"] == many
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return
    parts: dict[str, Any] = {"nesting": nesting(many, np.random.default_rng(1)), "best of": best_of_ten}
    parts["level"] = [
        {"units": units, "photographs of a unit": size, "seeds": seeds, "stronger": stronger}
        | level(units, size, seeds, stronger, many, np.random.default_rng(3))
        for stronger in (0.0, 0.2)
        for units, size in ((120, 1), (30, 6))
        for seeds in (1, 3)
    ]
    parts["coverage"] = [
        {"units": units, "photographs of a unit": size, "seeds": seeds, "spread between trainings": training}
        | coverage(units, size, seeds, training, many, np.random.default_rng(4))
        for units, size in ((120, 1), (30, 4), (20, 8))
        for seeds in (1, 2, 3, 5)
        for training in (0.0, 0.3)
    ]
    result = {
        "simulations": many,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seconds": round(time.perf_counter() - begun),
        **parts,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
