"""The summary of a report in sentences, for a reader who did not train the model."""

from collections.abc import Sequence

from bldml.io.text import counted, number, plain
from bldml.metrics.estimates import Estimate
from bldml.metrics.proportions import predictive_values
from bldml.report.evaluation_tables import Assessed
from bldml.run.provenance import Role
from bldml.run.reader import Evaluation, RunData

EXAMPLE_PREVALENCE = 0.05  # at which the summary states the PPV
ROLE_SENTENCES: dict[Role, str] = {
    "training": "Training split.",
    "validation": "Validation split: the best epoch and the operating point were chosen on it, so its metrics "
    "are optimistic.",
    "test": "Test split: photographs that were used neither for training nor for choosing the epoch and "
    "operating point.",
    "external": "External set: none of its photographs belongs to this run.",
    "unknown": "How these photographs relate to the run is not recorded.",
}
ROLE_PHRASES: dict[Role, str] = {
    "training": "the training split",
    "validation": "the validation split",
    "test": "the test split, which was not used for training",
    "external": "the external set",
    "mixed": "the mixed set",
    "unknown": "the set",
}
NOT_ASSESSED = (
    (
        "Shortcuts",
        "Whether the background, the file size or the file name alone predicts the class was not tested here. To test "
        "it: python -m bldml audit.",
    ),
    ("Robustness", "Robustness to blur, lighting, compression and rotation was not tested."),
    (
        "Repeatability",
        "Whether a second photograph of the same leaf, or one by another phone, gets the same prediction was not "
        "tested.",
    ),
    (
        "Variation between random seeds",
        "This report describes one trained model; training with another random seed gives a different one.",
    ),
    ("Indeterminate results", "Every photograph gets a prediction; none is reported as uncertain."),
    (
        "Cost of errors",
        "The cost of a missed leaf relative to a false alarm is not stated, so no decision curve was drawn.",
    ),
    ("Human performance", "How well people classify the same photographs was not measured."),
)


def percent(estimate: Estimate) -> str:
    """Return a proportion in percent with its interval, as text.

    >>> from bldml.metrics.estimates import Interval
    >>> percent(Estimate(0.9, Interval(0.8, 0.95, "Wilson")))
    '90.0 %, 95 % interval 80.0 % to 95.0 %'
    """
    if estimate.value is None:
        return "not estimable"
    value = f"{number(100 * estimate.value, 1)} %"
    if estimate.interval is None:
        return value
    return (
        f"{value}, 95 % interval {number(100 * estimate.interval.low, 1)} % to "
        f"{number(100 * estimate.interval.high, 1)} %"
    )


def role_sentence(evaluation: Evaluation) -> str:
    """Return a sentence on how the photographs of an evaluation relate to the run."""
    known = evaluation.provenance.known or {}
    if evaluation.role != "mixed":
        return ROLE_SENTENCES[evaluation.role]
    phrases = {"train": "the training split", "val": "the validation split", "test": "the test split",
               "seen": "the training or the validation split"}  # fmt: skip
    parts = [f"{known[split]:,} from {phrase}" for split, phrase in phrases.items() if known.get(split)]
    unknown = len(evaluation.rows) - sum(known.values())
    parts += [f"{unknown:,} that do not belong to this run"] if unknown else []
    caution = " Its metrics are optimistic." if includes_seen_photographs(evaluation) else ""
    return f"Mixed set: {', '.join(parts)}.{caution}"


def includes_seen_photographs(evaluation: Evaluation) -> bool:
    """Whether any of these photographs is recorded as one that the classifier was trained or chosen on."""
    known = evaluation.provenance.known or {}
    return evaluation.role in ("training", "validation") or any(known.get(name) for name in ("train", "val", "seen"))


def summary(data: RunData, assessed: Sequence[Assessed]) -> list[str]:
    """Return paragraphs on the task, the performance with its uncertainty, and the limits."""
    negative, positive = map(plain, data.classes.names)
    task = (
        f"This classifier takes one photograph and returns the probability that it shows {positive} rather than "
        f"{negative}. Where the probability reaches the threshold (the operating point), the photograph is predicted "
        f"{positive}."
    )
    if not assessed:
        return [
            task,
            "It has not been evaluated, so its performance is unknown. To evaluate it: python -m bldml test "
            "--ckpt_path <run>/checkpoints/best.ckpt.",
        ]
    # By role: the test split is first, external sets come before validation.
    evaluation, assessment = assessed[0]
    n, at, area = assessment.counts, assessment.at_threshold, assessment.overall["auroc"]
    of_split = evaluation.role in ("training", "validation", "test")
    source = ROLE_PHRASES[evaluation.role] + ("" if of_split else f" {plain(evaluation.name)}")
    performance = (
        f"On the {counted(assessment.n, 'photograph')} of {source}, it detected {n['tp']:,} of {n['tp'] + n['fn']:,} "
        f"{positive} photographs (sensitivity {percent(at['sensitivity'])}) and correctly classified {n['tn']:,} of "
        f"{n['tn'] + n['fp']:,} {negative} photographs (specificity {percent(at['specificity'])}). A 95 % interval "
        "shows the uncertainty due to the number of photographs: fewer photographs give a wider interval."
    )
    paragraphs = [task, performance, *_predictive_value(at["sensitivity"], at["specificity"], positive)]
    if area.interval is not None and area.interval.low <= 0.5:
        paragraphs.append(
            "The interval of the area under the ROC curve (AUROC), "
            f"{number(area.interval.low)} to {number(area.interval.high)}, "
            + (
                "includes 0.5: performance is not distinguishable from chance."
                if area.interval.high >= 0.5
                else "lies below 0.5: performance is worse than chance."
            )
        )
    if includes_seen_photographs(evaluation):
        these = "some of these" if evaluation.role == "mixed" else "these"
        paragraphs.append(
            f"Caution: the classifier was trained or chosen on {these} photographs, so the metrics are optimistic. "
            "No separate test set was evaluated."
        )
    return [*paragraphs, _limits(data, assessed)]


def _predictive_value(sensitivity: Estimate, specificity: Estimate, positive: str) -> list[str]:
    ppv, _ = predictive_values(sensitivity, specificity, EXAMPLE_PREVALENCE)
    if ppv.value is None:
        return []
    value, _, interval = percent(ppv).partition(", ")
    return [
        f"At {100 * EXAMPLE_PREVALENCE:g} % prevalence ({100 * EXAMPLE_PREVALENCE:g} of 100 leaves have {positive}), "
        f"{value} of leaves predicted {positive} truly have it (positive predictive value, PPV; {interval}). The PPV "
        "falls with the prevalence."
    ]


def _limits(data: RunData, assessed: Sequence[Assessed]) -> str:
    negative, positive = map(plain, data.classes.names)
    external = [evaluation for evaluation, _ in assessed if evaluation.role == "external"]
    elsewhere = (
        f"Only {counted(len(external), 'external set')} {'was' if len(external) == 1 else 'were'} evaluated."
        if external
        else "No external set was evaluated; other sites, cameras, seasons and people may give different, usually "
        "worse, results."
    )
    return (
        f"Limits: performance on photographs unlike these is unknown. {elsewhere} The model always answers {positive} "
        f"or {negative}, even for other subjects. A probability is not a diagnosis, and it is only as reliable as the "
        "labels used for training."
    )


def not_assessed(data: RunData, assessed: Sequence[Assessed]) -> list[tuple[str, str]]:
    """Return title and text of each analysis that reviewers ask for and that this run does not have."""
    external = any(evaluation.role == "external" for evaluation, _ in assessed)
    missing = [] if external else [("External validation", "No external set was evaluated.")]
    if data.of_role("test") is None:
        missing.insert(0, ("Test set", "The test split of this run was not evaluated."))
    if not any(row.camera for row in data.photographs):
        missing.append(("Cameras", "It is not known whether cameras differ between classes or sets."))
    if not any(row.taken for row in data.photographs):
        missing.append(
            ("Dates", "It is not known whether the test photographs are later than the training photographs.")
        )
    if data.leaks is None:
        missing.append(("Duplicates and bursts across splits", "They were not searched for."))
    return [*missing, *NOT_ASSESSED]
