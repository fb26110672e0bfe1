"""The example photographs of a report: their choice, and the files of their pictures.

`evaluations/<name>/explanations/` contains `gallery.csv` and, for each photograph, a small upright picture and the same
picture overlaid with its Grad-CAM heat map. Both are written during the evaluation; this module only reads them.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from bldml.errors import RunError
from bldml.io.text import plain
from bldml.run.predictions import Prediction, read_predictions
from bldml.run.provenance import Role
from bldml.run.reader import Evaluation, RunData

GalleryKind = Literal["error", "uncertain", "correct"]

FOLDER, TABLE = "explanations", "gallery.csv"
MAX_ERRORS, MAX_UNCERTAIN, MAX_CORRECT = 48, 12, 12  # photographs of each kind
_VERBS: dict[Role, str] = {"validation": "validate", "test": "test"}
_COLUMNS = ("kind", "path", "probability", "photograph", "overlay")


@dataclass(frozen=True)
class GalleryPicture:
    """One photograph of the gallery; a photograph may appear under two kinds.

    Attributes:
        kind: An error, one of the least certain predictions, or a correct prediction for comparison.
        prediction: Its row of `predictions.csv`.
        photograph: A small upright picture of it (JPEG, without metadata).
        overlay: The same picture overlaid with the Grad-CAM heat map of the positive class.
    """

    kind: GalleryKind
    prediction: Prediction
    photograph: Path
    overlay: Path


def certainty(probability: float, threshold: float) -> float:
    """Return the distance of a probability from the threshold, as a fraction of the distance to 0 or 1 on its side.

    Args:
        probability: In [0, 1].
        threshold: In [0, 1].

    Returns:
        In [0, 1]: 0 at the threshold, 1 at a probability of 0 or 1.

    >>> certainty(0.2, 0.2), certainty(0.6, 0.2), certainty(0.05, 0.2), certainty(1, 1)
    (0.0, 0.5, 0.75, 0.0)
    """
    greatest = 1 - threshold if probability >= threshold else threshold
    return round(abs(probability - threshold) / greatest, 12) if greatest > 0 else 0.0


def choose_photographs(predictions: Sequence[Prediction], threshold: float) -> list[tuple[GalleryKind, Prediction]]:
    """Choose the most certain errors, the least certain predictions, and correct predictions of every certainty.

    The correct predictions are divided equally between the classes, as far as these have enough, and are evenly spaced
    from the least to the most certain, so that they show neither the best nor the worst only. Ties are ordered by path.

    Args:
        predictions: Predictions with their true classes.
        threshold: The operating threshold, in [0, 1].

    Returns:
        Errors (most certain first), then the least certain predictions (least certain first), then correct predictions
        (most certain first). Nothing if a true class is unknown.
    """
    if not all(row.true_class for row in predictions):
        return []

    def by_certainty(rows: Iterable[Prediction]) -> list[Prediction]:
        return sorted(rows, key=lambda row: (-certainty(row.probability, threshold), row.path))

    ordered = by_certainty(predictions)
    errors = [row for row in ordered if _is_error(row)]
    correct = [row for row in ordered if not _is_error(row)]
    uncertain = sorted(predictions, key=lambda row: (certainty(row.probability, threshold), row.path))
    classes = sorted({row.true_class for row in correct})
    by_class = [[row for row in correct if row.true_class == name] for name in classes]
    shown = by_certainty(
        row
        for rows, count in zip(by_class, _counts_by_class(by_class), strict=True)
        for row in _evenly_spaced(rows, count)
    )
    return [
        *(("error", row) for row in errors[:MAX_ERRORS]),
        *(("uncertain", row) for row in uncertain[:MAX_UNCERTAIN]),
        *(("correct", row) for row in shown),
    ]


def gallery_text(shown: Iterable[tuple[GalleryKind, Prediction, str, str]]) -> str:
    """Return the content of `gallery.csv`.

    Args:
        shown: Kind, prediction, and the file names of photograph and overlay.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    # Paths cannot be formulas (see `dataset.files.escape_path`) and remain identical to those of predictions.csv.
    writer.writerows([kind, row.path, repr(row.probability), *names] for kind, row, *names in shown)
    return text.getvalue()


def read_gallery(folder: Path) -> list[GalleryPicture]:
    """Return the gallery of an evaluation, in display order.

    A picture is skipped if its file is missing, or if it does not match `predictions.csv`: its photograph has no row
    there or another probability, or its kind contradicts the row.

    Args:
        folder: `evaluations/<name>`.

    Returns:
        An empty list if no pictures were stored.

    Raises:
        RunError: `gallery.csv` or `predictions.csv` cannot be read.
    """
    path = folder / FOLDER / TABLE
    if not path.is_file():
        return []
    predictions = {row.path: row for row in read_predictions(folder / "predictions.csv")}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[row[column] for column in _COLUMNS] for row in csv.DictReader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        message = f"{path} cannot be read: {error}. Remove it, or repeat the evaluation."
        raise RunError(message, "gallery-damaged", path=path, reason=str(error)) from error
    shown = []
    for kind, name, probability, *files in rows:
        prediction = predictions.get(name)
        if prediction is None or kind not in get_args(GalleryKind) or repr(prediction.probability) != probability:
            continue
        if kind != "uncertain" and (kind == "error") != _is_error(prediction):
            continue
        # File names only: a table from elsewhere must not lead to files outside this folder.
        photograph, overlay = (path.parent / Path(file or ".").name for file in files)
        if photograph.is_file() and overlay.is_file():
            shown.append(GalleryPicture(kind, prediction, photograph, overlay))  # type: ignore[arg-type]  # checked above
    return shown


def advice(data: RunData) -> str:
    """Return which evaluations have no pictures and how to create them; empty where all have some."""
    without = [one for one in evaluations_with_pictures(data) if not read_gallery(one.folder)]
    if not without:
        return ""
    commands = [
        f"  python -m bldml {_VERBS[one.role]} --ckpt_path {data.run.best_checkpoint}\n"
        for one in without
        if one.role in _VERBS
    ]
    if len(commands) < len(without):
        commands.append("  and `python -m bldml test` on the other photographs, as before\n")
    names = plain(", ".join(one.name for one in without))
    return f"No pictures are stored of the photographs of {names}. To create them:\n{''.join(dict.fromkeys(commands))}"


def evaluations_with_pictures(data: RunData) -> list[Evaluation]:
    """Return the evaluations that should have pictures, by name: all with labels, except the training split."""
    return sorted((one for one in data.evaluations if one.role != "training"), key=lambda one: one.name)


def _is_error(row: Prediction) -> bool:
    return row.predicted_class != row.true_class


def _counts_by_class(by_class: Sequence[Sequence[Prediction]]) -> list[int]:
    """Return how many to take of each class: equal numbers, unless a class has too few."""
    counts = [0] * len(by_class)
    for _ in range(min(MAX_CORRECT, sum(len(rows) for rows in by_class))):
        free = [i for i, rows in enumerate(by_class) if counts[i] < len(rows)]
        counts[min(free, key=lambda i: counts[i])] += 1
    return counts


def _evenly_spaced(rows: Sequence[Prediction], count: int) -> list[Prediction]:
    """Return `count` rows, evenly spaced from the first to the last."""
    if count == 1:
        return [rows[len(rows) // 2]]
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]
