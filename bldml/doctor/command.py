"""The command `doctor`: its arguments, the order of its checks, its report."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bldml import __version__
from bldml.doctor import hardware, inputs, slurm, software, storage
from bldml.doctor.checks import Finding, Report, exit_code, fail, format_report, skip
from bldml.doctor.configuration import Configuration, Settings, read_configuration
from bldml.doctor.submission import inheritance, sbatch
from bldml.doctor.submission.command_line import Submission, read_submission
from bldml.doctor.submission.duration import check_duration
from bldml.doctor.submission.fits import MAX_FITS, PlannedFit, check_array, check_run_names, plan_fits
from bldml.doctor.submission.script import LARGEST_SCRIPT, Script
from bldml.errors import UsageError
from bldml.io.atomic import write_atomically
from bldml.io.platform import WINDOWS
from bldml.io.screen import say
from bldml.io.system import processors

HELP = """\
usage: bldml doctor [--json FILE] [--sbatch FILE] [any option of bldml fit]
       bldml doctor [--json FILE] sbatch [any option of sbatch] FILE [arguments of the file]

Check before submitting a job that a fit with these options would run, on this machine and in the job. Nothing is
trained, downloaded or submitted, and test files are removed again.

  --sbatch FILE   also check this sbatch file against the options of the fit and the limits of the cluster
  --json FILE     also write the report as JSON, for a help ticket; it contains paths, names and versions
  --help          show this help

The second form takes a command of sbatch as you would type it, after `bldml doctor`. Its options, and variables such as
SBATCH_TIMELIMIT, are checked as sbatch takes them. All configurations of a job array are checked.

  python -m bldml doctor
  python -m bldml doctor --config configs/efficientnet.yaml --data.root data/BLD
  python -m bldml doctor --sbatch scripts/slurm/backbones.sbatch --data.root data/BLD
  python -m bldml doctor sbatch --time=04:00:00 scripts/slurm/fit.sbatch configs/resnet50.yaml --data.root data/BLD

Exit code: 0 if no check fails, 1 if a check fails, 2 if the command line is not valid.
"""
OWN = ("--sbatch", "--json")
NOT_A_FILE = "correct the path: --sbatch FILE"


def main(arguments: list[str]) -> int:
    """Run the doctor with the command line after `doctor`; return the exit code.

    Raises:
        UsageError: The command line is not valid.
        RunError: The JSON file cannot be written.
    """
    order = read_order(arguments)
    if order is None:
        say(HELP)
        return 0
    findings = run_checks(order.fit, order.submission, dict(os.environ))
    say(format_report(findings))
    if order.json:
        content = {
            "bldml": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "python": sys.executable,
            "arguments": arguments,
            "exit_code": exit_code(findings),
            "findings": [asdict(finding) for finding in findings],
        }
        write_atomically(order.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return exit_code(findings)


@dataclass(frozen=True)
class Order:
    """What the doctor is to check."""

    fit: tuple[str, ...] = ()  # options of a fit
    submission: Submission | None = None  # whose file may start fits of its own
    json: Path | None = None  # a file for the report


def read_order(arguments: list[str]) -> Order | None:
    """Read the command line after `doctor`; None if it asks for help.

    Raises:
        UsageError: An option of the doctor has no value or is given twice, or a command of sbatch names no file.

    >>> order = read_order(["--config", "a.yaml", "--sbatch=b.sbatch"])
    >>> order.fit, order.submission.file.name
    (('--config', 'a.yaml'), 'b.sbatch')
    """
    own: dict[str, Path] = {}
    fit: list[str] = []
    rest = arguments[1:] if arguments[:1] == ["fit"] else list(arguments)
    while rest:
        if not fit and (submission := read_submission(rest)):
            if "--sbatch" in own:
                message = "Set --sbatch FILE, or type a command of sbatch, not both."
                raise UsageError(message, "doctor-two-submissions")
            return Order((), submission, own.get("--json"))
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            return None
        if option not in OWN:
            fit.append(word)
            continue
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        if not value:
            message = f"{option} needs a file: {option} FILE. All options: bldml doctor --help"
            raise UsageError(message, "doctor-option-empty", key=option)
        if option in own:
            message = f"{option} is set twice. All options: bldml doctor --help"
            raise UsageError(message, "doctor-option-twice", key=option)
        own[option] = Path(value)
    if file := own.get("--sbatch"):
        return Order(tuple(fit), _submission_for(file, fit), own.get("--json"))
    return Order(tuple(fit), None, own.get("--json"))


def _submission_for(file: Path, fit: list[str]) -> Submission:
    """Return the submission of a file with options of a fit, which are all, or added to those of the file."""
    if fit and not fit[0].startswith("-") and not fit[0].endswith((".yaml", ".yml")):
        fit = [f"--data.root={fit[0]}", *fit[1:]]  # as fit takes its first word
    return Submission(file, arguments=tuple(fit), typed=False)


def run_checks(
    fit: Sequence[str], submission: Submission | None, environ: Mapping[str, str], folder: Path | None = None
) -> list[Finding]:
    """Run all checks of a fit's options and a submission, in the order in which a fit would meet the problems."""
    report = Report()
    report.check("software", software.check_software, environ)
    report.check("torch, torchvision", software.check_imports)
    report.check("locale", software.check_encoding, sys.getfilesystemencoding(), sys.stdout.encoding or "none")
    script, plans, folder = Script(), [PlannedFit(tuple(fit))], folder or Path.cwd()
    if submission:
        environ = {**environ, **submission.variables}
        script = report.value("sbatch file", lambda: submission.read(environ, folder), script)
        plans = report.value("fits", lambda: plan_fits(script, submission, environ), plans)
    first = plans[0] if plans else PlannedFit(problem="the array has no task that starts a fit")
    configuration = _read_planned(first)
    settings = configuration.settings
    report.findings += configuration.findings
    site = report.value("cluster", lambda: slurm.query_site(environ), slurm.Site())
    request = sbatch.JobRequest(script, site, settings, environ, folder)
    gpu = report.value("GPU", hardware.detect_gpu, None)
    if gpu:
        report.check("GPU", hardware.check_gpu, gpu, settings)
        report.check("GPU of the partition", hardware.check_partition_gpu, gpu, request.partition if submission else "")
        _check_gpu_use(report, gpu, configuration)
    report.check("CPUs", hardware.check_cpus, processors(), environ, settings)
    _check_job(report, request, submission is not None, gpu.count if gpu else 0)
    _check_storage(report, configuration, site, environ)
    report.check("weights", inputs.check_weights, settings)
    report.check("photographs", inputs.check_photographs, settings, configuration.datamodule)
    named = list(_check_others(report, request, gpu, plans[1:MAX_FITS], settings))
    report.check("run name", check_run_names, script, _runs([(first, settings), *named]))
    if submission:
        _check_submission(report, request, submission, plans)
    return report.findings


def _read_planned(plan: PlannedFit) -> Configuration:
    if plan.problem:
        return Configuration(findings=(skip("configuration", f"not checked: {plan.problem}; give --config"),))
    return read_configuration(list(plan.options))


def _check_gpu_use(report: Report, gpu: hardware.Gpu, configuration: Configuration) -> None:
    report.check("precision", hardware.check_precision, gpu, configuration.settings)
    report.check("GPU memory", hardware.check_memory, configuration.settings, configuration.model)


def _check_others(
    report: Report, request: sbatch.JobRequest, gpu: hardware.Gpu | None, plans: Sequence[PlannedFit],
    first: Settings | None,
) -> Iterator[tuple[PlannedFit, Settings | None]]:  # fmt: skip
    """Check the further fits of an array; what was found for an earlier one is not said again."""
    seen = {first.data} if first else set()
    of_file = Report()  # of which most is the same for all
    for check in (*sbatch.CHECKS, check_duration):
        of_file.check("sbatch file", sbatch.judge, check, request)
    before = report.findings + of_file.findings
    for plan in plans:
        own, configuration = Report(), _read_planned(plan)
        settings = configuration.settings
        own.findings += configuration.findings
        if settings:
            if gpu:
                _check_gpu_use(own, gpu, configuration)
            own.check("CPUs", hardware.check_cpus, processors(), request.environ, settings)
            own.check("weights", inputs.check_weights, settings)
            if settings.data not in seen:
                own.check("photographs", inputs.check_photographs, settings, configuration.datamodule)
                seen.add(settings.data)
            for check in (*sbatch.CHECKS, check_duration):
                own.check("sbatch file", sbatch.judge, check, replace(request, settings=settings))
        new = [f for f in own.findings if f not in before]
        before += new
        report.findings += [replace(finding, name=f"{finding.name} ({plan.task})") for finding in new]
        yield plan, settings


def _runs(fits: Sequence[tuple[PlannedFit, Settings | None]]) -> list[Path]:
    """Return the run folders of fits whose name is set."""
    named = [(plan, settings, settings.run_name) for plan, settings in fits if settings and settings.run_name]
    if not named:
        return []
    from bldml.app.resume import with_task  # needs all packages

    return [storage.run_folder(s) / with_task(name, plan.task if plan.named else "") for plan, s, name in named]


def _check_submission(
    report: Report, request: sbatch.JobRequest, submission: Submission, plans: Sequence[PlannedFit]
) -> None:
    file, environ = submission.file, request.environ
    if not request.script.text:
        reason = "cannot be read: it does not exist, is no file, or you have no permission"
        if file.is_file():
            reason = "is larger than Slurm takes (4 MiB)" if file.stat().st_size > LARGEST_SCRIPT else "is empty"
        report.findings.append(fail("sbatch file", f"{file} {reason}", NOT_A_FILE))
        return
    for check in (*sbatch.CHECKS, check_duration, *inheritance.CHECKS):
        report.check("sbatch file", sbatch.judge, check, request)
    report.check("sbatch --array", check_array, request.script, plans)
    report.check("sbatch syntax", sbatch.check_syntax, file, environ)
    report.check("sbatch --test-only", sbatch.check_verdict, file, submission.words, request.site, environ)


def _check_job(report: Report, request: sbatch.JobRequest, submits: bool, gpus: int) -> None:
    site, environ = request.site, request.environ
    partition = request.partition if submits else environ.get("SLURM_JOB_PARTITION", "")
    report.check("Slurm commands", slurm.check_commands, environ)
    report.check("job", slurm.check_job, environ, request.settings, gpus)
    report.check("job's requeue", slurm.check_current_job, environ)
    report.check("signals", slurm.check_signals, environ)
    report.check("cluster", slurm.check_site, site)
    report.check("partition", slurm.check_partition, site, partition)
    report.check("memory of the job", inheritance.check_kinds_of_memory, environ)
    if submits or "SLURM_JOB_ID" not in environ:
        limit = slurm.time_limit(site, partition, request.script.value("time"))
        report.check("maintenance", slurm.check_maintenance, site, limit, datetime.now())


def _check_storage(report: Report, configuration: Configuration, site: slurm.Site, environ: Mapping[str, str]) -> None:
    settings = configuration.settings
    folder = storage.run_folder(settings)
    size = report.value("checkpoint", lambda: storage.checkpoint_size(settings.backbone) if settings else 0, 0)
    report.check("folders", storage.check_folders, settings, size)
    if size:
        report.check("checkpoint write", storage.check_writing, folder, size, site.kill_wait)
    report.check("quota", storage.check_quota, environ)
    report.check("home folder", lambda: storage.check_home(folder, Path.home(), site.has_slurm))
    used = {"run folder": folder, "weights folder": report.value("weights folder", storage.hub_folder, None)}
    if configuration.datamodule is not None and configuration.datamodule.root is not None:
        used["data folder"] = configuration.datamodule.root.absolute()
    for name, path in used.items():
        if path is not None:
            report.check(name, storage.check_scratch, name, path, datetime.now(UTC))
            report.check(name, storage.check_group, name, path)
    if not WINDOWS:
        report.check("modes", storage.check_modes, configuration.files)
        report.check("umask", storage.check_umask, storage.current_umask())
