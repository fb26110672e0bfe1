"""What the tests of experiments share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.bench import Bench


@pytest.fixture
def bench(tmp_path: Path, leaves: Path) -> Iterator[Bench]:
    """A folder with an experiment that has not begun; its processes end with the test."""
    bench = Bench(tmp_path / "work", leaves)
    yield bench
    bench.end()
