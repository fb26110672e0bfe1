"""Read the labels, splits and groups of a table as they were meant, where only one reading is possible, and say so."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches

from bldml.dataset.files import show_path
from bldml.dataset.samples import SPLITS
from bldml.dataset.tables.columns import SPLIT_NAMES
from bldml.dataset.tables.paths import from_windows, is_utf8, numbers_of_date
from bldml.io.text import counted, first_few

_DECIMAL = re.compile(r"(\d+)[.,]0")  # a whole number that a program had as a decimal number
_SET = re.compile(r"[-_ ]*(?:set|data|split|images|samples)$|/$")  # train_set, train/
_SHOWN = 5
_SHORTEST, _YES_NO = 2, ("true", "false", "yes", "no")  # like several splits, or like none
_NO_LABEL = ("nan", "<na>", "#n/a")
_MISSING = (*_NO_LABEL, "null")  # what programs write into empty cells; a class may be called null


class CellValues:
    """Reads cells of one table.

    Args:
        column: Returns all cells of a column; called only if one of them looks as if a program had changed it.
    """

    def __init__(self, column: Callable[[str], Iterable[str]]) -> None:
        self._column = column
        self._all_decimal: dict[str, bool] = {}
        self._read: Counter[tuple[str, str, str]] = Counter()  # column, text, what it was read as
        self.unknown_splits: Counter[str] = Counter()  # rows by the text of a cell that names no split
        self._first_row: dict[str, int] = {}  # of each spelling of a split
        self._not_utf8 = 0  # cells
        self._dates: dict[str, str] = {}  # one text that looks like a date, by column

    def split(self, text: str, row: int) -> str:
        """Return the split that a cell means; empty if that is not known."""
        split = text if text in SPLITS else _split_named(text)
        if split:
            self._first_row.setdefault(text, row)
            self._note("split", text, split)
        else:
            self.unknown_splits[text] += 1
        return split

    def label(self, text: str, as_bytes: bool) -> str:
        """Return the label that a cell means, empty for none; bytes that are not UTF-8 stay if `as_bytes`."""
        if text.casefold() in _NO_LABEL:
            return ""
        return self._whole("label", text if as_bytes else self._decoded(text))

    def group(self, text: str, as_bytes: bool) -> str:
        """Return the group that a cell means; bytes as in `label`."""
        if text.casefold() in _MISSING:
            self._note("group", text, "")
            return ""
        return self._whole("group", text if as_bytes else self._decoded(text))

    def problems(self) -> Iterator[tuple[int, str, str]]:
        """Yield row, kind and text of each split that has two names, which may be two splits."""
        for split in SPLITS:
            names = {text.casefold(): text for text in self._first_row if _split_named(text) == split}
            if len(names) > 1:
                row = max(self._first_row[text] for text in names.values())
                text = f"{' and '.join(map(show_path, names.values()))} would both be {split}; use one name"
                yield row, "split-ambiguous", text

    def notes(self) -> list[str]:
        """Return what was read as something else, one sentence for each column."""
        read: dict[str, list[str]] = defaultdict(list)
        for (column, text, value), count in self._read.items():
            verb = "as" if read[column] else "was read as"
            rows = counted(count, "row")
            read[column].append(f"{show_path(text)} {verb} {show_path(value) or f'no {column}'} in {rows}")
        found = [f"{first_few(texts, _SHOWN, ', ', ', and ')}." for texts in read.values()]
        if self._not_utf8:
            found.append(f"{counted(self._not_utf8, 'cell')} without UTF-8 were read as Windows-1252.")
        found += [
            f"{show_path(text)} in the column {column} looks like a date that a spreadsheet made of another text, such "
            f"as {numbers_of_date(text)[0]}. Check this column."
            for column, text in self._dates.items()
        ]
        return found

    def _decoded(self, text: str) -> str:
        self._not_utf8 += not is_utf8(text)
        return from_windows(text)

    def _note(self, column: str, text: str, value: str) -> None:
        if text != value:
            self._read[column, text, value] += 1

    def _whole(self, column: str, text: str) -> str:
        """Return a whole number without the decimal point that a program added to all of its column."""
        if numbers_of_date(text) and not re.match(r"\d{4}", text):
            self._dates.setdefault(column, text)
        if not (match := _DECIMAL.fullmatch(text)):
            return text
        if column not in self._all_decimal:
            cells = (cell.strip() for cell in self._column(column))
            self._all_decimal[column] = all(not c or c.casefold() in _MISSING or _DECIMAL.fullmatch(c) for c in cells)
        if not self._all_decimal[column]:
            return text
        self._note(column, text, match[1])
        return match[1]


def _split_named(text: str) -> str:
    """Return the split that others call so; empty if there is none.

    >>> _split_named("Training"), _split_named("val_set"), _split_named("left")
    ('train', 'val', '')
    """
    name = unicodedata.normalize("NFC", text).casefold()
    return SPLIT_NAMES.get(name) or SPLIT_NAMES.get(_SET.sub("", name), "")


def unknown_split(text: str) -> str:
    """Return what to say of a cell that names no split.

    >>> unknown_split("vall"), unknown_split("left")
    ("unknown split 'vall'; did you mean val?", "unknown split 'left' (use train, val, test)")
    """
    if not text:
        return f"no split (use {', '.join(SPLITS)})"
    if len(text) < _SHORTEST or text.casefold() in _YES_NO:
        return f"unknown split {text!r} (use {', '.join(SPLITS)})"
    close = get_close_matches(text.casefold(), SPLIT_NAMES, 1, 0.7)
    if close:
        return f"unknown split {text!r}; did you mean {SPLIT_NAMES[close[0]]}?"
    return f"unknown split {text!r} (use {', '.join(SPLITS)})"
