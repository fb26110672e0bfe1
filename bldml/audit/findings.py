"""Findings of an audit: what was found, how severe it is and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bldml.dataset.files import shell_word

Severity = Literal["error", "warning", "info"]
# error: metrics from these photographs would be wrong, or fit would not run. warning: somebody should check.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
SHOWN = 12  # examples on the page; the CSV files have all
DEFAULT_SPLIT_NOTE = (
    "No splits were given. Findings about splits refer to the default split of fit: about 60 % train, 20 % val and "
    "20 % test, by file name alone."
)


@dataclass(frozen=True)
class AuditFinding:
    """One finding of an audit."""

    severity: Severity
    name: str  # for programs
    title: str
    text: str  # what was found, in plain words
    advice: str = ""  # what to do, options and commands between backticks; empty if nothing has to be done
    count: int = 0  # photographs concerned
    examples: tuple[tuple[str, ...], ...] = ()  # the first few: names of one photograph, or of two that belong together
    details: tuple[str, ...] = ()  # one remark for each example, or none at all
    command: str = ""  # that does what is advised; may contain file names chosen by others

    @property
    def needs_new_photographs(self) -> bool:
        """Whether no other split of the same photographs can repair it."""
        return self.name.startswith("shortcut_") or self.name == "classes"

    @property
    def left_out(self) -> bool:
        """Whether the examples show some of the photographs only."""
        return 0 < len({name for example in self.examples for name in example}) < self.count


def about_photographs(
    severity: Severity,
    name: str,
    title: str,
    text: str,
    advice: str,
    photographs: Sequence[str],
    details: Sequence[str] = (),
    command: str = "",
) -> AuditFinding:
    """Return a finding about single photographs, given by name; the first few are its examples."""
    examples = tuple((photograph,) for photograph in photographs[:SHOWN])
    return AuditFinding(severity, name, title, text, advice, len(photographs), examples, tuple(details), command)


def soften_split_finding(finding: AuditFinding, root: Path) -> AuditFinding:
    """Return a finding caused by the default split as a warning: nobody chose that split, and it was not used yet."""
    if not finding.name.startswith(("leak_", "lacking_", "few_", "class_proportions")):
        return finding
    advice = "No splits were given, so this is the default split of fit. Create one that keeps related photographs "
    advice += "in the same split and has similar class proportions; then use it with `--manifest splits.csv`."
    command = split_command(root)
    if finding.name.startswith("few_"):
        advice += " With so few photographs use cross-validation folds, so that nearly all are tested on, or add more."
        command = split_command(root, "--folds", "5")
    return replace(finding, severity="warning", advice=advice, command=command)


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
