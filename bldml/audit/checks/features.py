"""Features that reveal the class without looking at the leaf, for the shortcut checks."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from bldml.audit.checks.outside import background, marks, processing
from bldml.audit.examine import Row
from bldml.run.baselines import SOURCES as BASELINES
from bldml.run.baselines import Features, Source, binned, metadata, one_hot

_NO_LETTERS = re.compile(r"[\W_]+")


class AuditSource(NamedTuple):
    """One source of features from which a class may be predicted; see `run.baselines.Source`."""

    name: str
    title: str
    phrase: str
    features: Callable[[Sequence[Row]], Features]
    strength: float = 1.0  # C of the logistic regression; a smaller value regularises more
    is_outside: bool = False  # measured outside the leaf, where one was found


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


def encoders(rows: Sequence[Row]) -> Features:
    """Return how the files were written; a run does not record it, so its own baselines do without."""
    return np.hstack([one_hot(values) for values in zip(*(row.file.encoder for row in rows), strict=True)])


def all_metadata(rows: Sequence[Row]) -> Features:
    """Return all metadata features of a run, and how the files were written."""
    return np.hstack([metadata([row.photograph for row in rows]), encoders(rows)])


def compression(rows: Sequence[Row]) -> Features:
    """Return bytes per pixel, which depends on detail in the image and on compression."""
    return binned(np.array([row.file.size / max(1, row.metadata.width * row.metadata.height) for row in rows]))


def thumbnail_pixels(rows: Sequence[Row]) -> Features:
    """Return the photographs resized to 16 × 16 pixels, (n, 768)."""
    return np.stack([row.file.thumbnail.ravel() for row in rows if row.file.thumbnail is not None])


def _of_photographs(source: Source) -> AuditSource:
    name, title, phrase, features = source
    return AuditSource(name, title, phrase, lambda rows: features([row.photograph for row in rows]))


SOURCES = (
    AuditSource("metadata", "All metadata", "metadata", all_metadata),
    *(_of_photographs(source) for source in BASELINES if source.name != "metadata"),
    AuditSource("encoder", "Metadata: encoder", "the way the file was written", encoders),
    AuditSource("name", "File name prefix", "the file name prefix", names),
    AuditSource("processing", "Outside the leaf: noise, sharpness", "noise and sharpness", processing, 1.0, True),
    AuditSource("background", "Outside the leaf: cells", "the background", background, 0.001, True),
    AuditSource(
        "marks", "Outside the leaf: marks", "edges and colours in the outermost parts of the image", marks, 0.01, True
    ),
    AuditSource("thumbnail", "16 × 16 thumbnail", "a 16 × 16 thumbnail", thumbnail_pixels, strength=0.001),
    AuditSource("bytes", "Bytes per pixel", "bytes per pixel", compression),
)
