"""Photographs that nobody divided: what is found on the division that fit would make of them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bldml.audit.findings import AuditFinding, split_command
from bldml.dataset.files import subfolders
from bldml.dataset.samples import SPLITS

BUILT_IN = (
    "No division was given. What is said of splits is about the one that fit would make: about 60 % train, 20 % val "
    "and 20 % test, by the names of the files alone."
)
_OF_DIVISION = ("leak_", "lacking_", "few_", "shares")


def is_undivided(root: Path, manifest: Path | None) -> bool:
    """Whether neither a manifest nor folders divide the photographs."""
    return manifest is None and not {folder.name for folder in subfolders(root)} & set(SPLITS)


def of_built_in(findings: Iterable[AuditFinding], root: Path) -> list[AuditFinding]:
    """The findings, with what is the division's fault at most doubtful: nobody chose it, nothing was done by it yet."""
    return [_soften(one, root) if one.name.startswith(_OF_DIVISION) else one for one in findings]


def _soften(one: AuditFinding, root: Path) -> AuditFinding:
    advice = "No division was given, and this is the one that fit would make. Make one that keeps what belongs "
    advice += "together in one split and sees to the classes; then give it as `--manifest splits.csv`."
    command = split_command(root)
    if one.name.startswith("few_"):
        advice += " With so few photographs divide them into folds, so that nearly all are tested on; more help too."
        command = split_command(root, "--folds", "5")
    return replace(one, severity="doubtful", advice=advice, command=command)
