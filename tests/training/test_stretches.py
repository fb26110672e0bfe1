"""What each start of a job records, and when a job whose starts do nothing ends."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from signal import SIGTERM, SIGUSR1

import pytest

from bldml.run.folder import RunFolder
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import Interrupted
from bldml.training.resume.stretches import NAME, StartRecord, StretchLog, as_time, describe_starts, needed, read_starts
from tests.support import mistake

JOB = SlurmJob("7", "atlas")
IDLE = StartRecord(job=JOB.key, phase="validation", first_step=8, step=8, done=3, of=40, in_phase=20, signal="SIGUSR1")
IDLE = replace(IDLE, seconds={"start-up": 14.0}, elapsed=34.0)


def run_of(tmp_path: Path, *before: StartRecord) -> RunFolder:
    (tmp_path / NAME).write_text(json.dumps({"schema": 1, "stretches": [asdict(one) for one in before]}))
    return RunFolder(tmp_path)


def log_of(run: RunFolder, signal: int = SIGUSR1, job: SlurmJob = JOB) -> StretchLog:
    log = StretchLog(job, first_step=8)
    log.write_to(run)
    log.enter("validation", 40)
    log.end(Interrupted(signal))
    return log


def test_third_start_that_does_nothing_is_the_last(tmp_path: Path) -> None:
    log = log_of(run_of(tmp_path, IDLE, IDLE))
    with mistake("stretches-without-progress", found=3, phase="validation") as raised:
        log.check(Interrupted(SIGUSR1))
    assert "Start-up took" in str(raised.value)
    assert "Validation was not finished after" in str(raised.value)
    # What the job had is not known: the signal may have been sent by hand.
    assert "From these times, with a margin, one start needs about this --time" in str(raised.value)
    assert f"--resume {tmp_path}" in str(raised.value)
    assert len(read_starts(RunFolder(tmp_path))) == 3


@pytest.mark.parametrize(
    "before",
    [
        [IDLE],
        [IDLE, replace(IDLE, step=9)],
        [IDLE, replace(IDLE, validations=1)],
        [IDLE, replace(IDLE, evaluated=("val",))],
        [replace(IDLE, kept=5), IDLE],
        [IDLE, replace(IDLE, job="atlas:6")],
        [IDLE, replace(IDLE, signal="SIGTERM")],  # preempted: the wall time is not to blame
        [IDLE, replace(IDLE, signal="")],  # killed
        [IDLE, replace(IDLE, step=9, signal="SIGTERM"), IDLE],  # preempted, but behind a step
    ],
)
def test_other_starts_are_requeued(before: list[StartRecord], tmp_path: Path) -> None:
    log_of(run_of(tmp_path, *before)).check(Interrupted(SIGUSR1))


def test_a_cache_that_is_erased_each_time_is_no_progress_for_ever(tmp_path: Path) -> None:
    with mistake("stretches-without-progress", found=21):
        log_of(run_of(tmp_path, *[replace(IDLE, kept=5)] * 20)).check(Interrupted(SIGUSR1))


def test_preempted_and_interactive_jobs_are_left_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path, IDLE, IDLE)
    log_of(run, SIGTERM).check(Interrupted(SIGTERM))
    session = SlurmJob("7", "atlas", interactive=True)
    log_of(run, job=session).check(Interrupted(SIGUSR1))


def test_without_a_run_folder_the_number_of_starts_counts() -> None:
    for restarts in (0, 1, 2):
        log = StretchLog(SlurmJob("7", restarts=restarts))
        log.end(Interrupted(SIGUSR1))
        if restarts < 2:
            log.check(Interrupted(SIGUSR1))
        else:
            with mistake("stretches-without-progress", phase="start-up"):
                log.check(Interrupted(SIGUSR1))


def test_the_time_that_is_needed_follows_from_what_was_measured() -> None:
    text = describe_starts([IDLE])
    assert text == (
        "Start-up took 14 s. Validation was not finished after 20 s: 3 of 40 batches, so all of it takes about 4.4 min."
    )
    whole = 14 + 20 / 3 * 40
    assert needed([IDLE]) > whole + 180
    assert as_time(needed([IDLE])) == "00:11:00"


DAMAGED = [
    "",
    "[]",
    '{"stretches": 3}',
    '{"stretches": [1, {"step": "x"}, {"seconds": []}]}',
    '{"stretches": [{"step": 1e999}, {"step": 3, "elapsed": 1e999}, {"step": 3, "in_phase": NaN}]}',
    '{"stretches": [{"seconds": {"": 3}}, {"seconds": {"training": -3}}, {"seconds": {"training": 1e300}}]}',
    '{"stretches": [{"step": 1, "elapsed": 1%s}]}' % ("0" * 400),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_records_count_as_missing(content: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(content)
    assert [one for one in read_starts(RunFolder(tmp_path)) if one.seconds or one.step] == []


def test_what_is_said_of_a_record_without_a_phase(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"stretches": [{"step": 1}, {"phase": ""}]}')
    said = describe_starts(read_starts(RunFolder(tmp_path)))
    assert said == "Start-up was not finished after 1 s."
