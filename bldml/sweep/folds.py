"""The folds of an experiment: one manifest each, in which the fold is test and other groups are val and train."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.dataset.folders import read_folders
from bldml.dataset.manifest import read_manifest, to_manifest
from bldml.dataset.samples import SPLITS, Collection, Sample, check_positive_class, check_trainable
from bldml.dataset.splitting.command import own_groups
from bldml.dataset.splitting.splits import SplitRequest, assign_samples
from bldml.dataset.splitting.together import Together, find_together
from bldml.errors import DatasetError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import counted, first_few
from bldml.run.digests.content import digest_of_text
from bldml.sweep.experiment import Division
from bldml.sweep.plan import SweepFolder


@dataclass(frozen=True)
class Photographs:
    """Which photographs an experiment uses, as `LeafDataModule` takes them."""

    root: Path | None
    manifest: Path | None
    class_aliases: Mapping[str, str] | None
    test_fraction: float
    positive_class: str | None
    unreadable: str

    @property
    def folder(self) -> Path:
        """The folder that paths of a manifest start from."""
        folder = self.root or (self.manifest.parent if self.manifest else None)
        assert folder is not None  # the parser of fit, which came before, requires one of the two
        return folder


@dataclass(frozen=True)
class Folds:
    """The folds of an experiment.

    Attributes:
        collections: The photographs of each fold's runs by its number: the fold as test, other groups as val and train.
        sealed: The photographs that are in none of them.
        final: The sealed photographs as test, all others as train and val; for the one look at the test set. None if
            no photograph is sealed.
        notes: What a user should know about them, in sentences.
    """

    collections: Mapping[int, Collection]
    sealed: tuple[Sample, ...]
    final: Collection | None
    notes: tuple[str, ...]


def make_folds(photographs: Photographs, division: Division) -> Folds:
    """Read all photographs and divide those that are not sealed; groups, bursts and duplicates stay together.

    The test split of a manifest or of split folders is sealed as it is; of a flat folder, `test_fraction` of the
    photographs are sealed, by group.

    Raises:
        ConfigError, DatasetError: They cannot be divided so; nothing was written.
    """
    collection = _read(photographs)
    check_positive_class(photographs.positive_class, collection.class_names)
    samples = sorted(collection.samples(), key=lambda sample: sample.name)
    together, notes = _together(collection, samples, division)
    if together.unreadable and photographs.unreadable == "error":
        names = [f"{show_path(one.sample.name)}: {one.reason}" for one in together.unreadable]
        message = (
            f"{counted(len(names), 'photograph')} in {show_path(collection.root)} cannot be read:\n  "
            + first_few(names, 10, "\n  ", "\n  … and ")
            + "\nReplace or remove them, or exclude them with data.unreadable: exclude."
        )
        raise DatasetError(message, "sweep-photographs-unreadable", path=collection.root, found=names)
    own_split = {sample.name: split for split, part in collection.splits.items() for sample in part}
    is_flat = photographs.manifest is None and not set(_folders(collection.root)) & set(SPLITS)
    if not is_flat:
        notes += _across(together.samples, own_split)
    fold_of = _divided(collection, together, own_split, photographs, division, is_flat=is_flat)
    in_folds = [sample for sample in together.samples if sample.name in fold_of]
    if is_apart := _apart(in_folds, fold_of):
        notes.append(is_apart)
    folds = sorted(set(fold_of.values()))
    made = {}
    for fold in folds:
        inside = tuple(sample for sample in in_folds if fold_of[sample.name] == fold)
        outside = [sample for sample in in_folds if fold_of[sample.name] != fold]
        made[fold] = _tested_on(inside, outside, f"fold {fold}", collection.root, together, division)
    sealed = tuple(sample for sample in together.samples if sample.name not in fold_of)
    final = _tested_on(sealed, in_folds, "the test set", collection.root, together, division) if sealed else None
    return Folds(made, sealed, final, tuple(notes))


def _folders(root: Path) -> list[str]:
    return [folder.name for folder in root.iterdir() if folder.is_dir()]


def _read(photographs: Photographs) -> Collection:
    aliases = photographs.class_aliases
    if photographs.manifest is not None:
        return read_manifest(photographs.manifest, photographs.root, aliases)
    return read_folders(photographs.folder, aliases=aliases)


def _together(collection: Collection, samples: Sequence[Sample], division: Division) -> tuple[Together, list[str]]:
    if any(sample.group for sample in samples) and not division.group:
        own, notes = [sample.group for sample in samples], list[str]()
    else:
        names = [sample.name for sample in samples]
        own, notes = own_groups(division.group or "burst", names, collection.root, division.gap_seconds)
    gap = 0.0 if division.group == "none" else division.gap_seconds
    together = find_together(collection.root, samples, own, gap)
    return together, [*notes, *together.notes]


def _divided(
    collection: Collection,
    together: Together,
    own_split: Mapping[str, str],
    photographs: Photographs,
    division: Division,
    *,
    is_flat: bool,
) -> dict[str, int]:
    """Return the fold of each photograph that is not sealed, by its name."""
    samples = together.samples if is_flat else [one for one in together.samples if own_split[one.name] != "test"]
    stored = {name: fold for name, fold in collection.folds.items() if own_split.get(name) != "test"}
    if stored and not is_flat:
        return _stored_folds(collection, samples, stored, division)
    if division.number is None:
        message = "folds: manifest needs data.manifest with the column fold, as python -m bldml split … --folds 5 "
        message += "writes it. Write the number of folds instead to have them made here."
        raise DatasetError(message, "sweep-folds-not-stored", path=photographs.manifest or collection.root)
    test = photographs.test_fraction if is_flat else 0.0
    request = SplitRequest(val=0.0, test=test, folds=division.number, seed=division.seed)
    made = assign_samples(collection.root, samples, together.digests, request, joins=together.joins)
    return {name: int(fold) for name, fold in made.folds.items()}


def _stored_folds(
    collection: Collection, samples: Sequence[Sample], stored: Mapping[str, str], division: Division
) -> dict[str, int]:
    """Return the folds of the manifest, which every photograph outside the test split must have."""
    without = [sample.name for sample in samples if sample.name not in stored]
    wrong = sorted({fold for fold in stored.values() if not fold.isdecimal()})
    if without or wrong:
        problem = (
            f"{counted(len(without), 'photograph')} outside the test split without a fold, such as "
            f"{show_path(without[0])}"
            if without
            else f"a fold that is no number, {wrong[0]}"
        )
        message = f"The manifest has {problem}. Fill its column fold with numbers from 0, or remove the column."
        raise DatasetError(message, "sweep-folds-incomplete", found=without[:10] or wrong)
    number = len(set(stored.values()))
    if number < 2 or division.number not in (None, number):
        message = (
            f"The manifest has {counted(number, 'fold')}, the experiment asks for {division.number or 'two or more'}."
        )
        message += " Write folds: manifest to use those of the manifest, or remove its column fold."
        raise DatasetError(message, "sweep-folds-differ", found=number, expected=division.number)
    classes = collection.class_names
    for fold in sorted(set(stored.values()), key=int):
        inside = {sample.class_name for sample in samples if stored[sample.name] == fold}
        if missing := [name for name in classes if name not in inside]:
            message = (
                f"Fold {fold} of the manifest has no photograph of class {show_path(missing[0])}: its run could not "
            )
            message += "be evaluated. Use fewer folds, or divide the photographs anew: python -m bldml split --fresh."
            raise DatasetError(message, "sweep-fold-lacks-class", found=fold, class_name=missing[0])
    return {name: int(fold) for name, fold in stored.items()}


def _across(samples: Sequence[Sample], split_of: Mapping[str, str]) -> list[str]:
    """Say how many photographs outside the test split are of a group, burst or duplicate of one in it."""
    sealed = {sample.group for sample in samples if split_of[sample.name] == "test"} - {""}
    beside = [s.name for s in samples if s.group in sealed and split_of[s.name] != "test"]
    if not beside:
        return []
    count = counted(len(beside), "photograph")
    return [
        f"Warning: {count} outside the test split with a duplicate, or of a group or burst, in it, such as "
        f"{show_path(beside[0])}. The test set will flatter; python -m bldml audit shows them."
    ]


def _apart(samples: Sequence[Sample], fold_of: Mapping[str, int]) -> str:
    """Say how many groups are in several folds, which only folds of a manifest can be; empty if none is."""
    folds: dict[str, set[int]] = defaultdict(set)
    for sample in samples:
        if sample.group:
            folds[sample.group].add(fold_of[sample.name])
    apart = [group for group, found in folds.items() if len(found) > 1]
    if not apart:
        return ""
    count = counted(len(apart), "group is", "groups are")
    return (
        f"Warning: {count} in several folds of the manifest, such as {show_path(apart[0])}. "
        "The figures will flatter; python -m bldml split --fresh divides the photographs anew."
    )


def _tested_on(
    inside: tuple[Sample, ...],
    outside: Sequence[Sample],
    what: str,
    root: Path,
    together: Together,
    division: Division,
) -> Collection:
    """Return the photographs of one run: those that it is tested on, and the others as train and val."""
    request = SplitRequest(val=division.val, test=0.0, seed=division.seed)
    try:
        made = assign_samples(root, outside, together.digests, request, joins=together.joins)
    except DatasetError as error:
        error.add_note(f"This is about the photographs outside {what}, which are divided into train and val.")
        raise
    made = replace(made, splits={**made.splits, "test": inside}, digests=together.digests)
    check_trainable(made)
    return made


def describe_folds(folds: Folds) -> list[str]:
    """Return a table of the folds, and what a user should know about them, as lines."""
    lines = []
    for number, collection in folds.collections.items():
        parts = []
        for split, samples in collection.splits.items():
            counts = Counter(sample.class_name for sample in samples)
            shown = ", ".join(f"{count} {show_path(name)}" for name, count in sorted(counts.items()))
            parts.append(f"{split} {shown}")
        lines.append(f"  fold {number}: {'; '.join(parts)}")
    sealed = f"{counted(len(folds.sealed), 'photograph')} sealed as the test set: in no run of the experiment."
    return [
        f"Folds, each the test split of its runs. {sealed if folds.sealed else 'No test set is sealed.'}",
        *lines,
        *folds.notes,
    ]


def write_folds(folder: SweepFolder, folds: Folds) -> dict[str, str]:
    """Write the manifests of the folds, and return the SHA-256 of their contents by file name."""
    make_folder(folder.final.parent)
    texts = {folder.manifest(number): _text(collection) for number, collection in folds.collections.items()}
    if folds.final is None:
        folder.final.unlink(missing_ok=True)  # of an earlier plan
    else:
        texts[folder.final] = _text(folds.final)
    for path, text in texts.items():
        write_atomically(path, text)
    return {path.name: digest_of_text(path.name, text) for path, text in texts.items()}


def _text(collection: Collection) -> str:
    """Return a manifest with the classes before aliases, which a run applies when it reads the manifest."""
    splits = {
        split: tuple(replace(one, class_name=one.original_class or one.class_name) for one in samples)
        for split, samples in collection.splits.items()
    }
    return to_manifest(replace(collection, splits=splits))
