"""Numbers, plurals, lists and foreign text: on a page, in a CSV cell that is no formula, in a LaTeX table."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"{\char34}",  # active in some languages
        "[": "{[}",  # after a line break it would be read as a length
        "]": "{]}",
        "\u2212": "$-$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
_NOT_PRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_DIRECTION_MARKS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# What makes a spreadsheet run a cell as a formula (OWASP, "CSV injection"), in East Asian settings full-width too.
_FORMULA_STARTS = tuple("=+-@＝＋－＠")  # noqa: RUF001  # they are meant

Cell = str | int | float | None


def plain(text: str) -> str:
    r"""Return a text in one line, with backslash escapes for characters that are not printable or change the layout.

    These are control characters, lone surrogates, line separators and marks of the writing direction.

    >>> plain("leaf\n\u202egpj.exe")
    'leaf\\n\\u202egpj.exe'
    """
    if text.isprintable():  # as nearly all are: no such character is printable
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _DIRECTION_MARKS or unicodedata.category(character) in _NOT_PRINTABLE
        else character
        for character in text
    )


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return a number with a fixed number of decimals; None is "not estimable". A rounded zero has no minus sign.

    >>> number(0.96552), number(-0.0004), number(0.08, sign=True), number(None)
    ('0.966', '0.000', '+0.080', 'not estimable')
    """
    if value is None:
        return "not estimable"
    rounded = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "\u2212")


def counted(value: int, noun: str, several: str = "") -> str:
    """Return a count with its noun, with thousands separators; the plural has an s unless `several` is set.

    >>> counted(1, "photograph"), counted(1200, "photograph"), counted(2, "process", "processes")
    ('1 photograph', '1,200 photographs', '2 processes')
    """
    return f"{value:,} {noun if value == 1 else several or f'{noun}s'}"


def first_few(texts: Sequence[str], most: int, joint: str = "; ", last: str = "; and ") -> str:
    """Return the first texts, and how many more there are.

    >>> first_few(["a", "b", "c"], 2), first_few(["a", "b"], 2, ", ", " and ")
    ('a; b; and 1 more', 'a, b')
    """
    return joint.join(texts[:most]) + (f"{last}{len(texts) - most} more" if len(texts) > most else "")


def p_value(p: float | None) -> str:
    """Return a p value, never as 0 and never rounded up to significance.

    >>> p_value(0.0271758), p_value(0.04996), p_value(1e-300), p_value(1.0), p_value(None)
    ('0.027', '0.04996', '< 0.001', '1', 'not estimable')
    """
    if p is None:
        return "not estimable"
    if p < 0.001:
        return "< 0.001"
    if round(p, 3) == 0.05 and p != 0.05:
        return f"{p:.5f}"
    return "1" if p == 1 else f"{p:.3f}"


def looks_like_formula(text: str) -> bool:
    r"""Return whether a spreadsheet would run a text: some skip white space, and a tab or line break may begin a cell.

    >>> [looks_like_formula(text) for text in ("=1+1", "\t=1", " @x", "\tleaf", "leaf.jpg", "")]
    [True, True, True, True, False, False]
    """
    return text.startswith(("\t", "\r", "\n")) or text.lstrip().startswith(_FORMULA_STARTS)


def with_apostrophe(text: str) -> str:
    """Guard a formula by an apostrophe; a text that looks guarded gets one more, so that reading removes exactly one.

    >>> with_apostrophe("=1+1"), with_apostrophe("'=1+1"), with_apostrophe("leaf.jpg")
    ("'=1+1", "''=1+1", 'leaf.jpg')
    """
    return f"'{text}" if looks_like_formula(text.lstrip("'")) else text


def without_apostrophe(text: str) -> str:
    """Return the text that `with_apostrophe` guarded.

    >>> without_apostrophe("'=1+1"), without_apostrophe("''=1+1"), without_apostrophe("'tis")
    ('=1+1', "'=1+1", "'tis")
    """
    return text[1:] if text.startswith("'") and looks_like_formula(text.lstrip("'")) else text


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, as they are; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    r"""Return a table as CSV: numbers in full, None as an empty cell, text that looks like a formula guarded.

    >>> csv_text(["run", "accuracy"], [["=SUM(A1)", 0.5], ["b", None]])
    "run,accuracy\n'=SUM(A1),0.5\nb,\n"
    """
    guarded = ([with_apostrophe(plain(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return to_csv([header, *guarded])


def latex(text: str) -> str:
    """Return a text with the special characters of LaTeX escaped."""
    return plain(text).translate(_LATEX)


def latex_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    r"""Return a LaTeX table that needs no package; first column left-aligned, others centred. All text is escaped.

    >>> print(latex_table(["run", "F1"], [["a_1", "5 %"]], caption="All"))
    \begin{table}
    \caption{All}
    \centering
    \begin{tabular}{lc}
    \hline
    run & F1 \\
    \hline
    a\_1 & 5 \% \\
    \hline
    \end{tabular}
    \end{table}
    <BLANKLINE>
    """
    head, *body = (" & ".join(map(latex, row)) + r" \\" for row in (header, *rows))
    begin = [r"\begin{table}", rf"\caption{{{latex(caption)}}}", r"\centering"]
    begin.append(rf"\begin{{tabular}}{{l{'c' * (len(header) - 1)}}}")
    rule, end = r"\hline", [r"\end{tabular}", r"\end{table}", ""]
    return "\n".join([*begin, rule, head, rule, *body, rule, *end])
