"""Findings of the checks, their table, and the isolation of checks so that one that fails does not stop the others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL", "SKIP"]
GIVE_CONFIG = "not checked: give --config"


@dataclass(frozen=True)
class Finding:
    """One row of the report.

    Attributes:
        status: OK; WARN: the fit may fail; FAIL: it will fail or lose results; SKIP: not checked.
        name: Name of the check.
        found: Result, on one line.
        remedy: What to do: a command, or a line to change. Empty unless the status is WARN or FAIL.
    """

    status: Status
    name: str
    found: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def ok(name: str, found: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding("OK", name, found)


def warn(name: str, found: str, remedy: str) -> Finding:
    """Return a finding that the user should check."""
    return Finding("WARN", name, found, remedy)


def fail(name: str, found: str, remedy: str) -> Finding:
    """Return a finding that would end the fit or lose its results."""
    return Finding("FAIL", name, found, remedy)


def skip(name: str, found: str = GIVE_CONFIG) -> Finding:
    """Return a finding for a check that was not made, with the reason."""
    return Finding("SKIP", name, found)


def ok_or_warn(good: bool, name: str, found: str, remedy: str, *, otherwise: Status = "WARN") -> Finding:
    """Return an OK finding if good, else one with the status `otherwise` and a remedy."""
    return Finding("OK", name, found) if good else Finding(otherwise, name, found, remedy)


def run_check(name: str, check: Check) -> list[Finding]:
    """Run one check; an unexpected exception becomes a row of its own, after the findings made before it.

    >>> [finding.status for finding in run_check("device", lambda: [ok("device", "present"), 1 / 0])]
    ['WARN']
    """
    findings: list[Finding] = []
    try:
        findings.extend(check())
    # Whatever goes wrong on a machine, the other checks must still run.
    except Exception as error:
        findings.append(warn(name, f"could not be checked: {type(error).__name__}: {first_line(error)}", REPORT_IT))
    return findings


REPORT_IT = "the check itself failed, and a fit may still run; please report this line"


def first_line(error: object) -> str:
    r"""Return the first line of a message that is not empty.

    >>> first_line(ValueError("\n too long \n at all"))
    'too long'
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if any check failed, else 0."""
    return int(any(finding.status == "FAIL" for finding in findings))


def format_report(findings: list[Finding]) -> str:
    """Return the findings as aligned lines of plain text, remedies indented below, and a summary.

    >>> print(format_report([ok("locale", "utf-8"), fail("memory", "full", "take less")]), end="")
    OK    locale  utf-8
    FAIL  memory  full
                  -> take less
    <BLANKLINE>
    1 OK, 0 WARN, 1 FAIL, 0 not checked. A fit would fail.
    """
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        status = "–" if finding.status == "SKIP" else finding.status
        found = " ".join(finding.found.split())
        lines.append(f"{status:4}  {finding.name:{width}}  {found}".rstrip())
        lines += [f"{'':{width + 8}}-> {line}" for line in finding.remedy.splitlines()]
    count = {status: sum(f.status == status for f in findings) for status in ("OK", "WARN", "FAIL", "SKIP")}
    verdict = "A fit would fail." if count["FAIL"] else "No problem found that would stop a fit."
    lines.append(
        f"\n{count['OK']} OK, {count['WARN']} WARN, {count['FAIL']} FAIL, {count['SKIP']} not checked. {verdict}"
    )
    return "\n".join(lines) + "\n"
