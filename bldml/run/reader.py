"""The only reader of a run folder, for report and comparison.

Each file is read completely, or refused with a message that names it. A missing file counts as not recorded.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bldml.errors import ConfigError, RunError
from bldml.io.text import plain
from bldml.metrics.assessment import Assessment, EvaluationMetrics, assess, evaluate
from bldml.metrics.checked import Classes
from bldml.metrics.operating_point import OperatingPoint, ThresholdCriterion
from bldml.run.files import Row, read_config, read_epochs, read_json, read_table, text_at
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow, read_photograph_table
from bldml.run.predictions import Prediction, read_metrics, read_predictions
from bldml.run.provenance import Provenance, Role, count_known, positive_number, role_of, to_provenance

ROLE_ORDER: tuple[Role, ...] = ("test", "external", "mixed", "unknown", "validation", "training", "unlabelled")
"""From the strongest to the weakest evidence for new photographs."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        name: Name of its folder; only `provenance.role` states how its photographs relate to the run.
        folder: Its folder.
        rows: The predictions.
        threshold: The operating threshold; None for photographs without labels.
        temperature: Divides the logit; None for photographs without labels.
        metrics: metrics.json; None for photographs without labels.
        provenance: Origin of the photographs and of the evaluation.
        photographs: Rows of its own photographs.csv; empty if it has none.
        excluded: Excluded photographs, with the reason.
    """

    name: str
    folder: Path
    rows: tuple[Prediction, ...]
    threshold: float | None
    temperature: float | None
    metrics: EvaluationMetrics | None
    provenance: Provenance
    photographs: tuple[PhotographRow, ...]
    excluded: tuple[Row, ...]

    @property
    def role(self) -> Role:
        """How the photographs relate to the run."""
        return self.provenance.role

    @property
    def includes_seen(self) -> bool:
        """Whether any of these photographs is recorded as one that the classifier was trained or chosen on."""
        known = self.provenance.known or {}
        return self.role in ("training", "validation") or any(known.get(name) for name in ("train", "val", "seen"))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probability of the positive class, (n,)."""
        return np.array([row.probability for row in self.rows], dtype=np.float64)

    def labels(self, classes: Classes) -> NDArray[np.int64]:
        """1 for the positive class, (n,)."""
        return np.array([row.true_class == classes.positive for row in self.rows], dtype=np.int64)

    def assess(self, classes: Classes) -> Assessment:
        """Return all metrics of a labelled evaluation with their intervals, the same for report and comparison."""
        assert self.threshold is not None
        groups = [row.group for row in self.rows]
        return assess(self.labels(classes), self.probabilities, groups, self.threshold)


@dataclass(frozen=True)
class Costs:
    """Costs of a run; None or empty where they are not recorded.

    Args:
        parameters: Weights and biases of the network, > 0.
        checkpoint_bytes: Size of `best.ckpt`.
        images_per_second: Photographs of the evaluation divided by its duration, which includes reading.
        device: Device of the evaluation.
        training_seconds: Time in epochs, without pauses between interrupted parts.
    """

    parameters: int | None
    checkpoint_bytes: int | None
    images_per_second: float | None
    device: str
    training_seconds: float | None


@dataclass(frozen=True)
class RunData:
    """The content of a run folder.

    Attributes:
        run: The folder.
        config: config.yaml; every scalar is text or None. Empty if the file is missing.
        environment: environment.json; empty if the file is missing.
        training_time: training_time.json; empty if the file is missing.
        epochs: Rows of history.csv.
        splits: Rows of splits.csv.
        excluded: Rows of excluded.csv.
        photographs: Rows of photographs.csv.
        leaks: Rows of leaks.csv; None if leaks were not searched for.
        evaluations: Labelled evaluations by role, in `ROLE_ORDER`; within a role, those of the best checkpoint first,
            then the oldest.
        unlabelled: Evaluations without labels.
        classes: The two classes.
    """

    run: RunFolder
    config: dict[str, Any]
    environment: dict[str, Any]
    training_time: dict[str, Any]
    epochs: tuple[dict[str, float | None], ...]
    splits: tuple[Row, ...]
    excluded: tuple[Row, ...]
    photographs: tuple[PhotographRow, ...]
    leaks: tuple[Row, ...] | None
    evaluations: tuple[Evaluation, ...]
    unlabelled: tuple[Evaluation, ...]
    classes: Classes

    @property
    def name(self) -> str:
        """Name of the run."""
        return plain(self.run.path.resolve().name)

    def of_role(self, role: Role) -> Evaluation | None:
        """Return the first labelled evaluation with this role; None if there is none."""
        return next((evaluation for evaluation in self.evaluations if evaluation.role == role), None)

    def setting(self, *keys: str) -> str:
        """Return a value of the configuration as text; empty if it is missing.

        Args:
            keys: The keys that lead to it, outermost first.
        """
        return text_at(self.config, *keys)

    def costs(self, evaluation: Evaluation | None = None) -> Costs:
        """Return the costs of the run, and its speed in an evaluation."""
        parameters, checkpoint = positive_number(self.environment.get("parameters")), self.run.best_checkpoint
        provenance = evaluation.provenance if evaluation else Provenance()
        seconds = provenance.seconds
        return Costs(
            parameters=None if parameters is None else int(parameters),
            checkpoint_bytes=checkpoint.stat().st_size if checkpoint.is_file() else None,
            images_per_second=len(evaluation.rows) / seconds if evaluation and seconds else None,
            device=provenance.device,
            training_seconds=positive_number(self.training_time.get("training_seconds")),
        )

    @property
    def criterion(self) -> ThresholdCriterion | None:
        """The criterion by which the threshold was chosen; None without a configuration.

        Raises:
            RunError: The criterion in the configuration is not valid.
        """
        if not self.config:
            return None
        block = self.config.get("operating_point")
        values = {key: value for key, value in block.items() if value is not None} if isinstance(block, dict) else {}
        try:
            numbers = {key: float(value) for key, value in values.items() if key != "maximize"}
            return ThresholdCriterion(**values | numbers)
        except (TypeError, ValueError, ConfigError) as error:
            message = f"operating_point in {self.run.config} cannot be understood: {error}."
            raise RunError(message, "run-criterion-wrong", path=self.run.config, reason=str(error)) from error


def read_run(run: RunFolder) -> RunData:
    """Read a run folder.

    Raises:
        RunError: It is not a run folder, or one of its files is damaged; the message names the file.
    """
    if not run.path.is_dir():
        message = (
            f"The run folder {plain(str(run.path))} does not exist. Set a run folder such as lightning_logs/<run>."
        )
        raise RunError(message, "run-folder-missing", path=run.path)
    config, environment = read_config(run.config), read_json(run.environment)
    splits = read_table(run.splits, ("path", "label", "split"))
    photographs = _photographs(run.photographs)
    folder = run.path / "evaluations"
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    except OSError as error:
        raise RunError(
            f"Cannot read {folder}: {error.strerror}.", "run-file-unreadable", path=folder, reason=error.strerror
        ) from error
    found = [_evaluation(folder) for folder in folders if (folder / "predictions.csv").is_file()]
    if not config and not found:
        raise RunError(
            f"{plain(str(run.path))} is not a run folder: it has no config.yaml and no evaluation. "
            "Set a run folder such as lightning_logs/<run>.",
            "run-folder-empty",
            path=run.path,
        )
    digests = environment.get("dataset_fingerprint")
    found = [_with_role(one, digests if isinstance(digests, dict) else {}, photographs) for one in found]
    found.sort(
        key=lambda one: (
            *(ROLE_ORDER.index(one.role), Path(one.provenance.checkpoint).name != run.best_checkpoint.name),
            *(one.provenance.created, one.name),
        )
    )
    labelled = [evaluation for evaluation in found if evaluation.threshold is not None]
    classes = _classes(run, text_at(config, "data", "positive_class"), splits, labelled)
    for evaluation in labelled:
        _check(evaluation, classes)
    return RunData(
        run=run,
        config=config,
        environment=environment,
        training_time=read_json(run.training_time),
        epochs=read_epochs(run.history),
        splits=splits,
        excluded=read_table(run.excluded, ("path", "reason")),
        photographs=photographs,
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
                message = f"{folder / 'metrics.json'}: the {key} is {value!r}. Repeat the evaluation."
                raise RunError(message, "metrics-value-wrong", path=folder / "metrics.json", key=key, found=value)
    return Evaluation(
        name=folder.name,
        folder=folder,
        rows=tuple(rows),
        threshold=threshold,
        temperature=temperature,
        metrics=metrics,
        provenance=to_provenance(read_json(folder / "provenance.json")),
        photographs=_photographs(folder / "photographs.csv"),
        excluded=read_table(folder / "excluded.csv", ("path", "reason")),
    )


def _with_role(one: Evaluation, digests: dict[str, str], photographs: tuple[PhotographRow, ...]) -> Evaluation:
    """Return an evaluation with its role; where it is not recorded, as before 0.2, by the digests and contents."""
    provenance = one.provenance
    if provenance.role != "unknown":
        return one
    contents = [row.sha256 for row in one.photographs]
    known = count_known(contents, photographs) if contents and all(contents) else None
    split = provenance.split if one.threshold is not None else "predict"
    role = role_of(split, provenance.dataset_fingerprint, digests, len(one.rows), known)
    return replace(one, provenance=replace(provenance, role=role, known=known))


def _classes(run: RunFolder, positive: str, splits: tuple[Row, ...], evaluations: list[Evaluation]) -> Classes:
    """Return the classes of a run.

    The positive class is the one that the configuration names. If it names none, it is the predicted class of a
    photograph whose probability reaches the threshold; if there is none, the class that is never predicted. The
    negative class is the most frequent other class, so that one mistyped label is not taken for it.

    Raises:
        RunError: The positive class cannot be determined, or is not among the several classes of the tables.
    """
    names = Counter(row["label"] for row in splits)
    names.update(name for e in evaluations for row in e.rows for name in (row.true_class, row.predicted_class) if name)
    rows = [(row, row.probability >= (e.threshold or 0)) for e in evaluations for row in e.rows]
    if not positive:
        positive = next((row.predicted_class for row, is_positive in rows if is_positive), "")
    if not positive:
        never = set(names) - {row.predicted_class for row, _ in rows}
        positive = never.pop() if len(never) == 1 else ""
    if not positive or (len(names) > 1 and positive not in names):
        found = (
            f"the tables contain {', '.join(sorted(map(plain, names)))}" if names else "and no table contains classes"
        )
        raise RunError(
            f"The positive class of {plain(str(run.path))} cannot be determined: in config.yaml data.positive_class is "
            f"{plain(positive) or 'missing'}, {found}. Set data.positive_class there.",
            "positive-class-unclear",
            path=run.path,
            found=positive,
        )
    others = [name for name, _ in names.most_common() if name != positive]
    return Classes(others[0] if others else f"not {positive}", positive)


def _check(evaluation: Evaluation, classes: Classes) -> None:
    """Raise RunError if the predictions contradict the metrics or themselves, as after a change by hand."""
    file = plain(str(evaluation.folder / "predictions.csv"))
    remedy = "The table was changed by hand or belongs to another run. Repeat the evaluation."
    if not evaluation.rows:
        raise RunError(f"{file} has no rows. Repeat the evaluation.", "predictions-empty", path=file)
    seen: set[str] = set()
    assert evaluation.threshold is not None
    for number, row in enumerate(evaluation.rows, 2):
        location = f"{file}, row {number} ({plain(row.path)})"
        for what, name in (("true class", row.true_class), ("predicted class", row.predicted_class)):
            if name not in classes.names:
                known = " and ".join(map(plain, classes.names))
                message = f"{location}: the {what} is {plain(name)!r}, but the classes are {known}. {remedy}"
                raise RunError(message, "class-unknown", path=location, found=name, expected=known)
        if row.path in seen:
            raise RunError(f"{location}: the photograph already has a row. {remedy}", "prediction-twice", path=location)
        seen.add(row.path)
        predicted = classes.predicted(row.probability, evaluation.threshold)
        if row.predicted_class != predicted:
            raise RunError(
                f"{location}: the predicted class is {plain(row.predicted_class)}, but the probability "
                f"{row.probability} and the threshold {evaluation.threshold} make it {plain(predicted)}. {remedy}",
                "prediction-contradicts-threshold",
                path=location,
                found=row.predicted_class,
                expected=predicted,
            )
    point = OperatingPoint(evaluation.threshold, evaluation.temperature or 0)
    found = evaluate(evaluation.labels(classes), evaluation.probabilities, point)
    assert evaluation.metrics is not None
    for score, here, there in _differing(found.to_plain(), evaluation.metrics.to_plain()):
        message = f"According to {file}, {score} is {here}, but metrics.json in the same folder has {there!r}. {remedy}"
        raise RunError(message, "metrics-contradict-predictions", path=file, key=score, found=there, expected=here)


def _differing(computed: dict[str, Any], stored: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield name, computed and stored value of each metric that differs; one that is not stored does not differ."""
    for name, here in computed.items():
        there = stored.get(name, here)
        if isinstance(here, dict):
            if isinstance(there, dict):
                yield from _differing(here, there, f"{name} ")
            else:
                yield within + name, "scores", there
        elif isinstance(here, float) and isinstance(there, int | float):
            if not math.isclose(here, there, rel_tol=1e-6, abs_tol=1e-6):
                yield within + name, here, there
        elif here != there:
            yield within + name, here, there
