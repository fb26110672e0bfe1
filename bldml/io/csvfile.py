"""Guard for text in a CSV cell that a spreadsheet would run as a formula (OWASP, "CSV injection")."""

# Spreadsheets with East Asian settings accept the full-width characters.
_STARTS = tuple("=+-@＝＋－＠")  # noqa: RUF001  # they are meant


def looks_like_formula(text: str) -> bool:
    r"""Return whether a spreadsheet would run a text: some skip white space, and a tab or line break may begin a cell.

    >>> [looks_like_formula(text) for text in ("=1+1", "\t=1", " @x", "\tleaf", "leaf.jpg", "")]
    [True, True, True, True, False, False]
    """
    return text.startswith(("\t", "\r", "\n")) or text.lstrip().startswith(_STARTS)


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
