"""Sentences about an evaluation: functions of the recorded facts alone, empty where the facts do not support one."""

from bldml.io.text import counted, number, plain
from bldml.report.tables import interval_text
from bldml.run.evidence import Evidence, Kind, evidence_of
from bldml.run.reader import Evaluation, RunData

SPLITS = {
    "train": "the training split",
    "val": "the validation split",
    "test": "the test split",
    "seen": "the training or the validation split",
}
RELATIVES: dict[Kind, str] = {
    "exact": "the same file",
    "near": "a near duplicate",
    "burst": "a photograph of the same burst",
    "group": "a photograph of the same group",
}


def standing(evidence: Evidence) -> str:
    """Return all that is known of how an evaluation relates to the run, for the head of its section."""
    return " ".join(filter(None, (relation(evidence), caution(evidence), independence(evidence))))


def relation(evidence: Evidence) -> str:
    """Say how the photographs relate to the run."""
    if evidence.role == "mixed":
        parts = [f"{n:,} from {SPLITS[split]}" for split, n in evidence.known.items() if n and split in SPLITS]
        unknown = evidence.n - sum(evidence.known.values())
        parts += [f"{unknown:,} that do not belong to this run"] if unknown else []
        return f"Mixed set: {', '.join(parts)}."
    return {
        "training": "Training split.",
        "validation": "Validation split: the best epoch and the operating point were chosen on it.",
        "test": "Test split.",
        "external": "External set: none of its photographs belongs to this run.",
        "unlabelled": "Photographs without labels.",
        "unknown": "How these photographs relate to the run is not recorded.",
    }[evidence.role]


def name_of(evidence: Evidence, name: str) -> str:
    """Return what a sentence calls the set; `name` is that of the evaluation."""
    if evidence.role == "test":
        unused = evidence.searched and not evidence.n_related
        return "the test split" + (", which was not used for training" if unused else "")
    if evidence.role in ("training", "validation"):
        return f"the {evidence.role} split"
    kind = f"{evidence.role} set" if evidence.role in ("external", "mixed") else "set"
    return f"the {kind} {plain(name)}"


def caution(evidence: Evidence) -> str:
    """Say what makes the metrics optimistic; empty if nothing is known to."""
    if evidence.role == "training":
        return "Caution: the classifier was trained on these photographs, so the metrics may be optimistic."
    if evidence.role == "validation":
        return "Caution: epoch and operating point were chosen on these photographs, so the metrics may be optimistic."
    all_photographs, related = f"of these {counted(evidence.n, 'photograph')}", sum(evidence.relatives.values())
    parts = []
    if evidence.seen:
        are = (
            "is a training or validation photograph" if evidence.seen == 1 else "are training or validation photographs"
        )
        parts.append(f"{evidence.seen:,} {all_photographs} {are} of this run")
    if related:
        have = "has a relative" if related == 1 else "have a relative"
        kinds = ", ".join(f"{RELATIVES[kind]}: {n:,}" for kind, n in evidence.relatives.items())
        of = "others" if parts else all_photographs
        parts.append(f"{related:,} {of} {have} among the training and validation photographs ({kinds})")
    return f"Caution: {', and '.join(parts)}, so the metrics may be optimistic." if parts else ""


def independence(evidence: Evidence) -> str:
    """Say what the search for relatives came to where it found none; empty if it found some."""
    if evidence.n_related or evidence.role == "unlabelled":
        return ""
    searched = (
        "The search for duplicates and bursts found no relative of these photographs among the training and validation "
        "photographs."
        if evidence.role == "test"
        else "None of them is a near duplicate of a training or validation photograph."
    )
    return (
        searched
        if evidence.searched
        else "Whether they have relatives among the training and validation photographs was not searched for."
    )


def sampling(evidence: Evidence) -> str:
    """Say what the sampling units are and where they come from; empty for photographs without labels."""
    if evidence.role == "unlabelled":
        return ""
    groups, bursts = counted(evidence.groups, "group"), counted(evidence.bursts or 0, "burst")
    lone, one = counted(evidence.lone, "photograph"), "counts as one" if evidence.lone == 1 else "count as one each"
    if evidence.unit == "photograph":
        given = "No two photographs are of one given group" if evidence.groups else "No groups (tree, site) were given"
        found = (
            "bursts are not recorded" if evidence.bursts is None else "no two photographs are known to be of one burst"
        )
        return (
            f"{given}, and {found}, so each photograph counts as one sampling unit. If several show one tree, the "
            "intervals are too narrow."
        )
    if evidence.unit == "group":
        missing = "without a group, whose bursts are not recorded," if evidence.bursts is None else "with neither"
        rest = f" {lone} {missing} {one}." if evidence.lone else ""
        return f"The photographs of one given group count as one sampling unit ({groups}).{rest}"
    rest = f" {lone} outside a burst {one}." if evidence.lone else ""
    if evidence.unit == "burst":
        return (
            f"No groups (tree, site) were given, so the photographs of one burst count as one sampling unit ({bursts})."
            f"{rest} If several bursts show one tree, the intervals are too narrow."
        )
    rest = f" {lone} with neither {one}." if evidence.lone else ""
    return (
        "The photographs of one given group or, without one, of one burst count as one sampling unit "
        f"({groups}, {bursts}).{rest}"
    )


def units(evidence: Evidence) -> str:
    """Return " from 12 groups" and the like, to follow the number of photographs; empty if each is a unit."""
    n = evidence.groups + (evidence.bursts or 0) + evidence.lone
    name = "sampling unit" if evidence.lone or evidence.unit == "group or burst" else evidence.unit
    return "" if evidence.unit == "photograph" else f" from {counted(n, name)}"


def caution_with_rest(data: RunData, evaluation: Evaluation) -> str:
    """Return the caution, with the headline metrics of the photographs to which it does not apply.

    The first sentence of the summary, and the terminal's after an evaluation.
    """
    evidence = evidence_of(data, evaluation)
    text = caution(evidence)
    if not text or not evidence.n_unrelated:
        return text
    rest = evaluation.without(evidence.related).assess(data.classes)
    estimates = {"sensitivity": rest.at_threshold["sensitivity"], "specificity": rest.at_threshold["specificity"]}
    estimates["AUROC"] = rest.overall["auroc"]
    values = (f"{name} {number(one.value)} {interval_text(one)}".rstrip() for name, one in estimates.items())
    return f"{text} Without them, on {counted(rest.n, 'photograph')}: {', '.join(values)}."
