"""The Slurm that the tests of this folder run on."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A one-node cluster, started for these tests and stopped after them."""
    reason = missing()
    if reason is not None:
        # Continuous integration says that it has one, so that a test which cannot run is noticed.
        if os.environ.get("BLDML_REQUIRE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not pytest's own folder: the path of a socket may have 107 characters, and munged starts below folders that
    # other users may enter.
    folder = Path(tempfile.mkdtemp(prefix="bldml-slurm-"))
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
