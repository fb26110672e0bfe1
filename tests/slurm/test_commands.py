"""A job of another command than a fit, on a real Slurm."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import LARGE, Cluster
from tests.slurm.fits import HERE, SCRIPTS
from tests.support import ALONE, REPOSITORY

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_preempted_audit_resumes_and_completes(cluster: Cluster, leaves: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    for number in range(20):
        shutil.copytree(leaves / "BLD", folder / "photographs/BLD" / str(number), copy_function=os.link)
        shutil.copytree(leaves / "No_BLD", folder / "photographs/No_BLD" / str(number), copy_function=os.link)
    words = ("audit", "photographs", *ALONE, "--workers=2")
    options = (*HERE, "--partition=low", f"--cpus-per-task={LARGE}")
    environment = {"BLDML_ENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
    script = SCRIPTS / "command.sbatch"
    audit = cluster.submit(script, *words, options=options, environment=environment, folder=folder)
    examined = folder / "audit" / "examined.jsonl"
    audit.wait_until(lambda: examined.exists() and examined.stat().st_size > 30_000, "it had examined some files")
    preemptor = cluster.preempt()
    audit.wait_until(lambda: audit.restarts == 1, "it was requeued")
    preemptor.wait_for("COMPLETED")
    audit.wait_for("COMPLETED")
    assert "start 2, on node: audit photographs" in audit.text
    assert "SIGTERM received" in audit.text
    assert "Traceback" not in audit.text
    assert (folder / "audit" / "audit.html").is_file()
