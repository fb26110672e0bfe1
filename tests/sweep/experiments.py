"""Folders of experiments whose runs were not trained but drawn, written by the functions that a fit uses."""

import csv
import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bldml.metrics.assessment import evaluate
from bldml.metrics.operating_point import OperatingPoint
from bldml.run.predictions import Prediction, write_metrics, write_predictions
from bldml.sweep.plan import Candidate, Plan, PlannedRun, SweepFolder, write_plan

N, UNITS = 72, 24


def photographs(*, grouped: bool = True) -> list[tuple[str, str, str]]:
    """Path, group and class of 72 photographs of 24 trees."""
    found = []
    for i in range(N):
        name = "BLD" if i % UNITS % 2 else "No_BLD"
        found.append((f"{name}/leaf_{i:03}.jpg", f"tree {i % UNITS}" if grouped else "", name))
    return found


def fold_of(index: int, folds: int) -> int:
    return index % UNITS // 2 % folds


def write_run(
    sweep: SweepFolder,
    run: PlannedRun,
    folds: int | None,
    skill: float,
    *,
    grouped: bool = True,
    environment: Mapping[str, Any] | None = None,
    parts: Collection[str] = ("evaluation", "history"),
) -> None:
    """Write what a fit leaves of a run; the photographs of other folds are in its training split."""
    folder = sweep.run(run.name)
    folder.path.mkdir(parents=True)
    generator = np.random.default_rng([sum(run.configuration.encode()), run.seed or 0, run.fold or 0])
    hard = np.random.default_rng(7).normal(size=N)
    (folder.config).write_text("data: {positive_class: BLD}\nmonitor: val_auroc\n", encoding="utf-8")
    recorded = {"versions": {"torch": "2.10.0"}, "parameters": 1_500_000, **(environment or {})}
    folder.environment.write_text(json.dumps(recorded), encoding="utf-8")
    folder.training_time.write_text('{"training_seconds": 75.5}', encoding="utf-8")
    if "history" in parts:
        epochs = [f"{epoch},{1 / (epoch + 1 + skill)},{1 - 0.3 / (epoch + 1)}" for epoch in range(4)]
        folder.history.write_text("\n".join(["epoch,val_loss,val_auroc", *epochs]) + "\n", encoding="utf-8")
    threshold = round(float(generator.uniform(0.4, 0.6)), 3)
    rows: list[Prediction] = []
    splits = [("path", "label", "split")]
    for i, (path, group, name) in enumerate(photographs(grouped=grouped)):
        is_own = fold_of(i, folds or 4) == (run.fold or 0)
        splits.append((path, name, ("test" if folds else "val") if is_own else "train"))
        sign = 1 if name == "BLD" else -1
        logit = sign * skill + 0.8 * hard[i] + 0.6 * generator.normal()
        probability = float(1 / (1 + np.exp(-logit)))
        if is_own:
            predicted = "BLD" if probability >= threshold else "No_BLD"
            rows.append(Prediction(path, group, name, predicted, probability, ""))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(splits)
    folder.splits.write_text(text.getvalue(), encoding="utf-8")
    if "evaluation" not in parts:
        return
    place = folder.evaluation("test" if folds else "val")
    write_predictions(place / "predictions.csv", rows)
    labels, probabilities = [row.true_class == "BLD" for row in rows], [row.probability for row in rows]
    write_metrics(place, evaluate(labels, probabilities, OperatingPoint(threshold, 1.0)))
    role = "test" if folds else "validation"
    (place / "provenance.json").write_text(json.dumps({"schema": 1, "role": role, "epoch": 2}), encoding="utf-8")


def write_experiment(
    path: Path,
    skills: Mapping[str, float],
    *,
    seeds: Collection[int | None] = (1, 2),
    folds: int | None = 3,
    metric: str = "auroc",
    chosen: str | None = None,
    without: Collection[str] = (),
    grouped: bool = True,
) -> SweepFolder:
    """Write an experiment, apart from the runs whose names are in `without`."""
    runs = tuple(
        PlannedRun("-".join([name, f"seed{seed}", *([f"fold{fold}"] if fold is not None else [])]), name, seed, fold)
        for name in skills
        for seed in seeds
        for fold in (range(folds) if folds else (None,))
    )
    candidates = tuple(Candidate(name, {"model.backbone": name}) for name in skills)
    sweep = SweepFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    write_plan(sweep, Plan("backbones", candidates, runs, metric, folds, chosen))
    for run in runs:
        if run.name not in without:
            write_run(sweep, run, folds, skills[run.configuration], grouped=grouped)
    return sweep
