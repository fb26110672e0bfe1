"""How well the label is predicted by what should not predict it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bldml.audit.checks.features import SOURCES, Features, Source
from bldml.audit.findings import AuditFinding, Severity
from bldml.audit.reading import Row
from bldml.io.text import number, plain
from bldml.metrics.auroc import clustered_auroc, estimate_auroc
from bldml.metrics.estimates import Estimate, undefined
from bldml.report.tables import Entry, Table, bounds, fine

FOLDS = 5
FEWEST = 10  # independent photographs of a class, below which nothing is said
MOST = 6000  # photographs; more would only narrow intervals that are narrow already
DOUBTFUL, WRONG = 0.53, 0.75
"""Lower limits of the interval of the AUROC above which a shortcut is doubtful, and wrong."""
CAPPED = ("name",)  # never wrong: names may have been given by hand, after the labels
EXPECTED = ("thumbnail", "bytes")  # may well depend on the disease: a note
FAMILIES = ("camera", "size", "encoding", "time")  # of metadata

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """How well one source predicts the label.

    Attributes:
        source: What it goes by.
        estimate: AUROC of photographs that the prediction was not learned from, with its interval.
    """

    source: Source
    estimate: Estimate

    @property
    def low(self) -> float:
        """Lower limit of the interval; 0 where there is none."""
        return self.estimate.interval.low if self.estimate.interval else 0.0


def find_shortcuts(rows: Sequence[Row], units: Sequence[int], positive_class: str, seed: int = 0) -> list[Shortcut]:
    """Predict the label from each source by logistic regression, cross-validated by unit.

    Args:
        rows: Readable photographs.
        units: What must not be divided between learning and predicting, a number for each photograph.
        positive_class: Against all others.
        seed: Of the folds and, for large sets, of the choice of photographs.
    """
    label = np.array([row.sample.class_name == positive_class for row in rows], dtype=np.int64)
    unit = np.asarray(units, dtype=np.int64)
    counts = [np.unique(unit[label == value]).size for value in (0, 1)]
    if min(counts) < FEWEST:
        note = f"fewer than {FEWEST} independent photographs of a class"
        return [Shortcut(source, undefined(note)) for source in SOURCES]
    chosen = _choose(unit, seed)
    rows = [rows[index] for index in chosen]
    label, unit = label[chosen], unit[chosen]
    fold = _folds(label, unit, min(FOLDS, *counts), seed)
    found = []
    for source in SOURCES:
        features = source.features(rows)
        features = features[:, np.ptp(features, axis=0) > 0]
        if not features.shape[1]:
            found.append(Shortcut(source, undefined("the same in all photographs")))
            continue
        score = _predict(features, label, fold, source.strength)
        grouped = np.unique(unit).size < unit.size
        estimate = (
            clustered_auroc(label, score, [str(one) for one in unit]) if grouped else estimate_auroc(label, score)
        )
        found.append(Shortcut(source, estimate))
    return found


def _choose(unit: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Places of at most `MOST` photographs, in whole units but for the last one."""
    if unit.size <= MOST:
        return np.arange(unit.size)
    order = np.random.default_rng(seed).permutation(np.unique(unit))
    rank = np.empty(int(unit.max()) + 1, dtype=np.int64)
    rank[order] = np.arange(order.size)
    taken = np.argsort(rank[unit], kind="stable")[:MOST]
    return np.sort(taken)


def _folds(label: Labels, unit: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each photograph: units whole, classes in about the same shares."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(label.size, dtype=np.int64)
    divider = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for number_of, (_, held_out) in enumerate(divider.split(np.zeros((label.size, 1)), label, unit)):
        fold[held_out] = number_of
    return fold


def _predict(features: Features, label: Labels, fold: npt.NDArray[np.int64], strength: float) -> Features:
    """Logit for each photograph from a regression that was fitted on the other folds.

    Classes weigh the same in each, so that a fold with few positives does not push its own photographs up.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    score = np.zeros(label.size)
    for held_out in np.unique(fold):
        inside, outside = fold != held_out, fold == held_out
        if np.unique(label[inside]).size < 2:
            continue
        centre, spread = features[inside].mean(axis=0), features[inside].std(axis=0)
        scaled = (features - centre) / np.where(spread > 0, spread, 1).astype(features.dtype)
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a little short of the optimum predicts as well
            model.fit(scaled[inside], label[inside])
        score[outside] = model.decision_function(scaled[outside])
    return score


def report_shortcuts(shortcuts: Sequence[Shortcut], positive_class: str) -> list[AuditFinding]:
    """Findings by the stated rule on the lower limits."""
    by_name = {one.source.name: one for one in shortcuts}
    if not by_name:
        return []
    told = [by_name[name] for name in ("metadata", "name", "border", *EXPECTED)]
    if by_name["metadata"].low <= DOUBTFUL:
        # One family among columns of noise can be missed when all are taken together.
        told[:1] = [by_name[name] for name in FAMILIES]
    return [_finding(one, by_name, positive_class) for one in told if one.low > DOUBTFUL]


def _finding(one: Shortcut, by_name: dict[str, Shortcut], positive_class: str) -> AuditFinding:
    name = one.source.name
    text, advice = _WORDS["metadata" if name in FAMILIES else name]
    if name == "metadata":
        telling = [by_name[family].source.phrase for family in FAMILIES if by_name[family].low > DOUBTFUL]
        text += f" Most telling: {', '.join(telling)}." if telling else ""
    area = f"AUROC {number(one.estimate.value, 2)} {bounds(one.estimate)}, 0.5 is guessing"
    title = f"{plain(positive_class)} can be told from the rest by {one.source.phrase} alone ({area})"
    return AuditFinding(_severity(one), f"shortcut_{name}", title, text, advice)


def _severity(one: Shortcut) -> Severity:
    if one.source.name in EXPECTED:
        return "note"
    return "wrong" if one.low > WRONG and one.source.name not in CAPPED else "doubtful"


_WORDS = {
    "metadata": (
        "Without a look at any pixel the class can be told from what the files say of themselves: the classes were "
        "photographed by other cameras, at other times, or were handled in another way. A classifier can see the "
        "traces of this (noise, colours, compression, light), and a test on photographs of the same origin does not "
        "show it.",
        "Take photographs of both classes with the same camera, in the same way, on the same days; test on "
        "photographs from elsewhere; say so in the paper.",
    ),
    "name": (
        "Cameras and people name files in their own ways, so the classes may come from other cameras or people. Names "
        "given by hand after labelling mean nothing.",
        "Look which beginnings of names belong to which class, and why.",
    ),
    "border": (
        "The class can be told from the outer 6 % of the frame, where mostly background is: the classes were "
        "photographed before different backgrounds or in different light, or the leaf fills the frame in one of them.",
        "Look at the contact sheets below. Photograph both classes before the same background, or compare Grad-CAM "
        "maps with masks (`python -m bldml explain --masks`).",
    ),
    "thumbnail": (
        "At 16 × 16 pixels lesions can hardly be seen, but colours can: of background and light, and of leaves that "
        "the disease has discoloured. Some signal is to be expected.",
        "Report it as what a classifier must beat.",
    ),
    "bytes": (
        "Sharper, richer pictures take more bytes: so do lesions, and so do another camera or quality of compression.",
        "Report it as what a classifier must beat.",
    ),
}


def shortcut_verdict(one: Shortcut) -> str:
    """What the figure of a source means, in a few words."""
    if one.estimate.value is None:
        return f"cannot be said: {one.estimate.note}"
    if one.low <= DOUBTFUL:
        return "no shortcut shown"
    if one.source.name in EXPECTED:
        return "signal, as may be expected"
    return "wrong: a shortcut" if _severity(one) == "wrong" else "doubtful: look at it"


def shortcuts_table(shortcuts: Sequence[Shortcut]) -> Table:
    """All sources with intervals and verdicts."""
    header = ("Source", "AUROC", "Verdict")
    caption = (
        "How well the class is predicted without a look at the leaf, by logistic regression, each photograph by one "
        f"that neither it nor its burst, duplicates and group were in. Rule: lower limit above {DOUBTFUL}: doubtful; "
        f"above {WRONG}: wrong. Other models may find more."
    )
    rows = tuple(
        (
            Entry(one.source.title),
            Entry(fine(one.estimate.value) if one.estimate.value is not None else "–", bounds(one.estimate)),
            Entry(shortcut_verdict(one)),
        )
        for one in shortcuts
    )
    raw = [[one.source.name, one.estimate.value, *_limits(one), shortcut_verdict(one)] for one in shortcuts]
    return Table("shortcuts", caption, header, rows, (("source", "auroc", "low", "high", "verdict"), raw))


def _limits(one: Shortcut) -> tuple[float | None, float | None]:
    interval = one.estimate.interval
    return (None, None) if interval is None else (interval.low, interval.high)
