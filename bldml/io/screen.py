"""What the terminal shows: every text of the program passes here, because names of files and classes may be anybody's.

A terminal obeys control characters: they can hide what was printed, rename its window, or make text run backwards.
"""

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from bldml.errors import MachineError
from bldml.io.text import plain


def printable(text: str) -> str:
    r"""Return a text with backslash escapes instead of characters that a terminal obeys; its lines stay lines.

    >>> printable("class \x1b[2Jleaf\nnext")
    'class \\x1b[2Jleaf\nnext'
    """
    return text if text.isprintable() else "\n".join(map(plain, text.split("\n")))


def say(text: str) -> None:
    """Print a text as it is, without a line end of its own, but for what a terminal would obey.

    Raises:
        MachineError: The text cannot be written: the disk of a log is full.
    """
    _write(sys.stdout, printable(text))


def complain(text: str) -> None:
    """Print a text to stderr, where that can be written: there is no other place to say that it cannot."""
    with suppress(MachineError):
        _write(sys.stderr, printable(text))


def show_all() -> None:
    """Write what stdout still holds; raises as `say` does."""
    _write(sys.stdout, "", at_once=True)


def _write(stream: TextIO | None, text: str, at_once: bool = False) -> None:
    if stream is None or stream.closed:  # pythonw has none
        return
    try:
        stream.write(text)
        if at_once:
            stream.flush()
    except BrokenPipeError:  # `| head` has seen enough; the work goes on, and what Python still holds goes nowhere
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    except OSError as error:
        message = f"Nothing more can be printed to {stream.name}: {error.strerror}."
        raise MachineError(message, "output-not-printable", stream=stream.name, reason=error.strerror) from error


def escape_message(record: logging.LogRecord) -> bool:
    """Make the message of a log record printable; a filter of loggers, which lets every record pass."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True
