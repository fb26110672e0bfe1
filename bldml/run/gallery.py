"""The example photographs of a report: their choice, and the files of their pictures.

`evaluations/<name>/explanations/` contains `gallery.csv` and, for each photograph, a small upright picture and the same
picture overlaid with its Grad-CAM heat map. Both are written during the evaluation; this module only reads them.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from bldml.errors import RunError
from bldml.io.documents import read_text
from bldml.io.platform import quoted
from bldml.io.text import plain, to_csv
from bldml.run.digests.content import plain_cell
from bldml.run.predictions import Prediction, read_predictions
from bldml.run.provenance import Role
from bldml.run.reader import RunData

GalleryKind = Literal["error", "uncertain", "correct"]

FOLDER, TABLE = "explanations", "gallery.csv"
MAX_ERRORS, MAX_UNCERTAIN, MAX_CORRECT = 48, 12, 12  # photographs of each kind
_VERBS: dict[Role, str] = {"validation": "validate", "test": "test"}
_COLUMNS = ("kind", "path", "probability", "photograph", "overlay")
_DIGEST = "sha256"  # of a row and its two files; tables of older versions have none


@dataclass(frozen=True)
class GalleryPicture:
    """A photograph of the gallery, perhaps under two kinds: its prediction, and the files of its pictures."""

    kind: GalleryKind
    prediction: Prediction
    photograph: Path
    overlay: Path


def certainty(probability: float, threshold: float) -> float:
    """Return the distance of a probability from the threshold, as a fraction of the distance to 0 or 1 on its side.

    All are in [0, 1].

    >>> certainty(0.2, 0.2), certainty(0.6, 0.2), certainty(0.05, 0.2), certainty(1, 1)
    (0.0, 0.5, 0.75, 0.0)
    """
    greatest = 1 - threshold if probability >= threshold else threshold
    return round(abs(probability - threshold) / greatest, 12) if greatest > 0 else 0.0


def choose_photographs(predictions: Sequence[Prediction], threshold: float) -> list[tuple[GalleryKind, Prediction]]:
    """Choose the most certain errors, the least certain predictions, and correct predictions of every certainty.

    The correct predictions are divided equally between the classes, as far as these have enough, and are evenly spaced
    from the least to the most certain, so that they show neither the best nor the worst only.

    Args:
        predictions: Predictions with their true classes.
        threshold: The operating threshold, in [0, 1].

    Returns:
        Errors, the least certain predictions, and correct predictions. The most certain is first, except that the least
        certain predictions begin with the least certain; ties are ordered by path. Nothing if a true class is unknown.
    """
    if not all(row.true_class for row in predictions):
        return []

    def by_certainty(rows: Iterable[Prediction], sign: int = -1) -> list[Prediction]:
        return sorted(rows, key=lambda row: (sign * certainty(row.probability, threshold), row.path))

    correct: dict[str, list[Prediction]] = {}
    for row in by_certainty(predictions):
        if not row.is_error:
            correct.setdefault(row.true_class, []).append(row)
    by_class = [correct[name] for name in sorted(correct)]
    counts = zip(by_class, _counts_by_class(by_class), strict=True)
    shown = by_certainty(row for rows, count in counts for row in _evenly_spaced(rows, count))
    return [
        *(("error", row) for row in by_certainty(row for row in predictions if row.is_error)[:MAX_ERRORS]),
        *(("uncertain", row) for row in by_certainty(predictions, 1)[:MAX_UNCERTAIN]),
        *(("correct", row) for row in shown),
    ]


def gallery_text(shown: Iterable[tuple[GalleryKind, Prediction, str, str]], folder: Path | None = None) -> str:
    """Return the content of `gallery.csv`: kind, prediction, and the file names of photograph and overlay.

    With the folder of these files, also a digest of each row and its files.
    """
    # Paths cannot be formulas (see `dataset.files.escape_path`) and remain identical to those of predictions.csv.
    rows = [(kind, row.path, repr(row.probability), *names) for kind, row, *names in shown]
    if folder is None:
        return to_csv([_COLUMNS, *rows])
    return to_csv([(*_COLUMNS, _DIGEST), *((*row, _digest(row, folder)) for row in rows)])


def _digest(row: Sequence[str], folder: Path) -> str:
    digest = hashlib.sha256(repr([plain_cell(cell) for cell in row]).encode(errors="backslashreplace"))
    for name in row[-2:]:
        with suppress(OSError, ValueError):
            digest.update((folder / Path(name or ".").name).read_bytes())
    return digest.hexdigest()


def has_changed_pictures(folder: Path) -> bool:
    """Return whether a picture of the gallery of an evaluation, or its table, is not as it was written."""
    try:
        return any(is_changed for *_, is_changed in _rows(folder / FOLDER / TABLE))
    except RunError:  # a damaged table, which the report names
        return True


def _rows(path: Path) -> Iterator[tuple[list[str], bool]]:
    """Yield the cells of each row, and whether they or the files are not as they were written."""
    if not path.is_file():
        return
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True, restval="")
        for row in reader:
            cells = [row[column] for column in _COLUMNS]
            yield cells, row.get(_DIGEST) not in (None, _digest(cells, path.parent))
    except (OSError, ValueError, csv.Error, KeyError) as error:
        message = f"{path} cannot be read: {error}. Remove it, or repeat the evaluation."
        raise RunError(message, "gallery-damaged", path=path, reason=str(error)) from error


def read_gallery(folder: Path) -> list[GalleryPicture]:
    """Return the gallery of an evaluation in its folder, in display order; empty if no pictures were stored.

    A picture is skipped if its file is missing or was changed, or if it does not match `predictions.csv`: its
    photograph has no row there or another probability, or its kind contradicts the row.

    Raises:
        RunError: `gallery.csv` or `predictions.csv` cannot be read.
    """
    path = folder / FOLDER / TABLE
    if not path.is_file():
        return []
    predictions = {row.path: row for row in read_predictions(folder / "predictions.csv")}
    shown = []
    for (kind, name, probability, *files), is_changed in _rows(path):
        prediction = predictions.get(name)
        if (
            is_changed
            or prediction is None
            or kind not in get_args(GalleryKind)
            or repr(prediction.probability) != probability
        ):
            continue
        if kind != "uncertain" and (kind == "error") != prediction.is_error:
            continue
        # File names only: a table from elsewhere must not lead to files outside this folder.
        photograph, overlay = (path.parent / Path(file or ".").name for file in files)
        if photograph.is_file() and overlay.is_file():
            shown.append(GalleryPicture(kind, prediction, photograph, overlay))  # type: ignore[arg-type]  # see above
    return shown


def advice(data: RunData) -> str:
    """Return which evaluations have no pictures and how to create them; empty where all have some."""
    evaluations = sorted(
        (one for one in data.evaluations if one.role != "training" and not one.is_out_of_fold), key=lambda one: one.name
    )
    without = [one for one in evaluations if not read_gallery(one.folder)]
    if not without:
        return ""
    # The same command once, also for two evaluations.
    commands = dict.fromkeys(
        f"  python -m bldml {_VERBS[one.role]} --ckpt_path {quoted(str(data.run.best_checkpoint))}\n"
        for one in without
        if one.role in _VERBS
    )
    if any(one.role not in _VERBS for one in without):
        commands["  and `python -m bldml test` on the other photographs, as before\n"] = None
    names = plain(", ".join(one.name for one in without))
    return f"No pictures are stored of the photographs of {names}. To create them:\n{''.join(commands)}"


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
