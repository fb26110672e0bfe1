"""Divide photographs into splits and folds: groups whole, classes alike, old ones where they were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bldml.dataset.files import show_path
from bldml.dataset.samples import SPLITS, Collection, Sample
from bldml.dataset.splitting.groups import Join
from bldml.dataset.splitting.partition import Counts, divide_groups, lacking
from bldml.dataset.splitting.previous import Kept
from bldml.errors import DatasetError
from bldml.io.text import counted

MOST_SHOWN = 5
MOST_CONFLICTS = 3


@dataclass(frozen=True)
class SplitRequest:
    """What is asked for.

    Args:
        val: Share of the validation split, in (0, 1), or 0 where there are folds (see `with_folds`).
        test: Share of the test split, in [0, 1); 0 for none.
        folds: Parts, at least 2, into which all that is not test is divided once more; None for no folds.
        seed: Decides between divisions that are equally good.

    Raises:
        DatasetError: These are no such shares.
    """

    val: float = 0.2
    test: float = 0.2
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise DatasetError(
                f"--val {self.val:g} and --test {self.test:g} must each be at least 0 and together below 1, so that "
                "something is left for training."
            )
        if self.folds is not None and self.folds < 2:
            raise DatasetError(f"--folds must be at least 2, not {self.folds}.")

    @property
    def shares(self) -> tuple[float, ...]:
        """Of train, val and test."""
        return (1 - self.val - self.test, self.val, self.test)

    def with_folds(self, folds: int | None) -> "SplitRequest":
        """The same with the folds that there are to be, once an earlier division has been looked at.

        Raises:
            DatasetError: Neither a validation split nor folds are left.
        """
        if self.val == 0 and folds is None:
            raise DatasetError("--val 0 leaves nothing to choose the best epoch on. Give a share, or --folds 5.")
        return replace(self, folds=folds)


@dataclass(frozen=True)
class _Groups:
    """Groups of photographs, in an order of their own."""

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
    kept: Kept | None = None,
    joins: Sequence[Join] = (),
) -> Collection:
    """Divide photographs.

    Args:
        root: The folder that names are relative to.
        samples: All photographs, with the groups that must not be divided.
        digests: SHA-256 of their contents, by name.
        request: What is asked for.
        kept: The places that photographs have already and keep, with all of their group.
        joins: What made one group of several; for messages.

    Returns:
        A collection with the splits, in the order of the names, and with folds if they were asked for.

    Raises:
        DatasetError: It cannot be; the message says why.
    """
    samples = sorted(samples, key=lambda sample: sample.name)
    class_names = sorted({sample.class_name for sample in samples})
    groups = _grouped(samples, class_names)
    places = {} if kept is None else kept.places

    def place(i: int, part: str) -> str:
        found = places.get(samples[i].name)
        return "" if found is None else found.fold if part == "fold" else found.split

    shares = request.shares
    names = [split for split, share in zip(SPLITS, shares, strict=True) if share]
    _check_possible(groups, class_names, len(names), f"{len(names)} splits ({', '.join(names)})", joins)
    placed = _placed(groups, samples, [[place(i, "split") for i in m] for m in groups.members], SPLITS, joins)
    parts = divide_groups(groups.counts, groups.names, shares, request.seed, placed)
    open_parts = [i for i, share in enumerate(shares) if share]
    _check_filled(groups, parts, SPLITS, open_parts, class_names)
    folds: dict[str, str] = {}
    if request.folds is not None:
        rest = groups.subset([i for i, part in enumerate(parts) if SPLITS[part] != "test"])
        labels = [str(k) for k in range(request.folds)]
        _check_possible(rest, class_names, request.folds, f"{request.folds} folds outside the test split", joins)
        placed = _placed(rest, samples, [[place(i, "fold") for i in m] for m in rest.members], labels, joins)
        equal = [1 / request.folds] * request.folds
        in_fold = divide_groups(rest.counts, rest.names, equal, request.seed, placed)
        _check_filled(rest, in_fold, [f"fold {k}" for k in labels], range(request.folds), class_names)
        folds = {samples[i].name: labels[k] for k, m in zip(in_fold, rest.members, strict=True) for i in m}
    split_of = {i: SPLITS[part] for part, members in zip(parts, groups.members, strict=True) for i in members}
    splits = {split: tuple(s for i, s in enumerate(samples) if split_of[i] == split) for split in SPLITS}
    return Collection(root, {k: v for k, v in splits.items() if v}, digests=digests, folds=folds)


def _grouped(samples: Sequence[Sample], class_names: Sequence[str]) -> _Groups:
    """The groups, each photograph without one on its own."""
    members: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        members.setdefault(sample.group or f"\0{sample.name}", []).append(i)
    number = {name: k for k, name in enumerate(class_names)}
    counts = np.zeros((len(members), len(class_names)), dtype=np.int64)
    for g, inside in enumerate(members.values()):
        for i in inside:
            counts[g, number[samples[i].class_name]] += 1
    # Called by their first photograph: the names of groups may change when others join.
    return _Groups([samples[inside[0]].name for inside in members.values()], list(members.values()), counts)


def _placed(
    groups: _Groups,
    samples: Sequence[Sample],
    places: Sequence[Sequence[str]],
    labels: Sequence[str],
    joins: Sequence[Join],
) -> list[int]:
    """The part that each group has already, -1 for none."""
    number = {label: k for k, label in enumerate(labels)}
    placed, apart = [], []
    for inside, found in zip(groups.members, places, strict=True):
        distinct = sorted({place for place in found if place})
        if len(distinct) > 1:
            apart.append((inside, found))
        placed.append(number[distinct[0]] if distinct else -1)
    if not apart:
        return placed
    listed = []
    for inside, found in apart[:MOST_CONFLICTS]:
        distinct = sorted({place for place in found if place})
        first = [show_path(samples[inside[found.index(place)]].name) for place in distinct]
        examples = [
            f"{name} ({'' if place in SPLITS else 'fold '}{place})" for name, place in zip(first, distinct, strict=True)
        ]
        new = [show_path(samples[i].name) for i, place in zip(inside, found, strict=True) if not place]
        between = f"; new between them: {', '.join(new[:MOST_SHOWN])}{', …' if len(new) > MOST_SHOWN else ''}"
        listed.append("\n  " + ", ".join(examples) + (between if new else ""))
    if len(apart) > MOST_CONFLICTS:
        listed.append(f"\n  … and {len(apart) - MOST_CONFLICTS} more")
    # Where no photograph was added between them, it is the groups that have changed.
    others = sum(all(found) for _, found in apart)
    remedy = "Remove the new ones, give" if not others else "Ask for the same --group (and --gap_seconds) as then, give"
    because = f"In {others} of them no photograph is new: the groups are other ones than then. " if others else ""
    joined = _joined(joins, {samples[i].name for inside, _ in apart for i in inside}).strip()
    raise DatasetError(
        f"Photographs that must stay together lie apart in the earlier division, in {counted(len(apart), 'group')}:"
        f"{''.join(listed)}\n{joined}{' ' if joined else ''}{because}"
        f"Old photographs keep their places. {remedy} another --output, or start over with --fresh."
    )


def _check_possible(
    groups: _Groups, class_names: Sequence[str], n_parts: int, what: str, joins: Sequence[Join]
) -> None:
    for k, name in enumerate(class_names):
        holders = np.flatnonzero(groups.counts[:, k])
        if len(holders) >= n_parts:
            continue
        first = ", ".join(
            f"that of {show_path(groups.names[g])} with {counted(groups.counts[g, k], 'photograph')}"
            for g in holders[:MOST_SHOWN]
        )
        raise DatasetError(
            f"Class {show_path(name)} comes in {counted(len(holders), 'group')}"
            f"{f' ({first})' if first else ''}; {what} need at least {n_parts}, because a group is never divided."
            f"{_joined(joins)} Ask for fewer or larger parts, or for smaller groups, or add photographs."
        )


def _check_filled(
    groups: _Groups, parts: Sequence[int], labels: Sequence[str], open_parts: Sequence[int], class_names: Sequence[str]
) -> None:
    empty = [(p, k) for p, k in lacking(groups.counts, parts, len(labels)) if p in open_parts]
    if empty:
        listed = ", ".join(f"{show_path(class_names[k])} in {labels[p]}" for p, k in empty)
        raise DatasetError(
            f"No division was found that leaves no class out of a part; missing: {listed}. Groups hold several "
            "classes, or old photographs keep their places (--fresh starts over). Ask for fewer parts or smaller "
            "groups."
        )


def _joined(joins: Sequence[Join], names: set[str] | None = None) -> str:
    """A sentence about what made groups larger."""
    chosen = [join for join in joins if names is None or names & set(join.names)]
    if not chosen:
        return ""
    more = f"; and {len(chosen) - MOST_SHOWN} more" if len(chosen) > MOST_SHOWN else ""
    return f" {'; '.join(map(str, chosen[:MOST_SHOWN]))}{more}."
