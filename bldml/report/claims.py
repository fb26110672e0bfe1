"""Sentences about evaluations: functions of the recorded facts alone, empty where the facts do not support one."""

from collections.abc import Sequence

from bldml.io.text import counted, number, plain
from bldml.metrics.estimates import Estimate
from bldml.metrics.operating_point import ThresholdCriterion
from bldml.metrics.proportions import EXACT, UNIT_CORRELATION, Assurance
from bldml.report.run_claims import conditions, not_known, sealed
from bldml.report.tables import interval_text, precise_number
from bldml.run.baselines import Baselines, verdict_of
from bldml.run.evidence import Evidence, Kind, RunEvidence, evidence_of
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
    "source": "a file that is named as made from the same photograph",
    "burst": "a photograph of the same burst",
    "group": "a photograph of the same group",
}

NOT_SHOWN = "it is not shown that the classifier looks at the leaf"


def standing(evidence: Evidence) -> str:
    """Return all that is known of how an evaluation relates to the run, for the head of its section."""
    parts = (relation(evidence), origin(evidence), caution(evidence), independence(evidence), repetition(evidence))
    return " ".join(filter(None, (*parts, exclusions(evidence), circumstances(evidence), minimum(evidence))))


def relation(evidence: Evidence) -> str:
    """Say how the photographs relate to the run."""
    if evidence.role == "mixed":
        parts = [f"{n:,} from {SPLITS[split]}" for split, n in evidence.known.items() if n and split in SPLITS]
        unknown = evidence.n - sum(evidence.known.values())
        parts += [f"{unknown:,} that do not belong to this run"] if unknown else []
        return f"Mixed set: {', '.join(parts)}."
    if evidence.out_of_fold:
        return (
            "Out of fold: each photograph was judged by the networks of the ensemble that did not learn from it. The "
            "operating point was chosen on these judgements."
        )
    return {
        "training": "Training split.",
        "validation": "Validation split: the best epoch and the operating point were chosen on it.",
        "test": "Test split.",
        "external": "External set: none of its photographs belongs to this run.",
        "unlabelled": "Photographs without labels.",
        "unknown": "How these photographs relate to the run is not recorded.",
    }[evidence.role]


def origin(evidence: Evidence) -> str:
    """Say where photographs come from that are not the run's; empty for those of the run and those without labels."""
    if evidence.role not in ("external", "mixed", "unknown"):
        return ""
    if not evidence.site:
        return "Whether they come from another place is not stated."
    return f"They are {_from(evidence)}."


def _from(evidence: Evidence) -> str:
    """Return the stated site of photographs, beside that of the run's photographs."""
    if evidence.is_same_site:
        return f"from {plain(evidence.site)}, as stated with --site, the same site as those of the run"
    own = (
        f"; those of the run from {plain(evidence.site_of_run)}, as stated in its card" if evidence.site_of_run else ""
    )
    return f"from {plain(evidence.site)}, as stated with --site{own}"


def repetition(evidence: Evidence) -> str:
    """Say how often a set that did not train or choose the classifier was evaluated; empty if not more than once."""
    if evidence.role in ("training", "validation", "unlabelled"):
        return ""
    lost = evidence.unreadable_looks
    are, each = ("is", "it") if lost == 1 else ("are", "each")
    unread = (
        f"{counted(lost, 'line')} of the ledgers (ledger.csv) of the runs of this folder {are} not whole, as after a "
        f"crash; {each} may record one more evaluation of this set."
    )
    if evidence.looks < 2:
        return unread if lost else ""
    return (
        f"This set was evaluated {evidence.looks:,} times, by {counted(evidence.looked, 'run')} of this folder; the "
        f"best of several results on one set may be optimistic.{f' {unread}' if lost else ''}"
    )


def exclusions(evidence: Evidence) -> str:
    """Say how many photographs could not be read; empty if all could."""
    n = evidence.excluded
    if n:
        return f"{counted(n, 'photograph')} could not be read and {'is' if n == 1 else 'are'} not among them."
    if n is None:
        return (
            f"{counted(evidence.excluded_of_run, 'photograph')} of the run's folder could not be read; how many of "
            "them belong to this split is not recorded."
        )
    return ""


def circumstances(evidence: Evidence) -> str:
    """Say what else a reader of the metrics should know of the training."""
    parts = []
    if evidence.has_own_criterion is False and evidence.role != "unlabelled":
        parts.append("The threshold was chosen by the default criterion; none was stated.")
    if evidence.resumed:
        times = "once" if evidence.resumed == 1 else f"{evidence.resumed:,} times"
        parts.append(f"The training was interrupted and resumed {times}.")
        parts.append(conditions(evidence.stretches))
    return " ".join(filter(None, parts))


def minimum(evidence: Evidence) -> str:
    """Say with what assurance a minimum sensitivity or specificity holds on new leaves; empty without a minimum."""
    criterion, found = evidence.criterion, evidence.assurance
    if criterion is None or found is None or criterion.minimum is None:
        return ""
    name, least = criterion.minimum
    which = "positive" if name == "sensitivity" else "negative"
    at_least = f"a {name} of at least {least:g} on new leaves like these"
    basis = f"at most {max(found.permitted, found.missed):,} of {counted(found.n, f'{which} photograph')} misclassified"
    if found.design_effect > 1:
        basis += (
            f", which count as {found.n / found.design_effect:.1f} independent ones (correlation of {UNIT_CORRELATION} "
            "within a sampling unit assumed)"
        )
    text = f"The threshold gives an assurance of {precise_number(found.reached, 2)} of {at_least} ({basis})."
    if criterion.assurance is None:
        text += f" It was chosen for {least:g} on the validation photographs, without operating_point.assurance."
    elif is_short(criterion, found):
        text += (
            f" The assurance of {criterion.assurance:g} that was asked for is not reached: {_needed(criterion, found)}."
        )
    return text


def shortfall(criterion: ThresholdCriterion, best: Assurance) -> str:
    """Say before training that an assurance cannot be reached; empty where it can.

    `best` is the assurance if no validation photograph is misclassified.
    """
    if criterion.minimum is None or not is_short(criterion, best):
        return ""
    name, least = criterion.minimum
    which = "positive" if name == "sensitivity" else "negative"
    return (
        f"operating_point.assurance {criterion.assurance:g} of a {name} of at least {least:g} cannot be reached: with "
        f"{counted(best.n, f'{which} validation photograph')}, none of them misclassified, the assurance is "
        f"{precise_number(best.reached, 2)}; {_needed(criterion, best)}. The threshold will be one that misclassifies "
        "none of them."
    )


def is_short(criterion: ThresholdCriterion, found: Assurance) -> bool:
    """Return whether an assurance was asked for that is not reached."""
    return criterion.assurance is not None and found.reached < criterion.assurance * EXACT


def _needed(criterion: ThresholdCriterion, found: Assurance) -> str:
    assert criterion.assurance is not None
    like = ", in sampling units of this size," if found.design_effect > 1 else ""
    return f"{found.needed(criterion.assurance):,} are needed{like} with none misclassified"


def external_validation(evidences: Sequence[Evidence]) -> str:
    """Say what the sets that share no photograph with the run show of other places, for the limits of the summary.

    The same photographs under two names are one set.
    """
    sets = {one.dataset_digest or str(number): one for number, one in enumerate(evidences) if one.role == "external"}
    if not sets:
        none = "No set is recorded to be external" if _is_unknown(evidences) else "No external set was evaluated"
        return f"{none}; other sites, cameras, seasons and people may give different, usually worse, results."
    external = [one for one in evidences if one.role == "external"]
    stated = list(dict.fromkeys(_from(one) for one in external if one.site))
    known = {one.dataset_digest for one in external if one.site} - {""}
    unstated = sum(not one.site and one.dataset_digest not in known for one in sets.values())
    were = f"{counted(len(sets), 'external set')} {'was' if len(sets) == 1 else 'were'} evaluated"
    parts = stated
    if unstated:
        which = "it comes" if len(sets) == 1 else f"{unstated:,} of them come{'s' if unstated == 1 else ''}"
        parts = [*stated, f"whether {which} from another place is not stated"]
    return f"Only {were}: {'; '.join(parts)}."


def test_split(run: RunEvidence, evidences: Sequence[Evidence]) -> str:
    """Say why there is no evaluation of the test split; empty where there is one."""
    if any(one.role == "test" for one in evidences):
        return ""
    return "No set is recorded to be the test split of this run." if _is_unknown(evidences) else sealed(run)


def not_assessed(run: RunEvidence, evidences: Sequence[Evidence]) -> list[tuple[str, str]]:
    """Return title and text of what reviewers ask for and no evaluation shows."""
    found = [("Test set", text)] if (text := test_split(run, evidences)) else []
    external = [one for one in evidences if one.role == "external"]
    if not external:
        text = "No set is recorded to be external" if _is_unknown(evidences) else "No external set was evaluated"
        found.append(("External validation", f"{text}."))
    elif all(one.is_same_site for one in external):
        text = "Every external set is stated to come from the same site as the photographs of the run."
        found.append(("External validation at another site", text))
    return found + not_known(run)


def _is_unknown(evidences: Sequence[Evidence]) -> bool:
    return any(one.role == "unknown" for one in evidences)


def name_of(evidence: Evidence, name: str) -> str:
    """Return what a sentence calls the set; `name` is that of the evaluation."""
    if evidence.role == "test":
        unused = evidence.searched and not evidence.n_related
        return "the test split" + (", which was not used for training" if unused else "")
    if evidence.role in ("training", "validation"):
        return "the photographs out of fold" if evidence.out_of_fold else f"the {evidence.role} split"
    kind = f"{evidence.role} set" if evidence.role in ("external", "mixed") else "set"
    return f"the {kind} {plain(name)}"


def caution(evidence: Evidence) -> str:
    """Say what makes the metrics optimistic; empty if nothing is known to."""
    if evidence.role == "training":
        return "Caution: the classifier was trained on these photographs, so the metrics may be optimistic."
    if evidence.out_of_fold:
        return "Caution: the operating point was chosen on these photographs, so metrics at it may be optimistic."
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


def at_chance(auroc: Estimate) -> str:
    """Say that an AUROC is not shown to be above 0.5; empty where it is, or where it has no interval."""
    limits, verdict = auroc.interval, chance(auroc)
    if limits is None or not verdict:
        return ""
    found = f"The interval of the area under the ROC curve (AUROC), {number(limits.low)} to {number(limits.high)},"
    return f"{found} {'lies below' if limits.high < 0.5 else 'includes'} 0.5: {verdict}."


def chance(auroc: Estimate) -> str:
    """Return in a few words that an AUROC is not shown to be above 0.5; empty where it is, or has no interval."""
    if auroc.interval is None or auroc.interval.low > 0.5:
        return ""
    return f"performance is {'worse than' if auroc.interval.high < 0.5 else 'not distinguishable from'} chance"


def independence(evidence: Evidence) -> str:
    """Say what the search for relatives came to where it found none; empty if it found some."""
    if evidence.n_related or evidence.role == "unlabelled":
        return ""
    searched = (
        "The search for duplicates and bursts found no relative of these photographs among the training and validation "
        "photographs."
        if evidence.role == "test"
        else "The search found no near duplicate of a training or validation photograph among them."
    )
    return (
        searched
        if evidence.searched
        else "Whether they have relatives among the training and validation photographs was not searched for."
    )


def without_leaf(found: Baselines) -> str:
    """Say how well the class is predicted without the leaf, and whether the classifier is shown to do better."""
    if found.best is None:
        return f"Whether the class is predicted without the leaf could not be tested: {found.advantage.note}."
    best, advantage = found.sources[found.best], found.advantage
    text = (
        f"Without the leaf: predicted from {found.best.phrase} alone, the AUROC is {number(best.value)} "
        f"{interval_text(best)}".rstrip()
        + f" ({verdict_of(found.best.name, best)})."
    )
    difference = f"{number(advantage.value)} {interval_text(advantage)}".rstrip()
    if found.is_exceeded:
        return f"{text} The classifier's AUROC is higher by {difference}."
    return (
        f"{text} The classifier's AUROC minus this one is {difference}, which is not above 0 beyond chance: "
        f"{NOT_SHOWN}."
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
