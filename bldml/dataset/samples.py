"""What a labelled collection of photographs is: samples, splits, classes."""

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from operator import eq
from pathlib import Path
from typing import overload

from bldml.dataset.files import escape_text, show_path, unescape_path
from bldml.dataset.texts import Texts
from bldml.errors import DatasetError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One photograph.

    Attributes:
        path: The file.
        name: The path below the data folder as text for a table (see `files.escape_path`); the sample's identity.
        class_name: Name of its class after aliases; empty where unknown.
        group: What it must not be separated from (tree, site, burst); empty where unknown.
    """

    path: Path
    name: str
    class_name: str = ""
    group: str = ""


class Samples(Sequence[Sample]):
    """Many samples in few arrays; as objects with their paths they would take ten times the memory.

    Args:
        root: The folder that names are relative to. Samples that lie elsewhere are held, too.
        samples: Which.

    >>> list(Samples(Path("data"), [Sample(Path("data/a.jpg"), "a.jpg", "BLD")]))[0].class_name
    'BLD'
    """

    def __init__(self, root: Path, samples: Iterable[Sample] = ()) -> None:
        self.root = root
        self.names = Texts()
        self._groups = Texts()
        self._classes: list[str] = []
        self._class = array("i")  # its number
        self._elsewhere: dict[int, Path] = {}
        for sample in samples:
            self.append(sample)

    def append(self, sample: Sample) -> None:
        """Add one."""
        if str(self._path(sample.name)) != str(sample.path):
            self._elsewhere[len(self)] = sample.path
        if sample.class_name not in self._classes:
            self._classes.append(sample.class_name)
        self._class.append(self._classes.index(sample.class_name))
        self._groups.append(sample.group)
        self.names.append(sample.name)

    def __len__(self) -> int:
        """How many."""
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """One sample, or some."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        name = self.names[index]
        path = self._elsewhere.get(index) or self._path(name)
        return Sample(path, name, self._classes[self._class[index]], self._groups[index])

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same samples."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _path(self, name: str) -> Path:
        return self.root / (unescape_path(name) if "\\x" in name else name)


@dataclass(frozen=True)
class Collection:
    """Samples by split, and what was left out.

    Attributes:
        root: The folder that names are relative to.
        splits: Samples of each split that there is, in a fixed order.
        ignored: How many files, links and folders were left out, by reason.
        heif: HEIC photographs left out because they need the extra `bldml[heif]`.
        digests: SHA-256 that a file's content must have, by sample name, where a manifest says so.
        folds: Number of the fold as text, by sample name, where a manifest says so.
    """

    root: Path
    splits: Mapping[str, Sequence[Sample]]
    ignored: Mapping[str, int] = field(default_factory=dict)
    heif: tuple[Path, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    folds: Mapping[str, str] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that have a photograph, in alphabetical order."""
        return tuple(sorted({s.class_name for split in self.splits.values() for s in split if s.class_name}))

    def counts(self) -> dict[str, Counter[str]]:
        """Number of photographs of each class in each split."""
        return {split: Counter(s.class_name for s in samples) for split, samples in self.splits.items()}

    def without(self, names: Iterable[str]) -> "Collection":
        """The same collection without the samples of these names."""
        left_out = set(names)
        if not left_out:
            return self
        rest = {k: (s for s in v if s.name not in left_out) for k, v in self.splits.items()}
        splits = {split: Samples(self.root, samples) for split, samples in rest.items()}
        return replace(self, splits=splits)


def class_name(text: str, aliases: Mapping[str, str] | None = None) -> str:
    """The class that a folder's name or a manifest's label stands for.

    White space at the ends does not count, and letters with marks are compared as NFC: macOS writes them decomposed.

    Args:
        text: The name as found.
        aliases: Class name for a name as found, where they differ.

    >>> class_name(" 1_BLD", {"1_BLD": "BLD"})
    'BLD'
    """
    name = _plain(text)
    return {_plain(key): _plain(value) for key, value in (aliases or {}).items()}.get(name, name)


def _plain(text: str) -> str:
    return escape_text(unicodedata.normalize("NFC", text.strip() or text))


def check_trainable(collection: Collection) -> None:
    """Check that there are two classes, both in every split, and a train and a val split.

    Raises:
        DatasetError: They are not; the message gives the counts found.
    """
    names = collection.class_names
    table = "; ".join(
        f"{split}: " + (", ".join(f"{count[name]} {name}" for name in names) or "nothing")
        for split, count in collection.counts().items()
    )
    where = f"in {show_path(collection.root)}"
    if not any(collection.splits.values()):
        raise DatasetError(no_photographs(collection))
    if len(names) == 1:
        raise DatasetError(
            f"Two classes are needed, one was found {where}: {names[0]}. Give each class a folder. "
            f"Left out: {_left_out(collection)}."
        )
    if len(names) > 2:
        raise DatasetError(
            f"Two classes are needed, {len(names)} were found {where}: {', '.join(names)}. Move the others away, or "
            "join them by data.class_aliases (for example {anthracnose: healthy})."
        )
    for split in ("train", "val"):
        if split not in collection.splits:
            numbers = sorted(set(collection.folds.values()), key=lambda fold: (len(fold), fold))
            hint = f"\nOf the manifest's folds one becomes val: --data.fold {numbers[0]}" if numbers else ""
            raise DatasetError(f"There is no {split} split {where}; found: {', '.join(collection.splits)}.{hint}")
    for split, count in collection.counts().items():
        if not count:
            raise DatasetError(f"The {split} split {where} is empty.")
        for name in names:
            if not count[name]:
                raise DatasetError(
                    f"Class {name} is missing from the {split} split {where} ({table}). "
                    "Add photographs, or divide them yourself and give --data.manifest."
                )


def no_photographs(collection: Collection) -> str:
    """Say that no photograph was found, and what was found instead."""
    return f"No photographs were found in {show_path(collection.root)}. Left out: {_left_out(collection)}."


def _left_out(collection: Collection) -> str:
    counts = dict(collection.ignored)
    if collection.heif:
        counts["HEIC photograph, for which the extra is needed: pip install 'bldml[heif]'"] = len(collection.heif)
    return "; ".join(f"{count} × {reason}" for reason, count in counts.items()) or "nothing"


def check_positive_class(positive_class: str | None, class_names: tuple[str, ...]) -> str:
    """The positive class, checked.

    Args:
        positive_class: Its name as the user gave it. None is understood only for classes named 0 and 1.
        class_names: The two names found.

    Raises:
        DatasetError: It is not given or not one of the names.

    >>> check_positive_class("BLD", ("BLD", "No_BLD")), check_positive_class(None, ("0", "1"))
    ('BLD', '1')
    """
    found = ", ".join(class_names)
    if positive_class is None:
        if class_names == ("0", "1"):
            return "1"
        raise DatasetError(
            f"Which class is the positive one (the disease)? Give its name: --data.positive_class NAME. Found: {found}."
        )
    positive_class = class_name(positive_class)
    if positive_class not in class_names:
        near = get_close_matches(positive_class, class_names, 1, 0.3) or list(class_names[:1])
        raise DatasetError(
            f"The positive class {positive_class!r} is not among the classes found: {found}. Give "
            f"--data.positive_class {near[0]}, or rename by --data.class_aliases "
            f"'{{{near[0]}: {positive_class}}}'."
        )
    return positive_class


def dataset_digest(samples: Iterable[Sample], digests: Iterable[str]) -> str:
    """SHA-256 of a split: its photographs' contents and classes, whatever their names and order.

    Args:
        samples: The split's samples.
        digests: SHA-256 of each one's file.
    """
    lines = sorted(f"{digest} {sample.class_name}\n" for sample, digest in zip(samples, digests, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
