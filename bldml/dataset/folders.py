"""Read samples from folders: `root/{train,val,test}/<class>/**`, `root/<class>/**`, or photographs without labels."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath

from bldml.dataset.files import (
    HIDDEN,
    escape_path,
    is_folder,
    is_ignored_name,
    list_folder,
    search_folders,
    show_path,
    subfolders,
)
from bldml.dataset.samples import LOOSE, SPLITS, Collection, Sample, Samples, class_name
from bldml.errors import ConfigError, DatasetError


def read_folders(
    root: Path,
    *,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    aliases: Mapping[str, str] | None = None,
    whole: bool = False,
) -> Collection:
    """Read a folder of class folders, or of split folders that contain class folders.

    Args:
        root: Folder with `train`, `val` and optionally `test`, or with one folder per class.
        val_fraction: Fraction of a flat folder that becomes the validation split, in (0, 1).
        test_fraction: Fraction of a flat folder that becomes the test split, in [0, 1).
        aliases: Class name for a folder's name, where they differ.
        whole: Read for an evaluation: only `test` of split folders, or all of a flat folder as `test`.

    Raises:
        DatasetError: The folder is missing or cannot be listed, or it has split folders without the one needed.
    """
    require_folder(root)
    present = {folder.name for folder in subfolders(root)}
    ignored: Counter[str] = Counter()
    places = {"": root}  # by split; without split folders the class folders are in the root
    if present & set(SPLITS):
        if whole and "test" not in present:
            message = f"{show_path(root)} has split folders ({', '.join(sorted(present))}) but no test folder. Add one."
            raise DatasetError(message, "test-folder-missing", path=root, found=sorted(present))
        misnamed = sorted(name for name in present if name.lower() in ("valid", "validation", "dev"))
        if "val" not in present and misnamed and not whole:
            message = f"{show_path(root)} has a folder named {misnamed[0]}. Rename it to val."
            raise DatasetError(message, "val-folder-misnamed", path=root, found=misnamed[0], expected="val")
        places = {split: root / split for split in SPLITS if split in present}
        ignored["folder that is not a split"] += len(present - set(SPLITS))
    # The other splits are searched for a whole test split as well: a file that it only links to belongs to them.
    folders = [(split, folder) for split, place in places.items() for folder in subfolders(place)]
    found = search_folders(root, (folder for _, folder in folders))
    names = ["test"] if whole else list(places)
    if "" in places and not whole:
        names = [split for split in SPLITS if split != "test" or test_fraction > 0]
    read = {split: place for split, place in places.items() if split in ("", *names)}
    for place in {root, *read.values()}:
        ignored.update(_loose_files(place))

    splits = {split: Samples(root) for split in names}
    heif: list[Path] = []
    for (own_split, folder), photographs in zip(folders, found, strict=True):
        if own_split not in read:
            continue
        ignored.update(photographs.ignored)
        heif += photographs.heif
        if not photographs.photographs:
            ignored["folder without photographs"] += 1
        label = class_name(folder.name, aliases)
        for path in photographs.photographs:
            split = own_split or ("test" if whole else split_of(path.relative_to(folder), val_fraction, test_fraction))
            splits[split].append(_sample(path, root, label, class_name(folder.name)))
    return Collection(root, splits, +ignored, tuple(heif))


def read_unlabelled(root: Path) -> Collection:
    """Read all photographs below a folder, or one photograph, into a split named `predict`; DatasetError otherwise."""
    if os.path.isfile(root):  # noqa: PTH113  # Path.is_file raises PermissionError before Python 3.14
        return Collection(root.parent, {"predict": (_sample(root, root.parent, ""),)})
    require_folder(root)
    (found,) = search_folders(root, [root])
    samples = Samples(root, (_sample(path, root, "") for path in found.photographs))
    return Collection(root, {"predict": samples}, found.ignored, tuple(found.heif))


def split_of(path: PurePath, val_fraction: float, test_fraction: float) -> str:
    """Return the split of a photograph in a flat folder, as a function of its name only.

    Files that are added later do not change the split of existing ones, and each class is split in the same proportions
    (up to chance). Case and suffix are ignored, so that `a.JPG` and `a.jpg`, often the same photograph, stay together.
    The path is that below the class folder.

    >>> [split_of(PurePath(f"leaf_{i}.jpg"), 0.2, 0.2) for i in range(5)]
    ['train', 'train', 'train', 'test', 'val']
    """
    text = os.fsencode(path.with_suffix("").as_posix()).decode("utf-8", "surrogateescape")
    key = unicodedata.normalize("NFC", text).casefold().encode("utf-8", "surrogateescape")
    position = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction else "train"


def require_folder(root: Path) -> None:
    """Raise DatasetError unless a data folder exists, can be reached, and is a folder."""
    try:
        root.stat()
    except (FileNotFoundError, NotADirectoryError):
        message = f"The data folder {show_path(root)} does not exist (current folder: {show_path(Path.cwd())})."
        raise DatasetError(message, "data-folder-missing", path=root) from None
    except OSError as error:
        message = f"The data folder {show_path(root)} cannot be reached: {error.strerror}."
        raise DatasetError(message, "data-folder-unreachable", path=root, reason=error.strerror) from error
    if not is_folder(root):
        raise DatasetError(f"{show_path(root)} is not a folder.", "data-folder-no-folder", path=root)


def check_outside(place: Path, option: str, root: Path | None, manifest: Path | None) -> None:
    """Raise a ConfigError if a folder for results lies among photographs in folders; links are followed.

    There it would be read as photographs, or a class. A manifest says itself what is read.
    """
    if root is None or manifest is not None or not root.is_dir():
        return
    if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(root)):
        message = f"{option} {show_path(place)} lies in the folder of the photographs, {show_path(root.absolute())}. "
        message += "Choose one outside it: what lies there is read as photographs, or as a class."
        raise ConfigError(message, "output-among-photographs", path=place, root=root)


def _loose_files(folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for entry in list_folder(folder):
        if is_ignored_name(entry.name):
            counts[HIDDEN] += 1
        elif not is_folder(folder / entry.name):
            counts[LOOSE] += 1
    return counts


def _sample(path: Path, root: Path, label: str, original: str = "") -> Sample:
    return Sample(path, escape_path(path.relative_to(root)), label, original_class=original)
