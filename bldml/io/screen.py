"""What the terminal shows: every text of the program passes here, because names of files and classes may be anybody's.

A terminal obeys control characters: they can hide what was printed, rename its window, or make text run backwards.
"""

import logging
import sys

from bldml.io.text import plain


def printable(text: str) -> str:
    r"""Return a text with backslash escapes instead of characters that a terminal obeys; its lines stay lines.

    >>> printable("class \x1b[2Jleaf\nnext")
    'class \\x1b[2Jleaf\nnext'
    """
    return text if text.isprintable() else "\n".join(map(plain, text.split("\n")))


def say(text: str) -> None:
    """Print a text as it is, without a line end of its own, but for what a terminal would obey."""
    sys.stdout.write(printable(text))


def complain(text: str) -> None:
    """Print a text to stderr, as `say` does."""
    sys.stderr.write(printable(text))


def escape_message(record: logging.LogRecord) -> bool:
    """Make the message of a log record printable; a filter of loggers, which lets every record pass."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True
