"""Tests of the commands read the words of a report; its figures are drawn in tests/report and for the fixture `run`."""

import pytest


@pytest.fixture(autouse=True)
def no_figures_of_evaluations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a report."""
    if "run" in request.fixturenames:
        request.getfixturevalue("run")  # which others share, with its figures
    monkeypatch.setattr("bldml.report.page.evaluation_figures", lambda *_: [])
