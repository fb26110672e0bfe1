"""What the doctor says of an sbatch file: one that is right, and that one with each thing wrong."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bldml.doctor.checks import Finding, Report
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm import Site
from bldml.doctor.submission.sbatch import CHECKS, JobRequest, check_syntax
from bldml.doctor.submission.script import parse_script
from tests.doctor.settings import SETTINGS as WORKERS_AUTO

GOOD = """\
#!/bin/bash -l
#SBATCH --job-name=bldml-fit
#SBATCH --account=beech             # the project
#SBATCH --partition=gpu-l40s
#SBATCH --gres=gpu:1
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x-%j.out
#SBATCH --mail-type=FAIL --mail-user=me@example.org
set -euo pipefail
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=1 python -m bldml fit \\
  --config "$1" "${@:2}"
"""
SETTINGS = replace(WORKERS_AUTO, num_workers=7)
SITE = Site(
    has_slurm=True,
    problem="",
    settings={"ClusterName": "atlas"},
    partitions={"gpu-l40s": {"MaxTime": "2-00:00:00"}, "gpu-a100": {"MaxTime": "7-00:00:00"}, "atlas": {}},
)


def judged(text: str, folder: Path, site: Site = SITE, settings: Settings | None = SETTINGS) -> list[Finding]:
    request, report = JobRequest(parse_script(text), site, settings, {}, folder), Report()
    for check in CHECKS:
        report.check("sbatch file", check, request)
    return report.findings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def test_good_file_is_good(folder: Path) -> None:
    findings = judged(GOOD, folder)
    assert {finding.status for finding in findings} == {"OK"}, findings
    assert len({finding.name for finding in findings}) == len(findings) > 15


@pytest.mark.parametrize(
    ("old", "new", "name", "status", "words"),
    [
        ("--mem=32G", "--memory=32G", "options", "FAIL", "#SBATCH --mem=32G"),
        ("--requeue", "--reqeue", "options", "FAIL", "#SBATCH --requeue"),
        ("--mem=32G", "--flux-capacitor", "options", "WARN", "unknown option --flux-capacitor"),
        ("--mem=32G", "--comment='open", "options", "FAIL", "line 9: No closing quotation"),
        ("srun --kill", "true\n#SBATCH --mem=1G\nsrun --kill", "options", "WARN", "line 19"),
        ("--account=beech", "--account=CHANGE_ME", "--account", "FAIL", "CHANGE_ME: replace it"),
        ("#SBATCH --account=beech", "#", "--account", "FAIL", "not set"),
        ("=gpu-l40s", "=gpu-l40", "--partition", "FAIL", "#SBATCH --partition=gpu-l40s"),
        ("#SBATCH --partition=gpu-l40s", "#", "--partition", "WARN", "sinfo"),
        ("#SBATCH --time=08:00:00", "#", "--time", "WARN", "2 hours"),
        ("08:00:00", "8h", "--time", "FAIL", "8h is not a time"),
        ("08:00:00", "3-00", "--time", "FAIL", "3-00 exceeds the limit of gpu-l40s, 2-00:00:00"),
        ("#SBATCH --gres=gpu:1", "#", "--gres", "FAIL", "#SBATCH --gres=gpu:1"),
        ("#SBATCH --cpus-per-task=8", "#", "--cpus-per-task", "WARN", "#SBATCH --cpus-per-task=8"),
        ("--cpus-per-task=8", "--cpus-per-task=7", "--cpus-per-task", "WARN", "7 workers"),
        ("--ntasks-per-node=1", "--ntasks=16", "--ntasks-per-node", "FAIL", "#SBATCH --ntasks-per-node=1"),
        ("--ntasks-per-node=1", "-n4", "--ntasks-per-node", "FAIL", "--ntasks=4"),
        ("--ntasks-per-node=1", "--ntasks-per-node=2", "--ntasks-per-node", "FAIL", "trainer.devices auto"),
        ("gpu:1", "gpu:a100:2", "--ntasks-per-node", "FAIL", "#SBATCH --ntasks-per-node=2"),
        ("--nodes=1", "--nodes=2", "--nodes", "FAIL", "--trainer.num_nodes 2"),
        ("=bldml-fit", "=interactive", "--job-name", "FAIL", "interactive"),
        ("=logs/", "=none/", "--output", "FAIL", "mkdir -p"),
        ("=logs/", "=%x/", "--output", "SKIP", "depends on the job"),
        ("USR1@", "B:USR1@", "--signal", "FAIL", "the shell only"),
        ("USR1@180", "USR1@60", "--signal", "WARN", "60 s"),
        ("USR1@180", "USR1", "--signal", "WARN", "60 s"),
        ("USR1@", "USR2@", "--signal", "WARN", "at USR1"),
        ("USR1@180", "USR1@soon", "--signal", "FAIL", "is not a valid value"),
        ("#SBATCH --signal=USR1@180", "#", "--signal", "WARN", "not set"),
        ("#SBATCH --requeue", "#", "--requeue", "WARN", "not set"),
        ("#SBATCH --requeue", "#SBATCH --requeue\n#SBATCH --no-requeue", "--requeue", "WARN", "--no-requeue"),
        ("=append", "=truncate", "--requeue", "WARN", "overwrites its log"),
        ("--mail-user=me@example.org", "", "--mail-type", "WARN", "--mail-user"),
        ("#!/bin/bash -l\n", "", "form", "FAIL", "#!"),
        ("\n", "\r\n", "form", "FAIL", "CR LF"),
        ("fit \\\n", "fit\n", "lines", "FAIL", "line 19 begins with --config, but the line before has no backslash"),
        ("fit \\\n", "fit \\ \n", "lines", "FAIL", "line 19"),
        ("srun --kill-on-bad-exit=1 ", "", "srun", "WARN", "line 18 starts the fit without srun"),
        ("python -m bldml fit", "python other.py", "srun", "SKIP", "no command"),
        ("export SRUN_CPUS_PER_TASK", "export OTHER", "step CPUs", "WARN", "export SRUN_CPUS_PER_TASK="),
    ],
)  # fmt: skip
def test_one_thing_wrong(old: str, new: str, name: str, status: str, words: str, folder: Path) -> None:
    assert old in GOOD
    found = [finding for finding in judged(GOOD.replace(old, new), folder) if finding.name == f"sbatch {name}"]
    assert [finding.status for finding in found] == [status], found
    assert words in f"{found[0].found}\n{found[0].remedy}"
    assert (status in ("WARN", "FAIL")) == bool(found[0].remedy)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("--kill-on-bad-exit=1", "--cpus-per-task=8", "step CPUs"),
        ("--kill-on-bad-exit=1", "-c 8", "step CPUs"),
        ("srun --kill-on-bad-exit=1 python -m bldml", "exec srun bldml", "srun"),
        ("srun --kill", "if true; then srun --kill", "srun"),
        ("--ntasks-per-node=1", "--ntasks=1", "--ntasks-per-node"),
        ("--gres=gpu:1", "--gpus-per-node=l40s:1", "--gres"),
    ],
)
def test_other_ways_that_are_right(old: str, new: str, name: str, folder: Path) -> None:
    text = GOOD.replace("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\n", "") if name == "step CPUs" else GOOD
    assert old in text
    found = [f for f in judged(text.replace(old, new), folder) if f.name == f"sbatch {name}"]
    assert [finding.status for finding in found] == ["OK"], found


def test_shell_that_hands_its_signal_on_may_get_it(folder: Path) -> None:
    text = GOOD.replace("USR1@", "B:USR1@").replace("set -euo", "trap 'kill -USR1 $fit' USR1\nset -euo")
    assert [f.status for f in judged(text, folder) if f.name == "sbatch --signal"] == ["OK"]


def test_without_slurm_an_account_is_only_asked_for(folder: Path) -> None:
    findings = judged(GOOD.replace("=beech", "=CHANGE_ME"), folder, Site())
    assert [f.status for f in findings if f.status != "OK"] == ["WARN"]


def test_ceres_has_no_gpus(folder: Path) -> None:
    findings = judged(GOOD, folder, replace(SITE, settings={"ClusterName": "ceres"}))
    (found,) = [finding for finding in findings if finding.status == "FAIL"]
    assert "Ceres has no GPUs" in found.found


def test_devices_that_are_said_count_more_than_the_gpus_asked_for(folder: Path) -> None:
    settings = replace(SETTINGS, devices=2)
    findings = judged(GOOD.replace("gpu:1", "gpu:4"), folder, settings=settings)
    (found,) = [finding for finding in findings if finding.status == "FAIL"]
    assert "#SBATCH --ntasks-per-node=2" in found.remedy


@pytest.mark.parametrize(("nodes", "status"), [("#SBATCH --nodes=1", "OK"), ("#", "FAIL")])
def test_number_of_tasks_on_one_node(nodes: str, status: str, folder: Path) -> None:
    text = GOOD.replace("--ntasks-per-node=1", "--ntasks=2").replace("#SBATCH --nodes=1", nodes)
    findings = judged(text, folder, settings=replace(SETTINGS, devices=2))
    assert [f.status for f in findings if f.name == "sbatch --ntasks-per-node"] == [status]


def test_two_tasks_without_srun_fail(folder: Path) -> None:
    text = GOOD.replace("--ntasks-per-node=1", "--ntasks-per-node=2").replace("srun --kill-on-bad-exit=1 ", "")
    (found,) = [finding for finding in judged(text, folder) if finding.name == "sbatch srun"]
    assert found.status == "FAIL"


@pytest.mark.parametrize(("line", "status"), [("true", "OK"), ("if true; then", "FAIL")])
def test_bash_reads_the_file(line: str, status: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.sbatch"
    path.write_text(f"#!/bin/bash\n{line}\n")
    assert check_syntax(path, os.environ).status == status
