"""What a run has recorded about itself and about its evaluations. Pages and the terminal claim only what follows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bldml.io.text import plain
from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.certainty.novelty import Flagged
from bldml.metrics.checked import UnitKind, unit_kind
from bldml.metrics.operating_point import ThresholdCriterion, assurance_of, choose_threshold
from bldml.metrics.proportions import Assurance, design_effect
from bldml.run.digests.record import changed_since
from bldml.run.files import text_at
from bldml.run.ledger import looks_at
from bldml.run.photographs import Description, describe
from bldml.run.provenance import ROLES, Role, Stretch, read_stretches
from bldml.run.reader import Evaluation, RunData

Kind = Literal["exact", "near", "source", "burst", "group"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""How two photographs can be related, the closest first."""
SEEN = ("train", "val")  # the splits that trained the classifier and chose epoch, threshold and temperature


@dataclass(frozen=True)
class Evidence:
    """The recorded facts about one evaluation.

    Attributes:
        role: How its photographs relate to the run, by their contents.
        n: Number of photographs.
        known: Number of them in each split of the run, by content; see `Provenance`.
        seen: Number of them that trained or chose the classifier.
        relatives: Number of the others that have a relative among those, by the closest kind: a file with the same
            content, a near duplicate, a file that is named as made from the same photograph, a photograph of the same
            burst, one of the same group.
        related: Paths of the photographs that are seen or have a relative, as far as the run records which they are.
        searched: Whether near duplicates of the photographs that trained or chose the classifier were searched for
            among all of them.
        dataset_digest: SHA-256 of the photographs' contents and classes; empty if not recorded.
        site: Where the photographs come from, as stated with `--site`; empty if it was not.
        site_of_run: The same of the run's photographs, as stated in its card.
        looks: Number of evaluations of these photographs, under any name, in the ledgers of all runs of the log folder.
        looked: Number of the runs that made them.
        unreadable_looks: Number of lines in those ledgers that are not whole, each of which may be one more.
        excluded: Number of photographs of this set that could not be read; None if only their number in all splits
            together is recorded.
        excluded_of_run: Number of photographs in all splits of the run that could not be read.
        resumed: How often the training was interrupted and resumed.
        stretches: The parts of the training between its starts, as far as the weights come from them.
        has_own_criterion: Whether the threshold criterion was stated; None if not recorded.
        unit: What the sampling units of all statistics are.
        groups: Number of groups that were given for them.
        bursts: Number of bursts among those without a group; None if not recorded.
        lone: Number of photographs with neither, each of which is a unit of its own.
        criterion: That of the threshold, if it was chosen on these photographs; None also if the recorded threshold is
            not the one that it chooses on them.
        assurance: What that criterion assures; None without a minimum.
        bands: The classifier's bands of certainty; None if they are not recorded.
        flagged: The photographs that are unlike those that the classifier learned from; None if not recorded.
        out_of_fold: Whether each photograph was judged by the networks of an ensemble that did not learn from it; their
            role is then validation, because the operating point was chosen on these judgements.
    """

    role: Role
    n: int
    known: Mapping[str, int] = field(default_factory=dict)
    seen: int = 0
    relatives: Mapping[Kind, int] = field(default_factory=dict)
    related: frozenset[str] = frozenset()
    searched: bool = False
    dataset_digest: str = ""
    site: str = ""
    site_of_run: str = ""
    looks: int = 0
    looked: int = 0
    unreadable_looks: int = 0
    excluded: int | None = 0
    excluded_of_run: int = 0
    resumed: int = 0
    stretches: tuple[Stretch, ...] = ()
    has_own_criterion: bool | None = None

    unit: UnitKind = "photograph"
    groups: int = 0
    bursts: int | None = None
    lone: int = 0
    criterion: ThresholdCriterion | None = None
    assurance: Assurance | None = None
    bands: Bands | None = None
    flagged: Flagged | None = None
    out_of_fold: bool = False

    @property
    def is_same_site(self) -> bool:
        """Whether the photographs are stated to come from the site of the run's photographs."""
        here, there = (" ".join(site.split()).casefold() for site in (self.site, self.site_of_run))
        return bool(here) and here == there

    @property
    def n_related(self) -> int:
        """Number of photographs that are seen or have a relative."""
        return self.seen + sum(self.relatives.values())

    @property
    def n_unrelated(self) -> int:
        """Number of photographs without a known relative, if the run records which they are; else 0."""
        return self.n - len(self.related) if len(self.related) == self.n_related else 0


@dataclass(frozen=True)
class RunEvidence:
    """The recorded facts about the photographs of a run.

    Attributes:
        n: Number of photographs in its splits; 0 if these are not recorded.
        has_test: Whether it has a test split; None if its splits are not recorded.
        division: How photographs were assigned to splits: the fold of a manifest, the splits of one, or folders or a
            hash of the names, of which only the fractions are recorded.
        groups: Number of groups (tree, site, burst).
        shared: Names of the groups in more than one split.
        without_group: Number of photographs without a group.
        leaks: Number of photographs by kind of relative, split and split of the relative; None if not searched.
        splits: Description of the photographs of each split.
        test_looks: How often each run of the log folder evaluated the test split; None if not recorded.
        changes: The files that are not what they were when their SHA-256 was recorded; see `changed_since`.
        same_validation: Number of other runs of the log folder that have the same validation photographs; None if not
            known.
    """

    n: int = 0
    has_test: bool | None = None
    division: tuple[Literal["fold", "manifest", "folders"], str] = ("folders", "")
    groups: int = 0
    shared: tuple[str, ...] = ()
    without_group: int = 0
    leaks: Mapping[tuple[str, str, str], int] | None = None
    splits: Mapping[str, Description] = field(default_factory=dict)
    test_looks: Mapping[str, int] | None = None
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    same_validation: int | None = None


def evidence_of_run(data: RunData) -> RunEvidence:
    """Return what a run has recorded about its photographs."""
    splits_of: dict[str, set[str]] = {}
    for row in data.splits:
        if row.get("group"):
            splits_of.setdefault(row["group"], set()).add(row["split"])
    own, *others = data.log_folder
    val, test = own.digests.get("val"), own.digests.get("test", "")
    described = {split: [row for row in data.photographs if row.split == split] for split in ROLES}
    return RunEvidence(
        n=len(data.splits),
        has_test=any(row["split"] == "test" for row in data.splits) if data.splits else None,
        division=_division(data),
        groups=len(splits_of),
        shared=tuple(sorted(plain(name) for name, splits in splits_of.items() if len(splits) > 1)),
        without_group=sum(not row.get("group") for row in data.splits),
        leaks=None
        if data.leaks is None
        else Counter((row["kind"], row["split"], row["partner_split"]) for row in data.leaks),
        splits={split: describe(rows, data.classes.positive) for split, rows in described.items() if rows},
        test_looks=looks_at(test, data.log_folder) if test and own.entries is not None else None,
        changes=changed_since(data),
        same_validation=sum(other.digests.get("val") == val for other in others) if val else None,
    )


def _division(data: RunData) -> tuple[Literal["fold", "manifest", "folders"], str]:
    if fold := data.setting("data", "fold"):
        return "fold", fold
    if data.setting("data", "manifest"):
        return "manifest", ""
    return "folders", " and ".join(filter(None, (data.setting("data", f"{one}_fraction") for one in ("val", "test"))))


def evidence_of(data: RunData, evaluation: Evaluation) -> Evidence:
    """Return what a run has recorded about one of its evaluations."""
    role, known = evaluation.role, evaluation.provenance.known or {}
    n = len(evaluation.rows)
    seen_paths = _seen_paths(data, evaluation)
    seen = n if role in ("training", "validation") else sum(known.get(name, 0) for name in (*SEEN, "seen"))
    closest = {path: kind for path, kind in _relatives(data, evaluation).items() if path not in seen_paths}
    counts = Counter(closest.values())
    near = evaluation.provenance.near_training_photographs
    if near is not None:  # of a set of another folder; only their number is recorded, which includes those seen
        counts["near"] = max(counts["near"], min(near, n - sum(counts[k] for k in ("source", "burst", "group"))) - seen)
    # The run has searched its own photographs, not those that were added to its test split later.
    own = data.leaks is not None and known.get("test", n) == n
    units = [row.unit for row in evaluation.rows]
    number = Counter(unit.kind for unit in set(units) if unit)
    recorded = all(row.burst is not None for row in evaluation.rows)
    criterion, assurance = _of_threshold(data, evaluation)
    return Evidence(
        role=role,
        n=n,
        out_of_fold=evaluation.is_out_of_fold,
        known=known,
        seen=seen,
        relatives={kind: counts[kind] for kind in KINDS if counts[kind]},
        related=seen_paths | closest.keys(),
        searched=near is not None if role in ("external", "mixed", "unknown") else own,
        **_circumstances(data, evaluation),
        unit=unit_kind(units),
        groups=number["group"],
        bursts=number["burst"] if recorded else None,
        lone=units.count(None),
        criterion=criterion,
        assurance=assurance,
        bands=evaluation.bands,
        flagged=evaluation.flagged,
    )


def _circumstances(data: RunData, evaluation: Evaluation) -> dict[str, Any]:
    """Return the facts about an evaluation that do not depend on whose photographs it has."""
    digest = evaluation.provenance.dataset_fingerprint
    looks, resumed = looks_at(digest, data.log_folder), data.environment.get("continued")
    # A fit records together what it excluded from all splits, an evaluation of its own what it excluded from its set.
    own = evaluation.role in ROLES.values() and not evaluation.excluded
    return {
        "dataset_digest": digest,
        "site": evaluation.provenance.site,
        "site_of_run": text_at(data.config, "card", "site") or text_at(data.config, "card", "sites"),
        "looks": sum(looks.values()),
        "looked": len(looks),
        "unreadable_looks": sum(run.unreadable for run in data.log_folder),
        "excluded": None if own and data.excluded else len(evaluation.excluded),
        "excluded_of_run": len(data.excluded),
        "resumed": len(resumed) if isinstance(resumed, list) else 0,
        "stretches": stretches_of(data),
        "has_own_criterion": data.has_own_criterion,
    }


def stretches_of(data: RunData) -> tuple[Stretch, ...]:
    """Return the parts of the training that its weights come from."""
    steps = [step for row in data.epochs if (step := row.get("step")) is not None]
    return read_stretches(data.environment, int(max(steps)) + 1 if steps else None)


def threshold_again(data: RunData, validation: Evaluation, criterion: ThresholdCriterion) -> float:
    """Return the threshold that a criterion chooses on the recorded predictions."""
    effect = effect_of(data, validation, criterion)
    return choose_threshold(validation.labels(data.classes), validation.probabilities, criterion, effect)


def effect_of(data: RunData, validation: Evaluation, criterion: ThresholdCriterion) -> float:
    """Return the design effect of the sampling units of the class that a criterion's minimum is about."""
    return design_effect(validation.units[_class_of(data, validation, criterion)])


def _of_threshold(data: RunData, evaluation: Evaluation) -> tuple[ThresholdCriterion | None, Assurance | None]:
    """Return the criterion by which the threshold was chosen on these photographs, and what it assures."""
    criterion = data.criterion if evaluation.role == "validation" else None
    if criterion is None:
        return None, None
    threshold = evaluation.point.threshold
    if abs(threshold_again(data, evaluation, criterion) - threshold) > 1e-6:
        return None, None
    of_class = _class_of(data, evaluation, criterion)
    is_right = (evaluation.probabilities >= threshold) == (evaluation.labels(data.classes) == 1)
    return criterion, assurance_of(criterion, is_right[of_class], evaluation.units[of_class])


def _class_of(data: RunData, evaluation: Evaluation, criterion: ThresholdCriterion) -> NDArray[np.bool_]:
    """Return which photographs are of the class that the criterion's minimum is about, (n,)."""
    is_positive: NDArray[np.bool_] = evaluation.labels(data.classes) == 1
    return ~is_positive if criterion.minimum and criterion.minimum[0] == "specificity" else is_positive


def _seen_paths(data: RunData, evaluation: Evaluation) -> frozenset[str]:
    """Return the photographs of an evaluation that trained or chose the classifier."""
    if evaluation.role in ("training", "validation"):
        return frozenset(row.path for row in evaluation.rows)
    contents = {row.sha256 for row in data.photographs if row.split in SEEN} - {""}
    return frozenset(row.path for row in evaluation.photographs if row.sha256 in contents)


def _relatives(data: RunData, evaluation: Evaluation) -> dict[str, Kind]:
    """Return the closest kind of relative by path, of the photographs of the run in an evaluation."""
    own = _own_paths(data, evaluation)
    found: dict[str, Kind] = {}
    for row in data.leaks or ():
        kind: Kind | None = next((one for one in KINDS if one == row["kind"]), None)
        for path in own.get(row.get("photograph", ""), ()):
            if kind and row["partner_split"] in SEEN:
                found[path] = min(found.get(path, kind), kind, key=KINDS.index)
    groups = {row["group"] for row in data.splits if row["split"] in SEEN and row.get("group")}
    for row in data.splits:
        for path in own.get(row["path"], ()) if row.get("group") in groups else ():
            found.setdefault(path, "group")
    return found


def _own_paths(data: RunData, evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the paths in the evaluation of the photographs of the run, by their paths in the run."""
    if evaluation.photographs:  # of another folder, in which they may have other names
        there: dict[str, list[str]] = {}
        for row in evaluation.photographs:
            there.setdefault(row.sha256, []).append(row.path)
        return {row.path: there[row.sha256] for row in data.photographs if row.sha256 and row.sha256 in there}
    if evaluation.role not in ROLES.values():  # photographs of others may have the same names
        return {}
    paths = {row.path for row in evaluation.rows}
    return {row["path"]: [row["path"]] for row in data.splits if row["path"] in paths}
