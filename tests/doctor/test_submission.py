"""What a command line of sbatch makes of a file: its options, the fits of its job, and what the job inherits."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bldml.doctor.checks import Finding
from bldml.doctor.slurm import Site
from bldml.doctor.submission.command_line import Submission, read_submission
from bldml.doctor.submission.duration import check_duration
from bldml.doctor.submission.fits import check_array, check_run_names, plan_fits
from bldml.doctor.submission.inheritance import CHECKS, OF_JOB, OF_STEP, check_kinds_of_memory
from bldml.doctor.submission.sbatch import JobRequest, check_signal, check_tasks, judge
from tests.doctor.settings import SETTINGS
from tests.support import REPOSITORY, mistake

SCRIPTS = REPOSITORY / "scripts" / "slurm"
FIT, BACKBONES = ("scripts/slurm/fit.sbatch", "scripts/slurm/backbones.sbatch")
SLURM = ("--config", "configs/slurm.yaml")
SESSION = {"SLURM_JOB_ID": "9", "SLURM_MEM_PER_CPU": "50", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}


def typed(*words: str) -> Submission:
    submission = read_submission(["sbatch", *words])
    assert submission is not None
    return submission


def request(submission: Submission, environ: Mapping[str, str] | None = None, folder: Path = REPOSITORY) -> JobRequest:
    environ = environ or {}
    return JobRequest(submission.read(environ, folder), Site(), SETTINGS, environ, folder)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("name", ["fit.sbatch", "survey.sbatch", "command.sbatch"])
def test_the_scripts_remove_what_the_doctor_names(name: str) -> None:
    text = (SCRIPTS / name).read_text().replace("\\\n", "")
    found = re.search(r"case \$name in\n(.*?)\) ;;\n(.*?)\)\n", text, re.DOTALL)
    assert found is not None
    assert [tuple(part.replace("|", " ").split()) for part in found.groups()] == [OF_JOB, OF_STEP]


@pytest.mark.parametrize("words", [("--time=5",), ("--wrap=srun python -m bldml fit",), ()])
def test_a_command_without_a_file(words: tuple[str, ...]) -> None:
    with mistake("doctor-no-script"):
        read_submission(["sbatch", *words])


def test_variables_count_more_than_the_file_and_the_command_line_most() -> None:
    environ = {"SBATCH_TIMELIMIT": "20", "SBATCH_PARTITION": "long", "SBATCH_NO_REQUEUE": ""}
    script = typed("--partition", "x", "--time-min=1", FIT).read(environ, REPOSITORY)
    assert [script.value(name) for name in ("time", "partition", "mem", "time-min")] == ["20", "x", "32G", "1"]
    assert script.options[-1].source == "the command line"
    assert "no-requeue" in [option.name for option in script.options]


@pytest.mark.parametrize(
    ("words", "environ", "remedy"),
    [
        (("--signal=USR1@10", FIT), {}, "sbatch --signal"),
        ((FIT,), {"SBATCH_SIGNAL": "USR1@10"}, "unset SBATCH_SIGNAL, or sbatch --signal"),
    ],
)
def test_remedies_name_what_can_be_changed(words: tuple[str, ...], environ: dict[str, str], remedy: str) -> None:
    (finding,) = judge(check_signal, request(typed(*words), environ))
    assert finding.status == "WARN"
    assert finding.remedy.startswith(remedy)


def test_a_shell_that_ignores_a_signal_does_not_pass_it_on() -> None:
    (finding,) = judge(check_signal, request(typed("--signal=B:USR1@300", FIT)))
    assert (finding.status, "signals the shell only" in finding.found) == ("FAIL", True)


@pytest.mark.parametrize(("words", "status"), [((), "OK"), (("--ntasks=1",), "OK"), (("--ntasks=8",), "FAIL")])
def test_tasks_on_the_command_line(words: tuple[str, ...], status: str) -> None:
    findings = check_tasks(request(typed(*words, FIT)))
    assert status in [finding.status for finding in findings]


def test_the_file_of_a_survey_has_no_fit() -> None:
    submission = typed("--array=1-16", "scripts/slurm/survey.sbatch", "lightning_logs/RUN", "photographs/")
    (fit,) = plan_fits(submission.read({}, REPOSITORY), submission, {})
    assert fit.problem == "no command `bldml fit` was found in the file"


@pytest.mark.parametrize(
    ("submission", "expected"),
    [
        (typed(FIT), [("", ("--config", "configs/efficientnet.yaml", *SLURM))]),
        (typed(FIT, "a.yaml", "--model.lr", "1"), [("", ("--config", "a.yaml", *SLURM, "--model.lr", "1"))]),
        (typed(FIT, "--resume", "run"), [("", (*SLURM, "--resume", "run"))]),
        (
            typed("--array=0,2", BACKBONES, "--seed_everything=1"),
            [(name, ("--config", f"configs/{name}.yaml", *SLURM, "--seed_everything=1"))
             for name in ("efficientnet", "mobilenet")],
        ),
        (Submission(Path(FIT), (), ("--config", "b.yaml"), typed=False), [("", ("--config", "b.yaml"))]),
        (
            Submission(Path(FIT), (), ("--model.lr=1",), typed=False),
            [("", ("--config", "configs/efficientnet.yaml", *SLURM, "--model.lr=1"))],
        ),
    ],
)  # fmt: skip
def test_fits_of_the_shipped_scripts(submission: Submission, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    plans = plan_fits(submission.read({}, REPOSITORY), submission, {})
    assert [(plan.task, plan.options) for plan in plans] == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ('--config "$1" "${@:2}"', [("--config", "a.yaml", "--model.lr=1")]),
        ('--config=$MINE --run_name run_${SLURM_ARRAY_TASK_ID}', [
            ("--config=m.yaml", "--run_name", "run_4"), ("--config=m.yaml", "--run_name", "run_6")]),
        ('--config "$3"', None),
        ("--config $(ls *.yaml)", None),
        ("--config ${files[0]}", None),
    ],
)  # fmt: skip
def test_fits_of_a_script_of_ones_own(command: str, expected: list[tuple[str, ...]] | None, tmp_path: Path) -> None:
    path = tmp_path / "own.sbatch"
    path.write_text(f"#!/bin/bash\n#SBATCH --array=4-7:2\nsrun python -m bldml fit {command}\n")
    submission = typed(str(path), "a.yaml", "--model.lr=1")
    plans = plan_fits(submission.read({}, tmp_path), submission, {"MINE": "m.yaml"})
    if expected is None:
        assert "is not known here" in plans[0].problem
    else:
        assert [plan.options for plan in plans] == expected


@pytest.mark.parametrize(
    ("text", "status"), [("0-3", "OK"), ("0-3%2", "OK"), ("0-4", "FAIL"), ("7", "FAIL"), ("all", "FAIL")]
)
def test_tasks_of_the_backbones(text: str, status: str) -> None:
    submission = typed(f"--array={text}", BACKBONES)
    script = submission.read({}, REPOSITORY)
    assert [finding.status for finding in check_array(script, plan_fits(script, submission, {}))] == [status]


def test_run_names(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    script = tmp_path / "own.sbatch"
    script.write_text("#!/bin/bash\n#SBATCH --array=1-3\nsrun python -m bldml fit --run_name $1\n")
    own, shipped = (typed(str(file)).read({}, REPOSITORY) for file in (script, FIT))
    for read, names, expected in (
        (own, ["new"], ["FAIL"]),  # three tasks
        (shipped, ["old"], ["FAIL"]),
        (shipped, ["a_1", "a_2"], ["OK"]),
        (shipped, list[str](), list[str]()),
    ):
        findings = check_run_names(read, [tmp_path / name for name in names])
        assert [finding.status for finding in findings] == expected, names


OWN = "#!/bin/bash\n#SBATCH --mem=1G\nsrun python -m bldml fit --config a.yaml\n"


@pytest.mark.parametrize(
    ("text", "words", "environ", "expected"),
    [
        (OWN, (), {}, []),
        (OWN, (), SESSION, ["FAIL"]),
        (OWN.replace("--mem", "--mem-per-cpu"), (), SESSION, ["WARN"]),
        (OWN, ("--mem-per-gpu=1G",), {"SLURM_JOB_ID": "9", "SLURM_MEM_PER_NODE": "5"}, ["WARN"]),
        (None, (), SESSION, ["OK"]),
        (OWN, (), {"SBATCH_MEM_PER_NODE": "2G"}, ["WARN"]),
        (OWN, ("--mem=3G",), {"SBATCH_MEM_PER_NODE": "2G"}, ["OK"]),
        (OWN, (), {"SBATCH_PARTITION": "x"}, ["OK"]),
        (None, (), {"SBATCH_ACCOUNT": "beech"}, ["OK"]),  # in place of CHANGE_ME
        (OWN, ("--export=A=1",), {}, ["FAIL"]),
        (OWN, ("--export=ALL,A=1",), {}, []),
        (None, ("--export=NONE",), SESSION, ["WARN"]),
        (None, ("--export=BLDML_ENV=/env",), {}, ["OK"]),
    ],
)
def test_what_a_job_inherits(
    text: str | None, words: tuple[str, ...], environ: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    path = SCRIPTS / "fit.sbatch"
    if text:
        path = tmp_path / "own.sbatch"
        path.write_text(text)
    asked = request(typed(*words, str(path)), environ)
    findings: list[Finding] = [finding for check in CHECKS for finding in check(asked)]
    assert [finding.status for finding in findings] == expected, findings
    if "SLURM_MEM_PER_CPU" in environ and expected == ["FAIL"]:
        assert "SLURM_MEM_PER_CPU of job 9 and --mem" in findings[0].found
    assert all(bool(finding.remedy) == (finding.status != "OK") for finding in findings)


def test_two_kinds_of_memory_in_a_job() -> None:
    assert [f.status for f in check_kinds_of_memory({**SESSION, "SLURM_MEM_PER_NODE": "200"})] == ["FAIL"]
    assert not list(check_kinds_of_memory(SESSION))


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("--time=3",), "FAIL", "Slurm may send the signal at once"),
        (("--time=5",), "WARN", "00:02:00 before the signal; no earlier run"),
        (("--time=08:00:00",), "OK", "no earlier run"),
        (("--time=08:00:00", "--time-min=3"), "FAIL", "at once"),
        (("--time=UNLIMITED",), None, ""),
    ],
)
def test_time_before_the_signal(words: tuple[str, ...], status: str | None, text: str, tmp_path: Path) -> None:
    asked = replace(request(typed(*words, FIT)), settings=replace(SETTINGS, root_dir=tmp_path))
    findings = list(check_duration(asked))
    assert [finding.status for finding in findings] == ([status] if status else [])
    assert all(text in finding.found for finding in findings)


@pytest.mark.parametrize(("seconds", "status"), [(10.0, "OK"), (500.0, "WARN"), (900.0, "WARN")])
def test_an_earlier_run_says_how_long_a_validation_takes(seconds: float, status: str, tmp_path: Path) -> None:
    evaluation = tmp_path / "lightning_logs" / "old" / "evaluations" / "val"
    evaluation.mkdir(parents=True)
    (evaluation / "provenance.json").write_text(f'{{"seconds": {seconds}, "device": "NVIDIA L40S"}}')
    config = evaluation.parents[1] / "config.yaml"
    config.write_text(f"model: {{backbone: {SETTINGS.backbone}, image_size: 64}}\n")
    asked = replace(request(typed("--time=15", FIT)), settings=replace(SETTINGS, root_dir=tmp_path))
    (finding,) = check_duration(asked)
    assert finding.status == status
    assert f"old on NVIDIA L40S took {seconds:.0f} s" in finding.found
    # What each start of the run took is known better.
    text = '{"stretches": [{"seconds": {"start-up": 700, "validation": 30}}, {}, 3]}'
    (evaluation.parents[1] / "stretches.json").write_text(text)
    (finding,) = check_duration(asked)
    assert finding.status == "WARN"
    assert "700 s to start, 30 s for a pass over val" in finding.found
    # Another network is no measure.
    config.write_text("model: {backbone: resnet50, image_size: 64}\n")
    (finding,) = check_duration(asked)
    assert "no earlier run" in finding.found
