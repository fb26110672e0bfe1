"""Labels that a table has as one column for each class, with 1 in one of them: read if each row has exactly one 1."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bldml.dataset.files import show_path
from bldml.dataset.tables.columns import SPLIT_NAMES
from bldml.io.text import counted, first_few

_YES, _NO = ("1", "1.0", "1,0", "true", "yes", "x"), ("0", "0.0", "0,0", "false", "no")
_SHOWN = 5


class OneHot(NamedTuple):
    """Columns of 0 and 1, not of empty cells alone, by number and name, and what keeps them from being the label."""

    places: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    problem: str = ""

    def label(self, cells: Sequence[str]) -> str:
        """Return the name of the column that has 1."""
        return next(
            (n for i, n in zip(self.places, self.names, strict=True) if i < len(cells) and _is_yes(cells[i])), ""
        )


def find_one_hot(rows: Iterable[tuple[int, Sequence[str]]], columns: Sequence[str], known: Sequence[str]) -> OneHot:
    """Find the columns that may be classes.

    Args:
        rows: Number and cells of each row below the header.
        columns: Names of the columns.
        known: Names that say something else.
    """
    names = {i: name for i, name in enumerate(columns) if name and name not in known and not _is_split(name)}
    kept = [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]
    for _, cells in kept:
        names = {
            i: name
            for i, name in names.items()
            if (cells[i] if i < len(cells) else "").strip().casefold() in (*_YES, *_NO, "")
        }
    filled = {i for _, cells in kept for i, cell in enumerate(cells) if cell.strip()}
    names = {i: name for i, name in names.items() if i in filled}
    used = {i: name for i, name in names.items() if any(i < len(cells) and _is_yes(cells[i]) for _, cells in kept)}
    places, shown = tuple(names), ", ".join(map(show_path, names.values()))
    if not used:
        return OneHot()
    if len(names) == 1:
        problem = (
            f"{shown} has only 0 and 1, or no and yes. If it says the class, write the class's name into a column label"
        )
        return OneHot(places, tuple(names.values()), problem)
    wrong = []
    for number, cells in kept:
        yes = [name for i, name in used.items() if i < len(cells) and _is_yes(cells[i])]
        if len(yes) != 1:
            wrong.append(f"row {number} ({' and '.join(map(show_path, yes)) or 'none'})")
    if not wrong:
        return OneHot(places, tuple(names.values()))
    rows_wrong = counted(len(wrong), "row has", "rows have")
    problem = (
        f"{shown} have only 0 and 1 and could be classes, but {rows_wrong} none or several of them: "
        f"{first_few(wrong, _SHOWN, ', ', ', and ')}. Correct them, or write the class into a column label"
    )
    return OneHot(places, tuple(names.values()), problem)


def _is_yes(cell: str) -> bool:
    return cell.strip().casefold() in _YES


def _is_split(name: str) -> bool:
    plain = name.casefold()
    return plain in SPLIT_NAMES or plain.startswith(("is_", "fold", "in_"))
