"""Assign photographs to splits and folds: groups stay whole, classes are balanced, previous assignments are kept."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bldml.dataset.files import show_path
from bldml.dataset.samples import SPLITS, Collection, Sample
from bldml.dataset.splitting.groups import Join
from bldml.dataset.splitting.partition import Counts, divide_groups, missing_classes
from bldml.dataset.splitting.previous import Assignment, KeptAssignments
from bldml.errors import DatasetError, UsageError
from bldml.io.text import counted, first_few

MOST_SHOWN = 5
MOST_CONFLICTS = 3
LARGEST_FOLDS = 1000


@dataclass(frozen=True)
class SplitRequest:
    """The requested splits and folds.

    Args:
        val: Fraction of the validation split, in [0, 1); 0 needs folds.
        test: Fraction of the test split, in [0, 1); 0 for none.
        folds: Number of cross-validation folds of the non-test photographs, 2 to 1000; None for no folds.
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
            message = (
                f"--val {self.val:g} and --test {self.test:g} must each be at least 0, and their sum below 1: the rest "
                "is for training."
            )
            raise UsageError(message, "fractions-wrong", val=self.val, test=self.test)
        if self.folds is not None and not 2 <= self.folds <= LARGEST_FOLDS:
            message = f"--folds must be from 2 to {LARGEST_FOLDS}, not {str(self.folds)[:40]}."
            raise UsageError(message, "folds-out-of-range", found=self.folds, expected=(2, LARGEST_FOLDS))

    @property
    def fractions(self) -> dict[str, float]:
        """Fraction of each split."""
        return dict(zip(SPLITS, (1 - self.val - self.test, self.val, self.test), strict=True))

    def following(self, previous: Sequence[Assignment]) -> "SplitRequest":
        """Return the request with the number of folds in the previous manifest, if that has folds.

        Another number of folds is a DatasetError, neither a validation split nor folds a UsageError.
        """
        found = max((int(assignment.fold) + 1 for assignment in previous if assignment.fold), default=None)
        if found and self.folds not in (None, found):
            message = (
                f"The existing manifest has {found} folds, --folds is {self.folds}. Omit --folds, choose another "
                "--output, or start over with --fresh."
            )
            raise DatasetError(message, "folds-differ", found=self.folds, expected=found)
        folds = found or self.folds
        if self.val == 0 and folds is None:
            raise UsageError(
                "--val 0 needs folds, because training selects the best epoch on val. Set --val above 0, or --folds 5.",
                "val-empty",
            )
        return replace(self, folds=folds)


def assign_samples(
    root: Path,
    samples: Sequence[Sample],
    digests: Mapping[str, str],
    request: SplitRequest,
    kept: KeptAssignments | None = None,
    joins: Sequence[Join] = (),
) -> Collection:
    """Assign photographs to splits, sorted by name, and to folds if requested.

    Args:
        root: Folder that names are relative to.
        samples: All photographs, with the groups that must not be divided.
        digests: SHA-256 of their files, by name.
        request: Requested splits and folds.
        kept: Previous assignments to keep; they hold for the whole group of a photograph.
        joins: Groups that were joined; for messages.

    Raises:
        DatasetError: The request cannot be met.
    """
    samples = sorted(samples, key=lambda sample: sample.name)
    class_names = sorted({sample.class_name for sample in samples})
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        members[sample.group or f"\0{sample.name}"].append(sample)
    groups = list(members.values())
    previous = {} if kept is None else kept.assignments

    fractions = request.fractions
    names = [split for split, fraction in fractions.items() if fraction]
    what = f"{len(names)} splits ({', '.join(names)})"
    before = {name: assignment.split for name, assignment in previous.items()}
    in_split = _assign(groups, class_names, fractions, what, before, request.seed, joins)
    folds: dict[str, str] = {}
    if request.folds is not None:
        rest = [group for group, split in zip(groups, in_split, strict=True) if split != "test"]
        fractions = {f"fold {k}": 1 / request.folds for k in range(request.folds)}
        what = f"{request.folds} folds outside the test split"
        before = {name: f"fold {assignment.fold}" for name, assignment in previous.items() if assignment.fold}
        in_fold = _assign(rest, class_names, fractions, what, before, request.seed, joins)
        folds = {s.name: fold.removeprefix("fold ") for group, fold in zip(rest, in_fold, strict=True) for s in group}
    split_of = {s.name: split for group, split in zip(groups, in_split, strict=True) for s in group}
    splits = {split: tuple(s for s in samples if split_of[s.name] == split) for split in SPLITS}
    return Collection(root, {k: v for k, v in splits.items() if v}, digests=digests, folds=folds)


def _assign(
    groups: Sequence[Sequence[Sample]],
    class_names: Sequence[str],
    fractions: Mapping[str, float],
    what: str,
    previous: Mapping[str, str],
    seed: int,
    joins: Sequence[Join],
) -> list[str]:
    """Return the split or fold of each group; `previous` holds those of its photographs, by name."""
    counters = [Counter(sample.class_name for sample in group) for group in groups]
    counts = np.array([[counter[name] for name in class_names] for counter in counters], np.int64)
    counts = counts.reshape(len(groups), len(class_names))
    labels, needed = list(fractions), sum(fraction > 0 for fraction in fractions.values())
    # Named by the first photograph, because the names of groups may change when others join.
    names = [group[0].name for group in groups]
    for k, name in enumerate(class_names):
        holders = np.flatnonzero(counts[:, k])
        if len(holders) < needed:
            raise _too_few(name, [(names[g], int(counts[g, k])) for g in holders], what, needed, joins)
    fixed = [labels.index(label) if label else -1 for label in _previous_labels(groups, previous, joins)]
    parts = divide_groups(counts, names, list(fractions.values()), seed, fixed)
    _check_filled(counts, parts, fractions, class_names)
    return [labels[part] for part in parts]


def _previous_labels(
    groups: Sequence[Sequence[Sample]], previous: Mapping[str, str], joins: Sequence[Join]
) -> list[str]:
    """Return the split or fold that each group is already in, "" for none."""
    # The first photograph of each, for the message.
    found = [{previous[s.name]: s.name for s in reversed(group) if s.name in previous} for group in groups]
    apart = [(group, first) for group, first in zip(groups, found, strict=True) if len(first) > 1]
    if not apart:
        return [next(iter(first), "") for first in found]
    listed, without_new, indent = [], 0, "\n  "
    for group, first in apart:
        text = ", ".join(f"{show_path(name)} ({label})" for label, name in sorted(first.items()))
        new = [show_path(sample.name) for sample in group if sample.name not in previous]
        without_new += not new
        more = ", …" if len(new) > MOST_SHOWN else ""
        listed.append(f"{text}; new in this group: {', '.join(new[:MOST_SHOWN])}{more}" if new else text)
    because, remedy = "", "Remove the new photographs"
    if without_new:
        because = f"In {counted(without_new, 'group')} no photograph is new: the grouping has changed. "
        remedy = "Use the previous --group and --gap_seconds"
    joined = _joined(joins, {sample.name for group, _ in apart for sample in group}).strip()
    message = (
        f"In the existing manifest, photographs of one group are in different splits or folds "
        f"({counted(len(apart), 'group')}):{indent}{first_few(listed, MOST_CONFLICTS, indent, f'{indent}… and ')}\n"
        f"{joined}{' ' if joined else ''}{because}"
        f"Existing assignments are never changed. {remedy}, choose another --output, or start over with --fresh."
    )
    raise DatasetError(message, "previous-groups-apart", found=len(apart), without_new=without_new)


def _too_few(
    name: str, holders: Sequence[tuple[str, int]], what: str, needed: int, joins: Sequence[Join]
) -> DatasetError:
    first = ", ".join(f"{show_path(group)}: {counted(count, 'photograph')}" for group, count in holders[:MOST_SHOWN])
    message = (
        f"Class {show_path(name)} has {counted(len(holders), 'group')}{f' ({first})' if first else ''}; {what} "
        f"need at least {needed}, because groups are never divided.{_joined(joins)} Use fewer splits or folds, use "
        "smaller groups, or add photographs."
    )
    return DatasetError(message, "class-in-too-few-groups", found=len(holders), expected=needed, class_name=name)


def _check_filled(
    counts: Counts, parts: Sequence[int], fractions: Mapping[str, float], class_names: Sequence[str]
) -> None:
    labels = list(fractions)
    empty = [(labels[p], class_names[k]) for p, k in missing_classes(counts, parts, len(labels))]
    listed = ", ".join(f"{show_path(name)} in {label}" for label, name in empty if fractions[label])
    if listed:
        raise DatasetError(
            f"No split with both classes in every part was found. Missing: {listed}. Groups contain several classes, "
            "or existing assignments leave no choice. Use fewer folds or smaller groups, or start over with --fresh.",
            "split-impossible",
        )


def _joined(joins: Sequence[Join], names: set[str] | None = None) -> str:
    """Return a sentence about the joins that made groups larger."""
    chosen = [str(join) for join in joins if names is None or names & set(join.names)]
    return f" {first_few(chosen, MOST_SHOWN)}." if chosen else ""
