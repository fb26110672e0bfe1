"""Features that reveal the class without looking at the leaf, for the shortcut checks."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bldml.audit.checks.condition import is_from_messenger
from bldml.audit.examine import Row

Features = npt.NDArray[np.floating]  # (n, columns)
MAX_VALUES = 20  # of a property with a column of their own; rarer values share one column
BINS = 8  # of a numeric feature, because classes need not be ordered along it

_NO_LETTERS = re.compile(r"[\W_]+")


class Source(NamedTuple):
    """One source of features from which a class may be predicted."""

    name: str  # for programs
    title: str  # on the page
    phrase: str  # within a sentence
    features: Callable[[Sequence[Row]], Features]
    strength: float = 1.0  # C of the logistic regression; a smaller value regularises more


def camera(rows: Sequence[Row]) -> Features:
    """Return maker and model of the camera, and whether the file contains a GPS position."""
    return np.hstack([one_hot([row.metadata.camera for row in rows]), one_hot([row.metadata.has_gps for row in rows])])


def size(rows: Sequence[Row]) -> Features:
    """Return width × height and aspect ratio, in bins."""
    widths = np.array([row.metadata.width for row in rows], dtype=float)
    heights = np.array([row.metadata.height for row in rows], dtype=float)
    ratio = np.round(widths / np.maximum(heights, 1), 3)
    return np.hstack([binned(widths * heights), binned(ratio)])


def encoding(rows: Sequence[Row]) -> Features:
    """Return format, pixel mode, orientation tag, colour profile, compression, messenger."""
    files = [row.metadata for row in rows]
    return np.hstack(
        [
            one_hot([f"{file.format} {file.mode} {file.frames}" for file in files]),
            one_hot([file.orientation for file in files]),
            one_hot([file.icc for file in files]),
            one_hot([is_from_messenger(row) for row in rows]),
            binned(np.array([file.quantization for file in files])),
        ]
    )


def time(rows: Sequence[Row]) -> Features:
    """Return day and hour, in bins; unknown is a bin of its own."""
    days, hours = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        if row.metadata.taken:
            moment = datetime.fromisoformat(row.metadata.taken)
            days[index], hours[index] = moment.toordinal(), moment.hour + moment.minute / 60
    return np.hstack([binned(days), binned(hours)])


def metadata(rows: Sequence[Row]) -> Features:
    """Return all metadata features; the file name is not among them."""
    return np.hstack([camera(rows), size(rows), encoding(rows), time(rows)])


def names(rows: Sequence[Row]) -> Features:
    """Return the file name's prefix, as cameras assign it; class names in it are removed."""
    class_names = {_NO_LETTERS.sub("", row.sample.class_name).casefold() for row in rows}
    return one_hot([prefix(row.name, class_names) for row in rows])


def prefix(name: str, class_names: set[str]) -> str:
    """Return the letters with which a file name begins, without the class names (letters and digits, lower case).

    >>> prefix("a/IMG_0012.JPG", set()), prefix("a/leaf 7.jpg", set()), prefix("a/BLD (3).jpg", {"bld"})
    ('img', 'leaf', '')
    """
    stem = _NO_LETTERS.sub("", re.split(r"\d", PurePath(name).stem, maxsplit=1)[0]).casefold()
    for class_name in sorted(class_names, key=len, reverse=True):
        if class_name:
            stem = stem.replace(class_name, "")
    return stem


def compression(rows: Sequence[Row]) -> Features:
    """Return bytes per pixel, which depends on detail in the image and on compression."""
    return binned(np.array([row.file.size / max(1, row.metadata.width * row.metadata.height) for row in rows]))


def border(rows: Sequence[Row]) -> Features:
    """Return mean and standard deviation of the border's colours, (n, 6)."""
    return np.array([row.metadata.border[:6] for row in rows], dtype=float)


def thumbnail_pixels(rows: Sequence[Row]) -> Features:
    """Return the photographs resized to 16 × 16 pixels, (n, 768)."""
    return np.stack([row.file.thumbnail.ravel() for row in rows if row.file.thumbnail is not None]).astype(np.float32)


def one_hot(values: Sequence[object]) -> Features:
    """Return a column of 0 and 1 for each frequent value, and one for all rare values.

    >>> one_hot(["b", "a", "b"]).tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    texts = [str(value) for value in values]
    ranked = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    columns = {text: index for index, (text, _) in enumerate(ranked[:MAX_VALUES])}
    column = [columns.get(text, len(columns)) for text in texts]
    return np.eye(max([*column, 0]) + 1)[column]


def binned(values: npt.NDArray[np.float64]) -> Features:
    """Return a column for each bin of about equally many values, and one for unknown values (NaN).

    >>> binned(np.array([1.0, 1.0, 5.0, np.nan])).tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    known = values[~np.isnan(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if known.size else np.zeros(0)
    bins = np.searchsorted(edges, values, side="left")
    bins[np.isnan(values)] = BINS + 1
    _, columns = np.unique(bins, return_inverse=True)
    return np.eye(int(columns.max(initial=0)) + 1)[columns]


SOURCES = (
    Source("metadata", "All metadata", "metadata", metadata),
    Source("camera", "Metadata: camera", "the camera", camera),
    Source("size", "Metadata: size in pixels", "the size in pixels", size),
    Source("encoding", "Metadata: format and compression", "format and compression", encoding),
    Source("time", "Metadata: day and hour", "day and hour", time),
    Source("name", "File name prefix", "the file name prefix", names),
    Source("border", "Border colours", "the colours of the image border", border),
    Source("thumbnail", "16 × 16 thumbnail", "a 16 × 16 thumbnail", thumbnail_pixels, strength=0.001),
    Source("bytes", "Bytes per pixel", "bytes per pixel", compression),
)
