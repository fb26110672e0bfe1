"""What Slurm says of a cluster and a job, in the words that Slurm 22.05 was seen to use."""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from bldml.doctor.checks import Finding
from bldml.doctor.slurm import (
    Site,
    check_commands,
    check_job,
    check_maintenance,
    check_partition,
    check_shape,
    check_signals,
    check_site,
    count_devices,
    read_job,
    read_maintenance,
    read_records,
    read_settings,
    read_time,
    time_limit,
)
from bldml.doctor.submission.sbatch import read_signal
from bldml.doctor.tools import Answer
from bldml.training.resume.job import SlurmStep
from tests.doctor.settings import SETTINGS as ON_ANY

CONFIG = """\
Configuration data as of 2026-11-25T01:51:02
ClusterName             = atlas
JobFileAppend           = 0
JobRequeue              = 1
KillWait                = 30 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at head is UP
"""
PARTITIONS = (
    "PartitionName=low AllowGroups=ALL Default=YES QoS=N/A DefaultTime=02:00:00 GraceTime=20 MaxNodes=UNLIMITED "
    "MaxTime=2-00:00:00 PreemptMode=REQUEUE State=UP TRES=cpu=32,mem=8000M,node=1,billing=32\n"
    "PartitionName=high AllowGroups=ALL Default=NO QoS=N/A DefaultTime=NONE GraceTime=0 MaxTime=UNLIMITED "
    "PreemptMode=OFF State=UP TRES=cpu=32\n"
    "PartitionName=scavenger Default=NO MaxTime=21-00:00:00 GraceTime=0 PreemptMode=CANCEL State=UP\n"
    "PartitionName=old Default=NO MaxTime=1-00:00:00 GraceTime=0 PreemptMode=OFF State=DRAIN\n"
)
RESERVATIONS = (
    "ReservationName=course StartTime=2026-11-25T09:00:00 EndTime=2026-11-25T10:00:00 Flags=SPEC_NODES\n"
    "ReservationName=quarter StartTime=2026-11-26T06:00:00 EndTime=2026-11-27T06:00:00 Duration=1-00:00:00 Nodes=node "
    "NodeCnt=1 Features=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES,ALL_NODES TRES=cpu=32 Users=root State=INACTIVE\n"
)
JOB = (
    "JobId=7 JobName=fit UserId=jane(7) GroupId=jane(7) MCS_label=N/A Priority=1 JobState=RUNNING Reason=None "
    "Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0 Command=/project/a/fit.sbatch a b=c\n"
)
SCRIPT = "#!/bin/bash\n#SBATCH --signal=USR1@180 --open-mode=append\nsrun true\n"
SITE = Site(
    True,
    "",
    read_settings(CONFIG),
    {record["PartitionName"]: record for record in read_records(PARTITIONS)},
    tuple(read_maintenance(RESERVATIONS)),
)
NOW = datetime(2026, 11, 25, 12)
SETTINGS = replace(ON_ANY, accelerator="gpu")


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_site_is_described() -> None:
    finding = check_site(SITE)
    assert finding.status == "OK"
    for word in ("atlas", "22.05.8", "PreemptMode REQUEUE", "KillWait 30 sec", "JobRequeue 1"):
        assert word in finding.found
    assert SITE.default_partition == "low"


def test_site_that_does_not_answer_is_one_line() -> None:
    finding = check_site(Site(True, "the controller does not answer: Unable to contact"))
    assert (finding.status, finding.found) == ("SKIP", "the controller does not answer: Unable to contact")
    assert not list(check_maintenance(Site(True, "no answer"), 60, NOW))


@pytest.mark.parametrize(
    ("partition", "statuses"), [("low", ["OK"]), ("scavenger", ["WARN"]), ("old", ["WARN"]), ("nosuch", [])]
)
def test_partition(partition: str, statuses: list[str]) -> None:
    assert [finding.status for finding in check_partition(SITE, partition)] == statuses


@pytest.mark.parametrize(("text", "seconds"), [("30 sec", 30.0), ("", None), ("unknown", None)])
def test_time_between_the_signals(text: str, seconds: float | None) -> None:
    assert Site(settings={"KillWait": text}).kill_wait == seconds


@pytest.mark.parametrize(
    ("limit", "status", "words"),
    [
        (17 * 3600, "OK", "after the job's end"),
        (19 * 3600, "WARN", "#SBATCH --time=18:00:00"),
        (None, "WARN", "quarter from 2026-11-26 06:00"),
    ],
)
def test_maintenance(limit: int | None, status: str, words: str) -> None:
    finding = only(check_maintenance(SITE, limit, NOW))
    assert finding.status == status
    assert words in f"{finding.found}\n{finding.remedy}"


def test_maintenance_that_is_going_on_or_over() -> None:
    assert only(check_maintenance(SITE, 60, datetime(2026, 11, 26, 7))).status == "WARN"
    assert only(check_maintenance(replace(SITE, maintenance=()), None, NOW)).status == "OK"


def test_time_limit_is_asked_for_or_the_partitions() -> None:
    assert time_limit(SITE, "low", "30") == 1800
    assert time_limit(SITE, "low", "") == 7200
    assert time_limit(SITE, "scavenger", "") == 21 * 86400
    assert time_limit(SITE, "nosuch", "") is None


@pytest.mark.parametrize("text", ["", "8h", "1-", "a:b", "1:2:3:4"])
def test_what_is_no_time(text: str) -> None:
    assert read_time(text) is None


@pytest.mark.parametrize("text", ["", "@60", "USR1@", "X:USR1"])
def test_what_is_no_signal(text: str) -> None:
    assert read_signal(text) is None


BATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "fit",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
}
FOUR = {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4"}
TWO_NODES = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}


@pytest.mark.parametrize(
    ("changes", "name", "status", "words"),
    [
        ({}, "tasks", "OK", "1 of srun; trainer.devices auto on 1 node"),
        ({}, "srun", "OK", "step 0"),
        ({"SLURM_STEP_ID": None}, "srun", "WARN", "put srun before the command"),
        ({"SLURM_JOB_NAME": "bash"}, "job name", "WARN", "--job-name=bldml-fit"),
        ({"SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}, "job name", "WARN", "neither resumed nor requeued"),
        (FOUR, "tasks", "FAIL", "--trainer.devices 4"),
        (TWO_NODES, "tasks", "FAIL", "--trainer.num_nodes 2"),
        # The step decides about ranks in any job, as for fit.
        ({**FOUR, "SLURM_JOB_NAME": "interactive"}, "tasks", "FAIL", "srun started 4 tasks on 1 node"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": None}, "tasks", "WARN", "although the job has 4 tasks"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": None, "SLURM_JOB_NAME": "sys/dashboard/a"}, "tasks", "OK", "none"),
        ({"SLURM_NTASKS": "2", "SLURM_STEP_ID": None, "SLURM_JOB_NAME": "interactive"}, "tasks", "OK", "none of srun"),
        ({"JPY_PARENT_PID": "9"}, "job name", "OK", "fit"),
        ({"SLURM_JOB_ID": None}, "job", "SKIP", "not in a Slurm job"),
    ],
)
def test_job(changes: dict[str, str | None], name: str, status: str, words: str) -> None:
    environ = {key: value for key, value in {**BATCH, **changes}.items() if value is not None}
    (found,) = [finding for finding in check_job(environ, SETTINGS, 1) if finding.name == name]
    assert found.status == status
    assert words in f"{found.found}\n{found.remedy}"


def test_shape_needs_a_configuration() -> None:
    assert check_shape(BATCH, SlurmStep.current(BATCH), None, 1).status == "SKIP"


@pytest.mark.parametrize(
    ("devices", "accelerator", "gpus", "count"),
    [
        (2, "gpu", 0, 2), ("2", "gpu", 0, 2), ("0,1,2", "gpu", 0, 3), ("auto", "gpu", 4, 4), ("auto", "gpu", 0, None),
        (-1, "gpu", 4, 4), ("auto", "cpu", 4, 1),
    ],
)  # fmt: skip
def test_count_of_devices(devices: int | str, accelerator: str, gpus: int, count: int | None) -> None:
    assert count_devices(replace(SETTINGS, devices=devices, accelerator=accelerator), gpus) == count


def test_job_as_slurm_knows_it() -> None:
    findings = {f.name: f for f in read_job(Answer(0, JOB), Answer(0, SCRIPT))}
    assert {finding.status for finding in findings.values()} == {"OK"}
    assert "restarts so far: 2" in findings["job's requeue"].found
    assert "USR1@180" in findings["job's signal"].found


@pytest.mark.parametrize(
    ("job", "script", "statuses"),
    [
        (Answer(0, JOB.replace("Requeue=1", "Requeue=0")), Answer(0, SCRIPT), ["WARN", "OK", "OK"]),
        (Answer(0, JOB), Answer(0, "#!/bin/bash\nsrun true\n"), ["OK", "WARN", "WARN"]),
        (Answer(0, JOB.replace("BatchFlag=1", "BatchFlag=0")), Answer(1, problem="no script"), ["OK", "SKIP", "SKIP"]),
        (Answer(1, problem="Invalid job id specified"), Answer(1), ["SKIP"]),
        (Answer(None, problem="scontrol is not on the PATH"), Answer(None), ["SKIP"]),
    ],
)
def test_job_that_is_not_as_it_should_be(job: Answer, script: Answer, statuses: list[str]) -> None:
    assert [finding.status for finding in read_job(job, script)] == statuses


@pytest.mark.parametrize(
    ("programs", "job", "status"),
    [
        ((), {}, "SKIP"),
        (("sbatch", "srun", "scontrol"), {}, "OK"),
        (("sbatch",), {}, "WARN"),
        ((), {"SLURM_JOB_ID": "7"}, "WARN"),
        (("scontrol", "srun", "sbatch"), {"SLURM_JOB_ID": "7"}, "OK"),
    ],
)
def test_commands(programs: tuple[str, ...], job: dict[str, str], status: str, tmp_path: Path) -> None:
    for program in programs:
        (tmp_path / program).touch(0o755)
    assert check_commands({"PATH": str(tmp_path), **job}).status == status


@pytest.fixture
def deaf() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_signals_arrive() -> None:
    assert only(check_signals({"SLURM_JOB_ID": "7"})).status == "OK"
    assert not list(check_signals({}))


@pytest.mark.usefixtures("deaf")
def test_signals_that_are_ignored_are_told() -> None:
    finding = only(check_signals({"SLURM_JOB_ID": "7"}))
    assert finding.status == "OK"
    assert "SIGUSR1 ignored at the start" in finding.found


@pytest.mark.usefixtures("blocked")
def test_signals_that_are_blocked_never_arrive() -> None:
    finding = only(check_signals({"SLURM_JOB_ID": "7"}))
    assert (finding.status, finding.found) == ("FAIL", "SIGTERM blocked")
