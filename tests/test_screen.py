"""What the terminal gets: names are anybody's, and a terminal obeys control characters."""

import ast
import logging
import unicodedata

from bldml.app.messages import say_warning
from bldml.app.trainer import hush
from bldml.errors import RunError
from bldml.io.text import plain
from tests.support import REPOSITORY, Bldml


def test_no_module_writes_past_the_one_that_escapes() -> None:
    """`bldml.io.screen` is given its stream."""
    writes = ("print", "sys.stdout.write", "sys.stderr.write")
    calls = [
        f"{file.relative_to(REPOSITORY)}:{node.lineno}"
        for file in sorted((REPOSITORY / "bldml").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in writes
    ]
    assert not calls


def test_every_character_that_commands_is_escaped() -> None:
    directions = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    for number in (*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFE00, 0x11000), *range(0xE0000, 0xE0100)):
        character = chr(number)
        commands = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in "\u200e\u200f\u061c"
        commands = commands or unicodedata.bidirectional(character) in directions
        assert (plain(f"a{character}b") != f"a{character}b") == commands, hex(number)


def test_a_message_cannot_command_the_terminal(bldml: Bldml) -> None:
    outcome = bldml("report", "none\x1b]0;owned\x07\u202egpj")
    assert outcome.code == RunError.exit_code
    assert not {"\x1b", "\x07", "\u202e"} & set(outcome.err)
    assert "none\\x1b]0;owned\\x07\\u202egpj" in outcome.err


def test_nor_can_a_warning() -> None:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    texts: list[str] = []
    logger, handler = logging.getLogger("lightning.pytorch.utilities.rank_zero"), Kept()
    filters = list(logger.filters)
    logger.addHandler(handler)
    try:
        hush()
        say_warning("class \x1b[2J %s\nsecond line")
    finally:
        logger.removeHandler(handler)
        logger.filters = filters
    assert texts == ["Warning: class \\x1b[2J %s\nsecond line"]
