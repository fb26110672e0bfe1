"""Photographs that are cut short while the audit reads them."""

from pathlib import Path

import pytest

from bldml.audit import examine
from tests.support import Bldml


def test_a_header_that_is_gone_after_its_picture_was_read(
    leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of such a photograph is not known; it ended in a division by zero."""
    monkeypatch.setattr(examine, "read_metadata", lambda path: None)
    options = ("--power=off", "--look_alikes=off", "--workers=1")
    outcome = bldml("audit", leaves, "--output=out", *options)
    assert outcome.code in (0, 1), outcome.err
    assert "Traceback" not in outcome.err
    assert Path("out/audit.html").is_file()
