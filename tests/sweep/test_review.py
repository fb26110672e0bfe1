"""Which labels to look at again: the order a second time, from the folders of the runs alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bldml.errors import RunError
from bldml.sweep.plan import read_plan
from bldml.sweep.results.gathering import gather
from bldml.sweep.review.command import LabelSource
from bldml.sweep.review.ranking import Doubt, rank
from tests.sweep.experiments import N, write_experiment
from tests.sweep.test_collect import predictions_of


def ranked(path: Path, *, grouped: bool = True) -> tuple[list[Doubt], pd.DataFrame]:
    """Doubts about the photographs of an experiment of two seeds, and its predictions."""
    sweep = write_experiment(path / "sweep", {"a": 0.5}, grouped=grouped)
    experiment = gather(sweep, read_plan(sweep), {})
    result = experiment.configurations[0].result
    assert result is not None
    return rank(result, "No_BLD"), predictions_of(sweep, "a")


def test_the_order_a_second_time(tmp_path: Path) -> None:
    doubts, rows = ranked(tmp_path, grouped=False)
    logit = rows["probability"].map(lambda p: np.log(p / (1 - p)))
    rows = rows.assign(logit=logit, margin=logit - rows["threshold"].map(lambda p: np.log(p / (1 - p))))
    of = rows.groupby("path").agg(logit=("logit", "mean"), margin=("margin", "mean"), label=("true_class", "first"))
    errors = (rows["true_class"] != rows["predicted_class"]).groupby(rows["path"]).sum()
    of["against"], of["predicted"] = errors, np.where(of["margin"] >= 0, "BLD", "No_BLD")
    of["of_label"] = np.where(of["label"] == "BLD", of["logit"], -of["logit"])
    wrong = of[of["predicted"] != of["label"]].sort_values("of_label")
    split = of[(of["predicted"] == of["label"]) & (of["against"] > 0)]
    near = of[(of["predicted"] == of["label"]) & (of["against"] == 0) & (of["margin"].abs() < 1)]
    parts = [wrong, *(part.iloc[part["margin"].abs().argsort()] for part in (split, near))]
    expected = [path for part in parts for path in part.index]
    assert min(map(len, parts)) > 1
    assert [one.path for one in doubts if one.reason] == expected
    assert len(doubts) == len({one.path for one in doubts}) == N
    usual = {name: (1 / (1 + np.exp(-of["of_label"][of["label"] == name]))).mean() for name in ("BLD", "No_BLD")}
    for one in doubts:
        row = of.loc[one.path]
        assert one.margin == pytest.approx(row["margin"])
        assert one.probability == pytest.approx(1 / (1 + np.exp(-row["logit"])))
        assert (one.label, one.predicted, one.against) == (row["label"], row["predicted"], row["against"])
        other = 1 - one.probability if one.label == "BLD" else one.probability
        assert one.is_confident == (one.label != one.predicted and other >= usual[one.other])
        assert one.is_hard_negative == ((one.label, one.predicted) == ("No_BLD", "BLD"))
    assert any(one.is_confident for one in doubts)


def test_photographs_of_one_unit_stand_together(tmp_path: Path) -> None:
    doubts, rows = ranked(tmp_path)
    wrong = [one for one in doubts if one.reason == "contradicted"]
    units = [one.unit for one in wrong]
    runs = [unit for i, unit in enumerate(units) if i == 0 or units[i - 1] != unit]
    assert len(runs) == len(set(units)) < len(units)
    for one in wrong:
        assert one.of_unit == (units.count(one.unit), rows[rows["group"] == one.unit]["path"].nunique())


def test_a_probability_of_one_is_no_infinity(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", {"a": 60.0}, seeds=(1,))
    result = gather(sweep, read_plan(sweep), {}).configurations[0].result
    assert result is not None
    assert {0.0, 1.0} & set(result.pooled.probabilities.ravel().tolist())
    assert all(np.isfinite(one.margin) and not one.reason for one in rank(result, "No_BLD"))


def test_photographs_that_moved_are_found_and_a_seed_that_is_not_pooled_is_not_asked(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", {"a": 0.5})
    plan = read_plan(sweep)
    first = [run for run in plan.runs if run.seed == plan.runs[0].seed]
    sweep.run(first[-1].name).path.rename(tmp_path / "lost")  # the first seed lacks a fold now
    pooled = next(run for run in plan.runs if run.seed != plan.runs[0].seed)
    with pytest.raises(RunError) as caught:
        LabelSource.of(sweep.path / "a")
    assert caught.value.code == "review-photographs-gone"
    leaves = tmp_path / "elsewhere"
    leaves.mkdir()
    sweep.task(pooled.name).parent.mkdir(exist_ok=True)
    sweep.task(pooled.name).write_text(f"data: {{root: {leaves}}}\n")
    found = LabelSource.of(sweep.path / "a")
    assert (found.root, found.run.run.path) == (leaves, sweep.run(pooled.name).path)
