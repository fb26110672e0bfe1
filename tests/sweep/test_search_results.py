"""What a search shows, recomputed by hand from the files of its runs; and the median rule against Optuna's."""

import csv
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from sklearn.metrics import roc_auc_score

from bldml.sweep.collect import collect
from bldml.sweep.plan import Candidate, Plan, PlannedRun, SweepFolder, Trial, write_plan
from bldml.sweep.search.pruning import find_pruning, warm_up
from tests.sweep.experiments import write_run

TRIALS, FOLDS, SEEDS = 12, 3, (1, 2)
LR = {"low": 1e-4, "high": 1e-2, "log": True}


def losses(trial: int, seed: int, fold: int) -> list[float]:
    """Validation losses of a run: another trial is the best in each fold."""
    generator = np.random.default_rng([trial, seed, fold])
    return [float(value) for value in 0.5 + 0.3 * generator.random(4)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Twelve trials, the last of which was pruned in its second run."""
    folder = SweepFolder(tmp_path_factory.mktemp("search") / "drawn")
    folder.path.mkdir()
    trials, runs = [], []
    for number in range(TRIALS):
        is_pruned = number == TRIALS - 1
        name = f"trial-{number:04}"
        of_trial = [PlannedRun(f"{name}_seed{s}_fold{f}", name, s, f) for s in SEEDS for f in range(FOLDS)]
        runs += of_trial
        for run in of_trial[: 1 if is_pruned else None]:
            write_run(folder, run, FOLDS, 0.2 + 0.1 * number)
            rows = enumerate(losses(number, run.seed or 0, run.fold or 0))
            folder.run(run.name).history.write_text(
                "epoch,val_loss\n" + "".join(f"{epoch},{value!r}\n" for epoch, value in rows), encoding="utf-8"
            )
        values = [min(losses(number, run.seed or 0, run.fold or 0)) for run in of_trial]
        params = {"model.lr": 1e-4 * (number + 1), "model.frozen_mode": ["eval", "train"][number % 2]}
        trials.append(
            Trial(number, params, "pruned", values[0], "worse than the median")
            if is_pruned
            else Trial(number, params, "complete", sum(values) / len(values))
        )
    search = {
        "ranges": {"model.lr": LR, "model.frozen_mode": ["eval", "train"]}, "pruning": True, "seed": 0,
        "monitor": "val_loss", "seeds": list(SEEDS), "folds": list(range(FOLDS)), "trials": 20, "hours": None,
    }  # fmt: skip
    candidates = tuple(Candidate(trial.name, trial.params) for trial in trials)
    write_plan(folder, Plan("drawn", candidates, tuple(runs), "auroc", FOLDS, search=search, trials=tuple(trials)))
    return folder


@pytest.fixture(scope="module")
def said(sweep: SweepFolder) -> str:
    return collect(sweep)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_trial_is_that_of_the_best_inner_validation(sweep: SweepFolder, said: str) -> None:
    means = [
        np.mean([min(losses(number, seed, fold)) for seed in SEEDS for fold in range(FOLDS)])
        for number in range(TRIALS - 1)
    ]
    best = f"trial-{int(np.argmin(means)):04}"
    assert f"{best} has the best objective: val_loss {min(means):.4f}. Its out-of-fold AUROC" in said
    assert "12 of 20 trials: 11 complete, 1 pruned." in said
    assert "beforehand" not in said
    assert "not evaluated" not in said
    rows = rows_of(sweep.path / "trials.csv")
    assert [row["state"] for row in rows] == ["complete"] * (TRIALS - 1) + ["pruned"]
    assert [float(row["val_loss"]) for row in rows[:-1]] == pytest.approx(means, abs=1e-12)


def test_the_search_as_a_procedure_takes_in_each_fold_its_own_best(sweep: SweepFolder, said: str) -> None:
    chosen = [
        min(range(TRIALS - 1), key=lambda number: sum(min(losses(number, seed, fold)) for seed in SEEDS))
        for fold in range(FOLDS)
    ]
    assert len(set(chosen)) > 1
    assert "; ".join(f"fold {fold}: trial-{number:04}" for fold, number in enumerate(chosen)) in said
    values = []
    for seed in SEEDS:
        rows = [
            row
            for fold, number in enumerate(chosen)
            for row in rows_of(
                sweep.run(f"trial-{number:04}_seed{seed}_fold{fold}").evaluation("test") / "predictions.csv"
            )
        ]
        values.append(roc_auc_score([r["true_class"] == "BLD" for r in rows], [float(r["probability"]) for r in rows]))
    found = [row for row in rows_of(sweep.path / "sweep.csv") if row["configuration"] == "search"]
    (auroc,) = [float(row["value"]) for row in found if row["metric"] == "auroc"]
    assert auroc == pytest.approx(np.mean(values), abs=1e-12)


def test_importance_history_and_no_pairs(sweep: SweepFolder, said: str) -> None:
    del said
    importance = {row["option"]: float(row["importance"]) for row in rows_of(sweep.path / "importance.csv")}
    assert importance.keys() == {"model.lr", "model.frozen_mode"}
    assert 0 < sum(importance.values()) <= 1
    for name in ("search_history", "option_importance"):
        assert (sweep.path / "figures" / f"{name}.svg").is_file()
    assert not (sweep.path / "pairs.csv").exists()
    page = (sweep.path / "sweep.html").read_text(encoding="utf-8")
    assert "Pairs of trials are not tested" in page
    assert page.count('<tr><th scope="row"><bdi>trial-') > 0
    assert json.dumps("worse than the median")[1:-1] in page


def test_the_median_rule_is_optunas() -> None:
    generator = np.random.default_rng(0)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    agreed = []
    for _ in range(60):
        curves = [[float(value) for value in generator.random(6)] for _ in range(int(generator.integers(4, 9)))]
        *others, own = curves
        study = optuna.create_study()
        for other in others:
            best = np.minimum.accumulate(other)
            study.add_trial(optuna.trial.create_trial(value=best[-1], intermediate_values=dict(enumerate(best))))
        best = np.minimum.accumulate(own)
        running = optuna.trial.TrialState.RUNNING
        theirs = next(
            (
                epoch
                for epoch in range(6)
                if pruner.prune(
                    study,
                    optuna.trial.create_trial(state=running, intermediate_values=dict(enumerate(best[: epoch + 1]))),
                )
            ),
            None,
        )
        ours = find_pruning([own], [[other] for other in others], finished=0, warm_up=2, is_lower_better=True)
        assert (ours.epoch if ours else None) == theirs
        agreed.append(theirs)
    assert None in agreed
    assert len(set(agreed)) > 2


def test_runs_before_count_with_their_best_and_the_last_end_is_no_pruning() -> None:
    good = [[0.2, 0.1], [0.4, 0.3]]
    for trial, finished, found in (
        ([[0.3, 0.1], [0.9, 0.2]], 2, None),  # complete
        ([[0.3, 0.2]], 0, None),  # still before the warm-up
        ([[0.3, 0.2]], 1, (0, 1, 0.2)),  # the end of a run is judged whatever the warm-up
        ([[0.3, 0.1], [0.9]], 1, None),
        ([[0.3, 0.1], [0.9, 0.8, 0.7, 0.6]], 1, None),  # this may be its last epoch
        ([[0.3, 0.1], [0.9, 0.8, 0.7, 0.6, 0.9]], 1, (1, 3, 0.35)),
    ):
        pruned = find_pruning(trial, [good] * 5, finished=finished, warm_up=3, is_lower_better=True)
        assert (None if pruned is None else (pruned.run, pruned.epoch, round(pruned.value, 9))) == found
    assert find_pruning([[0.9] * 9], [good] * 4, finished=0, warm_up=0, is_lower_better=True) is None


def test_nothing_is_judged_before_any_trial_of_the_space_has_unfrozen_everything() -> None:
    assert warm_up({}, {}) == 5
    ranges = {"unfreezing.start_epoch": {"low": 0, "high": 6}, "unfreezing.stages": [2, 5]}
    assert warm_up({"unfreezing.every_n_epochs": 3, "unfreezing.start_epoch": 90}, ranges) == 6 + 3 * 4 + 2
