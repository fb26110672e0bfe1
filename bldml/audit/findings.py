"""What an audit has to say: findings in plain words, each with what to do."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bldml.dataset.files import show_path

Severity = Literal["wrong", "doubtful", "note"]
SEVERITIES: tuple[Severity, ...] = ("wrong", "doubtful", "note")
SHOWN = 12  # examples on the page; tables have all


@dataclass(frozen=True)
class AuditFinding:
    """One thing that was found.

    Attributes:
        severity: wrong: figures from these photographs would be false, or fit would stop. doubtful: somebody should
            look. note: good to know.
        name: Short, for machines.
        title: One line.
        text: What was found, in plain words.
        advice: What to do; empty where nothing needs doing. Options and commands in it stand between backticks.
        count: Photographs concerned.
        examples: Names of photographs that belong together, one or two each; the first few.
        details: What is said of each example, as many.
        command: Command line that does what is advised; may hold names from outside.
    """

    severity: Severity
    name: str
    title: str
    text: str
    advice: str = ""
    count: int = 0
    examples: tuple[tuple[str, ...], ...] = ()
    details: tuple[str, ...] = ()
    command: str = ""


def ordered(findings: Iterable[AuditFinding]) -> list[AuditFinding]:
    """The worst first, otherwise as they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def photographs(count: int) -> str:
    """A number of photographs in words.

    >>> photographs(1), photographs(1200)
    ('1 photograph', '1,200 photographs')
    """
    return f"{count:,} photograph{'' if count == 1 else 's'}"


def pairs_or_groups(sizes: Sequence[int]) -> str:
    """How many things belong together, given the number of photographs in each.

    >>> pairs_or_groups([2]), pairs_or_groups([2, 2]), pairs_or_groups([2, 3])
    ('1 pair', '2 pairs', '2 groups')
    """
    word = "pair" if all(size == 2 for size in sizes) else "group"
    return f"{len(sizes):,} {word}{'' if len(sizes) == 1 else 's'}"


def split_command(root: Path, *options: str) -> str:
    """The command that divides a data folder.

    >>> split_command(Path("my leaves"), "--folds", "5")
    "python -m bldml split 'my leaves' --folds 5"
    """
    return " ".join(["python -m bldml split", shlex.quote(show_path(root)), *options])


def share(part: int, whole: int) -> str:
    """A part of a whole, in percent; never 0 % of something, nor 100 % of less than all.

    >>> share(1, 3), share(1, 5000), share(4999, 5000), share(0, 0)
    ('33 %', '< 1 %', '> 99 %', '0 %')
    """
    if not part or not whole:
        return "0 %"
    percent = round(100 * part / whole)
    if percent == 0:
        return "< 1 %"
    return "> 99 %" if percent == 100 and part < whole else f"{percent} %"


def first(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The first few names, each an example of its own."""
    return tuple((name,) for name in names[:SHOWN])
