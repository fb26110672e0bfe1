"""A node that Slurm takes for lost while its process lives: the requeued job waits for it, and mixes nothing.

Both nodes are on one machine and one file system: when a file server notices that the holder of a lock is gone cannot
be tested here.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from bldml.run.folder import RunFolder, read_holder
from tests.sameness import assert_same
from tests.slurm.cluster import Cluster
from tests.slurm.fits import Bench

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

CONFIG = "configs/efficientnet.yaml"


@contextlib.contextmanager
def lost(cluster: Cluster, node: str) -> Iterator[None]:
    """A node whose daemon no longer answers, and that an administrator declares down."""
    daemon = cluster.nodes[node]
    daemon.send_signal(signal.SIGSTOP)
    try:
        cluster.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        yield
    finally:
        daemon.send_signal(signal.SIGCONT)
        cluster.command("scontrol", "update", f"NodeName={node}", "State=RESUME")


def test_a_process_on_a_lost_node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster.start_second_node()
    bench = Bench(cluster, tmp_path_factory.mktemp("lost") / "work")
    options, variables = ("--partition=both",), {"LOCK_PATIENCE_S": "3"}
    fit = bench.submit(CONFIG, moments=("train-1-3",), options=options, environment=variables)
    undisturbed = bench.submit(CONFIG)
    fit.reach("train-1-3")
    assert fit.job.show()["NodeList"] == "second"
    holder = read_holder(RunFolder(fit.run))
    assert holder is not None
    with lost(cluster, "second"):
        # Once by Slurm, once by the job itself, which finds the run in use.
        fit.await_restart(2)
        assert f"Waiting for process {holder.process} of job {fit.job.id} on {holder.host}, since" in fit.job.text
        assert f"Job {fit.job.id} is requeued." in fit.job.text
        os.kill(holder.process, signal.SIGKILL)
        fit.complete()
    assert "Resuming" in fit.job.text
    assert_same(fit.run, undisturbed.complete().run)
