"""What file names reveal: photographs of the same name, and names that mark a copy."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bldml.dataset.duplicates.graph import groups_of_equal
from bldml.dataset.samples import SPLITS

# What Windows, macOS, phones and photo programs add to a name, in English, German, French, Spanish and Italian.
_COPY = r"(?:copy|kopie|copie|copia)"
_EDITED = r"(?:edited|edit|bearbeitet|modifi[ée]e?|editad[oa]|modificat[oa])"
_MARKS = re.compile(
    rf"^{_COPY}(?: ?\(\d{{1,3}}\))? (?:of|von|de|di) "  # Copy of x, Copy (2) of x, Kopie von x
    rf"|(?: ?[-–_] ?| ){_COPY}(?: ?\(?\d{{1,3}}\)?)?$"  # x - Copy (2), x copy 2, x_copy
    rf"|[-_ ]{_EDITED}(?:-\d{{1,2}})?$"  # x_edited, x-bearbeitet
    r"|(?<=.) ?\(\d{1,3}\)$"  # x (1); Windows also numbers all files of a selection like this
    r"|(?<=.)~\d{1,2}$"  # x~2
)
_PHONE_EDITED = re.compile(r"^img_e(?=\d{4}$)")


@dataclass(frozen=True)
class Copy:
    """Two photographs of which one is named as a copy of the other.

    Attributes:
        original: Index of the photograph with the plainer name.
        copy: Index of the other photograph.
    """

    original: int
    copy: int


def same_name_groups(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return groups of files in one folder whose names differ only in case, suffix or Unicode form.

    >>> same_name_groups(["BLD/a.jpg", "BLD/a.JPG", "BLD/A.jpeg", "No_BLD/a.jpg"])
    [(0, 1, 2)]
    """
    return groups_of_equal([(name.rpartition("/")[0], plain_stem(name)) for name in names])


def copies_by_name(names: Sequence[str]) -> list[Copy]:
    """Return photographs that are named as copies of another one in their folder; a name alone proves nothing.

    Split folders are ignored: `val/BLD/a (1).jpg` may be a copy of `train/BLD/a.jpg`.

    >>> copies_by_name(["BLD/a.jpg", "BLD/a - Copy (2).jpg", "BLD/Kopie von a.jpg", "BLD/b.jpg"])
    [Copy(original=0, copy=1), Copy(original=0, copy=2)]
    """
    families: dict[tuple[str, str], list[tuple[int, str, int]]] = defaultdict(list)
    for i, name in enumerate(names):
        stem = plain_stem(name)
        bare = without_copy_marks(stem)
        families[folder_without_split(name), bare].append((len(stem) - len(bare), name, i))
    copies = []
    for family in families.values():
        if len(family) > 1:
            (_, _, original), *others = sorted(family)
            copies += [Copy(original, i) for marks, _, i in others if marks]
    return sorted(copies, key=lambda copy: (copy.original, copy.copy))


def folder_without_split(name: str) -> str:
    """Return the folder of a photograph without the split folder.

    >>> folder_without_split("train/BLD/tree 1/a.jpg"), folder_without_split("BLD/a.jpg"), folder_without_split("a.jpg")
    ('BLD/tree 1', 'BLD', '')
    """
    parts = name.removeprefix("./").split("/")[:-1]
    return "/".join(parts[1:] if parts and parts[0] in SPLITS else parts)


def plain_stem(name: str) -> str:
    """Return a file's name without folder and suffix, case-folded, in Unicode form NFC."""
    file = unicodedata.normalize("NFC", name.rpartition("/")[2])
    return (file.rpartition(".")[0] or file).casefold()


def without_copy_marks(stem: str) -> str:
    """Return a lower-case stem without the marks of a copy.

    >>> [without_copy_marks(s) for s in ("a - copie (2)", "copy of a", "a (1)", "a-edited", "img_e0012", "leaf_1")]
    ['a', 'a', 'a', 'a', 'img_0012', 'leaf_1']
    """
    while (bare := _MARKS.sub("", stem, count=1)) != stem and bare:
        stem = bare
    return _PHONE_EDITED.sub("img_", stem)
