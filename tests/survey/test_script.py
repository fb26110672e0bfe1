"""scripts/slurm/survey.sbatch without a queue: each task of an array gets its shard, and a wrong array is refused."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import REPOSITORY

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Slurm runs on Linux")

ARRAY = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "16"}


def run_by_hand(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script with a python that says what it was asked for."""
    for name, text in {
        "python": 'printf "%s\\n" "$@"',
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["bash", str(REPOSITORY / "scripts/slurm/survey.sbatch"), *arguments],
        env={"PATH": f"{folder}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_task_gets_its_shard(tmp_path: Path) -> None:
    given = ("lightning_logs/a", "two words", "--group=folder")
    done = run_by_hand(tmp_path, *given, **ARRAY, SLURM_ARRAY_TASK_COUNT="16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-m", "bldml", "survey", *given, "--shard", "3/16"]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("lightning_logs/a",), ARRAY | {"SLURM_ARRAY_TASK_COUNT": "16"}),
        (("lightning_logs/a", "photographs"), {}),
        (("lightning_logs/a", "photographs"), ARRAY | {"SLURM_ARRAY_TASK_COUNT": "8"}),  # --array=1-16:2
        (("lightning_logs/a", "photographs"), ARRAY | {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "17"}),
    ],
)
def test_what_cannot_be_shared_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    done = run_by_hand(tmp_path, *arguments, **variables)
    assert done.returncode == 2
    assert done.stderr.startswith("survey.sbatch: ")
    assert done.stdout == ""
