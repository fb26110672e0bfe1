"""What a report is made from: a run folder, read and checked."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bldml.errors import RunError
from bldml.io.text import plain
from bldml.metrics.assessment import EvaluationMetrics, evaluate
from bldml.metrics.operating_point import Goal, OperatingPoint
from bldml.run.files import Row, read_config, read_epochs, read_json, read_table, text_at
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow, read_photograph_table
from bldml.run.predictions import Prediction, read_metrics, read_predictions


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        name: `val`, `test` or the name of an external set.
        folder: Its folder.
        rows: The predictions.
        threshold: The operating threshold; None for photographs without labels.
        temperature: Divides the logit; None for photographs without labels.
        metrics: metrics.json; None for photographs without labels.
        provenance: From where the photographs came; empty where nothing says so.
        photographs: What their files say of an external set’s photographs, where that was recorded.
        excluded: Photographs left out, with the reason.
    """

    name: str
    folder: Path
    rows: tuple[Prediction, ...]
    threshold: float | None
    temperature: float | None
    metrics: EvaluationMetrics | None
    provenance: dict[str, Any]
    photographs: tuple[PhotographRow, ...]
    excluded: tuple[Row, ...]


@dataclass(frozen=True)
class RunData:
    """All that a run folder holds.

    Attributes:
        run: The folder.
        config: config.yaml; every scalar is text or None.
        environment: environment.json; empty where there is none.
        epochs: Rows of metrics.csv.
        splits: Rows of splits.csv.
        excluded: Rows of excluded.csv.
        photographs: Rows of photographs.csv.
        leaks: Rows of leaks.csv; None where it was not looked for.
        evaluations: Labelled ones: test, then external ones, then val, then train.
        unlabelled: Those without labels.
        classes: Negative and positive class.
    """

    run: RunFolder
    config: dict[str, Any]
    environment: dict[str, Any]
    epochs: tuple[dict[str, float | None], ...]
    splits: tuple[Row, ...]
    excluded: tuple[Row, ...]
    photographs: tuple[PhotographRow, ...]
    leaks: tuple[Row, ...] | None
    evaluations: tuple[Evaluation, ...]
    unlabelled: tuple[Evaluation, ...]
    classes: tuple[str, str]

    @property
    def name(self) -> str:
        """Name of the run."""
        return plain(self.run.path.resolve().name)

    def evaluation(self, name: str) -> Evaluation | None:
        """The labelled evaluation of this name."""
        return next((evaluation for evaluation in self.evaluations if evaluation.name == name), None)

    def setting(self, *keys: str) -> str:
        """A value of the configuration as text; empty where there is none.

        Args:
            keys: Where it stands, from the outermost key.
        """
        return text_at(self.config, *keys)

    @property
    def goal(self) -> Goal:
        """What the threshold was chosen for.

        Raises:
            RunError: The configuration names none that there is.
        """
        block = self.config.get("operating_point")
        given = {key: value for key, value in block.items() if value is not None} if isinstance(block, dict) else {}
        try:
            numbers = {key: float(value) for key, value in given.items() if key != "maximize"}
            return Goal(**given | numbers)
        except (TypeError, ValueError) as error:
            raise RunError(f"operating_point in {self.run.config} cannot be understood: {error}.") from error


def read_run(run: RunFolder) -> RunData:
    """Read a run folder.

    Raises:
        RunError: It is no run folder, or one of its files is damaged; the message says which.
    """
    if not run.path.is_dir():
        raise RunError(f"There is no run folder {plain(str(run.path))}. Give a folder such as lightning_logs/<run>.")
    config = read_config(run.config)
    splits = read_table(run.splits, ("path", "label", "split"))
    place = run.path / "evaluations"
    try:
        folders = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    except OSError as error:
        raise RunError(f"Cannot read {place}: {error.strerror}.") from error
    found = [_evaluation(folder) for folder in folders if (folder / "predictions.csv").is_file()]
    labelled = [evaluation for evaluation in found if evaluation.threshold is not None]
    labelled.sort(key=lambda evaluation: ({"test": 0, "val": 2, "train": 3}.get(evaluation.name, 1), evaluation.name))
    classes = _classes(run, text_at(config, "data", "positive_class"), splits, labelled)
    for evaluation in labelled:
        _check(evaluation, classes)
    return RunData(
        run=run,
        config=config,
        environment=read_json(run.environment),
        epochs=read_epochs(run.metrics),
        splits=splits,
        excluded=read_table(run.excluded, ("path", "reason")),
        photographs=_photographs(run.path / "photographs.csv"),
        leaks=read_table(run.leaks, ("kind", "split", "partner_split")) if run.leaks.is_file() else None,
        evaluations=tuple(labelled),
        unlabelled=tuple(evaluation for evaluation in found if evaluation.threshold is None),
        classes=classes,
    )


def _photographs(path: Path) -> tuple[PhotographRow, ...]:
    return tuple(read_photograph_table(path)) if path.is_file() else ()


def _evaluation(folder: Path) -> Evaluation:
    rows = read_predictions(folder / "predictions.csv")
    threshold = temperature = metrics = None
    if (folder / "metrics.json").exists() or any(row.true_class for row in rows):
        metrics = read_metrics(folder)
        threshold, temperature = metrics.threshold, metrics.temperature
        for key, value, greatest in (("threshold", threshold, 1.0), ("temperature", temperature, math.inf)):
            if not isinstance(value, int | float) or not 0 <= value <= greatest or value == math.inf:
                raise RunError(f"{folder / 'metrics.json'}: the {key} is {value!r}. Run the evaluation again.")
    return Evaluation(
        name=folder.name,
        folder=folder,
        rows=tuple(rows),
        threshold=threshold,
        temperature=temperature,
        metrics=metrics,
        provenance=read_json(folder / "provenance.json"),
        photographs=_photographs(folder / "photographs.csv"),
        excluded=read_table(folder / "excluded.csv", ("path", "reason")),
    )


def _classes(run: RunFolder, positive: str, splits: tuple[Row, ...], evaluations: list[Evaluation]) -> tuple[str, str]:
    # The other class is what most photographs have that are not positive: a mistyped class is not taken for it.
    names = Counter(row["label"] for row in splits)
    names.update(name for e in evaluations for row in e.rows for name in (row.true_class, row.predicted_class) if name)
    if not positive:  # a photograph that is called by the class that it has the greater probability of
        rows = [row for evaluation in evaluations for row in evaluation.rows]
        positive = max(rows, key=lambda row: row.probability).predicted_class if rows else ""
    if not positive:
        raise RunError(f"Which class is the positive one is not said in {run.config}. Set data.positive_class there.")
    others = [name for name, _ in names.most_common() if name != positive]
    return (others[0] if others else f"not {positive}"), positive


def _check(evaluation: Evaluation, classes: tuple[str, str]) -> None:
    """Refuse predictions that were changed by hand, naming the row."""
    file = evaluation.folder / "predictions.csv"
    again = "The table was changed by hand, or is of another run: run the evaluation again."
    if not evaluation.rows:
        raise RunError(f"{file} has no row. Run the evaluation again.")
    seen: set[str] = set()
    assert evaluation.threshold is not None
    for number, row in enumerate(evaluation.rows, 2):
        place = f"{file}, row {number} ({plain(row.path)})"
        for what, name in (("true class", row.true_class), ("predicted class", row.predicted_class)):
            if name not in classes:
                known = " and ".join(map(plain, classes))
                raise RunError(f"{place}: the {what} is {plain(name)!r}, known are {known}. {again}")
        if row.path in seen:
            raise RunError(f"{place}: the photograph has a row already. {again}")
        seen.add(row.path)
        called = classes[row.probability >= evaluation.threshold]
        if row.predicted_class != called:
            raise RunError(
                f"{place}: the predicted class is {plain(row.predicted_class)}, but the probability {row.probability} "
                f"and the threshold {evaluation.threshold} make it {plain(called)}. {again}"
            )
    labels = [row.true_class == classes[1] for row in evaluation.rows]
    point = OperatingPoint(evaluation.threshold, evaluation.temperature or 0)
    found = evaluate(labels, [row.probability for row in evaluation.rows], point)
    assert evaluation.metrics is not None
    for score, here, there in _unequal(found.to_plain(), evaluation.metrics.to_plain()):
        raise RunError(f"{file} gives {score} = {here}, metrics.json beside it has {there!r}. {again}")


def _unequal(found: dict[str, Any], told: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Scores that are not those told: name, found, told. A score that is not told, by an older version, is none."""
    for name, here in found.items():
        there = told.get(name, here)
        if isinstance(here, dict):
            if isinstance(there, dict):
                yield from _unequal(here, there, f"{name} ")
            else:
                yield within + name, "scores", there
        elif isinstance(here, float) and isinstance(there, int | float):
            if not math.isclose(here, there, rel_tol=1e-6, abs_tol=1e-6):
                yield within + name, here, there
        elif here != there:
            yield within + name, here, there
