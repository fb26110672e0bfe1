"""The number of inputs that were tried, on request: `BLDML_FUZZ_OUTPUT=FILE` gets it as JSON."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.rule import TRIED


@pytest.fixture(scope="session", autouse=True)
def inputs_tried() -> Iterator[None]:
    """Write it at the end."""
    yield
    if output := os.environ.get("BLDML_FUZZ_OUTPUT"):
        Path(output).write_text(json.dumps(dict(sorted(TRIED.items())), indent=2) + "\n")
