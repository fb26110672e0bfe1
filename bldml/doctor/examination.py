"""All checks, in their order, with their inputs."""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from bldml.doctor import folders, hardware, software, storage
from bldml.doctor.checks import Finding, fail, run_check
from bldml.doctor.configuration import Configuration, read_configuration
from bldml.doctor.memory import check_memory
from bldml.doctor.photographs import check_photographs
from bldml.doctor.slurm import body as sbatch_body
from bldml.doctor.slurm import cluster as slurm_cluster
from bldml.doctor.slurm import job as slurm_job
from bldml.doctor.slurm import options as sbatch_options
from bldml.doctor.slurm import resources as sbatch_resources
from bldml.doctor.slurm.script import Script, read_script
from bldml.doctor.weights import check_weights
from bldml.io.system import processors

Value = TypeVar("Value")


def run_checks(fit: list[str], sbatch: Path | None, environ: Mapping[str, str]) -> list[Finding]:
    """Run all checks, in the order in which a fit would meet the problems.

    Args:
        fit: Options of a fit; may be empty.
        sbatch: The sbatch file to check, if any.
        environ: The environment variables.
    """
    findings = run_check("software", lambda: software.check_software(environ))
    findings += run_check("torch, torchvision", software.check_imports)
    encodings = (sys.getfilesystemencoding(), sys.stdout.encoding or "none")
    findings += run_check("locale", lambda: [software.check_encoding(*encodings)])
    configuration = read_configuration(fit)
    findings += configuration.findings
    script = value_or_finding("sbatch file", lambda: read_sbatch(sbatch), None, findings)
    site = value_or_finding("cluster", lambda: slurm_cluster.query_site(environ), slurm_cluster.Site(), findings)
    partition = _partition(script, site, environ)
    findings += _machine(configuration, partition if script else "", environ)
    findings += _job(configuration, script, site, partition, environ)
    findings += _storage(configuration, site, environ)
    findings += run_check("weights", lambda: check_weights(configuration.settings))
    findings += run_check("photographs", lambda: check_photographs(configuration.settings, configuration.datamodule))
    if script is not None and sbatch is not None:
        findings += _sbatch(configuration, script, sbatch, site, environ)
    return findings


def value_or_finding(name: str, read: Callable[[], Value], otherwise: Value, findings: list[Finding]) -> Value:
    """Return what `read` returns; if it raises, add a finding and return `otherwise`."""
    result = otherwise

    def check() -> list[Finding]:
        nonlocal result
        result = read()
        return []

    findings += run_check(name, check)
    return result


def read_sbatch(path: Path | None) -> Script | None:
    """Return the sbatch file, if one is given; an empty script if it cannot be read."""
    if path is None:
        return None
    try:
        return read_script(path)
    except OSError:
        return Script("")


def _partition(script: Script | None, site: slurm_cluster.Site, environ: Mapping[str, str]) -> str:
    if script is None:
        return environ.get("SLURM_JOB_PARTITION", "")
    asked = script.value("partition") or environ.get("SBATCH_PARTITION", "")
    return asked.split(",")[0] or site.default_partition


def _machine(configuration: Configuration, partition: str, environ: Mapping[str, str]) -> list[Finding]:
    settings = configuration.settings
    findings: list[Finding] = []
    gpu = value_or_finding("GPU", hardware.detect_gpu, None, findings)
    if gpu is not None:
        found = gpu
        findings += run_check("GPU", lambda: hardware.check_gpu(found, settings))
        findings += run_check("GPU of the partition", lambda: hardware.check_partition_gpu(found, partition))
        findings += run_check("precision", lambda: hardware.check_precision(found, settings))
        findings += run_check("GPU memory", lambda: check_memory(settings, configuration.model))
    return findings + run_check("CPUs", lambda: hardware.check_cpus(processors(), environ, settings))


def _job(
    configuration: Configuration,
    script: Script | None,
    site: slurm_cluster.Site,
    partition: str,
    environ: Mapping[str, str],
) -> list[Finding]:
    findings = run_check("Slurm commands", lambda: slurm_job.check_commands(environ))
    findings += run_check("job", lambda: slurm_job.check_job(environ, configuration.settings, _gpus()))
    findings += run_check("job's requeue", lambda: slurm_job.check_current_job(environ))
    findings += run_check("signals", lambda: slurm_job.check_signals(environ))
    findings += run_check("cluster", lambda: slurm_cluster.check_site(site))
    findings += run_check("partition", lambda: slurm_cluster.check_partition(site, partition))
    if script is not None or "SLURM_JOB_ID" not in environ:
        limit = slurm_cluster.time_limit(site, partition, script.value("time") if script else "")
        findings += run_check("maintenance", lambda: slurm_cluster.check_reservations(site, limit, datetime.now()))
    return findings


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _storage(configuration: Configuration, site: slurm_cluster.Site, environ: Mapping[str, str]) -> list[Finding]:
    settings, findings = configuration.settings, list[Finding]()
    folder = storage.run_folder(settings)
    size = value_or_finding(
        "checkpoint", lambda: storage.checkpoint_size(settings.backbone) if settings else 0, 0, findings
    )
    findings += run_check("folders", lambda: storage.check_folders(settings, size))
    if size:
        findings += run_check("checkpoint write", lambda: _writing(site, storage.nearest_existing(folder), size))
    findings += run_check("quota", lambda: [storage.check_quota(environ)])
    findings += run_check("home folder", lambda: folders.check_home(folder, Path.home(), site.has_slurm))
    used = {"run folder": folder}
    value_or_finding("weights folder", lambda: used.update({"weights folder": storage.hub_folder()}), None, findings)
    if configuration.datamodule is not None and configuration.datamodule.root is not None:
        used["data folder"] = configuration.datamodule.root.absolute()
    for name, path in used.items():
        findings += run_check(name, partial(folders.check_scratch, name, path, datetime.now(UTC)))
        findings += run_check(name, partial(folders.check_group, name, path))
    findings += run_check("modes", lambda: folders.check_modes(configuration.files))
    return findings + run_check("umask", lambda: [folders.check_umask(folders.current_umask())])


def _writing(site: slurm_cluster.Site, folder: Path, size: int) -> list[Finding]:
    seconds, finding = storage.check_writing(folder, size)
    if seconds is None:
        return [finding] if finding else []
    return [slurm_cluster.check_save_time(site, seconds, size)]


def _sbatch(
    configuration: Configuration, script: Script, path: Path, site: slurm_cluster.Site, environ: Mapping[str, str]
) -> list[Finding]:
    if not script.text:
        reason = "is empty" if path.is_file() else "cannot be read: it does not exist, or you have no permission"
        return [fail("sbatch file", f"{path} {reason}", "correct the path: --sbatch FILE")]
    request = sbatch_resources.JobRequest(script, site, configuration.settings, environ, Path.cwd())
    findings = run_check("sbatch options", lambda: sbatch_options.check_options(request))
    findings += run_check("sbatch commands", lambda: sbatch_body.check_body(script))
    findings += run_check("sbatch syntax", lambda: [sbatch_body.check_syntax(path, environ)])
    return findings + run_check("sbatch --test-only", lambda: [sbatch_body.check_verdict(path, site, environ)])
