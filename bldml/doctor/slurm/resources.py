"""Resources requested by an sbatch file (time, GPUs, CPUs, tasks), against limits and the settings of the fit."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm.cluster import Site
from bldml.doctor.slurm.job import count_devices
from bldml.doctor.slurm.parse import format_time, read_time
from bldml.doctor.slurm.script import Script
from bldml.io.text import counted


@dataclass(frozen=True)
class JobRequest:
    """An sbatch file with everything that its checks need."""

    script: Script
    site: Site
    settings: Settings | None
    environ: Mapping[str, str]
    folder: Path

    @property
    def partition(self) -> str:
        """The requested partition, or the default partition; empty if not known."""
        asked = self.script.value("partition") or self.environ.get("SBATCH_PARTITION", "")
        return asked.split(",")[0] or self.site.default_partition


def check_time(request: JobRequest) -> Finding:
    """Check that a time limit is set and does not exceed that of the partition."""
    name = "sbatch --time"
    asked = request.script.value("time")
    if not asked:
        return warn(name, "not set: the default of the site, often 2 hours", "#SBATCH --time=08:00:00")
    seconds = read_time(asked)
    if seconds is None:
        return fail(name, f"{asked} is not a time", "#SBATCH --time=08:00:00     (or days-hours:minutes:seconds)")
    limit = read_time(request.site.partitions.get(request.partition, {}).get("MaxTime", ""))
    if limit is not None and seconds > limit:
        found = f"{asked} exceeds the limit of {request.partition}, {format_time(limit)}"
        return fail(name, found, f"#SBATCH --time={format_time(limit)}     (a requeued fit resumes)")
    return ok(name, format_time(seconds))


def asked_gpus(script: Script) -> int:
    """Return the number of GPUs per node that a script requests.

    >>> from bldml.doctor.slurm.script import parse_script
    >>> [asked_gpus(parse_script(f"#SBATCH {text}")) for text in ("--gres=gpu:a100:2", "--gres=gpu", "-G 3", "-c 2")]
    [2, 1, 3, 0]
    """
    for name in ("gres", "gpus-per-node", "gpus", "gpus-per-task"):
        for part in script.value(name).split(","):
            words = part.split(":")
            if not part or (name == "gres" and words[0] not in ("gpu", "gres/gpu")):
                continue
            return int(words[-1]) if words[-1].isdigit() else 1
    return 0


def requests_gpu(script: Script) -> bool:
    """Return whether a script requests a GPU."""
    return asked_gpus(script) > 0


def check_gpus(request: JobRequest) -> Finding:
    """Check that a GPU is requested."""
    name = "sbatch --gres"
    count = asked_gpus(request.script)
    if count:
        return ok(name, f"{counted(count, 'GPU')} per node")
    if request.settings and request.settings.accelerator == "cpu":
        return ok(name, "none; trainer.accelerator is cpu")
    remedy = "#SBATCH --gres=gpu:1"
    if "gpu" in request.partition:
        return fail(name, f"no GPU requested: a job in {request.partition} does not get one automatically", remedy)
    return warn(name, "no GPU requested: the fit would run on the CPU", remedy)


def check_requested_cpus(request: JobRequest) -> Finding:
    """Check that enough CPUs are requested for the workers and the training process."""
    name = "sbatch --cpus-per-task"
    asked = request.script.value("cpus-per-task")
    workers = request.settings.num_workers if request.settings else "auto"
    wanted = workers + 1 if isinstance(workers, int) else 8
    remedy = f"#SBATCH --cpus-per-task={wanted}"
    if not asked.isdigit():
        return warn(name, f"{asked or 'not set: one CPU'} for loading and training", remedy)
    if isinstance(workers, int) and int(asked) < wanted:
        return warn(name, f"{asked} for {counted(workers, 'worker')} and the training process", remedy)
    return ok(name, f"{asked}; data.num_workers {workers}")


def check_tasks(request: JobRequest) -> Iterable[Finding]:
    """Check that the script starts as many processes as the trainer expects."""
    script, settings = request.script, request.settings
    ntasks, per_node = script.value("ntasks"), script.value("ntasks-per-node")
    name = "sbatch --ntasks-per-node"
    if ntasks.isdigit() and int(ntasks) > 1 and not per_node:
        yield fail(
            name,
            f"--ntasks={ntasks} would start {ntasks} independent fits; Lightning refuses it",
            "#SBATCH --ntasks-per-node=1     (= trainer.devices)\n#SBATCH --cpus-per-task=8     (for CPUs)",
        )
        return
    if settings is None:
        yield skip(name)
        return
    devices = count_devices(settings, asked_gpus(script))
    found = f"{per_node or '1 (not set)'}; trainer.devices {settings.devices}"
    good = devices is None or devices == int(per_node if per_node.isdigit() else 1)
    yield ok_or_warn(
        good, name, found, f"#SBATCH --ntasks-per-node={devices}     (= trainer.devices)", otherwise="FAIL"
    )
    nodes = re.split(r"[-,]", script.value("nodes", "1"))[-1]
    yield ok_or_warn(
        nodes == str(settings.num_nodes),
        "sbatch --nodes",
        f"{nodes}; trainer.num_nodes {settings.num_nodes}",
        f"#SBATCH --nodes={settings.num_nodes}, or --trainer.num_nodes {nodes}",
        otherwise="FAIL",
    )
