"""The results of an experiment: every figure a second time, and what the page says where something is missing."""

import json
import math
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bldml.errors import RunError
from bldml.metrics.registry import METRICS, shown_in
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.sweep.collect import collect
from bldml.sweep.opening import open_test_set
from bldml.sweep.plan import Candidate, PlannedRun, SweepFolder, read_plan, write_plan
from tests.oracles import second_opinion
from tests.report.pages import Page, read
from tests.sweep.experiments import N, write_experiment, write_run

SKILLS = {"resnet50": 1.0, "mobilenet": 1.5, "logistic": 0.6}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepFolder, str]:
    """Three configurations by two seeds by three folds, all there."""
    sweep = write_experiment(tmp_path_factory.mktemp("sweep") / "backbones", SKILLS)
    return sweep, collect(sweep)


def value_of(name: str, rows: pd.DataFrame) -> float:
    """A metric of pooled rows, at the threshold of the run of each."""
    label, probability = (rows["true_class"] == "BLD").to_numpy(int), rows["probability"].to_numpy(float)
    if METRICS[name].needs_threshold:
        probability = np.where(rows["predicted_class"] == "BLD", 0.9, 0.1)
    return second_opinion(name, label, probability)


def predictions_of(sweep: SweepFolder, configuration: str) -> pd.DataFrame:
    """The predictions of all runs of a configuration, read from the folders of the runs."""
    frames = []
    for path in sorted((sweep.path / "lightning_logs").glob(f"{configuration}-seed*")):
        _, seed, fold = path.name.split("-")
        frame = pd.read_csv(path / "evaluations" / "test" / "predictions.csv", keep_default_na=False)
        metrics = json.loads((path / "evaluations" / "test" / "metrics.json").read_text())
        frame["seed"], frame["fold"], frame["threshold"] = int(seed[4:]), int(fold[4:]), metrics["threshold"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_out_of_fold_predictions_have_each_photograph_once_per_seed(collected: tuple[SweepFolder, str]) -> None:
    sweep, _ = collected
    for name in SKILLS:
        written = pd.read_csv(sweep.path / "out_of_fold" / f"{name}.csv", keep_default_na=False)
        keys = ["seed", "path", "group", "true_class", "predicted_class", "probability", "fold", "threshold"]
        expected = predictions_of(sweep, name)[keys].sort_values(["seed", "path"], ignore_index=True)
        pd.testing.assert_frame_equal(written[keys].sort_values(["seed", "path"], ignore_index=True), expected)
        assert written.groupby("seed")["path"].nunique().to_dict() == {1: N, 2: N}


def test_every_figure_in_the_csv_file_a_second_time(collected: tuple[SweepFolder, str]) -> None:
    sweep, _ = collected
    table = read(sweep.path / "sweep.csv")
    assert len(table) == len(SKILLS) * len(shown_in("evaluation"))
    rows_of = {name: predictions_of(sweep, name) for name in SKILLS}
    for row in table:
        rows, name = rows_of[row["configuration"]], row["metric"]
        by_seed = [value_of(name, part) for _, part in rows.groupby("seed")]
        by_fold = [[value_of(name, part) for _, part in of.groupby("seed")] for _, of in rows.groupby("fold")]
        of_folds = pd.Series([np.mean(values) for values in by_fold])
        tolerance = 1e-4 if name.startswith("calibration") else 1e-9
        if row["value"]:
            assert float(row["value"]) == pytest.approx(np.mean(by_seed), abs=tolerance)
            assert float(row["seeds_sd"]) == pytest.approx(np.std(by_seed, ddof=1), abs=tolerance)
        if row["folds_sd"] and not of_folds.isna().any():
            assert float(row["folds_mean"]) == pytest.approx(of_folds.mean(), abs=tolerance)
            assert float(row["folds_sd"]) == pytest.approx(of_folds.std(ddof=1), abs=tolerance)
        assert (row["seeds"], row["folds"], row["n"], row["n_positive"], row["n_units"]) == ("2", "3", "72", "36", "24")
        if row["low"]:
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_pairs_a_second_time(collected: tuple[SweepFolder, str]) -> None:
    sweep, _ = collected
    pairs = read(sweep.path / "pairs.csv")
    assert [(pair["first"], pair["second"]) for pair in pairs] == list(combinations(SKILLS, 2))
    for family in ("", "runs_"):
        p_values = [float(pair[f"{family}p"]) for pair in pairs]
        adjusted = multipletests(p_values, method="holm")[1]
        assert [float(pair[f"{family}p_holm"]) for pair in pairs] == pytest.approx(adjusted)
    for pair in pairs:
        one, two = (predictions_of(sweep, pair[which]) for which in ("first", "second"))
        runs = [
            value_of("auroc", a) - value_of("auroc", b)
            for (_, a), (_, b) in zip(one.groupby(["seed", "fold"]), two.groupby(["seed", "fold"]), strict=True)
        ]
        pooled = [
            value_of("auroc", a) - value_of("auroc", b)
            for (_, a), (_, b) in zip(one.groupby("seed"), two.groupby("seed"), strict=True)
        ]
        assert float(pair["difference"]) == pytest.approx(np.mean(pooled))
        assert float(pair["runs_difference"]) == pytest.approx(np.mean(runs))
        t = np.mean(runs) / math.sqrt(np.var(runs, ddof=1) * (1 / 6 + 24 / 48))
        assert float(pair["runs_p"]) == pytest.approx(2 * stats.t.sf(abs(t), 5))


def test_the_page_names_the_best_with_its_corrected_figure(collected: tuple[SweepFolder, str]) -> None:
    sweep, said = collected
    page = Page(sweep.path / "sweep.html")
    best = "mobilenet has the best AUROC of 3 configurations"
    for text in (page.words, " ".join(said.split())):
        assert best in text
        assert "It was chosen on these very predictions; corrected for what the best of 3 gains by that" in text
    assert "one given group count as one sampling unit (24 groups)" in page.words
    assert "18 runs planned" in page.words
    assert "no folds" not in page.words
    assert {path.name for path in (sweep.path / "figures").iterdir()} >= {"learning_curves.svg", "configurations.svg"}
    assert r"\begin{tabular}" in (sweep.path / "sweep.tex").read_text()
    assert page.all("script") == []


def collect_of(path: Path, **options: object) -> tuple[str, Page]:
    skills = options.pop("skills", {"a": 1.0, "b": 1.5})
    sweep = write_experiment(path / "sweep", skills, **options)  # type: ignore[arg-type]
    said = collect(sweep, {"a-seed2-fold1": "failed: no memory was left"})
    return " ".join(said.split()), Page(sweep.path / "sweep.html")


def test_a_seed_without_all_its_folds_is_not_pooled_and_said(tmp_path: Path) -> None:
    said, page = collect_of(tmp_path, without=["a-seed2-fold1"])
    assert "1 of 12 runs is not evaluated: a-seed2-fold1" in said
    assert "a, seed 2: 2 of 3 folds are there" in said
    assert "compared over the seeds that all of them have: 1." in said
    assert "a: AUROC" in said.split("(1 seed × 3 folds)")[0]
    assert "failed: no memory was left" in page.words
    rows = read(tmp_path / "sweep" / "out_of_fold" / "a.csv")
    assert {row["seed"] for row in rows} == {"1"}
    assert len(rows) == N


def test_nothing_is_complete(tmp_path: Path) -> None:
    said, page = collect_of(tmp_path, without=[f"{name}-seed{seed}-fold0" for name in "ab" for seed in (1, 2)])
    assert "No configuration has a complete seed, so nothing can be pooled or compared." in said
    assert "best" not in said
    assert "not begun" in page.words


def test_nothing_has_begun(tmp_path: Path) -> None:
    names = [f"{name}-seed{seed}-fold{fold}" for name in "ab" for seed in (1, 2) for fold in range(3)]
    said, _ = collect_of(tmp_path, without=names)
    assert "12 of 12 runs are not evaluated" in said


def test_without_folds_it_is_said_that_figures_are_optimistic(tmp_path: Path) -> None:
    said, page = collect_of(tmp_path, folds=None, seeds=(1, 2, 3))
    assert "these figures are of the validation split" in said
    assert "They are optimistic" in page.words
    assert "out-of-fold" not in page.words
    assert not (tmp_path / "sweep" / "out_of_fold").exists()
    pair = read(tmp_path / "sweep" / "pairs.csv")[0]
    assert (pair["runs_p"], pair["runs_method"]) == ("", "no folds")


def test_one_seed_and_one_configuration(tmp_path: Path) -> None:
    said, page = collect_of(tmp_path, skills={"only": 1.0}, seeds=(None,))
    assert "best" not in said
    assert "only: AUROC" in said
    assert "With one seed, what is due to training cannot be told apart" in page.words
    assert not (tmp_path / "sweep" / "pairs.csv").exists()


def test_perfect_scores(tmp_path: Path) -> None:
    said, _ = collect_of(tmp_path, skills={"a": 30.0, "b": 30.0})
    assert "a and b have the best AUROC, 1.000. One of them would be chosen" in said
    assert "no difference is significant" in said
    rows = {row["metric"]: row for row in read(tmp_path / "sweep" / "sweep.csv")}
    assert float(rows["accuracy"]["low"]) < 1
    assert float(rows["auroc"]["low"]) < 1


def test_named_beforehand_and_another_metric(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "opened.json").write_text('{"configuration": "a", "time": "2026-01-02T03:04:05"}')
    said, page = collect_of(tmp_path, metric="f1", chosen="a", grouped=False)
    assert "The test set was opened for a, on 2026-01-02. Not tested: a_seed1_final (not begun)" in said
    assert "No other figure of this page is of the test set." in said
    assert not (tmp_path / "sweep" / "test.csv").exists()
    assert "a was named beforehand for the test set: F1" in said
    assert "It was chosen" not in said
    assert "so each photograph counts as one sampling unit" in page.words


@pytest.mark.parametrize("folds", [3, None])
def test_the_opened_test_set_a_second_time(tmp_path: Path, folds: int | None) -> None:
    """Its figures are those of the tested runs, and all others are as before it was opened."""
    sweep = write_experiment(tmp_path / "sweep", {"a": 1.0, "b": 1.5}, folds=folds)
    collect(sweep)
    others = ("sweep.csv", "pairs.csv", "spread.csv", "runs.csv")
    before = {name: (sweep.path / name).read_bytes() for name in others}
    names = [f"b_seed{seed}_final" if folds else f"b-seed{seed}" for seed in (1, 2)]
    for seed, name in zip((1, 2), names, strict=True):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        write_run(SweepFolder(tmp_path / "x"), PlannedRun("tested", "test", seed, 1), 3, 1.2)
        tested = SweepFolder(tmp_path / "x").run("tested")
        if folds:
            shutil.copytree(tested.path, sweep.run(name).path)
        else:
            shutil.copytree(tested.evaluation("test"), sweep.run(name).evaluation("test"))
    opened = {"configuration": "b", "how": "metric", "time": "2026-01-02T03:04:05"}
    sweep.opened.write_text(json.dumps(opened))
    said = " ".join(collect(sweep).split())
    assert {name: (sweep.path / name).read_bytes() for name in others} == before
    assert (
        "The test set was opened for b, then the best by the metric, on 2026-01-02. On its 24 photographs: AUROC"
        in said
    )
    assert "are not used here" not in said
    table = pd.read_csv(sweep.path / "test.csv", keep_default_na=False)
    rows = [pd.read_csv(sweep.run(name).evaluation("test") / "predictions.csv") for name in names]
    by_title = {row["seed"]: row for _, row in table[table["metric"] == "auroc"].iterrows()}
    values = [value_of("auroc", part) for part in rows]
    assert [float(by_title[f"seed {seed}"]["value"]) for seed in (1, 2)] == pytest.approx(values)
    mean = by_title["mean of 2 seeds"]
    assert float(mean["value"]) == pytest.approx(np.mean(values))
    assert float(mean["low"]) < float(mean["value"]) < float(mean["high"])
    page = Page(sweep.path / "sweep.html")
    assert "Test set, opened once" in page.words
    assert "ensemble" not in said
    (sweep.path / "ensembles" / "b").mkdir(parents=True)
    for day, name in ((2, "other_site"), (3, "test"), (4, "test")):
        entry = LedgerEntry(f"2026-01-0{day}T00:00:00+00:00", name, "test", name, 24, "checkpoints/best.ckpt")
        append_entry(RunFolder(sweep.path / "ensembles" / "b"), entry)
    said = " ".join(collect(sweep).split())
    assert "An ensemble of this experiment evaluated the sealed test set: " in said
    assert ": ensembles/b (2 times, first on 2026-01-03). Each" in said
    # A test of one seed that is not whole is named, and the other seed is shown alone.
    shutil.rmtree(sweep.run(names[1]).evaluation("test"))
    said = " ".join(collect(sweep).split())
    assert f"(seed 1). Not tested: {names[1]} (it has no evaluation of its test split)" in said


def test_each_configuration_against_the_baseline_of_its_backbone(tmp_path: Path) -> None:
    """The figures are those of the pairs, with the sign of the configuration that is no baseline."""
    skills = {"logistic_a": 0.6, "better": 3.0, "worse": 0.1, "other": 0.6, "logistic_b": 0.7}
    sweep = write_experiment(tmp_path / "sweep", skills)
    backbones = {"logistic_a": "a", "better": "a", "worse": "a", "other": "c", "logistic_b": "b"}
    heads = {name: {"model.head": "logistic"} if "logistic" in name else {} for name in skills}
    plan = read_plan(sweep)
    candidates = tuple(Candidate(name, {"model.backbone": backbones[name], **heads[name]}) for name in skills)
    write_plan(sweep, replace(plan, configurations=candidates, settings={"model.head": "last_layer"}))
    said = " ".join(collect(sweep).split())
    assert "The baselines are logistic_a, logistic_b: a logistic regression" in said
    assert "Significantly better (Holm): better (than logistic_a)." in said
    page = Page(sweep.path / "sweep.html")
    rows = read(sweep.path / "baseline.csv")
    assert [(row["configuration"], row["baseline"]) for row in rows] == [
        ("better", "logistic_a"), ("worse", "logistic_a"), ("other", "logistic_a"), ("other", "logistic_b"),
    ]  # fmt: skip
    assert (rows[0]["finding"], "minus logistic_a" in page.words) == ("better", True)
    pairs = {(pair["first"], pair["second"]): pair for pair in read(sweep.path / "pairs.csv")}
    for row in rows:
        turned = (row["baseline"], row["configuration"]) in pairs
        pair = pairs[(row["baseline"], row["configuration"]) if turned else (row["configuration"], row["baseline"])]
        signs = {"difference": "difference", "low": "high", "high": "low"} if turned else {"low": "low", "high": "high"}
        for ours, theirs in signs.items():
            assert float(row[ours]) == pytest.approx((-1 if turned else 1) * float(pair[theirs]))
        assert row["p_holm"] == pair["p_holm"]
        expected = ("better" if float(row["difference"]) > 0 else "worse") if float(row["p_holm"]) < 0.05 else None
        assert row["finding"] == (expected or "not significant")


def test_a_damaged_run_and_one_of_other_photographs(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", SKILLS)
    damaged = sweep.run("resnet50-seed1-fold0").evaluation("test") / "metrics.json"
    damaged.write_text("{", encoding="utf-8")
    # All runs of logistic are of photographs with other names.
    for run in (sweep.path / "lightning_logs").glob("logistic-*"):
        table = run / "evaluations" / "test" / "predictions.csv"
        table.write_text(table.read_text().replace("leaf_", "other_"), encoding="utf-8")
    # A run whose test split is not whole any more.
    role = sweep.run("mobilenet-seed2-fold2").evaluation("test") / "provenance.json"
    role.write_text(role.read_text().replace('"test"', '"mixed"'), encoding="utf-8")
    said, page = " ".join(collect(sweep).split()), Page(sweep.path / "sweep.html")
    assert "2 of 18 runs are not evaluated" in said
    assert "is not JSON" in page.words
    assert "with the role mixed, not test" in page.words
    assert "photographs, classes or units differ from those of the first: logistic" in said


def test_a_photograph_in_two_folds(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", {"a": 1.0}, seeds=(1,))
    folds = [sweep.run(f"a-seed1-fold{fold}").path / "evaluations" for fold in (0, 1)]
    shutil.rmtree(folds[1])
    shutil.copytree(folds[0], folds[1])
    assert "a, seed 1: in several folds: No_BLD/leaf_000.jpg; BLD/leaf_001.jpg" in collect(sweep)


def test_a_test_set_that_is_not_there_is_not_opened(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", {"a": 1.0, "b": 1.5}, folds=None)
    for run in (sweep.path / "lightning_logs").iterdir():
        (run / "stretches.json").write_text('{"stretches": [{"phase": "finished"}]}')
    with pytest.raises(RunError, match="b-seed1 has no test split"):
        open_test_set(sweep, read_plan(sweep), 1)
    assert not sweep.opened.exists()


def test_conditions_in_which_runs_differ(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", {"a": 1.0}, seeds=(1,))
    environment = sweep.run("a-seed1-fold1").environment
    environment.write_text(environment.read_text().replace("2.10.0", "2.11.0"), encoding="utf-8")
    collect(sweep)
    words = Page(sweep.path / "sweep.html").words
    assert "2.10.0 (2 of 3 runs); 2.11.0 (1 of 3 runs)" in words


def test_better_than_the_baseline_is_lower_where_lower_is_better(tmp_path: Path) -> None:
    sweep = write_experiment(tmp_path / "sweep", {"a": 3.0, "logistic": 0.2}, metric="brier")
    heads = (Candidate("a"), Candidate("logistic", {"model.head": "logistic"}))
    write_plan(sweep, replace(read_plan(sweep), configurations=heads))
    collect(sweep)
    (row,) = read(sweep.path / "baseline.csv")
    assert (row["finding"], float(row["difference"]) < 0) == ("better", True)
