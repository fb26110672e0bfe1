"""The cell model of every page: the same table in HTML, as CSV with numbers in full, and as LaTeX."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.io.atomic import make_folder, write_atomically
from bldml.io.text import Cell, csv_text, latex_table, number, plain, with_apostrophe
from bldml.metrics.estimates import Estimate

ESTIMATE_COLUMNS = ("value", "low", "high", "method")


@dataclass(frozen=True)
class Entry:
    """A table cell as pages show it.

    Args:
        text: Its text.
        detail: Text below it, in smaller type.
        mark: Letter of its footnote.
        look: "missing" for a value that nobody stated, "faint" for one from too few photographs, "significant" for an
            adjusted p value that is significant, "" for any other.
    """

    text: str
    detail: str = ""
    mark: str = ""
    look: str = ""


Shown = str | int | Entry | None
"""A cell with the same text on the page and in the CSV file; None is a dash."""


@dataclass(frozen=True)
class Table:
    """A table of a report, a comparison or an audit.

    Args:
        name: Name of its files, and part of its HTML id.
        caption: One or two sentences.
        header: Titles of the columns.
        rows: Cells; the first of each row is its title.
        raw: Header and rows of the CSV file, numbers in full precision.
        notes: (letter, text) of each footnote.
        left_out: Number of rows that only the CSV file has.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    raw: tuple[Sequence[str], Sequence[Sequence[Cell]]]
    notes: tuple[tuple[str, str], ...] = ()
    left_out: int = 0


class Footnotes:
    """Footnotes of a table; each different text gets a letter, in order of first use.

    >>> notes = Footnotes()
    >>> notes.mark("Wilson"), notes.mark("DeLong"), notes.mark("Wilson"), notes.mark("")
    ('a', 'b', 'a', '')
    """

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """Return the letter of a text; empty for an empty text."""
        if not text:
            return ""
        rounds, letter = divmod(len(self._marks), 26)
        return self._marks.setdefault(text, string.ascii_lowercase[letter] * (rounds + 1))

    @property
    def all(self) -> tuple[tuple[str, str], ...]:
        """Letter and text of each footnote."""
        return tuple((mark, text) for text, mark in self._marks.items())


def text_table(name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Shown]]) -> Table:
    """Return a table whose CSV file has the same texts as the page.

    >>> text_table("n", "Photographs.", ["Split", "n"], [["train", 1200]]).rows[0][1].text
    '1,200'
    """
    shown = tuple(tuple(_entry(cell) for cell in row) for row in rows)
    raw = [[cell.text if isinstance(cell, Entry) else cell for cell in row] for row in rows]
    return Table(name, caption, tuple(header), shown, (header, raw))


def _entry(cell: Shown) -> Entry:
    if isinstance(cell, Entry):
        return cell
    if cell is None:
        return Entry("–")
    return Entry(count(cell) if isinstance(cell, int) else plain(cell))


def count(value: int) -> str:
    """Return a count with thousands separators.

    >>> count(10000)
    '10,000'
    """
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Return a duration as text, with two units at most.

    >>> duration(0.4), duration(75), duration(3 * 3600 + 125)
    ('< 1 s', '1 min 15 s', '3 h 2 min')
    """
    if seconds < 1:
        return "< 1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def precise_number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return a number with enough decimals that one between 0 and 1 is not rounded to 0 or 1.

    >>> precise_number(0.25), precise_number(0.99996), precise_number(1.0), precise_number(-0.00004, sign=True)
    ('0.250', '0.99996', '1.000', '−0.00004')
    """
    if value is not None and 0 < abs(value) < 1:
        while digits < 15 and round(abs(value), digits) in (0, 1):
            digits += 1
    return number(value, digits, sign=sign)


def interval_text(estimate: Estimate, *, sign: bool = False) -> str:
    """Return the interval in brackets; empty where the estimate has none.

    >>> from bldml.metrics.estimates import Interval
    >>> interval_text(Estimate(0.5, Interval(0.25, 0.75, "Wilson")))
    '[0.250, 0.750]'
    """
    if estimate.interval is None:
        return ""
    return f"[{number(estimate.interval.low, sign=sign)}, {number(estimate.interval.high, sign=sign)}]"


def estimate_entry(estimate: Estimate, notes: Footnotes, fraction: str = "", *, sign: bool = False) -> Entry:
    """Return an estimate as a cell, with a fraction such as 40/45, its interval, and the letter of its footnote.

    The footnote is the method of the interval, or the reason for a missing value. With `sign`, a number above 0 gets a
    plus sign, as in a difference.
    """
    if estimate.value is None:
        return Entry("not estimable", fraction, notes.mark(estimate.note))
    method = estimate.interval.method if estimate.interval else ""
    detail = f"{fraction} {interval_text(estimate, sign=sign)}".strip()
    return Entry(precise_number(estimate.value, sign=sign), detail, notes.mark(method))


def estimate_cells(estimate: Estimate) -> list[Cell]:
    """Return value, limits and method, as in `ESTIMATE_COLUMNS`; without an interval, the reason as the method."""
    interval = estimate.interval
    if interval is None:
        return [estimate.value, None, None, estimate.note]
    return [estimate.value, interval.low, interval.high, interval.method]


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """Write each table as `<name>.csv` and `<name>.tex`.

    Raises:
        RunError: The files cannot be written.
    """
    make_folder(folder)
    for table in tables:
        write_atomically(folder / f"{table.name}.csv", table_csv(table))
        write_atomically(folder / f"{table.name}.tex", table_tex(table))


def table_csv(table: Table) -> str:
    """Return the table as CSV, numbers in full precision."""
    header, rows = table.raw
    return csv_text([with_apostrophe(plain(title)) for title in header], rows)


def table_tex(table: Table) -> str:
    """Return the table as LaTeX with the texts of the page, its footnotes in the caption."""
    rows = [[_flat(entry) for entry in row] for row in table.rows]
    notes = " ".join(f"{mark}: {text}." for mark, text in table.notes)
    return latex_table(table.header, rows, caption=f"{table.caption} {notes}".strip())


def _flat(entry: Entry) -> str:
    mark = f" ({entry.mark})" if entry.mark else ""
    return f"{entry.text} {entry.detail}".strip() + mark
