"""Versions, what shadows them, and the form of the report."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bldml.doctor.checks import Finding, Report, exit_code, fail, format_report, ok, skip, warn
from bldml.doctor.software import check_imports, check_user_site, check_version


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("lightning", "2.6.6", "OK"),
        ("lightning", "2.6.5", "FAIL"),
        ("lightning", "2.6.3", "FAIL"),
        ("lightning", "2.6.2", "FAIL"),
        ("torch", "2.10.0+cu126", "OK"),
        ("torch", "2.9.1", "FAIL"),
        ("torch", "2.10", "OK"),
        ("pillow", "13.0.0", "OK"),
        ("pillow", "12.9.9", "FAIL"),
        ("pillow", None, "FAIL"),
    ],
)
def test_floors(package: str, version: str | None, status: str) -> None:
    finding = check_version(package, version)
    assert finding.status == status
    assert (status == "FAIL") == bool(finding.remedy)


def test_malware_is_named_and_more_than_updated() -> None:
    assert "change every password" in check_version("lightning", "2.6.2").remedy


@pytest.mark.parametrize(
    ("enabled", "environ", "on_path", "status"),
    [
        (True, {}, True, "WARN"),
        (True, {}, False, "OK"),
        (False, {}, True, "OK"),
        (True, {"PYTHONNOUSERSITE": "1"}, True, "OK"),
    ],
)
def test_user_packages(enabled: bool, environ: dict[str, str], on_path: bool, status: str, tmp_path: Path) -> None:
    path = [str(tmp_path)] if on_path else []
    assert check_user_site(enabled, tmp_path, environ, path).status == "OK"
    (tmp_path / "numpy-1.0.dist-info").mkdir()
    finding = check_user_site(enabled, tmp_path, environ, path)
    assert finding.status == status
    assert ("PYTHONNOUSERSITE=1" in finding.remedy) == (status == "WARN")


def test_builds_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_imports().status == "OK"

    def load(name: str) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return sys.modules[name]

    monkeypatch.setattr("importlib.import_module", load)
    finding = check_imports()
    assert finding.status == "FAIL"
    assert "torchvision::nms does not exist" in finding.found


def test_check_that_breaks_keeps_what_it_had_found() -> None:
    def check() -> Iterator[Finding]:
        yield ok("disk", "there")
        raise KeyError("boom")

    report = Report()
    report.check("disk", check)
    assert [finding.status for finding in report.findings] == ["OK", "WARN"]
    assert "KeyError: 'boom'" in report.findings[1].found


def test_report_is_aligned_and_counts() -> None:
    text = format_report([ok("a", "fine"), warn("longer", "so\nso", "one\ntwo"), skip("c", "not checked")])
    lines = text.splitlines()
    assert lines[:5] == [
        "OK    a       fine",
        "WARN  longer  so so",
        "              -> one",
        "              -> two",
        "–     c       not checked",
    ]
    assert lines[-1] == "1 OK, 1 WARN, 0 FAIL, 1 not checked. No problem found that would stop a fit."


def test_only_a_fail_fails() -> None:
    assert exit_code([ok("a", ""), warn("b", "", "x"), skip("c")]) == 0
    assert exit_code([ok("a", ""), fail("b", "", "x")]) == 1
