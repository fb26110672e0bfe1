"""The command `doctor`: its arguments, the order of its checks, its report."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bldml import __version__
from bldml.doctor import hardware, inputs, sbatch, slurm, software, storage
from bldml.doctor.checks import Finding, Report, exit_code, fail, format_report
from bldml.doctor.configuration import Configuration, read_configuration
from bldml.doctor.script import Script, read_script
from bldml.errors import UsageError
from bldml.io.atomic import write_atomically
from bldml.io.platform import WINDOWS
from bldml.io.screen import say
from bldml.io.system import processors

HELP = """\
usage: bldml doctor [--sbatch FILE] [--json FILE] [any option of bldml fit]

Check before submitting a job that a fit with these options would run, on this machine and in the job. Nothing is
trained, downloaded or submitted, and test files are removed again.

  --sbatch FILE   also check this sbatch file against the options of the fit and the limits of the cluster
  --json FILE     also write the report as JSON, for a help ticket; it contains paths, names and versions
  --help          show this help

  python -m bldml doctor
  python -m bldml doctor --config configs/efficientnet.yaml --data.root data/BLD
  python -m bldml doctor --sbatch scripts/slurm/fit.sbatch --config configs/efficientnet.yaml

Exit code: 0 if no check fails, 1 if a check fails, 2 if the command line is not valid.
"""
OWN = ("--sbatch", "--json")


def main(arguments: list[str]) -> int:
    """Run the doctor with the command line after `doctor`; return the exit code.

    Raises:
        UsageError: The command line is not valid.
        RunError: The JSON file cannot be written.
    """
    if "--help" in arguments or "-h" in arguments:
        say(HELP)
        return 0
    own, fit = split_arguments(arguments)
    findings = run_checks(fit, own.get("--sbatch"), dict(os.environ))
    say(format_report(findings))
    if "--json" in own:
        content = {
            "bldml": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "python": sys.executable,
            "arguments": arguments,
            "exit_code": exit_code(findings),
            "findings": [asdict(finding) for finding in findings],
        }
        write_atomically(own["--json"], json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return exit_code(findings)


def split_arguments(arguments: list[str]) -> tuple[dict[str, Path], list[str]]:
    """Separate the doctor's own options from those of a fit.

    Raises:
        UsageError: One of its own has no value, or is given twice.

    >>> split_arguments(["--config", "a.yaml", "--sbatch=b.sbatch"])
    ({'--sbatch': PosixPath('b.sbatch')}, ['--config', 'a.yaml'])
    """
    own: dict[str, Path] = {}
    fit: list[str] = []
    rest = arguments[1:] if arguments[:1] == ["fit"] else list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
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
    return own, fit


def run_checks(fit: list[str], file: Path | None, environ: Mapping[str, str]) -> list[Finding]:
    """Run all checks of a fit's options and an sbatch file, in the order in which a fit would meet the problems."""
    report = Report()
    report.check("software", software.check_software, environ)
    report.check("torch, torchvision", software.check_imports)
    report.check("locale", software.check_encoding, sys.getfilesystemencoding(), sys.stdout.encoding or "none")
    configuration = read_configuration(fit)
    settings = configuration.settings
    report.findings += configuration.findings
    site = report.value("cluster", lambda: slurm.query_site(environ), slurm.Site())
    script = report.value("sbatch file", lambda: read_script(file), Script()) if file else Script()
    request = sbatch.JobRequest(script, site, settings, environ, Path.cwd())
    gpu = report.value("GPU", hardware.detect_gpu, None)
    if gpu:
        report.check("GPU", hardware.check_gpu, gpu, settings)
        report.check("GPU of the partition", hardware.check_partition_gpu, gpu, request.partition if file else "")
        report.check("precision", hardware.check_precision, gpu, settings)
        report.check("GPU memory", hardware.check_memory, settings, configuration.model)
    report.check("CPUs", hardware.check_cpus, processors(), environ, settings)
    _check_job(report, request, file, gpu.count if gpu else 0)
    _check_storage(report, configuration, site, environ)
    report.check("weights", inputs.check_weights, settings)
    report.check("photographs", inputs.check_photographs, settings, configuration.datamodule)
    if file and script.text:
        for check in sbatch.CHECKS:
            report.check("sbatch file", check, request)
        report.check("sbatch syntax", sbatch.check_syntax, file, environ)
        report.check("sbatch --test-only", sbatch.check_verdict, file, site, environ)
    elif file:
        reason = "is empty" if file.is_file() else "cannot be read: it does not exist, or you have no permission"
        report.findings.append(fail("sbatch file", f"{file} {reason}", "correct the path: --sbatch FILE"))
    return report.findings


def _check_job(report: Report, request: sbatch.JobRequest, file: Path | None, gpus: int) -> None:
    site, environ = request.site, request.environ
    partition = request.partition if file else environ.get("SLURM_JOB_PARTITION", "")
    report.check("Slurm commands", slurm.check_commands, environ)
    report.check("job", slurm.check_job, environ, request.settings, gpus)
    report.check("job's requeue", slurm.check_current_job, environ)
    report.check("signals", slurm.check_signals, environ)
    report.check("cluster", slurm.check_site, site)
    report.check("partition", slurm.check_partition, site, partition)
    if file or "SLURM_JOB_ID" not in environ:
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
