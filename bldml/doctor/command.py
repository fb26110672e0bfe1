"""The command `doctor`: its arguments and its report."""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bldml import __version__
from bldml.doctor.checks import Finding, exit_code, format_report
from bldml.doctor.examination import run_checks
from bldml.errors import UsageError
from bldml.io.atomic import write_atomically

HELP = """\
usage: bldml doctor [--sbatch FILE] [--json FILE] [any option of bldml fit]

Check before submitting a job that a fit with these options would run, on this machine and in the job. Nothing is
trained, downloaded or submitted, and test files are removed again.

  --sbatch FILE   also check this sbatch file against the options of the fit and the limits of the cluster
  --json FILE     also write the report as JSON, for a help ticket; it contains paths, names and versions
  --help          show this help

  python -m bldml doctor
  python -m bldml doctor --config configs/efficientnet.yaml --data.root data/BLD
  python -m bldml doctor --sbatch scripts/slurm/fit.sbatch --config configs/efficientnet.yaml

Exit code: 0 if no check fails, 1 if a check fails, 2 if the command line is not valid.
"""
OWN = ("--sbatch", "--json")


@dataclass(frozen=True)
class Arguments:
    """Parsed command line of the doctor.

    Attributes:
        sbatch: The sbatch file to check, if any.
        json: Path of the JSON report, if any.
        fit: All other arguments: options of a fit.
    """

    sbatch: Path | None = None
    json: Path | None = None
    fit: list[str] = field(default_factory=list)


def split_arguments(arguments: list[str]) -> Arguments:
    """Separate the doctor's own options from those of a fit.

    Raises:
        UsageError: One of its own has no value, or is given twice.

    >>> split_arguments(["--config", "a.yaml", "--sbatch=b.sbatch"])
    Arguments(sbatch=PosixPath('b.sbatch'), json=None, fit=['--config', 'a.yaml'])
    """
    own: dict[str, Path] = {}
    fit: list[str] = []
    rest = arguments[1:] if arguments[:1] == ["fit"] else list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option not in OWN:
            fit.append(word)
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else ""
        if not value:
            message = f"{option} needs a file: {option} FILE. All options: bldml doctor --help"
            raise UsageError(message, "doctor-option-empty", key=option)
        if option in own:
            message = f"{option} is set twice. All options: bldml doctor --help"
            raise UsageError(message, "doctor-option-twice", key=option)
        own[option] = Path(value)
    return Arguments(own.get("--sbatch"), own.get("--json"), fit)


def main(arguments: list[str]) -> int:
    """Run the doctor.

    Args:
        arguments: The command line without `doctor`.

    Returns:
        The exit code: 0 if no check fails, 1 if a check fails.

    Raises:
        UsageError: The command line is not valid.
        RunError: The JSON file cannot be written.
    """
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(HELP)
        return 0
    own = split_arguments(arguments)
    findings = run_checks(own.fit, own.sbatch, dict(os.environ))
    write(format_report(findings))
    if own.json is not None:
        write_atomically(own.json, json.dumps(to_json(findings, arguments), indent=2, ensure_ascii=False) + "\n")
    return exit_code(findings)


def to_json(findings: list[Finding], arguments: list[str]) -> dict[str, object]:
    """Return the report for a help ticket."""
    return {
        "bldml": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "python": sys.executable,
        "arguments": arguments,
        "exit_code": exit_code(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def write(text: str) -> None:
    """Write to standard output; characters missing in its encoding become question marks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
