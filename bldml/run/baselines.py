"""Baselines that never see the leaf: how well metadata or the image border alone predict the class.

The audit tests whether they do in the whole set; an evaluation compares the classifier with them.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bldml.errors import RunError
from bldml.metrics.auroc import estimate_auroc, paired_auroc
from bldml.metrics.checked import Units, units_of
from bldml.metrics.estimates import Estimate, Z, plain_limits, to_estimate, undefined
from bldml.run.photographs import PhotographRow
from bldml.run.provenance import ROLES
from bldml.run.reader import Evaluation, RunData

MAX_VALUES = 20  # of a property with a column of their own; rarer values share one column
BINS = 8  # of a numeric feature, because classes need not be ordered along it
MIN_PER_CLASS = 10  # independent photographs; with fewer, baselines are not fitted
MAX_PHOTOGRAPHS = 6000  # to fit on; more would hardly change the fit
WARNING_ABOVE, ERROR_ABOVE = 0.53, 0.75
"""A shortcut is a warning, or an error, if the lower limit of its AUROC interval is above these."""
FAMILY_LEVEL, FAMILY = 0.02, 12
"""Without any shortcut, at most this proportion of sets is to have a warning, although so many sources are tried.

Each is therefore tested against chance at a twelfth of the level (Bonferroni), one-sided, beside the limits above: in
small sets an interval of 95 % alone is above them too often."""
OUTSIDE = ("processing", "background", "marks")  # measured outside the leaf, which is found by a heuristic
OUTSIDE_ABOVE = 0.58  # for a warning of these: with so many features, some more labels at random exceed the other limit
NEVER_ERROR = ("name", *OUTSIDE)  # files may have been renamed by hand after labelling
WHOLE = "_whole"  # ends the names of `OUTSIDE` where too few leaves were found, so that the whole image was measured
EXPECTED = ("thumbnail", "bytes", *(f"{name}{WHOLE}" for name in OUTSIDE))
"""Sources that may depend on the disease itself: for information only."""
CONSTANT = "the same in all photographs, or not recorded"
SEED = 0  # of the selection of photographs, and of folds

_MESSENGER = re.compile(
    r"IMG-\d{8}-WA\d{4}|whatsapp image|^photo_\d{4}-\d\d-\d\d|^signal-\d{4}|^received_\d{6}|^fb_img_|^telegram", re.I
)
_MESSENGER_SIDES = (1280, 1600)  # longer side in pixels of Telegram and WhatsApp; other messengers have no typical size

Photographs = Sequence[PhotographRow]
Features = NDArray[np.floating | np.uint8]  # (n, columns)


class Source(NamedTuple):
    """One source of features that should not reveal the class."""

    name: str  # for programs
    title: str  # on a page
    phrase: str  # within a sentence
    features: Callable[[Photographs], Features]


def camera(rows: Photographs) -> Features:
    """Return maker and model of the camera, and whether the file contains a GPS position."""
    return np.hstack([one_hot([row.camera for row in rows]), one_hot([row.has_gps for row in rows])])


def size(rows: Photographs) -> Features:
    """Return width × height and aspect ratio, in bins."""
    widths = np.array([row.width for row in rows], dtype=float)
    heights = np.array([row.height for row in rows], dtype=float)
    ratio = np.round(widths / np.maximum(heights, 1), 3)
    return np.hstack([binned(widths * heights), binned(ratio)])


def encoding(rows: Photographs) -> Features:
    """Return format, pixel mode, orientation tag, colour profile, compression, messenger."""
    return np.hstack(
        [
            one_hot([f"{row.format} {row.mode} {row.frames}" for row in rows]),
            one_hot([row.orientation for row in rows]),
            one_hot([row.icc for row in rows]),
            one_hot([is_from_messenger(row) for row in rows]),
            binned(np.array([row.quantization for row in rows])),
        ]
    )


def time(rows: Photographs) -> Features:
    """Return day and hour, in bins; unknown is a bin of its own."""
    days, hours = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        if row.taken:
            moment = datetime.fromisoformat(row.taken)
            days[index], hours[index] = moment.toordinal(), moment.hour + moment.minute / 60
    return np.hstack([binned(days), binned(hours)])


def metadata(rows: Photographs) -> Features:
    """Return all metadata features; the file name is not among them."""
    return np.hstack([camera(rows), size(rows), encoding(rows), time(rows)])


def border_colours(rows: Photographs) -> Features:
    """Return mean and standard deviation of the border's colours, (n, 6); without those of any, their mean."""
    return _measured(rows)[:, :6]


def border_texture(rows: Photographs) -> Features:
    """Return the texture of the border, which depends on noise, sharpening and compression, in bins."""
    return binned(_measured(rows)[:, 6])


def _measured(rows: Photographs) -> NDArray[np.float64]:
    values = np.array([row.border or (np.nan,) * 7 for row in rows], dtype=np.float64).reshape(-1, 7)
    known = ~np.isnan(values[:, 0])
    values[~known] = values[known].mean(axis=0) if known.any() else 0.0
    return values


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


def binned(values: NDArray[np.float64]) -> Features:
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


def is_from_messenger(row: PhotographRow) -> bool:
    """Return whether a messenger probably compressed it again: by file name, or a JPEG of its size without camera."""
    narrow, long = sorted((row.width, row.height))
    by_size = row.format == "JPEG" and not row.camera and long in _MESSENGER_SIDES and narrow > 0
    return by_size or bool(_MESSENGER.search(PurePath(row.path).stem))


SOURCES = (
    Source("metadata", "All metadata", "metadata", metadata),
    Source("camera", "Metadata: camera", "the camera", camera),
    Source("size", "Metadata: size in pixels", "the size in pixels", size),
    Source("encoding", "Metadata: format and compression", "format and compression", encoding),
    Source("time", "Metadata: day and hour", "day and hour", time),
    Source("border", "Border colours", "the colours of the image border", border_colours),
    Source("texture", "Border texture", "the texture of the image border", border_texture),
)


def severity_of(name: str, estimate: Estimate) -> Literal["error", "warning", "info"] | None:
    """Return how severe it is that a source predicts the class this well; None if it does not, or is not known to."""
    low = estimate.interval.low if estimate.interval else 0.0
    if low <= (OUTSIDE_ABOVE if name.removesuffix(WHOLE) in OUTSIDE else WARNING_ABOVE):
        return None
    if name in EXPECTED:
        return "info"
    if not _is_beyond_chance(estimate, low):
        return None
    return "error" if low > ERROR_ABOVE and name not in NEVER_ERROR else "warning"


def _is_beyond_chance(estimate: Estimate, low: float) -> bool:
    """Return whether the AUROC is above 0.5 at the level of one of `FAMILY` tests; `low` is its lower limit of 95 %.

    The standard error is that of the limit, on the logit, on which the interval is made.
    """
    if estimate.value is None or low <= 0.5:
        return False
    if estimate.value >= 1:
        return True
    logit, of_limit = (math.log(value / (1 - value)) for value in (estimate.value, low))
    return logit * Z > NormalDist().inv_cdf(1 - FAMILY_LEVEL / FAMILY) * (logit - of_limit)


def verdict_of(name: str, estimate: Estimate) -> str:
    """Return what the AUROC of a source means, in a few words."""
    if estimate.value is None:
        return f"not tested: {estimate.note}"
    words = {"info": "some signal, as expected", "error": "error: a shortcut", "warning": "warning: please check"}
    severity = severity_of(name, estimate)
    return words[severity] if severity else "no shortcut found"


def regression_scores(
    features: Features, labels: NDArray[np.int64], others: Features, strength: float = 1.0
) -> Features:
    """Fit a logistic regression with standardised features and equal weight of the classes, and return its logits.

    Args:
        features: To fit on, (n, columns); a column without variance is left out.
        labels: 0 or 1, both present, (n,).
        others: Features of the photographs to predict, (m, columns).
        strength: C of the regression; a smaller value regularises more.

    Returns:
        Logits of the other photographs, (m,); 0 if no feature varies.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    varies = np.ptp(features, axis=0) > 0
    if not varies.any():
        return np.zeros(len(others))
    kind = np.result_type(features, np.float32)  # pixels come as bytes, and are enlarged here alone
    # Copies, since columns are chosen.
    fitted: NDArray[np.floating] = features[:, varies].astype(kind, copy=False)
    predicted: NDArray[np.floating] = others[:, varies].astype(kind, copy=False)
    centre, spread = fitted.mean(axis=0), fitted.std(axis=0).astype(kind)
    spread[spread == 0] = 1
    for values in (fitted, predicted):
        values -= centre
        values /= spread
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    # One thread: each of hundreds of steps is so small that several threads mostly wait for each other, and they wait
    # busily. With two of them, on a machine that does other work too, a fit took twice the processor time or more.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping just before convergence predicts as well
        model.fit(fitted, labels)
    logits: Features = model.decision_function(predicted)
    return logits


@dataclass(frozen=True)
class Baselines:
    """The AUROC of each source on the photographs of an evaluation, and the classifier's advantage over the best one.

    Attributes:
        sources: AUROC by source; fitted on the training photographs of the run.
        best: The source with the highest AUROC; empty if none has one.
        advantage: AUROC of the classifier minus that of the best source, paired by photograph.
    """

    sources: Mapping[Source, Estimate]
    best: Source | None
    advantage: Estimate

    @property
    def is_exceeded(self) -> bool:
        """Whether the classifier is shown to be better: the interval of its advantage lies above 0."""
        return self.advantage.interval is not None and self.advantage.interval.low > 0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Baselines":
        """Return the baselines from metrics.json; a source that this version does not know is left out.

        Raises:
            ValueError: These are no baselines.
        """
        if not isinstance(plain.get("auroc"), dict) or not isinstance(plain.get("best", ""), str | None):
            raise ValueError("the baselines need auroc and best")
        known = {source.name: source for source in SOURCES}
        sources = {known[name]: to_estimate(one) for name, one in plain["auroc"].items() if name in known}
        return cls(sources, known.get(plain.get("best") or ""), to_estimate(plain.get("advantage", {})))

    def to_plain(self, unit: str) -> dict[str, Any]:
        """Return the mapping for metrics.json; `unit` names the sampling unit."""

        def plain(estimate: Estimate) -> dict[str, Any]:
            return {"value": estimate.value} | plain_limits(estimate, unit)

        return {
            "fitted_on": "train",
            "best": self.best.name if self.best else None,
            "advantage": plain(self.advantage),
            "auroc": {source.name: plain(estimate) for source, estimate in self.sources.items()},
        }


def baselines_of(data: RunData, evaluation: Evaluation) -> Baselines | None:
    """Return the baselines of a labelled evaluation: those that it stored, else computed from photographs.csv.

    None for the training split, and where the photographs are not recorded.
    """
    if evaluation.metrics and (stored := evaluation.metrics.baselines):
        try:
            return Baselines.from_plain(stored)
        except ValueError as error:
            path = evaluation.folder / "metrics.json"
            message = f"The baselines in {path} cannot be read: {error}. Repeat the evaluation."
            raise RunError(message, "baselines-damaged", path=path, reason=str(error)) from error
    own = evaluation.role in ROLES.values()
    by_path = {row.path: row for row in (data.photographs if own else evaluation.photographs)}
    rows = [by_path[one.path] for one in evaluation.rows if one.path in by_path]
    training = [row for row in data.photographs if row.split == "train"]
    if evaluation.role == "training" or not training or len(rows) < len(evaluation.rows):
        return None
    labels, units = evaluation.labels(data.classes), units_of([row.unit for row in evaluation.rows], len(rows))
    return compute_baselines(training, rows, labels, evaluation.probabilities, units, data.classes.positive)


def compute_baselines(
    training: Photographs,
    rows: Photographs,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    units: Units,
    positive: str,
) -> Baselines:
    """Fit each source on the training photographs and evaluate it on others.

    Args:
        training: Training photographs of the run.
        rows: The photographs of the evaluation, in the order of the other arrays, (n,).
        labels: 1 for the positive class, (n,).
        probabilities: Of the classifier, (n,).
        units: Sampling units, (n,).
        positive: Name of the positive class.
    """
    training = _some(training)
    truth = np.array([row.true_class == positive for row in training], dtype=np.int64)
    if min(np.bincount(truth, minlength=2)) < MIN_PER_CLASS:
        note = f"fewer than {MIN_PER_CLASS} training photographs of a class"
        return Baselines({source: undefined(note) for source in SOURCES}, None, undefined(note))
    found: dict[Source, Estimate] = {}
    scores: dict[Source, Features] = {}
    for source in SOURCES:
        features = source.features([*training, *rows])
        own, others = features[: len(training)], features[len(training) :]
        if not np.ptp(own, axis=0).any():
            found[source] = undefined(CONSTANT)
            continue
        scores[source] = regression_scores(own, truth, others)
        found[source] = estimate_auroc(labels, scores[source], units)
    ranked = [source for source in scores if found[source].value is not None]
    if not ranked:
        return Baselines(found, None, undefined(next(iter(found.values())).note))
    best = max(ranked, key=lambda source: found[source].value or 0.0)
    return Baselines(found, best, paired_auroc(labels, probabilities, scores[best], units).difference)


def _some(rows: Photographs) -> Photographs:
    if len(rows) <= MAX_PHOTOGRAPHS:
        return rows
    chosen = np.random.default_rng(SEED).permutation(len(rows))[:MAX_PHOTOGRAPHS]
    return [rows[index] for index in np.sort(chosen)]
