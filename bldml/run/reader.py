"""The only reader of a run folder, for report and comparison.

Each file is read completely, or refused with a message that names it. A missing file counts as not recorded.
"""

import math
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bldml.errors import ConfigError, RunError
from bldml.io.text import plain
from bldml.metrics.assessment import Assessment, EvaluationMetrics, assess, evaluate
from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.certainty.novelty import Flagged, count_flagged
from bldml.metrics.checked import Classes, Units, units_of
from bldml.metrics.operating_point import OperatingPoint, ThresholdCriterion
from bldml.run.files import Row, read_config, read_epochs, read_json, read_table, text_at
from bldml.run.folder import RunFolder
from bldml.run.ledger import RecordedRun, read_log_folder
from bldml.run.photographs import PhotographRow, read_photograph_table
from bldml.run.predictions import Prediction, read_metrics, read_predictions
from bldml.run.provenance import Provenance, Role, count_known, positive_number, role_of, to_provenance

ROLE_ORDER: tuple[Role, ...] = ("test", "external", "mixed", "unknown", "validation", "training", "unlabelled")
"""From the strongest to the weakest evidence for new photographs."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        folder: Its folder.
        rows: The predictions.
        metrics: metrics.json; None for photographs without labels.
        provenance: Origin of the photographs and of the evaluation.
        photographs: Rows of its own photographs.csv; empty if it has none.
        excluded: Excluded photographs, with the reason.
    """

    folder: Path
    rows: tuple[Prediction, ...]
    metrics: EvaluationMetrics | None
    provenance: Provenance
    photographs: tuple[PhotographRow, ...]
    excluded: tuple[Row, ...]

    @property
    def name(self) -> str:
        """Name of its folder; only the role states how its photographs relate to the run."""
        return self.folder.name

    @property
    def role(self) -> Role:
        """How the photographs relate to the run."""
        return self.provenance.role

    @property
    def is_out_of_fold(self) -> bool:
        """Whether it is of an ensemble, each photograph judged by the networks that did not learn from it."""
        return self.provenance.split == "out_of_fold"

    @property
    def point(self) -> OperatingPoint:
        """Threshold and temperature of an evaluation with labels."""
        assert self.metrics is not None
        return OperatingPoint(self.metrics.threshold, self.metrics.temperature)

    @property
    def bands(self) -> Bands | None:
        """The bands of the classifier; None where they are not recorded."""
        return Bands.from_plain(self.metrics.bands) if self.metrics and self.metrics.bands else None

    @property
    def flagged(self) -> Flagged | None:
        """The photographs that are unlike the training photographs; None where that is not recorded."""
        distances = [row.distance for row in self.rows if row.distance is not None]
        if self.metrics is None or not self.metrics.novelty or len(distances) < len(self.rows):
            return None
        return count_flagged(distances, self.units, self.metrics.novelty["rate"])

    @property
    def images_per_second(self) -> float | None:
        """Photographs divided by the duration, which includes reading; None where it is not recorded."""
        return len(self.rows) / self.provenance.seconds if self.provenance.seconds else None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probability of the positive class, (n,)."""
        return np.array([row.probability for row in self.rows], dtype=np.float64)

    @property
    def units(self) -> Units:
        """Sampling unit of each photograph, (n,): its group, else its burst, else itself."""
        return units_of([row.unit for row in self.rows], len(self.rows))

    def labels(self, classes: Classes) -> NDArray[np.int64]:
        """1 for the positive class, (n,)."""
        return np.array([row.true_class == classes.positive for row in self.rows], dtype=np.int64)

    def without(self, paths: Collection[str]) -> "Evaluation":
        """Return the evaluation of the other photographs only; its provenance stays that of all."""
        return replace(self, rows=tuple(row for row in self.rows if row.path not in paths))

    def assess(self, classes: Classes) -> Assessment:
        """Return all metrics of a labelled evaluation with their intervals, the same for report and comparison."""
        units = [row.unit for row in self.rows]
        return assess(self.labels(classes), self.probabilities, units, self.point.threshold)


@dataclass(frozen=True)
class RunData:
    """The content of a run folder. What is not recorded is empty or None.

    Attributes:
        run: The folder.
        config: config.yaml; every scalar is text or None.
        environment: environment.json.
        parameters: Number of weights and biases of the network.
        training_seconds: Time in epochs, without pauses between interrupted parts.
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
    parameters: int | None
    training_seconds: float | None
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

    @cached_property
    def log_folder(self) -> list[RecordedRun]:
        """What this run and the runs beside it record, this one first; see `read_log_folder`."""
        return read_log_folder(self.run)

    @property
    def stated(self) -> frozenset[str] | None:
        """The settings that were typed or in a configuration file, by dotted key; None if that is not recorded."""
        keys = self.environment.get("stated")
        return frozenset(map(str, keys)) if isinstance(keys, list) else None

    @property
    def has_own_criterion(self) -> bool | None:
        """Whether the threshold criterion was stated, not the default; None without a configuration."""
        block, stated = self.config.get("operating_point"), self.stated
        values = block if isinstance(block, dict) else {}
        own = any(value is not None for key, value in values.items() if key != "band_error")
        if stated is not None:
            of_block = {key for key in stated if key.split(".")[0] == "operating_point"}
            own = own and bool(of_block - {"operating_point.band_error"})
        return own if self.config else None

    @property
    def checkpoint_bytes(self) -> int | None:
        """Size of `best.ckpt`; None if it does not exist."""
        return self.run.best_checkpoint.stat().st_size if self.run.best_checkpoint.is_file() else None

    def of_role(self, role: Role) -> Evaluation | None:
        """Return the first labelled evaluation with this role; None if there is none."""
        return next((evaluation for evaluation in self.evaluations if evaluation.role == role), None)

    @property
    def sets(self) -> list[list[Evaluation]]:
        """Labelled evaluations of the same photographs, under any names, in the order of `evaluations`."""
        found: dict[str, list[Evaluation]] = {}
        for one in self.evaluations:
            found.setdefault(one.provenance.dataset_fingerprint or f"only {one.name}", []).append(one)
        return list(found.values())

    def setting(self, *keys: str) -> str:
        """Return the value of the configuration at these keys, outermost first, as text; empty if it is missing."""
        return text_at(self.config, *keys)

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
            return ThresholdCriterion(**values | numbers)  # its bands are read with the metrics
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
    photographs = _photographs(run.path)
    folder = run.path / "evaluations"
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    except OSError as error:
        raise RunError(
            f"Cannot read {folder}: {error.strerror}.", "run-file-unreadable", path=folder, reason=error.strerror
        ) from error
    digests = environment.get("dataset_fingerprint")
    found = [
        _evaluation(folder, digests if isinstance(digests, dict) else {}, photographs)
        for folder in folders
        if (folder / "predictions.csv").is_file()
    ]
    if not config and not found:
        raise RunError(
            f"{plain(str(run.path))} is not a run folder: it has no config.yaml and no evaluation. "
            "Set a run folder such as lightning_logs/<run>.",
            "run-folder-empty",
            path=run.path,
        )
    found.sort(
        key=lambda one: (
            *(ROLE_ORDER.index(one.role), Path(one.provenance.checkpoint).name != run.best_checkpoint.name),
            *(one.provenance.created, one.name),
        )
    )
    labelled = [evaluation for evaluation in found if evaluation.metrics]
    classes = _classes(run, text_at(config, "data", "positive_class"), splits, labelled)
    for evaluation in labelled:
        _check(evaluation, classes)
    parameters = positive_number(environment.get("parameters"))
    return RunData(
        run=run,
        config=config,
        environment=environment,
        parameters=None if parameters is None else int(parameters),
        training_seconds=positive_number(read_json(run.training_time).get("training_seconds")),
        epochs=read_epochs(run.history),
        splits=splits,
        excluded=read_table(run.excluded, ("path", "reason")),
        photographs=photographs,
        leaks=read_table(run.leaks, ("kind", "split", "partner_split")) if run.leaks.is_file() else None,
        evaluations=tuple(labelled),
        unlabelled=tuple(evaluation for evaluation in found if not evaluation.metrics),
        classes=classes,
    )


def _photographs(folder: Path) -> tuple[PhotographRow, ...]:
    path = folder / "photographs.csv"
    return tuple(read_photograph_table(path)) if path.is_file() else ()


def _evaluation(folder: Path, digests: dict[str, str], of_run: tuple[PhotographRow, ...]) -> Evaluation:
    """Read an evaluation; a role that is not recorded, as before 0.2, follows from digests and contents of the run."""
    rows, path = read_predictions(folder / "predictions.csv"), folder / "metrics.json"
    metrics = read_metrics(folder) if path.exists() or any(row.true_class for row in rows) else None
    if metrics:
        values = ("threshold", metrics.threshold, 1.0), ("temperature", metrics.temperature, sys.float_info.max)
        for key, value, greatest in values:
            if not isinstance(value, int | float) or not 0 <= value <= greatest:
                message = f"{path}: the {key} is {value!r}. Repeat the evaluation."
                raise RunError(message, "metrics-value-wrong", path=path, key=key, found=value)
    provenance, photographs = to_provenance(read_json(folder / "provenance.json")), _photographs(folder)
    if provenance.role == "unknown":
        contents = [row.sha256 for row in photographs]
        known = count_known(contents, of_run) if contents and all(contents) else None
        split = provenance.split if metrics else "predict"
        role = role_of(split, provenance.dataset_fingerprint, digests, len(rows), known)
        provenance = replace(provenance, role=role, known=known)
    excluded = read_table(folder / "excluded.csv", ("path", "reason"))
    return Evaluation(folder, tuple(rows), metrics, provenance, photographs, excluded)


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
    rows = [(row, row.probability >= e.point.threshold) for e in evaluations for row in e.rows]
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
    threshold, bands = evaluation.point.threshold, evaluation.bands
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
        predicted = classes.predicted(row.probability, threshold)
        if row.predicted_class != predicted:
            raise RunError(
                f"{location}: the predicted class is {plain(row.predicted_class)}, but the probability "
                f"{row.probability} and the threshold {threshold} make it {plain(predicted)}. {remedy}",
                "prediction-contradicts-threshold",
                path=location,
                found=row.predicted_class,
                expected=predicted,
            )
        band = bands.band(row.probability) if bands else None
        if row.band and row.band != band:
            message = f"{location}: the band is {plain(row.band)}, but by metrics.json it is {band or 'none'}. {remedy}"
            raise RunError(message, "prediction-contradicts-bands", path=location, found=row.band, expected=band)
    found = evaluate(evaluation.labels(classes), evaluation.probabilities, evaluation.point)
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
            if abs(there) > sys.float_info.max or not math.isclose(here, there, rel_tol=1e-6, abs_tol=1e-6):
                yield within + name, here, there
        elif here != there:
            yield within + name, here, there
