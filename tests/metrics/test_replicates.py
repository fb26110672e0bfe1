"""Pooled estimates, their spread and comparisons: against statsmodels, SciPy, scikit-learn and plain loops."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics
from statsmodels.api import OLS
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from bldml.metrics.checked import SamplingUnit
from bldml.metrics.metric import Metric
from bldml.metrics.proportions import proportion_by_unit
from bldml.metrics.registry import METRICS, shown_in
from bldml.metrics.replicates.pooled import Pooled, estimate_pooled
from bldml.metrics.replicates.rivals import best_of, compare_pooled, corrected_t
from bldml.metrics.replicates.spread import decompose, mean_curve, spread_of
from bldml.metrics.selection import REPLICATES, selection_gain
from tests.oracles import second_opinion

Array = NDArray[Any]
N, UNITS = 60, 20


def pooled_of(seed: int, seeds: int = 3, *, grouped: bool = True, skill: float = 1.5) -> Pooled:
    """Predictions of 60 photographs in 3 folds; the threshold of each run is another one."""
    generator = np.random.default_rng(seed)
    labels = np.arange(N) % UNITS % 2
    folds = np.arange(N) % UNITS // 2 % 3
    latent = generator.normal(size=N) + generator.normal(size=(seeds, N)) + skill * (2 * labels - 1)
    thresholds = 0.5 + 0.1 * generator.random((seeds, 3))[:, folds]
    units = [SamplingUnit("group", str(i % UNITS)) for i in range(N)] if grouped else []
    return Pooled.checked(labels, 1 / (1 + np.exp(-latent)), thresholds, folds, units)


def as_rows(pooled: Pooled) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seed": seed,
            "fold": pooled.folds,
            "unit": pooled.units,
            "label": pooled.labels,
            "probability": pooled.probabilities[seed],
            "threshold": pooled.thresholds[seed],
        }
        for seed in range(pooled.n_seeds)
    ).explode(["fold", "unit", "label", "probability", "threshold"])


def by_oracle(name: str, rows: pd.DataFrame) -> float:
    """A metric of rows that have their own thresholds: probabilities are shifted so that the threshold is .5."""
    label, probability = rows["label"].to_numpy(int), rows["probability"].to_numpy(float)
    if METRICS[name].needs_threshold:
        probability = np.where(probability >= rows["threshold"].to_numpy(float), 0.9, 0.1)
    return second_opinion(name, label, probability)


@pytest.mark.parametrize("metric", shown_in("evaluation"), ids=lambda metric: metric.name)
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_metric_is_the_mean_over_seeds_of_the_pooled_photographs(metric: Metric, seeds: int) -> None:
    pooled = pooled_of(1, seeds)
    rows = as_rows(pooled)
    expected = np.mean([by_oracle(metric.name, rows[rows["seed"] == seed]) for seed in range(seeds)])
    estimate = estimate_pooled(metric, pooled)
    assert estimate.value == pytest.approx(expected, abs=1e-5)
    if estimate.numbers is None:
        assert metric.name in ("ece", "calibration_slope"), estimate.note  # no interval, not reliable
    else:
        low, value, high = estimate.numbers
        assert low < value < high
    of_folds = pooled.fold_values(metric)
    for (seed, fold), value in np.ndenumerate(of_folds):
        part = rows[(rows["seed"] == seed) & (rows["fold"] == fold)]
        assert value == pytest.approx(by_oracle(metric.name, part), abs=1e-4, nan_ok=True)


def test_seeds_are_repeated_measurements_and_no_more_photographs() -> None:
    one, accuracy = pooled_of(1, 1), METRICS["accuracy"]
    twice = Pooled.checked(
        one.labels, np.repeat(one.probabilities, 2, 0), np.repeat(one.thresholds, 2, 0), one.folds, one.named_units
    )
    for name in ("auroc", "brier", "f1"):
        single, double = (estimate_pooled(METRICS[name], pooled).numbers for pooled in (one, twice))
        assert single == pytest.approx(double, abs=0.03), name
    expected = proportion_by_unit(np.tile(twice.is_correct[0], 2), np.tile(twice.units, 2))
    assert estimate_pooled(accuracy, twice).numbers == expected.numbers
    # Without units a photograph is a unit of its own, with the outcomes of all seeds.
    found = estimate_pooled(accuracy, pooled_of(1, 3, grouped=False)).interval
    assert found is not None
    assert found.method == "beta-binomial, 60 units"


def test_the_area_of_several_seeds_has_the_variance_of_mean_placements() -> None:
    pooled = pooled_of(2, 3, grouped=False)
    positive = pooled.labels == 1
    kernel = np.mean(
        [(p[positive][:, None] > p[~positive]) + (p[positive][:, None] == p[~positive]) / 2
         for p in pooled.probabilities], axis=0)  # fmt: skip
    m, n = kernel.shape
    variance = np.var(kernel.mean(axis=1), ddof=1) / m + np.var(kernel.mean(axis=0), ddof=1) / n
    area = kernel.mean()
    half = stats.norm.ppf(0.975) * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    numbers = estimate_pooled(METRICS["auroc"], pooled).numbers
    expected = [1 / (1 + math.exp(-(logit + side * half))) for side in (-1, 0, 1)]
    assert numbers == pytest.approx(expected)


def test_perfect_scores_still_have_intervals() -> None:
    labels = np.arange(40) % 2
    pooled = Pooled.checked(labels, [0.9 * labels, 0.8 * labels], 0.5)
    for name in ("accuracy", "auroc", "balanced_accuracy", "f1", "sensitivity"):
        numbers = estimate_pooled(METRICS[name], pooled).numbers
        assert numbers is not None, name
        assert numbers[0] < 1 == numbers[1] == numbers[2], name


@pytest.mark.parametrize("name", ["accuracy", "auroc", "f1"])
def test_decomposition_against_the_analysis_of_variance_of_statsmodels(name: str) -> None:
    pooled = pooled_of(3)
    rows = as_rows(pooled)
    table = []
    for seed in range(3):
        of_seed = rows[rows["seed"] == seed]
        everything = by_oracle(name, of_seed)
        for unit in range(UNITS):
            value = UNITS * everything - (UNITS - 1) * by_oracle(name, of_seed[of_seed["unit"] != unit])
            table.append({"seed": seed, "unit": unit, "value": value})
    squares = anova_lm(ols("value ~ C(seed) + C(unit)", pd.DataFrame(table)).fit())["mean_sq"]
    seeds, units, rest = (float(squares[key]) for key in ("C(seed)", "C(unit)", "Residual"))
    found = decompose(METRICS[name], pooled)
    assert found is not None
    assert found.training == pytest.approx(math.sqrt(max(0, (seeds - rest) / UNITS)), abs=1e-9)
    assert found.units == pytest.approx(math.sqrt(max(0, (units - rest) / 3) / UNITS), abs=1e-9)
    assert found.both == pytest.approx(math.sqrt(rest / UNITS), abs=1e-9)
    assert found.total == pytest.approx(math.sqrt(found.training**2 + found.units**2 + found.both**2))


def test_decomposition_finds_what_was_put_in() -> None:
    """150 drawn tables: the accuracies of trainings differ by a standard deviation of .05, beside units and noise."""
    generator, variances = np.random.default_rng(5), []
    for _ in range(150):
        right = generator.random((4, 80)) < np.clip(0.8 + generator.normal(0, 0.05, (4, 1)), 0, 1)
        found = decompose(METRICS["accuracy"], Pooled.checked(np.ones(80), np.where(right, 0.9, 0.1), 0.5))
        assert found is not None
        variances.append(found.training**2)
    assert math.sqrt(np.mean(variances)) == pytest.approx(0.05, abs=0.01)
    assert decompose(METRICS["accuracy"], pooled_of(1, 1)) is None, "one seed"
    assert decompose(METRICS["auroc"], Pooled.checked([0, 1], [[0.1, 0.9]] * 2, 0.5)) is None, "a class is left out"


def test_accuracy_over_seeds_against_a_regression_with_clustered_errors() -> None:
    first, second = pooled_of(1), pooled_of(2, skill=0.6)
    estimate, p = compare_pooled(METRICS["accuracy"], first, second)
    difference = first.is_correct.mean(axis=0) - second.is_correct.mean(axis=0)
    fitted = OLS(difference, np.ones(N)).fit(cov_type="cluster", use_t=True, cov_kwds={"groups": first.units})
    # statsmodels also multiplies the variance by (n - 1) / (n - 1 parameter), which is 1.
    assert p == pytest.approx(float(fitted.pvalues[0]))
    assert estimate.numbers == pytest.approx((*fitted.conf_int()[0][:1], difference.mean(), fitted.conf_int()[0][1]))


def test_area_over_seeds_by_all_swaps() -> None:
    first, second = pooled_of(1), pooled_of(2, skill=1.1)
    keep = first.units < 7
    first, second = (
        Pooled.checked(
            one.labels[keep],
            one.probabilities[:, keep],
            one.thresholds[:, keep],
            one.folds[keep],
            [name for name, here in zip(one.named_units, keep, strict=True) if here],
        )
        for one in (first, second)
    )
    ranks = [[stats.rankdata(p) for p in one.probabilities] for one in (first, second)]

    def difference(swapped: Array) -> float:
        values = []
        for a, b in zip(*ranks, strict=True):
            one, two = np.where(swapped, b, a), np.where(swapped, a, b)
            values.append(np.subtract(*(sklearn_metrics.roc_auc_score(first.labels, r) for r in (one, two))))
        return float(np.mean(values))

    observed = difference(np.zeros(keep.sum(), bool))
    every = [difference((code >> first.units & 1).astype(bool)) for code in range(2**7)]
    estimate, p = compare_pooled(METRICS["auroc"], first, second)
    assert estimate.value == pytest.approx(observed)
    assert p == pytest.approx(np.mean(np.abs(every) >= abs(observed) - 1e-12))
    critical = np.sort(np.abs(every))[-math.ceil(0.05 * len(every))]
    assert estimate.numbers == pytest.approx((observed - critical, observed, min(1, observed + critical)))


def test_any_other_metric_by_a_t_test_of_pseudo_values() -> None:
    first, second = pooled_of(1, 2, grouped=False), pooled_of(2, 2, grouped=False, skill=0.7)
    losses = [((one.probabilities - one.labels) ** 2).mean(axis=0) for one in (first, second)]
    estimate, p = compare_pooled(METRICS["brier"], first, second)  # a mean: its pseudo-values are the photographs' own
    expected = stats.ttest_rel(*losses)
    assert p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert estimate.numbers == pytest.approx((low, losses[0].mean() - losses[1].mean(), high))
    assert compare_pooled(METRICS["accuracy"], first, first)[1] == 1
    with pytest.raises(ValueError, match="same photographs"):
        compare_pooled(METRICS["brier"], first, pooled_of(1, 3))


def test_corrected_t_by_hand() -> None:
    """The variance of the t test, multiplied by (1 / j + n_test / n_train) j."""
    values = np.random.default_rng(1).normal(0.02, 0.03, 10)
    estimate, p = corrected_t(values, 1 / 4)
    plain = stats.ttest_1samp(values, 0)
    t = plain.statistic / math.sqrt(1 + 10 / 4)
    assert p == pytest.approx(2 * stats.t.sf(abs(t), 9))
    half = (plain.confidence_interval().high - values.mean()) * math.sqrt(1 + 10 / 4)
    assert estimate.numbers == pytest.approx((values.mean() - half, values.mean(), values.mean() + half))
    assert corrected_t([0.0, 0.0, 0.0], 0.25)[1] == 1
    assert corrected_t([0.1], 0.25)[1] is None
    assert corrected_t([0.1, math.nan], 0.25)[0].value is None
    with pytest.raises(ValueError, match="ratio"):
        corrected_t([0.1, 0.2], 0)


@pytest.mark.parametrize("name", ["accuracy", "auroc", "f1", "brier"])
def test_the_best_by_a_plain_loop(name: str) -> None:
    metric, configurations = METRICS[name], [pooled_of(seed, 2) for seed in range(3)]
    rows = [as_rows(one) for one in configurations]
    sign = -1 if metric.better == "lower" else 1

    def value(which: int, index: list[int]) -> float:
        found = [
            by_oracle(name, rows[which][rows[which]["seed"] == seed].iloc[index]) for seed in range(2)
        ]  # fmt: skip
        return sign * float(np.mean(found))

    draws = 12
    units, generator, chosen = configurations[0].units, np.random.default_rng(0), []
    # The draws of `selection_gain` are made at once, and these are the first of them.
    for counts in generator.multinomial(UNITS, np.full(UNITS, 1 / UNITS), REPLICATES)[:draws]:
        inside = [i for i, u in enumerate(units) for _ in range(counts[u])]
        outside = [i for i, u in enumerate(units) if not counts[u]]
        found, others = ([value(k, part) for k in range(3)] for part in (inside, outside))
        best = [k for k in range(3) if found[k] > max(found) - 1e-12]
        chosen.append(np.mean([others[k] for k in best]))
    best_found = best_of(metric, configurations)
    assert best_found is not None
    assert best_found.corrected is not None
    values = [value(k, list(range(N))) for k in range(3)]
    assert best_found.which == int(np.argmax(values))
    assert best_found.value == pytest.approx(sign * max(values))
    # The mean over 12 of 400 draws, within four standard errors.
    assert sign * best_found.corrected == pytest.approx(np.mean(chosen), abs=4 * np.std(chosen) / math.sqrt(draws))
    assert best_found.interval is not None
    assert best_found.interval.low < best_found.corrected < best_found.interval.high


@pytest.mark.parametrize("name", ["accuracy", "brier"])
def test_the_gain_of_the_best_is_that_of_means_over_seeds(name: str) -> None:
    configurations = [pooled_of(seed, 3) for seed in range(4)]
    values = np.array(
        [one.is_correct if name == "accuracy" else -((one.probabilities - one.labels) ** 2) for one in configurations],
        dtype=float,
    ).mean(axis=1)  # (configurations, photographs)
    units = configurations[0].units
    gain = selection_gain(lambda weights: weights @ values.T / weights.sum(axis=1)[:, None], units)
    found = best_of(METRICS[name], configurations)
    assert gain is not None
    assert found is not None
    assert found.corrected == pytest.approx(abs(values.mean(axis=1).max() - gain))
    # The interval: the same draws one by one, and percentiles by sorting.
    chosen = []
    for counts in np.random.default_rng(0).multinomial(UNITS, np.full(UNITS, 1 / UNITS), REPLICATES):
        inside = [i for i, unit in enumerate(units) for _ in range(counts[unit])]
        outside = [i for i, unit in enumerate(units) if not counts[unit]]
        drawn, others = values[:, inside].mean(axis=1), values[:, outside].mean(axis=1)
        chosen.append(abs(others[np.isclose(drawn, drawn.max())].mean()))
    assert found.corrected is not None
    place, moved = 0.025 * (REPLICATES - 1), found.corrected - found.value
    own = estimate_pooled(METRICS[name], configurations[found.which]).interval
    assert found.interval is not None
    assert own is not None
    for sign, ours, at_least in ((1, found.interval.low, own.low), (-1, found.interval.high, own.high)):
        ordered = sorted(sign * value for value in chosen)
        below, above = ordered[int(place)], ordered[int(place) + 1]
        percentile = below + (place - int(place)) * (above - below)
        assert sign * ours == pytest.approx(min(percentile, sign * (at_least + moved)))


def test_the_interval_of_a_faultless_best_is_not_a_point() -> None:
    labels = np.arange(40) % 2
    good, poor = (Pooled.checked(labels, np.where(labels, high, 1 - high), 0.5) for high in (0.9, 0.4))
    found = best_of(METRICS["accuracy"], [poor, good])
    assert found is not None
    assert found.interval is not None
    assert (found.corrected, found.interval.high) == (1, 1)
    assert found.interval.low < 0.95


def test_there_is_no_best_of_one_or_of_what_has_no_direction() -> None:
    found = best_of(METRICS["accuracy"], [pooled_of(1)])
    assert found is not None
    assert (found.corrected, found.interval) == (None, None)
    assert best_of(METRICS["calibration_slope"], [pooled_of(1), pooled_of(2)]) is None


def test_spread_and_curves() -> None:
    values = [0.7, 0.9, math.nan, 0.8]
    found = spread_of(values)
    assert found is not None
    assert found.mean == pytest.approx(0.8)
    assert found.sd == pytest.approx(np.nanstd(values, ddof=1))
    assert found.n == 3
    assert spread_of([math.nan]) is None
    assert spread_of([0.5]) == (0.5, None, 1, 0.5, 0.5)
    runs: list[list[dict[str, float | None]]] = [
        [{"epoch": 0, "val_loss": 0.6}, {"epoch": 1, "val_loss": None}, {"epoch": 2, "val_loss": 0.3}],
        [{"epoch": 0, "val_loss": 0.8}, {"epoch": 2, "val_loss": math.nan}],
    ]
    found_points = [tuple(point) for point in mean_curve(runs, "val_loss")]
    assert found_points == [
        (0, pytest.approx(0.7), 0.6, 0.8, 2),
        (2, 0.3, 0.3, 0.3, 1),
    ]
    assert mean_curve(runs, "val_auroc") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([0, 1], [0.1, 1.2], 0.5), "probabilities"),
        (([0, 1], [0.1, 0.2], math.nan), "thresholds"),
        (([0, 1], [0.1, 0.2], 0.5, [0]), "fold"),
    ],
)
def test_what_is_no_input(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Pooled.checked(*arguments)
