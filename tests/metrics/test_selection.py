"""The gain of the best of several classifiers: against a plain loop, and against what simulated classifiers gain."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from bldml.metrics.selection import REPLICATES, accuracies, areas, selection_gain


def plain_loop(value, k: int, unit: NDArray[np.int64]) -> float:  # type: ignore[no-untyped-def]
    """The same draws; `value` is that of a classifier on photographs listed by their indices."""
    n_units, generator, chosen = unit.max() + 1, np.random.default_rng(0), []
    for counts in generator.multinomial(n_units, np.full(n_units, 1 / n_units), REPLICATES):
        inside = [i for i, u in enumerate(unit) for _ in range(counts[u])]
        outside = [i for i, u in enumerate(unit) if not counts[u]]
        found, others = [value(j, inside) for j in range(k)], [value(j, outside) for j in range(k)]
        if None in (*found, *others):
            continue
        best = [j for j in range(k) if found[j] > max(found) - 1e-12]
        chosen.append(np.mean([others[j] for j in best]))
    return float(max(value(j, range(len(unit))) for j in range(k)) - np.mean(chosen))


@pytest.mark.parametrize("groups", [30, 8])
def test_against_a_plain_loop(groups: int) -> None:
    generator = np.random.default_rng(3)
    labels, unit = np.arange(30) % 2, np.arange(30) % groups
    scores = np.round(labels + generator.normal(size=(4, 30)), 1)  # with ties

    def accuracy(j: int, index: list[int]) -> float | None:
        return float(np.mean((scores[j] > 0.5)[index] == labels[index])) if len(index) else None

    def area(j: int, index: list[int]) -> float | None:
        score, label = scores[j][index], labels[index]
        positive, negative = score[label == 1][:, None], score[label == 0]
        return float(np.mean((positive > negative) + (positive == negative) / 2)) if len(set(label)) == 2 else None

    assert selection_gain(accuracies((scores > 0.5) == labels), unit) == pytest.approx(plain_loop(accuracy, 4, unit))
    assert selection_gain(areas(labels, scores), unit) == pytest.approx(plain_loop(area, 4, unit))


def gains(skills: list[float], correlation: float, repeats: int = 150, n: int = 106) -> tuple[float, float]:
    """The true gain of the best in accuracy, and the mean estimate, in points."""
    generator, k = np.random.default_rng(1), len(skills)
    true, estimated = [], []
    for _ in range(repeats):
        common, own = generator.normal(size=n), generator.normal(size=(k, n))
        right = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own < norm.ppf(skills)[:, None]
        apparent = right.mean(axis=1)
        best = apparent == apparent.max()
        true.append(apparent.max() - np.mean(np.array(skills)[best]))
        gain = selection_gain(accuracies(right), np.arange(n), replicates=150)
        assert gain is not None
        estimated.append(gain)
    return 100 * float(np.mean(true)), 100 * float(np.mean(estimated))


@pytest.mark.parametrize("correlation", [0, 0.8])
def test_ten_equal_classifiers_on_106_photographs(correlation: float) -> None:
    true, estimated = gains([0.9] * 10, correlation)
    assert true > 2.5
    assert estimated == pytest.approx(true, abs=0.6)


def test_one_clear_winner_gains_little() -> None:
    true, estimated = gains([0.97] + [0.7] * 9, 0)
    assert abs(true) < 0.4
    assert abs(estimated) < 0.4


def test_what_is_not_defined() -> None:
    assert selection_gain(accuracies([[1, 0, 1]]), np.arange(3)) is None, "one classifier"
    assert selection_gain(accuracies([[1, 0, 1], [1, 1, 1]]), np.zeros(3)) is None, "one unit: none is left out"
    assert selection_gain(areas([1, 1, 1], np.ones((2, 3))), np.arange(3)) is None, "one class"
    assert selection_gain(areas([1, 1, 0], np.ones((2, 3))), np.arange(3)) is None, "most draws lack a class"
    assert selection_gain(accuracies(np.ones((3, 20))), np.arange(20)) == 0
