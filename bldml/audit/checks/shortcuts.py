"""Shortcuts: how well the class is predicted from features that should not reveal it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bldml.audit.checks.features import SOURCES, AuditSource
from bldml.audit.checks.outside import strongest_place
from bldml.audit.examine import Row
from bldml.audit.findings import SEVERITIES, SHOWN, AuditFinding
from bldml.io.text import counted, number, plain
from bldml.metrics.auroc import estimate_auroc
from bldml.metrics.estimates import Estimate, undefined
from bldml.report.tables import Entry, Table, estimate_cells, interval_text, precise_number
from bldml.run.baselines import (
    CONSTANT,
    ERROR_ABOVE,
    EXPECTED,
    FAMILY_LEVEL,
    MAX_PHOTOGRAPHS,
    MIN_PER_CLASS,
    OUTSIDE,
    OUTSIDE_ABOVE,
    SEED,
    WARNING_ABOVE,
    WHOLE,
    Features,
    regression_scores,
    severity_of,
    verdict_of,
)

FOLDS = 5
MIN_WITH_LEAF = 0.8  # of each class, in which a leaf was found, to measure only outside it
FAMILIES = ("camera", "size", "encoding", "encoder", "time")  # of metadata
OTHERS = ("name", "border", "texture", *OUTSIDE, *EXPECTED)  # sources that are reported by themselves

Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """How well one source predicts the label."""

    source: AuditSource
    estimate: Estimate  # cross-validated AUROC
    note: str = ""  # of how many photographs it was measured outside the leaf
    place: str = ""  # where in the image the classes differ most; empty for sources without a place
    examples: tuple[tuple[str, str], ...] = ()  # name and class of photographs that are predicted best

    @property
    def low(self) -> float:
        """Lower limit of the interval; 0 if there is none."""
        return self.estimate.interval.low if self.estimate.interval else 0.0


def find_shortcuts(rows: Sequence[Row], units: Sequence[int], positive_class: str) -> list[Shortcut]:
    """Predict the class of readable photographs, against all others, from each source by logistic regression.

    It is cross-validated: a unit is never in both training and test part of a fold.
    """
    unit = np.asarray(units, dtype=np.int64)
    label = np.array([row.sample.class_name == positive_class for row in rows], dtype=np.int64)
    some = _select(unit)
    selected = [rows[index] for index in some.tolist()]
    shortcuts = [_test(source, selected, label[some], unit[some]) for source in SOURCES if not source.is_outside]
    return [*shortcuts, *_test_outside(rows, label, unit)]


def _test_outside(rows: Sequence[Row], label: Labels, unit: Indices) -> list[Shortcut]:
    """Test what was measured outside the leaf, or in the whole image where too few leaves were found."""
    sources = [source for source in SOURCES if source.is_outside]
    measured = np.array([row.file.surroundings.is_measured for row in rows], dtype=bool)
    has_leaf = np.array([row.file.surroundings.has_leaf for row in rows], dtype=bool)
    of_classes = [has_leaf[measured & (label == value)] for value in (0, 1)]
    found, total = int(has_leaf.sum()), counted(int(measured.sum()), "photograph")
    if all(part.size and part.mean() >= MIN_WITH_LEAF for part in of_classes):
        note = f"{found:,} of {total} in which a leaf was found by its colour"
        used = np.flatnonzero(measured & has_leaf)
    else:
        note = f"with the leaf: one was found by its colour in {found:,} of {total} only"
        used = np.flatnonzero(measured)
        sources = [whole_of(source) for source in sources]
    chosen = [rows[index] for index in used.tolist()]
    return [replace(_test(source, chosen, label[used], unit[used]), note=note) for source in sources]


def whole_of(source: AuditSource) -> AuditSource:
    """Return a source as it is named where too few leaves were found, so that the leaf is not left out."""
    name, title, phrase, features, strength, is_outside = source
    title = title.replace("Outside the leaf", "Whole image")
    return AuditSource(f"{name}{WHOLE}", title, phrase, features, strength, is_outside)


def _test(source: AuditSource, rows: Sequence[Row], label: Labels, unit: Indices) -> Shortcut:
    counts = [np.unique(unit[label == value]).size for value in (0, 1)]
    if min(counts) < MIN_PER_CLASS:
        return Shortcut(source, undefined(f"fewer than {MIN_PER_CLASS} independent photographs of a class"))
    features = source.features(rows)
    features = features[:, np.ptp(features, axis=0) > 0]
    if not features.shape[1]:
        return Shortcut(source, undefined(CONSTANT))
    score = _predict(features, label, _folds(label, unit, min(FOLDS, *counts)), source.strength)
    estimate = estimate_auroc(label, score, unit)
    if not source.is_outside:
        return Shortcut(source, estimate)
    place = strongest_place(source.name.removesuffix(WHOLE), rows, label)
    return Shortcut(source, estimate, place=place, examples=_examples(rows, label, score))


def _examples(rows: Sequence[Row], label: Labels, score: Features) -> tuple[tuple[str, str], ...]:
    """Return photographs of both classes that are predicted best, the positive class first."""
    best = [np.flatnonzero(label == value) for value in (1, 0)]
    best = [
        few[np.argsort(sign * score[few], kind="stable")[: SHOWN // 2]] for few, sign in zip(best, (-1, 1), strict=True)
    ]
    return tuple((rows[index].name, rows[index].sample.class_name) for index in np.concatenate(best))


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
    return _folds_of(label.tobytes(), unit.tobytes(), count)


@lru_cache(maxsize=2)  # for many units it takes seconds, and most sources are tested on the same photographs
def _folds_of(labels: bytes, units: bytes, count: int) -> list[tuple[Indices, Indices]]:
    from sklearn.model_selection import StratifiedGroupKFold

    label, unit = (np.frombuffer(content, dtype=np.int64) for content in (labels, units))
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
    reported = [metadata, *hidden, *(by_name[name] for name in OTHERS if name in by_name)]
    return [found for shortcut in reported for found in _findings(shortcut, by_name, positive_class)]


def _rank(shortcut: Shortcut) -> int:
    severity = severity_of(shortcut.source.name, shortcut.estimate)
    return SEVERITIES.index(severity) if severity else len(SEVERITIES)


def _findings(shortcut: Shortcut, by_name: dict[str, Shortcut], positive_class: str) -> Iterator[AuditFinding]:
    name = shortcut.source.name
    severity = severity_of(name, shortcut.estimate)
    if severity is None:
        return
    text, advice = _TEXTS.get(name, _WHOLE if name.endswith(WHOLE) else _TEXTS["metadata"])
    if shortcut.place:
        text += f" The classes differ most in this part of the image: {shortcut.place}."
    if shortcut.note:
        text += f" Measured in {shortcut.note}."
    if name == "metadata":
        families = [by_name[family].source.phrase for family in FAMILIES if by_name[family].low > WARNING_ABOVE]
        text += f" Most predictive: {', '.join(families)}." if families else ""
    auroc = f"AUROC {number(shortcut.estimate.value, 2)} {interval_text(shortcut.estimate)}, chance 0.5"
    title = f"{plain(positive_class)} can be predicted from {shortcut.source.phrase} alone ({auroc})"
    examples = tuple((example,) for example, _ in shortcut.examples)
    details = tuple(class_name for _, class_name in shortcut.examples)
    yield AuditFinding(severity, f"shortcut_{name}", title, text, advice, examples=examples, details=details)


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
    "processing": (
        "Noise, sharpness, edges of blocks or colour detail outside the leaf predict the class: the photographs may "
        "have been taken with different settings, or edited, resized or saved again in different ways. Other objects "
        "beside the leaf in one class can be the reason too.",
        "Use the files as the camera wrote them, or process all photographs in the same way.",
    ),
    "background": (
        "Cells of a 16 × 16 thumbnail that the leaf almost never covers predict the class by their colours, relative "
        "to the rest of the background: there may be an object, a label, a shadow or another background in one class.",
        "Look at the photographs below, of both classes. Crop or photograph again what differs.",
    ),
    "marks": (
        "Edges, white, strong colours, or colours unlike the rest of the background predict the class, in the "
        "outermost parts of the image. Dates, labels, rulers, logos and frames look like this; dark corners and a busy "
        "background do so too.",
        "Look at the photographs below, of both classes. Crop what was added to one of them.",
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

_WHOLE = (
    "A leaf was not found in enough photographs: it may fill the image, or have the colours of the background. So the "
    "leaf was not left out, and the disease itself may be what is measured. Some signal is expected.",
    "Look at the photographs below, of both classes: do they differ in more than the disease?",
)


def shortcuts_table(shortcuts: Sequence[Shortcut]) -> Table:
    """Return a table of all sources with intervals and verdicts."""
    caption = (
        "How well the class is predicted without looking at the leaf: logistic regression, grouped cross-validation "
        "(bursts, duplicates and groups never straddle folds), 95 % intervals. Rule: lower limit above "
        f"{WARNING_ABOVE}: warning; above {ERROR_ABOVE}: error. Names, and what is measured outside the leaf, are a "
        f"warning at most, the latter above {OUTSIDE_ABOVE}. A warning must also be above 0.5 at "
        f"{100 * FAMILY_LEVEL:g} % for all sources together (Bonferroni). Other models may find more."
    )
    rows, raw = [], []
    for shortcut in shortcuts:
        source, estimate = shortcut.source, shortcut.estimate
        verdict = verdict_of(source.name, estimate)
        auroc = "–" if estimate.value is None else precise_number(estimate.value)
        rows.append((Entry(source.title, shortcut.note), Entry(auroc, interval_text(estimate)), Entry(verdict)))
        raw.append([source.name, *estimate_cells(estimate)[:3], verdict])
    columns = ("source", "auroc", "low", "high", "verdict")
    return Table("shortcuts", caption, ("Source", "AUROC", "Verdict"), tuple(rows), (columns, raw))
