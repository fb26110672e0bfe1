"""What a report says in plain words, to a reader who did not train the model."""

from collections.abc import Sequence

from bldml.io.text import counted, number, plain
from bldml.metrics.estimates import Estimate
from bldml.metrics.proportions import predictive_values
from bldml.report.scores import Assessed
from bldml.run.provenance import Role
from bldml.run.reader import Evaluation, RunData

FIELD = 0.05  # share of positives in the summary's example
KINDS: dict[Role, str] = {
    "training": "Training split.",
    "validation": "Validation split: best epoch and operating point were chosen on it, so figures are too good.",
    "test": "Test split: photographs that had no part in training or choosing.",
    "external": "External set: none of its photographs is one of the run's own.",
    "unknown": "What these photographs are to the run is not recorded.",
}
SOURCES: dict[Role, str] = {
    "training": "the training split",
    "validation": "the validation split",
    "test": "the test split, which had no part in training",
    "external": "the external set",
    "mixed": "the mixed set",
    "unknown": "the set",
}
NOT_ASSESSED = (
    ("Shortcuts", "Whether the background, the file’s size or its name would do as well: python -m bldml audit says."),
    ("Robustness", "To blur, light, compression and rotation."),
    ("Repeatability", "Whether the same leaf, photographed twice or with another phone, is called the same."),
    ("Spread over seeds", "Other seeds give other models; this page is of one."),
    ("Indeterminate results", "Every photograph is called; none is sent back as uncertain."),
    ("Costs of a miss and of a false alarm", "No decision curve was drawn: their ratio is not stated."),
    ("People", "How well people do on the same photographs was not measured."),
)


def percent(estimate: Estimate) -> str:
    """Return a share in percent with its interval, in words.

    >>> from bldml.metrics.estimates import Interval
    >>> percent(Estimate(0.9, Interval(0.8, 0.95, "Wilson")))
    '90.0 % (95 % interval 80.0 % to 95.0 %)'
    """
    if estimate.value is None:
        return "not estimable"
    value = f"{number(100 * estimate.value, 1)} %"
    if estimate.interval is None:
        return value
    return (
        f"{value} (95 % interval {number(100 * estimate.interval.low, 1)} % to "
        f"{number(100 * estimate.interval.high, 1)} %)"
    )


def kind(evaluation: Evaluation) -> str:
    """What the photographs of an evaluation are to the run, in a sentence."""
    known = evaluation.provenance.known or {}
    if evaluation.role != "mixed":
        return KINDS[evaluation.role]
    words = {"train": "the training split", "val": "the validation split", "test": "the test split",
             "seen": "the training or the validation split"}  # fmt: skip
    parts = [f"{known[split]:,} of {word}" for split, word in words.items() if known.get(split)]
    rest = len(evaluation.rows) - sum(known.values())
    parts += [f"{rest:,} that the run does not have"] if rest else []
    caution = " The figures are too good." if is_seen(evaluation) else ""
    return f"Mixed set: {', '.join(parts)}.{caution}"


def is_seen(evaluation: Evaluation) -> bool:
    """Whether the classifier was trained or chosen on any of these photographs, as far as that is recorded."""
    known = evaluation.provenance.known or {}
    return evaluation.role in ("training", "validation") or any(known.get(name) for name in ("train", "val", "seen"))


def summary(data: RunData, assessed: Sequence[Assessed]) -> list[str]:
    """What the classifier does, how well, how sure that is, and what cannot be said."""
    negative, positive = map(plain, data.classes.names)
    does = (
        f"This classifier looks at one photograph and gives a probability that it shows {positive} rather than "
        f"{negative}. Where the probability reaches the operating point, the photograph is called {positive}."
    )
    if not assessed:
        return [
            does,
            "It has not been evaluated, so nothing can be said of how good it is. To evaluate it: python -m bldml test "
            "--ckpt_path <run>/checkpoints/best.ckpt.",
        ]
    # By role: the test split is first, external sets come before validation.
    evaluation, assessment = assessed[0]
    n, at, area = assessment.counts, assessment.at_threshold, assessment.overall["auroc"]
    of_split = evaluation.role in ("training", "validation", "test")
    source = SOURCES[evaluation.role] + ("" if of_split else f" {plain(evaluation.name)}")
    where = f"the {counted(assessment.n, 'photograph')} of {source}"
    good = (
        f"On {where}, it found {n['tp']:,} of {n['tp'] + n['fn']:,} {positive}, a sensitivity of "
        f"{percent(at['sensitivity'])}, and rightly cleared {n['tn']:,} of {n['tn'] + n['fp']:,} {negative}, a "
        f"specificity of {percent(at['specificity'])}. A 95 % interval is the range of true values that these "
        "photographs are compatible with; the fewer they are, the wider it is."
    )
    paragraphs = [does, good, *_worth(at["sensitivity"], at["specificity"], positive)]
    if area.interval is not None and area.interval.low <= 0.5:
        paragraphs.append(
            "These photographs do not even show that the probabilities are better than guessing: the interval of the "
            f"area under the ROC curve, {number(area.interval.low)} to {number(area.interval.high)}, reaches 0.5."
        )
    if is_seen(evaluation):
        these = "some of these" if evaluation.role == "mixed" else "these very"
        paragraphs.append(
            f"Caution: the classifier was trained or chosen on {these} photographs, so the figures are too good. "
            "There is no test set."
        )
    return [*paragraphs, _cannot(data, assessed)]


def _worth(sensitivity: Estimate, specificity: Estimate, positive: str) -> list[str]:
    worth, _ = predictive_values(sensitivity, specificity, FIELD)
    if worth.value is None:
        return []
    return [
        f"Where {100 * FIELD:g} of 100 leaves have {positive}, a leaf that is called {positive} really has it in "
        f"{percent(worth)} of cases. Where it is rarer, a call is worth less."
    ]


def _cannot(data: RunData, assessed: Sequence[Assessed]) -> str:
    external = [evaluation for evaluation, _ in assessed if evaluation.role == "external"]
    places = (
        f"How it does elsewhere was tried on {len(external)} external {'sets' if len(external) > 1 else 'set'} only."
        if external
        else "It was tried on no photographs from elsewhere; other places, cameras, seasons and people may give other, "
        "usually worse, figures."
    )
    return (
        "What this page cannot say: how the classifier does on photographs that are not like these. " + places + " It "
        "knows two classes only: a photograph of something else is called one of them all the same. A probability is "
        "no diagnosis, and it is only as true as the labels that it was trained on."
    )


def limits(data: RunData, assessed: Sequence[Assessed]) -> list[tuple[str, str]]:
    """What reviewers ask for and was not assessed, with what is known of it."""
    external = any(evaluation.role == "external" for evaluation, _ in assessed)
    missing = [] if external else [("External validation", "There is no set from elsewhere.")]
    if data.of_role("test") is None:
        missing.insert(0, ("Test set", "The run has no evaluation of its test split."))
    if not any(row.camera for row in data.photographs):
        missing.append(("Cameras", "Whether they differ between classes or sets is not known."))
    if not any(row.taken for row in data.photographs):
        missing.append(("Dates", "Whether the test was later than the training is not known."))
    if data.leaks is None:
        missing.append(("Duplicates and bursts across splits", "They were not looked for."))
    return [*missing, *NOT_ASSESSED]
