"""Findings of an audit: what was found, how severe it is and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bldml.dataset.files import shell_word
from bldml.io.text import counted

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
SHOWN = 12  # examples on the page; the CSV files have all


@dataclass(frozen=True)
class AuditFinding:
    """One finding of an audit.

    Attributes:
        severity: error: metrics from these photographs would be wrong, or fit would not run. warning: somebody should
            check. info: for information.
        name: Short identifier for programs.
        title: One line.
        text: What was found, in plain words.
        advice: What to do; empty if nothing has to be done. Options and commands in it stand between backticks.
        count: Number of photographs concerned.
        examples: The first few examples: names of one photograph, or of two that belong together.
        details: One remark for each example.
        command: Command line that does what is advised; may contain file names chosen by others.
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


def sort_by_severity(findings: Iterable[AuditFinding]) -> list[AuditFinding]:
    """Return the most severe findings first; within a severity their order stays."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def count_groups(sizes: Sequence[int]) -> str:
    """Return the number of pairs, or of groups, as text, given the number of photographs in each.

    >>> count_groups([2]), count_groups([2, 2]), count_groups([2, 3])
    ('1 pair', '2 pairs', '2 groups')
    """
    return counted(len(sizes), "pair" if all(size == 2 for size in sizes) else "group")


def split_command(root: Path, *options: str) -> str:
    """Return the command that splits the photographs of a data folder.

    >>> split_command(Path("my leaves"), "--folds", "5")
    "python -m bldml split 'my leaves' --folds 5"
    """
    return " ".join(["python -m bldml split", shell_word(root), *options])


def percentage(part: int, whole: int) -> str:
    """Return a part of a whole in percent: 0 % only for none, 100 % only for all.

    >>> percentage(1, 3), percentage(1, 5000), percentage(4999, 5000), percentage(0, 0)
    ('33 %', '< 1 %', '> 99 %', '0 %')
    """
    if not part or not whole:
        return "0 %"
    percent = round(100 * part / whole)
    if percent == 0:
        return "< 1 %"
    return "> 99 %" if percent == 100 and part < whole else f"{percent} %"


def single_examples(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the first few names, each as an example of one photograph."""
    return tuple((name,) for name in names[:SHOWN])
