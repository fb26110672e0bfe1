"""Distance from the training photographs against scikit-learn, and the proportion that is flagged."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from bldml.metrics.certainty import novelty
from bldml.metrics.certainty.novelty import Novelty, fit_novelty, join_novelties


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Features with correlations, some of which are 0, like those of a network."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(6, d)) * np.linspace(3, 0.1, 6)[:, None]
    raw = generator.normal(size=(n, 6)) @ mixing + 0.3 * generator.normal(size=(n, d)) + 1
    return np.maximum(raw, 0).astype(np.float32)


@pytest.mark.parametrize(("n", "d"), [(30, 50), (200, 50), (50, 50)])
def test_with_all_components_it_is_the_mahalanobis_distance_of_scikit_learn(n: int, d: int) -> None:
    train, val, new = features(n, d, 1), features(60, d, 2), features(10, d, 3) * 2
    found, whole = fit_novelty(train, val, np.arange(60)), LedoitWolf().fit(train)
    assert found is not None
    assert found.distances(new) * found.limit == pytest.approx(np.sqrt(whole.mahalanobis(new)), rel=1e-3)


def test_the_limit_is_that_of_the_validation_photographs() -> None:
    train, val = features(80, 20, 1), features(99, 20, 2)
    found = fit_novelty(train, val, np.arange(99))
    assert found is not None
    distances = np.sort(found.distances(val))
    assert (found.rate, found.n_train, found.n_val) == (0.02, 80, 99)
    assert distances[97] == pytest.approx(1), "2 % of 100: one of these 99 and, in one of 50, the new one"
    assert found.distances(train).mean() < distances.mean(), "a limit of the training photographs would be too low"


def test_of_few_validation_photographs_it_is_the_largest_distance() -> None:
    found = fit_novelty(features(80, 20, 1), features(30, 20, 2), np.repeat(np.arange(10), 3))
    assert found is not None
    assert found.rate == pytest.approx(1 / 11)
    assert found.distances(features(30, 20, 2)).max() == pytest.approx(1)


def test_two_in_a_hundred_new_photographs_are_flagged() -> None:
    flagged = []
    for seed in range(60):
        found = fit_novelty(features(60, 16, 3 * seed + 1), features(60, 16, 3 * seed + 2), np.arange(60))
        assert found is not None
        flagged.append(np.mean(found.distances(features(300, 16, 3 * seed + 3)) > 1))
    assert 0.01 < np.mean(flagged) < 0.025


def test_several_networks_have_the_mean_of_their_distances() -> None:
    """Three networks with features of their own; the limit is chosen on photographs that one of them has judged."""
    widths, flagged = (16, 30, 7), []
    for seed in range(20):
        sets = [[features(n, d, 10 * seed + i) for i, n in enumerate((60, 60, 100, 400))] for d in widths]
        parts = [fit_novelty(train, val, np.arange(60)) for train, val, _, _ in sets]
        known = [part for part in parts if part is not None]
        unseen = np.concatenate(
            [part.distances(own[2])[i::3] for i, (part, own) in enumerate(zip(known, sets, strict=True))]
        )
        joint = join_novelties(known, unseen, np.arange(100), 90)
        assert joint is not None
        assert (joint.rate, joint.n_train, joint.n_val, joint.width) == (0.02, 90, 100, 53)
        assert joint.limit == np.sort(unseen)[98]
        new = joint.distances(np.hstack([own[3] for own in sets]))
        by_hand = sum(part.distances(own[3]) for part, own in zip(known, sets, strict=True)) / 3 / np.sort(unseen)[98]
        assert new == pytest.approx(by_hand)
        flagged.append(np.mean(new > 1))
    assert 0 < np.mean(flagged) < 0.02, "the mean of three varies less than a single one"
    assert join_novelties(known, np.zeros(0), np.zeros(0, int), 9) is None
    assert join_novelties(known, np.zeros(5), np.arange(5), 9) is None


def test_few_components_still_tell_what_lies_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "COMPONENTS", 3)
    train = features(200, 40, 1)
    found = fit_novelty(train, features(60, 40, 2), np.arange(60))
    assert found is not None
    assert found.basis.shape == (3, 40)
    assert found.basis @ found.basis.T == pytest.approx(np.eye(3), abs=1e-5)
    covariance = LedoitWolf().fit(train).covariance_
    rest = (np.trace(covariance) - found.variances.sum()) / 37
    along = found.basis.T @ found.basis
    whole = found.basis.T @ np.diag(found.variances) @ found.basis + rest * (np.eye(40) - along)
    new = features(5, 40, 9) - found.mean
    expected = np.sqrt(np.sum(new * np.linalg.solve(whole, new.T).T, axis=1))
    assert found.distances(new + found.mean) * found.limit == pytest.approx(expected, rel=1e-3)
    beside = np.random.default_rng(5).normal(size=40)
    beside -= found.basis.T @ (found.basis @ beside)
    far = (found.mean + 30 * np.sqrt(found.rest) * beside)[None].astype(np.float32)
    assert found.distances(far)[0] > 1
    assert found.distances(found.mean[None])[0] < 1e-3


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (np.zeros((0, 4), np.float32), features(5, 4, 1)),
        (features(1, 4, 1), features(5, 4, 1)),
        (np.ones((9, 4), np.float32), features(5, 4, 1)),
        (features(9, 4, 1), np.zeros((0, 4), np.float32)),
        (features(9, 4, 1), np.full((5, 4), np.nan, np.float32)),
    ],
    ids=["none", "one", "alike", "no validation", "not finite"],
)
def test_without_a_distribution_there_is_none(train: np.ndarray, val: np.ndarray) -> None:
    assert fit_novelty(train, val, np.arange(len(val))) is None


def test_photographs_in_parts_have_the_same_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fit_novelty(features(60, 8, 1), features(60, 8, 2), np.arange(60))
    assert isinstance(found, Novelty)
    whole = found.distances(features(50, 8, 3))
    monkeypatch.setattr(novelty, "_ROWS", 7)
    assert found.distances(features(50, 8, 3)) == pytest.approx(whole, rel=1e-12)
    assert found.distances(np.zeros((0, 8), np.float32)).shape == (0,)
