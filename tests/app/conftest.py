"""Tests of the commands read words and numbers; the figures are those of tests/report and of the fixture `run`."""

import pytest


@pytest.fixture(autouse=True)
def no_figures_of_evaluations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a report, and those for TensorBoard a fifth of the time of a fit."""
    if "run" in request.fixturenames:
        request.getfixturevalue("run")  # which others share, with its figures
    monkeypatch.setattr("bldml.report.page.evaluation_figures", lambda *_: [])
    monkeypatch.setattr("bldml.app.screen.tensorboard.pictures_of", lambda *_: {})
