"""Read and write the tables of an evaluation: `predictions.csv`, and `metrics.json` with its CSV."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.errors import RunError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import LARGEST_DOCUMENT, load_json, read_text
from bldml.io.text import to_csv, with_apostrophe, without_apostrophe
from bldml.metrics.assessment import EvaluationMetrics
from bldml.metrics.checked import SamplingUnit, sampling_unit
from bldml.run.digests.content import digest_of


@dataclass(frozen=True)
class Prediction:
    """One row of `predictions.csv`.

    Args:
        path: Path of the photograph, as text that is safe in a CSV cell.
        group: Group (tree, site, burst); empty if unknown.
        true_class: True class; empty if unknown.
        predicted_class: Predicted class: the positive one if the probability is at least the operating threshold.
        probability: Calibrated probability of the positive class, in [0, 1].
        burst: Name of the first photograph of its burst; empty outside a burst, None if not recorded, as before 0.2.
        distance: From the training photographs, in multiples of the limit, at least 0; None if not recorded.
        band: Positive, uncertain or negative; empty if not recorded or not available.
    """

    path: str
    group: str
    true_class: str
    predicted_class: str
    probability: float
    burst: str | None = None
    distance: float | None = None
    band: str = ""

    @property
    def is_familiar(self) -> bool | None:
        """Whether it is like the training photographs; None if not recorded."""
        return None if self.distance is None else self.distance <= 1

    @property
    def unit(self) -> SamplingUnit | None:
        """Its sampling unit, which every statistic asks: the group, else the burst, else (None) the photograph."""
        return sampling_unit(self.group, self.burst)

    @property
    def is_error(self) -> bool:
        """Whether the predicted class is not the true one."""
        return self.predicted_class != self.true_class


_REQUIRED = ("path", "group", "true_class", "predicted_class", "probability")  # 0.1 wrote no others


def write_predictions(path: Path, predictions: Iterable[Prediction], same: Mapping[str, str] | None = None) -> None:
    """Write `predictions.csv`, and create its folder if it is missing. `same` are more columns, equal in all rows.

    Probabilities are read back as the same float64. Groups and class names that a spreadsheet would run as a formula
    get an apostrophe in front (OWASP, "CSV injection"), which `read_predictions` removes. Lone surrogates, which are
    not text, become a backslash and their number.

    Raises:
        ValueError: A probability is nan or outside [0, 1]; the message names the photograph.
        RunError: The file cannot be written.
    """
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # Before Python 3.13 the writer leaves a carriage return unquoted, and the reader then refuses the file.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    rows = list(predictions)
    same, optional = same or {}, _optional(rows)
    plain.writerow([*_REQUIRED, *optional, *same])
    for row in rows:
        if not 0 <= row.probability <= 1:
            raise ValueError(f"The probability of {row.path} must lie in [0, 1], found {row.probability}.")
        names = [with_apostrophe(name) for name in (row.group, row.true_class, row.predicted_class)]
        # float: numpy's repr is not a number. A path is no formula, see `dataset.files.escape_path`.
        cells = [row.path, *names, repr(float(row.probability)), *(cell(row) for cell in optional.values())]
        cells += map(with_apostrophe, same.values())
        writer = quoted if any("\r" in cell for cell in cells) else plain
        writer.writerow(cells)
    make_folder(path.parent)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def _optional(rows: Sequence[Prediction]) -> dict[str, Callable[[Prediction], str]]:
    """Return the columns that are recorded, each with what writes its cells."""
    found: dict[str, Callable[[Prediction], str]] = {}
    if all(row.burst is not None for row in rows):
        found["burst"] = lambda row: row.burst or ""
    if rows and all(row.distance is not None for row in rows):
        found["distance"] = lambda row: repr(row.distance)
        found["familiar"] = lambda row: "yes" if row.is_familiar else "no"
    if any(row.band for row in rows):
        found["band"] = lambda row: row.band
    return found


def digest_of_predictions(rows: Iterable[Prediction]) -> str:
    """Return the SHA-256 of the rows, as `read_predictions` returns them, in any order."""
    return digest_of(
        sorted((r.path, r.group, r.true_class, r.predicted_class, r.probability, r.burst or "") for r in rows)
    )


def digest_of_distances(rows: Iterable[Prediction]) -> str:
    """Return the SHA-256 of what `digest_of_predictions` leaves out, as it did before these were recorded."""
    return digest_of(sorted((row.path, "" if row.distance is None else row.distance, row.band) for row in rows))


def read_predictions(path: Path) -> list[Prediction]:
    """Read a table that `write_predictions` wrote, also after a spreadsheet has added or reordered columns.

    Raises:
        RunError: The file is missing or not such a table, or a row cannot be read (the header is row 1).
    """
    try:
        header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True)) or [[]]
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror}. Run the evaluation that writes it."
        raise RunError(message, "predictions-unreadable", path=path, reason=error.strerror) from error
    except (ValueError, csv.Error) as error:
        message = f"{path} is not CSV in UTF-8: {error}. Repeat the evaluation."
        raise RunError(message, "predictions-damaged", path=path, reason=str(error)) from error
    missing = [column for column in _REQUIRED if column not in header]
    if missing:
        raise RunError(
            f"{path} is not a table of predictions: column {', '.join(missing)} missing in row 1, "
            f"found {', '.join(header) or 'nothing'}. Give a predictions.csv, separated by commas.",
            "predictions-foreign",
            path=path,
            found=header,
            expected=missing,
        )
    # An empty line is not a row.
    return [_to_prediction(path, number, header, cells) for number, cells in enumerate(rows, 2) if cells]


def write_metrics(folder: Path, metrics: EvaluationMetrics) -> None:
    """Write the metrics of an evaluation as `metrics.json` and `metrics.csv`.

    The folder is created if it is missing. The CSV has one row for the chosen operating point and one for 0.5; an
    undefined metric is an empty cell. Columns such as auroc_low hold the intervals.

    Raises:
        ValueError: A number is nan or infinite; nothing is written.
        RunError: The files cannot be written.
    """
    document = json.dumps(metrics.to_plain(), indent=2, allow_nan=False) + "\n"
    shared = {"n": metrics.n, "n_positive": metrics.n_positive, **metrics.overall, "temperature": metrics.temperature}
    overall = {name: limits for name, limits in metrics.intervals.items() if "low" in limits}
    rows: list[list[object]] = []
    for point, threshold, values, key in (
        ("chosen", metrics.threshold, metrics.at_threshold, "at_threshold"),
        ("0.5", 0.5, metrics.at_half, "at_0.5"),
    ):
        limits = metrics.intervals.get(key, {}) | overall
        flat = {f"{name}_{part}": cell for name, parts in limits.items() for part, cell in parts.items()}
        row = {"operating_point": point, "threshold": threshold, **values, **shared, **flat}
        rows += [[*row.values()]] if rows else [[*row], [*row.values()]]
    make_folder(folder)
    write_atomically(folder / "metrics.csv", to_csv(rows))
    write_atomically(folder / "metrics.json", document)


def read_metrics(folder: Path) -> EvaluationMetrics:
    """Read `metrics.json` of an evaluation folder, also one that version 0.1 wrote.

    Raises:
        RunError: The file is missing, or does not contain the metrics of an evaluation.
    """
    path = folder / "metrics.json"
    try:
        metrics = load_json(read_text(path, LARGEST_DOCUMENT))
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror}. Run the evaluation that writes it."
        raise RunError(message, "metrics-unreadable", path=path, reason=error.strerror) from error
    except ValueError as error:
        raise RunError(
            f"{path} is not JSON: {error}. Repeat the evaluation.", "metrics-damaged", path=path, reason=str(error)
        ) from error
    try:
        return EvaluationMetrics.from_plain(metrics)
    except ValueError as error:
        message = f"{path} does not contain the metrics of an evaluation: {error}. Repeat the evaluation."
        raise RunError(message, "metrics-foreign", path=path, reason=str(error)) from error


def _to_prediction(path: Path, number: int, header: list[str], cells: list[str]) -> Prediction:
    if len(cells) != len(header):
        message = f"{path}, row {number}: {len(cells)} cells, the header has {len(header)}. Correct the row."
        raise RunError(message, "prediction-cells-wrong", path=path, row=number, found=len(cells), expected=len(header))
    row = dict(zip(header, cells, strict=True))
    try:
        probability = float(row["probability"])
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        found = repr(row["probability"])
        message = f"{path}, row {number}: the probability is {found}, but must be a number in [0, 1]."
        raise RunError(message, "probability-wrong", path=path, row=number, found=found)
    group, true, predicted = (without_apostrophe(row[key]) for key in ("group", "true_class", "predicted_class"))
    distance = None
    if row.get("distance"):
        try:
            distance = float(row["distance"])
        except ValueError:
            distance = math.nan
        if not distance >= 0:
            message = f"{path}, row {number}: the distance is {row['distance']!r}, but must be a number of at least 0."
            raise RunError(message, "distance-wrong", path=path, row=number, found=row["distance"])
    band = row.get("band", "")
    return Prediction(row["path"], group, true, predicted, probability, row.get("burst"), distance, band)
