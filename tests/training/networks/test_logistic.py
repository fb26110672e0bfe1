"""The head that is fitted on kept features: its solution, its choice, and a whole fit."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from bldml.errors import TrainingError
from bldml.training.networks.logistic import DEFAULT_STRENGTH, STRENGTHS, KeptFeatures, fit_head


def drawn(n: int, d: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features of different scales and means, of which the first tells the class."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.int64)
    x = rng.normal(size=(n, d))
    x[:, 0] += 1.5 * y
    return x * np.geomspace(0.01, 100, d) + np.linspace(-5, 5, d), y


@pytest.mark.parametrize("pos_weight", [1.0, 2.5])
def test_solution_is_that_of_a_second_implementation(pos_weight: float) -> None:
    x, y = drawn(120, 6)
    found = fit_head(x, y, np.arange(120), pos_weight, seed=0)
    weights = np.where(y == 1, pos_weight, 1.0)
    z = (x - x.mean(0)) / x.std(0)

    def loss(parameters: NDArray[np.float64]) -> float:
        logits = z @ parameters[:-1] + parameters[-1]
        mean = (weights * np.logaddexp(0, np.where(y == 1, -logits, logits))).sum() / weights.sum()
        return float(mean + found.strength / 2 * parameters[:-1] @ parameters[:-1])

    best = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(x @ found.weight + found.bias, z @ best[:-1] + best[-1], atol=2e-3)


def test_weight_of_positives_moves_the_logits_by_its_logarithm() -> None:
    """So that `offset`, which is subtracted before the calibration, gives probabilities of the true prevalence."""
    x, y = drawn(4000, 3)
    plain, weighted = (fit_head(x, y, np.arange(4000), w, seed=0) for w in (1.0, 3.0))
    shift = (x @ weighted.weight + weighted.bias) - (x @ plain.weight + plain.bias)
    assert shift.mean() == pytest.approx(np.log(3), abs=0.1)
    probabilities = 1 / (1 + np.exp(-(x @ weighted.weight + weighted.bias - np.log(3))))
    assert probabilities.mean() == pytest.approx(y.mean(), abs=0.02)


def test_noise_gets_a_strong_penalty_and_signal_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    noise = fit_head(rng.normal(size=(80, 200)), y, np.arange(80), 1.0, seed=0)
    signal = fit_head(rng.normal(size=(2000, 3)) + 1.5 * (np.arange(2000) % 2)[:, None], np.arange(2000) % 2,
                      np.arange(2000), 1.0, seed=0)  # fmt: skip
    assert noise.strength > 10 * signal.strength
    assert noise.folds == signal.folds == 5
    assert noise.losses[STRENGTHS.index(noise.strength)] == min(noise.losses)


def test_groups_stay_together_in_the_inner_validation() -> None:
    """Each group has features of its own, by which it is recognised. That helps on no other group."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 10)
    y = groups % 2
    x = rng.normal(size=(20, 30))[groups] + 0.01 * rng.normal(size=(200, 30))
    by_group = fit_head(x, y, groups, 1.0, seed=0)
    by_photograph = fit_head(x, y, np.arange(200), 1.0, seed=0)
    assert by_group.strength > 10 * by_photograph.strength


def test_without_a_choice_and_without_a_fit() -> None:
    x, y = drawn(30, 4)
    alone = fit_head(x, y, np.zeros(30), 1.0, seed=0)
    assert alone.folds == 0
    assert alone.strength == pytest.approx(DEFAULT_STRENGTH)
    for features, labels in ((np.full((30, 4), np.nan), y), (x, np.zeros(30))):
        with pytest.raises(TrainingError) as error:
            fit_head(features, labels, np.arange(30), 1.0, seed=0)
        assert error.value.code == "head-not-fittable"


def test_kept_features_come_back() -> None:
    kept = KeptFeatures()
    features = torch.randn(5, 3)
    kept.add(features[:4], torch.tensor([0, 1, 1, 0]), ["group a", "group b", "group a", "photograph x"])
    kept.add(features[4:], torch.tensor([1]), ["group b"])
    found, labels, groups = kept.take()
    assert torch.equal(found, features)
    assert labels.tolist() == [0, 1, 1, 0, 1]
    assert groups[0] == groups[2] != groups[1] == groups[4]
    assert len(set(groups.tolist())) == 3
