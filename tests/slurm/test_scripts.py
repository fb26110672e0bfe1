"""scripts/slurm/: their lines for Slurm, what they refuse, and that a failed fit is a failed job."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, Job
from tests.slurm.fits import HERE, SCRIPTS, Bench
from tests.support import REPOSITORY

NAMES = ("fit.sbatch", "backbones.sbatch", "command.sbatch")


def lines(name: str) -> dict[str, str]:
    """Options of a script's #SBATCH lines."""
    text = (SCRIPTS / name).read_text()
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", text, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_bash_can_read_it(name: str) -> None:
    subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_for_all_that_an_interruption_needs(name: str) -> None:
    asked = lines(name)
    assert {"account", "cpus-per-task", "mem", "time", "mail-type", "requeue"} <= asked.keys()
    assert name == "command.sbatch" or {"partition", "gres"} <= asked.keys()
    # --ntasks does not say how many tasks each node gets.
    assert (asked["nodes"], asked["ntasks-per-node"]) == ("1", "1")
    assert "ntasks" not in asked
    assert asked["open-mode"] == "append"
    assert asked["mail-type"] == "END,FAIL"  # REQUEUE would be a mail for each stretch
    signal, seconds = asked["signal"].split("@")
    assert signal == "SIGUSR1"
    assert int(seconds) >= 120
    # By these names Lightning and bldml know a person at a keyboard.
    assert not asked["job-name"].startswith(("bash", "interactive"))
    assert "%j" in asked["output"] or {"%A", "%a"} <= set(re.findall("%.", asked["output"]))


def test_the_array_has_a_job_for_each_shipped_backbone() -> None:
    text = (SCRIPTS / "backbones.sbatch").read_text()
    names = re.search(r"^backbones=\((.*)\)", text, re.MULTILINE)
    assert names is not None
    configs = names[1].split()
    assert lines("backbones.sbatch")["array"] == f"0-{len(configs) - 1}"
    shipped = {path.stem for path in (REPOSITORY / "configs").glob("*.yaml")} - {"demo", "slurm", "card", "logistic"}
    assert set(configs) == shipped


def run_by_hand(
    folder: Path, *arguments: str, script: str = "fit.sbatch", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The script without a queue, with an srun that says what it was asked for."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in {
        "srun": 'printf "%s\\n" "CPUS=$SRUN_CPUS_PER_TASK" "TASK=$BLDML_TASK" "$@"',
        "python": ":",
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("fit", "--data.root=photographs"), "sbatch scripts/slurm/fit.sbatch"),
        (("sweep", "grid.yaml"), "python -m bldml sweep FILE --slurm scripts/slurm/fit.sbatch"),
        (("survey", "lightning_logs/a", "photographs"), ""),
        (("test", "fit"), ""),
    ],
)
def test_what_the_script_of_other_commands_is_for(words: tuple[str, ...], remedy: str, tmp_path: Path) -> None:
    done = run_by_hand(tmp_path, *words, script="command.sbatch")
    assert done.returncode == (2 if remedy else 0), done.stderr
    assert remedy in done.stderr
    assert done.stdout.splitlines()[-len(words) :] == list(words) if not remedy else not done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the configurations that the script looks for."""
    (tmp_path / "configs").mkdir()
    for name in ("efficientnet", "mobilenet", "slurm"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("{}\n")
    return tmp_path


SLURM_YAML = ("--config", "configs/slurm.yaml")


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ((), ("--config", "configs/efficientnet.yaml", *SLURM_YAML)),
        (("configs/mobilenet.yaml",), ("--config", "configs/mobilenet.yaml", *SLURM_YAML)),
        (
            ("configs/mobilenet.yaml", "--run_name", "two words"),
            ("--config", "configs/mobilenet.yaml", *SLURM_YAML, "--run_name", "two words"),
        ),
        (("--model.lr=1", "x"), ("--config", "configs/efficientnet.yaml", *SLURM_YAML, "--model.lr=1", "x")),
        # The run's own configuration counts.
        (("--resume", "lightning_logs/a"), (*SLURM_YAML, "--resume", "lightning_logs/a")),
        (("--resume=lightning_logs/a",), (*SLURM_YAML, "--resume=lightning_logs/a")),
        (
            ("configs/mobilenet.yaml", "--resume=a"),
            ("--config", "configs/mobilenet.yaml", *SLURM_YAML, "--resume=a"),
        ),
    ],
)
def test_arguments_arrive(given: Sequence[str], passed: Sequence[str], checkout: Path) -> None:
    done = run_by_hand(checkout, *given, SLURM_CPUS_PER_TASK="7")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[1:]
    assert words[0] == "CPUS=7"
    assert words[words.index("python") :] == ["python", "-m", "bldml", "fit", *passed]
    assert {"--job-name=fit", "--block-signal=TERM,USR1,USR2"} <= set(words)


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (("configs/none.yaml",), {}, "configs/none.yaml"),
        ((), {"BLDML_ENV": "/nowhere"}, "BLDML_ENV=/nowhere is neither a venv nor a conda environment"),
    ],
)
def test_mistakes_are_said_in_words(
    arguments: Sequence[str], variables: dict[str, str], expected: str, checkout: Path
) -> None:
    done = run_by_hand(checkout, *arguments, **variables)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "CPUS" not in done.stdout


@pytest.mark.parametrize(
    ("variables", "task"),
    [
        ({}, ""),
        ({"BLDML_TASK": "old"}, ""),  # inherited from an array in which sbatch was typed
        ({"SLURM_ARRAY_TASK_ID": "3"}, "3"),
        ({"SLURM_ARRAY_TASK_ID": "3", "BLDML_TASK": "resnet50"}, "resnet50"),
    ],
)
def test_tasks_of_an_array_have_names(variables: dict[str, str], task: str, checkout: Path) -> None:
    done = run_by_hand(checkout, "--run_name=sweep", **variables)
    assert f"TASK={task}" in done.stdout.splitlines()


def test_an_array_resumes_no_run(checkout: Path) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPTS / "backbones.sbatch"), "--resume=a"], cwd=checkout,
        env={"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2


def test_modules_and_a_conda_environment(checkout: Path) -> None:
    environment = checkout / "environment"
    (environment / "conda-meta").mkdir(parents=True)
    (checkout / "programs").mkdir()
    # Reads a variable that is not set, as real ones do.
    activate = checkout / "programs" / "activate"
    activate.write_text('echo "activated $1 $not_set"\n')
    activate.chmod(0o755)
    module = '() {  echo "module $*"\n}'
    done = run_by_hand(
        checkout,
        BLDML_ENV=str(environment),
        BLDML_MODULES="miniconda3 cuda/12",
        **{"BASH_FUNC_module%%": module},
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:3] == ["module purge", "module load miniconda3 cuda/12", f"activated {environment} "]


@pytest.mark.slurm
@pytest.mark.slow
def test_a_fit_that_fails_is_a_job_that_failed(cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(cluster, tmp_path / "work")
    fit = bench.submit("--data.root=/nowhere")
    fit.job.wait_for("FAILED")
    assert fit.job.show()["ExitCode"] == "1:0"
    assert "/nowhere" in fit.job.text
    assert fit.job.restarts == 0


@pytest.mark.slurm
def test_an_array_submitted_from_elsewhere_says_so(cluster: Cluster, tmp_path: Path) -> None:
    whole = cluster.submit(
        SCRIPTS / "backbones.sbatch", options=(*HERE, "--partition=normal", "--array=1"), folder=tmp_path
    )
    job = Job(cluster, f"{whole.id}_1")
    job.wait_for("FAILED")
    assert "Submit from the root of the checkout" in job.text


@pytest.mark.slurm
def test_nothing_of_the_cluster_listens_beyond_the_loopback_interface(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "sleep.sbatch"
    script.write_text("#!/bin/bash\nsrun sleep 60\n")
    job = cluster.submit(script, options=("--partition=normal",), folder=tmp_path)
    job.wait_until(lambda: len(listeners(cluster, "srun")) > 0, "srun listens")
    found = {name: listeners(cluster, name) for name in ("slurmctld", "slurmd", "srun")}
    job.cancel()
    assert all(found.values())
    assert {address for addresses in found.values() for address in addresses} == {"127.0.0.1"}


def listeners(cluster: Cluster, program: str) -> set[str]:
    """Addresses that the cluster's processes of a name listen on, from /proc."""
    sockets = set()
    for number in cluster.processes():
        folder = Path("/proc") / str(number)
        try:
            if (folder / "comm").read_text().strip() == program:
                sockets |= {str(path.readlink()) for path in (folder / "fd").iterdir()}
        except OSError:
            continue  # it has ended
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (Path("/proc/net") / table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(address(words[1].split(":")[0]))
    return found


def address(hexadecimal: str) -> str:
    """An address as the kernel writes it, in the usual form (IPv6: as it is).

    >>> address("0100007F")
    '127.0.0.1'
    """
    if len(hexadecimal) > 8:
        return hexadecimal
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(hexadecimal)))
