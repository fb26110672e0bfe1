"""Findings of the checks and their table; a check that raises becomes a finding, so that the others still run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, ParamSpec, TypeVar

Status = Literal["OK", "WARN", "FAIL", "SKIP"]
Inputs = ParamSpec("Inputs")
Value = TypeVar("Value")
GIVE_CONFIG = "not checked: give --config"
REPORT_IT = "the check itself failed, and a fit may still run; please report this line"


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    status: Status  # WARN: the fit may fail; FAIL: it will fail or lose results; SKIP: not checked
    name: str  # of the check
    found: str  # on one line
    remedy: str = ""  # a command, or a line to change; empty unless the status is WARN or FAIL


ok = partial(Finding, "OK")  # name, found
warn = partial(Finding, "WARN")  # name, found, remedy
fail = partial(Finding, "FAIL")  # name, found, remedy


def skip(name: str, found: str = GIVE_CONFIG) -> Finding:
    """Return a finding for a check that was not made, with the reason."""
    return Finding("SKIP", name, found)


def ok_or(otherwise: Status, good: bool, name: str, found: str, remedy: str) -> Finding:
    """Return an OK finding if good, else one with the status `otherwise` and a remedy."""
    return ok(name, found) if good else Finding(otherwise, name, found, remedy)


ok_or_warn = partial(ok_or, "WARN")
ok_or_fail = partial(ok_or, "FAIL")


class Report:
    """The findings so far, in the order of the checks."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def check(
        self,
        name: str,
        check: Callable[Inputs, Finding | Iterable[Finding]],
        *inputs: Inputs.args,
        **named: Inputs.kwargs,
    ) -> None:
        """Add the findings of a check; an exception becomes one more, after those made before it.

        >>> report = Report()
        >>> report.check("device", lambda: [ok("device", "present"), 1 / 0])
        >>> [finding.status for finding in report.findings]
        ['WARN']
        """
        try:
            found = check(*inputs, **named)
            self.findings.extend([found] if isinstance(found, Finding) else found)
        # Whatever goes wrong on a machine, the other checks must still run.
        except Exception as error:
            self._add_failure(name, error)

    def value(self, name: str, read: Callable[[], Value], otherwise: Value) -> Value:
        """Return what `read` returns; if it raises, add a finding and return `otherwise`."""
        try:
            return read()
        except Exception as error:
            self._add_failure(name, error)
            return otherwise

    def _add_failure(self, name: str, error: Exception) -> None:
        found = f"could not be checked: {type(error).__name__}: {first_line(error)}"
        self.findings.append(warn(name, found, REPORT_IT))


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
        lines.append(f"{status:4}  {finding.name:{width}}  {' '.join(finding.found.split())}".rstrip())
        lines += [f"{'':{width + 8}}-> {line}" for line in finding.remedy.splitlines()]
    statuses = [finding.status for finding in findings]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in ("OK", "WARN", "FAIL"))
    verdict = "A fit would fail." if "FAIL" in statuses else "No problem found that would stop a fit."
    lines.append(f"\n{counts}, {statuses.count('SKIP')} not checked. {verdict}")
    return "\n".join(lines) + "\n"
