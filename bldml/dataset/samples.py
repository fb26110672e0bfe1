"""Samples, splits and classes of a labelled collection of photographs."""

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import chain
from operator import eq
from pathlib import Path
from typing import overload

from bldml.dataset.contents import Texts
from bldml.dataset.files import escape_text, list_folder, shell_word, show_path, subfolders, unescape_path
from bldml.errors import DatasetError

SPLITS = ("train", "val", "test")
LOOSE = "file outside the class folders"  # why it is ignored


@dataclass(frozen=True, slots=True)
class Sample:
    """One photograph."""

    path: Path
    name: str  # path below the data folder as text for a table (see `files.escape_path`); identifies the sample
    class_name: str = ""  # name of its class after aliases; empty where unknown
    group: str = ""  # group (tree, site, burst) that must not be divided; empty where unknown
    original_class: str = field(default="", compare=False)  # before aliases: its folder's or the manifest's name


class Samples(Sequence[Sample]):
    """Sequence of samples in a few arrays; objects with their paths would need ten times the memory.

    Names are relative to `root`; samples outside it are stored with their own path.
    """

    def __init__(self, root: Path, samples: Iterable[Sample] = ()) -> None:
        self.root = root
        self.names = Texts()
        self._groups = Texts()
        self._classes: list[tuple[str, str]] = []  # after and before aliases
        self._class = array("i")  # its number
        self._elsewhere: dict[int, Path] = {}
        for sample in samples:
            self.append(sample)

    def append(self, sample: Sample) -> None:
        """Append a sample."""
        if str(self._path(sample.name)) != str(sample.path):
            self._elsewhere[len(self)] = sample.path
        classes = sample.class_name, sample.original_class
        if classes not in self._classes:
            self._classes.append(classes)
        self._class.append(self._classes.index(classes))
        self._groups.append(sample.group)
        self.names.append(sample.name)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        name = self.names[index]
        path = self._elsewhere.get(index) or self._path(name)
        class_name, original_class = self._classes[self._class[index]]
        return Sample(path, name, class_name, self._groups[index], original_class)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _path(self, name: str) -> Path:
        return self.root / (unescape_path(name) if "\\x" in name else name)


@dataclass(frozen=True)
class Collection:
    """Samples by split, and the files that were ignored."""

    root: Path  # folder that names are relative to
    splits: Mapping[str, Sequence[Sample]]  # samples of each existing split, in a fixed order
    ignored: Mapping[str, int] = field(default_factory=dict)  # number of ignored files, links and folders, by reason
    heif: tuple[Path, ...] = ()  # HEIC photographs that were skipped because they need the extra `bldml[heif]`
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by sample name, where the manifest has one
    folds: Mapping[str, str] = field(default_factory=dict)  # number of the fold as text, likewise
    notes: tuple[str, ...] = field(default=(), compare=False)  # how a manifest was read that was written otherwise

    def samples(self) -> Iterator[Sample]:
        """Yield all samples, split after split."""
        return chain.from_iterable(self.splits.values())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that contain a photograph, in alphabetical order."""
        return tuple(sorted({sample.class_name for sample in self.samples()} - {""}))

    def counts(self) -> dict[str, Counter[str]]:
        """Return the number of photographs of each class in each split."""
        return {split: Counter(s.class_name for s in samples) for split, samples in self.splits.items()}

    def without(self, names: Iterable[str]) -> "Collection":
        """Return the collection without the samples of these names."""
        excluded = set(names)
        if not excluded:
            return self
        rest = {k: Samples(self.root, (s for s in v if s.name not in excluded)) for k, v in self.splits.items()}
        return replace(self, splits=rest)


def class_name(text: str, aliases: Mapping[str, str] | None = None) -> str:
    """Return the class of a folder's name or a manifest's label; `aliases` holds it where they differ.

    White space at both ends is ignored, and names are compared in Unicode form NFC, because macOS decomposes accents.

    >>> class_name(" 1_BLD", {"1_BLD": "BLD"})
    'BLD'
    """
    name = _plain(text)
    return {_plain(key): _plain(value) for key, value in (aliases or {}).items()}.get(name, name)


def _plain(text: str) -> str:
    return escape_text(unicodedata.normalize("NFC", text.strip() or text))


def _same_but_for_spelling(names: Sequence[str]) -> str:
    """Return aliases that merge classes whose names differ in capitals, spaces, - and _ alone, if two are left.

    >>> _same_but_for_spelling(["BLD", "No_BLD", "bld", "no bld"]), _same_but_for_spelling(["BLD", "No_BLD", "spot"])
    ('{bld: BLD, no bld: No_BLD}', '')
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault("".join(c for c in name.casefold() if c not in " -_"), name)
    same = {name: first["".join(c for c in name.casefold() if c not in " -_")] for name in names}
    aliases = ", ".join(f"{name}: {other}" for name, other in same.items() if name != other)
    return f"{{{aliases}}}" if len(first) == 2 and not any(c in "'\"{}[]#&*!|>%@`:," for n in names for c in n) else ""


def check_trainable(collection: Collection) -> None:
    """Raise DatasetError unless a train and a val split exist, and every split contains exactly two classes."""
    names = collection.class_names
    where = f"in {show_path(collection.root)}"
    if not any(collection.splits.values()):
        raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
    if len(names) == 1:
        message = f"Found one class {where}: {names[0]}. Two classes are required, each in its own folder. Ignored: "
        message += f"{_ignored(collection)}."
        raise DatasetError(message, "classes-not-two", path=collection.root, found=[*names])
    if len(names) > 2:
        aliases = _same_but_for_spelling(names) or "{NAME: OTHER}"
        message = f"Found {len(names)} classes {where}: {', '.join(names)}. Two classes are required. Move the other "
        message += f"folders away, or merge classes: with --data.class_aliases '{aliases}', "
        message += f"{aliases[1:].partition(':')[0]} counts as {aliases[1:-1].partition(', ')[0].partition(': ')[2]}."
        raise DatasetError(message, "classes-not-two", path=collection.root, found=[*names])
    for split in ("train", "val"):
        if split not in collection.splits:
            numbers = sorted(set(collection.folds.values()), key=lambda fold: (len(fold), fold))
            hint = f"\nTo use a fold as val: --data.fold {numbers[0]}." if numbers else ""
            message = f"There is no {split} split {where}. Found: {', '.join(collection.splits)}.{hint}"
            raise DatasetError(message, "split-missing", path=collection.root, split=split, found=[*collection.splits])
    for split, count in collection.counts().items():
        if not count:
            raise DatasetError(f"The {split} split {where} is empty.", "split-empty", path=collection.root, split=split)
        for name in names:
            if not count[name]:
                table = "; ".join(
                    f"{other}: {', '.join(f'{counts[each]} {each}' for each in names)}"
                    for other, counts in collection.counts().items()
                )
                message = (
                    f"Class {name} is missing from the {split} split {where} ({table}). "
                    "Add photographs, or assign them to splits in a CSV file and set --data.manifest."
                )
                raise DatasetError(message, "class-missing-in-split", path=collection.root, split=split, found=name)


def no_photographs(collection: Collection) -> str:
    """Return the message that no photograph was found, with the files that were ignored.

    Photographs without class folders may have their labels in a table beside them, which is then named.
    """
    message = f"There are no photographs in {show_path(collection.root)}. Ignored: {_ignored(collection)}."
    if not collection.ignored.get(LOOSE):
        return message
    folders = [collection.root, *subfolders(collection.root)]
    tables = (
        folder / one.name for folder in folders for one in list_folder(folder) if one.name.lower().endswith(".csv")
    )
    if table := next(tables, None):
        options = f"{shell_word(table.parent)} --manifest {shell_word(table)}"
        message += f" If {show_path(table)} has the labels of photographs: python -m bldml split {options}."
    return message


def _ignored(collection: Collection) -> str:
    counts = dict(collection.ignored)
    if collection.heif:
        counts["HEIC photograph (install support with pip install 'bldml[heif]')"] = len(collection.heif)
    return "; ".join(f"{count} × {reason}" for reason, count in counts.items()) or "nothing"


def check_positive_class(positive_class: str | None, class_names: tuple[str, ...]) -> str:
    """Return the name of the positive class that the user set, or raise DatasetError if it is not one of the classes.

    None is accepted only if the classes are named 0 and 1.
    """
    found = ", ".join(class_names)
    if positive_class is None:
        if class_names == ("0", "1"):
            return "1"
        message = f"--data.positive_class is required: the name of the diseased class. Found: {found}."
        if null := [name for name in class_names if name.lower() in ("null", "~")]:
            message += f" In a configuration, quote a class that is called so: positive_class: '{null[0]}'."
        raise DatasetError(message, "positive-class-not-given", found=[*class_names])
    positive_class = class_name(positive_class)
    if positive_class not in class_names:
        near = get_close_matches(positive_class, class_names, 1, 0.3) or list(class_names[:1])
        raise DatasetError(
            f"There is no class {positive_class!r}. Found: {found}. Set --data.positive_class {near[0]}. If the "
            f"class has another name here, rename it: --data.class_aliases '{{NAME: {positive_class}}}'.",
            "positive-class-unknown",
            found=positive_class,
            expected=[*class_names],
            near=near[0],
        )
    return positive_class


def dataset_digest(samples: Iterable[Sample], digests: Iterable[str]) -> str:
    """Return the dataset digest of a split: SHA-256 over contents and classes, independent of names and order."""
    lines = sorted(f"{digest} {sample.class_name}\n" for sample, digest in zip(samples, digests, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
