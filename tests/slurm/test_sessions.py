"""scripts/slurm/, submitted from inside sessions and other jobs: what those were given must not reach srun or bldml."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.fits import HERE, SCRIPTS

# Instead of bldml: says what it was asked for, and what Slurm's variables are.
PYTHON = '#!/bin/bash\nprintf "argument %s\\n" "$@"\nenv -0 | tr "\\0\\n" "\\n " | grep -E "^(SLURM|SRUN|BLDML|MARK)"\n'
SALLOC = (
    "salloc",
    "--ntasks=4",
    "--ntasks-per-node=4",
    "--mem-per-cpu=50",
    "--distribution=cyclic",
    "--hint=nomultithread",
)
# With a terminal, which srun --pty needs.
TERMINAL = (sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", "srun", "--pty")
BLOCK = re.compile(r"^# sbatch passes on .*?^fi\n", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with an environment, and the configurations that the scripts look for."""
    (tmp_path / "configs").mkdir()
    for name in ("efficientnet", "resnet50", "slurm"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("{}\n")
    (tmp_path / "scripts").symlink_to(SCRIPTS.parent)
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text(PYTHON)
    (programs / "python").chmod(0o755)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    return tmp_path


def submit_within(cluster: Cluster, checkout: Path, session: Sequence[str], *command: str, **variables: str) -> str:
    """Submit from inside a session, wait for the job, and return its log."""
    sbatch = ("sbatch", "--wait", "--output=log", *HERE, "--partition=normal", "--mem=200", *command)
    done = subprocess.run(
        [*session, *sbatch], env={**cluster.environment, "BLDML_ENV": str(checkout / "env"), **variables}, cwd=checkout,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    log = (checkout / "log").read_text() if (checkout / "log").is_file() else ""
    assert done.returncode == 0, f"{done.stderr}\n{log}"
    return log


def variables(log: str) -> dict[str, str]:
    return dict(re.findall(r"^((?:SLURM|SRUN|BLDML|MARK)\w*)=(.*)$", log, re.MULTILINE))


def test_the_scripts_clean_by_the_same_lines() -> None:
    names = ("fit.sbatch", "survey.sbatch", "command.sbatch")
    fit, *others = (BLOCK.findall((SCRIPTS / name).read_text()) for name in names)
    assert len(fit) == 1
    assert others == [fit, fit]
    assert "exec bash scripts/slurm/fit.sbatch" in (SCRIPTS / "backbones.sbatch").read_text()


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("session", "command", "passed"),
    [
        (SALLOC, ("scripts/slurm/fit.sbatch", "--data.root=a b"), "--config configs/efficientnet.yaml"),
        (SALLOC, ("--array=1", "scripts/slurm/backbones.sbatch"), "--config configs/resnet50.yaml"),
        (SALLOC, ("--array=1", "scripts/slurm/survey.sbatch", "run", "photos"), "run photos --shard 1/1"),
        (TERMINAL, ("scripts/slurm/fit.sbatch", "--data.root=a b"), "--config configs/efficientnet.yaml"),
    ],
    ids=["fit", "backbones", "survey", "terminal"],
)
def test_from_inside_a_session(
    session: Sequence[str], command: Sequence[str], passed: str, cluster: Cluster, checkout: Path
) -> None:
    log = submit_within(cluster, checkout, session, *command)
    words = re.findall(r"^argument (.*)$", log, re.MULTILINE)
    assert passed in " ".join(words)
    found = variables(log)
    assert (found["SLURM_NTASKS"], found["SLURM_CPUS_PER_TASK"]) == ("1", "1")
    assert ("SLURM_ARRAY_TASK_ID" in found) == (command[0] == "--array=1")
    assert found.get("BLDML_TASK", "") == ("resnet50" if "scripts/slurm/backbones.sbatch" in command else "")
    assert not {"SLURM_HINT", "SLURM_MEM_PER_CPU", "SLURM_PTY_PORT"} & found.keys()


@pytest.mark.slurm
def test_from_inside_an_array(cluster: Cluster, checkout: Path) -> None:
    """The new job must not take the array's number for its own, nor the default memory per CPU of the cluster."""
    inner = "sbatch --wait --output=log --account= --gres=none --mem=200 --mail-type=NONE --partition=normal "
    outer = ("sbatch", "--wait", "--array=3", "--partition=normal", "--output=outer", "--wrap")
    environment = {**cluster.environment, "BLDML_ENV": str(checkout / "env")}
    subprocess.run([*outer, inner + "scripts/slurm/fit.sbatch"], env=environment, cwd=checkout, check=True, timeout=120)
    found = variables((checkout / "log").read_text())
    assert "SLURM_JOB_ID" in found
    assert not [name for name in found if name.startswith("SLURM_ARRAY")]


@pytest.mark.slurm
def test_no_variables_exported(cluster: Cluster, checkout: Path) -> None:
    """Without the environment of the submission, the fit still gets what the script sets."""
    export = f"--export=MARK=1,BLDML_ENV={checkout / 'env'}"
    found = variables(submit_within(cluster, checkout, (), export, "scripts/slurm/fit.sbatch"))
    assert found["MARK"] == "1"


@pytest.mark.slurm
def test_login_shell_in_the_job(cluster: Cluster, checkout: Path) -> None:
    """The profile of a login shell resets the PATH, and with it the environment that was active."""
    script = checkout / "own.sbatch"
    script.write_text((SCRIPTS / "fit.sbatch").read_text().replace("#!/bin/bash\n", "#!/bin/bash -l\n", 1))
    active = str(checkout / "env")
    log = submit_within(cluster, checkout, (), "own.sbatch", BLDML_ENV="", VIRTUAL_ENV=active)
    assert "argument configs/efficientnet.yaml" in log
