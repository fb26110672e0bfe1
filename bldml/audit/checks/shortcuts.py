"""Shortcuts: how well the class is predicted from features that should not reveal it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bldml.audit.checks.features import SOURCES, AuditSource
from bldml.audit.examine import Row
from bldml.audit.findings import SEVERITIES, AuditFinding
from bldml.io.text import number, plain
from bldml.metrics.auroc import estimate_auroc
from bldml.metrics.estimates import Estimate, undefined
from bldml.report.tables import Entry, Table, estimate_cells, interval_text, precise_number
from bldml.run.baselines import (
    CONSTANT,
    ERROR_ABOVE,
    EXPECTED,
    MAX_PHOTOGRAPHS,
    MIN_PER_CLASS,
    SEED,
    WARNING_ABOVE,
    Features,
    regression_scores,
    severity_of,
    verdict_of,
)

FOLDS = 5
FAMILIES = ("camera", "size", "encoding", "encoder", "time")  # of metadata

Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """How well one source predicts the label."""

    source: AuditSource
    estimate: Estimate  # cross-validated AUROC

    @property
    def low(self) -> float:
        """Lower limit of the interval; 0 if there is none."""
        return self.estimate.interval.low if self.estimate.interval else 0.0


def find_shortcuts(rows: Sequence[Row], units: Sequence[int], positive_class: str) -> list[Shortcut]:
    """Predict the class of readable photographs, against all others, from each source by logistic regression.

    It is cross-validated: a unit is never in both training and test part of a fold.
    """
    unit = np.asarray(units, dtype=np.int64)
    selected = _select(unit)
    rows, unit = [rows[index] for index in selected], unit[selected]
    label = np.array([row.sample.class_name == positive_class for row in rows], dtype=np.int64)
    counts = [np.unique(unit[label == value]).size for value in (0, 1)]
    if min(counts) < MIN_PER_CLASS:
        note = f"fewer than {MIN_PER_CLASS} independent photographs of a class"
        return [Shortcut(source, undefined(note)) for source in SOURCES]
    folds = _folds(label, unit, min(FOLDS, *counts))
    shortcuts = []
    for source in SOURCES:
        features = source.features(rows)
        features = features[:, np.ptp(features, axis=0) > 0]
        if not features.shape[1]:
            shortcuts.append(Shortcut(source, undefined(CONSTANT)))
            continue
        score = _predict(features, label, folds, source.strength)
        shortcuts.append(Shortcut(source, estimate_auroc(label, score, unit)))
    return shortcuts


def _select(unit: Indices) -> Indices:
    """Return indices of at most `MAX_PHOTOGRAPHS` photographs, of as many units as possible."""
    if unit.size <= MAX_PHOTOGRAPHS:
        return np.arange(unit.size)
    by_unit = np.argsort(unit, kind="stable")
    number_in_unit = np.arange(unit.size) - np.searchsorted(unit[by_unit], unit[by_unit])
    order = np.lexsort((np.random.default_rng(SEED).permutation(unit.size), number_in_unit))
    return np.sort(by_unit[order[:MAX_PHOTOGRAPHS]])


def _folds(label: Labels, unit: Indices, count: int) -> list[tuple[Indices, Indices]]:
    """Return training and test photographs of each fold: no unit in both, classes in about the same proportions."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=SEED)
    return list(splitter.split(np.zeros((label.size, 1)), label, unit))


def _predict(features: Features, label: Labels, folds: Sequence[tuple[Indices, Indices]], strength: float) -> Features:
    """Return the logit of each photograph from a regression fitted on the other folds.

    Both classes have the same weight in each regression, so that logits of different folds can be compared.
    """
    score = np.zeros(label.size)
    for inside, outside in folds:
        if np.unique(label[inside]).size == 2:
            score[outside] = regression_scores(features[inside], label[inside], features[outside], strength)
    return score


def report_shortcuts(shortcuts: Sequence[Shortcut], positive_class: str) -> list[AuditFinding]:
    """Return findings by the rule on the lower limits."""
    by_name = {shortcut.source.name: shortcut for shortcut in shortcuts}
    if not by_name:
        return []
    metadata = by_name["metadata"]
    # With all metadata together, uninformative columns can hide one informative family.
    hidden = [
        family
        for family in (by_name[name] for name in FAMILIES)
        if metadata.low <= WARNING_ABOVE or _rank(family) < _rank(metadata)
    ]
    reported = [metadata, *hidden, *(by_name[name] for name in ("name", "border", "texture", *EXPECTED))]
    return [found for shortcut in reported for found in _findings(shortcut, by_name, positive_class)]


def _rank(shortcut: Shortcut) -> int:
    severity = severity_of(shortcut.source.name, shortcut.estimate)
    return SEVERITIES.index(severity) if severity else len(SEVERITIES)


def _findings(shortcut: Shortcut, by_name: dict[str, Shortcut], positive_class: str) -> Iterator[AuditFinding]:
    name = shortcut.source.name
    severity = severity_of(name, shortcut.estimate)
    if severity is None:
        return
    text, advice = _TEXTS.get(name, _TEXTS["metadata"])
    if name == "metadata":
        families = [by_name[family].source.phrase for family in FAMILIES if by_name[family].low > WARNING_ABOVE]
        text += f" Most predictive: {', '.join(families)}." if families else ""
    auroc = f"AUROC {number(shortcut.estimate.value, 2)} {interval_text(shortcut.estimate)}, chance 0.5"
    title = f"{plain(positive_class)} can be predicted from {shortcut.source.phrase} alone ({auroc})"
    yield AuditFinding(severity, f"shortcut_{name}", title, text, advice)


_TEXTS = {
    "metadata": (
        "The file metadata alone, without any pixel, predict the class: the classes were photographed with different "
        "cameras, at different times, or were processed differently. A classifier can see the traces of this (noise, "
        "colours, compression, light), and a test on photographs of the same origin does not reveal it.",
        "Take photographs of both classes with the same camera, in the same way, on the same days; test on "
        "photographs from elsewhere; report this limitation in the paper.",
    ),
    "encoder": (
        "Files of the two classes were written differently: chroma subsampling, progressive or baseline, the order of "
        "the segments, the quantisation tables, or the program that wrote them. The table “By encoder” shows it. A "
        "classifier can see traces of some of these in the pixels.",
        "Use the files as the camera wrote them, or export all photographs with the same program and settings.",
    ),
    "name": (
        "Cameras and people name files in different ways, so the classes may come from different cameras or people. "
        "If files were renamed by hand after labelling, this means nothing.",
        "Check which file name prefixes belong to which class, and why.",
    ),
    "border": (
        "The outer 6 % of the image, which is mostly background, predicts the class: the classes were photographed in "
        "front of different backgrounds or in different light, or the leaf fills the image in one of them only.",
        "Check the contact sheets below. Photograph both classes in front of the same background, or compare Grad-CAM "
        "maps with masks (`python -m bldml explain --masks`).",
    ),
    "texture": (
        "The texture of the outer 6 % of the image (noise, sharpening, compression), which is mostly background, "
        "predicts the class: the classes were photographed or processed in different ways.",
        "Photograph both classes with the same camera and settings; do not resize or edit one of them.",
    ),
    "thumbnail": (
        "At 16 × 16 pixels lesions are hardly visible, but colours are: those of background and light, and those of "
        "leaves that the disease has discoloured. Some signal is expected.",
        "Report it as the baseline that a classifier must exceed.",
    ),
    "bytes": (
        "Sharper and more detailed images need more bytes. Lesions add detail, but camera and compression also matter.",
        "Report it as the baseline that a classifier must exceed.",
    ),
}


def shortcuts_table(shortcuts: Sequence[Shortcut]) -> Table:
    """Return a table of all sources with intervals and verdicts."""
    caption = (
        "How well the class is predicted without looking at the leaf: logistic regression, grouped cross-validation "
        "(bursts, duplicates and groups never straddle folds), 95 % intervals. Rule: lower limit above "
        f"{WARNING_ABOVE}: warning; above {ERROR_ABOVE}: error. Other models may find more."
    )
    rows, raw = [], []
    for shortcut in shortcuts:
        source, estimate = shortcut.source, shortcut.estimate
        verdict = verdict_of(source.name, estimate)
        auroc = "–" if estimate.value is None else precise_number(estimate.value)
        rows.append((Entry(source.title), Entry(auroc, interval_text(estimate)), Entry(verdict)))
        raw.append([source.name, *estimate_cells(estimate)[:3], verdict])
    columns = ("source", "auroc", "low", "high", "verdict")
    return Table("shortcuts", caption, ("Source", "AUROC", "Verdict"), tuple(rows), (columns, raw))
