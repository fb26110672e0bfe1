"""The photographs that a report shows: which ones, and where their pictures lie.

`evaluations/<name>/explanations/` holds `gallery.csv` and, for each photograph, a small upright picture of it and one
with its Grad-CAM laid over. Both are made where a model is at hand; here they are only found.
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

Kind = Literal["error", "uncertain", "correct"]

FOLDER, TABLE = "explanations", "gallery.csv"
ERRORS, UNCERTAIN, CORRECT = 48, 12, 12
"""How many photographs of each kind are shown at most."""
_VERBS: dict[Role, str] = {"validation": "validate", "test": "test"}
_COLUMNS = ("kind", "path", "probability", "photograph", "overlay")


@dataclass(frozen=True)
class GalleryPicture:
    """One photograph of the gallery; the same one may be of two kinds.

    Attributes:
        kind: An error, one of the least certain, or one that was right, for comparison.
        prediction: Its row of `predictions.csv`.
        photograph: A small upright picture of it (JPEG, without metadata).
        overlay: The same picture with Grad-CAM of the positive class laid over it.
    """

    kind: Kind
    prediction: Prediction
    photograph: Path
    overlay: Path


def certainty(probability: float, threshold: float) -> float:
    """How far a probability lies from the threshold, as a share of the way to 0 or 1 on its own side.

    Args:
        probability: In [0, 1].
        threshold: In [0, 1].

    Returns:
        In [0, 1]: 0 at the threshold, 1 where the classifier could not be more certain.

    >>> certainty(0.2, 0.2), certainty(0.6, 0.2), certainty(0.05, 0.2), certainty(1, 1)
    (0.0, 0.5, 0.75, 0.0)
    """
    way = 1 - threshold if probability >= threshold else threshold
    return round(abs(probability - threshold) / way, 12) if way > 0 else 0.0


def choose(predictions: Sequence[Prediction], threshold: float) -> list[tuple[Kind, Prediction]]:
    """Choose what is shown: the most certain errors, the least certain of all, and correct ones of every certainty.

    The correct ones are as many of each class as there are, and evenly spread from the least to the most certain, so
    that they are neither the best nor the worst. Equal ones are taken in the order of their paths.

    Args:
        predictions: With their true classes.
        threshold: The operating threshold, in [0, 1].

    Returns:
        Errors first, then the least certain, then correct ones, each kind with the most certain first, but the least
        certain with the least certain first. Nothing where a true class is unknown.
    """
    if not all(row.true_class for row in predictions):
        return []

    def falling(rows: Iterable[Prediction]) -> list[Prediction]:
        return sorted(rows, key=lambda row: (-certainty(row.probability, threshold), row.path))

    everything = falling(predictions)
    wrong = [row for row in everything if _is_error(row)]
    right = [row for row in everything if not _is_error(row)]
    uncertain = sorted(predictions, key=lambda row: (certainty(row.probability, threshold), row.path))
    classes = sorted({row.true_class for row in right})
    by_class = [[row for row in right if row.true_class == name] for name in classes]
    shown = falling(
        row for rows, count in zip(by_class, _shares(by_class), strict=True) for row in _spread(rows, count)
    )
    return [
        *(("error", row) for row in wrong[:ERRORS]),
        *(("uncertain", row) for row in uncertain[:UNCERTAIN]),
        *(("correct", row) for row in shown),
    ]


def gallery_text(shown: Iterable[tuple[Kind, Prediction, str, str]]) -> str:
    """The content of `gallery.csv`.

    Args:
        shown: Kind, prediction, and the names of the files of photograph and overlay.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    # Paths are no formula (see `dataset.files.escape_path`) and stay, letter for letter, those of predictions.csv.
    writer.writerows([kind, row.path, repr(row.probability), *names] for kind, row, *names in shown)
    return text.getvalue()


def read_gallery(folder: Path) -> list[GalleryPicture]:
    """The gallery of an evaluation, in the order in which it is to be shown.

    A picture is left out where it does not belong to `predictions.csv` (any more): its photograph has no row there or
    another probability, or its kind is not that of the row; and where its file is missing.

    Args:
        folder: `evaluations/<name>`.

    Returns:
        Nothing where no pictures were made.

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
        message = f"{path} cannot be read: {error}. Remove it, or run the evaluation again."
        raise RunError(message, "gallery-damaged", path=path, reason=str(error)) from error
    shown = []
    for kind, name, probability, *files in rows:
        prediction = predictions.get(name)
        if prediction is None or kind not in get_args(Kind) or repr(prediction.probability) != probability:
            continue
        if kind != "uncertain" and (kind == "error") != _is_error(prediction):
            continue
        # Names alone: a table from elsewhere must not lead to other files.
        photograph, overlay = (path.parent / Path(file or ".").name for file in files)
        if photograph.is_file() and overlay.is_file():
            shown.append(GalleryPicture(kind, prediction, photograph, overlay))  # type: ignore[arg-type]  # checked above
    return shown


def advice(data: RunData) -> str:
    """Return which evaluations have no pictures and how to create them; empty where all have some."""
    without = [one for one in with_pictures(data) if not read_gallery(one.folder)]
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


def with_pictures(data: RunData) -> list[Evaluation]:
    """The evaluations that are to have pictures, by name: all that have labels, but not the training split."""
    return sorted((one for one in data.evaluations if one.role != "training"), key=lambda one: one.name)


def _is_error(row: Prediction) -> bool:
    return row.predicted_class != row.true_class


def _shares(by_class: Sequence[Sequence[Prediction]]) -> list[int]:
    """How many of each class: equal shares, and what one class lacks goes to the others."""
    counts = [0] * len(by_class)
    for _ in range(min(CORRECT, sum(len(rows) for rows in by_class))):
        free = [i for i, rows in enumerate(by_class) if counts[i] < len(rows)]
        counts[min(free, key=lambda i: counts[i])] += 1
    return counts


def _spread(rows: Sequence[Prediction], count: int) -> list[Prediction]:
    """So many of them, evenly spread from the first to the last."""
    if count == 1:
        return [rows[len(rows) // 2]]
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]
