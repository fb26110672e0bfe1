"""Photographs that are not split yet: the checks use the split that fit would make by default."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bldml.audit.findings import AuditFinding, split_command
from bldml.dataset.files import subfolders
from bldml.dataset.samples import SPLITS

DEFAULT_SPLIT_NOTE = (
    "No splits were given. Findings about splits refer to the default split of fit: about 60 % train, 20 % val and "
    "20 % test, by file name alone."
)
_SPLIT_FINDINGS = ("leak_", "lacking_", "few_", "class_proportions")


def uses_default_split(root: Path, manifest: Path | None) -> bool:
    """Return whether neither a manifest nor split folders assign the photographs to splits."""
    return manifest is None and not {folder.name for folder in subfolders(root)} & set(SPLITS)


def soften_split_findings(findings: Iterable[AuditFinding], root: Path) -> list[AuditFinding]:
    """Return the findings, those caused by the default split as warnings: nobody chose it, and it was not used yet."""
    return [_as_warning(finding, root) if finding.name.startswith(_SPLIT_FINDINGS) else finding for finding in findings]


def _as_warning(finding: AuditFinding, root: Path) -> AuditFinding:
    advice = "No splits were given, so this is the default split of fit. Create one that keeps related photographs "
    advice += "in the same split and has similar class proportions; then use it with `--manifest splits.csv`."
    command = split_command(root)
    if finding.name.startswith("few_"):
        advice += " With so few photographs use cross-validation folds, so that nearly all are tested on, or add more."
        command = split_command(root, "--folds", "5")
    return replace(finding, severity="warning", advice=advice, command=command)
