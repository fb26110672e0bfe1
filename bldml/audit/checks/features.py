"""What a classifier that never looks at the leaf could go by, as numbers."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bldml.audit.checks.condition import is_from_messenger
from bldml.audit.reading import Row

Features = npt.NDArray[np.floating]  # (n, columns)
MOST_VALUES = 20  # of a property, each with a column; rarer ones share one
BINS = 8  # of a number: its classes need not lie in order

_NO_LETTERS = re.compile(r"[\W_]+")


class Source(NamedTuple):
    """One thing that a label may be predicted from.

    Attributes:
        name: For machines.
        title: For the page.
        phrase: What the class can be told by.
        features: Its numbers.
        strength: C of the logistic regression: the smaller, the more cautious.
    """

    name: str
    title: str
    phrase: str
    features: Callable[[Sequence[Row]], Features]
    strength: float = 1.0


def camera(rows: Sequence[Row]) -> Features:
    """Maker and model, and whether the file tells where it was taken."""
    return np.hstack([one_hot([row.metadata.camera for row in rows]), one_hot([row.metadata.has_gps for row in rows])])


def size(rows: Sequence[Row]) -> Features:
    """Width, height, and their ratio."""
    widths = np.array([row.metadata.width for row in rows], dtype=float)
    heights = np.array([row.metadata.height for row in rows], dtype=float)
    ratio = np.round(widths / np.maximum(heights, 1), 3)
    return np.hstack([binned(widths * heights), binned(ratio)])


def encoding(rows: Sequence[Row]) -> Features:
    """Format, kind of pixels, orientation tag, colour profile, compression, messenger."""
    found = [row.metadata for row in rows]
    texts: list[Sequence[object]] = [
        [f"{one.format} {one.mode} {one.frames}" for one in found],
        [one.orientation for one in found],
        [one.icc for one in found],
        [is_from_messenger(row) for row in rows],
    ]
    return np.hstack([*map(one_hot, texts), binned(np.array([one.quantization for one in found]))])


def time(rows: Sequence[Row]) -> Features:
    """Day and hour; whether they are known."""
    days, hours = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        if row.metadata.taken:
            moment = datetime.fromisoformat(row.metadata.taken)
            days[index], hours[index] = moment.toordinal(), moment.hour + moment.minute / 60
    return np.hstack([binned(days), binned(hours)])


def metadata(rows: Sequence[Row]) -> Features:
    """All that the file says of itself, its name apart."""
    return np.hstack([camera(rows), size(rows), encoding(rows), time(rows)])


def names(rows: Sequence[Row]) -> Features:
    """Beginning of the file's name, as a camera gives it; a class's own name in it does not count."""
    labels = {_NO_LETTERS.sub("", row.sample.class_name).casefold() for row in rows}
    return one_hot([prefix(row.name, labels) for row in rows])


def prefix(name: str, labels: set[str]) -> str:
    """The letters that a file's name begins with.

    Args:
        name: Path of the photograph.
        labels: Names of classes, letters and digits in lower case, that do not count.

    >>> prefix("a/IMG_0012.JPG", set()), prefix("a/leaf 7.jpg", set()), prefix("a/BLD (3).jpg", {"bld"})
    ('img', 'leaf', '')
    """
    stem = _NO_LETTERS.sub("", re.split(r"\d", PurePath(name).stem, maxsplit=1)[0]).casefold()
    for label in sorted(labels, key=len, reverse=True):
        if label:
            stem = stem.replace(label, "")
    return stem


def compression(rows: Sequence[Row]) -> Features:
    """Bytes for each pixel: how much there is to see, and how coarsely it was compressed."""
    return binned(np.array([row.found.size / max(1, row.metadata.width * row.metadata.height) for row in rows]))


def border(rows: Sequence[Row]) -> Features:
    """Colours of the frame's edge."""
    return np.array([row.found.border for row in rows], dtype=float)


def thumbnail_pixels(rows: Sequence[Row]) -> Features:
    """The photograph at 16 × 16 pixels."""
    return np.stack([row.found.thumbnail.ravel() for row in rows if row.found.thumbnail is not None]).astype(np.float32)


def one_hot(values: Sequence[object]) -> Features:
    """A column of 0 and 1 for each frequent value, and one for the rare ones.

    >>> one_hot(["b", "a", "b"]).tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    texts = [str(value) for value in values]
    ranked = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    columns = {text: index for index, (text, _) in enumerate(ranked[:MOST_VALUES])}
    places = [columns.get(text, len(columns)) for text in texts]
    return np.eye(max([*places, 0]) + 1)[places]


def binned(values: npt.NDArray[np.float64]) -> Features:
    """A column for each bin of about equally many values, and one for what is not known (not a number).

    >>> binned(np.array([1.0, 1.0, 5.0, np.nan])).tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    known = values[~np.isnan(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if known.size else np.zeros(0)
    places = np.searchsorted(edges, values, side="left")
    places[np.isnan(values)] = BINS + 1
    _, columns = np.unique(places, return_inverse=True)
    return np.eye(int(columns.max(initial=0)) + 1)[columns]


SOURCES = (
    Source("metadata", "All metadata", "what the file says of itself", metadata),
    Source("camera", "… camera", "the camera", camera),
    Source("size", "… size in pixels", "the size in pixels", size),
    Source("encoding", "… format and compression", "format and compression", encoding),
    Source("time", "… day and hour", "day and hour", time),
    Source("name", "Beginning of the file’s name", "the beginning of the file’s name", names),
    Source("border", "Colours of the frame’s edge", "the colours of the frame’s edge", border),
    Source(
        "thumbnail", "Thumbnail of 16 × 16 pixels", "a thumbnail of 16 × 16 pixels", thumbnail_pixels, strength=0.001
    ),
    Source("bytes", "Bytes for each pixel", "the bytes for each pixel", compression),
)
