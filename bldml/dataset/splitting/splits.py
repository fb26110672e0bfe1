"""Assign photographs to splits and folds: groups stay whole, classes are balanced, previous assignments are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bldml.dataset.files import show_path
from bldml.dataset.samples import SPLITS, Collection, Sample
from bldml.dataset.splitting.groups import Join
from bldml.dataset.splitting.partition import Counts, divide_groups, missing_classes
from bldml.dataset.splitting.previous import KeptAssignments
from bldml.errors import DatasetError, UsageError
from bldml.io.text import counted

MOST_SHOWN = 5
MOST_CONFLICTS = 3


@dataclass(frozen=True)
class SplitRequest:
    """The requested splits and folds.

    Args:
        val: Fraction of the validation split, in [0, 1); `with_folds` refuses 0 without folds.
        test: Fraction of the test split, in [0, 1); 0 for none.
        folds: Number of cross-validation folds of the non-test photographs, at least 2; None for no folds.
        seed: Random seed for ties.

    Raises:
        UsageError: A value is out of its range.
    """

    val: float = 0.2
    test: float = 0.2
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UsageError(
                f"--val {self.val:g} and --test {self.test:g} must each be at least 0, and their sum below 1: the rest "
                "is for training.",
                "proportions-wrong",
                val=self.val,
                test=self.test,
            )
        if self.folds is not None and self.folds < 2:
            raise UsageError(
                f"--folds must be at least 2, not {self.folds}.", "folds-too-few", found=self.folds, expected=2
            )

    @property
    def fractions(self) -> tuple[float, ...]:
        """Fractions of train, val and test."""
        return (1 - self.val - self.test, self.val, self.test)

    def with_folds(self, folds: int | None) -> "SplitRequest":
        """Return the request with this number of folds, as resolved against the previous manifest.

        Raises:
            UsageError: There is neither a validation split nor folds.
        """
        if self.val == 0 and folds is None:
            raise UsageError(
                "--val 0 needs folds, because training selects the best epoch on val. Set --val above 0, or --folds 5.",
                "val-empty",
            )
        return replace(self, folds=folds)


@dataclass(frozen=True)
class _Groups:
    """Groups of photographs: the name, the samples' indexes and the class counts of each."""

    names: list[str]
    members: list[list[int]]
    counts: Counts

    def subset(self, numbers: Sequence[int]) -> "_Groups":
        return _Groups(
            [self.names[i] for i in numbers], [self.members[i] for i in numbers], self.counts[np.array(numbers, int)]
        )


def divide_samples(
    root: Path,
    samples: Sequence[Sample],
    digests: Mapping[str, str],
    request: SplitRequest,
    kept: KeptAssignments | None = None,
    joins: Sequence[Join] = (),
) -> Collection:
    """Assign photographs to splits and folds.

    Args:
        root: Folder that names are relative to.
        samples: All photographs, with the groups that must not be divided.
        digests: SHA-256 of their files, by name.
        request: Requested splits and folds.
        kept: Previous assignments to keep; they hold for the whole group of a photograph.
        joins: Groups that were joined; for messages.

    Returns:
        A collection with the splits, sorted by name, and with folds if requested.

    Raises:
        DatasetError: The request cannot be met; the message gives the reason.
    """
    samples = sorted(samples, key=lambda sample: sample.name)
    class_names = sorted({sample.class_name for sample in samples})
    groups = _grouped(samples, class_names)
    previous = {} if kept is None else kept.assignments

    def assigned(i: int, part: str) -> str:
        assignment = previous.get(samples[i].name)
        return "" if assignment is None else assignment.fold if part == "fold" else assignment.split

    fractions = request.fractions
    names = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction]
    _check_possible(groups, class_names, len(names), f"{len(names)} splits ({', '.join(names)})", joins)
    fixed = _fixed_parts(groups, samples, [[assigned(i, "split") for i in m] for m in groups.members], SPLITS, joins)
    parts = divide_groups(groups.counts, groups.names, fractions, request.seed, fixed)
    used_parts = [i for i, fraction in enumerate(fractions) if fraction]
    _check_filled(groups, parts, SPLITS, used_parts, class_names)
    folds: dict[str, str] = {}
    if request.folds is not None:
        rest = groups.subset([i for i, part in enumerate(parts) if SPLITS[part] != "test"])
        labels = [str(k) for k in range(request.folds)]
        _check_possible(rest, class_names, request.folds, f"{request.folds} folds outside the test split", joins)
        fixed = _fixed_parts(rest, samples, [[assigned(i, "fold") for i in m] for m in rest.members], labels, joins)
        equal = [1 / request.folds] * request.folds
        in_fold = divide_groups(rest.counts, rest.names, equal, request.seed, fixed)
        _check_filled(rest, in_fold, [f"fold {k}" for k in labels], range(request.folds), class_names)
        folds = {samples[i].name: labels[k] for k, m in zip(in_fold, rest.members, strict=True) for i in m}
    split_of = {i: SPLITS[part] for part, members in zip(parts, groups.members, strict=True) for i in members}
    splits = {split: tuple(s for i, s in enumerate(samples) if split_of[i] == split) for split in SPLITS}
    return Collection(root, {k: v for k, v in splits.items() if v}, digests=digests, folds=folds)


def _grouped(samples: Sequence[Sample], class_names: Sequence[str]) -> _Groups:
    """Return the groups; a photograph without a group forms its own."""
    members: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        members.setdefault(sample.group or f"\0{sample.name}", []).append(i)
    number = {name: k for k, name in enumerate(class_names)}
    counts = np.zeros((len(members), len(class_names)), dtype=np.int64)
    for g, indexes in enumerate(members.values()):
        for i in indexes:
            counts[g, number[samples[i].class_name]] += 1
    # Named by the first photograph, because the names of groups may change when others join.
    return _Groups([samples[indexes[0]].name for indexes in members.values()], list(members.values()), counts)


def _fixed_parts(
    groups: _Groups,
    samples: Sequence[Sample],
    assigned: Sequence[Sequence[str]],
    labels: Sequence[str],
    joins: Sequence[Join],
) -> list[int]:
    """Return the part that each group is already assigned to, -1 for none."""
    number = {label: k for k, label in enumerate(labels)}
    fixed, apart = [], []
    for inside, found in zip(groups.members, assigned, strict=True):
        distinct = sorted({label for label in found if label})
        if len(distinct) > 1:
            apart.append((inside, found))
        fixed.append(number[distinct[0]] if distinct else -1)
    if not apart:
        return fixed
    listed = []
    for inside, found in apart[:MOST_CONFLICTS]:
        distinct = sorted({label for label in found if label})
        first = [show_path(samples[inside[found.index(label)]].name) for label in distinct]
        examples = [
            f"{name} ({'' if label in SPLITS else 'fold '}{label})" for name, label in zip(first, distinct, strict=True)
        ]
        new = [show_path(samples[i].name) for i, label in zip(inside, found, strict=True) if not label]
        between = f"; new in this group: {', '.join(new[:MOST_SHOWN])}{', …' if len(new) > MOST_SHOWN else ''}"
        listed.append("\n  " + ", ".join(examples) + (between if new else ""))
    if len(apart) > MOST_CONFLICTS:
        listed.append(f"\n  … and {len(apart) - MOST_CONFLICTS} more")
    # If no photograph of a group is new, the groups themselves have changed.
    others = sum(all(found) for _, found in apart)
    remedy = "Use the previous --group and --gap_seconds, choose" if others else "Remove the new photographs, choose"
    because = f"In {counted(others, 'group')} no photograph is new: the grouping has changed. " if others else ""
    joined = _joined(joins, {samples[i].name for inside, _ in apart for i in inside}).strip()
    raise DatasetError(
        f"In the existing manifest, photographs of one group are in different splits or folds "
        f"({counted(len(apart), 'group')}):{''.join(listed)}\n{joined}{' ' if joined else ''}{because}"
        f"Existing assignments are never changed. {remedy} another --output, or start over with --fresh.",
        "previous-groups-apart",
        found=len(apart),
        without_new=others,
    )


def _check_possible(
    groups: _Groups, class_names: Sequence[str], n_parts: int, what: str, joins: Sequence[Join]
) -> None:
    for k, name in enumerate(class_names):
        holders = np.flatnonzero(groups.counts[:, k])
        if len(holders) >= n_parts:
            continue
        first = ", ".join(
            f"{show_path(groups.names[g])}: {counted(groups.counts[g, k], 'photograph')}" for g in holders[:MOST_SHOWN]
        )
        raise DatasetError(
            f"Class {show_path(name)} has {counted(len(holders), 'group')}"
            f"{f' ({first})' if first else ''}; {what} need at least {n_parts}, because groups are never divided."
            f"{_joined(joins)} Use fewer splits or folds, use smaller groups, or add photographs.",
            "class-in-too-few-groups",
            found=len(holders),
            expected=n_parts,
            class_name=name,
        )


def _check_filled(
    groups: _Groups, parts: Sequence[int], labels: Sequence[str], used_parts: Sequence[int], class_names: Sequence[str]
) -> None:
    empty = [(p, k) for p, k in missing_classes(groups.counts, parts, len(labels)) if p in used_parts]
    if empty:
        listed = ", ".join(f"{show_path(class_names[k])} in {labels[p]}" for p, k in empty)
        raise DatasetError(
            f"No split with both classes in every part was found. Missing: {listed}. Groups contain several classes, "
            "or existing assignments leave no choice. Use fewer folds or smaller groups, or start over with --fresh.",
            "split-impossible",
        )


def _joined(joins: Sequence[Join], names: set[str] | None = None) -> str:
    """Return a sentence about the joins that made groups larger."""
    chosen = [join for join in joins if names is None or names & set(join.names)]
    if not chosen:
        return ""
    more = f"; and {len(chosen) - MOST_SHOWN} more" if len(chosen) > MOST_SHOWN else ""
    return f" {'; '.join(map(str, chosen[:MOST_SHOWN]))}{more}."
