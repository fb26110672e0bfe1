"""Sessions of salloc and srun --pty: the step decides about ranks, the name of the job about requeueing alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bldml.run.folder import RunFolder
from bldml.training.resume.state import read_progress
from tests.slurm.cluster import Cluster
from tests.support import REPOSITORY, THREE_LAYERS

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# Node names of this cluster have no addresses.
VARIABLES = {
    "PYTHONPATH": str(REPOSITORY),
    "OMP_NUM_THREADS": "1",
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}
OPTIONS = " ".join((*THREE_LAYERS, "--trainer.max_epochs=1", "--test_after_fit=false", "--trainer.strategy=ddp"))
SHOW = """\
import json, os
from bldml.training.resume.job import SlurmJob, SlurmStep
job, step = SlurmJob.current(), SlurmStep.current()
where, rank = os.environ["WHERE"], os.environ.get("SLURM_PROCID", "0")
with open(f"{where}.{rank}", "w") as file:
    json.dump([step and step.tasks, job.interactive], file)
"""
Session = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def session(cluster: Cluster, tmp_path: Path) -> Session:
    """Type a script in a session in an empty folder; `PYTHON` stands for this Python."""

    def run(script: str, *options: str, terminal: bool = False) -> subprocess.CompletedProcess[str]:
        text = script.replace("PYTHON", sys.executable)
        return cluster.session(text, *options, folder=tmp_path, terminal=terminal, environment=VARIABLES)

    return run


def test_where_a_process_has_ranks(session: Session, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\nWHERE=script {sys.executable} show.py\n")
    done = session(
        """
        WHERE=shell PYTHON show.py
        WHERE=one srun -n1 PYTHON show.py
        WHERE=two srun PYTHON show.py
        WHERE=typed srun -n2 --pty PYTHON show.py
        WHERE=nested srun -n1 --pty srun --overlap -n2 PYTHON show.py
        srun -n1 --pty sbatch --wait -n2 --output=job.out job.sh
        """,
        "--ntasks=2",
        terminal=True,
    )
    assert done.returncode == 0, done.stdout
    # Number of ranks by srun, None without; whether the job is interactive.
    expected = {"shell.0": [None, True], "one.0": [1, True], "two.0": [2, True], "two.1": [2, True]}
    expected |= {"typed.0": [None, True], "nested.0": [2, True], "nested.1": [2, True], "script.0": [None, False]}
    found = {name: json.loads((tmp_path / name).read_text()) for name in expected}
    assert found == expected


def test_two_tasks_train_together(session: Session, leaves: Path, tmp_path: Path) -> None:
    """With the name `interactive`, each task trained a run of its own."""
    fit = f"srun PYTHON -m tests.three_layers fit {OPTIONS} --data.root={leaves} --trainer.devices"
    done = session(f"{fit}=1; echo $? >code; {fit}=2 --data.batch_size=4", "--ntasks=2")
    assert (tmp_path / "code").read_text() == "2\n"
    assert "srun started 2 tasks on 1 node; trainer.devices is 1 on 1 node" in done.stderr
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "lightning_logs").iterdir()
    assert read_progress(RunFolder(run).last_checkpoint).world_size == 2


def test_two_nodes_train_together_twice_in_one_session(
    cluster: Cluster, session: Session, leaves: Path, tmp_path: Path
) -> None:
    cluster.start_second_node()
    fit = (
        f"srun PYTHON -m tests.three_layers fit {OPTIONS} --data.root={leaves} --trainer.devices=1 --trainer.num_nodes"
    )
    done = session(f"{fit}=2 && {fit}=2", "--nodes=2", "--ntasks-per-node=1", "--partition=both")
    assert done.returncode == 0, done.stderr
    first, second = sorted((tmp_path / "lightning_logs").iterdir())
    assert second.name == f"{first.name}-2"
    for run in (first, second):
        assert read_progress(RunFolder(run).last_checkpoint).world_size == 2
    assert (first / "history.csv").read_text() == (second / "history.csv").read_text()
